import type { RequestResult, WorkQueue } from '@faultline/pci-device';
import { type Agent, Cost, type RandomStream, type Task } from '@faultline/sim';
import type { GuestCpuPort } from './boot.ts';

/** What every workload needs of its surroundings. */
export interface WorkloadContext {
  readonly agent: Agent;
  readonly random: RandomStream;
  /** Virtual time in ns. */
  now(): number;
  /** Whether to begin no further request. */
  stopped(): boolean;
  /** Virtual time until then, in ns: no pause is longer. */
  remainingNs(): number;
  /** A request has ended. */
  finished(startNs: number, result: RequestResult): void;
}

const newResult = (): RequestResult => ({ completed: 0, dropped: 0, aborted: 0 });

/** Options of {@link sequentialDiskReads}. */
export interface DiskReadOptions {
  readonly queue: WorkQueue;
  /** Buffer pages, used in turn; shared by the commands in flight. */
  readonly buffers: readonly number[];
  readonly pagesPerRequest: number;
  /** Time of the medium per command, in ns. */
  readonly mediaNs: number;
  /** Cursor into the buffers, shared by all slots of the queue. */
  readonly cursor: { next: number };
}

/** One slot of a disk queue: sequential reads, one command after the other, into buffers used in turn. */
export function* sequentialDiskReads(context: WorkloadContext, options: DiskReadOptions): Task<void> {
  const { agent } = context;
  const { queue, buffers, pagesPerRequest, cursor } = options;
  const result = newResult();
  const pages: number[] = [];
  while (!context.stopped()) {
    pages.length = 0;
    for (let i = 0; i < pagesPerRequest; i++) pages.push(buffers[(cursor.next + i) % buffers.length] as number);
    const sector = cursor.next;
    cursor.next += pagesPerRequest;
    const startNs = context.now();
    yield agent.spends('disk medium', Cost.nanosecond, options.mediaNs);
    yield* queue.request(agent, 'write', pages, true, sector, DISK_TAG, result);
    context.finished(startNs, result);
  }
}

/** Options of {@link randomAcceleratorDma}. */
export interface AcceleratorOptions {
  readonly queue: WorkQueue;
  /** Picks a page for the next piece of a request. */
  readonly pickPage: (random: RandomStream) => number;
  readonly pagesPerRequest: number;
  readonly writeFraction: number;
  readonly thinkNs: number;
  /** A request has ended that used these pages. */
  readonly release?: (pages: readonly number[]) => void;
}

/** One queue of an accelerator: requests on random pages, some reading, some writing, with a pause in between. */
export function* randomAcceleratorDma(context: WorkloadContext, options: AcceleratorOptions): Task<void> {
  const { agent, random } = context;
  const result = newResult();
  const pages: number[] = [];
  let serial = 0;
  while (!context.stopped()) {
    pages.length = 0;
    for (let i = 0; i < options.pagesPerRequest; i++) pages.push(options.pickPage(random));
    const write = random.chance(options.writeFraction);
    const startNs = context.now();
    const tag = serial;
    serial += options.pagesPerRequest;
    yield* options.queue.request(agent, write ? 'write' : 'read', pages, write, tag, random.bits32(), result);
    options.release?.(pages);
    context.finished(startNs, result);
    yield agent.spends('think', Cost.nanosecond, Math.min(options.thinkNs, context.remainingNs()));
  }
}

/** Options of {@link networkReceive}. */
export interface NetworkReceiveOptions {
  readonly queue: WorkQueue;
  readonly buffers: readonly number[];
  readonly intervalNs: number;
}

/** One receive queue of a NIC: packets come at their own pace, each into the next buffer. */
export function* networkReceive(context: WorkloadContext, options: NetworkReceiveOptions): Task<void> {
  const { agent } = context;
  const { buffers, queue } = options;
  const result = newResult();
  const page = [0];
  for (let packet = 0; !context.stopped(); packet++) {
    yield agent.spends('wire', Cost.nanosecond, Math.min(options.intervalNs, context.remainingNs()));
    page[0] = buffers[packet % buffers.length] as number;
    const startNs = context.now();
    yield* queue.request(agent, 'write', page, true, packet, NETWORK_TAG, result);
    context.finished(startNs, result);
  }
}

/** Options of {@link cpuTouches}. */
export interface CpuTouchOptions {
  readonly cpu: GuestCpuPort;
  readonly pickPage: (random: RandomStream) => number;
  readonly intervalNs: number;
}

/** A virtual CPU that touches random pages, half of them with a write. */
export function* cpuTouches(context: WorkloadContext, options: CpuTouchOptions): Task<void> {
  const { agent, random } = context;
  while (!context.stopped()) {
    yield agent.spends('think', Cost.nanosecond, Math.min(options.intervalNs, context.remainingNs()));
    const write = random.chance(0.5);
    yield* options.cpu.access(agent, options.pickPage(random), write, random.bits32(), CPU_TAG);
  }
}

/** High halves of content tags, so that a page's content tells who wrote it. */
const DISK_TAG = 0x0d15c;
const NETWORK_TAG = 0x0e7;
const CPU_TAG = 0x0c9;
