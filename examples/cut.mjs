// Takes 4 KiB out of a 1 GiB mapping: a private sub-tree, one 64-bit compare-and-swap, and what must be invalidated after it.
//
//   npm run build && node examples/cut.mjs
import assert from 'node:assert/strict';
import { InvalidationGather, SecondStageTable, TableMemory } from '@faultline/vtd-pagetable';

const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }) });
table.map({ page: 0x40000, frame: 0x80000, pages: 262144, rights: { read: true, write: true } });
console.log('mapped  ', table.leafCounts);

const gather = new InvalidationGather();
const { ok, installs } = table.cut(0x40123, 1, gather);
console.log('cut     ', table.leafCounts, `with ${installs} install`);
console.log(
  'flush   ',
  `pages 0x${gather.firstPage.toString(16)}..0x${gather.lastPage.toString(16)}, the whole old leaf`,
);

table.unmap(0x40123, 1, gather);
console.log('neighbour still translates to frame', `0x${table.frameAt(0x40124).toString(16)}`);

assert.ok(ok);
assert.deepEqual(table.leafCounts, { '4K': 511, '2M': 511, '1G': 0 });
assert.equal(table.frameAt(0x40123), -1);
assert.equal(table.frameAt(0x40124), 0x80124);
