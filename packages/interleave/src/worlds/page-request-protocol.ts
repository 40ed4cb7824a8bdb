import { STRATEGIES } from '@faultline/iommufd-core';
import type { Protocol } from '../protocol.ts';
import type { SplitConfiguration } from '../split-configuration.ts';
import type { SplitProtocol } from '../split-protocol.ts';
import { SplitWorld } from '../split-world.ts';
import {
  type PageRequestDefects,
  type PageRequestTraffic,
  PageRequestWorld,
  type SentGroup,
} from './page-request-world.ts';

const group = (index: number, ...pages: number[]): SentGroup => ({ index, pages });

/** Small traffic that meets each case: room and none, whole groups and partial ones, one device and two, one worker and two. */
const TRAFFIC: Readonly<Record<string, PageRequestTraffic>> = {
  'two devices, room for both': { devices: [[[group(0, 1)]], [[group(0, 2)]]], room: 2 },
  'two devices, room for both, two workers': { devices: [[[group(0, 1)]], [[group(0, 2)]]], room: 2, workers: 2 },
  'two devices, groups of two, room for all': { devices: [[[group(0, 1, 2)]], [[group(0, 3, 4)]]], room: 4 },
  'two devices, one sends a second group with the same index': {
    devices: [[[group(0, 1), group(0, 2)]], [[group(0, 3)]]],
    room: 2,
  },
  'two devices, room for one: overflow': { devices: [[[group(0, 1)]], [[group(0, 2)]]], room: 1 },
  'a group of two, room for one: overflow': { devices: [[[group(0, 1, 2)]]], room: 1 },
  'three groups of two devices, room for two: overflow': {
    devices: [[[group(0, 1)], [group(1, 2)]], [[group(0, 3)]]],
    room: 2,
  },
  'two groups of one device, one of two, room for two: overflow, partial lists': {
    devices: [[[group(0, 1, 2)], [group(1, 3)]]],
    room: 2,
  },
};

/** A page that nothing maps, of memory that the host has; see `fault-vs-notifier` for a host that takes it. */
const FAULTING_DMA: SplitConfiguration = {
  name: 'faulting DMA',
  leaf: '2M',
  target: 'victim',
  cached: 'nothing',
  allocationMayFail: false,
  device: 'ATS and PRI',
  walkers: 1,
  losesEntries: false,
  coherent: true,
  accessedDirty: false,
};

const parts = ({ faultPath }: PageRequestDefects): SplitProtocol => ({
  strategy: STRATEGIES.cut,
  hitless: false,
  variant: { startsEmpty: true, hostRests: true, ...(faultPath ? { faultPath } : {}) },
});

/** Page requests, from a device to its answer, with what `defects` makes wrong. */
export const pageRequestProtocol = (defects: PageRequestDefects = {}): Protocol => ({
  name: 'prq',
  title: 'page requests are queued, overflow, and are answered: each group gets exactly one answer, and none is left',
  configurations: [
    ...Object.entries(TRAFFIC).map(([name, traffic]) => ({
      name,
      build: () => new PageRequestWorld(traffic, defects),
    })),
    {
      name: 'DMA that faults, through device TLB, tables and host',
      build: () => new SplitWorld(FAULTING_DMA, parts(defects)),
    },
  ],
});
