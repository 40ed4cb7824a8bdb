/** What swap I/O counts, under the names of /proc/vmstat; pages unless said otherwise. Linux counts I/O when it is submitted. */
export interface SwapCounters {
  /** Read from a swap device, zram included. */
  pswpin: number;
  /** Written to a swap device, zram included. */
  pswpout: number;
  /** Read in as zeros, without I/O. */
  swpin_zero: number;
  /** Found to be zeros at swap-out, without I/O. */
  swpout_zero: number;
  zswpin: number;
  zswpout: number;
  /** Written back from zswap to its device; these count as pswpout too. */
  zswpwb: number;
  /** 2M folios written to a device whole, in folios. */
  thp_swpout: number;
}

export const newSwapCounters = (): SwapCounters => ({
  pswpin: 0,
  pswpout: 0,
  swpin_zero: 0,
  swpout_zero: 0,
  zswpin: 0,
  zswpout: 0,
  zswpwb: 0,
  thp_swpout: 0,
});
