import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { entryFrame, isLeaf, isPresent, levelFrames } from './entry.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { checkRange, type TableState } from './table-state.ts';

/**
 * What to do with a large leaf that the range covers only in part.
 * - `linux-7.3`: at its head the whole leaf goes and the larger size is returned; inside it nothing is unmapped and the
 *   call stops (generic_pt).
 * - `whole-leaf`: the whole leaf goes wherever the range touches it (KVM's rule for its notifier).
 */
export type PartialLeafRule = 'linux-7.3' | 'whole-leaf';

/** A range to unmap. */
export interface UnmapRequest {
  readonly page: number;
  readonly pages: number;
  readonly partialLeaf: PartialLeafRule;
  /** At a page that is not mapped: `stop` and return what was done (Linux), or `skip` it (a notifier's range has holes). */
  readonly holes: 'stop' | 'skip';
}

/**
 * Unmaps. Leaves are cleared by one 64-bit compare-and-swap each, children before parents; a table whose range is covered whole is
 * unlinked and goes to the gather. Allocates nothing and cannot fail.
 * @returns 4K pages unmapped
 */
export function* unmap(
  agent: Agent,
  table: TableState,
  request: UnmapRequest,
  gather: InvalidationGather,
): Task<number> {
  checkRange(table, request.page, request.pages);
  const pass: UnmapPass = { table, request, end: request.page + request.pages, gather, unmapped: 0, stopped: false };
  yield* clearLevel(agent, pass, table.rootPfn, table.levels, 0);
  return pass.unmapped;
}

interface UnmapPass {
  readonly table: TableState;
  readonly request: UnmapRequest;
  readonly end: number;
  readonly gather: InvalidationGather;
  unmapped: number;
  stopped: boolean;
}

function* clearLevel(agent: Agent, pass: UnmapPass, pfn: number, level: number, base: number): Task<void> {
  const { table, request, end } = pass;
  const memory = table.memory;
  const size = levelFrames(level);
  const first = Math.max(0, Math.floor((request.page - base) / size));
  for (let index = first; index < 512 && !pass.stopped; index++) {
    const page = base + index * size;
    if (page >= end) return;
    let entry = memory.load(pfn, index);
    if (!isPresent(entry) || !isLeaf(entry, level)) {
      // A leaf is looked at again by the exchange that clears it, and announced there.
      yield agent.reads('read entry', Location.entry, memory.location(pfn, index), Cost.entryRead);
      entry = memory.load(pfn, index);
    }
    if (!isPresent(entry)) {
      pass.stopped = request.holes === 'stop';
      continue;
    }
    if (isLeaf(entry, level)) {
      // Replaced in between, by a cut for somebody else's part of it: look again at what is there now.
      if (!(yield* clearLeaf(agent, pass, { pfn, index, level, page, entry }))) index--;
      continue;
    }
    const child = entryFrame(entry);
    yield* clearLevel(agent, pass, child, level - 1, page);
    if (pass.stopped || page < request.page || page + size > end) continue;
    yield agent.writes('unlink table', Location.entry, memory.location(pfn, index), Cost.entryWrite);
    memory.store(pfn, index, 0n);
    table.tablePages--;
    pass.gather.addTable(child, page, size);
  }
}

interface FoundLeaf {
  readonly pfn: number;
  readonly index: number;
  readonly level: number;
  readonly page: number;
  readonly entry: bigint;
}

/** @returns false if the entry is no leaf any more and nothing was done */
function* clearLeaf(agent: Agent, pass: UnmapPass, leaf: FoundLeaf): Task<boolean> {
  const { table, request } = pass;
  const { pfn, index, level, page } = leaf;
  const size = levelFrames(level);
  if (page < request.page && request.partialLeaf === 'linux-7.3') {
    pass.stopped = true;
    return true;
  }
  yield agent.writes('clear leaf', Location.entry, table.memory.location(pfn, index), Cost.entryWrite);
  for (let expected = leaf.entry; ; ) {
    const seen = table.memory.compareExchange(pfn, index, expected, 0n);
    if (seen === expected) break;
    if (!isPresent(seen) || !isLeaf(seen, level)) return false;
    expected = seen; // hardware set A or D
  }
  table.leaves[level] = (table.leaves[level] as number) - 1;
  pass.gather.add(page, size);
  pass.unmapped += size;
  return true;
}
