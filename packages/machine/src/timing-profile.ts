import type { CostProfile } from '@faultline/sim';

/**
 * The reference profile: a server of about 2020 with a 100 Gb/s device, put together from published figures. It speaks of no
 * machine in particular; ratios between strategies mean more than absolute times. `P1` .. `P20` name the papers of FIDELITY.md.
 */
export const REFERENCE_PROFILE: CostProfile = {
  free: { ns: 0, source: 'by definition' },
  nanosecond: { ns: 1, source: 'by definition' },
  dmaBase: { ns: 65, source: 'P1: l0, Fast & Safe IO Memory Protection (SOSP 2024) 2.2' },
  dmaPayload: { ns: 328, source: 'derived: 4096 bytes at the 100 Gb/s of P1' },
  walkRead: { ns: 197, source: 'P1: lm' },
  cacheLookup: { ns: 0, source: 'assumption: within dmaBase' },
  entryWrite: { ns: 14, source: 'derived from P10: 55 ns for a 4K map over four levels' },
  entryRead: { ns: 14, source: 'derived from P10, as entryWrite' },
  tableBuild: { ns: 31_000, source: 'derived from P9: KVM eager page splitting, 31 us per 512-entry table' },
  invalidationSubmit: { ns: 6_500, source: 'P4: 7.0 us per submission at one flow, less invalidationExecute' },
  invalidationExecute: { ns: 500, source: 'assumption: the hardware part of P4' },
  deviceTlbInvalidate: { ns: 1_000, source: 'assumption: one round trip over the link' },
  pageRequest: { ns: 1_000, source: 'assumption; with handler and response the sum is the 10.1-10.6 us of P8' },
  pageResponse: { ns: 500, source: 'assumption, as pageRequest' },
  faultHandler: { ns: 1_600, source: 'P6: handler 1.6 us' },
  minorFault: { ns: 1_700, source: 'P18: 1.7 us on the CPU' },
  pageCopy: { ns: 300, source: 'assumption: 4 KiB at about 13 GB/s' },
  swapRead: { ns: 80_000, source: 'assumption: a 4 KiB read of a data-centre NVMe drive' },
  swapWrite: { ns: 20_000, source: 'assumption: a 4 KiB write into the drive’s cache' },
  folioSplit: { ns: 31_000, source: 'assumption: as one table of P9' },
  reclaimScan: { ns: 200, source: 'assumption' },
  notifierCall: { ns: 500, source: 'assumption' },
  pinPage: { ns: 20, source: 'assumption: amortised over a folio' },
  lock: { ns: 20, source: 'assumption: an uncontended atomic operation' },
  translationRequest: { ns: 1_000, source: 'assumption: one round trip over the link' },
  swapPage: { ns: 1_300, source: 'assumption: 4 KiB at about 3 GB/s, a data-centre NVMe drive in sequence' },
  compressPage: { ns: 4_000, source: 'assumption: LZO-RLE or LZ4 at about 1 GB/s' },
  decompressPage: { ns: 1_500, source: 'assumption: LZO-RLE or LZ4 at about 2.7 GB/s' },
};

/**
 * The emulated machine on which the recordings `swap-thp` and `swap73-4k` were made (QEMU 7.2.22 with TCG, one CPU, emulated NVMe): only what decides how
 * far reclaim runs ahead of write-back differs from the reference profile.
 */
const LINUX_RECORDINGS_PROFILE: CostProfile = {
  ...REFERENCE_PROFILE,
  swapWrite: { ns: 19_000, source: 'fitted to the 5,869 pages that swap73-4k has written at its mark "limited"' },
  swapRead: { ns: 330_000, source: 'measured in swap-thp: a fault that reads waits 340 us, with a window of 8 pages' },
  swapPage: { ns: 11_500, source: 'fitted to the 14 huge pages that swap-thp has written at its mark "limited"' },
  minorFault: { ns: 8_000, source: 'measured in swap73-4k: 4 to 25 us a call of do_swap_page that does not wait' },
  lock: { ns: 700, source: 'derived from swap73-4k: 1.4 us to free a page' },
  entryWrite: { ns: 10_000, source: 'derived from swap73-4k: 12 us of CPU a page written, most of it unmapping' },
  notifierCall: { ns: 4_000, source: 'derived from swap73-4k: 12 us of CPU a page written' },
};

/** The profiles that a scenario can name. */
export const TIMING_PROFILES: Readonly<Record<'reference' | 'linux-recordings', CostProfile>> = {
  reference: REFERENCE_PROFILE,
  'linux-recordings': LINUX_RECORDINGS_PROFILE,
};
