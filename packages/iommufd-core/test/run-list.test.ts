import fc from 'fast-check';
import { expect, it } from 'vitest';
import { RunList } from '../src/ioas/run-list.ts';

it('a list of runs agrees with an array of frames, whatever is inserted and taken', () => {
  const span = fc.record({
    first: fc.nat(40),
    pages: fc.integer({ min: 1, max: 12 }),
    take: fc.boolean(),
    cut: fc.nat(11),
  });
  fc.assert(
    fc.property(fc.array(span, { maxLength: 30 }), (steps) => {
      const list = new RunList();
      const frames = new Map<number, number>();
      const pagesOf = (runs: readonly { index: number; pages: number; pfn: number }[]) =>
        runs.flatMap(({ index, pages, pfn }) => Array.from({ length: pages }, (_, i) => [index + i, pfn + i]));
      const expected = (first: number, last: number) =>
        [...frames].filter(([index]) => index >= first && index <= last).sort((a, b) => a[0] - b[0]);
      let pfn = 1000;
      for (const { first, pages, take, cut } of steps) {
        const last = first + pages - 1;
        if (take) {
          expect(pagesOf(list.take({ first, last }))).toEqual(expected(first, last));
          for (let index = first; index <= last; index++) frames.delete(index);
        } else if (expected(first, last).length === 0) {
          const head = Math.min(cut, pages);
          const runs = [
            { index: first, pages: head, pfn },
            { index: first + head, pages: pages - head, pfn: pfn + 100 },
          ].filter((run) => run.pages > 0);
          list.insert(runs);
          for (const [index, frame] of pagesOf(runs)) frames.set(index as number, frame as number);
          pfn += 1000;
        }
        expect(pagesOf(list.within({ first: 0, last: 60 }))).toEqual(expected(0, 60));
        expect(pagesOf(list.within({ first, last }))).toEqual(expected(first, last));
      }
    }),
  );
});
