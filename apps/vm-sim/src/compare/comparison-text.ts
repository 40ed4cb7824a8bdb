import { formatBytes, formatDurationNs } from '@faultline/address';
import { aligned, counted, wrapped } from '../columns.ts';
import type { Palette } from '../terminal.ts';
import type { ComparisonRow, SkippedRun } from './comparison.ts';

const VERDICTS: Readonly<Record<ComparisonRow['verdict'], string>> = {
  ok: 'held',
  'threshold-failed': 'held',
  'invariant-violated': 'VIOLATED',
  'host-crashed': 'CRASHED',
  refused: 'refused',
};

/** The columns besides the name: heading and cell. */
const COLUMNS: readonly (readonly [heading: string, cell: (row: ComparisonRow) => string])[] = [
  ['verdict', ({ verdict }) => VERDICTS[verdict]],
  ['innocents', ({ innocent }) => counted(innocent.faulted)],
  ['stalled', ({ innocent }) => (innocent.stalledNs > 0 ? formatDurationNs(innocent.stalledNs) : '0')],
  ['faults', ({ pageRequests }) => counted(pageRequests)],
  ['invalid.', ({ invalidations }) => counted(invalidations)],
  ['tables', ({ tablePagesPeak }) => counted(tablePagesPeak)],
  ['splits', ({ splits }) => counted(splits['1G->2M'] + splits['2M->4K'])],
  ['collapses', ({ collapses }) => counted(collapses)],
  ['dirty', ({ dirtyInflation }) => (dirtyInflation === null ? '-' : `${counted(dirtyInflation)}x`)],
  ['rate', ({ dma }) => `${formatBytes(dma.bytesPerSecond)}/s`],
  ['p99', ({ dma }) => formatDurationNs(dma.p99Ns)],
  ['violated', ({ invariants }) => invariants.violated.join(' ') || '-'],
];

/** What the columns mean. */
export const COLUMN_NOTE =
  'innocents: pages that nobody took away and that faulted all the same; stalled: how long DMA waited for them; tables: table pages, at most; dirty: pages reported dirty for each page that DMA wrote; rate and p99: DMA of all devices.';

/** Heading and cells, for text and for HTML. @param byScenario whether there is more than one scenario */
export function comparisonTable(rows: readonly ComparisonRow[], byScenario: boolean): string[][] {
  const names = (row: ComparisonRow): string[] => (byScenario ? [row.scenario, row.strategy] : [row.strategy]);
  return [
    [...(byScenario ? ['scenario', 'strategy'] : ['strategy']), ...COLUMNS.map(([heading]) => heading)],
    ...rows.map((row) => [...names(row), ...COLUMNS.map(([, cell]) => cell(row))]),
  ];
}

/** Whether the rows are of several scenarios. */
export const isByScenario = (rows: readonly ComparisonRow[]): boolean =>
  new Set(rows.map(({ scenario }) => scenario)).size > 1;

/** The text that `vm-sim compare` prints: the table, and a line for each crash, refusal, unkept claim and run that cannot be. */
export function comparisonText(
  { rows, skipped }: { readonly rows: readonly ComparisonRow[]; readonly skipped: readonly SkippedRun[] },
  color: Palette,
): string {
  const byScenario = isByScenario(rows);
  const [heading = '', ...lines] = aligned(comparisonTable(rows, byScenario));
  const painted = lines.map((line, index) => {
    const row = rows[index];
    if (row?.asClaimed === false) return color.red(line);
    return row?.verdict === 'ok' || row?.verdict === 'threshold-failed' ? line : color.yellow(line);
  });
  const remarks = rows
    .filter(({ remark, asClaimed }) => remark !== '' || !asClaimed)
    .map((row) => remarkOf(row, byScenario));
  return `${[color.bold(heading), ...painted, '', ...[...remarks, ...skipped.map(skippedText), COLUMN_NOTE].flatMap((text) => wrapped(text, 100))].join('\n')}\n`;
}

/** `naive: the host crashed: bad page state ...`. */
export function remarkOf(row: ComparisonRow, byScenario: boolean): string {
  const name = byScenario ? `${row.scenario}, ${row.strategy}` : row.strategy;
  const what = { 'host-crashed': 'the host crashed: ', refused: 'refused: ' }[row.verdict as string] ?? '';
  const claim = row.asClaimed ? '' : ' NOT AS CLAIMED';
  return `${name}: ${what}${row.remark}${claim}`.trim();
}

/** `pinned: cannot be run: ...`. */
export const skippedText = ({ scenario, strategy, reason }: SkippedRun): string =>
  `${scenario}, ${strategy}: cannot be run: ${reason}`;
