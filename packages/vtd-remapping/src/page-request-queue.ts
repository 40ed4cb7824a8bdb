import { Condition } from '@faultline/sim';
import type { TableMemory } from '@faultline/vtd-pagetable';
import type { EventInterrupt } from './event-interrupt.ts';
import { encodePageRequest, isStopMarker, type PageRequest } from './page-request.ts';

/** What became of a request that a device sent. */
export type PageRequestOutcome = 'queued' | 'dropped' | 'answered-success';

/** Bits of PRS (VT-d Rev 5.10, 11.4.11.4). */
export const PageRequestStatus = {
  /** PPR: something was written to the queue. */
  pending: 1 << 0,
  /** PRO. */
  overflow: 1 << 1,
} as const;

const DESCRIPTOR_BYTES = 32;
const ADDRESS_BITS = ~0xfffn & 0xffff_ffff_ffff_ffffn;

/** The hardware's side of the page request queue: a ring of 32-byte descriptors in memory (7.4.1). */
export class PageRequestQueue {
  readonly #memory: TableMemory;
  readonly #event: EventInterrupt;
  readonly #limit: number;
  #address = 0n;
  /** Byte offsets as they were last written, which need not be inside the ring. */
  #head = 0;
  #tail = 0;
  #status = 0;
  #requests = 0;
  #overflows = 0;
  /** The event of 7.5 has been raised since {@link acknowledge}: what a driver's thread sleeps on. */
  readonly interrupt: Condition;
  #isRaised = false;

  /** @param limit a queue smaller than a page holds, for tests of overflow: the most entries of the ring that are used, one of them empty */
  constructor(memory: TableMemory, event: EventInterrupt, limit = Number.POSITIVE_INFINITY) {
    this.#memory = memory;
    this.#event = event;
    this.#limit = limit;
    this.interrupt = new Condition('page request interrupt', () => this.#isRaised);
  }

  /** Requests written. */
  get requests(): number {
    return this.#requests;
  }

  /** Times that PRO was set. */
  get overflows(): number {
    return this.#overflows;
  }

  /** Entries of the ring: 2^(PQS+7). */
  get entries(): number {
    return 2 ** (Number(this.#address & 7n) + 7);
  }

  /** PQA. */
  get address(): bigint {
    return this.#address;
  }

  /** PQH, in bytes. */
  get head(): number {
    return this.#head;
  }

  /** PQT, in bytes. */
  get tail(): number {
    return this.#tail;
  }

  /** PRS. */
  get status(): number {
    return this.#status;
  }

  /** A write to PQA. */
  setAddress(value: bigint): void {
    this.#address = value & (ADDRESS_BITS | 7n);
  }

  /** A write to PQH: software has taken requests. */
  setHead(offset: number): void {
    this.#head = offset;
  }

  /** A write to PQT, as software does once to set the queue up. */
  setTail(offset: number): void {
    this.#tail = offset;
  }

  /** A write to PRS: PPR and PRO written as 1 are cleared. */
  clearStatus(value: number): void {
    this.#status &= ~(value & (PageRequestStatus.pending | PageRequestStatus.overflow));
    if (this.#status === 0) this.#event.settle();
  }

  /**
   * The driver's thread begins. The event is an edge: it is raised by the first of PPR and PRO only, while both were clear, and by nothing
   * as long as one of them is set. So whoever leaves one set is not woken again.
   */
  acknowledge(): void {
    this.#isRaised = false;
  }

  /** Whether {@link write} would have no room, or PRO keeps it from writing. */
  get blocked(): boolean {
    return (this.#status & PageRequestStatus.overflow) !== 0 || this.#full;
  }

  get #full(): boolean {
    const { entries } = this;
    const used = (this.#entry(this.#tail) - this.#entry(this.#head) + entries) % entries;
    return used >= Math.min(entries, this.#limit) - 1;
  }

  /**
   * A request arrives that the tables allow. With no room PRO is set and nothing is recorded until software clears it; a last
   * request is then answered success by the unit itself, so that the device tries again, and others are dropped (table 31). A stop
   * marker is dropped in silence (ECAP.SMS).
   */
  write(request: PageRequest): PageRequestOutcome {
    if (this.blocked) {
      if ((this.#status & PageRequestStatus.overflow) === 0) {
        this.#overflows++;
        this.#setStatus(PageRequestStatus.overflow);
      }
      return request.last && !isStopMarker(request) ? 'answered-success' : 'dropped';
    }
    const entry = this.#entry(this.#tail);
    const pfn = Number(this.#address >> 12n) + (entry >>> 7);
    // A write that no memory takes is lost, and the tail moves all the same.
    if (this.#memory.contains(pfn)) {
      const word = (entry % 128) * 4;
      for (const [i, quadword] of [...encodePageRequest(request), 0n, 0n].entries())
        this.#memory.hardwareStore(pfn, word + i, quadword);
    }
    this.#tail = ((entry + 1) % this.entries) * DESCRIPTOR_BYTES;
    this.#requests++;
    this.#setStatus(PageRequestStatus.pending);
    return 'queued';
  }

  /** A head or tail beyond the ring, as a register write can leave it, is taken modulo its size. */
  #entry(offset: number): number {
    return (offset / DESCRIPTOR_BYTES) % this.entries;
  }

  #setStatus(status: number): void {
    const isQuiet = this.#status === 0;
    this.#status |= status;
    if (!isQuiet) return;
    this.#isRaised = true;
    this.#event.raise();
    this.interrupt.wake();
  }
}
