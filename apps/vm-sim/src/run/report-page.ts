import { formatBytes, formatDurationNs } from '@faultline/address';
import type { DmaStats, StatsDocument } from '@faultline/machine';
import { counted, plural } from '../columns.ts';
import { crashAccount } from './crash-account.ts';
import { escaped, htmlPage, table } from './html-page.ts';
import { invariantTitle } from './invariant-title.ts';
import { leafBarSvg, leafLegend } from './leaf-bar.ts';
import { outcomeOf } from './outcome.ts';
import { outcomesText, type SummaryInput, vmText } from './run-summary.ts';

/** A page of one run that needs no network, no script and no other file. It holds no wall-clock time either. */
export function reportPage(input: SummaryInput, notes: readonly string[]): string {
  const { stats, scenario } = input;
  const outcome = outcomeOf(stats);
  const tone = outcome.good ? 'good' : stats.interrupted ? 'wait' : 'bad';
  const title = `${stats.scenario}, seed ${stats.seed}`;
  const body = `<h1>${escaped(stats.scenario)}</h1>
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
${notes.map((note) => `<p class="dim">${escaped(note)}</p>`).join('\n')}`;
  return htmlPage(`${title}: ${outcome.headline}`, body);
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
  const { reason } = refusal;
  return `<h2>Who was not let in</h2>\n<p>${escaped(reason)}</p>`;
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
