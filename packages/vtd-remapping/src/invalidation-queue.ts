import { type Agent, Condition, Cost, Location, Mutex, type Task } from '@faultline/sim';
import { type Descriptor, decodeDescriptor, encodeDescriptor } from './descriptor.ts';

/** Carries out what the queue holds; the remapping unit implements it. */
export interface InvalidationExecutor {
  /** One descriptor other than a wait. */
  execute(agent: Agent, descriptor: Descriptor): Task<void>;
  /** Everything that must be over before a wait completes: DMA that used what was invalidated. */
  drain(agent: Agent): Task<void>;
}

/** Where the driver keeps the status words of its waits: one per slot, as Linux's `desc_status`. */
const STATUS_BASE = 0xfee0_0000_0000n;
const STATUS_DONE = 2;

/**
 * The invalidation queue (VT-d Rev 5.10, 6.5.2): a ring of 128-bit descriptors. {@link submit} is the driver's side (as
 * Linux's qi_submit_sync: descriptors, then a wait with status write, then poll); {@link run} is the hardware's and runs as
 * a task of its own, in order, one descriptor at a time.
 */
export class InvalidationQueue {
  readonly #ring: BigUint64Array;
  readonly #status: Int32Array;
  readonly #entries: number;
  readonly #location: number;
  readonly #lock: Mutex;
  readonly #work: Condition;
  readonly #room: Condition;
  #head = 0;
  #tail = 0;
  /** Oldest slot that its writer still needs; slots are given back in order, as Linux's `free_tail`. */
  #free = 0;
  /** By slot: 1 once nobody needs it, though an older one may still be needed. */
  readonly #released: Uint8Array;
  /** By slot: 1 if nobody waits for the descriptor, so that the hardware gives the slot back. */
  readonly #unowned: Uint8Array;
  /** Slots that the submitter at the front of the queue lock asks for. */
  #wanted = 0;
  #error = false;
  #executed = 0;
  #waits = 0;

  /**
   * @param location the unit's number, for steps @param entries ring size, a power of two; Linux uses 256
   * @throws RangeError for a size that is no power of two of at least 4
   */
  constructor(location: number, entries = 256) {
    if (!Number.isInteger(Math.log2(entries)) || entries < 4)
      throw new RangeError(`entries: ${entries} is not a power of two of at least 4`);
    this.#entries = entries;
    this.#location = location;
    this.#ring = new BigUint64Array(entries * 2);
    this.#status = new Int32Array(entries);
    this.#released = new Uint8Array(entries);
    this.#unowned = new Uint8Array(entries);
    this.#lock = new Mutex('invalidation queue lock');
    this.#work = new Condition('invalidation queue: work', () => this.#head !== this.#tail && !this.#error);
    this.#room = new Condition('invalidation queue: room', () => this.#vacant >= this.#wanted);
  }

  /** Descriptors executed, waits not counted. */
  get executed(): number {
    return this.#executed;
  }

  /** Waits completed: one per submission. */
  get waits(): number {
    return this.#waits;
  }

  /** IQE: the descriptor at the head is bad and nothing is fetched. */
  get error(): boolean {
    return this.#error;
  }

  /** Whether everything submitted was executed. */
  get idle(): boolean {
    return this.#head === this.#tail;
  }

  /** Slots that can be written: one is left empty, since a full ring would look like an empty one. */
  get #vacant(): number {
    return this.#entries - 1 - ((this.#tail - this.#free + this.#entries) % this.#entries);
  }

  /**
   * Writes the descriptors and a wait, moves the tail, and returns once the wait's status is written.
   * @throws RangeError for more descriptors than the ring can ever hold together with their wait
   */
  *submit(agent: Agent, descriptors: readonly Descriptor[]): Task<void> {
    const count = descriptors.length + 1;
    if (count >= this.#entries)
      throw new RangeError(`descriptors: ${descriptors.length} and a wait do not fit a ring of ${this.#entries}`);
    yield* this.#lock.acquire(agent);
    this.#wanted = count;
    while (!this.#room.ready()) yield agent.waits('room in the invalidation queue', this.#room);
    yield agent.writes('write descriptors', Location.invalidationQueue, this.#location, Cost.invalidationSubmit);
    const first = this.#tail;
    for (const descriptor of descriptors) this.#append(descriptor);
    const slot = this.#tail;
    this.#status[slot] = 0;
    this.#append({
      type: 'wait',
      statusAddress: STATUS_BASE + BigInt(slot) * 4n,
      statusData: STATUS_DONE,
      statusWrite: true,
      interrupt: false,
      fence: false,
      pageRequestDrain: false,
    });
    this.#lock.release(agent);
    this.#work.wake();
    const done = new Condition('invalidation wait', () => this.#status[slot] === STATUS_DONE);
    this.#waiting.set(slot, done);
    while (!done.ready()) yield agent.waits('wait for the invalidation', done);
    this.#waiting.delete(slot);
    for (let i = 0; i < count; i++) this.#released[(first + i) % this.#entries] = 1;
    this.#reclaimSlots();
  }

  #reclaimSlots(): void {
    while (this.#released[this.#free] === 1) {
      this.#released[this.#free] = 0;
      this.#free = (this.#free + 1) % this.#entries;
    }
    this.#room.wake();
  }

  readonly #waiting = new Map<number, Condition>();

  /** Writes a raw descriptor with no wait, as a driver with a bug may. */
  writeRaw(lo: bigint, hi: bigint): void {
    this.#unowned[this.#tail] = 1;
    this.#write(lo, hi);
    this.#work.wake();
  }

  #write(lo: bigint, hi: bigint): void {
    this.#ring[this.#tail * 2] = lo;
    this.#ring[this.#tail * 2 + 1] = hi;
    this.#tail = (this.#tail + 1) % this.#entries;
  }

  /** The hardware: fetches and executes for ever. @param onError called when a bad descriptor stops the queue (IQE) */
  *run(agent: Agent, executor: InvalidationExecutor, onError: () => void): Task<void> {
    for (;;) {
      while (!this.#work.ready()) yield agent.waits('idle', this.#work);
      yield agent.writes('fetch descriptor', Location.invalidationQueue, this.#location, Cost.free);
      const index = this.#head;
      const descriptor = decodeDescriptor(this.#ring[index * 2] as bigint, this.#ring[index * 2 + 1] as bigint);
      if (descriptor === null) {
        this.#error = true; // the head stays on the bad descriptor
        onError();
        continue;
      }
      this.#head = (index + 1) % this.#entries;
      if (this.#unowned[index] === 1) {
        this.#unowned[index] = 0;
        this.#released[index] = 1;
        this.#reclaimSlots();
      }
      if (descriptor.type !== 'wait') {
        yield* executor.execute(agent, descriptor);
        this.#executed++;
        continue;
      }
      yield* executor.drain(agent);
      yield agent.writes('write wait status', Location.invalidationQueue, this.#location, Cost.free);
      if (!descriptor.statusWrite) continue;
      const slot = Number((descriptor.statusAddress - STATUS_BASE) / 4n);
      this.#status[slot] = descriptor.statusData;
      this.#waits++;
      this.#waiting.get(slot)?.wake();
    }
  }

  #append(descriptor: Descriptor): void {
    const [lo, hi] = encodeDescriptor(descriptor);
    this.#write(lo, hi);
  }
}
