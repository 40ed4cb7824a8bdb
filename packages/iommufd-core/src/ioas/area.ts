import { DEFAULT_FAULT_POLICY, type FaultPolicy } from '../stage2/fault-policy.ts';
import type { IoptPages } from './iopt-pages.ts';
import type { PageSpan } from './run-list.ts';

/** Where an {@link Area} is and what it maps. */
export interface AreaOptions {
  readonly iova: bigint;
  readonly length: bigint;
  readonly memory: IoptPages;
  /** Bytes from the start of the memory's first page to the area's first byte. */
  readonly startByte: bigint;
  readonly readable: boolean;
  readonly writeable: boolean;
  /** Default `DEFAULT_FAULT_POLICY`. */
  readonly policy?: FaultPolicy | undefined;
}

/**
 * What the user asked to be mapped as one: the unit of unmap (struct iopt_area). Where a domain maps it, addresses are aligned to pages,
 * and {@link page}, {@link pages} and {@link userPage} tell all; without one they may be any bytes.
 */
export class Area {
  readonly iova: bigint;
  readonly length: bigint;
  readonly memory: IoptPages;
  readonly startByte: bigint;
  readonly readable: boolean;
  readonly writeable: boolean;
  /** Of an unpinned area: what is mapped before and around faults. */
  readonly policy: FaultPolicy;
  /** First IOVA page. */
  readonly page: number;
  readonly pages: number;
  /** First page of the memory in the owner's address space, or of the file. */
  readonly userPage: number;
  /** While it is being made or torn down copies do not find it, and an unmap gets EBUSY (`pages` is NULL in Linux). */
  state: 'making' | 'mapped' | 'going' = 'making';
  /** Pins by accesses, which hold up its unmap. */
  accesses = 0;
  /** Being unmapped: accesses get nothing more. */
  preventsAccess = false;

  constructor(options: AreaOptions) {
    this.iova = options.iova;
    this.length = options.length;
    this.memory = options.memory;
    this.startByte = options.startByte;
    this.readable = options.readable;
    this.writeable = options.writeable;
    this.policy = options.policy ?? DEFAULT_FAULT_POLICY;
    const { first, last } = this.span(this.iova, this.last);
    this.page = Number(this.iova >> 12n);
    this.pages = last - first + 1;
    this.userPage = this.memory.firstPage + first;
  }

  /** Not pinned: mapped as far as memory is resident, and faulted in otherwise. Ours; no kernel has this flag. */
  get unpinned(): boolean {
    return this.memory.unpinned;
  }

  /** Last IOVA. */
  get last(): bigint {
    return this.iova + this.length - 1n;
  }

  /** The bytes within a page at which the memory begins. */
  get pageOffset(): bigint {
    return this.startByte & 0xfffn;
  }

  /** Two areas in its place, the second from an IOVA within it on. */
  split(start: bigint): readonly [Area, Area] {
    const { iova, memory, startByte, readable, writeable, policy } = this;
    const common = { memory, readable, writeable, policy };
    const length = start - iova;
    return [
      new Area({ ...common, iova, length, startByte }),
      new Area({ ...common, iova: start, length: this.length - length, startByte: startByte + length }),
    ];
  }

  /** The memory's pages that a range of IOVAs within the area is of. */
  span(first: bigint, last: bigint): PageSpan {
    const toMemory = this.startByte - this.iova;
    return { first: Number((first + toMemory) >> 12n), last: Number((last + toMemory) >> 12n) };
  }

  /** All of its memory's pages. */
  get wholeSpan(): PageSpan {
    const first = this.userPage - this.memory.firstPage;
    return { first, last: first + this.pages - 1 };
  }
}
