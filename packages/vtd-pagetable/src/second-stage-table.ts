import { runToEnd } from '@faultline/sim';
import { type CutResult, cut } from './cut.ts';
import { type Rights, rightsBits } from './entry.ts';
import { InvalidationGather } from './invalidation-gather.ts';
import { type MapRequest, map } from './map.ts';
import { PLAIN_CALLER } from './plain-caller.ts';
import { TableState } from './table-state.ts';
import { type PartialLeafRule, unmap } from './unmap.ts';

/**
 * A second-stage page table with plain methods, which run the tasks of `map`, `unmap` and `cut` to their end. A simulation
 * or an adversary runs the same tasks on the same object with others in between.
 *
 * @example
 * ```ts
 * const table = new SecondStageTable({ memory: new TableMemory({ pages: 64 }) })
 * table.map({ page: 0x100000, frame: 0x240000, pages: 262144, rights: { read: true, write: true } }) // one 1G leaf
 * const gather = new InvalidationGather()
 * table.cut(0x100123, 1, gather) // 511 x 2M + 512 x 4K, hitless
 * ```
 */
export class SecondStageTable extends TableState {
  /**
   * Maps with the largest leaves that fit. With no gather, nobody walks or caches this table, and empty tables that a large
   * leaf replaces are freed at once. @returns 4K pages mapped. @throws PageTableError as Linux 7.3 (see `map`)
   */
  map(request: Omit<MapRequest, 'rights'> & { readonly rights: Rights }, gather?: InvalidationGather): number {
    const { page, frame, pages, attributes = 0n } = request;
    const bits = { page, frame, pages, rights: rightsBits(request.rights), attributes };
    if (gather !== undefined) return runToEnd(map(PLAIN_CALLER, this, bits, gather));
    const owed = new InvalidationGather();
    try {
      return runToEnd(map(PLAIN_CALLER, this, bits, owed));
    } finally {
      this.freeTables(owed);
    }
  }

  /** Unmaps; see `unmap` for the rules. @returns 4K pages unmapped, which can be more or fewer than asked for */
  unmap(page: number, pages: number, gather: InvalidationGather, rule: PartialLeafRule = 'linux-7.3'): number {
    return runToEnd(unmap(PLAIN_CALLER, this, { page, pages, partialLeaf: rule, holes: 'stop' }, gather));
  }

  /** Makes both ends of the range leaf boundaries, hitless; see `cut`. */
  cut(page: number, pages: number, gather: InvalidationGather): CutResult {
    return runToEnd(cut(PLAIN_CALLER, this, page, pages, gather));
  }
}
