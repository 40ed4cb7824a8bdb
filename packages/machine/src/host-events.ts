import { parseDurationNs, parseSize } from '@faultline/address';
import { type HostMemory, HostMemoryError } from '@faultline/host-mm';
import { IommufdError } from '@faultline/iommufd-core';
import { Agent, Cost, type EventSink, type Task, type VirtualTime } from '@faultline/sim';
import { PageTableError } from '@faultline/vtd-pagetable';
import type { HostEvent } from './host-event.ts';
import type { EventStats } from './stats.ts';
import type { VirtualMachine } from './virtual-machine.ts';

/** What the events of a scenario happen to. */
export interface HostEventsOptions {
  readonly events: readonly HostEvent[];
  readonly host: HostMemory;
  readonly vms: readonly VirtualMachine[];
  readonly time: VirtualTime;
  readonly sink: EventSink;
  readonly stopped: () => boolean;
  readonly remainingNs: () => number;
}

/** The range of an event in a VM's memory. */
interface EventPlace {
  readonly vm: VirtualMachine;
  readonly page: number;
  readonly pages: number;
}

const PAGES_PER_2M = 512;

/** What the host does at its own time while guests run: migration, compaction, KSM, memory failures, a device pulled out, and so on. */
export class HostEvents {
  /** How often each happened, and how it ended. */
  readonly stats: readonly EventStats[];
  readonly #options: HostEventsOptions;

  constructor(options: HostEventsOptions) {
    this.#options = options;
    this.stats = options.events.map(({ action }) => ({ action, times: 0, outcomes: {} }));
  }

  /** Starts each event as a task that waits for its time. */
  start(): void {
    const { events, time } = this.#options;
    for (const [index, event] of events.entries()) {
      const agent = new Agent(`host event ${index}`);
      time.spawn(agent, this.#run(agent, event, this.stats[index] as EventStats));
    }
  }

  *#run(agent: Agent, event: HostEvent, stats: EventStats): Task<void> {
    const { stopped, remainingNs, time, sink } = this.#options;
    const most = event.every === undefined ? 1 : (event.times ?? Number.POSITIVE_INFINITY);
    const wait = (text: string) => Math.min(parseDurationNs(text), remainingNs());
    yield agent.spends('until the event', Cost.nanosecond, wait(event.at));
    while (!stopped() && stats.times < most) {
      const startNs = time.nowNs;
      stats.times++;
      const note = (outcome: string): void => {
        stats.outcomes[outcome] = (stats.outcomes[outcome] ?? 0) + 1;
      };
      try {
        yield* this.#perform(agent, event, note);
      } catch (error) {
        // An errno is an outcome: memory is short, or the process went away meanwhile.
        if (!isErrno(error)) throw error;
        note(error.code);
      }
      if (sink.enabled)
        sink.record({
          atNs: startNs,
          durationNs: time.nowNs - startNs,
          track: agent.name,
          name: event.action,
          args: { gpa: event.gpa ?? '', length: event.length ?? '', device: event.device ?? '' },
        });
      if (event.every !== undefined && stats.times < most)
        yield agent.spends('until it happens again', Cost.nanosecond, wait(event.every));
    }
  }

  *#perform(agent: Agent, event: HostEvent, note: (outcome: string) => void): Task<void> {
    const { host } = this.#options;
    const [place] = this.#places(event);
    if (!place) throw new RangeError(`events: there is no VM for ${event.action}`);
    const { vm, page, pages } = place;
    const first = vm.userPageOf(page);
    if (vm.exited && event.action !== 'ksm' && event.action !== 'compact') return note('the process has gone');
    switch (event.action) {
      case 'madvise-dontneed':
        yield* vm.discard(agent, page, pages);
        return note('done');
      case 'migrate':
        return yield* this.#migrate(agent, vm, first, pages, note);
      case 'compact':
        return note((yield* host.compact(agent)) ? 'done' : 'no block is free');
      case 'ksm':
        return yield* this.#merge(agent, event, note);
      case 'numa-hint':
        return note((yield* vm.mm.changeProtNuma(agent, first, pages)) > 0 ? 'done' : 'nothing to mark');
      case 'soft-dirty':
        yield* vm.mm.clearSoftDirty(agent);
        return note('done');
      case 'collapse':
        for (let at = first; at < first + pages; at += PAGES_PER_2M) note(yield* vm.mm.collapse(agent, at));
        return;
      case 'khugepaged':
        return note((yield* vm.mm.khugepaged(agent)) > 0 ? 'collapsed' : 'nothing to collapse');
      case 'poison':
        return yield* this.#breakFrames(agent, place, note);
      case 'unplug': {
        const device = vm.devices.find(({ name }) => name === event.device);
        if (!device || device.endpoint.isRemoved) return note('not there');
        yield* vm.unplug(agent, device);
        return note('done');
      }
      case 'hwpt-replace':
        yield* vm.iommu.replace(
          agent,
          vm.devices.filter(({ name, endpoint }) => !endpoint.isRemoved && name === (event.device ?? name)),
        );
        return note('done');
      case 'process-exit':
        yield* vm.kill(agent);
        return note('done');
      default:
        throw new RangeError(`events: ${event.action} is not known`);
    }
  }

  /** Each folio of the range once. */
  *#migrate(
    agent: Agent,
    { mm }: VirtualMachine,
    first: number,
    pages: number,
    note: (outcome: string) => void,
  ): Task<void> {
    const { host } = this.#options;
    for (let at = first; at < first + pages; ) {
      const leaf = Math.max(1, mm.leafPages(at));
      const pfn = mm.lookup(at);
      if (pfn >= 0) note(yield* host.migratePage(agent, pfn));
      at = (Math.floor(at / leaf) + 1) * leaf;
    }
  }

  /** One pass of ksmd over a range: a page of known content is merged with the first that had it. */
  *#merge(agent: Agent, event: HostEvent, note: (outcome: string) => void): Task<void> {
    const { host } = this.#options;
    const known = new Map<string, { readonly mm: VirtualMachine['mm']; readonly page: number }>();
    for (const { vm, page, pages } of this.#places(event)) {
      const { mm } = vm;
      for (let at = vm.userPageOf(page), end = at + pages; at < end && !vm.exited; at++) {
        if (mm.lookup(at) < 0) continue;
        yield agent.spends('KSM: checksum', Cost.pageCopy);
        if (vm.exited || mm.lookup(at) < 0) continue;
        const { tagLo, tagHi } = mm.cpuRead(at);
        const content = `${tagLo} ${tagHi}`;
        const twin = known.get(content);
        const isOne = twin !== undefined && twin.mm.lookup(twin.page) === mm.lookup(at);
        if (isOne) continue;
        const frame = twin ? twin.mm.lookup(twin.page) : -1;
        if (twin && (yield* host.ksmMerge(agent, twin, { mm, page: at }))) {
          note('merged');
          // Merged into a frame that broke meanwhile: that has taken this page along.
          if (this.#options.vms.some(({ brokenFrames }) => brokenFrames.has(frame)))
            vm.checker.contentLost(page + (at - vm.userPageOf(page)), 1);
        } else {
          if (twin) note('not merged');
          known.set(content, { mm, page: at });
        }
      }
    }
  }

  *#breakFrames(agent: Agent, { vm, page, pages }: EventPlace, note: (outcome: string) => void): Task<void> {
    const { host } = this.#options;
    for (let at = page; at < page + pages; at++) {
      const frame = vm.mm.lookup(vm.userPageOf(at));
      if (frame < 0) {
        note('not resident');
        continue;
      }
      this.#contentLost(vm, at, frame);
      vm.brokenFrames.add(frame);
      note(yield* host.memoryFailure(agent, frame));
    }
  }

  /** Whoever shares the frame by KSM loses it too. */
  #contentLost(vm: VirtualMachine, page: number, frame: number): void {
    const { host, vms } = this.#options;
    vm.checker.contentLost(page, 1);
    if (host.ksm.pagesShared === 0) return;
    for (const each of vms)
      if (!each.exited) for (const shared of each.guestPagesOfFrame(frame)) each.checker.contentLost(shared, 1);
  }

  /** The range of an event in each VM that it happens to; an empty one if it has none. */
  #places({ action, vm: name, gpa, length }: HostEvent): EventPlace[] {
    const { vms } = this.#options;
    const chosen =
      name === undefined ? (action === 'ksm' ? vms : vms.slice(0, 1)) : vms.filter((vm) => vm.name === name);
    const page = gpa === undefined ? 0 : Number(parseSize(gpa) / 4096n);
    const pages = length === undefined ? 0 : Number(parseSize(length) / 4096n);
    return chosen.map((vm) => ({ vm, page, pages }));
  }
}

/** But for EIO of a page table: an entry that is none is nobody's outcome. */
const isErrno = (error: unknown): error is HostMemoryError | IommufdError | PageTableError =>
  error instanceof HostMemoryError ||
  error instanceof IommufdError ||
  (error instanceof PageTableError && error.code !== 'EIO');
