import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DeviceLie, type DeviceReport, LieDetector, pinningFor, RangeLearner } from '../src/index.ts';

const stall = (path: string, ranges?: { page: number; pages: number }[]) => ({
  path,
  canFault: true,
  ...(ranges ? { ranges } : {}),
});
const fatal = (path: string, ranges?: { page: number; pages: number }[]) => ({
  path,
  canFault: false,
  whenMissing: 'fatal' as const,
  ...(ranges ? { ranges } : {}),
});
const RING = [{ page: 8, pages: 2 }];

describe('what must be pinned for a device', () => {
  it('is nothing if all its paths can fault, or only interrupts cannot; else the ranges of those that cannot', () => {
    expect(pinningFor({ name: 'a', paths: [stall('read'), fatal('msi')] })).toEqual({ all: false, ranges: [] });
    expect(pinningFor({ name: 'a', paths: [stall('read'), fatal('descriptor', RING)] })).toEqual({
      all: false,
      ranges: RING,
    });
  });

  it('is refused when ranges are not known, with what to do; or it is all, if the user asked for that', () => {
    const some = { name: 'nic', paths: [stall('read'), fatal('write'), fatal('descriptor', RING)] };
    expect(() => pinningFor(some)).toThrow(
      /^EOPNOTSUPP: nic: its write DMA cannot fault and the ranges it uses are not declared; declare them .*RangeLearner.*, map the IOAS pinned, or attach with unfaultable: 'pin-all'$/,
    );
    const none = { name: 'old', paths: [fatal('read'), fatal('write')] };
    expect(() => pinningFor(none)).toThrow(
      'EOPNOTSUPP: old: no DMA of it can fault (read, write); map the IOAS pinned',
    );
    for (const report of [some, none]) expect(pinningFor({ ...report, unfaultable: 'pin-all' })).toEqual({ all: true });
  });

  it('a report that contradicts itself is refused', () => {
    const reports: [DeviceReport['paths'], string][] = [
      [[stall('read'), fatal('read')], 'EINVAL: x: its read DMA is reported twice'],
      [
        [{ path: 'read', canFault: true, whenMissing: 'drop' }],
        "'drop' when a page is missing; only a path that stalls",
      ],
      [[{ path: 'read', canFault: false, whenMissing: 'stall' }], "not fault, and 'stall'"],
      [[fatal('read', [{ page: -1, pages: 1 }])], 'EINVAL: x: its read DMA declares 1 pages from page -1'],
      [[fatal('read', [{ page: 1, pages: 0 }])], 'EINVAL: x: its read DMA declares 0 pages'],
    ];
    for (const [paths, message] of reports) expect(() => pinningFor({ name: 'x', paths })).toThrow(message);
  });
});

describe('RangeLearner', () => {
  it('declares exactly the pages seen on a path, as ranges in order that do not touch', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(60)), (pages) => {
        const learner = new RangeLearner();
        for (const page of pages) learner.saw('descriptor', page);
        const ranges = learner.rangesOf('descriptor');
        const declared = ranges.flatMap((range) => Array.from({ length: range.pages }, (_, i) => range.page + i));
        expect(declared).toEqual([...new Set(pages)].sort((a, b) => a - b));
        expect(ranges.length).toBe(declared.filter((page) => !declared.includes(page - 1)).length);
      }),
    );
  });

  it('fills in what a report leaves open, and only that; what was never seen stays open', () => {
    const learner = new RangeLearner();
    for (const page of [9, 8, 8]) learner.saw('descriptor', page);
    learner.saw('read', 100);
    learner.saw('completion', 50);
    const paths = [fatal('descriptor'), stall('read'), fatal('completion', [{ page: 1, pages: 1 }]), fatal('write')];
    expect(learner.declare({ name: 'nic', paths }).paths).toEqual([
      fatal('descriptor', RING),
      stall('read'),
      fatal('completion', [{ page: 1, pages: 1 }]),
      fatal('write'),
    ]);
  });
});

describe('LieDetector', () => {
  const watch = (paths: DeviceReport['paths']) => {
    const lies: DeviceLie[] = [];
    return { detector: new LieDetector({ name: 'nic', paths }, (lie) => lies.push(lie)), lies };
  };
  const NIC = [fatal('descriptor', RING), stall('read'), fatal('write'), fatal('completion', [{ page: 10, pages: 1 }])];

  it('a device all of whose paths ask for pages cannot be blocked', () => {
    const { detector, lies } = watch([stall('read'), fatal('completion', RING)]);
    detector.dmaFault(77, false, true);
    expect(lies).toMatchObject([{ device: 'nic', kind: 'faulted-without-request', page: 77, write: false }]);
    expect(lies[0]?.message).toContain('0x4d000');
    expect([detector.dmaFault(77, false, false), detector.lies]).toEqual([null, 1]); // a stray DMA
  });

  it('a blocked DMA outside the declared ranges of paths that cannot fault is one; inside them it is not the device’s fault', () => {
    const { detector, lies } = watch([fatal('descriptor', RING), stall('write')]);
    expect(detector.dmaFault(8, false, true)).toBe(null);
    expect(detector.dmaFault(20, false, true)?.kind).toBe('undeclared-page');
    expect(detector.dmaFault(20, true, true)?.kind).toBe('faulted-without-request');
    expect([lies.length, detector.lies]).toEqual([2, 2]);
    // Undeclared and attached all the same: everything is pinned for it.
    expect(watch(NIC).detector.dmaFault(20, true, true)).toBe(null);
  });

  it('a page request is one if no path of its direction may ask', () => {
    const { detector, lies } = watch(NIC);
    expect(detector.pageRequest(77, false)).toBe(null); // transmit may
    expect(detector.pageRequest(77, true)?.kind).toBe('request-without-right');
    expect(lies[0]?.paths).toEqual(['write', 'completion']);
  });

  it('a page request for what an unfaultable path has declared is one if the faultable paths declare other ranges', () => {
    const { detector } = watch([fatal('descriptor', RING), stall('read', [{ page: 100, pages: 10 }])]);
    expect(detector.pageRequest(104, false)).toBe(null);
    expect(detector.pageRequest(8, false)?.kind).toBe('request-without-right');
    // Where the data path may go anywhere, nothing tells the two apart.
    expect(watch([fatal('descriptor', RING), stall('read')]).detector.pageRequest(8, false)).toBe(null);
  });
});
