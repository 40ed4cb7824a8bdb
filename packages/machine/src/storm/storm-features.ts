import { parseSize } from '@faultline/address';
import { type Scenario, vmsOf } from '../scenario.ts';
import type { StatsDocument } from '../stats.ts';

/** What a machine of a storm is made of and what happens to it: by kind of feature, the names that it has. */
export type StormFeatures = Readonly<Record<StormFeatureKind, readonly string[]>>;
/** A kind of feature; a report has a line for each. */
export type StormFeatureKind = (typeof STORM_FEATURE_KINDS)[number];

/** Kinds of feature, in the order of a report. */
export const STORM_FEATURE_KINDS = [
  'strategy',
  'backing',
  'guest',
  'device',
  'host',
  'policy',
  'event',
  'failure',
] as const;

/** The features that a scenario turns on. */
export function featuresOf(scenario: Scenario): StormFeatures {
  const vms = vmsOf(scenario);
  return {
    strategy: [scenario.strategy],
    backing: unique(vms.map(({ backing }) => backing)),
    guest: guestFeatures(scenario),
    device: unique(vms.flatMap(({ devices }) => deviceFeatures(devices))),
    host: hostFeatures(scenario),
    policy: policyFeatures(scenario),
    event: unique(scenario.events.map(({ action }) => action)),
    failure: failureFeatures(scenario.inject),
  };
}

/** What of it has come to pass: of events those that happened, of failures those that struck, and what they led to. */
export function reachedFeatures(scenario: Scenario, stats: StatsDocument): StormFeatures {
  const drawn = featuresOf(scenario);
  const happened = new Set(stats.events.filter(({ times }) => times > 0).map(({ action }) => action));
  const struck = new Map(Object.entries(stats.injected));
  return {
    ...drawn,
    event: drawn.event.filter((action) => happened.has(action)),
    failure: [
      ...drawn.failure.filter((name) => (struck.get(name) ?? 1) > 0),
      ...those({
        deviceIsolated: stats.isolatedDevices.length > 0,
        pageRequestOverflow: stats.faults.overflows > 0,
        wholeLeafFallback: stats.iopt.wholeLeafFallbacks > 0,
      }),
    ],
  };
}

const unique = (names: readonly string[]): string[] => [...new Set(names)];
const those = (has: Readonly<Record<string, boolean>>): string[] => Object.keys(has).filter((name) => has[name]);

function guestFeatures(scenario: Scenario): string[] {
  const vms = vmsOf(scenario);
  return those({
    several: vms.length > 1,
    balloon: vms.some(({ balloon }) => balloon !== null),
    memoryMax: vms.some(({ memoryMax }) => memoryMax !== undefined),
    equalPages: vms.some(({ equalPages }) => equalPages !== null),
  });
}

function deviceFeatures(devices: Scenario['vm']['devices']): string[] {
  const present = Object.values(devices).filter((device) => device !== null);
  return those({
    accelerator: devices.accelerator !== null,
    disk: devices.disk !== null,
    nic: devices.nic !== null,
    ats: present.some(({ ats }) => ats),
    'no ats': present.some(({ ats }) => !ats),
    'few credits': present.some(({ ats, credits }) => ats && credits <= 2),
  });
}

function hostFeatures(scenario: Scenario): string[] {
  const { host, reclaim } = scenario;
  const guests = vmsOf(scenario).reduce((sum, { memory }) => sum + parseSize(memory), 0n);
  return [
    ...those({
      zswap: host.zswap,
      'queued swap': host.swapQueueDepth > 0,
      'less than its guests': parseSize(host.memory) < guests,
      thpSwap: host.thpSwap,
      'split notifies': host.splitNotify === 'clear',
      watermarks: host.watermarks === 'linux',
      'small iotlb': scenario.iommu.iotlb !== undefined,
      'no dirty bits': !scenario.iommu.accessedDirty,
      'no reserve': scenario.iommu.reservePages === 0,
      'small page request queue': scenario.iommu.pageRequestEntries <= 16,
    }),
    host.swapKind,
    host.lru,
    reclaim === null ? 'no reclaimer' : `reclaim by ${reclaim.by}`,
  ];
}

function policyFeatures({ iommu: { faultPolicy: policy, onUnfaultable } }: Scenario): string[] {
  const { prefault, around, largest, populateAround } = policy;
  return [
    `prefault ${prefault}`,
    `around ${around}`,
    `largest ${largest}`,
    ...those({ populateAround }),
    `unfaultable ${onUnfaultable}`,
  ];
}

function failureFeatures(inject: Scenario['inject']): string[] {
  const shares = ['frameAllocation', 'tableAllocation', 'swapRead', 'swapWrite', 'invalidationTimeout'] as const;
  return [...shares.filter((name) => inject[name] > 0), ...those({ slowSwap: inject.slowSwap > 1 })];
}
