import { type Agent, Condition, Cost, Location, type Task } from '@faultline/sim';

/** A page request, as a device sends it and as the queue holds it (VT-d Rev 5.10, 7.4.1). */
export interface PageRequest {
  readonly sourceId: number;
  /** 4K page number of the address. */
  readonly page: number;
  readonly read: boolean;
  readonly write: boolean;
  /** LPIG: the last request of its group. */
  readonly last: boolean;
  /** PRGI, 9 bits, chosen by the device. */
  readonly groupIndex: number;
}

/** Page request descriptor, quadwords 0 and 1 of 4; the others are private data and zero. */
export function encodePageRequest(request: PageRequest): readonly [bigint, bigint] {
  return [
    1n | (BigInt(request.sourceId) << 16n),
    (request.read ? 1n : 0n) |
      (request.write ? 2n : 0n) |
      (request.last ? 4n : 0n) |
      (BigInt(request.groupIndex) << 3n) |
      (BigInt(request.page) << 12n),
  ];
}

/** Inverse of {@link encodePageRequest}; null if the descriptor type is not a page request. */
export function decodePageRequest(lo: bigint, hi: bigint): PageRequest | null {
  if ((lo & 0xffn) !== 1n) return null;
  return {
    sourceId: Number((lo >> 16n) & 0xffffn),
    page: Number(hi >> 12n),
    read: (hi & 1n) !== 0n,
    write: (hi & 2n) !== 0n,
    last: (hi & 4n) !== 0n,
    groupIndex: Number((hi >> 3n) & 0x1ffn),
  };
}

/** What became of a request that a device sent. */
export type PageRequestOutcome = 'queued' | 'dropped' | 'answered-success';

/** The page request queue: a ring of 32-byte descriptors between the unit (tail) and the driver (head). */
export class PageRequestQueue {
  readonly #ring: BigUint64Array;
  readonly #capacity: number;
  readonly #location: number;
  #head = 0;
  #tail = 0;
  #overflow = false;
  #requests = 0;
  #overflows = 0;
  /** Ready while the driver has something to read, an overflow included. */
  readonly pending: Condition;

  /** @param entries a power of two; Linux: 2048 @param location for steps, the unit's number */
  constructor(entries: number, location: number) {
    if (!Number.isInteger(Math.log2(entries)) || entries < 2)
      throw new RangeError(`entries: ${entries} is not a power of two of at least 2`);
    this.#ring = new BigUint64Array(entries * 4);
    this.#capacity = entries;
    this.#location = location;
    this.pending = new Condition('page request queue', () => this.#head !== this.#tail || this.#overflow);
  }

  /** Requests written to the queue. */
  get requests(): number {
    return this.#requests;
  }

  /** Times that PRS.PRO was set. */
  get overflows(): number {
    return this.#overflows;
  }

  /** PRS.PRO: while set, nothing is recorded. */
  get overflowed(): boolean {
    return this.#overflow;
  }

  /**
   * Hardware side, in one step that the caller announced. When the queue overflowed or is full a request without LPIG is dropped and one
   * with LPIG is answered success by the unit, so that the device asks again (Rev 5.10, table 31).
   */
  write(request: PageRequest): PageRequestOutcome {
    if (!this.#overflow && ((this.#tail + 1) & (this.#capacity - 1)) === this.#head) {
      this.#overflow = true;
      this.#overflows++;
    }
    if (this.#overflow) {
      this.pending.wake();
      return request.last ? 'answered-success' : 'dropped';
    }
    const [lo, hi] = encodePageRequest(request);
    this.#ring[this.#tail * 4] = lo;
    this.#ring[this.#tail * 4 + 1] = hi;
    this.#tail = (this.#tail + 1) & (this.#capacity - 1);
    this.#requests++;
    this.pending.wake();
    return 'queued';
  }

  /**
   * Driver side: waits for work, takes head .. tail as read once, and moves the head. After it has taken everything and PRO
   * is set, `overflowed` tells that partial groups must be thrown away before {@link clearOverflow}.
   */
  *take(agent: Agent): Task<{ readonly requests: readonly PageRequest[]; readonly overflowed: boolean }> {
    while (!this.pending.ready()) yield agent.waits('page request interrupt', this.pending);
    yield agent.writes('read page requests', Location.pageRequestQueue, this.#location, Cost.entryRead);
    const requests: PageRequest[] = [];
    while (this.#head !== this.#tail) {
      const request = decodePageRequest(this.#ring[this.#head * 4] as bigint, this.#ring[this.#head * 4 + 1] as bigint);
      if (request) requests.push(request);
      this.#head = (this.#head + 1) & (this.#capacity - 1);
    }
    return { requests, overflowed: this.#overflow };
  }

  /** Driver side: clears PRO; legal only with an empty queue, on a fresh read. @returns false if something came in between */
  clearOverflow(): boolean {
    if (this.#head !== this.#tail) return false;
    this.#overflow = false;
    return true;
  }
}
