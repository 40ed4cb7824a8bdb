import { type SecondStageTable, WalkState, WalkStatus, walk } from '@faultline/vtd-pagetable';
import { clockNs, type Outcome, outcome } from './benchmark.ts';
import {
  BATCH_GIB,
  changingWorld,
  freeGathered,
  hashGather,
  hashTable,
  mapGib,
  mappedGib,
  mappedTable,
  unmapGib,
} from './table-world.ts';
import { ADDRESSES, type Addresses, FIRST_PAGE, GIB_PAGES, makeAddresses, mix } from './working-set.ts';

/** Large leaves that are cut in a row. */
const CUT_LEAVES = 64;

const state = new WalkState();

/** Walks from the root to each of the addresses in turn, reads and writes. @returns the hash over the frames */
export function walkAll(table: SecondStageTable, { hi, lo }: Addresses, operations: number): number {
  const { memory, masks, rootPfn, levels } = table;
  const translated = WalkStatus.translated;
  const last = ADDRESSES - 1;
  const walker = state;
  let hash = 0;
  for (let i = 0; i < operations; i++) {
    const at = i & last;
    walker.begin(rootPfn, levels, hi[at]!, lo[at]!, i & 1);
    hash = mix(hash, walk(memory, masks, walker) === translated ? walker.framePfn : 0);
  }
  return hash;
}

/** The whole 4-level walk, with nothing cached. */
export function walkTo(level: 1 | 2 | 3, operations: number): Outcome {
  const table = mappedTable(level);
  const addresses = makeAddresses(mappedGib(level) * GIB_PAGES);
  const start = clockNs();
  const hash = walkAll(table, addresses, operations);
  const end = clockNs();
  return outcome(start, end, mix(hash, state.reads));
}

/** Maps and unmaps of 1 GiB each, in batches; which of the two is measured is the caller's choice. */
function change(operations: number, batch: number, level: number, measured: 'map' | 'unmap'): Outcome {
  const world = changingWorld();
  let ns = 0n;
  let hash = 0;
  for (let done = 0; done < operations; ) {
    const count = Math.min(batch, operations - done);
    const start = clockNs();
    mapGib(world, count, level);
    const mapped = clockNs();
    if (done === 0) hash = hashTable(world.table);
    const again = clockNs();
    unmapGib(world, count);
    const end = clockNs();
    ns += measured === 'map' ? mapped - start : end - again;
    hash = mix(hashGather(hash, world.gather), hashTable(world.table));
    freeGathered(world);
    done += count;
  }
  return outcome(0n, ns, hash);
}

/** Maps 1 GiB in leaves of a level. */
export const mapGibAs = (level: 1 | 2, operations: number): Outcome =>
  change(operations, level === 1 ? 1 : BATCH_GIB, level, 'map');

/** Unmaps 1 GiB in leaves of a level; the unlinked tables are gathered, and freed outside the measured part. */
export const unmapGibOf = (level: 1 | 2, operations: number): Outcome =>
  change(operations, level === 1 ? 1 : BATCH_GIB, level, 'unmap');

/** Cuts one page out of a 1G leaf: 511 leaves of 2M and 512 of 4K in two new tables, and one compare-and-swap. */
export function cutPage(operations: number): Outcome {
  const world = changingWorld();
  let ns = 0n;
  let hash = 0;
  for (let done = 0; done < operations; ) {
    const count = Math.min(CUT_LEAVES, operations - done);
    mapGib(world, count, 3);
    const start = clockNs();
    for (let i = 0; i < count; i++) {
      const { ok } = world.table.cut(FIRST_PAGE + i * GIB_PAGES + 0x1_2345 + i * 37, 1, world.gather);
      if (!ok) throw new Error('cut: no table page');
    }
    ns += clockNs() - start;
    hash = mix(hashGather(hash, world.gather), done === 0 ? hashTable(world.table) : 0);
    unmapGib(world, count);
    freeGathered(world);
    done += count;
  }
  return outcome(0n, ns, hash);
}
