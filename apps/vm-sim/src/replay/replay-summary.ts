import { formatBytes } from '@faultline/address';
import type {
  Difference,
  FtraceReplayResult,
  IofdReplayResult,
  IotlbComparison,
  LineCounts,
  PairReplayResult,
  QemuReplayResult,
  SizeCount,
} from '@faultline/trace-formats';
import { aligned, counted, plural } from '../columns.ts';
import type { Palette } from '../terminal.ts';
import { agrees, type ReplayResult } from './agreement.ts';

const SHOWN = 5;

/** The text that `vm-sim replay` prints. */
export function replaySummary(result: ReplayResult, color: Palette): string {
  const good = agrees(result);
  const verdict = isEmpty(result)
    ? color.yellow(color.bold('NOTHING TO CHECK'))
    : good
      ? color.green(color.bold('AGREES'))
      : color.red(color.bold('DIFFERS'));
  const body =
    'calls' in result
      ? iofdLines(result, color)
      : 'crossCheck' in result
        ? pairLines(result, color)
        : 'matches' in result
          ? ftraceLines(result, color)
          : qemuLines(result, color);
  return `${[`${verdict}  ${headline(result)}`, ...body].join('\n')}\n`;
}

/** To agree on nothing is no agreement. */
function isEmpty(result: ReplayResult): boolean {
  if ('calls' in result) return result.calls === 0;
  return 'matches' in result ? result.maps + result.unmaps === 0 : result.translations === 0;
}

function headline(result: ReplayResult): string {
  if ('calls' in result)
    return `${counted(result.agree)} of ${plural(result.calls, 'call')} as Linux ${result.kernel} answered them`;
  if ('crossCheck' in result) {
    const { kind, unmaps, unmapsInvalidated } = result.crossCheck;
    const flushed =
      kind === 'ordered'
        ? `${counted(unmapsInvalidated)} of ${plural(unmaps, 'unmap')} found their invalidation`
        : `${plural(unmaps, 'unmap')}, flushed later`;
    return `${counted(result.agree)} of ${plural(result.translations, 'translation')}; ${flushed}`;
  }
  if ('matches' in result)
    return `${plural(result.maps, 'map')} and ${plural(result.unmaps, 'unmap')} on the model's table; ${result.matches ? 'the mapped set is the recording’s' : 'the mapped set is not the recording’s'}`;
  return `${counted(result.agree)} of ${plural(result.translations, 'translation')} as QEMU answered them`;
}

const percent = (part: number, whole: number): string => (whole > 0 ? `${((100 * part) / whole).toFixed(1)}%` : '-');

function qemuLines(result: QemuReplayResult, color: Palette): string[] {
  const { recorded, model, iotlb } = result;
  const { invalidations } = recorded;
  return [
    ...lineLines(result.file, result.lines, color),
    color.bold('Translations'),
    `  ${counted(result.translations)} recorded: ${counted(result.agree)} agree, ${counted(result.differ)} differ, ${counted(result.beforeRecording)} rest on what was before the log`,
    ...differenceLines(result.firstDiffering, result.differ),
    color.bold('Recorded'),
    `  ${counted(recorded.walks)} walks, ${counted(recorded.hits)} IOTLB hits, ${plural(recorded.faults, 'fault')}, ${counted(recorded.waits)} waits`,
    `  invalidations: ${counted(invalidations.pages)} of pages, ${counted(invalidations.domain)} of a domain, ${counted(invalidations.global)} global, ${counted(invalidations.context)} of contexts${invalidations.pasid > 0 ? `, ${counted(invalidations.pasid)} of a PASID (not modelled)` : ''}`,
    ...oddityLines(result),
    color.bold('IOTLB, look-up by look-up'),
    ...comparisonLines(iotlb),
    color.bold('Model'),
    `  ${plural(model.domains, 'domain')}, at most ${plural(model.tablePagesPeak, 'table page')}, ${counted(model.walkReads)} entries read by walks, ${counted(model.pagingStructureCacheHits)} paging-structure cache hits`,
  ];
}

function comparisonLines({ qemu, chosen, likeQemu10, likeQemu72 }: QemuReplayResult['iotlb']): string[] {
  const row = (name: string, cache: IotlbComparison): string[] => [
    name,
    counted(cache.hits),
    percent(cache.hits, cache.lookups),
    counted(cache.sameAsRecorded),
    counted(cache.hitWhereQemuWalked),
    counted(cache.missedWhereQemuHit),
  ];
  return aligned([
    ['', 'hits', 'rate', 'same as QEMU', 'hit, QEMU walked', 'missed, QEMU hit'],
    ['QEMU', counted(qemu.hits), percent(qemu.hits, qemu.lookups), '', '', ''],
    row('this model', chosen),
    row('with QEMU 10’s rules', likeQemu10),
    row('with QEMU 7.2’s rules', likeQemu72),
  ]).map((line) => `  ${line}`);
}

const ODDITIES: Readonly<Record<keyof QemuReplayResult['oddities'], string>> = {
  leafChangedWithoutInvalidation: 'leaves changed without an invalidation',
  otherDomain: 'look-ups in another domain than the device’s',
  translationsWithoutLookup: 'answers without a look-up',
  lookupsWithoutTranslation: 'look-ups without an answer',
  unusableLeaves: 'leaves that cannot be mapped',
  sizeFromAnswer: 'large leaves whose size only the answer tells',
};

function oddityLines({ oddities }: QemuReplayResult): string[] {
  const found = Object.entries(ODDITIES).flatMap(([key, text]) => {
    const count = oddities[key as keyof typeof oddities];
    return count > 0 ? [`${counted(count)} ${text}`] : [];
  });
  return found.length > 0 ? [`  of note: ${found.join(', ')}`] : [];
}

function ftraceLines(result: FtraceReplayResult, color: Palette): string[] {
  const { leaves, peakLeaves } = result;
  const phases = result.phases.filter(({ mark }) => mark !== '');
  return [
    ...lineLines(result.file, result.lines, color),
    ...(result.lost.notes > 0
      ? [color.yellow(`  the kernel notes lost events ${result.lost.notes} times: the recording is incomplete`)]
      : []),
    color.bold('Mapped at the end'),
    `  ${formatBytes(result.mappedBytes)} in ${plural(result.spaces, 'address space')}; leaves 4K ${counted(leaves['4K'])}, 2M ${counted(leaves['2M'])}, 1G ${counted(leaves['1G'])} (at most ${counted(peakLeaves['4K'])}, ${counted(peakLeaves['2M'])}, ${counted(peakLeaves['1G'])})`,
    `  ${plural(result.tablePages, 'table page')}, at most ${counted(result.tablePagesPeak)}`,
    ...result.firstMismatches.slice(0, SHOWN).map((text) => `  ${text}`),
    color.bold('Sizes'),
    `  maps:   ${sizesText(result.mapSizes)}`,
    `  unmaps: ${sizesText(result.unmapSizes)}`,
    color.bold('Unmaps'),
    `  ${counted(result.unmapsOfEarlierMappings)} of mappings older than the recording, ${counted(result.unmapsPartlyKnown)} known in part, ${counted(result.unmapsAmbiguous)} that fit several address spaces`,
    `  ${counted(result.unmappedSizeDiffers)} where the kernel reports another size than the model; ${counted(result.mapsRefused)} maps refused by the model; ${counted(result.ioPageFaults)} I/O page faults`,
    ...(phases.length > 0 ? [`  ${plural(phases.length, 'phase')} marked (--json lists them)`] : []),
  ];
}

function sizesText(sizes: readonly SizeCount[]): string {
  const most = [...sizes].sort((a, b) => b.count - a.count).slice(0, 6);
  const rest = sizes.length - most.length;
  const text = most.map(({ bytes, count }) => `${counted(count)} of ${formatBytes(bytes)}`).join(', ');
  return `${text === '' ? 'none' : text}${rest > 0 ? `, and ${plural(rest, 'other size')}` : ''}`;
}

function iofdLines(result: IofdReplayResult, color: Palette): string[] {
  const { compared, notCompared, differences } = result;
  const shown = differences
    .slice(0, SHOWN)
    .flatMap(({ line, call, what, expected, got }) => [
      `  ${result.file}:${line}: ${printable(call)}: ${printable(what)}`,
      `    recorded ${printable(expected)}`,
      `    model    ${printable(got)}`,
    ]);
  const more = differences.length - SHOWN;
  return [
    ...lineLines(result.file, result.lines, color),
    color.bold('Calls'),
    `  ${counted(result.calls)} made again: ${counted(result.agree)} agree, ${counted(result.differ)} differ`,
    ...shown,
    ...(more > 0 ? [`  and ${counted(more)} more (--json lists them)`] : []),
    color.bold('Compared'),
    `  ${plural(compared.results, 'result')}, ${plural(compared.outFields, 'out-field')}, ${plural(compared.pagemaps, 'pagemap')}`,
    `  ${plural(compared.leafCounts, 'leaf count')}, ${plural(compared.tableRows, 'page-table row')}`,
    `  ${plural(compared.mapEvents, 'map event')}, ${plural(compared.unmapEvents, 'unmap event')}, ${plural(compared.attachEvents, 'attach event')}, ${plural(compared.eventTotals, 'event total')}`,
    color.bold('Not compared'),
    `  ${plural(notCompared.foreignEvents, 'event')} of other devices, ${plural(notCompared.eventTotals, 'event total')} with such; events of ${plural(notCompared.callsWithoutEvents, 'call')} by a user who sees none`,
  ];
}

function pairLines(result: PairReplayResult, color: Palette): string[] {
  const { crossCheck: cross, qemu, ftrace } = result;
  const kind =
    cross.kind === 'ordered'
      ? 'every unmap found its invalidation, so order counts'
      : 'invalidations are deferred, so any mapping of the ftrace will do';
  return [
    color.bold('QEMU log against the ftrace'),
    `  ${kind}`,
    `  ${counted(cross.agree)} translations go to pages mapped while the ftrace ran and agree with it, ${counted(cross.differ)} contradict it`,
    `  ${counted(cross.earlier.translations)} go to ${plural(cross.earlier.mappings, 'mapping')} of ${plural(cross.earlier.pages, 'page')}, made before it began`,
    `  whatever the order: ${counted(cross.anyOrder.agree)} go to mappings that the ftrace shows at some time, ${counted(cross.anyOrder.other)} to ${plural(cross.anyOrder.otherMappings, 'mapping')} that it never shows`,
    ...differenceLines(cross.firstDiffering, cross.differ),
    `  ${counted(cross.unmapsInvalidated)} of ${counted(cross.unmaps)} unmaps find, in order, the invalidation that covers them (${counted(cross.unmapsAlignedUniquely)} in one way only)`,
    `  other invalidations: ${counted(cross.otherPageInvalidations)} of pages, ${counted(cross.wideInvalidations)} of a domain or global`,
    '',
    ...qemuLines(qemu, color),
    '',
    ...ftraceLines(ftrace, color),
  ];
}

function differenceLines(differing: readonly Difference[], total: number): string[] {
  const lines = differing
    .slice(0, SHOWN)
    .flatMap(({ file, line, text, recorded, model }) => [
      `  ${file}:${line}: ${text.slice(0, 100)}`,
      `    recorded ${recorded}`,
      `    model    ${model}`,
    ]);
  const more = total - Math.min(SHOWN, differing.length);
  return more > 0 && differing.length > 0 ? [...lines, `  and ${counted(more)} more (--json lists the first)`] : lines;
}

/** What became of the lines; an unknown one is always shown. */
function lineLines(file: string, lines: LineCounts, color: Palette): string[] {
  const [first] = lines.firstUnknown;
  const text = `  ${plural(lines.lines, 'line')}: ${counted(lines.parsed)} used, ${counted(lines.irrelevant)} of no concern, ${counted(lines.comments)} comments, ${counted(lines.unknown)} unknown or damaged`;
  if (first === undefined) return [color.bold(file), text];
  return [
    color.bold(file),
    color.yellow(text),
    color.yellow(`  the first of them: ${first.file}:${first.line}: ${printable(first.text).slice(0, 100)}`),
  ];
}

/** Damaged lines may hold anything, also what a terminal would obey. */
const printable = (text: string): string =>
  Array.from(text, (character) =>
    (character.codePointAt(0) ?? 0) < 0x20 || character === '\u007f' ? '.' : character,
  ).join('');
