import type { SimEvent } from '@faultline/sim';
import { parquetReadObjects } from 'hyparquet';
import protobuf from 'protobufjs';
import { describe, expect, test } from 'vitest';
import { writeParquet, writePerfetto } from '../src/index.ts';

const EVENTS: readonly SimEvent[] = [
  { atNs: 2 ** 40 + 1, durationNs: 0, track: 'vm0/nic', name: 'drop', args: { iova: '0xfff000', count: -3 } },
  { atNs: 100, durationNs: 50, track: 'kswapd \u00fc', name: 'swap out', args: {} },
  { atNs: 100, durationNs: 20, track: 'kswapd \u00fc', name: 'cut', args: { ratio: 0.5, big: 2 ** 53 - 1 } },
  { atNs: 150, durationNs: 10, track: 'kswapd \u00fc', name: 'flush', args: { text: '' } },
];

/** The part of perfetto.protos that the writer uses, from its published field numbers. */
const { root } = protobuf.parse(`
  syntax = "proto2";
  message Trace { repeated Packet packet = 1; }
  message Packet {
    optional uint64 timestamp = 8; optional uint32 trusted_packet_sequence_id = 10; optional TrackEvent track_event = 11;
    optional uint32 sequence_flags = 13; optional uint32 timestamp_clock_id = 58;
    optional TrackDescriptor track_descriptor = 60;
  }
  message TrackDescriptor {
    optional uint64 uuid = 1; optional string name = 2; optional ProcessDescriptor process = 3;
    optional uint64 parent_uuid = 5;
  }
  message ProcessDescriptor { optional int32 pid = 1; optional string process_name = 6; }
  message TrackEvent {
    repeated DebugAnnotation debug_annotations = 4; optional int32 type = 9; optional uint64 track_uuid = 11;
    optional string name = 23;
  }
  message DebugAnnotation {
    optional int64 int_value = 4; optional double double_value = 5; optional string string_value = 6;
    optional string name = 10;
  }`);

interface Annotation {
  readonly name: string;
  readonly intValue?: string;
  readonly doubleValue?: number;
  readonly stringValue?: string;
}
interface Packet {
  readonly timestamp?: string;
  readonly trackDescriptor?: { uuid: string; name?: string; parentUuid?: string; process?: { processName: string } };
  readonly trackEvent?: { type: number; trackUuid: string; name?: string; debugAnnotations?: Annotation[] };
}

function decode(bytes: Uint8Array): Packet[] {
  const type = root.lookupType('Trace');
  const trace = type.toObject(type.decode(bytes), { longs: String }) as { packet?: Packet[] };
  return trace.packet ?? [];
}

describe('Perfetto', () => {
  const packets = decode(writePerfetto(EVENTS, { processName: 'run 7' }));

  test('one track for each agent, under one process', () => {
    const tracks = packets.flatMap(({ trackDescriptor }) => (trackDescriptor ? [trackDescriptor] : []));
    expect(tracks.map(({ name, parentUuid, process }) => [process?.processName, name, parentUuid])).toEqual([
      ['run 7', undefined, undefined],
      [undefined, 'vm0/nic', '1'],
      [undefined, 'kswapd \u00fc', '1'],
    ]);
  });

  test('slices nest, ends come before begins, instants stand alone', () => {
    const points = packets.flatMap(({ timestamp, trackEvent }) =>
      trackEvent ? [[timestamp, trackEvent.type, trackEvent.name]] : [],
    );
    expect(points).toEqual([
      ['100', 1, 'swap out'],
      ['100', 1, 'cut'],
      ['120', 2, undefined],
      ['150', 2, undefined],
      ['150', 1, 'flush'],
      ['160', 2, undefined],
      [String(2 ** 40 + 1), 3, 'drop'],
    ]);
  });

  test('arguments keep their type', () => {
    const args = packets.flatMap(({ trackEvent }) => trackEvent?.debugAnnotations ?? []);
    expect(args).toEqual([
      { name: 'ratio', doubleValue: 0.5 },
      { name: 'big', intValue: String(2 ** 53 - 1) },
      { name: 'text', stringValue: '' },
      { name: 'iova', stringValue: '0xfff000' },
      { name: 'count', intValue: '-3' },
    ]);
  });

  test('no event, many events, a time that cannot be', () => {
    expect(decode(writePerfetto([]))).toHaveLength(1);
    const many = Array.from({ length: 5000 }, (_, index) => ({ ...EVENTS[0], atNs: index }) as SimEvent);
    expect(decode(writePerfetto(many))).toHaveLength(5002);
    expect(() => writePerfetto([{ ...EVENTS[0], atNs: -1 } as SimEvent])).toThrow(RangeError);
  });
});

describe('Parquet', () => {
  const read = async (bytes: Uint8Array): Promise<Record<string, unknown>[]> =>
    parquetReadObjects({ file: bytes.buffer as ArrayBuffer });

  test('a row for each event, in the order given', async () => {
    const bytes = writeParquet(EVENTS, { metadata: { seed: '7' } });
    expect(new TextDecoder().decode(bytes.subarray(0, 4))).toBe('PAR1');
    expect(await read(bytes)).toEqual(
      EVENTS.map(({ atNs, durationNs, track, name, args }) => ({
        atNs: BigInt(atNs),
        durationNs: BigInt(durationNs),
        track,
        name,
        args: JSON.stringify(args),
      })),
    );
  });

  test('no event, and several row groups', async () => {
    expect(await read(writeParquet([]))).toEqual([]);
    const many = Array.from({ length: 250 }, (_, index) => ({ ...EVENTS[0], atNs: index }) as SimEvent);
    expect((await read(writeParquet(many, { rowGroupSize: 100 }))).map(({ atNs }) => Number(atNs))).toEqual(
      many.map(({ atNs }) => atNs),
    );
  });
});
