import { describe, expect, it } from 'vitest';
import {
  HwptAllocFlag,
  IOMMU_IOAS_MAP_UNPINNED,
  IommufdError,
  IommuOption,
  Process,
  STRATEGIES,
} from '../src/index.ts';
import { FakeDevice } from './fake-device.ts';
import { IommufdSetup, NOTHING_LEFT, RW, RW_FIXED, SMALL, THP } from './iommufd-setup.ts';

/* Errnos of the ioctls that the recordings do not reach (reference of iommufd in Linux 7.3.4, section 3.4). */

const MAX = (1n << 64n) - 1n;
const { NEST_PARENT, DIRTY_TRACKING, FAULT_ID_VALID, PASID } = HwptAllocFlag;

/** A setup with a fake device bound as 1 and an IOAS as 2. */
function ready(options: ConstructorParameters<typeof IommufdSetup>[0] = {}) {
  const setup = new IommufdSetup(options);
  const device = new FakeDevice(setup.device());
  return { setup, device, devId: setup.bind(device), ioas: setup.ioas(), fd: setup.fd, agent: setup.agent };
}

describe('areas', () => {
  it.each([
    ['EOVERFLOW', { iova: MAX }],
    ['EOVERFLOW', { length: MAX }],
    ['EOVERFLOW', { flags: RW, length: MAX / 2n, userVa: 0n }],
    ['ENOSPC', { flags: RW, length: (1n << 62n) + (1n << 61n), userVa: 0n }],
    ['EOPNOTSUPP', { flags: RW_FIXED | IOMMU_IOAS_MAP_UNPINNED }],
    ['EOPNOTSUPP', { flags: RW_FIXED | 8 }],
    ['EINVAL', { length: 0n }],
    ['ENOENT', { ioasId: 9 }],
  ])('map: %s %o', (errno, changes) => {
    const { setup, ioas, fd, agent } = ready();
    if (errno === 'ENOSPC')
      for (const iova of [1n << 62n, 1n << 63n, 3n << 62n]) setup.map(ioas, iova, 1, { userPage: SMALL });
    const request = {
      flags: RW_FIXED,
      ioasId: ioas,
      userVa: BigInt(THP) << 12n,
      length: 4096n,
      iova: 0x1000n,
      ...changes,
    };
    expect(setup.call(fd.ioasMap(agent, request))).toBe(errno);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('unpinned maps need an iommufd with stage-2 faults', () => {
    const { setup, ioas } = ready({ strategy: STRATEGIES.cut });
    expect(setup.map(ioas, 0, 1, { flags: RW_FIXED | IOMMU_IOAS_MAP_UNPINNED })).toBe('0');
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it.each([
    ['EOPNOTSUPP', { flags: 8 | RW }],
    ['EOVERFLOW', { length: MAX }],
    ['EOVERFLOW', { srcIova: MAX }],
    ['EOVERFLOW', { dstIova: MAX }],
    ['EINVAL', { flags: 1 }],
    ['EINVAL', { length: 0n }],
    ['ENOENT', { srcIoasId: 9 }],
    ['ENOENT', { dstIoasId: 9 }],
    ['ENOENT', { length: 0x3000n }],
    ['EPERM', { srcIova: 0x20_0000n }],
    ['EEXIST', { dstIova: 0x20_0000n, flags: 7 }],
  ])('copy: %s %o', (errno, changes) => {
    const { setup, ioas, fd, agent } = ready();
    setup.map(ioas, 0x10_0000, 2);
    setup.map(ioas, 0x20_0000, 2, { flags: 5 });
    const request = {
      flags: RW_FIXED,
      dstIoasId: ioas,
      srcIoasId: ioas,
      length: 4096n,
      dstIova: 0n,
      srcIova: 0x10_0000n,
    };
    expect(setup.call(fd.ioasCopy(agent, { ...request, ...changes }))).toBe(errno);
  });

  it('copy over several areas side by side makes as many', () => {
    const { setup, ioas, fd, agent } = ready();
    setup.map(ioas, 0x10_0000, 2);
    setup.map(ioas, 0x10_2000, 2, { userPage: SMALL });
    const request = {
      flags: RW_FIXED,
      dstIoasId: ioas,
      srcIoasId: ioas,
      length: 0x2000n,
      dstIova: 0n,
      srcIova: 0x10_1000n,
    };
    expect(setup.call(fd.ioasCopy(agent, request))).toEqual({ dstIova: 0n });
    expect([setup.unmap(ioas, 0, 0x1000), setup.unmap(ioas, 0x1000, 0x1000)]).toEqual(['1000', '1000']);
  });

  it('IOVA_RANGES gives what there is room for, with EMSGSIZE', () => {
    const { setup, ioas, fd, agent } = ready();
    setup.attach(setup.bind(setup.device(0x30)), ioas);
    try {
      setup.run(fd.ioasIovaRanges(agent, { ioasId: ioas, numIovas: 1 }));
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        code: 'EMSGSIZE',
        reply: { numIovas: 2, allowedIovas: [{ start: 0n, last: 0xfedf_ffffn }] },
      });
    }
    expect(setup.call(fd.ioasIovaRanges(agent, { ioasId: 9, numIovas: 1 }))).toBe('ENOENT');
  });

  it('ALLOW_IOVAS: empty or one-byte ranges and overlaps are EINVAL; the old list stays; an attach that needs a range fails', () => {
    const { setup, ioas, fd, agent } = ready();
    const allow = (...list: [bigint, bigint][]) =>
      setup.call(
        fd.ioasAllowIovas(agent, { ioasId: ioas, allowedIovas: list.map(([start, last]) => ({ start, last })) }),
      ) ?? 'ok';
    expect([allow([1n, 1n]), allow([2n, 1n]), allow([0n, 9n], [9n, 20n])]).toEqual(['EINVAL', 'EINVAL', 'EINVAL']);
    expect([allow([0xfee0_0000n, 0xfee0_ffffn]), allow([5n, 5n])]).toEqual(['ok', 'EINVAL']);
    expect(setup.attach(setup.bind(setup.device(0x30)), ioas)).toBe('EADDRINUSE');
    expect([allow(), setup.map(ioas, 0, 1, { flags: RW })]).toEqual(['ok', '1000']);
  });

  it('what is not page-aligned stands in the way of a domain, and of small pages', () => {
    const { setup, ioas, devId, fd, agent } = ready();
    expect(setup.map(ioas, 0x1800, 0, { length: 0x100n, userVa: (BigInt(THP) << 12n) + 0x123n })).toBe('1800');
    const noLargePages = { optionId: IommuOption.HUGE_PAGES, op: 0, objectId: ioas, val64: 0n };
    expect([setup.attach(devId, ioas), setup.call(fd.option(agent, noLargePages))]).toEqual([
      'EADDRINUSE',
      'EADDRINUSE',
    ]);
    expect(setup.unmap(ioas, 0, MAX)).toBe('100');
    expect(setup.attach(devId, ioas)).toBe(3);
  });
});

describe('MAP_FILE', () => {
  it('of a file that cannot be pinned succeeds without a domain, as seen; then the attach is EINVAL', () => {
    const { setup, ioas, devId, fd, agent } = ready();
    const map = { flags: RW_FIXED, ioasId: ioas, file: { name: '/dev/null' }, start: 0n, length: 4096n, iova: 0n };
    expect(setup.call(fd.ioasMapFile(agent, map))).toEqual({ iova: 0n });
    expect(setup.call(fd.ioasMapFile(agent, { ...map, length: 0n }))).toBe('EINVAL');
    expect(setup.call(fd.ioasMapFile(agent, { ...map, start: MAX - 100n }))).toBe('EOVERFLOW');
    expect(setup.attach(devId, ioas)).toBe('EINVAL');
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('of a memfd pins its pages, whoever maps them; a copy shares them; another process can pay', () => {
    const { setup, ioas, fd, agent } = ready({ process: { memlockBytes: 0x4000n } });
    const memfd = setup.host.createMemfd('guest', 8);
    setup.mm.mmap({ startPage: 0xa0000, pages: 8, backing: '4K', file: { memfd, offset: 0 } });
    const vtd = setup.device(0x30);
    setup.attach(setup.bind(vtd), ioas);
    const map = { flags: RW_FIXED, ioasId: ioas, file: memfd, start: 0x2000n, length: 0x3000n, iova: 0x1_0000n };
    expect(setup.call(fd.ioasMapFile(agent, map))).toEqual({ iova: 0x1_0000n });
    setup.run(setup.mm.cpuAccess(agent, 0xa0003, { write: true, tagLo: 1, tagHi: 0 }));
    expect(vtd.domain?.frameAt(0x11)).toBe(setup.mm.lookup(0xa0003));
    const copy = { flags: RW, dstIoasId: ioas, srcIoasId: ioas, length: 0x1000n, dstIova: 0n, srcIova: 0x1_1000n };
    expect(setup.call(fd.ioasCopy(agent, copy))).toEqual({ dstIova: 0x1000n });
    expect([setup.unmap(ioas, 0x1_0000, 0x3000), setup.process.user.lockedPages]).toEqual(['3000', 1]);
    expect(vtd.domain?.frameAt(1)).toBe(setup.mm.lookup(0xa0003));
    expect(setup.call(fd.ioasMapFile(agent, { ...map, start: 0x6000n }))).toBe('EINVAL'); // beyond its end
    expect(setup.call(fd.ioasMapFile(agent, { ...map, start: 0n, length: 0x4000n }))).toBe('ENOMEM');
    const child = new Process({ mm: setup.host.createAddressSpace('child'), memlockBytes: 0n });
    expect(setup.call(fd.ioasChangeProcess(agent, child))).toBe('ENOMEM');
    expect([setup.process.user.lockedPages, child.user.lockedPages]).toEqual([1, 0]);
    const heir = new Process({ mm: child.mm });
    expect(setup.call(fd.ioasChangeProcess(agent, heir))).toBe(undefined);
    expect([setup.process.user.lockedPages, heir.user.lockedPages, heir.pinnedPages]).toEqual([0, 1, 1]);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
    expect([heir.user.lockedPages, setup.host.audit()]).toEqual([0, []]);
  });

  it('is not in 6.12, nor are CHANGE_PROCESS, VIOMMUs and hardware queues', () => {
    const { setup, fd, agent } = ready({ version: '6.12' });
    const zero = { flags: 0, viommuId: 1, type: 1, devId: 1, hwptId: 1, virtId: 0n, veventqDepth: 1 };
    for (const task of [
      fd.ioasMapFile(agent, { flags: RW, ioasId: 2, file: { name: 'f' }, start: 0n, length: 4096n, iova: 0n }),
      fd.ioasChangeProcess(agent),
      fd.viommuAlloc(agent, zero),
      fd.vdeviceAlloc(agent, zero),
      fd.veventqAlloc(agent, zero),
      fd.hwQueueAlloc(agent, { ...zero, index: 0, nestingParentIova: 0n, length: 1n }),
    ])
      expect(setup.call<unknown>(task)).toBe('ENOTTY');
  });
});

describe('options', () => {
  it('RLIMIT_MODE needs CAP_SYS_RESOURCE and no object', () => {
    const mode = (objectId: number, op: number, val64: bigint) => ({
      optionId: IommuOption.RLIMIT_MODE,
      objectId,
      op,
      val64,
    });
    const poor = new IommufdSetup();
    expect(poor.call(poor.fd.option(poor.agent, mode(0, 0, 1n)))).toBe('EPERM');
    const setup = new IommufdSetup({ process: { capabilities: ['CAP_SYS_RESOURCE'], memlockBytes: 0x3000n } });
    const option = (request: Parameters<typeof setup.fd.option>[1]) =>
      setup.call(setup.fd.option(setup.agent, request));
    expect([option(mode(1, 0, 1n)), option(mode(0, 0, 2n)), option(mode(0, 2, 0n))]).toEqual([
      'EOPNOTSUPP',
      'EINVAL',
      'EOPNOTSUPP',
    ]);
    expect([option(mode(0, 0, 1n)), option(mode(0, 1, 0n))]).toEqual([{ val64: 1n }, { val64: 1n }]);
    const ioas = setup.ioas();
    expect([option(mode(0, 0, 0n)), option({ ...mode(0, 0, 0n), optionId: 9 })]).toEqual(['EBUSY', 'EOPNOTSUPP']);
    setup.attach(setup.bind(setup.device()), ioas);
    expect([setup.map(ioas, 0, 2), setup.map(ioas, 0x10_0000, 2)]).toEqual(['0', 'ENOMEM']);
    expect([setup.process.lockedPages, setup.process.user.lockedPages, setup.process.pinnedPages]).toEqual([2, 0, 2]);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('whoever has CAP_IPC_LOCK is not limited, but its pins are counted', () => {
    const setup = new IommufdSetup({ process: { capabilities: ['CAP_IPC_LOCK'], memlockBytes: 0n } });
    const ioas = setup.ioas();
    setup.attach(setup.bind(setup.device()), ioas);
    expect([setup.map(ioas, 0, 16), setup.process.user.lockedPages, setup.process.pinnedPages]).toEqual(['0', 0, 16]);
  });

  it('HUGE_PAGES', () => {
    const { setup, ioas, fd, agent } = ready();
    const huge = (op: number, objectId = ioas) =>
      setup.call(fd.option(agent, { optionId: IommuOption.HUGE_PAGES, objectId, op, val64: 1n }));
    expect([huge(0), huge(2), huge(0, 9), huge(1, 1)]).toEqual([{ val64: 1n }, 'EOPNOTSUPP', 'ENOENT', 'ENOENT']);
  });

  it('VFIO_IOAS', () => {
    const { setup, ioas, fd, agent } = ready();
    const vfio = (op: number, ioasId: number) => setup.call(fd.vfioIoas(agent, { op, ioasId }));
    expect([vfio(0, 0), vfio(1, 9), vfio(1, 1), vfio(3, ioas)]).toEqual(['ENODEV', 'ENOENT', 'ENOENT', 'EOPNOTSUPP']);
    expect([vfio(1, ioas), vfio(0, 0), setup.destroy(ioas), vfio(0, 0)]).toEqual([
      { ioasId: ioas },
      { ioasId: ioas },
      'ok',
      'ENODEV',
    ]);
    const other = setup.ioas();
    expect([vfio(1, other), vfio(2, 0), vfio(0, 0)]).toEqual([{ ioasId: other }, { ioasId: 0 }, 'ENODEV']);
  });

  it('CHANGE_PROCESS moves what is paid for files, and refuses other memory', () => {
    const { setup, ioas, fd, agent } = ready();
    setup.map(ioas, 0, 1);
    expect(setup.call(fd.ioasChangeProcess(agent))).toBe('EINVAL');
    setup.unmap(ioas, 0, 4096);
    expect(setup.call(fd.ioasChangeProcess(agent))).toBe(undefined);
  });
});

describe('HWPT_ALLOC', () => {
  it('paging', () => {
    const { setup, ioas } = ready();
    expect(setup.hwpt(9, ioas)).toBe('ENOENT');
    expect(setup.hwpt(1, 9)).toBe('EINVAL'); // and not ENOENT
    expect(setup.hwpt(1, 1)).toBe('EINVAL');
    expect(setup.hwpt(1, ioas, { data: new Uint8Array(4) })).toBe('EINVAL');
    expect(setup.hwpt(1, ioas, { dataType: 1, data: new Uint8Array(24) })).toBe('EOPNOTSUPP');
    expect(setup.hwpt(1, ioas, { flags: DIRTY_TRACKING })).toBe('EOPNOTSUPP');
    expect(setup.hwpt(1, ioas, { flags: FAULT_ID_VALID | NEST_PARENT })).toBe('EOPNOTSUPP');
    expect(setup.hwpt(1, ioas, { flags: FAULT_ID_VALID, faultId: 9 })).toBe('ENOENT');
    expect(setup.hwpt(1, ioas, { flags: 0x10 })).toBe('EOPNOTSUPP');
    expect(setup.hwpt(1, ioas, { flags: PASID })).toBe(3);
    expect([setup.destroy(ioas), setup.destroy(3), setup.destroy(ioas)]).toEqual(['EBUSY', 'ok', 'ok']);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('nested: over a nest parent, which it keeps', () => {
    const { setup, ioas, device } = ready();
    const data = { dataType: 2, data: new Uint8Array([7]) };
    const [parent, plain] = [setup.hwpt(1, ioas, { flags: NEST_PARENT }), setup.hwpt(1, ioas)];
    expect([parent, plain]).toEqual([3, 4]);
    expect(setup.hwpt(1, 4, data)).toBe('EINVAL');
    expect(setup.hwpt(1, 3)).toBe('EOPNOTSUPP');
    expect(setup.hwpt(1, 3, { ...data, flags: NEST_PARENT })).toBe('EOPNOTSUPP');
    expect(setup.hwpt(1, 3, { ...data, data: new Uint8Array([0xff]) })).toBe('EINVAL'); // the driver's
    expect(setup.hwpt(1, 3, { ...data, flags: FAULT_ID_VALID, faultId: 9 })).toBe('ENOENT');
    expect(device.nested[0]?.destroyed).toBe(true);
    expect(setup.hwpt(1, 3, data)).toBe(5);
    expect([setup.destroy(3), setup.attach(1, 5), setup.destroy(5)]).toEqual(['EBUSY', 5, 'EBUSY']);
    expect(device.attached).toBe(device.nested[1]);
    expect(setup.hwpt(setup.bind(setup.device(0x30)), 3, data)).toBe('EOPNOTSUPP'); // VT-d here has no first stage
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });
});

it('a first stage of VT-d has its object and its rules, and is not attached: no hardware here walks it', () => {
  const setup = new IommufdSetup({ mode: 'scalable' });
  const [devId, ioas] = [setup.bind(setup.device(0x28, { nestedObjects: true })), setup.ioas()];
  const parent = setup.hwpt(devId, ioas, { flags: NEST_PARENT }) as number;
  const data = new Uint8Array(24);
  data[16] = 48;
  const nested = setup.hwpt(devId, parent, { dataType: 1, data });
  expect([parent, nested, setup.hwpt(devId, parent, { dataType: 2, data })]).toEqual([3, 4, 'EOPNOTSUPP']);
  expect([setup.attach(devId, 4), setup.attach(devId, 3), setup.attach(devId, 4)]).toEqual([
    'EOPNOTSUPP',
    3,
    'EOPNOTSUPP',
  ]);
  const request = { hwptId: 4, dataType: 0, entryLen: 24, entryNum: 1, data: new Uint8Array(24) };
  expect(setup.call(setup.fd.hwptInvalidate(setup.agent, request))).toEqual({ entryNum: 1 });
  expect(setup.leftovers()).toEqual(NOTHING_LEFT);
});

describe('HWPT_INVALIDATE', () => {
  it('says how many entries were done, also on an error', () => {
    const { setup, ioas, device, fd, agent } = ready();
    setup.hwpt(1, ioas, { flags: NEST_PARENT });
    setup.hwpt(1, 3, { dataType: 2, data: new Uint8Array([7]) });
    const data = new Uint8Array(64);
    data.set([1], 0);
    data.set([2], 16);
    data.set([0xff], 32);
    const invalidate = (changes: object) => {
      try {
        const request = { hwptId: 4, dataType: 2, entryLen: 16, entryNum: 2, data, ...changes };
        return ['ok', setup.run(fd.hwptInvalidate(agent, request)).entryNum];
      } catch (error) {
        if (!(error instanceof IommufdError)) throw error;
        return [error.code, (error.reply as { entryNum: number }).entryNum];
      }
    };
    expect(invalidate({})).toEqual(['ok', 2]);
    expect(invalidate({ entryNum: 4 })).toEqual(['EIO', 2]);
    expect(device.nested[0]?.taken).toEqual([1, 2, 1, 2]);
    expect([invalidate({ entryNum: 0, data: null }), invalidate({ data: null })]).toEqual([
      ['ok', 0],
      ['EINVAL', 0],
    ]);
    expect([invalidate({ entryLen: 0 }), invalidate({ entryLen: 4097 })]).toEqual([
      ['EINVAL', 0],
      ['EINVAL', 0],
    ]);
    expect([invalidate({ entryNum: 2 ** 19 + 1 }), invalidate({ hwptId: 9 })]).toEqual([
      ['EINVAL', 0],
      ['ENOENT', 0],
    ]);
    expect([invalidate({ hwptId: 3 }), invalidate({ hwptId: ioas })]).toEqual([
      ['EINVAL', 0],
      ['EINVAL', 0],
    ]);
    setup.call(fd.viommuAlloc(agent, { flags: 0, type: 1, devId: 1, hwptId: 3 }));
    expect(invalidate({ hwptId: 5 })).toEqual(['EOPNOTSUPP', 0]);
  });
});

describe('GET_HW_INFO', () => {
  it('knows the type of the driver, and in 6.12 no flag and no PASIDs', () => {
    const setup = new IommufdSetup();
    const device = setup.device(0x28, { registers: { cap: 0xd2008c222f0606n, ecap: 0xf00f4an }, maxPasidLog2: 20 });
    setup.bind(device);
    const info = (changes: object, on = setup) =>
      on.call(on.fd.getHwInfo(on.agent, { flags: 0, devId: 1, inDataType: 0, ...changes }));
    const reply = info({});
    if (typeof reply === 'string') throw new Error(reply);
    const words = new DataView(reply.data.buffer);
    expect([words.getBigUint64(8, true), words.getBigUint64(16, true)]).toEqual([0xd2008c222f0606n, 0xf00f4an]);
    expect([reply.outDataType, reply.outCapabilities, reply.outMaxPasidLog2]).toEqual([1, 8n, 20]);
    expect([info({ flags: 2 }), info({ devId: 9 }), info({ flags: 1, inDataType: 2 })]).toEqual([
      'EOPNOTSUPP',
      'ENOENT',
      'EOPNOTSUPP',
    ]);
    expect(info({ flags: 1, inDataType: 1 })).toMatchObject({ outDataType: 1 });
    const old = new IommufdSetup({ version: '6.12' });
    old.bind(old.device(0x28, { maxPasidLog2: 20 }));
    expect(info({ flags: 1 }, old)).toBe('EOPNOTSUPP');
    expect(info({}, old)).toMatchObject({ outCapabilities: 0n, outMaxPasidLog2: 0 });
    const modern = new IommufdSetup({ mode: 'scalable' });
    modern.bind(modern.device());
    expect(info({}, modern)).toMatchObject({ outCapabilities: 9n });
  });
});

it('FAULT_QUEUE_ALLOC, HW_QUEUE_ALLOC, NOIOMMU_GET_PA', () => {
  const { setup, fd, agent } = ready();
  expect(setup.call(fd.faultQueueAlloc(agent, { flags: 1 }))).toBe('EOPNOTSUPP');
  const queue = { flags: 0, viommuId: 9, type: 1, index: 0, nestingParentIova: 0n, length: 4096n };
  expect(setup.call(fd.hwQueueAlloc(agent, queue))).toBe('ENOENT');
  expect(setup.call(fd.hwQueueAlloc(agent, { ...queue, type: 0 }))).toBe('EOPNOTSUPP');
  expect(setup.call(fd.hwQueueAlloc(agent, { ...queue, length: 0n }))).toBe('EINVAL');
  expect(setup.call(fd.hwQueueAlloc(agent, { ...queue, nestingParentIova: MAX }))).toBe('EOVERFLOW');
  expect(setup.call(fd.ioasNoiommuGetPa(agent, { flags: 0, ioasId: 2, iova: 0n, length: 1n }))).toBe('EOPNOTSUPP');
});
