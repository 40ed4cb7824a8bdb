import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';

/** What a device does when the page of a DMA is missing. */
export type WhenMissing = 'stall' | 'drop' | 'fatal';

/** What vfio tells iommufd of one kind of DMA of a device. */
export interface PathReport {
  readonly path: string;
  /** Whether DMA on this path can take an I/O page fault and go on. */
  readonly canFault: boolean;
  /** What the device does when a page is missing: it waits and asks (only then can the path fault), gives the data up, or is dead. */
  readonly whenMissing?: WhenMissing;
  /** Where this path's DMA goes, if the driver declares it: IOVA pages. */
  readonly ranges?: readonly { readonly page: number; readonly pages: number }[];
}

/** What vfio tells iommufd of a device: more than PRI promises, which speaks of no path in particular. */
export interface DeviceReport {
  readonly name: string;
  readonly paths: readonly PathReport[];
  /**
   * What is done if a path that cannot fault declares no ranges: `refuse` the attach (default), or `pin-all`: pin every unpinned area, now
   * and as more of them come.
   */
  readonly unfaultable?: 'refuse' | 'pin-all';
}

/**
 * The ranges that must be pinned before a device may use an unpinned IOAS: those of the paths that cannot fault.
 * @returns none if all paths can fault
 * @throws IommufdError EOPNOTSUPP if a path cannot fault and its ranges are not declared
 */
export function rangesToPin(report: DeviceReport): readonly { readonly page: number; readonly pages: number }[] {
  const ranges: { page: number; pages: number }[] = [];
  for (const path of report.paths) {
    if (path.canFault) continue;
    if (!path.ranges)
      throw new IommufdError(
        'EOPNOTSUPP',
        `${report.name}: its ${path.path} DMA cannot fault and the ranges it uses are not declared; declare them, or map the IOAS pinned`,
      );
    ranges.push(...path.ranges);
  }
  return ranges;
}

/** For messages: a range in bytes. */
export const formatPages = (range: { page: number; pages: number }): string =>
  `[${hex(BigInt(range.page) * 4096n)}-${hex(BigInt(range.page + range.pages) * 4096n - 1n)}]`;
