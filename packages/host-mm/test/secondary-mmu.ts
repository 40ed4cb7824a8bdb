import { type Agent, assert, Cost, Location, Mutex, type Task } from '@faultline/sim';
import {
  type AddressSpace,
  type MmuNotifier,
  type NotifierRange,
  type PhysicalMemory,
  VM_FAULT_ERROR,
} from '../src/index.ts';

/** A device's page table, kept in step by the sequence protocol: what iommufd does, at its simplest. */
export class SecondaryMmu implements MmuNotifier {
  readonly translations = new Map<number, number>();
  readonly starts: NotifierRange[] = [];
  readonly #lock = new Mutex('secondary mmu lock');
  readonly #mm: AddressSpace;
  readonly #memory: PhysicalMemory;
  released = false;
  retries = 0;

  constructor(mm: AddressSpace, memory: PhysicalMemory) {
    this.#mm = mm;
    this.#memory = memory;
    mm.registerNotifier(this);
  }

  /** Answers EAGAIN rather than sleep on its lock where it must not. */
  *invalidateRangeStart(agent: Agent, range: NotifierRange): Task<boolean> {
    if (range.blockable) yield* this.#lock.acquire(agent);
    yield agent.spends('tear down', Cost.entryWrite);
    if (!range.blockable && this.#lock.owner !== null) return false;
    this.starts.push(range);
    for (const page of [...this.translations.keys()])
      if (page >= range.startPage && page < range.startPage + range.pages) this.translations.delete(page);
    if (range.blockable) this.#lock.release(agent);
    return true;
  }

  *release(agent: Agent): Task<void> {
    yield* this.#lock.acquire(agent);
    this.translations.clear();
    this.released = true;
    this.#lock.release(agent);
  }

  /** DMA write of a tag. The write happens on the last resume, so the caller may note it. @returns whether it was made */
  *dmaWrite(agent: Agent, page: number, tagLo: number): Task<boolean> {
    for (;;) {
      yield agent.spends('dma', Cost.dmaBase);
      const pfn = this.translations.get(page);
      if (pfn !== undefined) {
        // I1: what the device can reach is what the CPU maps.
        assert(this.#mm.lookup(page) === pfn, 'stale translation');
        this.#memory.writeTag(pfn, tagLo, ~tagLo);
        return true;
      }
      if (!(yield* this.#fault(agent, page))) return false;
    }
  }

  *#fault(agent: Agent, page: number): Task<boolean> {
    const seq = yield* this.#mm.notifierReadBegin(agent, page);
    yield* this.#mm.mmapLock.acquireRead(agent);
    const bits = yield* this.#mm.handleMmFault(agent, page, { write: true });
    yield agent.reads('look up', Location.cpuEntry, this.#mm.entryLocation(page), Cost.entryRead);
    const pfn = this.#mm.lookup(page);
    this.#mm.mmapLock.releaseRead(agent);
    if ((bits & VM_FAULT_ERROR) !== 0) return false;
    yield* this.#lock.acquire(agent);
    yield agent.reads('retry?', Location.notifierSequence, this.#mm.notifierLocation, Cost.free);
    // After the release nobody says any more what becomes invalid.
    if (this.released) {
      this.#lock.release(agent);
      return false;
    }
    if (pfn < 0 || this.#mm.notifierReadRetry(page, seq)) {
      this.retries++;
    } else {
      yield agent.spends('install', Cost.entryWrite);
      this.translations.set(page, pfn);
    }
    this.#lock.release(agent);
    return true;
  }
}
