import { formatBytes, formatDurationNs, PAGE_SIZE_BYTES, type PageSize } from '@faultline/address';
import { type DmaStats, type Scenario, type StatsDocument, vmsOf } from '@faultline/machine';
import { aligned, counted, plural, wrapped } from '../columns.ts';
import type { Palette } from '../terminal.ts';
import { crashAccount } from './crash-account.ts';
import { invariantTitle } from './invariant-title.ts';
import { outcomeOf } from './outcome.ts';

/** What the summary is made of. */
export interface SummaryInput {
  readonly stats: StatsDocument;
  readonly scenario: Scenario;
  /** The command that runs it again. */
  readonly again: string;
}

const WIDTH = 100;
const SIZES: readonly PageSize[] = ['1G', '2M', '4K'];

/** `16G VM on pud-thp pages`, or all of several. */
export const vmText = (scenario: Scenario): string =>
  vmsOf(scenario)
    .map(({ memory, backing }) => `${memory} VM on ${backing} pages`)
    .join(', ');

/** `moved 3, EAGAIN 1`. */
export const outcomesText = (outcomes: Readonly<Record<string, number>>): string =>
  Object.entries(outcomes)
    .map(([name, times]) => `${name} ${counted(times)}`)
    .join(', ');

/** The text that `vm-sim run` prints: one screen, 100 columns at most (the last command may be longer). */
export function runSummary(input: SummaryInput, color: Palette): string {
  const { stats } = input;
  const head = (title: string): string => color.bold(title);
  const lines = [
    ...headline(input, color),
    ...invariantLines(stats, color),
    ...thresholdLines(stats, color),
    ...refusalLines(stats, head),
    ...(stats.crash === null ? measured(stats, head) : [...crashLines(stats, head), ...shortlyMeasured(stats, head)]),
    head('Run it again'),
    `  ${input.again}`,
  ];
  return `${lines.join('\n')}\n`;
}

function measured(stats: StatsDocument, head: (title: string) => string): string[] {
  return [
    head('What the DMA felt'),
    ...indented(aligned(dmaRows(stats))),
    `  ${innocentText(stats)}`,
    head('What the I/O page table looked like'),
    ...indented(aligned(ioptRows(stats))),
    head('What the host gained'),
    `  ${gainLine(stats)}`,
    head('What it cost'),
    ...indented(costLines(stats)),
    ...(stats.events.length > 0 ? [head('What else the host did'), ...indented(eventLines(stats))] : []),
  ];
}

const innocentText = ({ innocent }: StatsDocument): string => {
  const waited = innocent.stalledNs > 0 ? ` for ${formatDurationNs(innocent.stalledNs)} in all` : '';
  return `innocent pages: ${counted(innocent.faulted)} faulted, ${counted(innocent.stalled)} stalled${waited}`;
};

/** After a crash its account is what matters, so each group of numbers has one line. */
function shortlyMeasured(stats: StatsDocument, head: (title: string) => string): string[] {
  const { dma, iopt } = stats;
  const [p50, p99, max] = [dma.latencyNs.p50, dma.latencyNs.p99, dma.latencyNs.max].map(formatDurationNs);
  const [before, after] = [iopt.leavesBefore, iopt.leaves].map((leaves) =>
    SIZES.filter((size) => leaves[size] > 0)
      .map((size) =>
        `${formatBytes(leafBytes(leaves[size], size))} in ${plural(leaves[size], `${size} leaf`)}`.replace(
          /leafs$/,
          'leaves',
        ),
      )
      .join(', '),
  );
  return [
    head('Until then'),
    ...[
      `DMA: ${plural(dma.requests, 'request')}, p50 ${p50}, p99 ${p99}, max ${max}; ${counted(dma.faulted)} faulted, ${counted(dma.dropped)} dropped, ${counted(dma.aborted)} aborted; ${innocentText(stats)}`,
      `I/O page table: ${before} before, ${after === before ? 'the same after' : `${after} after`}; ${plural(iopt.tablePages, 'table page')}`,
      `host: ${gainLine(stats)}`,
    ].flatMap((line) => indented(wrapped(line, WIDTH - 2))),
    ...indented(costLines(stats).slice(0, 2)),
  ];
}

const indented = (lines: readonly string[], by = '  '): string[] => lines.map((line) => by + line);

function headline({ stats, scenario }: SummaryInput, color: Palette): string[] {
  const outcome = outcomeOf(stats);
  const paint = outcome.good ? color.green : stats.interrupted ? color.yellow : color.red;
  const verdict = paint(color.bold(outcome.headline));
  const remark = outcome.remark === '' ? '' : `, ${outcome.remark}`;
  const ran = formatDurationNs(stats.virtualTimeNs - stats.bootNs);
  const vm = `${vmText(scenario)}, host ${scenario.host.memory} + ${scenario.host.swap} swap`;
  return [
    `${verdict}${remark}  ${color.dim(`${stats.scenario}, strategy ${stats.strategy}, seed ${stats.seed}`)}`,
    `  ${vm}, ${ran} of virtual time`,
  ];
}

/** Which invariants held, and for each that did not, how often and where first. */
function invariantLines(stats: StatsDocument, color: Palette): string[] {
  const broken = stats.invariants.filter(({ violations }) => violations > 0);
  const held = stats.invariants.filter(({ violations, checks }) => violations === 0 && checks > 0);
  const unchecked = stats.invariants.filter(({ checks, violations }) => checks === 0 && violations === 0);
  const checks = stats.invariants.reduce((sum, invariant) => sum + invariant.checks, 0);
  const most = stats.crash === null ? 3 : 2;
  const lines = broken.slice(0, most).flatMap(({ id, violations, first }) => {
    const where = first === undefined ? '' : `, first: ${first}`;
    const [head = '', ...rest] = wrapped(
      `${invariantTitle(id)}: violated ${plural(violations, 'time')}${where}`,
      WIDTH - 4,
    );
    return [`  ${color.red(head)}`, ...indented(rest, '    ')];
  });
  const others = broken.slice(most).map(({ id }) => id);
  if (others.length > 0) lines.push(`  ${color.red(`violated, too: ${others.join(' ')}`)}`);
  const parts = [
    ...(held.length > 0 ? [`held: ${held.map(({ id }) => id).join(' ')} (${plural(checks, 'check')})`] : []),
    ...(unchecked.length > 0 ? [`never came up: ${unchecked.map(({ id }) => id).join(' ')}`] : []),
  ];
  return [...lines, ...indented(wrapped(parts.join('; '), WIDTH - 2))];
}

function crashLines({ crash }: StatsDocument, head: (title: string) => string): string[] {
  if (crash === null) return [];
  const lines = crashAccount(crash, 1).flatMap(({ sentence, items, more }) => [
    ...indented(wrapped(`${sentence}${more > 0 ? ` (the last; --json has ${more} before it)` : ''}`, WIDTH - 2)),
    ...items.flatMap((item) => {
      const [first = '', ...others] = wrapped(item, WIDTH - 4);
      return [`    ${first}`, ...indented(others, '      ')];
    }),
  ]);
  return [head('How it died'), ...lines];
}

function refusalLines({ refusal }: StatsDocument, head: (title: string) => string): string[] {
  if (refusal === null) return [];
  const { reason } = refusal;
  return [head('Who was not let in'), ...indented(wrapped(reason, WIDTH - 2))];
}

/** What the host did besides, an event a line while they fit. */
function eventLines({ events }: StatsDocument): string[] {
  const lines = events.map(
    ({ action, times, outcomes }) => `${action}, ${plural(times, 'time')}: ${outcomesText(outcomes)}`,
  );
  const most = 3;
  const more = lines.length > most ? [`and ${plural(lines.length - most, 'event')} more, see --json`] : [];
  return [...lines.slice(0, most), ...more].map((line) => wrapped(line, WIDTH - 2)[0] ?? '');
}

function thresholdLines(stats: StatsDocument, color: Palette): string[] {
  return stats.thresholds.map(({ expression, value, ok }) => {
    const unit = /Ns(\.|\b)/.test(expression) ? ` (${formatDurationNs(value)})` : '';
    return `  ${ok ? color.green('ok    ') : color.red('failed')}  ${expression}: ${value}${unit}`;
  });
}

/** One row a device, and one for all if there are several VMs. */
function dmaRows(stats: StatsDocument): string[][] {
  const header = ['', 'requests', 'p50', 'p99', 'max', 'faulted', 'dropped', 'aborted', 'rate'];
  const devices = stats.vms.flatMap((vm) =>
    vm.devices.map((device) => ({
      name: stats.vms.length > 1 ? `${vm.name}.${device.name}` : device.name,
      dma: device.dma,
    })),
  );
  const rows = devices.length > 0 && devices.length <= 6 ? devices : [{ name: 'all devices', dma: stats.dma }];
  return [header, ...rows.map(({ name, dma }) => dmaRow(name, dma))];
}

function dmaRow(name: string, dma: DmaStats): string[] {
  const { latencyNs } = dma;
  const times = [latencyNs.p50, latencyNs.p99, latencyNs.max].map(formatDurationNs);
  const counts = [dma.faulted, dma.dropped, dma.aborted].map(counted);
  return [name, counted(dma.requests), ...times, ...counts, `${formatBytes(dma.bytesPerSecond)}/s`];
}

const leafBytes = (count: number, size: PageSize): number => count * Number(PAGE_SIZE_BYTES[size]);

function ioptRows({ iopt }: StatsDocument): string[][] {
  const cell = (count: number, size: PageSize): string =>
    count === 0 ? '-' : `${formatBytes(leafBytes(count, size))} (${counted(count)})`;
  const row = (leaves: Readonly<Record<PageSize, number>>): string[] => SIZES.map((size) => cell(leaves[size], size));
  const lost = iopt.mappedBytesBefore - iopt.mappedBytes;
  const after =
    lost === 0 ? formatBytes(iopt.mappedBytes) : `${formatBytes(Math.abs(lost))} ${lost > 0 ? 'less' : 'more'}`;
  return [
    ['', ...SIZES.map((size) => `in ${size} leaves`), 'mapped', 'table pages'],
    ['before', ...row(iopt.leavesBefore), formatBytes(iopt.mappedBytesBefore), counted(iopt.tablePagesBefore)],
    ['after', ...row(iopt.leaves), after, counted(iopt.tablePages)],
  ];
}

function gainLine({ hostMm, iopt, strategy }: StatsDocument): string {
  const { freedBytes, residentBytesBefore, swapOut, swapIn, pinnedBytes } = hostMm;
  if (freedBytes <= 0 && swapOut === 0 && strategy === 'pinned')
    return `nothing: all ${formatBytes(pinnedBytes)} are pinned`;
  const pinned = pinnedBytes > 0 ? `; ${formatBytes(pinnedBytes)} pinned` : '';
  const freed = freedBytes >= 0 ? `${formatBytes(freedBytes)} freed` : `${formatBytes(-freedBytes)} more in use`;
  const failed =
    hostMm.failedCpuAccesses > 0
      ? `; CPU accesses that failed for want of memory: ${counted(hostMm.failedCpuAccesses)}`
      : '';
  const tables = (iopt.tablePages - iopt.tablePagesBefore) * 4096;
  const price = tables > 0 ? `, at the price of ${formatBytes(tables)} of page tables` : '';
  return `${freed} of ${formatBytes(residentBytesBefore)}${price}; ${plural(swapOut, 'page')} swapped out, ${counted(swapIn)} in again${pinned}${failed}`;
}

/** Pages written by DMA, and how many times as many were reported. */
function dirtyText({ dirty }: StatsDocument): string {
  const { writtenPages, reportedPages } = dirty;
  const inflation = writtenPages > 0 ? ` (${counted(reportedPages / writtenPages)} times)` : '';
  return `${plural(writtenPages, 'page')} written, ${counted(reportedPages)} reported${inflation}`;
}

const hitRate = (name: string, hits: number, lookups: number): string =>
  lookups > 0 ? `, ${((100 * hits) / lookups).toFixed(1)}% ${name} hits` : '';

function costLines(stats: StatsDocument): string[] {
  const { iopt, iotlb, faults, hostMm } = stats;
  const { '1G->2M': large, '2M->4K': small } = iopt.splits;
  const fallbacks =
    iopt.wholeLeafFallbacks > 0 ? `, ${counted(iopt.wholeLeafFallbacks)} whole leaves for want of memory` : '';
  const latency = faults.latencyNs;
  const { invalid, failure } = faults.responses;
  const refused = invalid + failure > 0 ? `, ${counted(invalid + failure)} refused` : '';
  const overflow = faults.overflows > 0 ? `, ${plural(faults.overflows, 'overflow')}` : '';
  const hits = [
    hitRate('IOTLB', iotlb.hits, iotlb.lookups),
    hitRate('device TLB', iotlb.deviceTlbHits, iotlb.deviceTlbLookups),
  ];
  const answered =
    faults.groups > 0 ? ` (p50 ${formatDurationNs(latency.p50)}, p99 ${formatDurationNs(latency.p99)})` : '';
  return [
    `leaf splits: ${counted(large)} 1G->2M, ${counted(small)} 2M->4K${fallbacks}; ${plural(iotlb.invalidations, 'invalidation')}, ${plural(hostMm.notifierRanges, 'notifier call')}`,
    `page requests: ${counted(faults.pageRequests)}${answered}${refused}${overflow}${hits.join('')}`,
    `table pages: at most ${counted(iopt.tablePagesPeak)} (${formatBytes(iopt.tablePagesPeak * 4096)}), ${counted(iopt.reservePages)} of them in reserve; dirty: ${dirtyText(stats)}`,
  ];
}
