import { describe, expect, it } from 'vitest';
import { runApplication } from '../src/application.ts';
import type { ProtocolVerifier, Verification } from '../src/verify/protocol-verifier.ts';
import { fakeMachine } from './support/fake-machine.ts';
import { fakeTerminal } from './support/fake-terminal.ts';
import { invoke } from './support/invocation.ts';

const HOLDS: Verification = {
  protocol: 'cut',
  title: 'what it claims',
  verdict: 'holds',
  executions: 1234,
  steps: 5678,
  longest: 9,
  configurations: [{ name: '1G->4K', executions: 1234, verdict: 'holds' }],
  counterexample: null,
};
const VIOLATED: Verification = {
  ...HOLDS,
  verdict: 'violated',
  configurations: [{ name: '2M->4K', executions: 3, verdict: 'violated' }],
  counterexample: {
    configuration: '2M->4K',
    invariant: 'I3',
    message: 'guest memory taken for a table',
    schedule: [
      { agent: 'device', step: 'translate', what: 'translation cache' },
      { agent: 'host', step: 'clear', what: 'entry 0x1000' },
    ],
  },
};

function verifier(result: Verification, yields = 3): ProtocolVerifier {
  return {
    protocols: [{ name: 'cut', title: 'a cut' }],
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
    expect(out).toContain('HOLDS  cut: in every interleaving explored\n  what it claims\n  1,234 executions');
    expect(out).not.toContain('1G->4K');
    expect(err.trimEnd().split('\n')).toEqual([expect.stringMatching(/^vm-sim .*verify cut$/), 'vm-sim verify cut']);
    expect((await invoke(['verify', 'cut', '-v'], { verifier: verifier(HOLDS) })).out).toContain('1G->4K');
  });

  it('exits 3 with the schedule that breaks it', async () => {
    const { code, out } = await invoke(['verify', 'cut'], { verifier: verifier(VIOLATED) });
    expect(code).toBe(3);
    expect(out).toContain('VIOLATED  cut: I3 in 2M->4K');
    expect(out).toContain('    1  device  translate  translation cache\n    2  host    clear      entry 0x1000\n');
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
});
