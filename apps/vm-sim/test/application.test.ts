import { BUILT_IN_SCENARIOS } from '@faultline/machine';
import { describe, expect, it } from 'vitest';
import { invoke } from './support/invocation.ts';

describe('the command line', () => {
  it('helps on stdout', async () => {
    for (const args of [['--help'], ['-h'], ['run', '--help'], ['replay', '-h'], ['explain', '-h']]) {
      const { code, out, err } = await invoke(args);
      expect({ code, err }).toEqual({ code: 0, err: '' });
      expect(out).toContain('Usage: vm-sim');
    }
    const { out } = await invoke(['--help']);
    for (const name of ['run', 'list', 'check', 'compare', 'replay', 'verify', 'zoo', 'fuzz', 'explain', 'schema'])
      expect(out).toContain(`  ${name} `);
    for (const name of ['density', 'sweep']) expect(out).not.toContain(name);
  });

  it.each(['density', 'sweep', 'reproduce', 'report'])('says that %s is not there yet', async (name) => {
    const { code, out, err } = await invoke([name, 'x', '--y']);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toBe(
      `error: ${name} is not implemented yet; there is run, list, check, compare, replay, verify, zoo, fuzz, explain, schema\n`,
    );
  });

  it.each([
    [['--sed', '1'], "unknown option '--sed'"],
    [['run', 'a', 'b'], 'too many arguments'],
    [['check'], "missing required argument 'scenario'"],
    [['replay'], "missing required argument 'file'"],
    [['run', '--output'], 'argument missing'],
    [['schema', 'stat'], 'did you mean "stats"?'],
  ])('%j is a usage error', async (args, message) => {
    const { code, out, err } = await invoke(args);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toContain(message);
  });

  it('takes flags before the command, too', async () => {
    expect(JSON.parse((await invoke(['--json', 'list'])).out)).toHaveLength(BUILT_IN_SCENARIOS.length);
    expect((await invoke(['-q', 'run', 'whole-leaf'])).out).toContain('whole-leaf, strategy whole-leaf');
    expect((await invoke(['-q', 'compare'])).err).toContain("missing required argument 'scenario'");
    expect((await invoke(['--seed', '3', 'list'])).code).toBe(2);
  });

  it('lists the scenarios', async () => {
    const json = JSON.parse((await invoke(['list', '--json'])).out);
    expect(json[0]).toEqual({ name: '1g-swap-storm', title: expect.any(String) });
    const text = (await invoke(['list'])).out.trimEnd().split('\n');
    expect(text).toHaveLength(json.length);
    expect(text[0]).toMatch(/^1g-swap-storm {2,}a 16 GiB VM/);
  });

  it('prints schemas', async () => {
    expect(JSON.parse((await invoke(['schema'])).out)).toMatchObject({ properties: { vm: { type: 'object' } } });
    expect(JSON.parse((await invoke(['schema', 'stats'])).out)).toMatchObject({
      properties: { dma: { type: 'object' } },
    });
    expect((await invoke(['--version'])).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('checks every built-in scenario', async () => {
    for (const { name } of JSON.parse((await invoke(['list', '--json'])).out))
      expect(await invoke(['check', name])).toMatchObject({ code: 0, err: '' });
  });
});
