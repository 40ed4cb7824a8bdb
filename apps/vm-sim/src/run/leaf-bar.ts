import { formatBytes, PAGE_SIZE_BYTES, type PageSize } from '@faultline/address';
import type { IoptStats } from '@faultline/machine';
import { counted } from '../columns.ts';
import { escaped } from './html-page.ts';

const SIZES: readonly PageSize[] = ['1G', '2M', '4K'];
const VARIABLE: Readonly<Record<PageSize, string>> = { '1G': '--g1', '2M': '--m2', '4K': '--k4' };

const WIDTH = 900;
const BAR_LEFT = 70;
const BAR_WIDTH = WIDTH - BAR_LEFT;
const ROW = 62;
/** Narrower than this nobody would see it: such a part is drawn wider than it is, and the numbers say so. */
const LEAST = 3;

interface Part {
  readonly size: PageSize;
  readonly count: number;
  readonly bytes: number;
}

const partsOf = (leaves: Readonly<Record<PageSize, number>>): Part[] =>
  SIZES.map((size) => ({ size, count: leaves[size], bytes: leaves[size] * Number(PAGE_SIZE_BYTES[size]) })).filter(
    ({ count }) => count > 0,
  );

/** Two bars, before and after: mapped bytes by the size of the leaf that maps them. */
export function leafBarSvg(iopt: IoptStats): string {
  const rows = [
    { label: 'before', parts: partsOf(iopt.leavesBefore) },
    { label: 'after', parts: partsOf(iopt.leaves) },
  ];
  const totals = rows.map(({ parts }) => parts.reduce((sum, { bytes }) => sum + bytes, 0));
  const scale = BAR_WIDTH / Math.max(1, ...totals);
  const body = rows.map(({ label, parts }, index) => rowSvg(label, parts, index * ROW, scale)).join('\n');
  return `<svg viewBox="0 0 ${WIDTH} ${ROW * rows.length}" role="img" aria-label="Mapped bytes by leaf size, before and after">\n${body}\n</svg>`;
}

function rowSvg(label: string, parts: readonly Part[], top: number, scale: number): string {
  let left = BAR_LEFT;
  const bars = parts.map(({ size, bytes }) => {
    const width = Math.max(LEAST, Math.min(bytes * scale, WIDTH - left - LEAST * 2));
    const bar = `<rect x="${left.toFixed(1)}" y="${top + 4}" width="${width.toFixed(1)}" height="26" style="fill:var(${VARIABLE[size]})"/>`;
    left += width + 1;
    return bar;
  });
  const numbers = parts.map(({ size, count, bytes }) => `${formatBytes(bytes)} in ${counted(count)} of ${size}`);
  const text = numbers.length === 0 ? 'nothing mapped' : numbers.join('  ·  ');
  return `<text x="0" y="${top + 22}">${label}</text>
${bars.join('\n')}
<text x="${BAR_LEFT}" y="${top + 48}" class="dim">${escaped(text)}</text>`;
}

/** What the colours mean. */
export const leafLegend = (): string =>
  `<p class="legend dim">${SIZES.map(
    (size) => `<span><i class="swatch" style="background:var(${VARIABLE[size]})"></i>${size} leaves</span>`,
  ).join('')}parts too small to see are drawn ${LEAST} wide</p>`;
