import { formatDurationNs } from '@faultline/address';
import { counted } from '../columns.ts';
import { escaped, htmlPage, table } from '../run/html-page.ts';
import type { Comparison, ComparisonRow } from './comparison.ts';
import { COLUMN_NOTE, comparisonTable, isByScenario, remarkOf, skippedText } from './comparison-text.ts';

const WIDTH = 900;
const BAR_LEFT = 250;
const NUMBER_WIDTH = 110;
const ROW = 24;

/** A page of one comparison: the table, and a picture of what the innocents and the DMA paid. It holds no wall-clock time. */
export function comparisonPage({ rows, skipped, seed, version, interrupted }: Comparison, again: string): string {
  const byScenario = isByScenario(rows);
  const [heading = [], ...cells] = comparisonTable(rows, byScenario);
  const title = [...new Set(rows.map(({ scenario }) => scenario))].join(', ');
  const remarks = rows.filter(({ remark, asClaimed }) => remark !== '' || !asClaimed);
  const bars = (caption: string, value: (row: ComparisonRow) => number, text: (value: number) => string): string =>
    `<h2>${caption}</h2>\n${barsSvg(rows, byScenario, value, text)}`;
  const body = `<h1>${escaped(title)}</h1>
<p class="dim">Seed ${seed}${interrupted ? ', interrupted: rows are missing' : ''}. Faultline ${escaped(version)}.</p>
${table(heading, cells, { text: byScenario ? [1, 2] : [1] })}
<p class="dim">${escaped(COLUMN_NOTE)}</p>
${remarks.map((row) => `<p>${escaped(remarkOf(row, byScenario))}</p>`).join('\n')}
${skipped.map((run) => `<p>${escaped(skippedText(run))}</p>`).join('\n')}
${bars('Innocent pages that faulted', ({ innocent }) => innocent.faulted, counted)}
${bars('How long DMA waited for them', ({ innocent }) => innocent.stalledNs, formatDurationNs)}
${bars('DMA request p99', ({ dma }) => dma.p99Ns, formatDurationNs)}
<h2>Run it again</h2>
<pre>${escaped(again)}</pre>`;
  return htmlPage(`Comparison: ${title}`, body);
}

/** A bar for each row, in proportion. */
function barsSvg(
  rows: readonly ComparisonRow[],
  byScenario: boolean,
  value: (row: ComparisonRow) => number,
  text: (value: number) => string,
): string {
  const most = Math.max(1, ...rows.map(value));
  const bars = rows.map((row, index) => {
    const y = index * ROW;
    const width = (value(row) / most) * (WIDTH - BAR_LEFT - NUMBER_WIDTH);
    const name = byScenario ? `${row.scenario}, ${row.strategy}` : row.strategy;
    return `<text x="0" y="${y + 16}">${escaped(name)}</text>
<rect x="${BAR_LEFT}" y="${y + 4}" width="${width.toFixed(1)}" height="${ROW - 8}" style="fill:var(--g1)"/>
<text x="${(BAR_LEFT + width + 8).toFixed(1)}" y="${y + 16}" class="dim">${escaped(text(value(row)))}</text>`;
  });
  return `<svg viewBox="0 0 ${WIDTH} ${ROW * rows.length}" role="img">\n${bars.join('\n')}\n</svg>`;
}
