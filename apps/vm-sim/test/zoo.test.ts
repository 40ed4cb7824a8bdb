import { type Defect, type ExploredDefect, type MeasuredDefect, PROTOCOLS, verify, ZOO } from '@faultline/interleave';
import { describe, expect, it } from 'vitest';
import type { ProtocolVerifier } from '../src/verify/protocol-verifier.ts';
import { invoke } from './support/invocation.ts';

const [first] = ZOO as [ExploredDefect, ...Defect[]];
const inflation = ZOO.find(({ id }) => id === 'D7') as MeasuredDefect;
const HARMLESS: ExploredDefect = {
  ...first,
  id: 'harmless',
  title: 'nothing is wrong with it',
  protocol: PROTOCOLS.find(({ name }) => name === 'dirty-harvest') as ExploredDefect['protocol'],
};
const verifierOf = (...zoo: readonly Defect[]): ProtocolVerifier => ({ protocols: PROTOCOLS, zoo, verify });

describe('zoo', () => {
  it('runs the defects, and says in how many steps each is found', async () => {
    const { code, out } = await invoke(['zoo', '-q'], { verifier: verifierOf(first) });
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`^ALL 1 FOUND\\n {2}${first.id} +I\\d+ in \\d+ steps +${first.title}\\n`));
    const json = await invoke(['zoo', '--json', '-q'], { verifier: verifierOf(first) });
    expect(JSON.parse(json.out)).toEqual([
      {
        id: first.id,
        title: first.title,
        found: true,
        steps: expect.any(Number),
        invariant: expect.any(String),
        measured: null,
      },
    ]);
  });

  it('exits 3 if one is not found', async () => {
    const { code, out } = await invoke(['zoo', '-q'], { verifier: verifierOf(HARMLESS) });
    expect(code).toBe(3);
    expect(out).toMatch(/^1 defect NOT FOUND\n {2}harmless +not found/);
  });

  it('explains one, and draws its schedule', async () => {
    const { code, out } = await invoke(['zoo', first.id, '-q'], { verifier: verifierOf(first, HARMLESS) });
    expect(code).toBe(0);
    expect(out).toContain(`${first.id}  ${first.title}\n`);
    expect(out).toContain('Counterexample, ');
    expect(out).toMatch(/I\d+ broken: /);
  });

  it('measures what breaks no invariant', async () => {
    const { code, out } = await invoke(['zoo', 'D7', '--json', '-q'], { verifier: verifierOf(inflation) });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual([
      {
        id: 'D7',
        title: inflation.title,
        found: true,
        steps: expect.any(Number),
        invariant: null,
        measured:
          '4K pages reported dirty for one that was written: 2M leaf 511 instead of 1 (511x); 1G leaf 262,143 instead of 1 (262,143x)',
      },
    ]);
    const text = await invoke(['zoo', 'D7', '-q'], { verifier: verifierOf(inflation) });
    expect(text.out).toContain('\n  1G leaf 262,143 instead of 1 (262,143x)\n');
    const free: MeasuredDefect = {
      ...inflation,
      measure: () => ({ unit: 'pages', cases: [{ name: '2M', right: 1, wrong: 1 }], steps: 1 }),
    };
    expect((await invoke(['zoo', '-q'], { verifier: verifierOf(free) })).out).toMatch(
      /^1 defect NOT FOUND\n {2}D7 +not found/,
    );
  });

  it('knows no other', async () => {
    expect(await invoke(['zoo', 'harmles'], { verifier: verifierOf(HARMLESS) })).toMatchObject({
      code: 2,
      err: 'error: there is no defect "harmles"; did you mean "harmless"?; `vm-sim zoo` lists them\n',
    });
  });
});
