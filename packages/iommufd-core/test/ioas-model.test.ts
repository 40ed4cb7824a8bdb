import { HostMemory } from '@faultline/host-mm';
import { Agent, runToEnd } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import { RemappingUnit, VtdDriver, VtdFunction } from '@faultline/vtd-remapping';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Ioas, IommufdError } from '../src/index.ts';

/*
 * The IOAS against the plainest model of its rules: a list of byte ranges, and for automatic IOVAs a search of every gap. Addresses are few: the program
 * reserves all but the first 96 pages.
 */

const PAGE = 4096n;
const TOP = 96n * PAGE;
const USER = 0x4000_0000n;
const LAST = (1n << 64n) - 1n;

interface Range {
  readonly start: bigint;
  readonly last: bigint;
}
interface NaiveArea extends Range {
  /** Address of the first byte's memory, and which map call it came from. */
  readonly va: bigint;
  readonly origin: number;
  /** Of the map call, which copies cannot exceed. */
  readonly writeable: boolean;
}

const ascending = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);
const overlaps = (a: Range, b: Range): boolean => a.start <= b.last && b.start <= a.last;

/** What Linux's rules say, in the order in which Linux checks them. */
class NaiveIoas {
  areas: NaiveArea[] = [];
  allowed: Range[] = [];
  reserved: Range[] = [{ start: TOP, last: LAST }];
  alignment = 1n;
  origins = 0;

  insert(area: NaiveArea): void {
    this.areas = [...this.areas, area].sort((a, b) => (a.start < b.start ? -1 : 1));
  }

  check(start: bigint, length: bigint): string {
    if (start % this.alignment !== 0n) return 'EINVAL';
    const range = { start, last: start + length - 1n };
    if (this.reserved.some((each) => overlaps(each, range))) return 'EINVAL';
    return this.areas.some((each) => overlaps(each, range)) ? 'EEXIST' : 'ok';
  }

  automatic(va: bigint, length: bigint): bigint | string {
    let alignment = 1n;
    while (alignment < length) alignment *= 2n;
    while (va % alignment !== 0n) alignment /= 2n;
    if (alignment > 0x20_0000n) alignment = 0x20_0000n;
    if (alignment < this.alignment) return 'EINVAL';
    // Below a page of alignment the offset is OR-ed in, which is not always the lowest address that would do.
    const fit = (hole: Range): bigint | null => {
      const start = (((hole.start + alignment - 1n) / alignment) * alignment) | (va % PAGE);
      return start < hole.last && hole.last - start >= length - 1n ? start : null;
    };
    const used = [...this.areas, ...this.reserved];
    const isFree = (at: bigint): boolean => !used.some((each) => each.start <= at && at <= each.last);
    for (const range of this.allowedRanges()) {
      const from = fit(range);
      if (from === null) continue;
      const starts = [from, ...used.map((each) => each.last + 1n)].filter((at) => at >= from && at <= range.last);
      for (const start of starts.filter(isFree).sort(ascending)) {
        const ends = [range.last, ...used.map((each) => each.start - 1n).filter((end) => end >= start)];
        const found = fit({ start, last: ends.sort(ascending)[0] as bigint });
        if (found !== null) return found;
      }
    }
    return 'ENOSPC';
  }

  /** In order, neighbours made one, without the first and the last page. */
  allowedRanges(): Range[] {
    if (this.allowed.length === 0) return [{ start: PAGE, last: LAST - PAGE }];
    const sorted = [...this.allowed].sort((a, b) => ascending(a.start, b.start));
    const [one, two] = sorted;
    const joined = one && two && one.last + 1n === two.start ? [{ start: one.start, last: two.last }] : sorted;
    return joined.flatMap(({ start, last }) => (last < PAGE ? [] : [{ start: start < PAGE ? PAGE : start, last }]));
  }

  map(va: bigint, length: bigint, iova: bigint | null, writeable: boolean): bigint | string {
    if (length === 0n || length % this.alignment !== 0n) return 'EINVAL';
    const start = iova ?? this.automatic(va, length);
    if (typeof start === 'string') return start;
    const checked = iova === null ? 'ok' : this.check(start, length);
    if (checked !== 'ok') return checked;
    if ((va % PAGE) % this.alignment !== 0n) return 'EINVAL';
    this.insert({ start, last: start + length - 1n, va, origin: this.origins++, writeable });
    return start;
  }

  copy(from: Range, iova: bigint | null, writeable: boolean): bigint | string {
    const parts: NaiveArea[] = [];
    for (let at = from.start; at <= from.last; ) {
      const area = this.areas.find((each) => each.start <= at && at <= each.last);
      if (!area) return 'ENOENT';
      const last = [area.last, from.last].sort((a, b) => (a < b ? -1 : 1))[0] as bigint;
      parts.push({ ...area, start: at, last, va: area.va + (at - area.start) });
      at = last + 1n;
    }
    const length = from.last - from.start + 1n;
    if (length % this.alignment !== 0n) return 'EINVAL';
    const first = parts[0] as NaiveArea;
    const start = iova ?? this.automatic(first.va, length);
    if (typeof start === 'string') return start;
    const checked = iova === null ? 'ok' : this.check(start, length);
    if (checked !== 'ok') return checked;
    for (const part of parts) {
      if (writeable && !part.writeable) return 'EPERM';
      if ((part.va % PAGE) % this.alignment !== 0n) return 'EINVAL';
    }
    for (const part of parts)
      this.insert({ ...part, start: start + (part.start - from.start), last: start + (part.last - from.start) });
    return start;
  }

  unmap(range: Range): { errno: string; bytes: bigint } {
    let bytes = 0n;
    for (const area of this.areas.filter((each) => overlaps(each, range))) {
      if (area.start < range.start || area.last > range.last) return { errno: 'ENOENT', bytes };
      this.areas = this.areas.filter((each) => each !== area);
      bytes += area.last - area.start + 1n;
    }
    return { errno: bytes === 0n ? 'ENOENT' : 'ok', bytes };
  }

  allow(ranges: Range[]): string {
    for (const [index, range] of ranges.entries())
      if (range.start >= range.last || ranges.slice(0, index).some((each) => overlaps(each, range))) return 'EINVAL';
    if (ranges.some((range) => this.reserved.some((each) => overlaps(each, range)))) return 'EADDRINUSE';
    this.allowed = ranges;
    return 'ok';
  }

  /** Pages that are pinned: each map call's pages once, whoever maps them. */
  pinnedPages(): number {
    const pages = new Set<string>();
    for (const { origin, va, start, last } of this.areas)
      for (let page = va / PAGE; page <= (va + (last - start)) / PAGE; page++) pages.add(`${origin}:${page}`);
    return pages.size;
  }
}

function errnoOf<T>(call: () => T): T | string {
  try {
    return call();
  } catch (error) {
    if (error instanceof IommufdError) return error.code;
    throw error;
  }
}

const unit = fc.constantFrom(0x400n, 0x1000n, 0x1000n, 0x1000n);
const place = fc.tuple(fc.bigInt(0n, 100n), unit).map(([n, of]) => n * of);
const bytes = fc.tuple(fc.bigInt(0n, 20n), unit).map(([n, of]) => n * of);
const range = fc.record({ start: place, length: bytes });
const call = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('map' as const),
      va: place,
      length: bytes,
      iova: fc.option(place),
      writeable: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('copy' as const),
      from: range,
      iova: fc.option(place),
      writeable: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('unmap' as const), from: range }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('allow' as const), ranges: fc.array(range, { maxLength: 2 }) }) },
);

/** Runs one program on both and compares every answer and what is left. */
function compare(calls: readonly (typeof call extends fc.Arbitrary<infer T> ? T : never)[], withDomain: boolean): void {
  const host = new HostMemory({ frames: 256, swapSlots: 0 });
  const mm = host.createAddressSpace('owner');
  mm.mmap({ startPage: Number(USER >> 12n), pages: 128, backing: '4K' });
  const agent = new Agent('user');
  const unit = new RemappingUnit({ memory: new TableMemory({ pages: 128 }) });
  const device = new VtdFunction({ driver: new VtdDriver({ unit }), sourceId: 0x28 });
  const run = <T>(task: Generator<import('@faultline/sim').Step, T, void>): T =>
    runToEnd(task, () => unit.processQueue());
  const ioas = new Ioas({ mm, strategy: null });
  const naive = new NaiveIoas();
  run(ioas.iopt.write(agent, (layout) => layout.reserve([{ start: TOP, last: LAST }], naive)));
  const paging = device.allocatePaging({ nestParent: false, dirtyTracking: false });
  const hwpt = withDomain ? run(ioas.addDomain(agent, paging.domain)) : null;
  if (withDomain) naive.alignment = PAGE;
  for (const each of calls) {
    if (each.do === 'map') {
      const { length, iova, writeable } = each;
      const va = USER + each.va;
      const got = errnoOf(() => run(ioas.map(agent, { userVa: va, length, iova, writeable, unpinned: false })).iova);
      expect(got).toEqual(naive.map(va, length, iova, writeable));
    } else if (each.do === 'copy') {
      const { start, length } = each.from;
      const { iova, writeable } = each;
      const got = errnoOf(() => run(ioas.copy(agent, ioas, { iova: start, length }, { iova, writeable })));
      const from = { start, last: start + length - 1n };
      expect(got).toEqual(length === 0n ? 'EINVAL' : naive.copy(from, iova, writeable));
    } else if (each.do === 'unmap') {
      const { start, length } = each.from;
      if (length === 0n) continue;
      const expected = naive.unmap({ start, last: start + length - 1n });
      const got = errnoOf(() => run(ioas.unmap(agent, start, length)));
      expect(got).toEqual(expected.errno === 'ok' ? expected.bytes : expected.errno);
    } else {
      const ranges = each.ranges.map(({ start, length }) => ({ start, last: start + length }));
      const got = errnoOf(() => run(ioas.iopt.write(agent, (layout) => layout.allow(ranges))) ?? 'ok');
      expect(got).toEqual(naive.allow(ranges));
    }
    expect(ioas.areas.areas().map(({ iova, last }) => ({ start: iova, last }))).toEqual(
      naive.areas.map(({ start, last }) => ({ start, last })),
    );
    expect(mm.accountedPinBytes).toBe(withDomain ? naive.pinnedPages() * 4096 : 0);
    if (!withDomain) continue;
    for (const area of naive.areas)
      for (let at = area.start; at <= area.last; at += PAGE)
        expect(paging.domain.frameAt(Number(at / PAGE))).toBe(mm.lookup(Number((area.va + (at - area.start)) / PAGE)));
  }
  run(ioas.unmap(agent, 0n, LAST));
  expect([mm.accountedPinBytes, paging.domain.table.mappedPages]).toEqual([0, 0]);
  if (hwpt) run(ioas.iopt.removeDomain(agent, hwpt));
  paging.destroy();
  run(mm.exit(agent));
  expect(host.allocator.allocatedFrames).toBe(0);
}

describe('an IOAS and the plainest model of it agree on every answer', () => {
  it('without a domain, byte by byte', () => {
    fc.assert(
      fc.property(fc.array(call, { maxLength: 25 }), (calls) => compare(calls, false)),
      { numRuns: 300 },
    );
  });

  it('with a domain: frames, pins and what is mapped', () => {
    fc.assert(
      fc.property(fc.array(call, { maxLength: 25 }), (calls) => compare(calls, true)),
      { numRuns: 200 },
    );
  });
});
