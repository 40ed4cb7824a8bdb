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
