import { type Engines, runApplication } from '../../src/application.ts';
import type { ProtocolVerifier } from '../../src/verify/protocol-verifier.ts';
import { fakeMachine } from './fake-machine.ts';
import { type FakeOptions, fakeTerminal } from './fake-terminal.ts';

export const NO_PROTOCOLS: ProtocolVerifier = {
  protocols: [{ name: 'cut', title: 'a cut under a walker', configurations: [] }],
  verify: () => {
    throw new Error('not in this test');
  },
};

export interface Invocation {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command line in this process, with a fake machine unless another engine is given. */
export async function invoke(
  args: readonly string[],
  options: FakeOptions & Partial<Engines> = {},
): Promise<Invocation> {
  const terminal = fakeTerminal(options);
  const code = await runApplication(args, terminal, {
    buildMachine: options.buildMachine ?? fakeMachine(),
    verifier: options.verifier ?? NO_PROTOCOLS,
  });
  return { code, out: terminal.out(), err: terminal.err() };
}
