import { describe, expect, it } from 'vitest';
import { IommuOption, IommuOptionOp } from '../src/index.ts';
import { IommufdSetup, NOTHING_LEFT, READ_ONLY, RW, SMALL, THP } from './iommufd-setup.ts';

/*
 * What 6.12.95 and 7.3.4 answered to the calls of `traces/iofd-*.log`, in their order: ids, errnos, addresses, lengths, leaves. (`vm-sim replay` takes
 * the logs themselves.)
 */
describe.each(['6.12', '7.3'] as const)('as recorded on %s', (version) => {
  const setup = new IommufdSetup({ version });
  const { fd, agent } = setup;
  const device = setup.device();
  const M = 0x10_0000;

  it('before the first attach', () => {
    expect(setup.attach(1, 2)).toBe('EINVAL');
    expect(setup.bind(device)).toBe(1);
    expect(() => setup.bind(device)).toThrow('EINVAL: 00:05.0 is bound already');
    expect([setup.ioas(), setup.call(fd.ioasAlloc(agent, { flags: 1 }))]).toEqual([2, 'EOPNOTSUPP']);
    expect(setup.ranges(2)).toBe('align=1 [0-ffffffffffffffff]');
    const info = setup.call(fd.getHwInfo(agent, { flags: 0, devId: 1, inDataType: 0 }));
    expect(info).toMatchObject({ outDataType: 1, outCapabilities: version === '7.3' ? 8n : 0n });
    expect([setup.map(2, 0x1000_0000, 1), setup.map(2, 0x1020_0000, 512, { userPage: THP + 512 })]).toEqual([
      '10000000',
      '10200000',
    ]);
    expect(setup.mm.accountedPinBytes).toBe(0);
  });

  it('attach makes an automatic HWPT', () => {
    expect([setup.attach(1, 2), setup.leaves(device)]).toEqual([3, [1, 1, 0]]);
    expect(setup.ranges(2)).toBe('align=1000 [0-fedfffff] [fef00000-ffffffffffff]');
    expect([setup.attach(1, 2), setup.destroy(2), setup.destroy(9999), setup.destroy(1)]).toEqual([
      3,
      'EBUSY',
      'ENOENT',
      'EBUSY',
    ]);
  });

  it('argument checks of map', () => {
    const max = (1n << 64n) - 4096n;
    const va = BigInt(THP) * 4096n;
    expect([setup.map(2, 0x1000_0000, 1), setup.map(2, 0x1030_0000, 1)]).toEqual(['EEXIST', 'EEXIST']);
    expect(setup.map(2, 0x2000_0000, 0)).toBe('EINVAL');
    expect(setup.map(2, 0x2000_0800, 1)).toBe('EINVAL');
    expect(setup.map(2, 0x2000_0800, 1, { userVa: va + 0x800n })).toBe('EINVAL');
    expect(setup.map(2, 0x2000_0000, 1, { userVa: va + 0x800n })).toBe('EINVAL');
    expect(setup.map(2, 0x2000_0000, 1, { length: 0x1800n })).toBe('EINVAL');
    expect(setup.map(2, max, 2)).toBe('EOVERFLOW');
    expect(setup.map(2, 0x2000_0000, 2, { userVa: max })).toBe('EOVERFLOW');
    expect([setup.map(2, 1n << 48n, 1), setup.map(2, (1n << 48n) - 4096n, 2)]).toEqual(['EINVAL', 'EINVAL']);
    expect(setup.map(2, (1n << 48n) - 4096n, 1)).toBe('fffffffff000');
    expect([setup.map(2, 0xfee0_0000, 1), setup.map(2, 0xfedf_f000, 2)]).toEqual(['EINVAL', 'EINVAL']);
    expect(setup.map(2, 0x2000_0000, 1, { flags: 1 })).toBe('EINVAL');
    expect(setup.map(2, 0x2000_0000, 1, { flags: 0x87 })).toBe('EOPNOTSUPP');
    expect([setup.map(77, 0x2000_0000, 1), setup.map(1, 0x2000_0000, 1)]).toEqual(['ENOENT', 'ENOENT']);
  });

  it('rights of memory and of the map', () => {
    expect(setup.map(2, 0x2100_0000, 1, { userPage: READ_ONLY })).toBe('EFAULT');
    expect(setup.map(2, 0x2100_0000, 1, { userPage: READ_ONLY, flags: 5 })).toBe('21000000');
    expect(setup.map(2, 0x2101_0000, 4, { userPage: READ_ONLY - 1 })).toBe('EFAULT');
    expect(setup.map(2, 0x2100_2000, 1, { userPage: SMALL + 5, flags: 3 })).toBe('21002000');
    expect(setup.map(2, 0x2110_0000, 1)).toBe('21100000'); // the same memory again
  });

  it('sizes of leaves', () => {
    const added = (iova: number, pages: number, userPage = THP) => {
      const before = setup.leaves(device);
      expect(setup.map(2, iova, pages, { userPage })).toBe(iova.toString(16));
      return setup.leaves(device).map((count, index) => count - (before[index] as number));
    };
    expect(added(0x4000_0000, 512)).toEqual([0, 1, 0]);
    expect(added(0x4040_1000, 512)).toEqual([512, 0, 0]);
    expect(added(0x4100_0000, 1024)).toEqual([0, 2, 0]);
    expect(added(0x4210_0000, 768, THP + 256)).toEqual([256, 1, 0]);
    expect(added(0x4300_0000, 768, THP + 256)).toEqual([768, 0, 0]);
    expect(added(0x4400_0000, 512, SMALL)[2]).toBe(0);
  });

  it('unmap', () => {
    const all = (calls: [number, number][]) => calls.map(([iova, length]) => setup.unmap(2, iova, length));
    expect(
      all([
        [0x4000_0000, 0x1000],
        [0x401f_f000, 0x1000],
        [0x4010_0000, 0x1000],
        [0x4000_0000, 0x800],
      ]),
    ).toEqual(['ENOENT', 'ENOENT', 'ENOENT', 'ENOENT']);
    expect(setup.unmap(2, 0x3ff0_0000, 4 * M)).toBe('200000');
    setup.map(2, 0x4000_0000, 512);
    setup.map(2, 0x4020_0000, 512, { userPage: THP + 512 });
    expect(setup.unmap(2, 0x4000_0000, 4 * M)).toBe('400000');
    setup.map(2, 0x4000_0000, 512);
    setup.map(2, 0x5000_0000, 512);
    // From a's start to the middle of b: all before b is gone.
    expect(setup.unmap(2, 0x4000_0000, 0x1010_0000)).toBe('ENOENT');
    expect(setup.map(2, 0x4400_0000, 1)).toBe('44000000');
    expect(setup.unmap(2, 0x4400_0000, 0x1000)).toBe('1000');
    expect(setup.unmap(2, 0x4010_0000, 0x1010_0000)).toBe('200000');
    expect([
      setup.unmap(2, 0x7000_0000, 0x1000),
      setup.unmap(2, 0x7000_0000, 0),
      setup.unmap(2, (1n << 64n) - 4096n, 0x2000),
      setup.unmap(77, 0x7000_0000, 0x1000),
    ]).toEqual(['ENOENT', 'EINVAL', 'EOVERFLOW', 'ENOENT']);
  });

  it('automatic IOVAs: low, aligned by length, whatever the hint', () => {
    const auto = (pages: number, iova = 0) => setup.map(2, iova, pages, { flags: RW });
    expect([auto(1), auto(512), auto(16), auto(1, 0x1234_5000)]).toEqual(['1000', '200000', '10000', '2000']);
  });

  it('copy, and a second IOAS', () => {
    setup.map(2, 0x4100_0000, 1024);
    expect(setup.ioas()).toBe(4);
    const copy = (srcIova: number, length: number, dstIova: number) => {
      const request = {
        flags: 7,
        dstIoasId: 4,
        srcIoasId: 2,
        length: BigInt(length),
        dstIova: BigInt(dstIova),
        srcIova: BigInt(srcIova),
      };
      const reply = setup.call(fd.ioasCopy(agent, request));
      return typeof reply === 'string' ? reply : reply.dstIova.toString(16);
    };
    expect(copy(0x4100_0000, 2 * M, 0x100_0000)).toBe('1000000');
    expect(copy(0x4100_1000, 0x1000, 0x300_0000)).toBe('3000000');
    expect(copy(0x7000_0000, 0x1000, 0x400_0000)).toBe('ENOENT');
    expect(copy(0x4100_0000, 0x1000, 0x100_0000)).toBe('EEXIST');
    expect(copy(0x4130_0000, 2 * M, 0x500_0000)).toBe('ENOENT');
    expect(setup.unmap(2, 0x4100_0000, 4 * M)).toBe('400000');
    expect([setup.attach(1, 4), setup.leaves(device)]).toEqual([5, [1, 1, 0]]);
    expect(setup.attach(1, 2)).toBe(3);
  });

  it('options', () => {
    const huge = (op: number, val64: bigint, objectId: number) =>
      setup.call(fd.option(agent, { optionId: IommuOption.HUGE_PAGES, op, objectId, val64 }));
    const { GET, SET } = IommuOptionOp;
    expect([huge(GET, 0n, 2), huge(SET, 0n, 2), huge(SET, 2n, 2)]).toEqual([{ val64: 1n }, 'EINVAL', 'EINVAL']);
    expect([setup.ioas(), huge(SET, 0n, 5)]).toEqual([5, { val64: 0n }]);
    expect([setup.map(5, 0x6000_0000, 512), setup.attach(1, 5), setup.leaves(device)]).toEqual([
      '60000000',
      6,
      [512, 0, 0],
    ]);
    expect(setup.unmap(5, 0x6000_0000, 0x1000)).toBe('ENOENT');
  });

  it('areas where the device cannot go', () => {
    expect(setup.ioas()).toBe(3);
    expect([setup.map(3, 0xfee0_0000, 1), setup.attach(1, 3)]).toEqual(['fee00000', 'EADDRINUSE']);
    expect(setup.unmap(3, 0xfee0_0000, 0x1000)).toBe('1000');
    expect([setup.map(3, 1n << 48n, 1), setup.attach(1, 3)]).toEqual(['1000000000000', 'EADDRINUSE']);
    expect([setup.leaves(device), setup.destroy(3), setup.attach(1, 2)]).toEqual([[512, 0, 0], 'ok', 3]);
  });

  it('HWPTs and fault queues', () => {
    const rlimit = { optionId: IommuOption.RLIMIT_MODE, op: IommuOptionOp.GET, objectId: 0, val64: 0n };
    expect(setup.call(fd.option(agent, rlimit))).toEqual({ val64: 0n });
    expect([setup.hwpt(1, 2), setup.destroy(6)]).toEqual([6, 'ok']);
    for (const flags of [1, 2, 0x80]) expect(setup.hwpt(1, 2, { flags })).toBe('EOPNOTSUPP');
    expect(setup.hwpt(1, 2, { dataType: 1 })).toBe('EINVAL');
    expect(setup.run(fd.faultQueueAlloc(agent, { flags: 0 })).outFaultId).toBe(6);
    const hwpt = setup.hwpt(1, 2, { flags: 4, faultId: 6 });
    expect(hwpt).toBe(version === '7.3' ? 7 : 'EOPNOTSUPP');
    if (version === '7.3') expect([setup.attach(1, 7), setup.destroy(7)]).toEqual(['ENODEV', 'ok']);
    expect(setup.attach(1, 2)).toBe(3);
  });

  it('allowed IOVAs', () => {
    const allow = (ioasId: number, start: bigint, last: bigint) =>
      setup.call(fd.ioasAllowIovas(agent, { ioasId, allowedIovas: [{ start, last }] })) ?? 'ok';
    expect([allow(5, 0x10_0000n, 0x1f_ffffn), setup.ranges(5)]).toEqual(['ok', 'align=1000 [0-ffffffffffffffff]']);
    expect([setup.map(5, 0, 1, { flags: RW }), setup.map(5, 0x6100_0000, 1)]).toEqual(['100000', '61000000']);
    expect(allow(2, 0xfee0_0000n, 0xfeef_ffffn)).toBe('EADDRINUSE');
  });

  it('everything goes', () => {
    const all = (1n << 64n) - 1n;
    expect([setup.unmap(2, 0, all) === 'ENOENT', setup.unmap(2, 0, all)]).toEqual([false, '0']);
    setup.run(fd.detach(agent, 1));
    expect([setup.ranges(2), setup.destroy(2)]).toEqual(['align=1 [0-ffffffffffffffff]', 'ok']);
    expect(setup.leftovers()).toEqual(NOTHING_LEFT);
  });
});

it('RLIMIT_MEMLOCK as recorded: 2M over 1M is ENOMEM, and nothing is left of it', () => {
  const setup = new IommufdSetup({ process: { memlockBytes: 0x10_0000n } });
  const devId = setup.bind(setup.device());
  const ioas = setup.ioas();
  setup.attach(devId, ioas);
  expect([setup.map(ioas, 0x1000_0000, 128), setup.map(ioas, 0x2000_0000, 512)]).toEqual(['10000000', 'ENOMEM']);
  expect(setup.mm.accountedPinBytes).toBe(0x8_0000);
  expect(setup.unmap(ioas, 0x1000_0000, 0x8_0000)).toBe('80000');
  expect(setup.leftovers()).toEqual(NOTHING_LEFT);
});
