import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Area, IommufdError, IoPagetable, rangesToPin } from '../src/index.ts';

const area = (page: number, pages: number, userPage = 0x1000 + page): Area => ({
  page,
  pages,
  userPage,
  writeable: true,
  unpinned: true,
});

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
  const remove = (table: IoPagetable, page: number, pages: number) => {
    const removed: number[] = [];
    const message = errno(() => table.removeRange(page, pages, (gone) => removed.push(gone.page)));
    return { message: message.split(':')[0], removed };
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
    expect(errno(() => table.insert(area(90, 0)))).toBe('EINVAL: length: 0x0 is not positive');
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

  it('removes whole areas, over holes too', () => {
    expect(remove(filled(), 16, 16)).toEqual({ message: 'ok', removed: [16] });
    expect(remove(filled(), 0, 1000)).toEqual({ message: 'ok', removed: [16, 32, 48] });
    expect(filled().removeRange(10, 54, () => undefined)).toBe(40);
  });

  it('a part of an area at the front, the middle or the tail is ENOENT and changes nothing', () => {
    for (const [page, pages] of [
      [16, 1],
      [20, 1],
      [31, 1],
      [20, 100],
    ] as const) {
      const table = filled();
      expect(remove(table, page, pages)).toEqual({ message: 'ENOENT', removed: [] });
      expect(table.size).toBe(3);
    }
    expect(remove(filled(), 40, 8)).toEqual({ message: 'ENOENT', removed: [] });
  });

  it('as Linux: where a later area is covered in part, the earlier ones are gone', () => {
    const table = filled();
    expect(remove(table, 16, 40)).toEqual({ message: 'ENOENT', removed: [16, 32] });
    expect(table.areas().map((left) => left.page)).toEqual([48]);
  });

  it('gives the parts that map a range of memory, of aliases too', () => {
    const table = filled();
    table.insert(area(100, 4, 0x1012));
    expect(table.slicesOfMemory(0x1012, 2).map(({ page, pages }) => [page, pages])).toEqual([
      [18, 2],
      [100, 2],
    ]);
    expect(table.slicesOfMemory(0x9000, 2)).toEqual([]);
  });

  it('has a hash that every field changes', () => {
    const sound = filled().hash();
    expect(filled().hash()).toBe(sound);
    const others = [{ page: 65 }, { pages: 2 }, { userPage: 5 }, { writeable: false }, { unpinned: false }, {}].map(
      (change) => {
        const table = filled();
        table.insert({ ...area(64, 1), ...change });
        return table.hash();
      },
    );
    expect(new Set([sound, ...others]).size).toBe(7);
  });

  it('agrees with a plain list under random programs', () => {
    const step = fc.record({ insert: fc.boolean(), page: fc.nat(40), pages: fc.integer({ min: 1, max: 12 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const table = new IoPagetable();
        let list: Area[] = [];
        for (const { insert, page, pages } of steps) {
          const end = page + pages;
          const touched = list.filter((each) => each.page < end && page < each.page + each.pages);
          if (insert) {
            expect(errno(() => table.insert(area(page, pages))).split(':')[0]).toBe(touched.length ? 'EEXIST' : 'ok');
            if (touched.length === 0) list = [...list, area(page, pages)].sort((a, b) => a.page - b.page);
          } else {
            const cut = touched.findIndex((each) => each.page < page || each.page + each.pages > end);
            const gone = cut < 0 ? touched : touched.slice(0, cut);
            expect(remove(table, page, pages)).toEqual({
              message: cut < 0 && touched.length > 0 ? 'ok' : 'ENOENT',
              removed: gone.map((each) => each.page),
            });
            list = list.filter((each) => !gone.includes(each));
          }
          expect(table.areas()).toEqual(list);
        }
      }),
    );
  });
});

describe('rangesToPin', () => {
  it('is nothing if all paths can fault, else what those that cannot use; unknown is refused', () => {
    const ranges = [{ page: 1, pages: 2 }];
    const can = { path: 'read', canFault: true };
    expect(rangesToPin({ name: 'a', paths: [can] })).toEqual([]);
    expect(rangesToPin({ name: 'a', paths: [can, { path: 'write', canFault: false, ranges }] })).toEqual(ranges);
    expect(errno(() => rangesToPin({ name: 'nic', paths: [{ path: 'write', canFault: false }] }))).toBe(
      'EOPNOTSUPP: nic: its write DMA cannot fault and the ranges it uses are not declared; declare them, or map the IOAS pinned',
    );
  });
});
