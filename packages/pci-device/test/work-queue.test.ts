import { describe, expect, it } from 'vitest';
import {
  ACCELERATOR_FAULTS,
  canFault,
  LEGACY_FAULTS,
  NIC_FAULTS,
  NVME_FAULTS,
  unfaultablePaths,
  WorkQueue,
} from '../src/index.ts';
import { DeviceSetup } from './device-setup.ts';

const newResult = () => ({ completed: 9, dropped: 9, aborted: 9 });

describe('a request', () => {
  it('is its descriptor, its data in order, its completion', () => {
    const setup = new DeviceSetup();
    const endpoint = setup.endpoint();
    const queue = new WorkQueue({ endpoint, descriptorPage: 1, completionPage: 2 });
    setup.map(0, 0x80000, 512);
    for (const count of [1, 2]) {
      setup.accesses.length = 0;
      const result = setup.run((agent) => queue.request(agent, 'write', [7, 5], true, 40, 3, newResult()));
      expect(result).toEqual({ completed: 4, dropped: 0, aborted: 0 });
      expect(setup.accesses).toEqual([
        { page: 1, frame: 0x80001, write: false, tagLo: 0, tagHi: 0 },
        { page: 7, frame: 0x80007, write: true, tagLo: 40, tagHi: 3 },
        { page: 5, frame: 0x80005, write: true, tagLo: 41, tagHi: 3 },
        { page: 2, frame: 0x80002, write: true, tagLo: count, tagHi: 0x18 },
      ]);
    }
  });

  it('goes on after a page that was dropped', () => {
    const setup = new DeviceSetup();
    const queue = new WorkQueue({
      endpoint: setup.endpoint({ faults: NIC_FAULTS }),
      descriptorPage: 1,
      completionPage: 2,
    });
    setup.map(0, 0x80000, 8);
    const result = setup.run((agent) => queue.request(agent, 'write', [7, 8, 6], true, 0, 0, newResult()));
    expect(result).toEqual({ completed: 4, dropped: 1, aborted: 0 });
    expect(setup.accesses.at(-1)?.page).toBe(2);
  });

  it('stops with the device: no more data', () => {
    const setup = new DeviceSetup();
    const faults = { ...NIC_FAULTS, write: { whenMissing: 'fatal' } } as const;
    const queue = new WorkQueue({ endpoint: setup.endpoint({ faults }), descriptorPage: 1, completionPage: 2 });
    setup.map(0, 0x80000, 8);
    setup.run((agent) => queue.request(agent, 'write', [8, 7], true, 0, 0, newResult()));
    expect(setup.accesses.map((access) => access.page)).toEqual([1]);
  });

  it('ends when its descriptor cannot be fetched: the device does not know what to move', () => {
    for (const faults of [ACCELERATOR_FAULTS, NVME_FAULTS]) {
      const setup = new DeviceSetup();
      setup.handlePageRequests(() => 1);
      const queue = new WorkQueue({ endpoint: setup.endpoint({ faults }), descriptorPage: 9, completionPage: 2 });
      setup.map(0, 0x80000, 8);
      const result = setup.run((agent) => queue.request(agent, 'write', [7], true, 0, 0, newResult()));
      expect(result).toEqual({ completed: 0, dropped: 0, aborted: 1 });
      expect(setup.accesses).toEqual([]);
    }
  });
});

describe('what a driver reports', () => {
  it('names the paths that must find their memory pinned; interrupts are not translated', () => {
    expect(unfaultablePaths(ACCELERATOR_FAULTS)).toEqual([]);
    expect(unfaultablePaths(NVME_FAULTS)).toEqual(['descriptor', 'completion']);
    expect(unfaultablePaths(NIC_FAULTS)).toEqual(['descriptor', 'write', 'completion']);
    expect(unfaultablePaths(LEGACY_FAULTS)).toEqual(['descriptor', 'read', 'write', 'completion']);
    expect(canFault({ ...LEGACY_FAULTS, msi: { whenMissing: 'fatal' } }, 'msi')).toBe(true);
  });
});
