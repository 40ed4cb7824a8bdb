import { expect, test } from 'vitest';
import { rowOf } from '../src/measurement.ts';
import { duration, toDocument, toTable } from '../src/report.ts';

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
