import { formatBytes, formatDurationNs } from '@faultline/address';
import type { DmaStats, StatsDocument } from '@faultline/machine';
import { counted, plural } from '../columns.ts';
import { crashAccount } from './crash-account.ts';
import { invariantTitle } from './invariant-title.ts';
import { escaped, leafBarSvg, leafLegend } from './leaf-bar.ts';
import { outcomeOf } from './outcome.ts';
import { outcomesText, type SummaryInput, vmText } from './run-summary.ts';

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5d6b7c; --line: #dfe4ea; --paper: #ffffff; --field: #f5f7f9;
  --good: #1a7f4b; --bad: #b3261e; --wait: #946200; --g1: #2f5d8c; --m2: #4fa3a5; --k4: #f0a04b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --dim: #9aa7b6; --line: #323b47; --paper: #14181e; --field: #1c222a;
  --good: #5cc98c; --bad: #ff8a80; --wait: #e8b64c; --g1: #6f9fd0; --m2: #63b9ba; --k4: #f2ad61; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; }
p { margin: .4rem 0; max-width: 48rem; }
.dim { color: var(--dim); }
.verdict { display: inline-block; padding: .1rem .6rem; border-radius: .3rem; border: 1px solid currentColor; font-weight: 650;
  letter-spacing: .02em; margin-right: .5rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .wait { color: var(--wait); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.25rem 0 0; }
.card { background: var(--field); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.3rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--dim); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--dim); font-size: .85rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
th.text, td.text { text-align: left; }
td.text:last-child { white-space: normal; }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, "Liberation Mono", monospace; }
pre { background: var(--field); border-radius: .5rem; padding: .7rem .9rem; overflow-x: auto; margin: .5rem 0; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; }
svg text { fill: var(--ink); font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
svg .dim { fill: var(--dim); }
.legend span { margin-right: 1.25rem; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin-right: .4em; vertical-align: -.05em; }
`;

/** A page of one run that needs no network, no script and no other file. It holds no wall-clock time either. */
export function reportPage(input: SummaryInput, notes: readonly string[]): string {
  const { stats, scenario } = input;
  const outcome = outcomeOf(stats);
  const tone = outcome.good ? 'good' : stats.interrupted ? 'wait' : 'bad';
  const title = `${stats.scenario}, seed ${stats.seed}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(title)}: ${escaped(outcome.headline)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escaped(stats.scenario)}</h1>
<p><span class="verdict ${tone}">${escaped(outcome.headline)}</span>${escaped(outcome.remark)}</p>
<p>${escaped(scenario.description)}</p>
<p class="dim">Strategy <b>${escaped(stats.strategy)}</b>, seed ${stats.seed}, ${formatDurationNs(stats.virtualTimeNs - stats.bootNs)} of virtual time; ${escaped(vmText(scenario))}, host ${scenario.host.memory} with ${scenario.host.swap} of swap. Faultline ${escaped(stats.version)}.</p>
${cards(stats)}
${crashSection(stats)}
${refusalSection(stats)}
<h2>Invariants</h2>
${invariantTable(stats)}
${thresholdTable(stats)}
<h2>What the DMA felt</h2>
${dmaTable(stats)}
<p class="dim">Latency is of a request, with its descriptor, data and completion. Innocent pages, those that nobody took away: ${counted(stats.innocent.faulted)} faulted, ${counted(stats.innocent.stalled)} stalled, for ${formatDurationNs(stats.innocent.stalledNs)} in all.</p>
<h2>The I/O page table, before and after</h2>
${leafBarSvg(stats.iopt)}
${leafLegend()}
<h2>What it cost</h2>
${costTable(stats)}
${eventTable(stats)}
<h2>Run it again</h2>
<pre>${escaped(input.again)}</pre>
${notes.map((note) => `<p class="dim">${escaped(note)}</p>`).join('\n')}
</body>
</html>
`;
}

function cards({ hostMm, dma, iopt, innocent }: StatsDocument): string {
  const card = (value: string, label: string): string =>
    `<div class="card"><b>${escaped(value)}</b><span>${escaped(label)}</span></div>`;
  return `<div class="cards">
${card(formatBytes(hostMm.freedBytes), `freed by the host, ${plural(hostMm.swapOut, 'page')} swapped out`)}
${card(formatDurationNs(dma.latencyNs.p99), `DMA request p99, ${formatDurationNs(dma.latencyNs.p50)} in the median`)}
${card(counted(innocent.faulted), 'innocent pages faulted')}
${card(counted(iopt.splits['1G->2M'] + iopt.splits['2M->4K']), `leaf splits, ${counted(iopt.tablePages)} table pages`)}
</div>`;
}

interface TableOptions {
  /** Columns with text, which goes to the left; the first always does. */
  readonly text?: readonly number[];
}

function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  { text = [] }: TableOptions = {},
): string {
  const isText = (index: number): boolean => text.includes(index);
  const tone = (content: string): string =>
    ({ held: 'good', ok: 'good', violated: 'bad', failed: 'bad' })[content] ?? '';
  const cell = (content: string, index: number): string => {
    const names = [isText(index) ? 'text' : '', isText(index) ? tone(content) : ''].filter((name) => name !== '');
    return `<td${names.length > 0 ? ` class="${names.join(' ')}"` : ''}>${escaped(content)}</td>`;
  };
  const body = rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('\n');
  const head = header
    .map((title, index) => `<th scope="col"${isText(index) ? ' class="text"' : ''}>${escaped(title)}</th>`)
    .join('');
  return `<div class="scroll"><table>\n<thead><tr>${head}</tr></thead>\n<tbody>\n${body}\n</tbody></table></div>`;
}

function crashSection({ crash }: StatsDocument): string {
  if (crash === null) return '';
  const paragraphs = crashAccount(crash, 16).map(({ sentence, items, more }) => {
    const list = [...items, ...(more > 0 ? [`and ${counted(more)} more, see stats.json`] : [])];
    return `<p>${escaped(sentence)}</p>${list.length > 0 ? `\n<pre>${escaped(list.join('\n'))}</pre>` : ''}`;
  });
  return `<h2>How the host died</h2>\n${paragraphs.join('\n')}`;
}

function refusalSection({ refusal }: StatsDocument): string {
  if (refusal === null) return '';
  const { vm, device, code, reason } = refusal;
  return `<h2>Who was not let in</h2>\n<p>${escaped(`${vm} ${device}: ${code}. ${reason}`)}</p>`;
}

function eventTable({ events }: StatsDocument): string {
  if (events.length === 0) return '';
  const rows = events.map((event) => [event.action, counted(event.times), outcomesText(event.outcomes)]);
  return `<h2>What else the host did</h2>\n${table(['', 'times', 'how it ended'], rows, { text: [2] })}`;
}

function invariantTable({ invariants }: StatsDocument): string {
  const rows = invariants.map(({ id, checks, violations, first }) => [
    invariantTitle(id),
    violations > 0 ? 'violated' : checks > 0 ? 'held' : 'never came up',
    counted(checks),
    counted(violations),
    first ?? '',
  ]);
  return table(['', 'result', 'checks', 'violations', 'first'], rows, { text: [1, 4] });
}

function thresholdTable({ thresholds }: StatsDocument): string {
  if (thresholds.length === 0) return '';
  const rows = thresholds.map(({ expression, value, ok }) => [expression, String(value), ok ? 'ok' : 'failed']);
  return `<h2>Thresholds</h2>\n${table(['', 'value', 'result'], rows, { text: [2] })}`;
}

function dmaTable(stats: StatsDocument): string {
  const header = ['', 'requests', 'mean', 'p50', 'p90', 'p99', 'p99.9', 'max', 'faulted', 'dropped', 'aborted', 'rate'];
  const row = (name: string, dma: DmaStats): string[] => {
    const { mean, p50, p90, p99, p999, max } = dma.latencyNs;
    return [
      name,
      counted(dma.requests),
      ...[mean, p50, p90, p99, p999, max].map(formatDurationNs),
      ...[dma.faulted, dma.dropped, dma.aborted].map(counted),
      `${formatBytes(dma.bytesPerSecond)}/s`,
    ];
  };
  const devices = stats.vms.flatMap((vm) =>
    vm.devices.map(({ name, dma }) => row(stats.vms.length > 1 ? `${vm.name}.${name}` : name, dma)),
  );
  return table(header, [...devices, row('all', stats.dma)]);
}

function costTable({ iopt, iotlb, faults, hostMm, dirty }: StatsDocument): string {
  const hitRate = iotlb.lookups > 0 ? `${((100 * iotlb.hits) / iotlb.lookups).toFixed(2)}%` : 'no look-ups';
  const latency = faults.latencyNs;
  return table(
    ['', ''],
    [
      ['leaf splits 1G->2M, 2M->4K', `${counted(iopt.splits['1G->2M'])}, ${counted(iopt.splits['2M->4K'])}`],
      ['whole leaves taken for want of a table page', counted(iopt.wholeLeafFallbacks)],
      [
        'table pages at the end, at most, in reserve',
        [iopt.tablePages, iopt.tablePagesPeak, iopt.reservePages].map(counted).join(', '),
      ],
      ['IOTLB invalidations', counted(iotlb.invalidations)],
      ['IOTLB look-ups, hit rate', `${counted(iotlb.lookups)}, ${hitRate}`],
      ['device TLB look-ups, hits', `${counted(iotlb.deviceTlbLookups)}, ${counted(iotlb.deviceTlbHits)}`],
      [
        'page requests, groups, overflows',
        [faults.pageRequests, faults.groups, faults.overflows].map(counted).join(', '),
      ],
      [
        'page request answered in: p50, p99, max',
        [latency.p50, latency.p99, latency.max].map(formatDurationNs).join(', '),
      ],
      ['leaves put back (collapses)', counted(iopt.collapses)],
      ['notifier calls', `${counted(hostMm.notifierRanges)}: ${outcomesText(hostMm.notifierEvents)}`],
      ['faults mapped, spurious, tried again', Object.values(faults.outcomes).map(counted).join(', ')],
      ['faults that contradict a driver', counted(faults.lies)],
      ['pages in balloons, over the run', counted(hostMm.balloonedPages)],
      ['minor, major CPU faults', `${counted(hostMm.minorFaults)}, ${counted(hostMm.majorFaults)}`],
      ['pages swapped out, in', `${counted(hostMm.swapOut)}, ${counted(hostMm.swapIn)}`],
      ['resident before, after', `${formatBytes(hostMm.residentBytesBefore)}, ${formatBytes(hostMm.residentBytes)}`],
      ['pages written by DMA, reported dirty', `${counted(dirty.writtenPages)}, ${counted(dirty.reportedPages)}`],
    ],
  );
}
