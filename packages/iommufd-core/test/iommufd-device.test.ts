import { describe, expect, it } from 'vitest';
import { HwptAllocFlag, IOMMU_IOAS_MAP_UNPINNED, STRATEGIES, type UserFaultGroup } from '../src/index.ts';
import { FakeDevice } from './fake-device.ts';
import { FunctionGroup, IommufdSetup, NOTHING_LEFT, RW_FIXED } from './iommufd-setup.ts';

const { FAULT_ID_VALID, DIRTY_TRACKING } = HwptAllocFlag;

describe('devices of one group', () => {
  function pair() {
    const setup = new IommufdSetup();
    const group = new FunctionGroup();
    const [a, b] = [setup.device(0x28, { group }), setup.device(0x29, { group })];
    return { setup, a, b, first: setup.bind(a), second: setup.bind(b), one: setup.ioas(), two: setup.ioas() };
  }

  it('share a HWPT: the second cannot go elsewhere, and moves with the first', () => {
    const { setup, a, b, first, second, one, two } = pair();
    expect([setup.attach(first, one), a.domain !== null && a.domain === b.domain]).toEqual([5, true]);
    // Automatic HWPTs of another IOAS do not fit the group; EINVAL comes out in the end.
    expect([setup.attach(second, two), setup.attach(second, one)]).toEqual(['EINVAL', 5]);
    expect([setup.attach(first, two), a.domain === b.domain, setup.attach(second, two)]).toEqual([6, true, 6]);
    expect(setup.destroy(5)).toBe('ENOENT'); // went with its last device
    setup.run(setup.fd.detach(setup.agent, first));
    expect(a.domain).not.toBe(null); // the group stays as long as one of them does
    setup.run(setup.fd.detach(setup.agent, second));
    expect([a.domain, b.domain, setup.destroy(6)]).toEqual([null, null, 'ENOENT']);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });

  it('belong to one iommufd', () => {
    const { setup, a } = pair();
    const other = new IommufdSetup();
    expect(() => other.bind(a)).toThrow('EBUSY: 00:05.0: its group belongs to another iommufd');
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
    expect(other.bind(a)).toBe(1);
  });
});

describe('attach', () => {
  it('uses an automatic HWPT again, unless the device does not fit it', () => {
    const setup = new IommufdSetup();
    const other = new IommufdSetup();
    const ids = [setup.device(0x28), setup.device(0x30), other.device(0x28)].map((each) => setup.bind(each));
    const ioas = setup.ioas();
    expect(ids.map((devId) => setup.attach(devId, ioas))).toEqual([5, 5, 6]); // the third is behind another unit
    expect(setup.map(ioas, 0, 1)).toBe('0');
    expect(setup.mm.accountedPinBytes).toBe(4096); // two domains, one pin
  });

  it('to an object that takes no device is EINVAL, to none ENOENT', () => {
    const setup = new IommufdSetup();
    const devId = setup.bind(setup.device());
    expect([setup.attach(devId, devId), setup.attach(devId, 9)]).toEqual(['EINVAL', 'ENOENT']);
    setup.run(setup.fd.detach(setup.agent, devId)); // of nothing: nothing
  });

  it('that the driver refuses leaves the device, the IOAS and the ids as they were', () => {
    for (const errno of ['ENOMEM', 'EINVAL'])
      for (const isMove of [false, true]) {
        const setup = new IommufdSetup();
        const device = new FakeDevice(setup.device(), { reserved: [{ start: 0n, last: 0xfffn, type: 'reserved' }] });
        const [devId, one, two] = [setup.bind(device), setup.ioas(), setup.ioas()];
        setup.map(one, 0x1000, 1);
        if (isMove) setup.attach(devId, two);
        const before = device.attached;
        device.attachFails.push(errno);
        expect(setup.attach(devId, one)).toBe(errno);
        expect([device.attached, setup.ranges(one), setup.mm.accountedPinBytes]).toEqual([
          before,
          'align=1 [0-ffffffffffffffff]',
          0,
        ]);
        expect(setup.attach(devId, one)).toBe(isMove ? 5 : 4);
        expect(setup.ranges(one)).toContain('[1000-');
        expect(setup.leftovers()).toEqual(NOTHING_LEFT);
      }
  });

  it('reserves direct regions, but not relaxable ones', () => {
    const setup = new IommufdSetup();
    const device = new FakeDevice(setup.device(), {
      reserved: [
        { start: 0x1000n, last: 0x1fffn, type: 'direct' },
        { start: 0x8000n, last: 0x8fffn, type: 'direct-relaxable' },
      ],
    });
    const [devId, ioas] = [setup.bind(device), setup.ioas()];
    setup.attach(devId, ioas);
    expect(setup.ranges(ioas)).toBe('align=1000 [0-fff] [2000-ffffffffffff]');
  });

  it('of an unpinned IOAS asks what the device can fault on', () => {
    const setup = new IommufdSetup({ strategy: STRATEGIES.cut, mode: 'scalable' });
    const [devId, ioas] = [setup.bind(setup.device()), setup.ioas()];
    expect(setup.map(ioas, 0, 512, { flags: RW_FIXED | IOMMU_IOAS_MAP_UNPINNED })).toBe('0');
    expect(setup.attach(devId, ioas)).toBe('EOPNOTSUPP');
    const able = Object.assign(setup.device(0x30), {
      report: { name: 'able', paths: [{ path: 'read', canFault: true }] },
    });
    const ableId = setup.bind(able);
    expect(setup.attach(ableId, ioas)).toBe(4);
    expect(setup.fd.pageFaultHandler(able)).toMatchObject({ kind: 'kernel' });
    expect([setup.mm.accountedPinBytes, setup.leaves(able)]).toEqual([0, [0, 0, 0]]);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });
});

describe('a FAULT object', () => {
  function faulting() {
    const setup = new IommufdSetup();
    const device = new FakeDevice(setup.device());
    const { fd, agent } = setup;
    const [devId, ioas] = [setup.bind(device), setup.ioas()];
    const { outFaultId, outFaultFile: file } = setup.run(fd.faultQueueAlloc(agent, { flags: 0 }));
    const hwpt = setup.hwpt(devId, ioas, { flags: FAULT_ID_VALID, faultId: outFaultId });
    const answers: string[] = [];
    const report = (grpid: number, addresses: bigint[]) => {
      const handler = fd.pageFaultHandler(device);
      if (handler?.kind !== 'user') throw new Error('no user handler');
      const group: UserFaultGroup = {
        devId: handler.devId,
        handle: handler.handle,
        faults: addresses.map((addr) => ({ addr, perm: 3, grpid, pasid: null })),
        *respond(_agent, code) {
          yield agent.spends('respond', 0);
          answers.push(`${grpid}:${code}`);
        },
      };
      handler.fault.report(group);
    };
    return { setup, device, fd, agent, devId, ioas, faultId: outFaultId, file, hwpt, answers, report };
  }

  it('gives whole groups with a cookie each, LAST_PAGE on the last, and takes one response a group', () => {
    const { setup, agent, devId, hwpt, file, answers, report } = faulting();
    expect(setup.attach(devId, hwpt as number)).toBe(hwpt);
    expect([file.poll(), setup.run(file.read(agent, 80))]).toEqual([4, []]);
    report(1, [0x1000n, 0x2000n]);
    report(2, [0x3000n]);
    expect(file.poll()).toBe(0x45);
    expect([
      setup.call(file.read(agent, 40)),
      setup.call(file.read(agent, 41)),
      setup.run(file.read(agent, 0)),
    ]).toEqual(['EINVAL', 'ESPIPE', []]);
    const first = setup.run(file.read(agent, 80));
    expect(
      first.map(({ flags, grpid, addr, cookie, length, devId: id }) => [flags, grpid, addr, cookie, length, id]),
    ).toEqual([
      [0, 1, 0x1000n, 1, 0, devId],
      [2, 1, 0x2000n, 1, 0, devId],
    ]);
    expect(setup.run(file.read(agent, 400)).map((each) => each.cookie)).toEqual([2]);
    const write = (...responses: [number, number][]) =>
      setup.call(
        file.write(
          agent,
          responses.map(([cookie, code]) => ({ cookie, code })),
          responses.length * 8,
        ),
      );
    expect([write([7, 0]), write([1, 2]), setup.call(file.write(agent, [], 4))]).toEqual([
      'EINVAL',
      'EINVAL',
      'ESPIPE',
    ]);
    expect(write([2, 1], [9, 0], [1, 0])).toBe(8); // earlier responses stand
    expect([write([1, 0]), write([1, 0]), answers]).toEqual([8, 'EINVAL', ['2:1', '1:0']]);
  });

  it.each(['detach', 'replace', 'close'] as const)(
    '%s answers what is queued and what was read INVALID, once',
    (how) => {
      const { setup, fd, agent, devId, ioas, hwpt, file, faultId, answers, report } = faulting();
      setup.attach(devId, hwpt as number);
      report(1, [0x1000n]);
      setup.run(file.read(agent, 40));
      report(2, [0x2000n]);
      if (how === 'detach') setup.run(fd.detach(agent, devId));
      else if (how === 'replace') expect(setup.attach(devId, ioas)).toBe(5);
      else expect(setup.leftovers()).toEqual(NOTHING_LEFT);
      expect(answers).toEqual(['2:1', '1:1']);
      expect(setup.call(file.write(agent, [{ cookie: 1, code: 0 }], 8))).toBe('EINVAL');
      if (how === 'close') return;
      expect(setup.destroy(faultId)).toBe('EBUSY'); // its HWPT and its file
      expect(setup.destroy(hwpt as number)).toBe('ok');
      file.close();
      expect(setup.destroy(faultId)).toBe('ok');
      expect(setup.leftovers()).toEqual(NOTHING_LEFT);
    },
  );

  it('is not for devices without PRI, nor for virtual functions', () => {
    for (const [capabilities, errno] of [
      [{ pageRequests: false }, 'ENODEV'],
      [{ virtualFunction: true }, 'EINVAL'],
      [{ virtualFunction: true, pageRequests: false }, 'ENODEV'],
    ] as const) {
      const setup = new IommufdSetup();
      const devId = setup.bind(new FakeDevice(setup.device(), { capabilities }));
      const ioas = setup.ioas();
      const faultId = setup.run(setup.fd.faultQueueAlloc(setup.agent, { flags: 0 })).outFaultId;
      const hwpt = setup.hwpt(devId, ioas, { flags: FAULT_ID_VALID, faultId }) as number;
      expect([setup.attach(devId, hwpt), setup.attach(devId, ioas)]).toEqual([errno, 5]);
      expect([setup.attach(devId, hwpt), setup.attach(devId, ioas)]).toEqual([errno, 5]); // moved nowhere
    }
  });
});

describe('dirty tracking', () => {
  it('reports pages written by DMA while it is on; NO_CLEAR keeps them; bits are OR-ed; a hole ends the record', () => {
    const setup = new IommufdSetup({ mode: 'scalable' });
    const { fd, agent, unit } = setup;
    const device = setup.device();
    const [devId, ioas] = [setup.bind(device), setup.ioas()];
    const [plain, hwptId] = [setup.hwpt(devId, ioas), setup.hwpt(devId, ioas, { flags: DIRTY_TRACKING })] as number[];
    const id = hwptId as number;
    setup.map(ioas, 0, 511, { userPage: 0x80001 }); // frames that are not aligned to 2M: 4K leaves
    setup.map(ioas, 0x40_0000, 8, { userPage: 0x80001 });
    setup.attach(devId, id);
    const write = (iova: number) =>
      setup.run(unit.translateMiss(agent, { sourceId: 0x28, iovaHi: 0, iovaLo: iova, access: 2 }));
    const enable = (on: boolean, hwpt = id) =>
      setup.call(fd.hwptSetDirtyTracking(agent, { flags: on ? 1 : 0, hwptId: hwpt })) ?? 'ok';
    const bitmap = (changes: object = {}) => {
      const data = new Uint8Array(64);
      const request = { hwptId: id, flags: 0, iova: 0n, length: 0x1f_f000n, pageSize: 4096n, data, ...changes };
      const reply = setup.call(fd.hwptGetDirtyBitmap(agent, request));
      if (typeof reply === 'string') return reply;
      const bits: number[] = [];
      for (let bit = 0; bit < 512; bit++) if (((data[bit >> 3] as number) >> (bit & 7)) & 1) bits.push(bit);
      return bits;
    };
    expect(write(0x1000)).toBeGreaterThan(0);
    expect([bitmap(), enable(true)]).toEqual([[], 'ok']);
    write(0x1000);
    write(0x7000);
    write(0x40_1000);
    expect([bitmap({ flags: 1 }), bitmap(), bitmap()]).toEqual([[1, 7], [1, 7], []]);
    expect(bitmap({ iova: 0x40_0000n, length: 0x4000n })).toEqual([1]);
    write(0x1000);
    expect(bitmap({ length: 0x10_0000n, pageSize: 0x4000n })).toEqual([0]);
    write(0x40_1000);
    expect(bitmap({ length: 0x60_0000n, data: new Uint8Array(192) })).toEqual([]); // stops at the hole below 2M
    expect(bitmap({ iova: 0x40_0000n, length: 0x4000n })).toEqual([1]);
    write(0x3000);
    expect([enable(true), bitmap()]).toEqual(['ok', []]); // a clean start
    expect([enable(false), write(0x5000) > 0, bitmap()]).toEqual(['ok', true, []]);
    expect([
      bitmap({ flags: 2 }),
      bitmap({ hwptId: 9 }),
      bitmap({ hwptId: plain }),
      bitmap({ length: 0n }),
      bitmap({ pageSize: 0n }),
      bitmap({ iova: 0x800n }),
      bitmap({ pageSize: 0x40_0000n }),
      bitmap({ iova: (1n << 64n) - 4096n, length: 0x2000n }),
      enable(true, plain),
      enable(true, 9),
    ]).toEqual([
      'EOPNOTSUPP',
      'ENOENT',
      'EOPNOTSUPP',
      'EINVAL',
      'EINVAL',
      'EINVAL',
      'EINVAL',
      'EOVERFLOW',
      'EOPNOTSUPP',
      'ENOENT',
    ]);
  });
});
