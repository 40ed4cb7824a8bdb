import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { UsageError } from '../exit-code.ts';
import { jsonText } from '../run/run-directory.ts';

const CORPUS_SCHEMA = 'faultline.corpus/1';

const corpusSchema = z.object({
  schema: z.literal(CORPUS_SCHEMA),
  /** The first seed that has not been run. */
  nextSeed: z.number().int(),
  /** A seed for each combination of features that was seen. */
  interesting: z.record(z.string(), z.number().int()),
  /** Seeds that failed. */
  failed: z.array(z.number().int()),
});

/** What a storm has seen: where to go on, and a seed for everything that happened. */
export class Corpus {
  readonly #path: string | null;
  readonly #interesting: Map<string, number>;
  readonly #failed: Set<number>;
  /** Seeds of machines that failed before. */
  readonly failedBefore: readonly number[];
  readonly firstSeed: number;

  /** @param path file, made if it is not there; null to keep nothing @throws UsageError for a file that is no corpus */
  constructor(path: string | null, given: string, seed: number | undefined) {
    this.#path = path;
    const read = path !== null && existsSync(path) ? readCorpus(path, given) : null;
    this.#interesting = new Map(Object.entries(read?.interesting ?? {}));
    this.failedBefore = read?.failed ?? [];
    this.#failed = new Set(this.failedBefore);
    this.firstSeed = seed ?? read?.nextSeed ?? 1;
    if (path !== null) this.save(this.firstSeed); // to find out now that it cannot be written
  }

  /** Combinations of features seen so far. */
  get size(): number {
    return this.#interesting.size;
  }

  /** Notes a machine. @returns whether it did something new */
  add(seed: number, signature: string, failed: boolean): boolean {
    if (failed) this.#failed.add(seed);
    else this.#failed.delete(seed);
    if (this.#interesting.has(signature)) return false;
    this.#interesting.set(signature, seed);
    return true;
  }

  /** Writes the file, whole or not at all. */
  save(nextSeed: number): void {
    if (this.#path === null) return;
    const document = {
      schema: CORPUS_SCHEMA,
      nextSeed,
      interesting: Object.fromEntries([...this.#interesting].sort(([a], [b]) => (a < b ? -1 : 1))),
      failed: [...this.#failed].sort((a, b) => a - b),
    };
    try {
      writeFileSync(`${this.#path}.new`, jsonText(document));
      renameSync(`${this.#path}.new`, this.#path);
    } catch (error) {
      throw new UsageError(`--corpus: cannot be written (${(error as NodeJS.ErrnoException).code ?? error})`);
    }
  }
}

function readCorpus(path: string, given: string): z.output<typeof corpusSchema> {
  try {
    return corpusSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    throw new UsageError(`--corpus ${given}: expected a file that \`vm-sim fuzz --corpus\` wrote, or a new one`);
  }
}
