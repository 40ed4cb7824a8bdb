import { hex } from '@faultline/address';
import { type Agent, Condition, Cost, Location, Mutex, type Task } from '@faultline/sim';
import type { TableMemory } from '@faultline/vtd-pagetable';
import type { Descriptor, WaitDescriptor } from './descriptor.ts';
import { encodeDescriptor, QueueErrorInfo } from './descriptor-encoding.ts';
import { FaultStatus } from './fault-recording.ts';
import { Register } from './register-offset.ts';
import type { RegisterFile } from './registers.ts';

/** An invalidation that the hardware refused, or that a device never answered. */
export class InvalidationError extends Error {
  /** `EINVAL`: a bad descriptor. `ETIMEDOUT`: a device that does not answer. */
  readonly code: 'EINVAL' | 'ETIMEDOUT';
  /** Of `ETIMEDOUT`: requester id of the device that did not answer last (IQERCD.ITESID); else null. */
  readonly silent: number | null;

  constructor(code: 'EINVAL' | 'ETIMEDOUT', message: string, silent: number | null = null) {
    super(`${code}: ${message}`);
    this.code = code;
    this.silent = silent;
  }
}

/** Options of {@link QueuedInvalidation}. */
export interface QueuedInvalidationOptions {
  readonly memory: TableMemory;
  readonly registers: RegisterFile;
  /** The unit's number, for steps. */
  readonly location: number;
  /** 256-bit descriptors, which scalable mode demands. */
  readonly wide: boolean;
  /** Ring size, 2^(QS+8), or 2^(QS+7) of wide descriptors; default 256, as Linux sets it up. */
  readonly entries?: number;
  /** Calls back when the hardware wrote a status word or stopped. */
  readonly observe: (observer: () => void) => void;
}

const IN_USE = 1;
const DONE = 2;
const ABORTED = 3;
/** How often a submission that met a time-out is made again before it is given up. */
const RESUBMISSIONS = 3;
const RING_DEFAULT = 256;
/** Status words in a page. */
const STATUS_WORDS = 1024;

/** The wait that a bad descriptor is replaced by: it writes nothing. */
const HARMLESS: WaitDescriptor = {
  type: 'wait',
  statusAddress: 0n,
  statusData: 0,
  statusWrite: false,
  interrupt: false,
  fence: false,
  pageRequestDrain: false,
};

/** What one {@link QueuedInvalidation.submit} may ask for. */
export interface SubmitOptions {
  /** PD of the wait: order it behind the page requests that the unit has received. */
  readonly drainPageRequests?: boolean;
}

/**
 * The driver's side of an invalidation queue, as Linux's qi_submit_sync: descriptors and a wait with status write go into the ring,
 * the tail moves, and the caller polls its status word, under no lock that sleeps. On a time-out (ITE) the aborted submissions are made again, and
 * a bad descriptor (IQE) is taken out and reported to its submitter. What is wrong with the queue itself (its width, its tail,
 * its memory) is reported to everybody, from then on.
 */
export class QueuedInvalidation {
  readonly entries: number;
  readonly #options: QueuedInvalidationOptions;
  readonly #ringPfn: number;
  readonly #statusPfn: number;
  readonly #wordsPerDescriptor: number;
  readonly #lock = new Mutex('invalidation queue lock', { spins: true });
  readonly #room: Condition;
  readonly #waiting = new Set<Condition>();
  #tail = 0;
  /** Oldest slot that its submitter still needs; slots are given back in order, as Linux's `free_tail`. */
  #free = 0;
  /** By slot: 1 once nobody needs it, though an older one may still be needed. */
  readonly #released: Uint8Array;
  /** Slots that the submitter at the front of the lock asks for. */
  #wanted = 0;
  /** Why the hardware will fetch nothing any more, or null. */
  #broken: string | null = null;
  /** Requester of the last time-out. */
  #silent = 0;

  /** @throws RangeError for a ring size that QS cannot say, or if memory is short */
  constructor(options: QueuedInvalidationOptions) {
    const { memory, wide, entries = RING_DEFAULT } = options;
    const least = wide ? 128 : 256;
    const queueSize = Math.log2(entries / least);
    if (!Number.isInteger(queueSize) || queueSize < 0 || queueSize > 7)
      throw new RangeError(`entries: ${entries} is not a power of two in ${least}..${least * 128}`);
    this.#options = options;
    this.entries = entries;
    this.#wordsPerDescriptor = wide ? 4 : 2;
    const pages = 2 ** queueSize;
    this.#ringPfn = memory.allocateContiguous(pages);
    this.#statusPfn = memory.allocateContiguous(Math.ceil(entries / STATUS_WORDS));
    if (this.#ringPfn < 0 || this.#statusPfn < 0) throw new RangeError('memory: no pages for the invalidation queue');
    this.#released = new Uint8Array(entries);
    this.#room = new Condition('invalidation queue: room', () => this.#vacant >= this.#wanted || this.#broken !== null);
    options.observe(() => this.#poll());
    options.registers.write64(Register.IQT, 0n);
    options.registers.write64(Register.IQA, (BigInt(this.#ringPfn) << 12n) | (wide ? 0x800n : 0n) | BigInt(queueSize));
  }

  /** Slots that can be written: one is left empty, since a full ring would look like an empty one. */
  get #vacant(): number {
    return this.entries - 1 - ((this.#tail - this.#free + this.entries) % this.entries);
  }

  /**
   * Writes the descriptors and a wait, moves the tail, and returns once the wait's status is written.
   * @throws RangeError for more descriptors than the ring can hold together with their wait, or a value that does not fit its field
   * @throws InvalidationError EINVAL if the hardware takes one for invalid or the queue has stopped, ETIMEDOUT if a device does
   * not answer
   */
  *submit(agent: Agent, descriptors: readonly Descriptor[], options: SubmitOptions = {}): Task<void> {
    const count = descriptors.length + 1;
    if (count >= this.entries)
      throw new RangeError(`descriptors: ${descriptors.length} and a wait do not fit a ring of ${this.entries}`);
    const encoded = descriptors.map(encodeDescriptor);
    for (let attempt = 0; ; attempt++) {
      const first = yield* this.#write(agent, encoded, options);
      const outcome = yield* this.#await(agent, first, count);
      for (let i = 0; i < count; i++) this.#released[(first + i) % this.entries] = 1;
      this.#reclaimSlots();
      if (outcome.invalid !== null) throw new InvalidationError('EINVAL', outcome.invalid);
      if (outcome.status === DONE) return;
      if (attempt === RESUBMISSIONS)
        throw new InvalidationError(
          'ETIMEDOUT',
          `device ${hex(this.#silent)} does not answer device-TLB invalidations, made ${attempt + 1} times`,
          this.#silent,
        );
    }
  }

  /** Takes the lock, waits for room, writes and moves the tail. @returns the first slot */
  *#write(agent: Agent, descriptors: readonly Encoded[], options: SubmitOptions): Task<number> {
    yield* this.#lock.acquire(agent);
    this.#wanted = descriptors.length + 1;
    while (!this.#room.ready()) yield agent.spins('room in the invalidation queue', this.#room);
    if (this.#broken !== null) {
      this.#lock.release(agent);
      throw new InvalidationError('EINVAL', this.#broken);
    }
    const { location, registers } = this.#options;
    yield agent.writes('write descriptors', Location.invalidationQueue, location, Cost.invalidationSubmit);
    const first = this.#tail;
    for (const descriptor of descriptors) this.#append(descriptor);
    const slot = this.#tail;
    this.#setStatus(slot, IN_USE);
    this.#append(encodeDescriptor({ ...this.#waitFor(slot), pageRequestDrain: options.drainPageRequests ?? false }));
    registers.write64(Register.IQT, BigInt(this.#tail * this.#wordsPerDescriptor * 8));
    this.#lock.release(agent);
    return first;
  }

  /** Polls the status word of the wait at the end of a submission, and looks after the queue if it has stopped. */
  *#await(agent: Agent, first: number, count: number): Task<{ status: number; invalid: string | null }> {
    const slot = (first + count - 1) % this.entries;
    const concerns = new Condition(
      'invalidation wait',
      () => this.#status(slot) !== IN_USE || this.#needsService(first, count),
    );
    let invalid: string | null = null;
    this.#waiting.add(concerns);
    while (this.#status(slot) === IN_USE) {
      yield agent.spins('wait for the invalidation', concerns);
      if (this.#status(slot) !== IN_USE) break;
      yield agent.writes('serve the invalidation queue', Location.invalidationQueue, this.#options.location, Cost.free);
      invalid = this.#service(first, count) ?? invalid;
      if (this.#broken !== null) break;
    }
    this.#waiting.delete(concerns);
    const status = this.#status(slot);
    return { status, invalid: status === IN_USE ? this.#broken : invalid };
  }

  /** Whether the queue has stopped at one of these slots, or for a time-out or an error of its own, which concern everybody. */
  #needsService(first: number, count: number): boolean {
    const status = this.#options.registers.read32(Register.FSTS);
    if ((status & FaultStatus.timeout) !== 0) return true;
    if ((status & FaultStatus.queueError) === 0) return false;
    if (!isOfDescriptor(this.#errorInfo)) return true;
    return (this.#headSlot - first + this.entries) % this.entries < count;
  }

  /** What Linux's qi_check_fault does. @returns what was wrong with a descriptor of these slots, else null */
  #service(first: number, count: number): string | null {
    const { registers } = this.#options;
    if (!this.#needsService(first, count)) return null;
    const status = registers.read32(Register.FSTS);
    if ((status & FaultStatus.timeout) !== 0) {
      // Nothing from the oldest pending device-TLB invalidation on is sure to have run: all that was fetched is made again.
      for (let slot = this.#free; slot !== this.#headSlot; slot = (slot + 1) % this.entries)
        if (this.#status(slot) === IN_USE) this.#setStatus(slot, ABORTED);
      this.#silent = Number((registers.read64(Register.IQERCD) >> 32n) & 0xffffn);
      registers.write32(Register.FSTS, FaultStatus.timeout);
      this.#poll();
      return null;
    }
    const info = this.#errorInfo;
    if (!isOfDescriptor(info)) {
      this.#broken = `the invalidation queue has stopped (IQEI ${info})`;
      this.#room.wake();
      return this.#broken;
    }
    const slot = this.#headSlot;
    const isWait = (slot - first + this.entries) % this.entries === count - 1;
    this.#put(slot, encodeDescriptor(isWait ? this.#waitFor(slot) : HARMLESS));
    registers.write32(Register.FSTS, FaultStatus.queueError);
    return `descriptor ${(slot - first + this.entries) % this.entries} of the submission was refused (IQEI ${info})`;
  }

  /** The wait at the end of a submission; its status word has the number of its slot. */
  #waitFor(slot: number): WaitDescriptor {
    const statusAddress = (BigInt(this.#statusPfn) << 12n) + BigInt(slot) * 4n;
    return { ...HARMLESS, statusAddress, statusData: DONE, statusWrite: true };
  }

  get #errorInfo(): number {
    return Number(this.#options.registers.read64(Register.IQERCD) & 0xfn);
  }

  get #headSlot(): number {
    return Number(this.#options.registers.read64(Register.IQH)) / (this.#wordsPerDescriptor * 8);
  }

  #reclaimSlots(): void {
    while (this.#released[this.#free] === 1) {
      this.#released[this.#free] = 0;
      this.#setStatus(this.#free, 0);
      this.#free = (this.#free + 1) % this.entries;
    }
    this.#room.wake();
  }

  #poll(): void {
    for (const condition of this.#waiting) if (condition.ready()) condition.wake();
  }

  #append(descriptor: Encoded): void {
    this.#put(this.#tail, descriptor);
    this.#tail = (this.#tail + 1) % this.entries;
  }

  #put(slot: number, [lo, hi]: Encoded): void {
    const { memory } = this.#options;
    const word = slot * this.#wordsPerDescriptor;
    const pfn = this.#ringPfn + Math.floor(word / 512);
    memory.store(pfn, word % 512, lo);
    memory.store(pfn, (word % 512) + 1, hi);
    for (let i = 2; i < this.#wordsPerDescriptor; i++) memory.store(pfn, (word % 512) + i, 0n);
  }

  #status(slot: number): number {
    return this.#options.memory.cpuHalves[this.#statusIndex(slot)] as number;
  }

  #setStatus(slot: number, status: number): void {
    this.#options.memory.cpuHalves[this.#statusIndex(slot)] = status;
  }

  #statusIndex(slot: number): number {
    return (this.#statusPfn - this.#options.memory.basePfn) * STATUS_WORDS + slot;
  }
}

type Encoded = ReturnType<typeof encodeDescriptor>;

/** Whether an IQEI is about one descriptor; the others stop the queue for good. */
const isOfDescriptor = (info: number): boolean =>
  info === QueueErrorInfo.invalidType || info === QueueErrorInfo.reservedField;
