import { type Agent, Condition, Cost, Location, type Task } from '@faultline/sim';
import type { TableMemory } from '@faultline/vtd-pagetable';
import type { Descriptor, WaitDescriptor } from './descriptor.ts';
import {
  type DescriptorRules,
  decodeDescriptor,
  QueueErrorInfo,
  type QueueErrorInfoCode,
} from './descriptor-encoding.ts';
import type { EventInterrupt } from './event-interrupt.ts';
import { type FaultRecording, FaultStatus } from './fault-recording.ts';
import { TranslationMode } from './translation-mode.ts';

/** How a message to a device ended: an invalidation request, or a page group response, which has no completion. */
export type MessageOutcome = 'completed' | 'timed-out' | 'unexpected-completion';

/** What a queue needs of the unit that it belongs to. */
export interface InvalidationExecutor {
  /** One descriptor that concerns the unit's own caches. */
  execute(agent: Agent, descriptor: Descriptor): Task<void>;
  /** A message to a device: a device-TLB invalidation, awaited, or a page group response. */
  sendMessage(agent: Agent, descriptor: Descriptor): Task<MessageOutcome>;
  /** Everything that must be over before a wait completes: DMA that used what was invalidated. */
  drain(agent: Agent): Task<void>;
  /** Page requests received before now are in their queue, for a wait with PD (7.7). */
  drainPageRequests(agent: Agent): Task<void>;
  /** What the translation mode and the unit allow. */
  descriptorRules(wide: boolean): DescriptorRules;
}

/** Options of an {@link InvalidationQueue}. */
export interface InvalidationQueueOptions {
  readonly memory: TableMemory;
  /** The unit's number, for steps. */
  readonly location: number;
  readonly faults: FaultRecording;
  /** The invalidation completion event. */
  readonly completion: EventInterrupt;
  /** ECAP.SMTS or ADMS: descriptors may be 256 bits wide. */
  readonly mayBeWide: boolean;
}

const ADDRESS_BITS = ~0xfffn & 0xffff_ffff_ffff_ffffn;
const PAGE_BYTES = 4096;

/**
 * The invalidation queue of a unit (VT-d Rev 5.10, 6.5.2): a ring of descriptors in memory, between the driver's tail and
 * the hardware's head. {@link run} is the hardware, a task of its own. It executes in order, and sends messages to devices
 * (device-TLB invalidations, page group responses) in order when it comes to a wait or has nothing else to do, so that
 * a wait completes after all before it (6.5.2.12, 7.8).
 */
export class InvalidationQueue {
  readonly #options: InvalidationQueueOptions;
  readonly #work: Condition;
  #address = 0n;
  #enabled = false;
  /** Byte offsets as they were last written: IQA may have changed the ring and the width since. */
  #head = 0;
  #tail = 0;
  #errorInfo = 0;
  #timeoutSourceId = 0;
  #completionSourceId = 0;
  #interruptStatus = 0;
  #executed = 0;
  #waits = 0;
  #observers: (() => void)[] = [];

  constructor(options: InvalidationQueueOptions) {
    this.#options = options;
    this.#work = new Condition('invalidation queue: work', () => this.hasWork);
  }

  /** Descriptors executed, waits not counted. */
  get executed(): number {
    return this.#executed;
  }

  /** Waits completed. */
  get waits(): number {
    return this.#waits;
  }

  /** Whether the hardware would fetch: enabled, not empty, and neither IQE nor ITE set. */
  get hasWork(): boolean {
    const { faults } = this.#options;
    return this.#enabled && this.head !== this.#tail && !faults.queueStopped;
  }

  /** GSTS.QIES. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** Whether descriptors are 256 bits wide (IQA.DW). */
  get wide(): boolean {
    return (this.#address & (1n << 11n)) !== 0n;
  }

  /** Entries of the ring: 2^(QS+8), half of that for wide descriptors. */
  get entries(): number {
    return this.#ringBytes / this.#descriptorBytes;
  }

  /** IQH: byte offset of the descriptor that is fetched next. */
  get head(): number {
    const offset = this.#head % this.#ringBytes;
    return offset - (offset % this.#descriptorBytes);
  }

  /** IQT: byte offset of the descriptor that software writes next. */
  get tail(): number {
    return this.#tail;
  }

  /** IQA. */
  get address(): bigint {
    return this.#address;
  }

  /** ICS: bit 0 is IWC. */
  get interruptStatus(): number {
    return this.#interruptStatus;
  }

  /** IQERCD: why the queue stopped, and the requesters of ITE and ICE. */
  get errorRecord(): bigint {
    return (BigInt(this.#completionSourceId) << 48n) | (BigInt(this.#timeoutSourceId) << 32n) | BigInt(this.#errorInfo);
  }

  get #ringBytes(): number {
    return PAGE_BYTES << Number(this.#address & 7n);
  }

  get #descriptorBytes(): number {
    return this.wide ? 32 : 16;
  }

  /** Calls `observer` whenever a driver that polls would see something new: a status word written, or an error. */
  observe(observer: () => void): void {
    this.#observers.push(observer);
  }

  /** A write to IQA. */
  setAddress(value: bigint): void {
    this.#address = value & (ADDRESS_BITS | (1n << 11n) | 7n);
    this.#work.wake();
  }

  /** A write to IQT: the hardware starts to fetch. A tail that cannot be right is found then. */
  setTail(offset: number): void {
    this.#tail = offset;
    this.#work.wake();
  }

  /** GCMD.QIE set. The head starts at 0. */
  enable(): void {
    this.#enabled = true;
    this.#work.wake();
  }

  /** GCMD.QIE cleared: the head is 0 again. */
  disable(): void {
    this.#enabled = false;
    this.#head = 0;
  }

  /** ICS.IWC written with 1. */
  clearInterruptStatus(): void {
    this.#interruptStatus = 0;
    this.#options.completion.settle();
  }

  /** FSTS was written: with IQE and ITE cleared the hardware fetches again. */
  resume(): void {
    this.#work.wake();
  }

  /** The hardware: fetches and executes for ever. */
  *run(agent: Agent, executor: InvalidationExecutor): Task<void> {
    for (;;) {
      while (!this.#work.ready()) yield agent.waits('idle', this.#work);
      yield* this.process(agent, executor);
    }
  }

  /** The hardware, until there is nothing left that it would fetch. */
  *process(agent: Agent, executor: InvalidationExecutor): Task<void> {
    const messages: Descriptor[] = [];
    while (this.hasWork) {
      yield agent.writes('fetch descriptor', Location.invalidationQueue, this.#options.location, Cost.free);
      // Software may have disabled or emptied the queue before this step.
      const descriptor = this.hasWork ? this.#fetch(executor) : null;
      if (descriptor === null) break;
      if (descriptor.type === 'wait') yield* this.#completeWait(agent, executor, descriptor, messages);
      else if (isMessage(descriptor)) messages.push(descriptor);
      else {
        yield* executor.execute(agent, descriptor);
        this.#executed++;
      }
    }
    yield* this.#sendMessages(agent, executor, messages);
  }

  /** Reads the descriptor at the head; the head moves on once it is known to be valid. @returns null after an IQE */
  #fetch(executor: InvalidationExecutor): Descriptor | null {
    const rules = executor.descriptorRules(this.wide);
    const broken = widthError(rules, this.#options.mayBeWide) || this.#tailError();
    if (broken) return this.#stop(broken);
    const words = this.#read();
    if (words === null) return this.#stop(QueueErrorInfo.fetchError);
    const descriptor = decodeDescriptor(words, rules);
    if (typeof descriptor === 'number') return this.#stop(descriptor);
    this.#head = (this.head + this.#descriptorBytes) % this.#ringBytes;
    return descriptor;
  }

  #tailError(): QueueErrorInfoCode | 0 {
    if (this.#tail % this.#descriptorBytes !== 0) return QueueErrorInfo.misalignedTail;
    return this.#tail >= this.#ringBytes ? QueueErrorInfo.invalidTail : 0;
  }

  #read(): bigint[] | null {
    const { memory } = this.#options;
    const pfn = Number(this.#address >> 12n) + Math.floor(this.head / PAGE_BYTES);
    if (!memory.contains(pfn)) return null;
    const word = (this.head % PAGE_BYTES) / 8;
    // Queues are always snooped (ECAP.C), so this is the CPU's view.
    return Array.from({ length: this.#descriptorBytes / 8 }, (_, i) => memory.load(pfn, word + i));
  }

  #stop(info: QueueErrorInfoCode): null {
    this.#errorInfo = info;
    this.#options.faults.setError(FaultStatus.queueError);
    this.#notify();
    return null;
  }

  /** Messages first, since a wait completes after all before it; a time-out aborts the wait (6.5.2.11). */
  *#completeWait(
    agent: Agent,
    executor: InvalidationExecutor,
    wait: WaitDescriptor,
    messages: Descriptor[],
  ): Task<void> {
    // Aborted for good: software may have cleared ITE while later messages were under way.
    if (yield* this.#sendMessages(agent, executor, messages)) return;
    yield* executor.drain(agent);
    if (wait.pageRequestDrain) yield* executor.drainPageRequests(agent);
    yield agent.writes('write wait status', Location.invalidationQueue, this.#options.location, Cost.free);
    if (wait.statusWrite) this.#writeStatus(wait);
    if (wait.interrupt && this.#interruptStatus === 0) {
      this.#interruptStatus = 1;
      this.#options.completion.raise();
    }
    this.#waits++;
    this.#notify();
  }

  #writeStatus(wait: WaitDescriptor): void {
    const { memory } = this.#options;
    const pfn = Number(wait.statusAddress >> 12n);
    if (!memory.contains(pfn)) return;
    const index = Number((wait.statusAddress & 0xfffn) >> 3n);
    const word = memory.load(pfn, index);
    const shift = (wait.statusAddress & 4n) === 0n ? 0n : 32n;
    const data = BigInt(wait.statusData >>> 0) << shift;
    memory.hardwareStore(pfn, index, (word & ~(0xffff_ffffn << shift)) | data);
  }

  /** @returns whether one of them timed out */
  *#sendMessages(agent: Agent, executor: InvalidationExecutor, messages: Descriptor[]): Task<boolean> {
    const { faults } = this.#options;
    let timedOut = false;
    for (const message of messages.splice(0)) {
      const outcome = yield* executor.sendMessage(agent, message);
      this.#executed++;
      if (outcome === 'completed') continue;
      const sourceId = 'sourceId' in message ? message.sourceId : 0;
      if (outcome === 'timed-out') {
        timedOut = true;
        if ((faults.status & FaultStatus.timeout) === 0) this.#timeoutSourceId = sourceId;
        faults.setError(FaultStatus.timeout);
      } else {
        if ((faults.status & FaultStatus.completionError) === 0) this.#completionSourceId = sourceId;
        faults.setError(FaultStatus.completionError);
      }
      this.#notify();
    }
    return timedOut;
  }

  #notify(): void {
    for (const observer of this.#observers) observer();
  }
}

const isMessage = (descriptor: Descriptor): boolean =>
  descriptor.type === 'deviceTlb' || descriptor.type === 'pasidDeviceTlb' || descriptor.type === 'pageGroupResponse';

function widthError(rules: DescriptorRules, mayBeWide: boolean): QueueErrorInfoCode | 0 {
  if (rules.mode === TranslationMode.reserved) return QueueErrorInfo.invalidTranslationMode;
  const mustBeWide = rules.mode !== TranslationMode.legacy;
  return (mustBeWide && !rules.wide) || (rules.wide && !mayBeWide) ? QueueErrorInfo.invalidWidth : 0;
}
