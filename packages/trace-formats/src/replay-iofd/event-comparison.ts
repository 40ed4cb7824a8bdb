import type { FtraceMap, FtraceUnmap } from '../ftrace-iommu.ts';
import type { IofdEventTotals } from '../iofd-log.ts';
import { hexText } from './call-outcome.ts';
import type { PlacedDetail } from './iofd-recording.ts';
import type { ModelEvent } from './recorded-machine.ts';

/** The events below one call. */
export interface RecordedEvents {
  readonly maps: readonly FtraceMap[];
  readonly unmaps: readonly FtraceUnmap[];
  readonly attaches: number;
  /** Null: all events are written down. */
  readonly totals: IofdEventTotals | null;
  /** Lines of the first event of each kind. */
  readonly lines: { readonly map: number; readonly unmap: number; readonly attach: number; readonly totals: number };
  /** Events of other devices, which are in none of the lists. */
  readonly foreign: number;
}

/** One comparison that failed. */
export interface EventMismatch {
  readonly line: number;
  readonly what: string;
  readonly expected: string;
  readonly got: string;
}

/** What came of comparing the events of a call. */
export interface EventVerdict {
  readonly mismatches: readonly EventMismatch[];
  /** Whether the totals could be compared. */
  readonly totalsCompared: boolean;
}

interface Extent {
  readonly iova: bigint;
  readonly size: bigint;
  /** Null for an unmap. */
  readonly paddr: bigint | null;
}

/** Linux allocates IOVAs for DMA of other devices from 4 GiB down; 16 MiB is far more than those of the recordings take. */
const FOREIGN_FIRST = 0xff00_0000n;
const FOREIGN_END = 0x1_0000_0000n;

/** Sorts the events below a call. @param isOurs whether the process has mapped something at an IOVA */
export function recordedEvents(details: readonly PlacedDetail[], isOurs: (iova: bigint) => boolean): RecordedEvents {
  const maps: FtraceMap[] = [];
  const unmaps: FtraceUnmap[] = [];
  const lines = { map: 0, unmap: 0, attach: 0, totals: 0 };
  let totals: IofdEventTotals | null = null;
  let attaches = 0;
  let foreign = 0;
  for (const { line, detail } of details) {
    if (detail.kind === 'map' || detail.kind === 'unmap') {
      const { iova, size } = detail;
      if (iova >= FOREIGN_FIRST && iova + size <= FOREIGN_END && !isOurs(iova)) {
        foreign++;
        continue;
      }
      if (lines[detail.kind] === 0) lines[detail.kind] = line;
      if (detail.kind === 'map') maps.push(detail);
      else unmaps.push(detail);
    } else if (detail.kind === 'attachEvent') {
      attaches++;
      lines.attach = line;
    } else if (detail.kind === 'eventTotals') {
      totals = detail;
      lines.totals = line;
    }
  }
  return { maps, unmaps, attaches, totals, lines, foreign };
}

/**
 * Compares the tracer's events below a call with the model's, kind by kind and in order. A map event covers memory that is contiguous, and frames are not the
 * same here: so two events side by side whose frames are not contiguous count as one. A division where frames are contiguous was made on
 * purpose (an area ends; HUGE_PAGES is 0) and must be made by both.
 */
export function compareEvents(recorded: RecordedEvents, model: readonly ModelEvent[], line: number): EventVerdict {
  const maps = model.flatMap((event): Extent[] => (event.kind === 'map' ? [event] : []));
  const unmaps = model.flatMap((event): Extent[] => (event.kind === 'unmap' ? [{ ...event, paddr: null }] : []));
  const attaches = model.filter((event) => event.kind === 'attach').length;
  const { totals, lines, foreign } = recorded;
  const isCut = totals !== null;
  const mismatches: EventMismatch[] = [];
  const compare = (what: 'map' | 'unmap', theirs: readonly Extent[], ours: readonly Extent[]): void => {
    const [expected, got] = [joined(theirs), joined(ours)];
    if (!sameExtents(expected, got, isCut))
      mismatches.push({
        line: lines[what] || line,
        what: `${what} events`,
        expected: extentsText(expected, isCut),
        got: extentsText(got, false),
      });
  };
  compare('map', recorded.maps, maps);
  compare(
    'unmap',
    recorded.unmaps.map((event) => ({ ...event, paddr: null })),
    unmaps,
  );
  for (const event of recorded.unmaps)
    if (event.unmappedSize !== event.size)
      mismatches.push({
        line: lines.unmap,
        what: 'unmapped size',
        expected: hexText(event.unmappedSize),
        got: hexText(event.size),
      });
  if (!isCut && attaches !== recorded.attaches)
    mismatches.push({
      line: lines.attach || line,
      what: 'attach events',
      expected: `${recorded.attaches}`,
      got: `${attaches}`,
    });
  const totalsCompared = totals !== null && foreign === 0;
  if (totalsCompared && !(fits(totals.maps, maps) && fits(totals.unmaps, unmaps)))
    mismatches.push({
      line: lines.totals,
      what: 'event totals',
      expected: `map=${totals.maps} unmap=${totals.unmaps}`,
      got: `map=${maps.length} unmap=${unmaps.length}`,
    });
  return { mismatches, totalsCompared };
}

/** Whether so many events can be these: all of them, or fewer where frames happen to be contiguous. */
const fits = (total: number, events: readonly Extent[]): boolean =>
  total <= events.length && total >= joined(events).length;

/** Side by side, and only because the frames are not contiguous there. */
function joined(events: readonly Extent[]): Extent[] {
  const whole: (Extent & { readonly end: bigint | null })[] = [];
  for (const event of events) {
    const before = whole.at(-1);
    const end = event.paddr === null ? null : event.paddr + event.size;
    const isSplit =
      before !== undefined &&
      before.end !== null &&
      before.iova + before.size === event.iova &&
      before.end !== event.paddr;
    if (isSplit) whole[whole.length - 1] = { ...before, size: before.size + event.size, end };
    else whole.push({ ...event, end });
  }
  return whole;
}

/** @param isCut only the first of the expected ones are there, and the last of these may be a part */
function sameExtents(expected: readonly Extent[], got: readonly Extent[], isCut: boolean): boolean {
  if (isCut ? expected.length > got.length : expected.length !== got.length) return false;
  return expected.every(({ iova, size }, i) => {
    const other = got[i] as Extent;
    const isPart = isCut && i === expected.length - 1 && size <= other.size;
    return iova === other.iova && (size === other.size || isPart);
  });
}

function extentsText(extents: readonly Extent[], isCut: boolean): string {
  const shown = extents.slice(0, 8).map(({ iova, size }) => `${hexText(iova)}+${hexText(size)}`);
  const more = extents.length > shown.length || isCut ? ['…'] : [];
  return [...shown, ...more].join(' ') || 'none';
}
