import { type DeviceReport, formatPages, type PathReport } from './device-report.ts';

/** Something that a device did though its report says that it does not. */
export interface DeviceLie {
  readonly device: string;
  /**
   * `faulted-without-request`: a DMA was blocked, though every path that could have made it is said to ask for its page. `undeclared-page`: a DMA
   * was blocked on a page that the unfaultable path's ranges leave out. `request-without-right`: a page was asked for that only paths said to
   * be unable to could use.
   */
  readonly kind: 'faulted-without-request' | 'undeclared-page' | 'request-without-right';
  /** IOVA page. */
  readonly page: number;
  readonly write: boolean;
  /** The paths that may have done it. */
  readonly paths: readonly string[];
  /** The same in words, and what to do. */
  readonly message: string;
}

/** Directions of the paths that reports name. */
const DIRECTION: Readonly<Record<string, 'read' | 'write'>> = {
  descriptor: 'read',
  read: 'read',
  write: 'write',
  completion: 'write',
};

/**
 * Compares what a device does with what was reported of it. A DMA carries no path, so what is known of one is its direction and its page:
 * only what no path of the report can have done is a lie.
 */
export class LieDetector {
  readonly report: DeviceReport;
  readonly #onLie: (lie: DeviceLie) => void;
  #lies = 0;

  constructor(report: DeviceReport, onLie: (lie: DeviceLie) => void = () => undefined) {
    this.report = report;
    this.#onLie = onLie;
  }

  /** Lies so far. */
  get lies(): number {
    return this.#lies;
  }

  /** A DMA of the device was blocked and recorded as a fault. @param isMapped whether the page is in an area: beyond them it is a stray DMA, no lie */
  dmaFault(page: number, write: boolean, isMapped: boolean): DeviceLie | null {
    if (!isMapped) return null;
    const suspects = this.#suspects(write);
    const cannot = suspects.filter((path) => !path.canFault);
    if (cannot.length === 0)
      return this.#lie(
        'faulted-without-request',
        page,
        write,
        suspects,
        'the device must be attached as one that cannot fault',
      );
    // In a declared range, or of a path that declares nothing (all is pinned for it): what was blocked is not the device's doing.
    if (cannot.some((path) => !path.ranges || declares(path, page))) return null;
    return this.#lie('undeclared-page', page, write, cannot, "declare the page, or attach with unfaultable: 'pin-all'");
  }

  /** The device asked for a page. */
  pageRequest(page: number, write: boolean): DeviceLie | null {
    const suspects = this.#suspects(write);
    const can = suspects.filter((path) => path.canFault);
    const owner = suspects.find((path) => !path.canFault && declares(path, page));
    // A page that an unfaultable path declares may be one of a faultable path, too, unless that declares other ranges.
    if (can.some((path) => !path.ranges || declares(path, page)) && !(owner && can.every((path) => path.ranges)))
      return null;
    if (can.length > 0 && !owner) return null; // outside the declared ranges of a path that may fault anywhere
    return this.#lie(
      'request-without-right',
      page,
      write,
      suspects.filter((path) => !path.canFault),
      'correct its report',
    );
  }

  #suspects(write: boolean): PathReport[] {
    const direction = write ? 'write' : 'read';
    return this.report.paths.filter(({ path }) => path !== 'msi' && (DIRECTION[path] ?? direction) === direction);
  }

  #lie(kind: DeviceLie['kind'], page: number, write: boolean, paths: readonly PathReport[], remedy: string): DeviceLie {
    this.#lies++;
    const names = paths.map(({ path }) => path);
    const { name } = this.report;
    const message = `${name}: ${WHAT[kind]} ${formatPages({ page, pages: 1 })} (${write ? 'write' : 'read'}; ${names.join(', ') || 'no path'}); ${remedy}`;
    const lie = { device: name, kind, page, write, paths: names, message };
    this.#onLie(lie);
    return lie;
  }
}

const WHAT: Readonly<Record<DeviceLie['kind'], string>> = {
  'faulted-without-request': 'reported to ask for missing pages, but its DMA was blocked at',
  'undeclared-page': 'its DMA that cannot fault was blocked at a page it did not declare:',
  'request-without-right': 'asked for a page that only paths reported to be unable to fault use:',
};

const declares = (path: PathReport, page: number): boolean =>
  (path.ranges ?? []).some((range) => page >= range.page && page < range.page + range.pages);
