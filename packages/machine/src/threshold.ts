import { parseDurationNs, parseSize } from '@faultline/address';
import type { StatsDocument, ThresholdStats } from './stats.ts';

const OPERATORS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
};

/** A parsed threshold: `dma.latencyNs.p99 < 500us`. */
export interface Threshold {
  readonly expression: string;
  /** Path into the stats document, split at dots. */
  readonly path: readonly string[];
  readonly operator: string;
  /** In the unit of the field: ns, bytes or a count. */
  readonly limit: number;
}

/**
 * Parses a threshold: a path into the stats document, an operator, and a number, duration or size.
 * @throws RangeError saying what was expected
 */
export function parseThreshold(expression: string): Threshold {
  const match = /^\s*([A-Za-z0-9_.>"-]+?)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*$/.exec(expression);
  const [, path, operator, limit] = match ?? [];
  if (path === undefined || operator === undefined || limit === undefined)
    throw new RangeError(
      `threshold "${expression}": expected <field> <operator> <value>, as dma.latencyNs.p99 < 500us`,
    );
  return { expression, path: path.split('.'), operator, limit: parseLimit(expression, limit) };
}

function parseLimit(expression: string, text: string): number {
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  try {
    return /s$/.test(text) ? parseDurationNs(text) : Number(parseSize(text));
  } catch {
    throw new RangeError(`threshold "${expression}": "${text}" is no number, duration (500us) or size (4K)`);
  }
}

/** Evaluates thresholds on a stats document. @throws RangeError naming a field that does not exist, with those that do */
export function evaluateThresholds(stats: StatsDocument, thresholds: readonly Threshold[]): ThresholdStats[] {
  return thresholds.map((threshold) => {
    let value: unknown = stats;
    let at = 'stats';
    for (const key of threshold.path) {
      if (typeof value !== 'object' || value === null || !(key in value)) {
        const known = typeof value === 'object' && value !== null ? Object.keys(value).join(', ') : 'nothing';
        throw new RangeError(`threshold "${threshold.expression}": no field "${key}" in ${at}; it has ${known}`);
      }
      value = (value as Record<string, unknown>)[key];
      at += `.${key}`;
    }
    if (typeof value !== 'number') throw new RangeError(`threshold "${threshold.expression}": ${at} is not a number`);
    const compare = OPERATORS[threshold.operator];
    return { expression: threshold.expression, value, ok: compare?.(value, threshold.limit) ?? false };
  });
}
