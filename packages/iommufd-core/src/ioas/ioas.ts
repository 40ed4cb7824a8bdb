import { hex } from '@faultline/address';
import { type Agent, RwSemaphore, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { HostAddressSpace, HostNotifier, HostRange } from '../host-address-space.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import { FaultOutcome } from '../stage2/fault-handler.ts';
import type { FaultPolicy } from '../stage2/fault-policy.ts';
import { HwptPaging } from '../stage2/hwpt-paging.ts';
import type { HwptObserver } from '../stage2/hwpt-seat.ts';
import type { Strategy } from '../stage2/strategy.ts';
import { type DeviceReport, formatPages, rangesToPin } from '../vfio/device-report.ts';
import { type Area, IoPagetable } from './io-pagetable.ts';
import { type PinnedRange, PinnedRanges } from './pinned-ranges.ts';

/** A map call: bytes, as the ioctl takes them. */
export interface IoasMapRequest {
  readonly iova: bigint;
  readonly userVa: bigint;
  readonly length: bigint;
  readonly writeable: boolean;
  /** Do not pin: ours, no kernel has this flag. */
  readonly unpinned: boolean;
  /** Of an unpinned range: what is mapped before and around faults; default `DEFAULT_FAULT_POLICY`. */
  readonly policy?: FaultPolicy;
}

/**
 * An I/O address space: what the user mapped (io_pagetable), one paging HWPT once a domain is there, and the devices
 * attached to it. With `strategy` null it is today's iommufd: everything is pinned at map, and no notifier is registered.
 */
export class Ioas implements HostNotifier {
  readonly areas = new IoPagetable();
  readonly mm: HostAddressSpace;
  readonly #strategy: Strategy | null;
  readonly #iovaRwsem = new RwSemaphore('iova_rwsem');
  readonly #pins = new PinnedRanges();
  readonly #devices = new Set<string>();
  /** Whether the mm calls this notifier: until it is destroyed, or the mm goes away. */
  #registered: boolean;
  #hwpt: HwptPaging | null = null;

  constructor(options: { readonly mm: HostAddressSpace; readonly strategy: Strategy | null }) {
    this.mm = options.mm;
    this.#strategy = options.strategy;
    this.#registered = this.#strategy !== null;
    if (this.#registered) this.mm.registerNotifier(this);
  }

  /** The paging HWPT, once a domain was added. */
  get hwpt(): HwptPaging | null {
    return this.#hwpt;
  }

  /**
   * IOMMU_IOAS_MAP at a fixed IOVA. Pinned memory is faulted in and pinned now; unpinned memory is mapped as far as it is
   * resident. A failure leaves nothing behind.
   * @throws IommufdError EINVAL, EOVERFLOW, EEXIST, EOPNOTSUPP (unpinned without a take-away strategy); errors of pin and domain
   */
  *map(agent: Agent, request: IoasMapRequest): Task<Area> {
    const area = this.#checkMap(request);
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      this.areas.insert(area);
      try {
        yield* this.#fillArea(agent, area);
      } catch (error) {
        yield* this.#removeAreas(agent, area.page, area.pages);
        throw error;
      }
      return area;
    } finally {
      this.#iovaRwsem.releaseWrite(agent);
    }
  }

  /**
   * IOMMU_IOAS_UNMAP: whole areas only. IOVA 0 with length 2^64-1 means everything, and may find nothing.
   * @returns bytes unmapped. @throws IommufdError ENOENT, EINVAL, EOVERFLOW
   */
  *unmap(agent: Agent, iova: bigint, length: bigint): Task<bigint> {
    const everything = iova === 0n && length === ALL_BYTES;
    if (!everything) checkWrap('iova', iova, length);
    const page = pageOf('iova', iova);
    const pages = everything ? 2 ** 52 : pageOf('length', length);
    if (pages === 0) throw new IommufdError('EINVAL', 'length: 0x0 is not positive');
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      return everything && this.areas.size === 0 ? 0n : yield* this.#removeAreas(agent, page, pages);
    } finally {
      this.#iovaRwsem.releaseWrite(agent);
    }
  }

  /** Adds the domain that the areas are mapped into: the HWPT. @throws IommufdError EBUSY if there is one */
  *addDomain(agent: Agent, domain: IommuDomain, observer: HwptObserver = {}): Task<HwptPaging> {
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      if (this.#hwpt) throw new IommufdError('EBUSY', 'the IOAS has a paging HWPT already');
      const { areas, mm } = this;
      const hwpt = new HwptPaging({ domain, areas, mm, strategy: this.#strategy, pins: this.#pins, observer });
      this.#hwpt = hwpt; // from here on the notifier finds it
      try {
        for (const area of areas.areas()) yield* hwpt.mapResident(agent, area);
      } catch (error) {
        yield* hwpt.unmapAreas(agent, areas.areas(), () => undefined);
        this.#hwpt = null;
        throw error;
      }
      return hwpt;
    } finally {
      this.#iovaRwsem.releaseWrite(agent);
    }
  }

  /**
   * Attaches a device. If the IOAS has unpinned areas, what the device's unfaultable paths use is pinned first; a device with
   * an unfaultable path and no declared ranges is refused. @throws IommufdError EOPNOTSUPP, EEXIST, ENOENT
   */
  *attach(agent: Agent, report: DeviceReport): Task<void> {
    if (this.#devices.has(report.name)) throw new IommufdError('EEXIST', `${report.name} is attached already`);
    const unpinned = this.areas.areas().some((area) => area.unpinned);
    const ranges = unpinned ? rangesToPin(report) : [];
    this.#devices.add(report.name);
    try {
      for (const range of ranges) yield* this.#pinForDevice(agent, report.name, range);
    } catch (error) {
      yield* this.detach(agent, report.name);
      throw error;
    }
  }

  /** Detaches a device and gives its pins back. */
  *detach(agent: Agent, name: string): Task<void> {
    this.#devices.delete(name);
    const ofDevice = (range: PinnedRange) => range.device === name;
    for (let pin = this.#pins.take(ofDevice); pin; pin = this.#pins.take(ofDevice)) {
      if (this.#hwpt) yield* this.#hwpt.dropStale(agent, pin.userPage, pin.pages);
      yield* this.mm.unpin(agent, pin.userPage, pin.pages);
    }
  }

  /** Takes everything apart: areas, pins, notifier. Devices are detached. */
  *destroy(agent: Agent): Task<void> {
    if (this.#devices.size > 0)
      throw new IommufdError('EBUSY', `devices are attached: ${[...this.#devices].join(', ')}`);
    yield* this.unmap(agent, 0n, ALL_BYTES);
    if (this.#registered) this.mm.unregisterNotifier(this); // only now: until then the domain must follow the host
    this.#registered = false;
  }

  /** {@inheritDoc HostNotifier.invalidateRangeStart} */
  *invalidateRangeStart(agent: Agent, range: HostRange): Task<boolean> {
    // The mm's own sequence tells faults when the range is over: nothing needs to hear its end.
    return this.#hwpt ? yield* this.#hwpt.invalidateRangeStart(agent, range) : true;
  }

  /** {@inheritDoc HostNotifier.clearFlushYoung} */
  *clearFlushYoung(agent: Agent, startPage: number, pages: number): Task<boolean> {
    return this.#hwpt ? yield* this.#hwpt.clearFlushYoung(agent, startPage, pages) : false;
  }

  /** {@inheritDoc HostNotifier.clearYoung} */
  clearYoung(_agent: Agent, startPage: number, pages: number): boolean {
    return this.#hwpt?.youngNow(startPage, pages, true) ?? false;
  }

  /** {@inheritDoc HostNotifier.testYoung} */
  testYoung(_agent: Agent, page: number): boolean {
    return this.#hwpt?.youngNow(page, 1, false) ?? false;
  }

  /** {@inheritDoc HostNotifier.release} */
  *release(agent: Agent): Task<void> {
    this.#registered = false;
    if (this.#hwpt) yield* this.#hwpt.release(agent);
  }

  *#fillArea(agent: Agent, area: Area): Task<void> {
    if (!area.unpinned) {
      yield* this.mm.pin(agent, area.userPage, area.pages);
      this.#pins.add({ userPage: area.userPage, pages: area.pages, device: null });
    }
    if (this.#hwpt) yield* this.#hwpt.mapResident(agent, area);
  }

  /** Removes whole areas, from the domain too, and gives their pins back. @returns bytes */
  *#removeAreas(agent: Agent, page: number, pages: number): Task<bigint> {
    const removed: Area[] = [];
    const remove = (): void => {
      this.areas.removeRange(page, pages, (area) => removed.push(area));
    };
    try {
      if (this.#hwpt) yield* this.#hwpt.unmapAreas(agent, removed, remove);
      else remove();
    } finally {
      for (const area of removed) yield* this.#unpinArea(agent, area);
    }
    return removed.reduce((bytes, area) => bytes + BigInt(area.pages) * 4096n, 0n);
  }

  *#unpinArea(agent: Agent, { userPage, pages, unpinned }: Area): Task<void> {
    const held = (pin: PinnedRange) => pin.device === null && pin.userPage === userPage && pin.pages === pages;
    if (unpinned || !this.#pins.take(held)) return; // not pinned, or its pin failed
    if (this.#hwpt) yield* this.#hwpt.dropStale(agent, userPage, pages); // for an unpinned area of the same memory
    yield* this.mm.unpin(agent, userPage, pages);
  }

  *#pinForDevice(agent: Agent, device: string, range: { page: number; pages: number }): Task<void> {
    const area = this.areas.find(range.page);
    if (!area || range.page + range.pages > area.page + area.pages)
      throw new IommufdError('ENOENT', `${device}: the declared range ${formatPages(range)} is not within one area`);
    if (!area.unpinned) return;
    const userPage = area.userPage + (range.page - area.page);
    yield* this.mm.pin(agent, userPage, range.pages);
    this.#pins.add({ userPage, pages: range.pages, device });
    for (let page = range.page; this.#hwpt && page < range.page + range.pages; page++) {
      if (this.#hwpt.domain.frameAt(page) >= 0) continue;
      const outcome = yield* this.#hwpt.handleFault(agent, page, area.writeable);
      if (outcome !== FaultOutcome.success)
        throw new IommufdError('ENOMEM', `${device}: ${formatPages({ page, pages: 1 })} could not be mapped`);
    }
  }

  #checkMap(request: IoasMapRequest): Area {
    if (request.unpinned && this.#strategy === null)
      throw new IommufdError(
        'EOPNOTSUPP',
        'flags: an unpinned map needs a strategy that follows the host (not `pinned`)',
      );
    if (request.length <= 0n) throw new IommufdError('EINVAL', `length: ${hex(request.length)} is not positive`);
    checkWrap('iova', request.iova, request.length);
    checkWrap('user_va', request.userVa, request.length);
    return {
      page: pageOf('iova', request.iova),
      pages: pageOf('length', request.length),
      userPage: pageOf('user_va', request.userVa),
      writeable: request.writeable,
      unpinned: request.unpinned,
      ...(request.policy ? { policy: request.policy } : {}),
    };
  }
}

/** U64_MAX as the length of an unmap from IOVA 0: everything. */
const ALL_BYTES = (1n << 64n) - 1n;

function checkWrap(name: string, start: bigint, length: bigint): void {
  if (start + length > 1n << 64n) throw new IommufdError('EOVERFLOW', `${name}: ${hex(start)} + ${hex(length)} wraps`);
}

function pageOf(name: string, bytes: bigint): number {
  if (bytes < 0n || (bytes & 0xfffn) !== 0n)
    throw new IommufdError('EINVAL', `${name}: ${hex(bytes)} is not a multiple of 0x1000`);
  return Number(bytes >> 12n);
}
