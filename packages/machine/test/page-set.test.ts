import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DirtyLog } from '../src/dirty-log.ts';
import { InvariantLedger } from '../src/invariants.ts';
import { PagePool, PageSet, PageTags } from '../src/page-set.ts';

const page = fc.integer({ min: 0, max: 3000 });

describe('PageSet', () => {
  it('is a set', () => {
    const command = fc.record({ page, pages: fc.integer({ min: 0, max: 1800 }) });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const set = new PageSet();
        const naive = new Set<number>();
        for (const { page: first, pages } of commands) {
          const end = first + pages;
          if (pages < 400) {
            for (let at = first; at <= end; at += 7) {
              set.add(at);
              naive.add(at);
            }
          } else if (pages >= 1200) {
            set.addRange(first, pages - 600);
            for (let at = first; at < end - 600; at++) naive.add(at);
          } else {
            set.deleteRange(first, pages);
            for (let at = first; at < end; at++) naive.delete(at);
          }
          expect(set.size).toBe(naive.size);
        }
        expect([...set.pages()].sort((a, b) => a - b)).toEqual([...naive].sort((a, b) => a - b));
        for (let i = 0; i < 5000; i++) if (set.has(i) !== naive.has(i)) throw new Error(`page ${i}`);
      }),
    );
  });
});

describe('DirtyLog', () => {
  it('counts each reported page once, whatever overlaps, and knows which they are', () => {
    const range = fc.record({ page: fc.nat(300), pages: fc.integer({ min: 1, max: 90 }) });
    fc.assert(
      fc.property(fc.array(fc.array(range, { maxLength: 4 }), { maxLength: 12 }), (reports) => {
        const log = new DirtyLog();
        const naive = new Set<number>();
        for (const ranges of reports) {
          log.report(ranges);
          for (const each of ranges) for (let i = 0; i < each.pages; i++) naive.add(each.page + i);
          expect(log.pages).toBe(naive.size);
        }
        for (let i = 0; i < 400; i++) expect(log.has(i)).toBe(naive.has(i));
      }),
    );
  });
});

describe('PageTags', () => {
  it('remembers the last tag of each page; others are zero', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(page, fc.integer(), fc.integer())), (writes) => {
        const tags = new PageTags();
        const naive = new Map<number, [number, number]>();
        for (const [at, lo, hi] of writes) {
          tags.set(at, lo, hi);
          naive.set(at, [lo, hi]);
        }
        for (const [at, [lo, hi]] of naive) expect(tags.matches(at, lo, hi)).toBe(true);
        expect(tags.matches(5000, 0, 0)).toBe(true);
        expect(tags.matches(5000, 1, 0)).toBe(false);
        const nonZero = [...naive].filter(([, [lo, hi]]) => lo !== 0 || hi !== 0).map(([at]) => at);
        expect([...tags.pages()].sort((a, b) => a - b)).toEqual(nonZero.sort((a, b) => a - b));
      }),
    );
  });
});

describe('PagePool', () => {
  it('gives each page once', () => {
    const pool = new PagePool();
    for (const added of [1, 2, 3]) pool.add(added);
    const taken = [pool.take(() => 0), pool.take(() => 0), pool.take(() => 0), pool.take(() => 0)];
    expect(taken.slice(0, 3).sort()).toEqual([1, 2, 3]);
    expect(taken[3]).toBe(-1);
  });
});

describe('InvariantLedger', () => {
  it('counts, and keeps the first violation with its time', () => {
    let now = 5;
    const ledger = new InvariantLedger(() => now);
    expect(ledger.check('I1', true, () => 'never built')).toBe(true);
    expect(ledger.violated).toBe(false);
    ledger.check('I1', false, () => 'first');
    now = 9;
    ledger.check('I1', false, () => 'second');
    expect(ledger.violated).toBe(true);
    expect(ledger.summary().find((row) => row.id === 'I1')).toEqual({
      id: 'I1',
      checks: 3,
      violations: 2,
      first: 'first (at 5 ns)',
    });
    expect(ledger.summary().find((row) => row.id === 'I2')).toEqual({ id: 'I2', checks: 0, violations: 0 });
  });
});
