import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VERSION } from '@faultline/machine';
import { stringify } from 'yaml';
import { UsageError } from '../exit-code.ts';
import type { StormResult } from './storm-machine.ts';

/** Writes the scenario of a failure, as `vm-sim run` takes it. @returns the file's name */
export function writeFailure(directory: string, { seed, shrunk, failure }: StormResult): string {
  const name = `storm-${seed}.yaml`;
  const message = `${failure?.kind}: ${failure?.message}`.replaceAll('\n', ' ');
  const text = `# Fails with --seed ${seed} at ${revision()}: ${message}\n${stringify(shrunk)}`;
  try {
    writeFileSync(join(directory, name), text);
  } catch (error) {
    throw new UsageError(
      `${join(directory, name)}: cannot be written (${(error as NodeJS.ErrnoException).code ?? error})`,
    );
  }
  return name;
}

/** The commit of the checkout that the program is part of, else its version. */
export function revision(): string {
  for (let at = fileURLToPath(new URL('.', import.meta.url)); at !== join(at, '..'); at = join(at, '..')) {
    const head = join(at, '.git', 'HEAD');
    if (!existsSync(head)) continue;
    const text = readFileSync(head, 'utf8').trim();
    const branch = /^ref: (.+)$/.exec(text)?.[1];
    const file = branch === undefined ? undefined : join(at, '.git', branch);
    if (branch === undefined) return text;
    if (file !== undefined && existsSync(file)) return readFileSync(file, 'utf8').trim();
    return `version ${VERSION}`;
  }
  return `version ${VERSION}`;
}
