import { expect, test } from 'vitest';
import { Iotlb } from '../src/index.ts';

test('the example of the README prints what it says', () => {
  const printed: string[] = [];
  const console = { log: (line: string) => printed.push(line) };

  const trace: [number, bigint, bigint][] = [];
  for (let i = 0; i < 1024; i++) trace.push([0x18, 0x1_0000_0000n + BigInt(i % 256) * 2048n, 2048n]);
  for (const shared of [
    { sets: 16, ways: 4 },
    { sets: 16, ways: 16 },
  ]) {
    const iotlb = new Iotlb({ geometry: { shared } });
    for (const [sourceId, iova, size] of trace)
      for (let page = iova >> 12n; page <= (iova + size - 1n) >> 12n; page++) {
        const [hi, lo] = [Number(page >> 20n), Number(BigInt.asIntN(32, page << 12n))];
        if (iotlb.lookup(sourceId, hi, lo) < 0) iotlb.fill(sourceId, 1, hi, lo, 1, lo | 3, hi, 3);
      }
    console.log(`${shared.sets} x ${shared.ways}: ${(100 * iotlb.counters.hits) / iotlb.counters.lookups} %`);
  }

  expect(printed).toEqual(['16 x 4: 50 %', '16 x 16: 87.5 %']);
});
