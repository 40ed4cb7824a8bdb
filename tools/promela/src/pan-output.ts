/** What a run of pan, spin's verifier, has found. */
export interface PanResult {
  /** `interrupted`: the search ran out of memory, depth or time and found nothing until then. */
  readonly verdict: 'holds' | 'violated' | 'interrupted';
  /** The invariant that is broken, `I1` to `I13`. A process that waits for ever breaks I13. */
  readonly invariant: string | null;
  /** States stored. */
  readonly states: number;
  readonly transitions: number;
  /** Steps of the longest path searched. */
  readonly depth: number;
  /** Why it was interrupted. */
  readonly reason: string | null;
}

const LIMITS: readonly (readonly [RegExp, string])[] = [
  [/max search depth too small/, 'the search is deeper than its stack'],
  [/reached -DMEMLIM bound|out of memory/, 'out of memory'],
  [/Search not completed|hash table .*full/, 'the search was not completed'],
];

/**
 * Reads what pan prints on stdout and stderr.
 * @throws Error for output without the summary, or with an error that no model has, such as an index out of bounds
 */
export function parsePan(output: string): PanResult {
  const error = /^pan:\d+: (.*?) \(at depth \d+\)/m.exec(output)?.[1] ?? null;
  const summary = /depth reached (\d+), errors: (\d+)/.exec(output);
  const limit = LIMITS.find(([pattern]) => pattern.test(output))?.[1] ?? null;
  if (summary === null && limit === null) throw new Error(`pan printed no summary:\n${output}`);
  const counts = {
    states: count(output, /^\s*(\S+) states, stored/m),
    transitions: count(output, /^\s*(\S+) transitions/m),
    depth: Number(summary?.[1] ?? 0),
  };
  // Only a model's own errors: pan counts a search that was too deep as an error too.
  if (error !== null && !/max search depth/.test(error))
    return { verdict: 'violated', invariant: invariantOf(error), ...counts, reason: null };
  if (limit !== null) return { verdict: 'interrupted', invariant: null, ...counts, reason: limit };
  if (Number(summary?.[2]) !== 0) throw new Error(`pan counts errors and names none:\n${output}`);
  return { verdict: 'holds', invariant: null, ...counts, reason: null };
}

/** Counts above a hundred million have an exponent. */
const count = (output: string, pattern: RegExp): number => Number(pattern.exec(output)?.[1] ?? 0);

function invariantOf(error: string): string {
  if (error === 'invalid end state') return 'I13';
  const id = /^assertion violated \(+broken!=(\d+)\)+$/.exec(error)?.[1];
  if (id === undefined) throw new Error(`not an invariant of the models: ${error}`);
  return `I${id}`;
}
