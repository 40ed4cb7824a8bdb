import type { PageSize } from '@faultline/address';
import { hex } from '@faultline/address';
import { assert } from '@faultline/sim';
import type { CutPass } from './cut.ts';
import {
  DEFAULT_ENTRY_CAPABILITIES,
  type EntryCapabilities,
  entryFrame,
  HI_ADDRESS,
  isLeaf,
  isPresent,
  LO_RIGHTS,
  levelFrames,
  type ReservedMasks,
  reservedMasks,
  type TableLevel,
  tableIndex,
} from './entry.ts';
import { FaultReason } from './fault-reason.ts';
import type { DirtyRange, InvalidationGather } from './invalidation-gather.ts';
import { settleLateTables } from './late-bits.ts';
import { isLeafLo, pageBase } from './leaf-run.ts';
import type { MapPass } from './map.ts';
import { corruptEntry, PageTableError } from './page-table-error.ts';
import type { TableMemory } from './table-memory.ts';
import { TablePlaces } from './table-places.ts';
import { TableReserve } from './table-reserve.ts';
import type { UnmapPass } from './unmap.ts';
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
  /**
   * The unit sets A and D in this table (SSADE of its PASID entries); default false. Needs coherent memory: with walks that
   * do not snoop, an update of A or D is a fault (Rev 5.10, 7.1.3, condition SSS.5).
   */
  readonly accessedDirty?: boolean;
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
  /** Number of 4 KiB frames that the unit's host address width reaches. */
  readonly hostFrames: number;
  readonly reserve: TableReserve;
  /** Whether hardware sets A and D in this table. */
  readonly accessedDirty: boolean;
  /** The pages that are tables of this page table. */
  readonly places: TablePlaces;
  /** Frame of the top table: SSPTPTR of the context entry. */
  readonly rootPfn: number;
  /** Leaves by level: index 1 = 4K, 2 = 2M, 3 = 1G. */
  readonly leaves = new Int32Array(4);
  /** Large leaves replaced by tables: index 2 = a 2M leaf, 3 = a 1G leaf. */
  readonly splits = new Int32Array(4);
  /** Tables replaced by large leaves: index 2 = by a 2M leaf, 3 = by a 1G leaf. */
  readonly collapses = new Int32Array(4);

  /** @throws RangeError naming the option that does not fit; PageTableError ENOMEM if the root cannot be allocated, EOPNOTSUPP for A and D without coherent memory */
  constructor(options: SecondStageTableOptions) {
    this.memory = options.memory;
    const { levels = 4, reservePages = 4 } = options;
    if (levels !== 3 && levels !== 4 && levels !== 5) throw new RangeError(`levels: ${levels} is not 3, 4 or 5`);
    if (!Number.isInteger(reservePages) || reservePages < 0)
      throw new RangeError(`reservePages: ${reservePages} is not a number of pages`);
    this.levels = levels;
    this.accessedDirty = options.accessedDirty ?? false;
    if (this.accessedDirty && !this.memory.coherent)
      throw new PageTableError('EOPNOTSUPP', 'accessedDirty: hardware sets A and D only in memory that it snoops');
    this.capabilities = options.capabilities ?? DEFAULT_ENTRY_CAPABILITIES;
    this.masks = reservedMasks(this.capabilities);
    this.hostFrames = 2 ** (this.capabilities.hostAddressWidth - 12);
    const root = this.memory.allocate();
    if (root < 0) throw new PageTableError('ENOMEM', 'no table page for the root');
    this.rootPfn = root;
    this.places = new TablePlaces(this.memory);
    this.places.put(root, this.levels, 0);
    this.memory.flush(root, 0, 512);
    this.reserve = new TableReserve(this.memory, {
      target: reservePages,
      allocationMayFail: options.allocationMayFail ?? false,
    });
  }

  /**
   * Records of finished operations, to be used again: no garbage, and V8 keeps the code that it compiled for a class as
   * long as one of its objects lives.
   */
  readonly idle: { map: MapPass | null; unmap: UnmapPass | null; cut: CutPass | null } = {
    map: null,
    unmap: null,
    cut: null,
  };

  /** Table pages linked in this table, the root included. */
  get tablePages(): number {
    return this.places.count;
  }

  /** Number of 4K pages of the input address space: 2^27, 2^36 or 2^45. */
  get inputPages(): number {
    return levelFrames(this.levels + 1);
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

  /**
   * The table that an entry leads to; `page` is any page below the entry.
   * @throws PageTableError EIO, naming the entry, if it does not lead to the table of this place or has reserved bits
   */
  tableBelow(tablePfn: number, index: number, level: number, page: number): number {
    const half = ((tablePfn - this.memory.basePfn) << 10) | (index << 1);
    const lo = this.memory.cpuHalves[half] as number;
    const hi = this.memory.cpuHalves[half + 1] as number;
    const reserved =
      (lo & (this.masks.lo[level << 1] as number)) !== 0 || (hi & (this.masks.hi[level << 1] as number)) !== 0;
    const child = (hi & HI_ADDRESS) * 0x10_0000 + (lo >>> 12);
    if (reserved || !this.places.holds(child, level - 1, pageBase(page, level)))
      throw corruptEntry(
        { level, tablePfn, index, entry: this.memory.load(tablePfn, index) },
        reserved ? 'reserved bits are set' : `frame ${hex(child)} is not the table of this place`,
      );
    return child;
  }

  /** The leaf that maps a page, or null; also for a page beyond the input range. @throws PageTableError EIO (corrupt) */
  leafAt(page: number): LeafView | null {
    if (!(page >= 0 && page < this.inputPages)) return null;
    let table = this.rootPfn;
    for (let level = this.levels as number; level >= 1; level--) {
      const index = tableIndex(page, level);
      const entry = this.memory.load(table, index);
      if (!isPresent(entry)) return null;
      if (isLeaf(entry, level))
        return {
          level: level as TableLevel,
          page: pageBase(page, level),
          frame: entryFrame(entry),
          rights: Number(entry & 3n),
          entry,
        };
      table = this.tableBelow(table, index, level, page);
    }
    return null;
  }

  /** The frame that a page maps to, or -1: `iova_to_phys`. */
  frameAt(page: number): number {
    const leaf = this.leafAt(page);
    return leaf === null ? -1 : leaf.frame + (page - leaf.page);
  }

  /** Every leaf in address order. @throws PageTableError EIO at a corrupt entry */
  *allLeaves(): Generator<LeafView> {
    yield* this.#leavesBelow(this.rootPfn, this.levels, 0);
  }

  /** Loads walk registers for this table's root. A page beyond the input range faults before the first read. */
  beginWalk(state: WalkState, page: number, access: number): WalkState {
    state.begin(this.rootPfn, this.levels, Math.floor(page / 2 ** 20), (page << 12) | 0, access);
    if (!(page >= 0 && page < this.inputPages)) {
      state.status = WalkStatus.faulted;
      state.faultReason = FaultReason.addressBeyondWidth;
    }
    return state;
  }

  /**
   * What a gather leaves to do once the caches were flushed for its range, and not before (I5, I6): late A and D bits of
   * collapsed tables go to the leaf that took their place, the table pages are freed, and what left the table dirty is handed
   * out. Until the flush a cached translation with D set lets writes through unseen, so an earlier report could be
   * processed before the write that it stands for.
   * @returns ranges written by devices that no leaf of the table reports any more
   */
  settle(gather: InvalidationGather): DirtyRange[] {
    settleLateTables(this, gather);
    for (const table of gather.freedTables.splice(0)) this.memory.free(table);
    return gather.dirtyLeaves.splice(0);
  }

  /** As {@link settle}, for callers whose unit sets no D bits. */
  freeTables(gather: InvalidationGather): void {
    const dirty = this.settle(gather);
    assert(dirty.length === 0, 'freeTables would lose dirty bits: call settle and report them');
  }

  /** Frees everything, reserve and root included, whatever the entries say. No device may reach the table any more. */
  destroy(): void {
    for (const table of this.places.clear()) this.memory.free(table);
    this.reserve.release();
    this.leaves.fill(0);
  }

  *#leavesBelow(table: number, level: number, basePage: number): Generator<LeafView> {
    for (let index = 0; index < 512; index++) {
      const half = ((table - this.memory.basePfn) << 10) | (index << 1);
      const lo = this.memory.cpuHalves[half] as number;
      if ((lo & LO_RIGHTS) === 0) continue;
      const page = basePage + index * levelFrames(level);
      if (isLeafLo(lo, level)) {
        const entry = this.memory.load(table, index);
        yield { level: level as TableLevel, page, frame: entryFrame(entry), rights: Number(entry & 3n), entry };
      } else {
        yield* this.#leavesBelow(this.tableBelow(table, index, level, page), level - 1, page);
      }
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

/** @throws PageTableError EINVAL naming the option, for a value that it cannot have: misspelled it would act as another */
export function checkChoice<T extends string>(name: string, value: T, one: T, other: T): void {
  if (value !== one && value !== other)
    throw new PageTableError('EINVAL', `${name}: ${JSON.stringify(value)} is neither "${one}" nor "${other}"`);
}
