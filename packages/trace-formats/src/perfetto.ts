import type { SimEvent } from '@faultline/sim';
import { ProtobufWriter } from './protobuf-writer.ts';

/** Options of {@link writePerfetto}. */
export interface PerfettoOptions {
  /** Name of the process under which the tracks appear; default `faultline`. */
  readonly processName?: string;
}

/** Field numbers of perfetto.protos, as far as they are used. */
const Field = {
  trace: { packet: 1 },
  packet: { timestamp: 8, sequenceId: 10, trackEvent: 11, sequenceFlags: 13, trackDescriptor: 60, clockId: 58 },
  track: { uuid: 1, name: 2, process: 3, parentUuid: 5 },
  process: { pid: 1, name: 6 },
  event: { annotation: 4, type: 9, trackUuid: 11, name: 23 },
  annotation: { int: 4, double: 5, text: 6, name: 10 },
} as const;
const EventType = { sliceBegin: 1, sliceEnd: 2, instant: 3 } as const;
/** SEQ_INCREMENTAL_STATE_CLEARED */
const STATE_CLEARED = 1;
const PROCESS_UUID = 1;
const SEQUENCE = 1;
/** BUILTIN_CLOCK_BOOTTIME: the virtual clock is shown as it is. */
const CLOCK = 6;

/**
 * Writes events as a Perfetto trace (protobuf), for ui.perfetto.dev: a track for each `track` in order of first
 * appearance, a slice for an event that lasts, an instant for one that does not, arguments as debug annotations.
 *
 * Slices of a track that overlap without nesting (an agent's own never do) are cut off by the viewer where the earlier
 * one ends; nothing is lost in the file.
 * @param events in any order; written in order of time, ends before begins at the same instant
 * @returns the file's bytes
 * @throws RangeError for a time that is no integer of nanoseconds in 0..2^53-1
 */
export function writePerfetto(events: Iterable<SimEvent>, options: PerfettoOptions = {}): Uint8Array {
  const trace = new ProtobufWriter();
  const list = [...events];
  const uuids = new Map<string, number>();
  for (const { track } of list) if (!uuids.has(track)) uuids.set(track, PROCESS_UUID + 1 + uuids.size);
  writeTracks(trace, uuids, options.processName ?? 'faultline');
  for (const point of inOrder(list)) writePoint(trace, point, uuids.get(point.event.track) ?? PROCESS_UUID);
  return trace.finish();
}

function writeTracks(trace: ProtobufWriter, uuids: ReadonlyMap<string, number>, processName: string): void {
  trace.message(Field.trace.packet, (packet) => {
    packet.unsigned(Field.packet.sequenceId, SEQUENCE).unsigned(Field.packet.sequenceFlags, STATE_CLEARED);
    packet.message(Field.packet.trackDescriptor, (track) => {
      track.unsigned(Field.track.uuid, PROCESS_UUID);
      track.message(Field.track.process, (process) => {
        process.unsigned(Field.process.pid, 1).text(Field.process.name, processName);
      });
    });
  });
  for (const [name, uuid] of uuids) {
    trace.message(Field.trace.packet, (packet) => {
      packet.unsigned(Field.packet.sequenceId, SEQUENCE);
      packet.message(Field.packet.trackDescriptor, (track) => {
        track.unsigned(Field.track.uuid, uuid).unsigned(Field.track.parentUuid, PROCESS_UUID);
        track.text(Field.track.name, name);
      });
    });
  }
}

interface Point {
  readonly event: SimEvent;
  readonly type: number;
  readonly atNs: number;
}

/** Begins, ends and instants by time; at one instant ends come first, and the longer of two slices begins first. */
function inOrder(events: readonly SimEvent[]): Point[] {
  const points: Point[] = [];
  for (const event of events) {
    const { atNs, durationNs } = event;
    if (durationNs > 0) {
      points.push({ event, type: EventType.sliceBegin, atNs });
      points.push({ event, type: EventType.sliceEnd, atNs: atNs + durationNs });
    } else points.push({ event, type: EventType.instant, atNs });
  }
  const rank = ({ type }: Point): number => (type === EventType.sliceEnd ? 0 : 1);
  return points
    .map((point, index) => ({ point, index }))
    .sort(
      (a, b) =>
        a.point.atNs - b.point.atNs ||
        rank(a.point) - rank(b.point) ||
        (rank(a.point) === 0
          ? a.point.event.durationNs - b.point.event.durationNs
          : b.point.event.durationNs - a.point.event.durationNs) ||
        a.index - b.index,
    )
    .map(({ point }) => point);
}

function writePoint(trace: ProtobufWriter, { event, type, atNs }: Point, uuid: number): void {
  trace.message(Field.trace.packet, (packet) => {
    packet.unsigned(Field.packet.timestamp, atNs).unsigned(Field.packet.clockId, CLOCK);
    packet.unsigned(Field.packet.sequenceId, SEQUENCE);
    packet.message(Field.packet.trackEvent, (trackEvent) => {
      trackEvent.unsigned(Field.event.type, type).unsigned(Field.event.trackUuid, uuid);
      if (type === EventType.sliceEnd) return;
      trackEvent.text(Field.event.name, event.name);
      for (const [name, value] of Object.entries(event.args)) {
        trackEvent.message(Field.event.annotation, (annotation) => {
          annotation.text(Field.annotation.name, name);
          if (typeof value === 'string') annotation.text(Field.annotation.text, value);
          else if (Number.isSafeInteger(value)) annotation.signed(Field.annotation.int, BigInt(value));
          else annotation.double(Field.annotation.double, value);
        });
      }
    });
  });
}
