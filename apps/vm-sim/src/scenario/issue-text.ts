import { scenarioSchema } from '@faultline/machine';
import { suggestion } from '../nearest.ts';
import { dotted, type KeyPath, keysOf, type Shape, shapeAt, wordsOf } from './shape.ts';

type SafeParsed = ReturnType<typeof scenarioSchema.safeParse>;
/** One complaint of the schema. */
export type SchemaIssue = NonNullable<SafeParsed['error']>['issues'][number];

/** A complaint for the user: where in the scenario, and what was expected there. */
export interface Complaint {
  /** The value, or for an unknown key its map followed by the key. */
  readonly path: KeyPath;
  /** Whether the key itself is wrong, not its value. */
  readonly atKey: boolean;
  readonly message: string;
}

const NOUNS: Readonly<Record<string, string>> = {
  object: 'a map',
  array: 'a list',
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

/** What a user sees of a value: `"4K"`, `5`, `nothing`, `a map`. */
export function shown(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  return JSON.stringify(value);
}

/** What stands at a path, or undefined. */
export function valueAt(root: unknown, path: KeyPath): unknown {
  let value = root;
  for (const key of path)
    value = typeof value === 'object' && value !== null ? (value as Record<string | number, unknown>)[key] : undefined;
  return value;
}

/** What is wanted where a text is, in the schema's own words: it knows when it is shown a text that is wrong. */
function expectedText(path: KeyPath): string {
  const probe: Record<string, unknown> = {};
  let at: Record<string, unknown> | unknown[] = probe;
  path.forEach((key, index) => {
    const last = index === path.length - 1;
    const next = last ? '\u0000' : typeof path[index + 1] === 'number' ? [] : {};
    (at as Record<string | number, unknown>)[Array.isArray(at) ? at.length : key] = next;
    if (!last) at = next as Record<string, unknown>;
  });
  const issues = scenarioSchema.safeParse(probe).error?.issues ?? [];
  const own = issues.find(({ code, path: at }) => code === 'custom' && at.length === path.length);
  return own?.message.replace(/, got .*$/s, '') ?? 'expected a text';
}

/** Turns complaints of the schema into the user's terms. `input` is what was parsed. */
export function complaintsOf(issues: readonly SchemaIssue[], input: unknown, shape: Shape): Complaint[] {
  return issues.flatMap((issue): Complaint[] => {
    const path = issue.path.filter((key): key is string | number => typeof key !== 'symbol');
    if (issue.code === 'unrecognized_keys') {
      const known = keysOf(shapeAt(shape, path) ?? {});
      return issue.keys.map((key) => ({
        path: [...path, key],
        atKey: true,
        message: `unknown key "${key}"${path.length === 0 ? '' : ` in ${dotted(path)}`}${suggestion(key, known)}`,
      }));
    }
    return [{ path, atKey: false, message: valueMessage(issue, path, valueAt(input, path), shape) }];
  });
}

function valueMessage(issue: SchemaIssue, path: KeyPath, value: unknown, shape: Shape): string {
  const name = path.length === 0 ? 'the scenario' : dotted(path);
  switch (issue.code) {
    case 'invalid_type': {
      const wanted =
        issue.expected === 'string' ? expectedText(path) : `expected ${NOUNS[issue.expected] ?? issue.expected}`;
      if (value === undefined) return `${name} is missing; ${wanted}`;
      const hint = value === null && issue.expected === 'object' ? '; leave the key out to have the defaults' : '';
      return `${name}: ${wanted}, got ${shown(value)}${hint}`;
    }
    case 'too_small':
      return `${name}: expected at least ${issue.minimum}, got ${shown(value)}`;
    case 'too_big':
      return `${name}: expected at most ${issue.maximum}, got ${shown(value)}`;
    case 'invalid_format':
      return /^Invalid/.test(issue.message)
        ? `${name}: expected text that matches ${'pattern' in issue ? issue.pattern : issue.format}, got ${shown(value)}`
        : `${name}: ${issue.message}, got ${shown(value)}`;
    case 'invalid_value': {
      const words = wordsOf(shapeAt(shape, path) ?? {});
      const own = /^Invalid/.test(issue.message) ? '' : issue.message;
      const message = own === '' ? `expected one of ${words.join(', ')}, got ${shown(value)}` : own;
      const near = typeof value === 'string' ? suggestion(value, words, 0) : '';
      return `${message.startsWith(`${name} `) ? '' : `${name}: `}${message}${near}`;
    }
    default:
      return `${name}: ${issue.message}`;
  }
}
