import { isMap, isSeq, parseDocument } from 'yaml';
import { UsageError } from '../exit-code.ts';
import { nearest, suggestion } from '../nearest.ts';
import { keepTexts } from './scenario-text.ts';
import { isNullable, type KeyPath, keysOf, leafPaths, memberOf, type Shape, typeOf } from './shape.ts';

/** One `--set path=value`, its value typed by what the schema expects at the path. */
export interface Override {
  /** As the user wrote it. */
  readonly text: string;
  readonly path: KeyPath;
  readonly value: unknown;
}

/** Parses `vm.memory=2G`. @throws UsageError for a path that no scenario has, with the nearest that it may have */
export function parseOverride(text: string, shape: Shape): Override {
  const equals = text.indexOf('=');
  if (equals <= 0) throw new UsageError(`--set ${text}: expected path=value, such as --set vm.memory=2G`);
  const keys = text
    .slice(0, equals)
    .trim()
    .replace(/\[(\d+)\]/g, '.$1')
    .split('.');
  const path: (string | number)[] = [];
  let at = shape;
  for (const key of keys) {
    const member = memberOf(at, key);
    if (member === undefined) {
      if (text.startsWith('seed=')) throw new UsageError(`--set ${text}: the seed is an option of its own, --seed`);
      throw new UsageError(`--set ${text}: ${unknownPath(keys, path, key, at, shape)}`);
    }
    path.push(typeOf(at) === 'array' ? Number(key) : key);
    at = member;
  }
  return { text, path, value: typedValue(text, text.slice(equals + 1).trim(), at) };
}

function unknownPath(keys: readonly string[], before: KeyPath, key: string, at: Shape, root: Shape): string {
  const where = before.length === 0 ? 'a scenario' : before.join('.');
  const known = keysOf(at);
  if (known.length === 0) {
    const what = typeOf(at) === 'array' ? 'a list: its members are numbered from 0' : 'a single value';
    return `${where} is ${what}, it has no "${key}"`;
  }
  const all = leafPaths(root);
  const sameEnd = all.filter((path) => path === keys.join('.') || path.endsWith(`.${keys.join('.')}`));
  const near = nearest(key, known);
  if (near === undefined && sameEnd.length > 0)
    return `${where} has no "${key}"; did you mean ${sameEnd.map((path) => `"${path}"`).join(' or ')}?`;
  if (near === undefined) {
    const end = nearest(
      keys.at(-1) ?? '',
      all.map((path) => path.split('.').at(-1) ?? ''),
    );
    const paths = all.filter((path) => path.split('.').at(-1) === end);
    if (end !== undefined)
      return `${where} has no "${key}"; did you mean ${paths.map((path) => `"${path}"`).join(' or ')}?`;
  }
  if (near !== undefined) return `${where} has no "${key}"; did you mean "${[...before, near].join('.')}"?`;
  return `${where} has no "${key}"${suggestion(key, known, 20)}`;
}

function typedValue(text: string, value: string, shape: Shape): unknown {
  if (isNullable(shape) && value === 'null') return null;
  switch (typeOf(shape)) {
    case 'string':
      return value;
    case 'number':
    case 'integer': {
      const number = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(value) ? Number(value) : Number.NaN;
      if (Number.isNaN(number)) throw new UsageError(`--set ${text}: expected a number, got "${value}"`);
      return number;
    }
    default: {
      const document = parseDocument(value, { prettyErrors: false });
      const [error] = document.errors;
      if (error !== undefined) throw new UsageError(`--set ${text}: ${error.message}`);
      // 0x0 is an address here, and a number to YAML.
      if (isMap(document.contents) || isSeq(document.contents)) keepTexts(document.contents, shape, document);
      return document.toJS();
    }
  }
}

/** Puts the values into a copy of the scenario, making the maps on the way where there are none. */
export function withOverrides(scenario: unknown, overrides: readonly Override[]): Record<string, unknown> {
  const copy = structuredClone(scenario) as Record<string, unknown>;
  for (const { path, value, text } of overrides) {
    let at: Record<string | number, unknown> = copy;
    path.forEach((key, index) => {
      if (Array.isArray(at) && Number(key) > at.length)
        throw new UsageError(`--set ${text}: the list has ${at.length} members, there is no ${key}`);
      if (index === path.length - 1) {
        at[key] = value;
        return;
      }
      const next = at[key];
      if (typeof next !== 'object' || next === null) at[key] = typeof path[index + 1] === 'number' ? [] : {};
      at = at[key] as Record<string | number, unknown>;
    });
  }
  return copy;
}
