import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type PanResult, parsePan } from './pan-output.ts';
import { UsageError } from './terminal.ts';
import { parseTrail, type Sources, type TrailStep } from './trail.ts';

/** A model to be explored. */
export interface Job {
  /** `models/<protocol>.pml`. */
  readonly protocol: string;
  readonly defines: readonly string[];
}

/** Bounds of one exploration. */
export interface Limits {
  readonly memoryMib: number;
  readonly seconds: number;
  readonly signal?: AbortSignal;
}

/** What became of a {@link Job}. */
export interface Exploration extends PanResult {
  /** Of the search, without making and compiling it. */
  readonly seconds: number;
  /** The shortest that breadth-first search finds; empty if nothing is broken. */
  readonly counterexample: readonly TrailStep[];
}

const run = promisify(execFile);
const MODELS = fileURLToPath(new URL('../models/', import.meta.url));

/** Safety only: every claim is an assertion or a process that must come to an end. */
const FLAGS = ['-O2', '-w', '-DSAFETY', '-DVECTORSZ=2048'] as const;
const DEPTH = 200_000;

/** One line about the tools. @throws UsageError if spin or gcc is not there */
export async function toolVersions(): Promise<string> {
  const versions: string[] = [];
  for (const [program, flag, packages] of [
    ['spin', '-V', 'spin'],
    ['gcc', '--version', 'gcc libc6-dev'],
  ] as const)
    try {
      versions.push((await run(program, [flag])).stdout.split('\n')[0] ?? '');
    } catch {
      throw new UsageError(`needs ${program}: apt-get install ${packages} (Debian)`);
    }
  return versions.join('; ');
}

/**
 * Explores a model, depth first; if an invariant is broken, once more breadth first for the shortest counterexample. Works in a temporary
 * directory, which is removed.
 * @throws Error if spin or gcc refuses the model, and AbortError when interrupted
 */
export async function explore(job: Job, limits: Limits): Promise<Exploration> {
  const directory = mkdtempSync(join(tmpdir(), 'faultline-promela-'));
  try {
    const workshop = new Workshop(directory, job, limits);
    await workshop.generate();
    const result = await workshop.search('depth-first');
    if (result.verdict !== 'violated') return { ...result, counterexample: [] };
    const shortest = await workshop.search('breadth-first');
    if (shortest.verdict !== 'violated') return { ...result, counterexample: [] };
    // The invariant is that of the schedule shown; the counts are those of the search that a correct model would get.
    return { ...result, invariant: shortest.invariant, counterexample: await workshop.trail() };
  } finally {
    rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** The temporary directory in which a model is turned into a program. */
class Workshop {
  readonly #directory: string;
  readonly #limits: Limits;
  readonly #model: string;
  readonly #flags: readonly string[];

  constructor(directory: string, { protocol, defines }: Job, limits: Limits) {
    this.#directory = directory;
    this.#limits = limits;
    this.#model = join(MODELS, `${protocol}.pml`);
    this.#flags = defines.map((define) => `-D${define}`);
  }

  async generate(): Promise<void> {
    await this.#run('spin', ['-a', ...this.#flags, this.#model]);
  }

  async search(order: 'depth-first' | 'breadth-first'): Promise<PanResult & { readonly seconds: number }> {
    const kind = order === 'depth-first' ? '-DCOLLAPSE' : '-DBFS';
    await this.#run('gcc', [...FLAGS, kind, `-DMEMLIM=${this.#limits.memoryMib}`, '-o', 'pan', 'pan.c']);
    const start = performance.now();
    const { output, timedOut } = await this.#pan(['-w22', `-m${DEPTH}`]);
    const seconds = (performance.now() - start) / 1000;
    if (timedOut)
      return {
        verdict: 'interrupted',
        invariant: null,
        states: 0,
        transitions: 0,
        depth: 0,
        reason: 'out of time',
        seconds,
      };
    return { ...parsePan(output), seconds };
  }

  async trail(): Promise<readonly TrailStep[]> {
    const trail = readdirSync(this.#directory).find((name) => name.endsWith('.trail'));
    if (trail === undefined) throw new Error(`${this.#model}: pan left no trail`);
    return parseTrail(await this.#run('spin', ['-k', trail, '-p', ...this.#flags, this.#model]), sources());
  }

  /** pan's exit status says little: a full memory is 1, an error found 0 or 1. */
  async #pan(args: readonly string[]): Promise<{ readonly output: string; readonly timedOut: boolean }> {
    const { seconds } = this.#limits;
    try {
      const { stdout, stderr } = await run('./pan', [...args], { ...this.#options, timeout: seconds * 1000 });
      return { output: stdout + stderr, timedOut: false };
    } catch (error) {
      const { stdout = '', stderr = '', killed = false, name } = error as Partial<ExecFileError>;
      if (name === 'AbortError') throw error;
      return { output: stdout + stderr, timedOut: killed };
    }
  }

  async #run(program: string, args: readonly string[]): Promise<string> {
    try {
      return (await run(program, [...args], this.#options)).stdout;
    } catch (error) {
      const { stdout = '', stderr = '', name } = error as Partial<ExecFileError>;
      if (name === 'AbortError') throw error;
      throw new Error(`${program} does not take ${this.#model} ${this.#flags.join(' ')}:\n${stdout}${stderr}`);
    }
  }

  get #options() {
    const { signal } = this.#limits;
    // The compiler keeps its own files there, too: one that is interrupted leaves them.
    const env = { ...process.env, TMPDIR: this.#directory };
    return { cwd: this.#directory, env, maxBuffer: 1 << 28, ...(signal ? { signal } : {}) };
  }
}

const sources = (): Sources =>
  new Map(
    readdirSync(MODELS, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.pml'))
      .map((name) => [join(MODELS, name), readFileSync(join(MODELS, name), 'utf8').split('\n')]),
  );

/** What a failed `execFile` rejects with. */
interface ExecFileError extends Error {
  readonly stdout: string;
  readonly stderr: string;
  readonly killed: boolean;
}
