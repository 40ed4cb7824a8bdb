import { hex } from '@faultline/address';
import { type Agent, Cost, type Task } from '@faultline/sim';
import { PageTableError } from '@faultline/vtd-pagetable';
import type { VtdDomain } from './vtd-domain.ts';

/** IOMMU_HWPT_DATA_VTD_S1, also the type of its invalidation entries (there called IOMMU_HWPT_INVALIDATE_DATA_VTD_S1, 0). */
const VTD_S1 = 1;
const INVALIDATE_VTD_S1 = 0;
/** sizeof struct iommu_hwpt_vtd_s1 and iommu_hwpt_vtd_s1_invalidate. */
const STAGE_BYTES = 24;
const ENTRY_BYTES = 24;
/** IOMMU_VTD_S1_SRE, EAFE, WPE. */
const STAGE_FLAGS = 0x7n;
/** IOMMU_VTD_INV_FLAGS_LEAF. */
const ENTRY_FLAGS = 1;
/** `npages` that means the whole address space. */
const ALL_PAGES = (1n << 64n) - 1n;

/** One invalidation that a guest asked for: a range of first-stage addresses. */
export interface StageOneInvalidation {
  readonly address: bigint;
  /** 2^64-1: everything. */
  readonly pages: bigint;
  readonly leafOnly: boolean;
}

/**
 * A first stage over a nest parent, from struct iommu_hwpt_vtd_s1: what it says is checked and kept, and its invalidation entries are checked and
 * kept, but no hardware of this model walks it, so it cannot be attached. The checks are Linux's as known from its source, not recorded.
 */
export class VtdNestedDomain {
  readonly parent: VtdDomain;
  readonly tableAddress: bigint;
  readonly addressWidth: number;
  readonly flags: bigint;
  /** Invalidations taken, in order. */
  readonly invalidations: StageOneInvalidation[] = [];

  /** @throws PageTableError EOPNOTSUPP for another type, or flags that are not known; EINVAL for data that is too short, or a width that is neither 48 nor 57 */
  constructor(parent: VtdDomain, { dataType, data }: { readonly dataType: number; readonly data: Uint8Array }) {
    if (dataType !== VTD_S1) throw new PageTableError('EOPNOTSUPP', `data_type: ${dataType} is not ${VTD_S1} (VTD_S1)`);
    if (data.length < STAGE_BYTES)
      throw new PageTableError('EINVAL', `data_len: ${data.length} is less than ${STAGE_BYTES}`);
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    this.parent = parent;
    this.flags = view.getBigUint64(0, true);
    this.tableAddress = view.getBigUint64(8, true);
    this.addressWidth = view.getUint32(16, true);
    if ((this.flags & ~STAGE_FLAGS) !== 0n || view.getUint32(20, true) !== 0)
      throw new PageTableError(
        'EOPNOTSUPP',
        `flags: ${hex(this.flags)} has bits that are not known, or reserved is set`,
      );
    if (this.addressWidth !== 48 && this.addressWidth !== 57)
      throw new PageTableError('EINVAL', `addr_width: ${this.addressWidth} is not 48 or 57`);
  }

  /** Takes entries in order up to one that is refused. @returns how many were taken, and the errno of the one after them, or null */
  *invalidate(
    agent: Agent,
    request: {
      readonly dataType: number;
      readonly entryLen: number;
      readonly entryNum: number;
      readonly data: Uint8Array;
    },
  ): Task<{ readonly done: number; readonly error: string | null }> {
    const { dataType, entryLen, entryNum, data } = request;
    yield agent.spends('take first-stage invalidations', Cost.invalidationSubmit);
    if (dataType !== INVALIDATE_VTD_S1) return { done: 0, error: 'EINVAL' };
    for (let done = 0; done < entryNum; done++) {
      if (entryLen < ENTRY_BYTES || (done + 1) * entryLen > data.length) return { done, error: 'EINVAL' };
      const view = new DataView(data.buffer, data.byteOffset + done * entryLen, entryLen);
      const error = this.#take(view);
      if (error !== null) return { done, error };
    }
    return { done: entryNum, error: null };
  }

  /** Nothing of it is in hardware. */
  destroy(): void {
    this.invalidations.length = 0;
  }

  #take(entry: DataView): string | null {
    const address = entry.getBigUint64(0, true);
    const pages = entry.getBigUint64(8, true);
    const flags = entry.getUint32(16, true);
    if ((flags & ~ENTRY_FLAGS) !== 0 || entry.getUint32(20, true) !== 0) return 'EOPNOTSUPP';
    for (let at = ENTRY_BYTES; at < entry.byteLength; at++) if (entry.getUint8(at) !== 0) return 'E2BIG';
    if ((address & 0xfffn) !== 0n || (pages === ALL_PAGES && address !== 0n)) return 'EINVAL';
    this.invalidations.push({ address, pages, leafOnly: (flags & ENTRY_FLAGS) !== 0 });
    return null;
  }
}
