/** The commands of this version. */
export const COMMANDS: readonly string[] = [
  'run',
  'list',
  'check',
  'compare',
  'replay',
  'verify',
  'zoo',
  'fuzz',
  'explain',
  'schema',
];

const SAFE = /^[A-Za-z0-9_@%+=:,./-]+$/;

/** A word as a POSIX shell reads it back. */
export function quoted(word: string): string {
  return SAFE.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** What decides a run, as the user gave it. */
export interface RunWords {
  readonly scenario: string;
  readonly seed: number;
  readonly set: readonly string[];
  readonly failOn: readonly string[];
  readonly output?: string | undefined;
  readonly json?: boolean | undefined;
}

/** The command that runs the same again. A scenario from stdin has to be given again. */
export function runCommandLine(startedAs: string, words: RunWords): string {
  const args = ['run', words.scenario];
  for (const value of words.set) args.push('--set', value);
  for (const value of words.failOn) args.push('--fail-on', value);
  args.push('--seed', String(words.seed));
  if (words.output !== undefined) args.push('--output', words.output);
  if (words.json) args.push('--json');
  const line = `${startedAs} ${args.map(quoted).join(' ')}`;
  return words.scenario === '-' ? `${line} < SCENARIO` : line;
}

/** What decides a comparison, as the user gave it. */
export interface CompareWords {
  readonly scenarios: readonly string[];
  readonly seed: number;
  readonly strategies?: string | undefined;
  readonly set: readonly string[];
  readonly output?: string | undefined;
  readonly json?: boolean | undefined;
}

/** The command that compares the same again. */
export function compareCommandLine(startedAs: string, words: CompareWords): string {
  const args = ['compare', ...words.scenarios];
  if (words.strategies !== undefined) args.push('--strategies', words.strategies);
  for (const value of words.set) args.push('--set', value);
  args.push('--seed', String(words.seed));
  if (words.output !== undefined) args.push('--output', words.output);
  if (words.json) args.push('--json');
  return `${startedAs} ${args.map(quoted).join(' ')}`;
}
