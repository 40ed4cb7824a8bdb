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
  /** Descriptor numbers; the registers hold byte offsets. */
  #head = 0;
  #tail = 0;
  #status = 0;
  #requests = 0;
  #overflows = 0;
  /** The interrupt line as a driver's thread sees it: something is pending. */
  readonly pending: Condition;

  /** @param limit a queue smaller than a page holds, for tests of overflow: the most entries of the ring that are used, one of them empty */
  constructor(memory: TableMemory, event: EventInterrupt, limit = Number.POSITIVE_INFINITY) {
    this.#memory = memory;
    this.#event = event;
    this.#limit = limit;
    this.pending = new Condition('page request interrupt', () => this.#status !== 0);
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
    return this.#head * DESCRIPTOR_BYTES;
  }

  /** PQT, in bytes. */
  get tail(): number {
    return this.#tail * DESCRIPTOR_BYTES;
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
    this.#head = (offset >>> 5) % this.entries;
  }

  /** A write to PQT, as software does once to set the queue up. */
  setTail(offset: number): void {
    this.#tail = (offset >>> 5) % this.entries;
  }

  /** A write to PRS: PPR and PRO written as 1 are cleared. */
  clearStatus(value: number): void {
    this.#status &= ~(value & (PageRequestStatus.pending | PageRequestStatus.overflow));
    if (this.#status === 0) this.#event.settle();
  }

  /** Whether {@link write} would have no room, or PRO keeps it from writing. */
  get blocked(): boolean {
    return (this.#status & PageRequestStatus.overflow) !== 0 || this.#full;
  }

  get #full(): boolean {
    const { entries } = this;
    const used = (this.#tail - this.#head + entries) % entries;
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
      this.pending.wake();
      return request.last && !isStopMarker(request) ? 'answered-success' : 'dropped';
    }
    const word = Number((this.#address & ADDRESS_BITS) >> 3n) + this.#tail * 4;
    const pfn = Math.floor(word / 512);
    if (this.#memory.contains(pfn)) {
      const [lo, hi] = encodePageRequest(request);
      this.#memory.hardwareStore(pfn, word % 512, lo);
      this.#memory.hardwareStore(pfn, (word % 512) + 1, hi);
      this.#memory.hardwareStore(pfn, (word % 512) + 2, 0n);
      this.#memory.hardwareStore(pfn, (word % 512) + 3, 0n);
    }
    this.#tail = (this.#tail + 1) % this.entries;
    this.#requests++;
    this.#setStatus(PageRequestStatus.pending);
    this.pending.wake();
    return 'queued';
  }

  #setStatus(status: number): void {
    const isQuiet = this.#status === 0;
    this.#status |= status;
    if (isQuiet) this.#event.raise();
  }
}
