import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

/** Protocols that both explore to the end within seconds. */
export const EXPLORED: readonly string[] = ['unmap', 'collapse', 'dirty-harvest', 'detach'];

/**
 * A protocol, explored on the code that runs by `interleave`, and as a Promela model by spin's compiled verifier. The sizes differ, and so
 * do the states, which interleave counts each time that a schedule leads there: the ratio is of the time for one state.
 */
export interface VerificationRow {
  readonly name: string;
  /** Nanoseconds for one state, here and by spin. */
  readonly nsPerOp: number;
  readonly nativeNsPerOp: number;
  readonly ratio: number;
  readonly executions: number;
  readonly executionsPerSecond: number;
  readonly states: number;
  readonly nativeStates: number;
  readonly nativeStatesPerSecond: number;
  /** Whether both came to the same verdict. */
  readonly agree: boolean;
}

/** What `promela --compare --json` says of a protocol. */
interface Compared {
  readonly protocol: string;
  readonly agree: boolean;
  readonly interleave: { executions: number; states: number; seconds: number };
  readonly spin: { states: number; seconds: number };
}

/** The row of a protocol. */
export function verificationRow({ protocol, agree, interleave, spin }: Compared): VerificationRow {
  const nsPerOp = (interleave.seconds * 1e9) / interleave.states;
  const nativeNsPerOp = (spin.seconds * 1e9) / spin.states;
  return {
    name: `verify ${protocol}, a state`,
    nsPerOp,
    nativeNsPerOp,
    ratio: nsPerOp / nativeNsPerOp,
    executions: interleave.executions,
    executionsPerSecond: Math.round(interleave.executions / interleave.seconds),
    states: interleave.states,
    nativeStates: spin.states,
    nativeStatesPerSecond: Math.round(spin.states / spin.seconds),
    agree,
  };
}

/** Explores both, one after the other. @returns null, after a note, if spin is not there */
export async function compareWithSpin(
  protocols: readonly string[],
  note: (message: string) => void,
): Promise<VerificationRow[] | null> {
  if (protocols.length === 0) return [];
  const tool = fileURLToPath(new URL('../../promela/dist/main.js', import.meta.url));
  const child = spawn(process.execPath, [tool, '--compare', '--json', ...protocols], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
  if (child.exitCode === 0 || child.exitCode === 3) return (JSON.parse(out) as Compared[]).map(verificationRow);
  if (!/spin/.test(err)) throw new Error(`the comparison with spin ended with ${child.exitCode}: ${err}`);
  note(`no rows of verify: ${err.trim()}`);
  return null;
}
