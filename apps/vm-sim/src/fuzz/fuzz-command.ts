import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { parseDurationNs } from '@faultline/address';
import { type StormFigures, VERSION } from '@faultline/machine';
import { aligned, counted, plural, wrapped } from '../columns.ts';
import { EXIT, type ExitCode, UsageError } from '../exit-code.ts';
import { Interruption } from '../interruption.ts';
import { ProgressMeter } from '../progress-meter.ts';
import { jsonText } from '../run/run-directory.ts';
import { type Palette, paletteFor, type Terminal } from '../terminal.ts';
import { Corpus } from './corpus.ts';
import { revision, writeFailure } from './failure-file.ts';
import { StormCoverage } from './storm-coverage.ts';
import type { StormResult } from './storm-machine.ts';
import { type StormPool, workerPool } from './storm-pool.ts';

/** Options of `vm-sim fuzz`. */
export interface FuzzOptions {
  readonly runs?: number;
  /** Wall time, such as `10min` in seconds: `600s`. */
  readonly time?: string;
  readonly jobs?: number;
  readonly seed?: number;
  readonly corpus?: string;
  /** Where scenario files of failures go. */
  readonly output?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Makes the pool that machines run in; a test gives another. */
export type PoolFactory = (jobs: number) => StormPool;

/** In threads even if it is one, so that Ctrl-C need not wait for a machine. */
const realPool: PoolFactory = (jobs) => workerPool(jobs, new URL('./storm-worker.js', import.meta.url));

const DEFAULT_RUNS = 300;
/** A storm that is ended from outside loses no more machines than this from its corpus. */
const SAVE_EVERY = 100;

/** A failure as it is printed. */
interface FuzzFailure {
  readonly seed: number;
  readonly kind: string;
  readonly message: string;
  readonly file: string;
}

/** Runs random machines until so many are through, the time is over, or the user stops it. Exit 3 if one failed. */
export async function fuzzCommand(
  options: FuzzOptions,
  terminal: Terminal,
  makePool: PoolFactory = realPool,
): Promise<ExitCode> {
  const limitMs = options.time === undefined ? Number.POSITIVE_INFINITY : millisecondsOf(options.time);
  const runs = options.runs ?? (options.time === undefined ? DEFAULT_RUNS : Number.POSITIVE_INFINITY);
  const corpusPath = options.corpus === undefined ? null : resolve(terminal.cwd, options.corpus);
  const corpus = new Corpus(corpusPath, options.corpus ?? '', options.seed);
  const directory = resolve(terminal.cwd, options.output ?? '.');
  const say = (line: string): void => {
    if (!options.quiet) terminal.stderr.write(`${line}\n`);
  };
  say(`vm-sim ${VERSION}, Node ${process.versions.node}, fuzz from seed ${corpus.firstSeed} at ${revision()}`);
  const storm = new Storm(corpus, directory, (name) => relative(terminal.cwd, join(directory, name)));
  const interruption = new Interruption(terminal);
  const meter = new ProgressMeter(terminal, options.quiet ?? false);
  const pool = makePool(options.jobs ?? availableParallelism());
  const startMs = terminal.nowMs();
  const isOver = (): boolean => interruption.requested || terminal.nowMs() - startMs >= limitMs || storm.begun >= runs;
  try {
    for (;;) {
      while (pool.hasRoom && !isOver()) pool.begin(storm.takeSeed());
      // Ctrl-C gives up the machines that are under way; the corpus goes on with them.
      const result = await Promise.race([pool.next(), interruption.pressed]);
      if (!result) break;
      const failure = storm.add(result);
      if (failure || storm.machines % SAVE_EVERY === 0) corpus.save(storm.firstUnfinished);
      meter.clear();
      if (failure) say(failureLine(failure, terminal));
      meter.update({
        fraction: Number.isFinite(runs) ? storm.machines / runs : (terminal.nowMs() - startMs) / limitMs,
        done: storm.machines,
        unit: 'machines',
        phase: `${plural(storm.failures.length, 'failure')}, ${plural(corpus.size, 'combination')}`,
      });
      await terminal.breathe();
    }
  } finally {
    meter.clear();
    interruption.end();
    corpus.save(storm.firstUnfinished);
    await pool.close();
  }
  const seconds = (terminal.nowMs() - startMs) / 1000;
  terminal.stdout.write(
    options.json
      ? jsonText(storm.document())
      : `${storm.lines(seconds, terminal, paletteFor(terminal.stdout, terminal.env)).join('\n')}\n`,
  );
  if (interruption.requested) return EXIT.interrupted;
  return storm.failures.length > 0 ? EXIT.failed : EXIT.ok;
}

function millisecondsOf(text: string): number {
  try {
    return parseDurationNs(text) / 1e6;
  } catch {
    throw new UsageError(`--time ${text}: expected a duration such as 90s or 500ms`);
  }
}

const failureLine = ({ seed, kind, message, file }: FuzzFailure, terminal: Terminal): string =>
  `FAILED  seed ${seed}: ${kind}: ${message}\n        ${terminal.startedAs} run ${file} --seed ${seed}`;

/** What a storm has come to so far. */
class Storm {
  begun = 0;
  machines = 0;
  readonly failures: FuzzFailure[] = [];
  readonly #corpus: Corpus;
  readonly #directory: string;
  readonly #shown: (name: string) => string;
  readonly #again: number[];
  readonly #coverage = new StormCoverage();
  readonly #figures: Record<keyof StormFigures, number> = {
    dmaPages: 0,
    swapOut: 0,
    pageRequests: 0,
    notifierRanges: 0,
    events: 0,
    injected: 0,
    checks: 0,
  };
  readonly #underWay = new Set<number>();
  #nextSeed: number;

  constructor(corpus: Corpus, directory: string, shown: (name: string) => string) {
    this.#shown = shown;
    this.#corpus = corpus;
    this.#directory = directory;
    this.#again = [...corpus.failedBefore];
    this.#nextSeed = corpus.firstSeed;
  }

  /** Those that failed before come first. */
  takeSeed(): number {
    this.begun++;
    const seed = this.#again.shift() ?? this.#nextSeed++;
    this.#underWay.add(seed);
    return seed;
  }

  /** Where another storm goes on: the first seed that no machine is through with. Those that failed before are kept anyway. */
  get firstUnfinished(): number {
    return Math.min(this.#nextSeed, ...[...this.#underWay].filter((seed) => !this.#corpus.failedBefore.includes(seed)));
  }

  add(result: StormResult): FuzzFailure | null {
    const { seed, failure, figures, signature } = result;
    this.machines++;
    this.#underWay.delete(seed);
    for (const name of Object.keys(this.#figures) as (keyof StormFigures)[]) this.#figures[name] += figures[name];
    this.#coverage.add(result.reached, result.injected);
    this.#corpus.add(seed, signature, failure !== null);
    if (failure === null) return null;
    const found = { seed, ...failure, file: this.#shown(writeFailure(this.#directory, result)) };
    this.failures.push(found);
    return found;
  }

  document(): unknown {
    return {
      schema: 'faultline.fuzz/1',
      version: VERSION,
      revision: revision(),
      firstSeed: this.#corpus.firstSeed,
      machines: this.machines,
      combinations: this.#corpus.size,
      figures: this.#figures,
      ...this.#coverage.document(),
      failures: [...this.failures].sort((a, b) => a.seed - b.seed),
    };
  }

  lines(seconds: number, terminal: Terminal, color: Palette): string[] {
    const failed = this.failures.length;
    const perHour = (count: number): string => counted(seconds > 0 ? (count / seconds) * 3600 : 0);
    const { dmaPages, swapOut, pageRequests, notifierRanges, events, injected, checks } = this.#figures;
    const heading =
      failed === 0
        ? color.green(color.bold(`NO VIOLATION in ${plural(this.machines, 'machine')}`))
        : color.red(color.bold(`${failed} of ${plural(this.machines, 'machine')} FAILED`));
    return [
      `${heading}, ${seconds.toFixed(1)} s`,
      ...aligned([
        ['machines', counted(this.machines), `${perHour(this.machines)} an hour`],
        ['pages of DMA', counted(dmaPages), `${perHour(dmaPages)} an hour`],
        ['checks of invariants', counted(checks), ''],
        ['page requests', counted(pageRequests), ''],
        ['notifier ranges', counted(notifierRanges), ''],
        ['pages swapped out', counted(swapOut), ''],
        ['host events', counted(events), ''],
        ['failures on purpose, survived', counted(injected), ''],
        ['combinations of features', counted(this.#corpus.size), ''],
      ]).map((line) => `  ${line}`),
      ...this.#coverage.lines(),
      ...this.failures.flatMap((failure) => [
        color.red(`seed ${failure.seed}: ${failure.kind}`),
        ...wrapped(failure.message, 96).map((line) => `  ${line}`),
        `  ${terminal.startedAs} run ${failure.file} --seed ${failure.seed}`,
      ]),
    ];
  }
}
