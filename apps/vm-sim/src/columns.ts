/** Whole numbers with separators, the same on every machine. */
export const counted = (value: number): string =>
  Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, ',');

/** `1 fault`, `2 faults`. */
export const plural = (value: number, noun: string): string => `${counted(value)} ${noun}${value === 1 ? '' : 's'}`;

/**
 * Aligned rows, the first column to the left and the others to the right.
 * @returns one line each, without trailing blanks
 */
export function aligned(rows: readonly (readonly string[])[], gap = 2): string[] {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, index) => {
      widths[index] = Math.max(widths[index] ?? 0, cell.length);
    });
  return rows.map((row) =>
    row
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[index] ?? 0)))
      .join(' '.repeat(gap))
      .trimEnd(),
  );
}

/** Breaks a text at blanks so that no line is longer, where its words allow that. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  if (line !== '') lines.push(line);
  return lines;
}

/** A list of names with their titles, a line each. */
export function titleLines(entries: readonly { readonly name: string; readonly title: string }[]): string[] {
  const width = Math.max(0, ...entries.map(({ name }) => name.length));
  return entries.map(({ name, title }) => `${name.padEnd(width)}  ${title}`);
}
