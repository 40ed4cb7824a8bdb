import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { HostAddressSpace } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';
import type { IoPagetable } from '../ioas/io-pagetable.ts';
import type { PinnedRange, PinnedRanges } from '../ioas/pinned-ranges.ts';
import type { HwptPaging } from '../stage2/hwpt-paging.ts';
import { type DevicePinning, type DeviceRange, type DeviceReport, formatPages, pinningFor } from './device-report.ts';
import { type DeviceLie, LieDetector } from './lie-detector.ts';

/** Where a device's page requests go, so that a detach can answer those that are under way. */
export interface DeviceFaults {
  /** Its `IopfQueue`. */
  readonly queue: {
    detach(agent: Agent, sourceId: number, handledBy?: object): Task<void>;
    watch?(sourceId: number, watcher: (request: { readonly page: number; readonly write: boolean }) => void): void;
  };
  readonly sourceId: number;
}

/** Options of an attach. */
export interface AttachOptions {
  readonly faults?: DeviceFaults;
  /** Told when the device does what its report says that it does not. */
  readonly onLie?: (lie: DeviceLie) => void;
}

/** An attached device. */
interface AttachedDevice {
  readonly report: DeviceReport;
  readonly faults: DeviceFaults | null;
  readonly lies: LieDetector;
}

/** What an IOAS gives {@link DevicePins}. */
export interface DevicePinsOptions {
  readonly mm: HostAddressSpace;
  readonly areas: IoPagetable;
  readonly pins: PinnedRanges;
  readonly hwpts: () => readonly HwptPaging[];
}

/** The devices of an IOAS, and what is pinned of its unpinned areas for their paths that cannot fault. */
export class DevicePins {
  readonly #options: DevicePinsOptions;
  readonly #devices = new Map<string, AttachedDevice>();

  constructor(options: DevicePinsOptions) {
    this.#options = options;
  }

  /** Names of the attached devices. */
  get names(): readonly string[] {
    return [...this.#devices.keys()];
  }

  /** Compares what an attached device does with its report. @throws IommufdError ENOENT */
  lieDetector(name: string): LieDetector {
    const device = this.#devices.get(name);
    if (!device) throw new IommufdError('ENOENT', `${name} is not attached`);
    return device.lies;
  }

  /** Compares the page requests of an attached device with its report from now on. @throws IommufdError ENOENT */
  watchRequests(name: string, { queue, sourceId }: DeviceFaults): void {
    const lies = this.lieDetector(name);
    queue.watch?.(sourceId, ({ page, write }) => lies.pageRequest(page, write));
  }

  /**
   * Attaches a device: what its paths that cannot fault use of unpinned areas is pinned and mapped first. With no unpinned area
   * nothing is asked of it, until there is one.
   * @throws IommufdError EEXIST (attached already), EINVAL, EOPNOTSUPP (see `pinningFor`), ENOENT (a declared range is not within one area);
   * errors of the pin; nothing is left behind
   */
  *attach(agent: Agent, report: DeviceReport, { faults, onLie }: AttachOptions = {}): Task<void> {
    if (this.#devices.has(report.name)) throw new IommufdError('EEXIST', `${report.name} is attached already`);
    const unpinned = this.#unpinnedAreas();
    const pinning = unpinned.length > 0 ? pinningFor(report) : NOTHING;
    this.#devices.set(report.name, { report, faults: faults ?? null, lies: new LieDetector(report, onLie) });
    if (faults) this.watchRequests(report.name, faults);
    try {
      if (pinning.all) for (const area of unpinned) yield* this.#pin(agent, report.name, area, area);
      else for (const range of pinning.ranges) yield* this.#pinRange(agent, report.name, range);
    } catch (error) {
      yield* this.detach(agent, report.name);
      throw error;
    }
  }

  /**
   * Detaches a device: its page groups that are under way are answered INVALID, and nobody maps for them any more; then its pins are given
   * back. Of a device that is not attached: nothing.
   */
  *detach(agent: Agent, name: string): Task<void> {
    const faults = this.#devices.get(name)?.faults;
    this.#devices.delete(name);
    if (faults) yield* faults.queue.detach(agent, faults.sourceId);
    yield* this.#giveBack(agent, (pin) => pin.device === name);
  }

  /**
   * Before an unpinned area is made. @throws IommufdError EOPNOTSUPP if a device is attached that would have to have it pinned and does not say
   * what of it
   */
  checkUnpinned(): void {
    for (const { report } of this.#devices.values()) pinningFor(report);
  }

  /** An unpinned area has come: what the attached devices need of it is pinned and mapped. @throws errors of the pin */
  *areaCame(agent: Agent, area: Area): Task<void> {
    if (!area.unpinned) return;
    for (const { report } of [...this.#devices.values()])
      for (const range of rangesIn(area, pinningFor(report))) yield* this.#pin(agent, report.name, area, range);
  }

  /** An area has gone: what devices had pinned of it is given back. */
  areaWent(agent: Agent, area: Area): Task<void> {
    return this.#giveBack(agent, (pin) => pin.area === area);
  }

  #unpinnedAreas(): Area[] {
    return this.#options.areas.areas().filter((area) => area.unpinned && area.state === 'mapped');
  }

  *#pinRange(agent: Agent, device: string, range: DeviceRange): Task<void> {
    const area = this.#options.areas.find(range.page);
    if (!area || range.page + range.pages > area.page + area.pages)
      throw new IommufdError('ENOENT', `${device}: the declared range ${formatPages(range)} is not within one area`);
    if (area.unpinned) yield* this.#pin(agent, device, area, range);
  }

  *#pin(agent: Agent, device: string, area: Area, range: DeviceRange): Task<void> {
    const { mm, pins, hwpts } = this.#options;
    const userPage = area.userPage + (range.page - area.page);
    const { pages } = range;
    const runs = yield* mm.pinUserPages(agent, userPage, pages, area.writeable);
    // Still that step: from here on the notifier leaves the range alone.
    const pin = { userPage, pages, device, area, runs };
    pins.add(pin);
    if (area.state === 'going' || !this.#devices.has(device)) {
      yield* this.#giveBack(agent, (other) => other === pin);
      throw new IommufdError('ENOENT', `${device}: the area of ${formatPages(range)} went while it was being pinned`);
    }
    for (const hwpt of hwpts()) yield* hwpt.mapPins(agent, userPage, pages);
  }

  *#giveBack(agent: Agent, matches: (pin: PinnedRange) => boolean): Task<void> {
    const { mm, pins, hwpts } = this.#options;
    for (let pin = pins.take(matches); pin; pin = pins.take(matches)) {
      for (const hwpt of hwpts()) yield* hwpt.dropStale(agent, pin.userPage, pin.pages);
      yield* mm.unpinUserPages(agent, pin.runs);
    }
  }
}

const NOTHING: DevicePinning = { all: false, ranges: [] };

/** What of an area is to be pinned. */
function rangesIn(area: Area, pinning: DevicePinning): DeviceRange[] {
  if (pinning.all) return [area];
  return pinning.ranges.flatMap((range) => {
    const page = Math.max(range.page, area.page);
    const end = Math.min(range.page + range.pages, area.page + area.pages);
    return page < end ? [{ page, pages: end - page }] : [];
  });
}
