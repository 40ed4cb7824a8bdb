import {
  type DmaStats,
  evaluateThresholds,
  type FaultStats,
  type HostMmStats,
  type IoptStats,
  type StatsDocument,
  type Threshold,
  VERSION,
} from '@faultline/machine';
import { nearest } from '../nearest.ts';

const latencyNs = { mean: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0 };
const bySize = { '4K': 0, '2M': 0, '1G': 0 };
const splits = { '1G->2M': 0, '2M->4K': 0 };

const dma: DmaStats = {
  requests: 0,
  completed: 0,
  faulted: 0,
  aborted: 0,
  dropped: 0,
  bytes: 0,
  bytesPerSecond: 0,
  latencyNs,
};
const iopt: IoptStats = {
  leaves: bySize,
  leavesBefore: bySize,
  mappedBytes: 0,
  mappedBytesBefore: 0,
  tablePages: 0,
  tablePagesBefore: 0,
  tablePagesPeak: 0,
  splits,
  collapses: 0,
  wholeLeafFallbacks: 0,
  reservePages: 0,
};
const faults: FaultStats = {
  pageRequests: 0,
  groups: 0,
  responses: { success: 0, invalid: 0, failure: 0 },
  outcomes: { mapped: 0, spurious: 0, retried: 0 },
  overflows: 0,
  lies: 0,
  latencyNs,
};
const hostMm: HostMmStats = {
  swapOut: 0,
  swapIn: 0,
  minorFaults: 0,
  failedCpuAccesses: 0,
  majorFaults: 0,
  notifierRanges: 0,
  notifierEvents: {},
  residentBytes: 0,
  residentBytesBefore: 0,
  swappedBytes: 0,
  pinnedBytes: 0,
  freedBytes: 0,
  folioSplits: splits,
  ksm: { pagesShared: 0, pagesSharing: 0 },
  balloonedPages: 0,
  vmstat: {},
  marks: [],
};
const groups = {
  dma,
  iopt,
  faults,
  hostMm,
  innocent: { faulted: 0, stalled: 0, stalledNs: 0 },
  dirty: { writtenPages: 0, reportedPages: 0 },
};

/** A stats document of a run in which nothing happened, with one of everything that there may be several of. */
export const SAMPLE_STATS: StatsDocument = {
  schema: 'faultline.stats/1',
  scenario: '',
  strategy: '',
  seed: 0,
  version: VERSION,
  virtualTimeNs: 0,
  bootNs: 0,
  interrupted: false,
  verdict: 'ok',
  expect: 'ok',
  crash: {
    reason: '',
    faultReason: 0,
    iova: '0x0',
    atNs: 0,
    totals: { unmaps: 0, mistaken: 0, corrupted: 0 },
    mistaken: [{ level: 0, hpa: '0x0', word: '0x0', owner: '' }],
    corrupted: [{ hpa: '0x0', word: '0x0', owner: '' }],
    freed: [{ hpa: '0x0', owner: '' }],
  },
  refusal: { vm: '', device: '', code: '', reason: '' },
  ...groups,
  iotlb: {
    lookups: 0,
    hits: 0,
    misses: 0,
    hitsBySize: bySize,
    pagingCacheHits: 0,
    walkReads: 0,
    invalidations: 0,
    deviceTlbLookups: 0,
    deviceTlbHits: 0,
  },
  invariants: [{ id: 'I1', checks: 0, violations: 0, first: '' }],
  thresholds: [{ expression: '', value: 0, ok: true }],
  events: [{ action: '', times: 0, outcomes: {} }],
  injected: { frameAllocation: 0, tableAllocation: 0, swapRead: 0, swapWrite: 0, invalidationTimeout: 0 },
  isolatedDevices: [],
  vms: [{ name: '', ...groups, devices: [{ name: '', dma }] }],
};

/**
 * Finds out before the run whether a threshold names a number of the stats document.
 * @throws RangeError, with the nearest field
 */
export function checkThresholdField(threshold: Threshold): void {
  const path = threshold.path.map((key) => (/^\d+$/.test(key) ? '0' : key));
  try {
    evaluateThresholds(SAMPLE_STATS, [{ ...threshold, path }]);
  } catch (error) {
    const fields = numberPaths(SAMPLE_STATS, '');
    const [group, field] = [threshold.path[0] ?? '', threshold.path.at(-1) ?? ''];
    const near =
      fields.find((known) => known.startsWith(`${group}.`) && known.endsWith(`.${field}`)) ??
      nearest(threshold.path.join('.'), fields);
    const message = error instanceof Error ? error.message : String(error);
    throw new RangeError(near === undefined ? message : `${message}; did you mean "${near}"?`);
  }
}

function numberPaths(value: unknown, path: string): string[] {
  if (typeof value === 'number') return [path];
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) => numberPaths(member, path === '' ? key : `${path}.${key}`));
}

/** JSON schema of the stats document, drawn from the sample. Fields may be added to the document. */
export function statsJsonSchema(): unknown {
  const schema = schemaOf(SAMPLE_STATS, '') as { properties: Record<string, unknown> };
  schema.properties.schema = { const: SAMPLE_STATS.schema };
  const verdicts = ['ok', 'invariant-violated', 'host-crashed', 'refused'];
  schema.properties.verdict = { enum: [...verdicts, 'threshold-failed'] };
  schema.properties.expect = { enum: verdicts };
  for (const group of ['crash', 'refusal'])
    schema.properties[group] = { anyOf: [schema.properties[group], { type: 'null' }] };
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', ...schema };
}

const OPTIONAL = new Set(['first']);

function schemaOf(value: unknown, key: string): unknown {
  if (Array.isArray(value)) return { type: 'array', items: schemaOf(value[0], key) };
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value);
    return {
      type: 'object',
      properties: Object.fromEntries(entries.map(([name, member]) => [name, schemaOf(member, name)])),
      required: entries.map(([name]) => name).filter((name) => !OPTIONAL.has(name)),
    };
  }
  return key === 'faultReason' ? { type: ['number', 'null'] } : { type: typeof value };
}
