import { IommufdError } from '../errno.ts';

/** What is mapped of an unpinned range before and around a fault. Plain data, given with the map request. */
export interface FaultPolicy {
  /**
   * At map: `none` maps nothing, `resident` what is resident, `populate` faults everything in first, without pins: the host
   * may take it away again.
   */
  readonly prefault: 'none' | 'resident' | 'populate';
  /** Fault-around: pages of the aligned window around a fault of which everything that is resident is mapped; a power of two, 1 for none. */
  readonly around: number;
  /** The pages of the window are faulted in, too, as far as there is memory for them. */
  readonly populateAround: boolean;
  /** The largest leaf that is made. */
  readonly largest: '4K' | '2M' | '1G';
}

/** What a map request without a policy means: the resident part at once, and at a fault the largest leaf that is vacant and contiguous. */
export const DEFAULT_FAULT_POLICY: FaultPolicy = {
  prefault: 'resident',
  around: 1,
  populateAround: false,
  largest: '1G',
};

/** Levels of leaves: 4K, 2M, 1G. */
export type LeafLevel = 1 | 2 | 3;

/** Level of the leaf that {@link FaultPolicy.largest} names. */
export const LEAF_LEVEL: Readonly<Record<FaultPolicy['largest'], LeafLevel>> = { '4K': 1, '2M': 2, '1G': 3 };

/** @throws IommufdError EINVAL naming the field of a policy that has no meaning */
export function checkFaultPolicy(policy: FaultPolicy): void {
  const { prefault, around, largest } = policy;
  if (prefault !== 'none' && prefault !== 'resident' && prefault !== 'populate')
    throw new IommufdError('EINVAL', `policy.prefault: ${prefault as string} is not one of none, resident, populate`);
  if (!Number.isInteger(around) || around < 1 || around > MAX_AROUND || (around & (around - 1)) !== 0)
    throw new IommufdError('EINVAL', `policy.around: ${around} is not a power of two in 1..${MAX_AROUND} pages`);
  if (LEAF_LEVEL[largest] === undefined)
    throw new IommufdError('EINVAL', `policy.largest: ${largest as string} is not one of 4K, 2M, 1G`);
}

/** 2M, as Linux bounds fault_around_bytes by a page table: the work of a fault stays bounded. */
const MAX_AROUND = 512;
