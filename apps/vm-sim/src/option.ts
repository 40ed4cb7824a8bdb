import { InvalidArgumentError, Option } from 'commander';

/** Collects an option that may be given several times. */
export const repeated = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

/** A whole number. */
export function integer(text: string): number {
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Expected a whole number, such as 1.');
  return value === 0 ? 0 : value;
}

/** A whole number of at least 0. */
export function natural(text: string): number {
  const value = integer(text);
  if (value < 0) throw new InvalidArgumentError('Expected a whole number of at least 0.');
  return value;
}

/** A whole number of at least 1. */
export function positive(text: string): number {
  const value = integer(text);
  if (value < 1) throw new InvalidArgumentError('Expected a whole number of at least 1.');
  return value;
}

/** `--set`. */
export const setOption = (): Option =>
  new Option('--set <path=value>', 'override a setting of the scenario, such as vm.memory=2G (repeatable)').argParser(
    repeated,
  );
/** `--seed`. */
export const seedOption = (): Option =>
  new Option('--seed <integer>', 'seed of all randomness (default: 1)').argParser(integer);
/** `--json`. */
export const json = ['--json', 'print the result as one JSON document'] as const;
/** `-q`. */
export const quiet = ['-q, --quiet', 'nothing on stderr but errors'] as const;
/** `-v`. */
export const verbose = ['-v, --verbose', 'more on stderr; the stack of an error'] as const;
