import { hex } from '@faultline/address';
import { type Agent, RwSemaphore, type Task } from '@faultline/sim';
import { IommufdError } from './errno.ts';
import { type DeviceReport, formatPages, rangesToPin } from './fault-report.ts';
import type { HostAddressSpace, HostNotifier, HostRange } from './host-address-space.ts';
import { type HwptObserver, HwptPaging } from './hwpt-paging.ts';
import { type Area, IoPagetable } from './io-pagetable.ts';
import type { IommuDomain } from './iommu-domain.ts';
import type { TakeAway } from './strategy.ts';

/** A map call: bytes, as the ioctl takes them. */
export interface IoasMapRequest {
  readonly iova: bigint;
  readonly userVa: bigint;
  readonly length: bigint;
  readonly writeable: boolean;
  /** Do not pin: ours, no kernel has this flag. */
  readonly unpinned: boolean;
}

interface PinnedRange {
  readonly userPage: number;
  readonly pages: number;
  /** Device that asked for it, or null for an area that is pinned whole. */
  readonly device: string | null;
}

/**
 * An I/O address space: what the user mapped (io_pagetable), one paging HWPT once a domain is there, and the devices
 * attached to it. With `takeAway` null it is today's iommufd: everything is pinned at map, and no notifier is registered.
 */
export class Ioas implements HostNotifier {
  readonly areas = new IoPagetable();
  readonly mm: HostAddressSpace;
  readonly #takeAway: TakeAway | null;
  readonly #iovaRwsem = new RwSemaphore('iova_rwsem');
  readonly #pinned: PinnedRange[] = [];
  readonly #devices = new Set<string>();
  #hwpt: HwptPaging | null = null;

  constructor(options: { readonly mm: HostAddressSpace; readonly takeAway: TakeAway | null }) {
    this.mm = options.mm;
    this.#takeAway = options.takeAway;
    if (this.#takeAway !== null) this.mm.registerNotifier(this);
  }

  /** The paging HWPT, once a domain was added. */
  get hwpt(): HwptPaging | null {
    return this.#hwpt;
  }

  /**
   * IOMMU_IOAS_MAP at a fixed IOVA. Pinned memory is faulted in and pinned now; unpinned memory is mapped as far as it is
   * resident. @throws IommufdError EINVAL, EOVERFLOW, EEXIST, EOPNOTSUPP (unpinned without a take-away strategy)
   */
  *map(agent: Agent, request: IoasMapRequest): Task<Area> {
    const area = this.#checkMap(request);
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      this.areas.insert(area);
      if (!area.unpinned) {
        yield* this.mm.pin(agent, area.userPage, area.pages);
        this.#pinned.push({ userPage: area.userPage, pages: area.pages, device: null });
      }
      if (this.#hwpt) yield* this.#hwpt.mapResident(agent, area);
      return area;
    } finally {
      this.#iovaRwsem.releaseWrite(agent);
    }
  }

  /** IOMMU_IOAS_UNMAP: whole areas only. @returns bytes unmapped. @throws IommufdError ENOENT, EINVAL */
  *unmap(agent: Agent, iova: bigint, length: bigint): Task<bigint> {
    const page = pageOf('iova', iova);
    const pages = pageOf('length', length);
    if (pages === 0) throw new IommufdError('EINVAL', 'length: 0x0 is not positive');
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      const removed: Area[] = [];
      try {
        this.areas.removeRange(page, pages, (area) => removed.push(area));
      } finally {
        for (const area of removed) yield* this.#dropArea(agent, area);
      }
      return removed.reduce((bytes, area) => bytes + BigInt(area.pages) * 4096n, 0n);
    } finally {
      this.#iovaRwsem.releaseWrite(agent);
    }
  }

  /** Adds the domain that the areas are mapped into: the HWPT. @throws IommufdError EBUSY if there is one */
  *addDomain(agent: Agent, domain: IommuDomain, observer: HwptObserver = {}): Task<HwptPaging> {
    if (this.#hwpt) throw new IommufdError('EBUSY', 'the IOAS has a paging HWPT already');
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      this.#hwpt = new HwptPaging({ domain, areas: this.areas, mm: this.mm, takeAway: this.#takeAway, observer });
      for (const area of this.areas.areas()) yield* this.#hwpt.mapResident(agent, area);
      return this.#hwpt;
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
    if (unpinned) for (const range of rangesToPin(report)) yield* this.#pinForDevice(agent, report.name, range);
    this.#devices.add(report.name);
  }

  /** Detaches a device and gives its pins back. */
  *detach(agent: Agent, name: string): Task<void> {
    this.#devices.delete(name);
    for (let i = this.#pinned.length - 1; i >= 0; i--) {
      const pin = this.#pinned[i];
      if (pin?.device !== name) continue;
      this.#pinned.splice(i, 1);
      yield* this.mm.unpin(agent, pin.userPage, pin.pages);
    }
  }

  /** Takes everything apart: areas, pins, notifier. Devices are detached. */
  *destroy(agent: Agent): Task<void> {
    if (this.#devices.size > 0)
      throw new IommufdError('EBUSY', `devices are attached: ${[...this.#devices].join(', ')}`);
    if (this.#takeAway !== null) this.mm.unregisterNotifier(this);
    for (const area of this.areas.areas()) {
      this.areas.removeRange(area.page, area.pages, () => undefined);
      yield* this.#dropArea(agent, area);
    }
  }

  /** {@inheritDoc HostNotifier.invalidateRangeStart} */
  *invalidateRangeStart(agent: Agent, range: HostRange): Task<void> {
    if (this.#hwpt) yield* this.#hwpt.invalidateRangeStart(agent, range);
  }

  /** {@inheritDoc HostNotifier.invalidateRangeEnd} */
  invalidateRangeEnd(_agent: Agent, _range: HostRange): void {
    // The mm's own sequence tells faults that the range is over; iommufd keeps no state of its own.
  }

  *#dropArea(agent: Agent, area: Area): Task<void> {
    if (this.#hwpt) yield* this.#hwpt.unmapArea(agent, area);
    if (area.unpinned) return;
    yield* this.mm.unpin(agent, area.userPage, area.pages);
    const index = this.#pinned.findIndex((pin) => pin.device === null && pin.userPage === area.userPage);
    if (index >= 0) this.#pinned.splice(index, 1);
  }

  *#pinForDevice(agent: Agent, device: string, range: { page: number; pages: number }): Task<void> {
    const area = this.areas.find(range.page);
    if (!area || range.page + range.pages > area.page + area.pages)
      throw new IommufdError('ENOENT', `${device}: the declared range ${formatPages(range)} is not within one area`);
    if (!area.unpinned) return;
    const userPage = area.userPage + (range.page - area.page);
    yield* this.mm.pin(agent, userPage, range.pages);
    this.#pinned.push({ userPage, pages: range.pages, device });
    for (let page = range.page; this.#hwpt && page < range.page + range.pages; page++)
      if (this.#hwpt.domain.frameAt(page) < 0) yield* this.#hwpt.handleFault(agent, page, area.writeable);
  }

  #checkMap(request: IoasMapRequest): Area {
    if (request.unpinned && this.#takeAway === null)
      throw new IommufdError(
        'EOPNOTSUPP',
        'flags: an unpinned map needs a strategy that follows the host (not `pinned`)',
      );
    if (request.length <= 0n) throw new IommufdError('EINVAL', `length: ${hex(request.length)} is not positive`);
    if (request.iova + request.length > 1n << 64n)
      throw new IommufdError('EOVERFLOW', `iova: ${hex(request.iova)} + ${hex(request.length)} wraps`);
    if (request.userVa + request.length > 1n << 64n)
      throw new IommufdError('EOVERFLOW', `user_va: ${hex(request.userVa)} + ${hex(request.length)} wraps`);
    return {
      page: pageOf('iova', request.iova),
      pages: pageOf('length', request.length),
      userPage: pageOf('user_va', request.userVa),
      writeable: request.writeable,
      unpinned: request.unpinned,
    };
  }
}

function pageOf(name: string, bytes: bigint): number {
  if (bytes < 0n || (bytes & 0xfffn) !== 0n)
    throw new IommufdError('EINVAL', `${name}: ${hex(bytes)} is not a multiple of 0x1000`);
  return Number(bytes >> 12n);
}
