import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Outcome } from './benchmark.ts';

/** Debian's compiler with its ordinary optimisation and no tuning for this machine; V8 has no such tuning either. */
const COMPILER = 'gcc';
const FLAGS = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-Werror'] as const;

/** There is no C compiler here, or no C library; the message names the packages. */
export class CompilerMissing extends Error {
  override readonly name = 'CompilerMissing';
}

/** One line about the compiler for the head of the table. @throws CompilerMissing */
export function compilerVersion(): string {
  const { status, stdout } = spawnSync(COMPILER, ['--version'], { encoding: 'utf8' });
  if (status !== 0)
    throw new CompilerMissing(`needs ${COMPILER} to compile the C side: apt-get install gcc libc6-dev (Debian)`);
  return `${stdout.split('\n')[0]} ${FLAGS[0]}`;
}

/** The native side: `tools/bench/native` compiled for this run, and running. One request at a time. */
export class Native {
  readonly #directory: string;
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  private constructor(directory: string) {
    this.#directory = directory;
    this.#process = spawn(join(directory, 'bench'), [], { stdio: ['pipe', 'pipe', 'inherit'] });
    // A write to a side that died is reported by the missing answer.
    this.#process.stdin.on('error', () => undefined);
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** Compiles and starts it. @throws CompilerMissing, or Error with the compiler's output */
  static start(): Native {
    compilerVersion();
    const source = fileURLToPath(new URL('../native/bench.c', import.meta.url));
    const directory = mkdtempSync(join(tmpdir(), 'faultline-bench-'));
    const { status, stderr } = spawnSync(COMPILER, [...FLAGS, '-o', join(directory, 'bench'), source], {
      encoding: 'utf8',
    });
    if (status === 0) return new Native(directory);
    rmSync(directory, { recursive: true });
    if (/stdio\.h: No such file/.test(stderr))
      throw new CompilerMissing('needs the headers of the C library: apt-get install libc6-dev (Debian)');
    throw new Error(`${COMPILER} does not compile ${source}:\n${stderr}`);
  }

  /** Does a round of a benchmark. @throws Error if the process ended or answered something else */
  async run(name: string, operations: number): Promise<Outcome> {
    this.#process.stdin.write(`${operations} ${name}\n`);
    const { value, done } = await this.#lines.next();
    const match = /^(\d+) (\d+)$/.exec(done ? '' : value);
    if (match === null) throw new Error(`${name}: the C side ${done ? 'ended' : `answered \`${value}\``}`);
    return { ns: Number(match[1]), checksum: Number(match[2]) };
  }

  /** Ends the process and removes what was compiled. */
  async stop(): Promise<void> {
    const { exitCode, signalCode } = this.#process;
    this.#process.stdin.end();
    if (exitCode === null && signalCode === null) await once(this.#process, 'exit');
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
