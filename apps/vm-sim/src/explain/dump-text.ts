import { formatSize } from '@faultline/address';
import type { EntryVerdict, TranslationDump, WalkAccount } from '@faultline/vtd-pagetable';
import { plural, wrapped } from '../columns.ts';
import type { Palette } from '../terminal.ts';
import { hex, shapeColor } from './entry-text.ts';

const MAX_WIDTH = 120;
const RIGHTS = ['no access', 'read only', 'write only', 'read/write'] as const;

/** What `vm-sim explain FILE` prints for the rows of a dump. */
export function dumpText(
  name: string,
  dump: TranslationDump,
  walks: readonly WalkAccount[],
  color: Palette,
  columns: number,
): string {
  const width = Math.min(columns, MAX_WIDTH);
  const lines = wrapped(headline(name, dump, walks), width).map((line) => color.bold(line));
  let above: WalkAccount | undefined;
  let device = '';
  for (const walk of walks) {
    if (walk.row.device !== device) {
      device = walk.row.device;
      lines.push('', color.bold(`device ${device}`));
    }
    lines.push('', ...walkLines(walk, above, color, width));
    above = walk;
  }
  for (const { line, problem } of dump.damaged)
    lines.push('', ...wrapped(`${name}:${line}: not a row: ${problem}`, width).map((text) => color.yellow(text)));
  return `${lines.join('\n')}\n`;
}

function headline(name: string, dump: TranslationDump, walks: readonly WalkAccount[]): string {
  const sizes = new Map<string, number>();
  for (const { page } of walks)
    if (page !== null) {
      const size = formatSize(page.bytes);
      sizes.set(size, (sizes.get(size) ?? 0) + 1);
    }
  const pages = ['4K', '2M', '1G'].flatMap((size) => (sizes.has(size) ? [`${sizes.get(size)} x ${size}`] : []));
  const lost = walks.filter(({ page }) => page === null).length;
  const odd = walks.filter(({ oddities }) => oddities.length > 0).length;
  const parts = [
    plural(walks.length, 'row'),
    ...(pages.length > 0 ? [pages.join(', ')] : []),
    ...(lost > 0 ? [`${lost} without a page`] : []),
    odd === 0 ? 'nothing odd' : `${odd} with something odd`,
    ...(dump.damaged.length > 0 ? [`${plural(dump.damaged.length, 'damaged row')}`] : []),
  ];
  return `${name}: ${parts.join('; ')}`;
}

function walkLines(walk: WalkAccount, above: WalkAccount | undefined, color: Palette, width: number): string[] {
  const { page, row, faults, oddities } = walk;
  const range = (start: bigint, bytes: bigint): string => `${hex(start)}-${hex(start + bytes - 1n)}`;
  const title =
    page === null
      ? color.red(`iova ${hex(row.iova)}: no translation`)
      : `iova ${range(page.iova, page.bytes)} ${color.bold(formatSize(page.bytes))} -> ${hex(page.host)}, ${RIGHTS[page.rights & 3]}`;
  const lines = [`${title}${color.dim(`  (line ${row.line})`)}`];
  const same = sharedAbove(walk, above);
  if (same > 0)
    lines.push(
      color.dim(
        `  ${walk.entries
          .slice(0, same)
          .map(({ name }) => name)
          .join(', ')} as above`,
      ),
    );
  for (const entry of walk.entries.slice(same)) lines.push(...entryLines(entry, color, width));
  for (const text of faultTexts(faults))
    lines.push(...wrapped(text, width - 4).map((line) => color.dim(`    ${line}`)));
  for (const text of oddities)
    lines.push(...wrapped(`odd: ${text}`, width - 4).map((line) => color.yellow(`    ${line}`)));
  return lines;
}

/** A line for each request, with the numbers of both modes. */
function faultTexts(faults: WalkAccount['faults']): string[] {
  return faults
    .filter(({ mode }) => mode === 'legacy')
    .map(({ request, text }) => {
      const scalable = faults.find((fault) => fault.request === request && fault.mode === 'scalable');
      return `${request} faults: ${text}; in scalable mode 0x${scalable?.reason.toString(16)}`;
    });
}

/** How many entries from the top are those of the row above, so that they need not be said again. */
function sharedAbove(walk: WalkAccount, above: WalkAccount | undefined): number {
  if (above === undefined || above.row.dump !== walk.row.dump || above.row.device !== walk.row.device) return 0;
  let same = 0;
  while (same < walk.entries.length - 1 && isSameEntry(walk, above, same)) same++;
  return same;
}

/** Whether both rows walk through one entry: the same word in the same slot. */
function isSameEntry(walk: WalkAccount, above: WalkAccount, depth: number): boolean {
  const level = walk.row.entries[depth]?.level;
  if (level === undefined || above.row.entries[depth]?.level !== level) return false;
  const slot = (iova: bigint): bigint => iova >> BigInt(12 + 9 * (level - 1));
  return (
    walk.entries[depth]?.words[0] === above.entries[depth]?.words[0] && slot(walk.row.iova) === slot(above.row.iova)
  );
}

function entryLines(entry: EntryVerdict, color: Palette, width: number): string[] {
  const word = hex(entry.words[0] ?? 0n);
  const head = `  ${entry.name.padEnd(8)} ${word.padEnd(11)}  `;
  return wrapped(entry.summary, width - head.length).map((text, index) =>
    index === 0 ? `${head}${shapeColor(entry, color)(text)}` : `${' '.repeat(head.length)}${text}`,
  );
}
