import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Manifest } from './manifest.ts';
import { parseSource, type Source } from './source.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));

/** A package or an application of the workspace, read from the checkout. */
export interface Member {
  /** Its directory's name, which is its name without the scope. */
  readonly directory: string;
  readonly manifest: Manifest;
  /** Paths relative to its directory, with `/`, sorted. */
  readonly files: readonly string[];
  /** The code below `src` and `test`. */
  readonly sources: readonly Source[];
}

const unread = new Set(['node_modules', 'dist', 'reports', '.turbo', 'vectors', 'fixtures']);

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (unread.has(entry.name)) return [];
    const path = join(directory, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

function readManifest(path: string): Manifest {
  return JSON.parse(readFileSync(path, 'utf8')) as Manifest;
}

/** The members of `packages` or `apps`. */
export function readMembers(group: 'packages' | 'apps'): Member[] {
  return readdirSync(join(root, group))
    .sort()
    .filter((directory) => existsSync(join(root, group, directory, 'package.json')))
    .map((directory) => {
      const base = join(root, group, directory);
      const files = filesBelow(base)
        .map((path) => relative(base, path).split(sep).join('/'))
        .sort();
      const code = files.filter((path) => /^(src|test)\/.*\.tsx?$/.test(path));
      const sources = code.map((path) => parseSource(path, readFileSync(join(base, path), 'utf8')));
      return { directory, manifest: readManifest(join(base, 'package.json')), files, sources };
    });
}

export function readRootManifest(): Manifest {
  return readManifest(join(root, 'package.json'));
}

export function readChangesets(): string[] {
  const directory = join(root, '.changeset');
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .filter((name) => name.endsWith('.md') && name !== 'README.md')
    .map((name) => readFileSync(join(directory, name), 'utf8'));
}
