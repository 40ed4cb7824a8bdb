import type { SimEvent } from '@faultline/sim';
import { writeParquet, writePerfetto } from '@faultline/trace-formats';

/** The events of a run as the files of its directory. */
export function eventFiles(
  events: readonly SimEvent[],
  metadata: Readonly<Record<string, string>>,
): Readonly<Record<string, Uint8Array>> {
  return {
    'events.parquet': writeParquet(events, { metadata }),
    'trace.pftrace': writePerfetto(events, { processName: `faultline ${metadata.scenario ?? ''}`.trim() }),
  };
}
