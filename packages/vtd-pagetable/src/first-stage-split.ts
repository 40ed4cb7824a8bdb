import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { tableIndex } from './entry.ts';
import {
  encodeFirstStageTable,
  FS_PRESENT,
  FS_TABLE,
  firstStageFrame,
  isFirstStageLeaf,
  partOfFirstStageLeaf,
} from './first-stage-entry.ts';
import type { FirstStageTable } from './first-stage-walk.ts';
import { PageTableError } from './page-table-error.ts';
import { flushEntries, flushPrivateTable } from './publication.ts';

/**
 * Replaces the large leaf that maps a page by a table of 512 leaves one level lower: a private table, and one compare-and-swap, done again if
 * hardware has set A or D meanwhile. The caches are the caller's to invalidate.
 * @param tableBits bits 11:0 of the entry that leads to the table; default as Linux writes them
 * @throws PageTableError EINVAL if no large leaf maps the page, ENOMEM without a table page
 */
export function* splitFirstStage(agent: Agent, table: FirstStageTable, page: number, tableBits = FS_TABLE): Task<void> {
  const { memory } = table;
  let pfn = table.rootPfn;
  for (let level: number = table.levels; level > 1; ) {
    const index = tableIndex(page, level);
    yield agent.reads('read entry', Location.entry, memory.location(pfn, index), Cost.entryRead);
    const entry = memory.load(pfn, index);
    if ((entry & FS_PRESENT) === 0n) break;
    if (!isFirstStageLeaf(entry, level)) {
      pfn = firstStageFrame(entry, level);
      level--;
      continue;
    }
    const child = memory.allocate(false);
    if (child < 0) throw new PageTableError('ENOMEM', 'no page for the table that is to replace a first-stage leaf');
    yield agent.spends('build table', Cost.tableBuild);
    for (let nth = 0; nth < 512; nth++) memory.store(child, nth, partOfFirstStageLeaf(entry, level as 2 | 3, nth));
    if (!memory.coherent) yield* flushPrivateTable(agent, memory, child);
    yield agent.writes('install table', Location.entry, memory.location(pfn, index), Cost.entryWrite);
    const installed = memory.compareExchange(pfn, index, entry, encodeFirstStageTable(child, tableBits)) === entry;
    if (!installed) memory.free(child);
    else {
      if (!memory.coherent) yield* flushEntries(agent, memory, pfn, index, 1);
      return;
    }
  }
  throw new PageTableError('EINVAL', `page: no large first-stage leaf maps page 0x${page.toString(16)}`);
}
