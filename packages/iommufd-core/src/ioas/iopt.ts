import { hex } from '@faultline/address';
import { type Agent, RwSemaphore, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { HwptPaging } from '../stage2/hwpt-paging.ts';
import type { Area } from './area.ts';
import { fillArea, unfillArea } from './domain-fill.ts';
import { formatArea } from './io-pagetable.ts';
import { type DomainGeometry, IoasLayout, type IoasPlacement, type MemoryPart } from './ioas-layout.ts';

/** What an access does while an area that it has pinned is unmapped: it gives its pins back. */
export interface AccessUnmap {
  unmap(agent: Agent, iova: bigint, length: bigint): Task<void>;
}

/**
 * The areas of an IOAS and the domains that map them, under the locks of Linux's struct io_pagetable: `domains_rwsem` outside
 * `iova_rwsem` outside the mutex of the pages. A map or unmap holds the first for reading while domains are changed, so that
 * domains come and go only between.
 */
export class Iopt {
  readonly layout = new IoasLayout();
  readonly #domainsRwsem = new RwSemaphore('domains_rwsem');
  readonly #iovaRwsem = new RwSemaphore('iova_rwsem');
  /** Dense; index 0 is the storage domain, unmapped last. */
  readonly #hwpts: HwptPaging[] = [];
  readonly #minPageSizes = new Map<HwptPaging, bigint>();
  readonly #accesses = new Map<AccessUnmap, bigint>();
  /** Called with each area that was unmapped, when no domain has it any more. */
  onAreaGone: (agent: Agent, area: Area) => Task<void> = nothing;
  #largePages = true;

  /** The paging HWPTs, the storage domain first. */
  get hwpts(): readonly HwptPaging[] {
    return this.#hwpts;
  }

  /** False: no leaf is larger than 4K (IOMMU_OPTION_HUGE_PAGES). */
  get largePages(): boolean {
    return this.#largePages;
  }

  /** Looks at areas under `iova_rwsem`. What `look` throws goes through. */
  *read<T>(agent: Agent, look: () => T): Task<T> {
    yield* this.#iovaRwsem.acquireRead(agent);
    try {
      return look();
    } finally {
      this.#iovaRwsem.releaseRead(agent);
    }
  }

  /** Changes the layout under `iova_rwsem`. What `change` throws goes through. */
  *write<T>(agent: Agent, change: (layout: IoasLayout) => T): Task<T> {
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      return change(this.layout);
    } finally {
      this.#iovaRwsem.releaseWrite(agent);
    }
  }

  /** Places parts side by side, then has every domain map them (iopt_map_pages). */
  *map(agent: Agent, parts: readonly MemoryPart[], to: IoasPlacement): Task<readonly Area[]> {
    const areas = yield* this.write(agent, (layout) => layout.place(parts, to));
    yield* this.#domainsRwsem.acquireRead(agent);
    const target = { hwpts: this.#hwpts, alone: true };
    const filled: Area[] = [];
    try {
      for (const area of areas) {
        yield* fillArea(agent, area, target);
        filled.push(area);
      }
      yield* this.write(agent, () => {
        for (const area of areas) area.state = 'mapped';
      });
      return areas;
    } catch (error) {
      for (const area of areas) area.state = 'going';
      for (const area of filled) yield* unfillArea(agent, area, target);
      yield* this.write(agent, (layout) => {
        for (const area of areas) layout.areas.remove(area);
      });
      throw error;
    } finally {
      this.#domainsRwsem.releaseRead(agent);
    }
  }

  /** Unmaps areas one by one, from the lowest (iopt_unmap_iova_range). */
  *unmap(agent: Agent, first: bigint, last: bigint): Task<bigint> {
    let bytes = 0n;
    for (let tries = 0, from = first; ; ) {
      yield* this.#domainsRwsem.acquireRead(agent);
      try {
        const area = yield* this.write(agent, () => this.#takeForUnmap(from, last));
        if (area === null) return bytes;
        if (area.state === 'going') {
          tries = 0;
          yield* unfillArea(agent, area, { hwpts: this.#hwpts, alone: true });
          yield* this.onAreaGone(agent, area);
          yield* this.write(agent, (layout) => layout.areas.remove(area));
          bytes += area.length;
          continue;
        }
        from = area.iova;
      } finally {
        this.#domainsRwsem.releaseRead(agent);
      }
      const area = this.layout.areas.firstIn(from, last);
      if (!area) continue;
      for (const access of [...this.#accesses.keys()]) yield* access.unmap(agent, area.iova, area.length);
      if (++tries > MAX_ACCESS_TRIES)
        throw new IommufdError('EDEADLOCK', `iova: an access does not let go of ${formatArea(area)}`);
    }
  }

  /**
   * Has areas end at IOVAs (iopt_cut_iova), for VFIO type 1, which unmaps parts. Pages are 4K in every domain, so that none of them changes.
   * @throws IommufdError EBUSY (being mapped or unmapped), EINVAL (not aligned, pinned by an access, in a domain with large pages)
   */
  *cut(agent: Agent, lasts: readonly bigint[]): Task<void> {
    yield* this.#domainsRwsem.acquireRead(agent);
    yield* this.#iovaRwsem.acquireWrite(agent);
    try {
      for (const last of lasts) {
        const area = this.layout.areas.firstIn(last, last);
        if (area && area.last !== last) yield* this.#split(agent, area, last + 1n);
      }
    } finally {
      this.#iovaRwsem.releaseWrite(agent);
      this.#domainsRwsem.releaseRead(agent);
    }
  }

  /** Puts two areas in the place of one. Caller holds both semaphores. */
  *#split(agent: Agent, area: Area, start: bigint): Task<void> {
    const { layout } = this;
    const inDomains = this.#hwpts.length > 0;
    if (area.state !== 'mapped' || area.preventsAccess)
      throw new IommufdError('EBUSY', `iova: the area ${formatArea(area)} is being mapped or unmapped`);
    const misaligned = ((start | (area.startByte + (start - area.iova))) & (layout.alignment - 1n)) !== 0n;
    if (misaligned || area.accesses > 0 || (inDomains && this.#largePages))
      throw new IommufdError('EINVAL', `iova: the area ${formatArea(area)} cannot be cut at ${hex(start)}`);
    const parts = area.split(start);
    const { memory } = area;
    yield* memory.mutex.acquire(agent);
    if (inDomains && !area.unpinned) memory.splitUse(area.wholeSpan, parts[1].wholeSpan.first);
    memory.mutex.release(agent);
    area.state = 'going'; // a fault that found it looks again
    layout.areas.remove(area);
    for (const part of parts) {
      part.state = 'mapped';
      layout.areas.insert(part);
    }
  }

  /** The first area of a range, marked as going; still 'mapped' if accesses hold it. @returns null if there is none @throws IommufdError ENOENT, EBUSY */
  #takeForUnmap(first: bigint, last: bigint): Area | null {
    const area = this.layout.areas.firstIn(first, last);
    if (!area) return null;
    if (area.state !== 'mapped')
      throw new IommufdError('EBUSY', `iova: the area ${formatArea(area)} is being mapped or unmapped`);
    if (area.iova < first || area.last > last)
      throw new IommufdError(
        'ENOENT',
        `iova: [${hex(first)}-${hex(last)}] covers the area ${formatArea(area)} only in part; what was mapped as one is unmapped as one`,
      );
    if (area.accesses > 0) area.preventsAccess = true;
    else area.state = 'going';
    return area;
  }

  /** Adds a hwpt: has it map all areas. @throws IommufdError EADDRINUSE, EINVAL; errors of pin and domain, with nothing left behind */
  *addDomain(agent: Agent, hwpt: HwptPaging, geometry: DomainGeometry): Task<void> {
    yield* this.#lockBoth(agent);
    try {
      this.layout.admit(hwpt, geometry);
      this.#hwpts.push(hwpt); // from here on the notifier finds it
      const target = { hwpts: [hwpt], alone: this.#hwpts.length === 1 };
      const filled: Area[] = [];
      try {
        for (const area of this.#mappedAreas()) {
          yield* fillArea(agent, area, target);
          filled.push(area);
        }
      } catch (error) {
        yield* hwpt.retire(agent, function* () {
          for (const area of filled) yield* unfillArea(agent, area, target);
        });
        this.#hwpts.pop();
        this.layout.reserved.release(hwpt);
        throw error;
      }
      this.#minPageSizes.set(hwpt, BigInt(geometry.minPageSize));
      this.#realign();
    } finally {
      this.#unlockBoth(agent);
    }
  }

  /** Takes a domain away: everything in it is unmapped, and with the last one unpinned, unless an access has it. */
  *removeDomain(agent: Agent, hwpt: HwptPaging): Task<void> {
    yield* this.#lockBoth(agent);
    try {
      const target = { hwpts: [hwpt], alone: this.#hwpts.length === 1 };
      const areas = this.#mappedAreas();
      yield* hwpt.retire(agent, function* () {
        for (const area of areas) yield* unfillArea(agent, area, target);
      });
      const tail = this.#hwpts.pop(); // the tail takes the place that it leaves, as in Linux's xarray
      if (tail && tail !== hwpt) this.#hwpts[this.#hwpts.indexOf(hwpt)] = tail;
      this.layout.reserved.release(hwpt);
      this.#minPageSizes.delete(hwpt);
      this.#realign();
    } finally {
      this.#unlockBoth(agent);
    }
  }

  /**
   * IOMMU_OPTION_HUGE_PAGES. @throws IommufdError EINVAL (off, with areas in domains), EADDRINUSE (off, with areas that are not page-aligned)
   */
  *setLargePages(agent: Agent, enabled: boolean): Task<void> {
    yield* this.#lockBoth(agent);
    try {
      if (enabled === this.#largePages) return;
      if (!enabled && this.#hwpts.length > 0 && this.layout.areas.size > 0)
        throw new IommufdError('EINVAL', 'val64: large pages cannot be turned off while domains map areas');
      if (!enabled) this.layout.checkAlignment(4096n);
      this.#largePages = enabled;
      this.#realign();
    } finally {
      this.#unlockBoth(agent);
    }
  }

  /** Registers an access; one that pins needs page-aligned areas. @throws IommufdError EADDRINUSE */
  *addAccess(agent: Agent, access: AccessUnmap, alignment: bigint): Task<void> {
    yield* this.#lockBoth(agent);
    try {
      this.layout.checkAlignment(alignment);
      this.#accesses.set(access, alignment);
      this.#realign();
    } finally {
      this.#unlockBoth(agent);
    }
  }

  /** Forgets an access, which has no pins any more. */
  *removeAccess(agent: Agent, access: AccessUnmap): Task<void> {
    yield* this.#lockBoth(agent);
    this.#accesses.delete(access);
    this.#realign();
    this.#unlockBoth(agent);
  }

  /** Areas that domains map; those being made or torn down are another task's. */
  #mappedAreas(): Area[] {
    return this.layout.areas.areas().filter((area) => area.state === 'mapped');
  }

  #realign(): void {
    let alignment = this.#largePages ? 1n : 4096n;
    for (const each of [...this.#minPageSizes.values(), ...this.#accesses.values()])
      if (each > alignment) alignment = each;
    this.layout.alignment = alignment;
  }

  *#lockBoth(agent: Agent): Task<void> {
    yield* this.#domainsRwsem.acquireWrite(agent);
    yield* this.#iovaRwsem.acquireWrite(agent);
  }

  #unlockBoth(agent: Agent): void {
    this.#iovaRwsem.releaseWrite(agent);
    this.#domainsRwsem.releaseWrite(agent);
  }
}

/** Times that an unmap asks accesses for their pins before it gives up, as Linux. */
const MAX_ACCESS_TRIES = 100;

function* nothing(): Task<void> {}
