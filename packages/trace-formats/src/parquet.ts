import type { SimEvent } from '@faultline/sim';
import { parquetWriteBuffer } from 'hyparquet-writer/src/write.js';

/** Options of {@link writeParquet}. */
export interface ParquetOptions {
  /** Key-value metadata of the file, such as scenario and seed. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Rows in a row group; default 100,000. */
  readonly rowGroupSize?: number;
}

/**
 * Writes events as a Parquet file, a row each, in the order given: `atNs` and `durationNs` (INT64, nanoseconds), `track`
 * and `name` (strings), `args` (a JSON object as string).
 * @returns the file's bytes
 * @throws RangeError for a time that is no integer
 */
export function writeParquet(events: Iterable<SimEvent>, options: ParquetOptions = {}): Uint8Array {
  const atNs: bigint[] = [];
  const durationNs: bigint[] = [];
  const track: string[] = [];
  const name: string[] = [];
  const args: string[] = [];
  for (const event of events) {
    atNs.push(BigInt(event.atNs));
    durationNs.push(BigInt(event.durationNs));
    track.push(event.track);
    name.push(event.name);
    args.push(JSON.stringify(event.args));
  }
  const kvMetadata = Object.entries(options.metadata ?? {}).map(([key, value]) => ({ key, value }));
  const buffer = parquetWriteBuffer({
    columnData: [
      { name: 'atNs', data: atNs, type: 'INT64', nullable: false },
      { name: 'durationNs', data: durationNs, type: 'INT64', nullable: false },
      { name: 'track', data: track, type: 'STRING', nullable: false },
      { name: 'name', data: name, type: 'STRING', nullable: false },
      { name: 'args', data: args, type: 'STRING', nullable: false },
    ],
    rowGroupSize: options.rowGroupSize ?? 100_000,
    kvMetadata,
    createdBy: 'faultline',
  });
  return new Uint8Array(buffer);
}
