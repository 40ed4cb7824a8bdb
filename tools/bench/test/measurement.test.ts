import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Benchmark } from '../src/benchmark.ts';
import { measure, median, ResultsDiffer, rowOf } from '../src/measurement.ts';

const effort = { rounds: 2, warmUpRounds: 1, divisor: 10 };

test('the median has as many values above it as below', () => {
  fc.assert(
    fc.property(fc.array(fc.integer(), { minLength: 1 }), (values) => {
      const middle = median(values);
      const below = values.filter((value) => value < middle).length;
      const above = values.filter((value) => value > middle).length;
      expect(below).toBeLessThanOrEqual(values.length / 2);
      expect(above).toBeLessThanOrEqual(values.length / 2);
    }),
  );
});

test('a row compares the best rounds', () => {
  expect(rowOf({ name: 'x', target: 2 }, [30, 10, 11], [5, 7, 9])).toEqual({
    name: 'x',
    nsPerOp: 10,
    nativeNsPerOp: 5,
    ratio: 2,
    medianNsPerOp: 11,
    nativeMedianNsPerOp: 7,
    target: 2,
    ok: true,
  });
  expect(rowOf({ name: 'x', target: 2 }, [10.1], [5]).ok).toBe(false);
  expect(rowOf({ name: 'x', target: null }, [10.1], [5]).ok).toBeNull();
});

function sides(nativeChecksum: number) {
  const calls: string[] = [];
  const benchmark = (name: string): Benchmark => ({
    name,
    operations: 100,
    target: null,
    run: (operations) => {
      calls.push(`${name} here ${operations}`);
      return { ns: 100 * calls.length, checksum: 7 };
    },
  });
  const native = {
    run: async (name: string, operations: number) => {
      calls.push(`${name} C ${operations}`);
      return { ns: 50, checksum: nativeChecksum };
    },
  };
  return { calls, benchmarks: [benchmark('a'), benchmark('b')], native };
}

test('the sides take turns, all benchmarks in each round, and the warm-up does not count', async () => {
  const { calls, benchmarks, native } = sides(7);
  const rows = await measure(benchmarks, native, effort, () => undefined);
  const turn = (name: string) => [`${name} here 1`, `${name} here 10`, `${name} C 1`, `${name} C 10`];
  const round = [...turn('a'), ...turn('b')];
  expect(calls).toEqual([...round, ...round, ...round]);
  // The n-th call takes n x 100 ns: the first that counts of `a` is the tenth, for 10 operations.
  expect(rows.map(({ name, nsPerOp, nativeNsPerOp }) => [name, nsPerOp, nativeNsPerOp])).toEqual([
    ['a', 100, 5],
    ['b', 140, 5],
  ]);
});

test('sides that compute different things are not compared', async () => {
  const { benchmarks, native } = sides(8);
  await expect(measure(benchmarks, native, effort, () => undefined)).rejects.toThrow(
    new ResultsDiffer('a: checksum 0x7 here, 0x8 in C, after 10 operations'),
  );
});
