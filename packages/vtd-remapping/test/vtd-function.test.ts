import { Agent, runToEnd, type Task } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { describe, expect, it } from 'vitest';
import { FunctionGroup, RemappingUnit, type UnitCapabilities, VtdDriver, VtdFunction } from '../src/index.ts';

const agent = new Agent('driver');

function ready(mode: 'legacy' | 'scalable', capabilities: Partial<UnitCapabilities> = {}, pages = 64) {
  const unit = new RemappingUnit({ memory: new TableMemory({ pages }), capabilities });
  const driver = new VtdDriver({ unit, mode });
  const run = <T>(task: Task<T>): T => runToEnd(task, () => unit.processQueue());
  const dma = (iovaLo: number, access: 1 | 2): number =>
    run(unit.translateMiss(agent, { sourceId: 0x28, iovaHi: 0, iovaLo, access }));
  return { unit, driver, run, dma };
}

const PLAIN = { nestParent: false, dirtyTracking: false };

describe('a function', () => {
  it('says what iommufd asks: the interrupt range, CAP and ECAP, capabilities, a group', () => {
    const { unit, driver } = ready('scalable');
    const group = new FunctionGroup();
    const [first, second] = [0x28, 0x29].map((sourceId) => new VtdFunction({ driver, sourceId, group }));
    expect([first?.name, first?.group === second?.group, group.devices.length]).toEqual(['00:05.0', true, 2]);
    expect(first?.reservedRegions).toEqual([{ start: 0xfee0_0000n, last: 0xfeef_ffffn, type: 'msi' }]);
    const words = new DataView((first as VtdFunction).hwInfo.data.buffer);
    expect([words.getBigUint64(8, true), words.getBigUint64(16, true)]).toEqual([
      unit.registers.read64(8),
      unit.registers.read64(16),
    ]);
    expect(first?.capabilities).toEqual({
      dirtyTracking: true,
      pageRequests: false,
      ats: false,
      virtualFunction: false,
    });
  });

  it('allocates domains of the aperture that the unit walks, under a domain-id each', () => {
    const { driver } = ready('legacy', { levels: [3, 4], guestAddressWidth: 48 });
    const device = new VtdFunction({ driver, sourceId: 0x28 });
    const [a, b] = [device.allocatePaging(PLAIN), device.allocatePaging(PLAIN)];
    expect([a.aperture, a.domain.table.levels, a.domain.domainId, b.domain.domainId]).toEqual([
      { start: 0n, last: 2n ** 48n - 1n },
      4,
      1,
      2,
    ]);
    a.destroy();
    expect(device.allocatePaging(PLAIN).domain.domainId).toBe(1);
    expect(() => device.allocatePaging({ ...PLAIN, nestParent: true })).toThrow(
      'EOPNOTSUPP: 00:05.0: its unit has no nested',
    );
    expect(() => device.allocatePaging({ ...PLAIN, dirtyTracking: true })).toThrow(
      'EOPNOTSUPP: 00:05.0: its unit sets no dirty',
    );
  });

  it('moves from one domain to another, and stays where it was if that fails', () => {
    const { driver, run, dma, unit } = ready('scalable');
    const before = unit.memory.used;
    const device = new VtdFunction({ driver, sourceId: 0x28 });
    const [a, b] = [device.allocatePaging(PLAIN), device.allocatePaging(PLAIN)];
    for (const [each, frame] of [
      [a, 0x240000],
      [b, 0x250000],
    ] as const)
      run(each.domain.map(agent, { page: 5, frame, pages: 1, write: true }));
    run(device.attach(agent, a.domain));
    expect(dma(0x5000, 1)).toBe(0x240000);
    run(device.attach(agent, b.domain));
    expect([dma(0x5000, 1), device.domain === b.domain]).toEqual([0x250000, true]);
    const foreign = new VtdFunction({ driver: ready('scalable').driver, sourceId: 0x28 }).allocatePaging(PLAIN);
    expect(() => run(device.attach(agent, foreign.domain))).toThrow('EINVAL: 00:05.0: the domain is not of its unit');
    expect(() => run(device.attach(agent, {}))).toThrow('EINVAL');
    expect(dma(0x5000, 1)).toBe(0x250000);
    run(device.detach(agent));
    run(device.detach(agent)); // of nothing: nothing
    expect(dma(0x5000, 1)).toBeLessThan(0);
    a.destroy();
    b.destroy();
    expect(unit.memory.used).toBe(before + 1); // the context table stays
  });

  it('without a page for its structures is ENOMEM', () => {
    const { unit, driver, run } = ready('scalable');
    const device = new VtdFunction({ driver, sourceId: 0x28 });
    const { domain } = device.allocatePaging(PLAIN);
    while (unit.memory.allocate() >= 0);
    expect(() => run(device.attach(agent, domain))).toThrow('ENOMEM: 00:05.0: memory: no page for');
    expect(device.domain).toBe(null);
  });
});

describe('dirty tracking', () => {
  it('is off until it is turned on, for functions that are attached and that come later', () => {
    const { driver, run, dma } = ready('scalable');
    const [device, other] = [0x28, 0x30].map((sourceId) => new VtdFunction({ driver, sourceId })) as [
      VtdFunction,
      VtdFunction,
    ];
    const { domain, dirty } = device.allocatePaging({ ...PLAIN, dirtyTracking: true });
    if (!dirty) throw new Error('dirty tracking was asked for');
    run(domain.map(agent, { page: 5, frame: 0x240000, pages: 2, write: true }));
    run(device.attach(agent, domain));
    const harvest = () => run(dirty.readAndClear(agent, 5, 2, true)).map(({ page }) => page);
    dma(0x5000, 2);
    expect(harvest()).toEqual([]);
    run(dirty.setTracking(agent, true));
    dma(0x5000, 2); // the translation cached before is gone
    expect([harvest(), harvest()]).toEqual([[5], []]);
    run(other.attach(agent, domain));
    run(driver.unit.translateMiss(agent, { sourceId: 0x30, iovaHi: 0, iovaLo: 0x6000, access: 2 }));
    expect(harvest()).toEqual([6]);
    run(dirty.setTracking(agent, false));
    dma(0x5000, 2);
    expect(harvest()).toEqual([]);
  });
});

it('write-only leaves: exactly W, or with R as Linux 6.12 maps them', () => {
  for (const [writeImpliesRead, rights] of [
    [false, 2],
    [true, 3],
  ] as const) {
    const { driver, run } = ready('legacy', { levels: [3, 4], guestAddressWidth: 48 });
    const device = new VtdFunction({ driver, sourceId: 0x28, domain: { writeImpliesRead } });
    const { domain } = device.allocatePaging(PLAIN);
    run(domain.map(agent, { page: 5, frame: 0x240000, pages: 1, write: true, read: false }));
    expect([domain.table.leafAt(5)?.rights, domain.frameAt(5)]).toEqual([rights, 0x240000]);
  }
});

describe('a first stage', () => {
  const stage = (changes: { flags?: bigint; width?: number; reserved?: number } = {}) => {
    const data = new Uint8Array(24);
    const view = new DataView(data.buffer);
    view.setBigUint64(0, changes.flags ?? 0n, true);
    view.setBigUint64(8, 0x1234_5000n, true);
    view.setUint32(16, changes.width ?? 48, true);
    view.setUint32(20, changes.reserved ?? 0, true);
    return { dataType: 1, data };
  };
  const { driver, run } = ready('scalable');
  const device = new VtdFunction({ driver, sourceId: 0x28, nestedObjects: true });
  const { domain } = device.allocatePaging({ ...PLAIN, nestParent: true });

  it('is checked and kept, but not attached: nothing here walks it', () => {
    const nested = device.allocateNested(domain, stage());
    expect([nested.tableAddress, nested.addressWidth]).toEqual([0x1234_5000n, 48]);
    expect(() => run(device.attach(agent, nested))).toThrow('EOPNOTSUPP: 00:05.0: no hardware of this model walks');
    for (const [request, errno] of [
      [{ ...stage(), dataType: 2 }, 'EOPNOTSUPP'],
      [stage({ flags: 8n }), 'EOPNOTSUPP: flags: 0x8'],
      [stage({ reserved: 1 }), 'EOPNOTSUPP'],
      [stage({ width: 39 }), 'EINVAL: addr_width: 39'],
      [{ dataType: 1, data: new Uint8Array(23) }, 'EINVAL: data_len: 23'],
    ] as const)
      expect(() => device.allocateNested(domain, request)).toThrow(errno);
    const plain = new VtdFunction({ driver, sourceId: 0x30 });
    expect(() => plain.allocateNested(domain, stage())).toThrow('EOPNOTSUPP');
    expect(() => device.allocateNested({}, stage())).toThrow('EINVAL');
  });

  it('takes invalidation entries up to one that is refused', () => {
    const entry = (address: bigint, pages: bigint, flags = 0, reserved = 0, length = 24, tail = 0) => {
      const bytes = new Uint8Array(length);
      const view = new DataView(bytes.buffer);
      view.setBigUint64(0, address, true);
      view.setBigUint64(8, pages, true);
      view.setUint32(16, flags, true);
      view.setUint32(20, reserved, true);
      if (length > 24) bytes[length - 1] = tail;
      return [...bytes];
    };
    const all = (1n << 64n) - 1n;
    const take = (entryLen: number, dataType: number, ...entries: number[][]) => {
      const nested = device.allocateNested(domain, stage());
      const data = new Uint8Array(entries.flat());
      const reply = run(nested.invalidate(agent, { dataType, entryLen, entryNum: entries.length, data }));
      return [reply.done, reply.error, nested.invalidations.map(({ address, leafOnly }) => [address, leafOnly])];
    };
    const good = entry(0x5000n, 4n, 1);
    expect(take(24, 0, good, entry(0n, all))).toEqual([
      2,
      null,
      [
        [0x5000n, true],
        [0n, false],
      ],
    ]);
    expect(take(24, 0, good, entry(0x5800n, 1n), good)).toEqual([1, 'EINVAL', [[0x5000n, true]]]);
    expect(take(24, 0, good, entry(0x1000n, all))).toEqual([1, 'EINVAL', [[0x5000n, true]]]);
    expect(take(24, 0, entry(0n, 1n, 2))).toEqual([0, 'EOPNOTSUPP', []]);
    expect(take(24, 0, entry(0n, 1n, 0, 1))).toEqual([0, 'EOPNOTSUPP', []]);
    expect(take(24, 1, good)).toEqual([0, 'EINVAL', []]);
    expect(take(16, 0, good)).toEqual([0, 'EINVAL', []]);
    expect(take(32, 0, entry(0n, 1n, 0, 0, 32), entry(0n, 1n, 0, 0, 32, 1))).toEqual([1, 'E2BIG', [[0n, false]]]);
  });
});
