/**
 * What a step costs, by class. A task names the class; how many nanoseconds one unit takes is data (a
 * {@link CostProfile}) chosen by whoever runs the task, so that no protocol carries a number of its own.
 */
export const Cost = {
  /** Nothing: bookkeeping that the model does and a host does not. */
  free: 0,
  /** One nanosecond a unit, for think times and rates given by a scenario. */
  nanosecond: 1,
  /** The part of a DMA that does not depend on translation (root complex, link), once a page. */
  dmaBase: 2,
  /** Moving the payload over the link, per 4 KiB. */
  dmaPayload: 3,
  /** One memory read by the hardware page walker. */
  walkRead: 4,
  /** One look-up in the IOTLB or a device TLB. */
  cacheLookup: 5,
  /** CPU writes of page-table entries, per entry written in place. */
  entryWrite: 6,
  /** Building a private page-table page, per page (allocate, fill 512 entries). */
  tableBuild: 7,
  /** CPU reads of page-table entries on the way down. */
  entryRead: 8,
  /** Submitting a batch to the invalidation queue and polling for its completion, software side. */
  invalidationSubmit: 9,
  /** Executing one invalidation descriptor, hardware side. */
  invalidationExecute: 10,
  /** A device-TLB invalidation's round trip over the link. */
  deviceTlbInvalidate: 11,
  /** A page request's way from the device to the queue and the interrupt. */
  pageRequest: 12,
  /** A page group response's way back to the device. */
  pageResponse: 13,
  /** The stage-2 fault handler, fixed part per group: interrupt thread, work queue, area look-up. */
  faultHandler: 14,
  /** CPU fault handling of a page that is resident or needs only zeroing. */
  minorFault: 15,
  /** Copying or zeroing 4 KiB of memory by the CPU. */
  pageCopy: 16,
  /** One command that reads swap, with its first 4 KiB page; {@link Cost.swapPage} for each further one. */
  swapRead: 17,
  /** One command that writes swap, with its first 4 KiB page; {@link Cost.swapPage} for each further one. */
  swapWrite: 18,
  /** Splitting the CPU's mapping of a large folio, per new table. */
  folioSplit: 19,
  /** One iteration of the reclaim scan. */
  reclaimScan: 20,
  /** Fixed cost of calling the mmu notifiers for a range. */
  notifierCall: 21,
  /** Pinning one 4 KiB page, amortised. */
  pinPage: 22,
  /** Taking or releasing a lock that nobody holds. */
  lock: 23,
  /** An ATS translation request's round trip over the link. */
  translationRequest: 24,
  /** Moving each 4 KiB page after the first of one swap command. */
  swapPage: 25,
  /** Compressing one 4 KiB page (zram, zswap). */
  compressPage: 26,
  /** Decompressing one 4 KiB page (zram, zswap). */
  decompressPage: 27,
} as const;

/** A cost class by name. */
export type CostName = keyof typeof Cost;
/** A cost class by number, as steps carry it. */
export type CostClass = (typeof Cost)[CostName];

/** Nanoseconds for one unit of each class, with where the number comes from. */
export type CostProfile = Readonly<Record<CostName, { readonly ns: number; readonly source: string }>>;

/** The profile as an array indexed by {@link CostClass}, in ns. @throws RangeError for a missing or negative entry. */
export function costTableNs(profile: CostProfile): Float64Array {
  const table = new Float64Array(Object.keys(Cost).length);
  for (const [name, index] of Object.entries(Cost)) {
    const ns = profile[name as CostName]?.ns;
    if (ns === undefined || !(ns >= 0)) throw new RangeError(`cost profile: ${name} has no duration in ns`);
    table[index] = ns;
  }
  return table;
}
