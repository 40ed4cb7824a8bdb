import { hex } from '@faultline/address';
import { IommufdError } from '../errno.ts';

/** What a device does when the page of a DMA is missing: it waits and asks (PRI), gives the data up, or is dead. */
export type WhenMissing = 'stall' | 'drop' | 'fatal';

/** IOVA pages. */
export interface DeviceRange {
  readonly page: number;
  readonly pages: number;
}

/** What vfio tells iommufd of one kind of DMA of a device. */
export interface PathReport {
  /** `descriptor`, `read`, `write`, `completion`; `msi` is never translated. Other names are taken for DMA of both directions. */
  readonly path: string;
  /** Whether DMA on this path can take an I/O page fault and go on. */
  readonly canFault: boolean;
  /** What the device does when a page is missing; default `stall` if the path can fault, else `fatal`. */
  readonly whenMissing?: WhenMissing;
  /** Where this path's DMA goes, if the driver declares it or a `RangeLearner` has seen it. */
  readonly ranges?: readonly DeviceRange[];
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

/** What must be pinned for a device: ranges, or all of the IOAS. */
export type DevicePinning = { readonly all: true } | { readonly all: false; readonly ranges: readonly DeviceRange[] };

/** The paths whose DMA is translated and cannot fault. */
export const unfaultable = (report: DeviceReport): readonly PathReport[] =>
  report.paths.filter(({ path, canFault }) => !canFault && path !== 'msi');

/**
 * What must be pinned before a device may use an unpinned IOAS.
 * @throws IommufdError EINVAL (a report that contradicts itself), EOPNOTSUPP if a path cannot fault, its ranges are not declared and the user
 * did not ask for `pin-all`
 */
export function pinningFor(report: DeviceReport): DevicePinning {
  checkReport(report);
  const paths = unfaultable(report);
  const unknown = paths.filter((path) => !path.ranges);
  if (unknown.length === 0) return { all: false, ranges: paths.flatMap((path) => path.ranges ?? []) };
  if (report.unfaultable === 'pin-all') return { all: true };
  const names = unknown.map(({ path }) => path).join(', ');
  throw new IommufdError(
    'EOPNOTSUPP',
    unknown.length === report.paths.filter(({ path }) => path !== 'msi').length
      ? `${report.name}: no DMA of it can fault (${names}); map the IOAS pinned, or attach with unfaultable: 'pin-all'`
      : `${report.name}: its ${names} DMA cannot fault and the ranges it uses are not declared; declare them (a RangeLearner finds them on a pinned IOAS), map the IOAS pinned, or attach with unfaultable: 'pin-all'`,
  );
}

/** @throws IommufdError EINVAL naming what contradicts itself */
function checkReport(report: DeviceReport): void {
  const seen = new Set<string>();
  for (const { path, canFault, whenMissing, ranges = [] } of report.paths) {
    const what = `${report.name}: its ${path} DMA`;
    if (seen.has(path)) throw new IommufdError('EINVAL', `${what} is reported twice`);
    seen.add(path);
    if (whenMissing !== undefined && canFault !== (whenMissing === 'stall') && path !== 'msi')
      throw new IommufdError(
        'EINVAL',
        `${what} is reported to ${canFault ? 'be able to' : 'not'} fault, and '${whenMissing}' when a page is missing; only a path that stalls can fault`,
      );
    for (const range of ranges)
      if (!Number.isInteger(range.page) || range.page < 0 || !Number.isInteger(range.pages) || range.pages < 1)
        throw new IommufdError('EINVAL', `${what} declares ${range.pages} pages from page ${range.page}: no range`);
  }
}

/** For messages: a range in bytes. */
export const formatPages = (range: DeviceRange): string =>
  `[${hex(BigInt(range.page) * 4096n)}-${hex(BigInt(range.page + range.pages) * 4096n - 1n)}]`;
