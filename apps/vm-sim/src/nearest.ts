/** Edit distance with transpositions (optimal string alignment), for names of a few dozen characters. */
function distance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const above = rows[i - 1] ?? [];
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min((above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (above[j - 1] ?? 0) + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (rows[i - 2]?.[j - 2] ?? 0) + 1);
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] ?? 0;
}

/** The candidate that was most likely meant, or undefined if none is close. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const asked = name.toLowerCase();
  let best: { candidate: string; score: number } | undefined;
  for (const candidate of candidates) {
    const known = candidate.toLowerCase();
    const extends_ = asked.length >= 3 && (known.includes(asked) || asked.includes(known));
    const score = Math.min(distance(asked, known), extends_ ? 2 : Number.POSITIVE_INFINITY);
    if (best === undefined || score < best.score) best = { candidate, score };
  }
  const limit = Math.max(1, Math.floor(name.length / 3));
  return best !== undefined && (best.score <= limit || (best.score === 2 && name.length >= 3))
    ? best.candidate
    : undefined;
}

/** `; did you mean "x"?`, or what there is, or nothing if that is too much to list. */
export function suggestion(name: string, candidates: readonly string[], listed = 16): string {
  const near = nearest(name, candidates);
  if (near !== undefined) return `; did you mean "${near}"?`;
  return candidates.length > 0 && candidates.length <= listed ? `; there is ${candidates.join(', ')}` : '';
}
