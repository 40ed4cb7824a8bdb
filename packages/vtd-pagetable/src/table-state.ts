import type { PageSize } from '@faultline/address';
import { hex } from '@faultline/address';
import {
  DEFAULT_ENTRY_CAPABILITIES,
  type EntryCapabilities,
  entryFrame,
  isLeaf,
  isPresent,
  levelFrames,
  type ReservedMasks,
  reservedMasks,
  type TableLevel,
  tableIndex,
} from './entry.ts';
import { FaultReason } from './fault-reason.ts';
import type { InvalidationGather } from './invalidation-gather.ts';
import { PageTableError } from './page-table-error.ts';
import type { TableMemory } from './table-memory.ts';
import { TableReserve } from './table-reserve.ts';
import { type WalkState, WalkStatus } from './walk.ts';

/** Options of a {@link SecondStageTable}. */
export interface SecondStageTableOptions {
  /** Where its table pages come from. */
  readonly memory: TableMemory;
  /** Levels of the walk: 3 (39 bits), 4 (48) or 5 (57). Default 4. */
  readonly levels?: 3 | 4 | 5;
  readonly capabilities?: EntryCapabilities;
  /** Table pages kept for cuts under memory shortage; default 4. */
  readonly reservePages?: number;
  /** Allocation failure is the scheduler's choice; default false. */
  readonly allocationMayFail?: boolean;
}

/** What an entry on the way to an address says. */
export interface LeafView {
  /** 1, 2 or 3 for a 4K, 2M or 1G leaf. */
  readonly level: TableLevel;
  /** First 4K page of the leaf. */
  readonly page: number;
  /** Frame of its first page. */
  readonly frame: number;
  /** R and W as in bits 1:0. */
  readonly rights: number;
  readonly entry: bigint;
}

/**
 * The state of one second-stage page table: where it is, what it counts, and how to read it. `map`, `unmap` and `cut` change
 * it; `SecondStageTable` adds them as plain methods. Addresses are 4K page numbers (IOVA >> 12).
 */
export class TableState {
  readonly memory: TableMemory;
  readonly levels: 3 | 4 | 5;
  readonly capabilities: EntryCapabilities;
  readonly masks: ReservedMasks;
  readonly reserve: TableReserve;
  /** Frame of the top table: SSPTPTR of the context entry. */
  readonly rootPfn: number;
  /** Leaves by level: index 1 = 4K, 2 = 2M, 3 = 1G. */
  readonly leaves = new Int32Array(4);
  /** Large leaves replaced by tables: index 2 = a 2M leaf, 3 = a 1G leaf. */
  readonly splits = new Int32Array(4);
  /** Table pages linked in this table, the root included. */
  tablePages = 1;

  /** @throws PageTableError ENOMEM if the root cannot be allocated */
  constructor(options: SecondStageTableOptions) {
    this.memory = options.memory;
    this.levels = options.levels ?? 4;
    this.capabilities = options.capabilities ?? DEFAULT_ENTRY_CAPABILITIES;
    this.masks = reservedMasks(this.capabilities);
    const root = this.memory.allocate();
    if (root < 0) throw new PageTableError('ENOMEM', 'no table page for the root');
    this.rootPfn = root;
    this.reserve = new TableReserve(this.memory, {
      target: options.reservePages ?? 4,
      allocationMayFail: options.allocationMayFail ?? false,
    });
  }

  /** Number of 4K pages of the input address space: 2^27, 2^36 or 2^45. */
  get inputPages(): number {
    return 2 ** (9 * this.levels);
  }

  /** Largest leaf level that the unit supports. */
  get largestLeafLevel(): TableLevel {
    // 1G without 2M is no value that SSLPS can have; such a unit is treated as having 4K only.
    if (!this.capabilities.page2M) return 1;
    return this.capabilities.page1G ? 3 : 2;
  }

  /** Bytes mapped by leaves of each size. */
  get leafCounts(): Record<PageSize, number> {
    return {
      '4K': this.leaves[1] as number,
      '2M': this.leaves[2] as number,
      '1G': this.leaves[3] as number,
    };
  }

  /** 4K pages mapped. */
  get mappedPages(): number {
    return (this.leaves[1] as number) + (this.leaves[2] as number) * 512 + (this.leaves[3] as number) * 262144;
  }

  /** The leaf that maps a page, or null; also for a page beyond the input range. */
  leafAt(page: number): LeafView | null {
    if (page < 0 || page >= this.inputPages) return null;
    let table = this.rootPfn;
    for (let level = this.levels as number; level >= 1; level--) {
      const entry = this.memory.load(table, tableIndex(page, level));
      if (!isPresent(entry)) return null;
      if (isLeaf(entry, level))
        return {
          level: level as TableLevel,
          page: Math.floor(page / levelFrames(level)) * levelFrames(level),
          frame: entryFrame(entry),
          rights: Number(entry & 3n),
          entry,
        };
      table = entryFrame(entry);
    }
    return null;
  }

  /** The frame that a page maps to, or -1: `iova_to_phys`. */
  frameAt(page: number): number {
    const leaf = this.leafAt(page);
    return leaf === null ? -1 : leaf.frame + (page - leaf.page);
  }

  /** Every leaf in address order. */
  *allLeaves(): Generator<LeafView> {
    yield* this.#leavesBelow(this.rootPfn, this.levels, 0);
  }

  /** Loads walk registers for this table's root. A page beyond the input range faults before the first read. */
  beginWalk(state: WalkState, page: number, access: number): WalkState {
    state.begin(this.rootPfn, this.levels, Math.floor(page / 2 ** 20), (page << 12) | 0, access);
    if (page >= this.inputPages) {
      state.status = WalkStatus.faulted;
      state.faultReason = FaultReason.addressBeyondWidth;
    }
    return state;
  }

  /** Frees the table pages of a gather. Only after the caches were flushed for its range (I5). */
  freeTables(gather: InvalidationGather): void {
    for (const table of gather.freedTables.splice(0)) this.memory.free(table);
  }

  /** Frees everything, reserve and root included. No device may reach the table any more. */
  destroy(): void {
    this.#freeBelow(this.rootPfn, this.levels);
    this.reserve.release();
    this.leaves.fill(0);
    this.tablePages = 0;
  }

  #freeBelow(table: number, level: number): void {
    if (level > 1)
      for (let index = 0; index < 512; index++) {
        const entry = this.memory.load(table, index);
        if (isPresent(entry) && !isLeaf(entry, level)) this.#freeBelow(entryFrame(entry), level - 1);
      }
    this.memory.free(table);
  }

  *#leavesBelow(table: number, level: number, basePage: number): Generator<LeafView> {
    for (let index = 0; index < 512; index++) {
      const entry = this.memory.load(table, index);
      if (!isPresent(entry)) continue;
      const page = basePage + index * levelFrames(level);
      if (!isLeaf(entry, level)) yield* this.#leavesBelow(entryFrame(entry), level - 1, page);
      else yield { level: level as TableLevel, page, frame: entryFrame(entry), rights: Number(entry & 3n), entry };
    }
  }
}

/** Checks a page range against the table's aperture. @throws PageTableError EINVAL or ERANGE naming the argument in hex */
export function checkRange(table: TableState, page: number, pages: number): void {
  if (!Number.isInteger(page) || page < 0) throw new PageTableError('EINVAL', `page: ${page} is not a page number`);
  if (!Number.isInteger(pages) || pages <= 0)
    throw new PageTableError('EINVAL', `pages: ${pages} is not a positive number of pages`);
  if (page + pages > table.inputPages)
    throw new PageTableError(
      'ERANGE',
      `iova: ${hex(page * 4096)} + ${hex(pages * 4096)} is beyond the ${12 + 9 * table.levels}-bit input range`,
    );
}
