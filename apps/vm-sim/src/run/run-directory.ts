import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Scenario } from '@faultline/machine';
import { UsageError } from '../exit-code.ts';

/** Marks the document that `vm-sim compare` writes. */
export const COMPARISON_SCHEMA = 'faultline.comparison/1';
/** Marks the `config.json` of a run directory. */
export const CONFIG_SCHEMA = 'faultline.config/1';

/** What `config.json` holds: with it the run can be repeated. */
export interface RunConfig {
  readonly schema: typeof CONFIG_SCHEMA;
  readonly version: string;
  readonly seed: number;
  readonly scenario: Scenario;
}

/**
 * Makes the directory of a run, or takes that of an earlier run, whose files will be replaced.
 * @param mark the file by which its own directories are known
 * @throws UsageError for a directory that holds something else, and for one that cannot be written
 */
export function openRunDirectory(path: string, given: string, mark = 'config.json'): void {
  if (given === '-') throw new UsageError('--output -: expected a directory; --json prints the document to stdout');
  try {
    if (existsSync(path)) {
      if (!statSync(path).isDirectory()) throw new UsageError(`--output ${given}: is not a directory`);
      if (readdirSync(path).length > 0 && !isOurs(path, mark))
        throw new UsageError(
          `--output ${given}: holds other files than ${mark === 'config.json' ? "a run's" : "a comparison's"}; give a new or an empty directory`,
        );
    }
    makeDirectory(path);
    // Finding out now that nothing can be written is better than after the run.
    const probe = join(path, mark);
    writeFileSync(probe, existsSync(probe) ? readFileSync(probe) : '');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--output ${given}: cannot be written (${(error as NodeJS.ErrnoException).code ?? error})`);
  }
}

/** `recursive` of Node 20 never returns where the system says ENOENT below a directory that exists, as /proc does. */
function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  if (dirname(path) !== path) makeDirectory(dirname(path));
  mkdirSync(path);
}

function isOurs(path: string, mark: string): boolean {
  try {
    const text = readFileSync(join(path, mark), 'utf8');
    const { schema } = text === '' ? {} : (JSON.parse(text) as { schema?: unknown });
    return text === '' || schema === (mark === 'config.json' ? CONFIG_SCHEMA : COMPARISON_SCHEMA);
  } catch {
    return false;
  }
}

/** A JSON document as it is written and printed: indented, one line end at its end. */
export const jsonText = (document: unknown): string => `${JSON.stringify(document, null, 2)}\n`;

/** Writes files into a run directory. @throws UsageError if the disk refuses */
export function writeRunFiles(path: string, files: Readonly<Record<string, string | Uint8Array>>): void {
  for (const [name, content] of Object.entries(files)) {
    try {
      writeFileSync(join(path, name), content);
    } catch (error) {
      throw new UsageError(
        `${join(path, name)}: cannot be written (${(error as NodeJS.ErrnoException).code ?? error})`,
      );
    }
  }
}
