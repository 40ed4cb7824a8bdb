import { hex } from '@faultline/address';
import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { HostAddressSpace, HostNotifier, HostRange, MappableFile } from '../host-address-space.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import { Process } from '../process.ts';
import { HwptPaging } from '../stage2/hwpt-paging.ts';
import type { HwptObserver } from '../stage2/hwpt-seat.ts';
import type { Strategy } from '../stage2/strategy.ts';
import { type AttachOptions, DevicePins } from '../vfio/device-pins.ts';
import type { DeviceReport } from '../vfio/device-report.ts';
import type { Area } from './area.ts';
import type { IoPagetable } from './io-pagetable.ts';
import type { DomainGeometry, IoasPlacement, MemoryPart } from './ioas-layout.ts';
import { Iopt } from './iopt.ts';
import { IoptPages } from './iopt-pages.ts';
import type { AccountMode } from './locked-memory.ts';
import { PinnedRanges } from './pinned-ranges.ts';
import { greater, LAST_IOVA, lesser } from './reserved-iovas.ts';

/** A map call: bytes, as the ioctl takes them. */
export interface IoasMapRequest extends IoasPlacement {
  readonly userVa: bigint;
  readonly length: bigint;
  /** Do not pin: ours, no kernel has this flag. */
  readonly unpinned: boolean;
  /** Whose memory it is; default the IOAS's own process. */
  readonly process?: Process;
  /** Against what pins are counted; default by the process's CAP_IPC_LOCK. */
  readonly account?: AccountMode;
}

/** A map of a file's pages. */
export interface IoasMapFile extends IoasPlacement {
  readonly file: MappableFile;
  readonly start: bigint;
  readonly length: bigint;
  readonly process?: Process;
  readonly account?: AccountMode;
}

/**
 * An I/O address space: what the user mapped (io_pagetable), the paging HWPTs that it is mapped into, and the devices attached to it. With
 * `strategy` null it is today's iommufd: everything is pinned as long as a domain maps it, and no notifier is registered.
 */
export class Ioas implements HostNotifier {
  readonly process: Process;
  readonly iopt = new Iopt();
  readonly #strategy: Strategy | null;
  readonly #pins = new PinnedRanges();
  /** The attached devices. */
  readonly devices: DevicePins;
  /** Whether the mm calls this notifier: until it is destroyed, or the mm goes away. */
  #registered: boolean;

  constructor(
    options: ({ readonly mm: HostAddressSpace } | { readonly process: Process }) & {
      readonly strategy: Strategy | null;
    },
  ) {
    this.process = 'process' in options ? options.process : new Process({ mm: options.mm });
    this.#strategy = options.strategy;
    this.#registered = this.#strategy !== null;
    const { areas, mm, iopt } = this;
    this.devices = new DevicePins({ mm, areas, pins: this.#pins, hwpts: () => iopt.hwpts });
    iopt.onAreaGone = (agent, area) => this.devices.areaWent(agent, area);
    if (this.#registered) this.mm.registerNotifier(this);
  }

  /** What the user mapped. */
  get areas(): IoPagetable {
    return this.iopt.layout.areas;
  }

  /** Whether it may have unpinned areas. */
  get followsHost(): boolean {
    return this.#strategy !== null;
  }

  /** The address space whose changes unpinned areas follow. */
  get mm(): HostAddressSpace {
    return this.process.mm;
  }

  /** The first paging HWPT, once a domain was added. */
  get hwpt(): HwptPaging | null {
    return this.iopt.hwpts[0] ?? null;
  }

  /**
   * IOMMU_IOAS_MAP. With a domain, pinned memory is faulted in and pinned now; unpinned memory is mapped as far as it is
   * resident. A failure leaves nothing behind.
   * @throws IommufdError EINVAL, EOVERFLOW, EEXIST, ENOSPC, EOPNOTSUPP (unpinned without a strategy that follows the host, or another
   * process's memory); errors of pin and domain
   */
  *map(agent: Agent, request: IoasMapRequest): Task<Area> {
    const { process = this.process, userVa, length } = request;
    if (request.unpinned) this.#checkUnpinned(process.mm);
    else if (request.policy)
      throw new IommufdError('EINVAL', 'policy: of a range that is pinned, where nothing faults');
    if (userVa + length > LAST_IOVA)
      throw new IommufdError('EOVERFLOW', `user_va: ${hex(userVa)} + ${hex(length)} wraps`);
    const memory = this.#newMemory({ ...request, process, start: userVa, file: null });
    return yield* this.#mapWhole(agent, memory, request);
  }

  /** IOMMU_IOAS_MAP_FILE. A file that cannot be pinned is EINVAL once a domain is there. @throws IommufdError as {@link map} */
  *mapFile(agent: Agent, request: IoasMapFile): Task<Area> {
    const { process = this.process, start, length } = request;
    if (start + length > LAST_IOVA) throw new IommufdError('EOVERFLOW', `start: ${hex(start)} + ${hex(length)} wraps`);
    const memory = this.#newMemory({ ...request, process, unpinned: false });
    return yield* this.#mapWhole(agent, memory, request);
  }

  /**
   * IOMMU_IOAS_COPY of a range of another IOAS, or of this one: the pages are shared, and pinned once. One area for each that the source
   * range touches. @returns the first IOVA
   * @throws IommufdError ENOENT (the source is not covered without a hole), EPERM (writeable, of pages that are not); as {@link map}
   */
  *copy(agent: Agent, source: Ioas, range: { iova: bigint; length: bigint }, to: IoasPlacement): Task<bigint> {
    const { iova, length } = range;
    if (length === 0n) throw new IommufdError('EINVAL', 'length: 0x0 is not positive');
    const last = iova + length - 1n;
    if (last > LAST_IOVA) throw new IommufdError('EOVERFLOW', `src_iova: ${hex(iova)} + ${hex(length)} wraps`);
    const areas = yield* source.iopt.read(agent, () => source.areas.contiguous(iova, last));
    if (areas === null)
      throw new IommufdError('ENOENT', `src_iova: [${hex(iova)}-${hex(last)}] is not mapped without a hole`);
    const parts = areas.map((area): MemoryPart => {
      const start = greater(area.iova, iova);
      const end = lesser(area.last, last);
      const startByte = area.startByte + (start - area.iova);
      return { memory: area.memory, startByte, length: end - start + 1n };
    });
    for (const { memory } of parts) if (memory.unpinned) this.#checkUnpinned(memory.mm);
    const copies = yield* this.iopt.map(agent, parts, to);
    yield* this.#pinForDevices(agent, copies);
    return (copies[0] as Area).iova;
  }

  /**
   * IOMMU_IOAS_UNMAP: whole areas only. IOVA 0 with length 2^64-1 means everything, and may find nothing. Areas before one that fails
   * are gone. @returns bytes unmapped
   * @throws IommufdError ENOENT (an area covered in part, or nothing there), EBUSY (being mapped or unmapped), EDEADLOCK (an access does not
   * let go), EINVAL, EOVERFLOW
   */
  *unmap(agent: Agent, iova: bigint, length: bigint): Task<bigint> {
    const everything = iova === 0n && length === LAST_IOVA;
    if (length <= 0n) throw new IommufdError('EINVAL', `length: ${hex(length)} is not positive`);
    const last = everything ? LAST_IOVA : iova + length - 1n;
    if (last > LAST_IOVA) throw new IommufdError('EOVERFLOW', `iova: ${hex(iova)} + ${hex(length)} wraps`);
    const bytes = yield* this.iopt.unmap(agent, iova, last);
    if (bytes === 0n && !everything)
      throw new IommufdError('ENOENT', `iova: nothing is mapped in [${hex(iova)}-${hex(last)}]`);
    return bytes;
  }

  /**
   * Adds a domain that the areas are mapped into: a HWPT. What it cannot map is reserved.
   * @throws IommufdError EADDRINUSE (an area or an allowed range is outside its aperture, or not aligned to its pages), EINVAL (its least
   * page is larger than 4K); errors of pin and domain, with nothing left behind
   */
  *addDomain(
    agent: Agent,
    domain: IommuDomain,
    observer: HwptObserver = {},
    geometry: DomainGeometry = { aperture: { start: 0n, last: LAST_IOVA }, minPageSize: 4096 },
  ): Task<HwptPaging> {
    const { areas, mm, iopt } = this;
    const strategy = this.#strategy;
    const largePages = () => iopt.largePages;
    const hwpt = new HwptPaging({ domain, areas, mm, strategy, pins: this.#pins, observer, largePages });
    yield* iopt.addDomain(agent, hwpt, geometry);
    return hwpt;
  }

  /**
   * Attaches a device. If the IOAS has unpinned areas, what the device's unfaultable paths use is pinned first; see `DevicePins.attach`.
   * @throws IommufdError EEXIST, EINVAL, EOPNOTSUPP, ENOENT
   */
  attach(agent: Agent, report: DeviceReport, options: AttachOptions = {}): Task<void> {
    return this.devices.attach(agent, report, options);
  }

  /** Detaches a device: answers its page groups, and gives its pins back. */
  detach(agent: Agent, name: string): Task<void> {
    return this.devices.detach(agent, name);
  }

  /** Takes everything apart: areas, pins, notifier. Devices are detached. */
  *destroy(agent: Agent): Task<void> {
    const { names } = this.devices;
    if (names.length > 0) throw new IommufdError('EBUSY', `devices are attached: ${names.join(', ')}`);
    yield* this.unmap(agent, 0n, LAST_IOVA);
    if (this.#registered) this.mm.unregisterNotifier(this); // only now: until then the domain must follow the host
    this.#registered = false;
  }

  /** {@inheritDoc HostNotifier.invalidateRangeStart} */
  *invalidateRangeStart(agent: Agent, range: HostRange): Task<boolean> {
    // The mm's own sequence tells faults when the range is over: nothing needs to hear its end.
    let done = true;
    for (const hwpt of this.iopt.hwpts) if (!(yield* hwpt.invalidateRangeStart(agent, range))) done = false;
    return done;
  }

  /** {@inheritDoc HostNotifier.clearFlushYoung} */
  *clearFlushYoung(agent: Agent, startPage: number, pages: number): Task<boolean> {
    let young = false;
    for (const hwpt of this.iopt.hwpts) if (yield* hwpt.clearFlushYoung(agent, startPage, pages)) young = true;
    return young;
  }

  /** {@inheritDoc HostNotifier.clearYoung} */
  clearYoung(_agent: Agent, startPage: number, pages: number): boolean {
    let young = false;
    for (const hwpt of this.iopt.hwpts) if (hwpt.youngNow(startPage, pages, true)) young = true;
    return young;
  }

  /** {@inheritDoc HostNotifier.testYoung} */
  testYoung(_agent: Agent, page: number): boolean {
    return this.iopt.hwpts.some((hwpt) => hwpt.youngNow(page, 1, false));
  }

  /** {@inheritDoc HostNotifier.release} */
  *release(agent: Agent): Task<void> {
    this.#registered = false;
    for (const hwpt of this.iopt.hwpts) yield* hwpt.release(agent);
  }

  #newMemory(options: {
    readonly process: Process;
    readonly start: bigint;
    readonly length: bigint;
    readonly writeable: boolean;
    readonly unpinned: boolean;
    readonly file: MappableFile | null;
    readonly account?: AccountMode;
  }): IoptPages {
    if (options.length <= 0n || options.length > LAST_IOVA - 4096n)
      throw new IommufdError('EINVAL', `length: ${hex(options.length)} is not positive`);
    const account = options.account ?? (options.process.capabilities.has('CAP_IPC_LOCK') ? 'none' : 'user');
    return new IoptPages({ ...options, account });
  }

  *#mapWhole(agent: Agent, memory: IoptPages, request: IoasPlacement & { length: bigint }): Task<Area> {
    const part = { memory, startByte: memory.start & 0xfffn, length: request.length };
    const [area] = (yield* this.iopt.map(agent, [part], request)) as [Area];
    yield* this.#pinForDevices(agent, [area]);
    return area;
  }

  /** What attached devices need of areas that came just now; without it the areas go again. */
  *#pinForDevices(agent: Agent, areas: readonly Area[]): Task<void> {
    try {
      for (const area of areas) yield* this.devices.areaCame(agent, area);
    } catch (error) {
      for (const area of areas) yield* this.iopt.unmap(agent, area.iova, area.last);
      throw error;
    }
  }

  #checkUnpinned(mm: HostAddressSpace): void {
    if (this.#strategy === null)
      throw new IommufdError(
        'EOPNOTSUPP',
        'flags: an unpinned map needs a strategy that follows the host (not `pinned`)',
      );
    if (mm !== this.mm)
      throw new IommufdError(
        'EOPNOTSUPP',
        'flags: an unpinned map of memory of a process that is not the one of the IOAS',
      );
    this.devices.checkUnpinned();
  }
}
