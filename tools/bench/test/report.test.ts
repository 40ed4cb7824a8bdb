import { expect, test } from 'vitest';
import { rowOf } from '../src/measurement.ts';
import { duration, toDocument, toTable, verificationTable } from '../src/report.ts';
import { verificationRow } from '../src/verification.ts';

const rows = [
  rowOf({ name: 'hit', target: 2 }, [9.5, 10], [5, 6]),
  rowOf({ name: 'map', target: 2.5 }, [12_345_678], [123_456]),
  rowOf({ name: 'miss', target: null }, [999], [333]),
];

test('durations have three digits', () => {
  expect([1.234, 12.34, 123.4, 1234, 12_345_678].map(duration)).toEqual([
    '1.23 ns',
    '12.3 ns',
    '123 ns',
    '1.23 us',
    '12.3 ms',
  ]);
});

test('the table', () => {
  expect(toTable(rows)).toBe(
    [
      'per operation  TypeScript        C   ratio  target   ok   median  C median',
      'hit               9.50 ns  5.00 ns    1.90    <= 2  yes  9.75 ns   5.50 ns',
      'map               12.3 ms   123 us  100.00  <= 2.5   NO  12.3 ms    123 us',
      'miss               999 ns   333 ns    3.00       -    -   999 ns    333 ns',
      '',
    ].join('\n'),
  );
});

test('the document has four fields a row', () => {
  expect(JSON.parse(toDocument(rows.slice(0, 1)))).toEqual([
    { name: 'hit', nsPerOp: 9.5, nativeNsPerOp: 5, ratio: 1.9 },
  ]);
});

const explored = verificationRow({
  protocol: 'unmap',
  agree: true,
  interleave: { executions: 1000, states: 8000, seconds: 2 },
  spin: { states: 4_000_000, seconds: 4 },
});

test('a protocol explored by both is compared by the state', () => {
  expect(explored).toMatchObject({ nsPerOp: 250_000, nativeNsPerOp: 1000, ratio: 250, executionsPerSecond: 500 });
  expect(verificationTable([explored])).toBe(
    [
      'per state     interleave     spin  ratio  verdicts  executions  executions/s  states  spin states  spin states/s',
      'verify unmap      250 us  1.00 us  250.0     agree       1,000           500   8,000    4,000,000      1,000,000',
      '',
    ].join('\n'),
  );
  expect(JSON.parse(toDocument([], [explored]))).toEqual([explored]);
});

test('verdicts that differ are not to be overlooked', () => {
  expect(verificationTable([{ ...explored, agree: false }])).toContain('DIFFER');
});
