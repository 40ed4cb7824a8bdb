import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { checkPageRange } from '../argument.ts';
import { freshBits, newAnonymousFolio } from '../fault/anonymous.ts';
import { type UserfaultMessage, UserfaultQueue } from '../fault/userfault.ts';
import { allocateFolio } from '../frame/allocate-folio.ts';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import { carveMappings } from '../mm/carve.ts';
import { canChangeWriteable, changeProtection } from '../mm/change-protection.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';
import { moveRange } from './userfault-move.ts';

/** What is reported (UFFDIO_REGISTER_MODE_MISSING and _WP). */
export interface UserfaultModes {
  readonly missing?: boolean;
  readonly wp?: boolean;
}

/**
 * The userfaultfd of an address space: faults on missing pages of ranges that are registered, and writes to pages that it write-protects, wait until
 * its owner has dealt with them. For private anonymous memory; memfds and hugetlb are refused. Made by `AddressSpace.userfaultfd`.
 *
 * ```ts
 * const uffd = mm.userfaultfd();
 * yield* uffd.register(agent, 0x1000, 512);
 * const { page } = yield* uffd.read(agent);
 * yield* uffd.copy(agent, page, { tagLo: 42, tagHi: 0 });
 * ```
 */
export class Userfaultfd {
  readonly #host: HostState;
  readonly #mm: MmState;
  readonly #queue: UserfaultQueue;

  /** @internal */
  constructor(host: HostState, mm: MmState) {
    this.#host = host;
    this.#mm = mm;
    mm.userfaults ??= new UserfaultQueue();
    this.#queue = mm.userfaults;
  }

  /** Messages that can be read now. */
  get pending(): number {
    return this.#queue.pending;
  }

  /** Faults that wait. */
  get waiters(): number {
    return this.#queue.waiters;
  }

  /** Waits for a message and takes it. */
  read(agent: Agent): Task<UserfaultMessage> {
    return this.#queue.read(agent);
  }

  /** Lets faults in the range go on and look again (UFFDIO_WAKE); part of the caller's step. */
  wake(startPage: number, pages: number): void {
    checkPageRange({ startPage, pages });
    this.#queue.wake(startPage, pages);
  }

  /**
   * Has faults in the range reported from now on (UFFDIO_REGISTER); missing pages if `modes` is left out. Mappings are split at its ends. Fires nothing,
   * but for a large leaf across an end. @throws HostMemoryError EINVAL for a hole, a memfd, hugetlb, or no mode
   */
  *register(agent: Agent, startPage: number, pages: number, modes: UserfaultModes = { missing: true }): Task<void> {
    const { missing = false, wp = false } = modes;
    if (!missing && !wp)
      throw new HostMemoryError('EINVAL', startPage, 'register: neither missing nor wp is asked for');
    yield* this.#carved(agent, startPage, pages, 'register', (vma) => {
      vma.userfaultMissing = missing;
      vma.userfaultWp = wp;
      return null;
    });
  }

  /** Ends that (UFFDIO_UNREGISTER): lifts write protection, with PROTECTION_VMA over each mapping that had it, and wakes the faults. */
  *unregister(agent: Agent, startPage: number, pages: number): Task<void> {
    const host = this.#host;
    yield* this.#carved(agent, startPage, pages, 'unregister', function* (vma) {
      if (vma.userfaultWp) yield* changeProtection(host, agent, vma, vma, liftWp(vma));
      vma.userfaultWp = false;
      vma.userfaultMissing = false;
    });
    this.#queue.wake(startPage, pages);
  }

  /**
   * Fills a missing page (UFFDIO_COPY) and wakes who waits for it. Fires nothing.
   * @param content the page's tag, as int32 halves; `wp`: write-protected at once (UFFDIO_COPY_MODE_WP)
   * @throws HostMemoryError EEXIST if something is there, ENOENT if it is not registered, EINVAL for `wp` without it, ENOMEM
   */
  *copy(
    agent: Agent,
    page: number,
    content: { readonly tagLo: number; readonly tagHi: number; readonly wp?: boolean },
  ): Task<void> {
    checkPageRange({ startPage: page, pages: 1 });
    const { wp = false, tagLo, tagHi } = content;
    yield* this.#mm.mmapLock.acquireRead(agent);
    try {
      yield* this.#fill(agent, page, { tagLo, tagHi, wp });
    } finally {
      this.#mm.mmapLock.releaseRead(agent);
    }
    this.#queue.wake(page, 1);
  }

  /** Fills a missing page with zeros (UFFDIO_ZEROPAGE), by a page of its own where Linux maps the shared zero page. Errors of {@link copy}. */
  zeropage(agent: Agent, page: number): Task<void> {
    return this.copy(agent, page, { tagLo: 0, tagHi: 0 });
  }

  *#fill(
    agent: Agent,
    page: number,
    content: { readonly tagLo: number; readonly tagHi: number; readonly wp: boolean },
  ): Task<void> {
    const { table, memcg } = this.#mm;
    const host = this.#host;
    const vma = this.#registered(page, 'copy');
    if (content.wp && !vma.userfaultWp)
      throw new HostMemoryError('EINVAL', page, `copy: ${hex(page)} is not registered for wp`);
    const pfn = yield* allocateFolio(host, agent, { order: 0, memcg });
    if (pfn < 0) throw new HostMemoryError('ENOMEM', page, `copy: no frame for page ${hex(page)}`);
    const folio = newAnonymousFolio(host, vma, page, pfn, 0);
    yield agent.writes('userfaultfd: copy content', Location.frame, pfn, Cost.pageCopy);
    host.memory.writeTag(pfn, content.tagLo, content.tagHi);
    yield agent.writes('userfaultfd: map page', Location.cpuEntry, this.#mm.entryLocation(page), Cost.entryWrite);
    if (table.flags(page) !== 0) {
      host.put(folio);
      throw new HostMemoryError('EEXIST', page, `copy: something is at page ${hex(page)}`);
    }
    const bits = freshBits(vma, true);
    const rights = vma.readable ? 0 : Entry.PROT_NONE;
    table.set(page, 0, pfn, content.wp ? (bits & ~Entry.WRITE) | Entry.UFFD_WP | rights : bits | rights);
    host.countMapped(this.#mm, folio, 0);
    host.lru.add(folio);
  }

  /**
   * Moves pages of this address space to a missing, registered range without a copy (UFFDIO_MOVE), and wakes who waits for them. Fires CLEAR over each
   * 4K that moves, or 2M where a whole leaf does; a folio that moves in part is split.
   * @throws HostMemoryError ENOENT for a page that is missing at the source or a target that is not registered, EEXIST if the target is taken, EBUSY for
   * a page that is shared or pinned, EINVAL for memory that is not private and anonymous or has other rights; pages before it have moved
   */
  *move(
    agent: Agent,
    pair: { readonly fromPage: number; readonly toPage: number; readonly pages: number },
  ): Task<void> {
    const { fromPage, toPage, pages } = pair;
    checkPageRange({ startPage: fromPage, pages });
    checkPageRange({ startPage: toPage, pages });
    yield* this.#mm.mmapLock.acquireRead(agent);
    try {
      yield* moveRange(this.#host, this.#mm, agent, pair);
    } finally {
      this.#mm.mmapLock.releaseRead(agent);
      this.#queue.wake(toPage, pages);
    }
  }

  /**
   * Write-protects what is present or in swap of a range that is registered for `wp`, or lifts that and wakes who waits (UFFDIO_WRITEPROTECT):
   * PROTECTION_VMA over each mapping's part. A page that is missing stays missing. @throws HostMemoryError ENOENT outside such ranges
   */
  *writeProtect(agent: Agent, startPage: number, pages: number, on: boolean): Task<void> {
    checkPageRange({ startPage, pages });
    const endPage = startPage + pages;
    yield* this.#mm.mmapLock.acquireRead(agent);
    try {
      const hole = this.#mm.vmas.firstHole(startPage, pages);
      if (hole >= 0) throw new HostMemoryError('ENOENT', hole, `writeProtect: page ${hex(hole)} is not mapped`);
      for (const vma of this.#mm.vmas.within(startPage, endPage)) {
        if (!vma.userfaultWp)
          throw new HostMemoryError('ENOENT', vma.startPage, `writeProtect: ${vma.name} is not registered for wp`);
        const span = { startPage: Math.max(startPage, vma.startPage), endPage: Math.min(endPage, vma.endPage) };
        yield* changeProtection(this.#host, agent, vma, span, on ? setWp : liftWp(vma));
      }
    } finally {
      this.#mm.mmapLock.releaseRead(agent);
    }
    if (!on) this.#queue.wake(startPage, pages);
  }

  *#carved(
    agent: Agent,
    startPage: number,
    pages: number,
    what: string,
    change: (vma: Vma) => Task<void> | null,
  ): Task<void> {
    checkPageRange({ startPage, pages });
    const endPage = startPage + pages;
    yield* this.#mm.mmapLock.acquireWrite(agent);
    try {
      const hole = this.#mm.vmas.firstHole(startPage, pages);
      if (hole >= 0) throw new HostMemoryError('EINVAL', hole, `${what}: page ${hex(hole)} is not mapped`);
      const refused = this.#mm.vmas.within(startPage, endPage).find((vma) => vma.file !== null || vma.shape.hugetlb);
      if (refused)
        throw new HostMemoryError('EINVAL', refused.startPage, `${what}: ${refused.name} is not anonymous memory`);
      for (const vma of yield* carveMappings(this.#host, this.#mm, agent, { startPage, endPage })) {
        const task = change(vma);
        if (task) yield* task;
      }
    } finally {
      this.#mm.mmapLock.releaseWrite(agent);
    }
  }

  #registered(page: number, what: string): Vma {
    const vma = this.#mm.vmas.find(page);
    if (vma === null || !(vma.userfaultMissing || vma.userfaultWp))
      throw new HostMemoryError('ENOENT', page, `${what}: page ${hex(page)} is not registered`);
    return vma;
  }
}

const IN_USE = Entry.PRESENT | Entry.SWAP | Entry.MIGRATION;

const setWp = (flags: number): number => ((flags & IN_USE) === 0 ? flags : (flags & ~Entry.WRITE) | Entry.UFFD_WP);

const liftWp =
  (vma: Vma) =>
  (flags: number): number => {
    const bits = flags & ~Entry.UFFD_WP;
    return (flags & Entry.PRESENT) !== 0 && canChangeWriteable(vma, bits) ? bits | Entry.WRITE : bits;
  };
