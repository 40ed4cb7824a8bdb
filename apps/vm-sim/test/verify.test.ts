import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROTOCOLS, type ScheduledStep, type VerifyResult, verify } from '@faultline/interleave';
import { describe, expect, it } from 'vitest';
import { runApplication } from '../src/application.ts';
import type { ProtocolVerifier } from '../src/verify/protocol-verifier.ts';
import { fakeMachine } from './support/fake-machine.ts';
import { fakeTerminal } from './support/fake-terminal.ts';
import { invoke } from './support/invocation.ts';
import { temporaryDirectory } from './support/temporary-directory.ts';

const realVerifier: ProtocolVerifier = { protocols: PROTOCOLS, verify };

const step = (task: number, agent: string, label: string, what: string, access: 'read' | 'write'): ScheduledStep => ({
  task,
  chosen: 0,
  agent,
  step: label,
  access,
  kind: what.split(' 0x')[0] as string,
  location: 0,
  what,
});

const HOLDS: VerifyResult = {
  protocol: 'cut',
  title: 'what it claims',
  mode: 'exhaustive',
  verdict: 'holds',
  executions: 1234,
  pruned: 5,
  steps: 5678,
  states: 3456,
  ordersLog10: 12.3,
  longest: 9,
  configurations: [{ name: '1G->4K', executions: 1234, pruned: 5, states: 3456, ordersLog10: 12.3, verdict: 'holds' }],
  counterexample: null,
};
const VIOLATED: VerifyResult = {
  ...HOLDS,
  verdict: 'violated',
  configurations: [{ name: '2M->4K', executions: 3, pruned: 0, states: 30, ordersLog10: 4, verdict: 'violated' }],
  counterexample: {
    configuration: '2M->4K',
    invariant: 'I3',
    message: 'guest memory taken for a table',
    stepsWhenFound: 9,
    schedule: [
      step(0, 'device', 'translate', 'translation cache', 'read'),
      step(1, 'host', 'clear', 'entry 0x1000', 'write'),
    ],
  },
};

function verifier(result: VerifyResult, yields = 3): ProtocolVerifier {
  return {
    protocols: [{ name: 'cut', title: 'a cut', configurations: [] }],
    *verify(_, { shouldStop }) {
      for (let executions = 1; executions <= yields; executions++) {
        yield { executions, steps: executions * 2 };
        if (shouldStop?.()) return { ...result, verdict: 'interrupted', executions };
      }
      return result;
    },
  };
}

describe('verify', () => {
  it('exits 0 where the protocol holds', async () => {
    const { code, out, err } = await invoke(['verify', 'cut'], { verifier: verifier(HOLDS) });
    expect(code).toBe(0);
    expect(out).toContain(
      'HOLDS  cut: in every interleaving\n  what it claims\n  1,234 executions of about 10^12 orders; 3,456 states, 5,678 steps',
    );
    expect(out).not.toContain('1G->4K');
    expect(err.trimEnd().split('\n')).toEqual([expect.stringMatching(/^vm-sim .*verify cut$/), 'vm-sim verify cut']);
    expect((await invoke(['verify', 'cut', '-v'], { verifier: verifier(HOLDS) })).out).toContain('1G->4K');
  });

  it('exits 3 with the schedule that breaks it', async () => {
    const { code, out } = await invoke(['verify', 'cut'], { verifier: verifier(VIOLATED) });
    expect(code).toBe(3);
    expect(out).toContain('VIOLATED  cut: I3 in 2M->4K');
    expect(out).toContain('Counterexample, 2 steps (found with 9)\n  guest memory taken for a table\n');
    expect(out).toMatch(/device +host\n/);
    expect(out).toMatch(/○ translate: translation cache +│\n/);
    expect(out).toMatch(/│ +● clear: entry 0x1000\n/);
    const json = await invoke(['verify', 'cut', '--json', '-q'], { verifier: verifier(VIOLATED) });
    expect(json).toMatchObject({ code: 3, err: '' });
    expect(JSON.parse(json.out)).toEqual(VIOLATED);
  });

  it('ends on Ctrl-C with what was explored', async () => {
    const terminal = fakeTerminal({ stepMs: 50 });
    const endless = verifier(HOLDS, 1e9);
    const breathe = async () => terminal.interrupt();
    const code = await runApplication(
      ['verify', 'cut'],
      { ...terminal, breathe },
      { buildMachine: fakeMachine(), verifier: endless },
    );
    expect(code).toBe(130);
    expect(terminal.out()).toContain('NOT FINISHED  cut: interrupted; no violation until then');
  });

  it('says what protocols there are', async () => {
    expect(await invoke(['verify', 'cutt'])).toMatchObject({
      code: 2,
      err: 'error: there is no protocol "cutt"; did you mean "cut"?\n',
    });
    expect((await invoke(['verify'])).code).toBe(2);
    expect((await invoke(['verify', 'cut', '--max-executions', '0'])).code).toBe(2);
    expect((await invoke(['verify', '--help'])).out).toContain('cut  a cut under a walker');
  });

  it('takes its steps again from what --json printed, draws them in Mermaid, and says what is wrong with a file', async () => {
    const directory = temporaryDirectory();
    const [json, mermaid] = [join(directory, 'naive.json'), join(directory, 'naive.mmd')];
    const found = await invoke(['verify', 'naive', '--json', '-q', '--mermaid', mermaid], { verifier: realVerifier });
    expect(found.code).toBe(3);
    expect(readFileSync(mermaid, 'utf8')).toMatch(/^sequenceDiagram\n[\s\S]*I3 broken/);
    writeFileSync(json, found.out);
    const again = await invoke(['verify', '--replay', json, '-q'], { verifier: realVerifier });
    expect(again.code).toBe(3);
    expect(again.out).toMatch(/^VIOLATED {2}naive: I3 in 2M->4K/);
    writeFileSync(json, found.out.replace('"protocol": "naive"', '"protocol": "cut"'));
    const other = await invoke(['verify', '--replay', json, '-q'], { verifier: realVerifier });
    expect(other.code === 2 ? other.err : other.out).toMatch(
      /schedule\[\d+\]: .* cannot go on|HOLDS {2}cut: these steps break nothing/,
    );
    for (const [text, message] of [
      ['{', 'is not JSON'],
      ['{"protocol":"cut","counterexample":null}', 'at counterexample'],
      [found.out.replace('"protocol": "naive"', '"protocol": "naiv"'), 'did you mean "naive"?'],
      [found.out.replaceAll('2M->4K', '3M->4K'), 'has no configuration "3M->4K'],
    ] as const) {
      writeFileSync(json, text);
      const bad = await invoke(['verify', '--replay', json], { verifier: realVerifier });
      expect([bad.code, bad.err]).toEqual([2, expect.stringContaining(message)]);
    }
    expect(await invoke(['verify', '--replay', join(directory, 'none')])).toMatchObject({
      code: 2,
      err: expect.stringContaining('cannot be read (ENOENT)'),
    });
    expect((await invoke(['verify', 'cut', '--replay', json])).err).toContain('leave it out');
  });

  it('refuses options that do not go together', async () => {
    expect((await invoke(['verify', 'cut', '--random', '5', '--preemptions', '1'])).err).toContain('give one of them');
    expect((await invoke(['verify', 'cut', '--seed', '5'])).err).toContain('give --random too');
  });
});
