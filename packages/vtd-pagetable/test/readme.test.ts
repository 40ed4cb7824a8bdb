import { expect, it } from 'vitest';
import {
  explainEntry,
  InvalidationGather,
  SecondStageTable,
  TableMemory,
  WalkAccess,
  WalkState,
  walk,
} from '../src/index.ts';

it('the example of the README holds', () => {
  const memory = new TableMemory({ pages: 64 });
  const table = new SecondStageTable({ memory, levels: 4 });
  const rights = { read: true, write: true };
  table.map({ page: 0x40000, frame: 0x240000, pages: 262144, rights });
  expect(table.leafCounts).toEqual({ '4K': 0, '2M': 0, '1G': 1 });

  const gather = new InvalidationGather();
  table.cut(0x40123, 1, gather);
  expect(table.leafCounts).toEqual({ '4K': 512, '2M': 511, '1G': 0 });
  expect([gather.firstPage, gather.lastPage]).toEqual([0x40000, 0x7ffff]);
  expect(table.unmap(0x40123, 1, gather)).toBe(1);

  const walker = new WalkState();
  walk(memory, table.masks, table.beginWalk(walker, 0x40123, WalkAccess.write));
  expect(walker.faultReason).toBe(5);
  walk(memory, table.masks, table.beginWalk(walker, 0x40124, WalkAccess.write));
  expect(walker.framePfn.toString(16)).toBe('240124');
});

it('so does the one of explain', () => {
  expect(explainEntry('pde', [0x142a00083n]).summary).toBe('2M leaf, host 0x142a00000-0x142bfffff, read/write');
  expect(explainEntry('pde', [0x201083n]).faults[0]?.text).toBe('reserved bit in paging entry (0xc)');
});
