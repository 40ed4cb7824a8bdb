/** How long to try, and on what. */
export interface ShrinkOptions<T> {
  readonly program: readonly T[];
  /** How much of a program is needed for a difference: the length up to it, or 0 if there is none. */
  readonly neededOf: (program: readonly T[]) => Promise<number>;
  /** True ends the search: the smallest program so far is the result. */
  readonly expired: () => boolean;
}

/**
 * The shortest program that could be found to show a difference: delta debugging, that is, parts are left out, in ever
 * smaller parts, as long as a difference remains. Whatever follows the first difference is dropped on the way.
 */
export async function shrink<T>(options: ShrinkOptions<T>): Promise<readonly T[]> {
  const { neededOf, expired } = options;
  let best = options.program;
  let part = Math.ceil(best.length / 2);
  while (part >= 1 && !expired()) {
    let removed = false;
    for (let end = best.length; end > 0 && !expired(); end -= part) {
      const candidate = [...best.slice(0, Math.max(0, end - part)), ...best.slice(end)];
      const needed = await neededOf(candidate);
      if (needed === 0) continue;
      best = candidate.slice(0, needed);
      end = Math.min(end, best.length + part);
      removed = true;
    }
    if (!removed || part > best.length) part = part === 1 ? 0 : Math.ceil(Math.min(part, best.length) / 2);
  }
  return best;
}
