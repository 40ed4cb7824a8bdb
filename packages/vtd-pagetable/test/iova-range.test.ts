import { describe, expect, it } from 'vitest';
import { InvalidationGather, type MapRangeRequest, SecondStageTable, TableMemory } from '../src/index.ts';

const rights = { read: true, write: true };
const newTable = (levels: 3 | 4 | 5 = 4) => new SecondStageTable({ memory: new TableMemory({ pages: 64 }), levels });

describe('byte addresses', () => {
  it('map, translate, cut, change rights, collapse and unmap', () => {
    const table = newTable();
    const gather = new InvalidationGather();
    const [iova, length] = [0x4000_0000n, 0x4000_0000n];
    expect(table.mapRange({ iova, paddr: 0x2_4000_0000n, length, rights })).toBe(length);
    expect(table.iovaToPhys(0x4012_3456n)).toBe(0x2_4012_3456n);
    expect([table.iovaToPhys(0n), table.iovaToPhys(0x8000_0000n), table.iovaToPhys(2n ** 64n - 1n)]).toEqual([
      0n,
      0n,
      0n,
    ]);
    expect(table.cutRange(0x4012_3000n, 0x1000n, gather)).toMatchObject({ ok: true, installs: 1 });
    expect(table.iovaToPhys(0x4012_3456n)).toBe(0x2_4012_3456n);
    expect(table.protectRange(0x4012_3000n, 0x1000n, { read: true, write: false }, gather)).toBe(0x1000n);
    expect(table.protectRange(0x4012_3000n, 0x1000n, rights, gather)).toBe(0x1000n);
    expect(table.collapseRange(iova, length, gather).leaves).toEqual({ '2M': 0, '1G': 1 });
    table.settle(gather);
    expect(table.unmapRange(iova, 0x1000n, gather)).toBe(length);
    expect(table.mappedPages).toBe(0);
  });
  const request = { iova: 0x1000n, paddr: 0x5000n, length: 0x2000n, rights };
  it.each<[string, Partial<MapRangeRequest>]>([
    ['EINVAL: rights: neither read nor write', { rights: { read: false, write: false } }],
    ['EINVAL: length: 0x0 is not a positive number of bytes', { length: 0n }],
    ['EINVAL: length: -0x1000 is not a positive number of bytes', { length: -0x1000n }],
    ['EINVAL: iova: -0x1000 is not a 64-bit address', { iova: -0x1000n }],
    ['EINVAL: iova: 0x10000000000000000 is not a 64-bit address', { iova: 1n << 64n }],
    ['EOVERFLOW: iova: 0xfffffffffffff000 + length 0x2000 is beyond 64 bits', { iova: 0xffff_ffff_ffff_f000n }],
    // No sign extension in the second stage: an upper-half address is out of range.
    ['ERANGE: iova: 0xffff800000000000 + 0x2000 is beyond the 48-bit input range', { iova: 0xffff_8000_0000_0000n }],
    ['ERANGE: iova: 0xfffffffff000 + 0x2000 is beyond the 48-bit input range', { iova: 0xffff_ffff_f000n }],
    ['ENXIO: iova: 0x1800 is not a multiple of the page size 0x1000', { iova: 0x1800n }],
    ['ENXIO: length: 0x1001 is not a multiple of the page size 0x1000', { length: 0x1001n }],
    ['ENXIO: paddr: 0x5200 is not a multiple of the page size 0x1000', { paddr: 0x5200n }],
    ['EINVAL: paddr: -0x1 is not a 64-bit address', { paddr: -1n }],
    ['ERANGE: paddr: 0x3ffffffff000 + 0x2000 is beyond the 46-bit host address width', { paddr: 0x3fff_ffff_f000n }],
    ['EINVAL: attributes: 0x1 has bits of the address, R, W or PS', { attributes: 1n }],
    ['EINVAL: attributes: 0x10000000000000800 is not a 64-bit value', { attributes: (1n << 64n) | 0x800n }],
    ['EINVAL: attributes: -0x8000000000000000 is not a 64-bit value', { attributes: -(1n << 63n) }],
  ])('refused: %s', (message, change) => {
    const table = newTable();
    let thrown: unknown;
    try {
      table.mapRange({ ...request, ...change });
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ code: message.split(':')[0], message });
    expect([table.mappedPages, table.tablePages]).toEqual([0, 1]);
  });
  it.each<[string, object]>([
    ['iova: 4096 (number) is not a bigint, such as 0x1000n', { iova: 0x1000 }],
    ['iova: NaN (number) is not a bigint, such as 0x1000n', { iova: Number.NaN }],
    ['iova: undefined (undefined) is not a bigint, such as 0x1000n', { iova: undefined }],
    ['paddr: 0x5000 (string) is not a bigint, such as 0x1000n', { paddr: '0x5000' }],
    ['length: 8192 (number) is not a bigint, such as 0x1000n', { length: 0x2000 }],
    ['attributes: 2048 (number) is not a bigint, such as 0x1000n', { attributes: 0x800 }],
  ])('of another type are refused: %s', (message, change) => {
    const table = newTable();
    let thrown: unknown;
    try {
      table.mapRange({ ...request, ...change });
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(TypeError);
    expect((thrown as Error).message).toBe(message);
    expect([table.mappedPages, table.tablePages]).toEqual([0, 1]);
  });
  it('are checked by every operation', () => {
    const table = newTable(3);
    const gather = new InvalidationGather();
    const calls: ((iova: bigint, length: bigint) => unknown)[] = [
      (iova, length) => table.unmapRange(iova, length, gather),
      (iova, length) => table.cutRange(iova, length, gather),
      (iova, length) => table.collapseRange(iova, length, gather),
      (iova, length) => table.protectRange(iova, length, rights, gather),
      (iova, length) => table.readAndClearDirty({ iova, length, clear: false }, gather, () => undefined),
    ];
    for (const call of calls) {
      expect(() => call(1n << 39n, 0x1000n)).toThrow(
        'ERANGE: iova: 0x8000000000 + 0x1000 is beyond the 39-bit input range',
      );
      expect(() => call(0x800n, 0x1000n)).toThrow('ENXIO: iova: 0x800');
      expect(() => call(0n, 0n)).toThrow('EINVAL: length: 0x0');
    }
    expect(() => table.iovaToPhys(-1n)).toThrow('EINVAL: iova: -0x1 is not a 64-bit address');
    expect(() => table.iovaToPhys(0x1000 as unknown as bigint)).toThrow('iova: 4096 (number) is not a bigint');
  });
});
