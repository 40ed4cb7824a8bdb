/** What a package must bring besides its sources; `files` are paths relative to it. */
export function contentViolations(options: {
  readonly name: string;
  readonly files: readonly string[];
  /** The texts of the pending changesets. */
  readonly changesets: readonly string[];
  readonly isLibrary: boolean;
}): string[] {
  const { name, files, changesets, isLibrary } = options;
  const found: string[] = [];
  for (const file of ['README.md', 'LICENSE', ...(isLibrary ? ['src/index.ts'] : [])]) {
    if (!files.includes(file)) found.push(`${file} is missing`);
  }
  if (!files.some((file) => /^test\/.*\.test\.ts$/.test(file))) found.push('test/ has no *.test.ts');
  const isAnnounced = changesets.some((text) => new RegExp(`^['"]?${name}['"]?:`, 'm').test(text));
  if (!isAnnounced && !files.includes('CHANGELOG.md')) found.push('neither a changeset nor a CHANGELOG.md');
  return found;
}
