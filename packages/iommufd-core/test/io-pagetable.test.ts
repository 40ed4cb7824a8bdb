import { HostMemory } from '@faultline/host-mm';
import { describe, expect, it } from 'vitest';
import { Area, IommufdError, IoPagetable, IoptPages, Process } from '../src/index.ts';

const mm = new HostMemory({ frames: 16, swapSlots: 0 }).createAddressSpace('owner');
const process = new Process({ mm });

/** An area at an IOVA page, of memory of its own at a page of the owner. */
function area(
  page: number,
  pages: number,
  changes: { userPage?: number; writeable?: boolean; unpinned?: boolean } = {},
) {
  const { userPage = 0x1000 + page, writeable = true, unpinned = true } = changes;
  const length = BigInt(pages) * 4096n;
  const start = BigInt(userPage) * 4096n;
  const memory = new IoptPages({ process, start, length, writeable, unpinned, account: 'none' });
  const made = new Area({ iova: BigInt(page) * 4096n, length, memory, startByte: 0n, readable: true, writeable });
  made.state = 'mapped';
  return made;
}

/** The errno of what a call throws, and its message. */
function errno(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof IommufdError) return error.message;
    throw error;
  }
  return 'ok';
}

describe('the io_pagetable', () => {
  const filled = () => {
    const table = new IoPagetable();
    for (const each of [area(16, 16), area(32, 8), area(48, 16)]) table.insert(each);
    return table;
  };

  it('refuses what overlaps, exactly, inside, around or at an end; neighbours are fine', () => {
    const table = filled();
    for (const [page, pages] of [
      [16, 16],
      [20, 1],
      [0, 100],
      [15, 2],
      [31, 1],
      [40, 9],
    ] as const)
      expect(errno(() => table.insert(area(page, pages)))).toContain('EEXIST');
    expect(errno(() => table.insert(area(40, 8)))).toBe('ok');
    expect(errno(() => table.insert(area(0, 16)))).toBe('ok');
    expect(errno(() => table.insert(area(20, 1)))).toBe(
      'EEXIST: iova: [0x14000-0x14fff] overlaps the area [0x10000-0x1ffff]',
    );
  });

  it('finds the area of a page', () => {
    const table = filled();
    expect([15, 16, 31, 32, 39, 40, 48, 63, 64].map((page) => table.find(page)?.page)).toEqual([
      undefined,
      16,
      16,
      32,
      32,
      undefined,
      48,
      48,
      undefined,
    ]);
  });

  it('finds the first area that has any byte of a range', () => {
    const table = filled();
    const first = (start: bigint, last: bigint) => table.firstIn(start, last)?.page;
    expect([first(0n, 0xffffn), first(0n, 0x10000n), first(0x1ffffn, 0x1ffffn), first(0x28000n, 0x2ffffn)]).toEqual([
      undefined,
      16,
      16,
      undefined,
    ]);
    expect(first(0n, (1n << 64n) - 1n)).toBe(16);
  });

  it('says whether areas cover a range without a hole', () => {
    const table = filled();
    const pages = (start: bigint, last: bigint) => table.contiguous(start, last)?.map((each) => each.page) ?? null;
    expect(pages(0x10000n, 0x27fffn)).toEqual([16, 32]);
    expect(pages(0x11234n, 0x11234n)).toEqual([16]);
    expect(pages(0x27fffn, 0x28000n)).toBe(null);
    (table.find(32) as Area).state = 'going';
    expect([pages(0x10000n, 0x20000n), table.find(32)]).toEqual([null, undefined]);
  });

  it('gives the parts that map a range of memory, of aliases too', () => {
    const table = filled();
    table.insert(area(100, 4, { userPage: 0x1012 }));
    table.insert(area(110, 4, { userPage: 0x1012, unpinned: false })); // keeps its frames: nobody has to look
    expect(table.slicesOfMemory(0x1012, 2).map(({ page, pages }) => [page, pages])).toEqual([
      [18, 2],
      [100, 2],
    ]);
    expect(table.slicesOfMemory(0x9000, 2)).toEqual([]);
  });

  it('has a hash that every field changes', () => {
    const sound = filled().hash();
    expect(filled().hash()).toBe(sound);
    const others = [
      area(65, 1),
      area(64, 2),
      area(64, 1, { userPage: 5 }),
      area(64, 1, { writeable: false }),
      area(64, 1, { unpinned: false }),
      area(64, 1),
    ].map((change) => {
      const table = filled();
      table.insert(change);
      return table.hash();
    });
    expect(new Set([sound, ...others]).size).toBe(7);
  });
});
