import { runToEnd } from '@faultline/sim';
import { type CollapseResult, collapse } from './collapse.ts';
import { type CutOptions, type CutResult, cut } from './cut.ts';
import { readAndClearDirty } from './dirty.ts';
import { type Rights, rightsBits } from './entry.ts';
import { InvalidationGather } from './invalidation-gather.ts';
import { checkAddress, hostFrame, iovaRange } from './iova-range.ts';
import { type MapRequest, map } from './map.ts';
import { PageTableError } from './page-table-error.ts';
import { PLAIN_CALLER } from './plain-caller.ts';
import { protect } from './protect.ts';
import { TableState } from './table-state.ts';
import { type PartialLeafRule, unmap } from './unmap.ts';

/** A range to map, in bytes. */
export interface MapRangeRequest {
  readonly iova: bigint;
  readonly paddr: bigint;
  readonly length: bigint;
  readonly rights: Rights;
  /** Further leaf bits, such as SNP. */
  readonly attributes?: bigint;
}

/**
 * A second-stage page table with plain methods, which run the tasks of `map`, `unmap`, `cut` and so on to their end. A
 * simulation or an adversary runs the same tasks on the same object with others in between.
 *
 * Methods that end in `Range` take byte addresses as bigints, refuse what Linux 7.3 refuses, and name the argument and its
 * value in hex; the others take 4K page numbers.
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
    const { rights, ...run } = request;
    const bits = { ...run, rights: rightsBits(rights) };
    if (gather !== undefined) return runToEnd(map(PLAIN_CALLER, this, bits, gather));
    const owed = new InvalidationGather();
    try {
      return runToEnd(map(PLAIN_CALLER, this, bits, owed));
    } finally {
      this.freeTables(owed);
    }
  }

  /** The same for bytes. @returns bytes mapped */
  mapRange(request: MapRangeRequest, gather?: InvalidationGather): bigint {
    const { iova, paddr, length, rights, attributes = 0n } = request;
    if (rightsBits(rights) === 0) throw new PageTableError('EINVAL', 'rights: neither read nor write');
    const range = iovaRange(this, iova, length);
    const frame = hostFrame(this, paddr, length);
    return BigInt(this.map({ ...range, frame, rights, attributes }, gather)) << 12n;
  }

  /** Unmaps; see `unmap` for the rules. @returns 4K pages unmapped, which can be more or fewer than asked for */
  unmap(page: number, pages: number, gather: InvalidationGather, rule: PartialLeafRule = 'linux-7.3'): number {
    return runToEnd(unmap(PLAIN_CALLER, this, { page, pages, partialLeaf: rule, holes: 'stop' }, gather));
  }

  /** The same for bytes. @returns bytes unmapped */
  unmapRange(iova: bigint, length: bigint, gather: InvalidationGather, rule: PartialLeafRule = 'linux-7.3'): bigint {
    const { page, pages } = iovaRange(this, iova, length);
    return BigInt(this.unmap(page, pages, gather, rule)) << 12n;
  }

  /** Makes both ends of the range leaf boundaries, hitless; see `cut`. */
  cut(page: number, pages: number, gather: InvalidationGather, options: CutOptions = {}): CutResult {
    return runToEnd(cut(PLAIN_CALLER, this, page, pages, gather, options));
  }

  /** The same for bytes. */
  cutRange(iova: bigint, length: bigint, gather: InvalidationGather, options: CutOptions = {}): CutResult {
    const { page, pages } = iovaRange(this, iova, length);
    return this.cut(page, pages, gather, options);
  }

  /** Puts large leaves back where all below them allows it, hitless; see `collapse`. Settle the gather after the flush. */
  collapse(page: number, pages: number, gather: InvalidationGather): CollapseResult {
    return runToEnd(collapse(PLAIN_CALLER, this, page, pages, gather));
  }

  /** The same for bytes. */
  collapseRange(iova: bigint, length: bigint, gather: InvalidationGather): CollapseResult {
    const { page, pages } = iovaRange(this, iova, length);
    return this.collapse(page, pages, gather);
  }

  /** Changes the rights of whole leaves, up to a hole; see `protect`. @returns bytes that have the rights now */
  protectRange(iova: bigint, length: bigint, rights: Rights, gather: InvalidationGather): bigint {
    const request = { ...iovaRange(this, iova, length), rights: rightsBits(rights), holes: 'stop' } as const;
    return BigInt(runToEnd(protect(PLAIN_CALLER, this, request, gather))) << 12n;
  }

  /**
   * Reports dirty leaves, whole, and clears them if `clear`; see `readAndClearDirty`. @returns leaves reported
   * @param report takes first IOVA and length of each dirty leaf; process them after the gather's flush
   */
  readAndClearDirty(
    range: { readonly iova: bigint; readonly length: bigint; readonly clear: boolean },
    gather: InvalidationGather,
    report: (iova: bigint, length: bigint) => void,
  ): number {
    const request = { ...iovaRange(this, range.iova, range.length), clear: range.clear };
    const inBytes = (page: number, pages: number) => report(BigInt(page) << 12n, BigInt(pages) << 12n);
    return runToEnd(readAndClearDirty(PLAIN_CALLER, this, request, gather, inBytes));
  }

  /**
   * The host address that an IOVA maps to, its low bits carried over; 0 if it is not mapped or beyond the input range, as
   * Linux. @throws PageTableError EINVAL (no 64-bit address), EIO (corrupt)
   */
  iovaToPhys(iova: bigint): bigint {
    checkAddress('iova', iova);
    const frame = iova >> 57n === 0n ? this.frameAt(Number(iova >> 12n)) : -1;
    return frame < 0 ? 0n : (BigInt(frame) << 12n) | (iova & 0xfffn);
  }
}
