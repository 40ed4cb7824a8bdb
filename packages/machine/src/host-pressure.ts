import { parseDurationNs, parseSize } from '@faultline/address';
import type { HostMemory } from '@faultline/host-mm';
import { Agent, Cost, type EventSink, RandomStream, type Task, type VirtualTime } from '@faultline/sim';
import type { Scenario } from './scenario.ts';
import type { VirtualMachine } from './virtual-machine.ts';

/** Whom the host takes memory from, and until when. */
export interface HostPressureOptions {
  readonly scenario: Scenario;
  readonly seed: number;
  readonly host: HostMemory;
  readonly vm: VirtualMachine;
  readonly time: VirtualTime;
  readonly sink: EventSink;
  readonly stopped: () => boolean;
  readonly remainingNs: () => number;
}

/** Times that a reclaimer looks for a page that is resident before it waits for its next turn. */
const PICKS = 64;

/** What the host does to its guests' memory while they run: swaps pages out, and whatever else the scenario says. */
export class HostPressure {
  readonly #options: HostPressureOptions;
  #reclaimed = 0;

  constructor(options: HostPressureOptions) {
    this.#options = options;
  }

  /** Starts kswapd, the workers of the swap drive and of zswap: daemons. */
  startDaemons(): void {
    const { host, time, scenario } = this.#options;
    const daemon = (name: string, task: (agent: Agent) => Task<void>): void => {
      const agent = new Agent(name);
      time.spawn(agent, task(agent), { daemon: true });
    };
    daemon('kswapd', (agent) => host.kswapd(agent));
    const [area] = host.swap.areas;
    if (area && scenario.host.swapKind === 'disk')
      for (let i = 0; i < scenario.host.swapQueueDepth; i++)
        daemon(`${area.name} queue ${i}`, (agent) => host.swapIo.worker(agent, area));
    if (scenario.host.zswap) daemon('zswap-shrink', (agent) => host.swapIo.shrinkWorker(agent));
  }

  /** Starts the reclaimers and the events of the scenario. */
  start(): void {
    const { scenario, time, seed } = this.#options;
    const { reclaim } = scenario;
    for (let i = 0; reclaim && i < reclaim.reclaimers; i++) {
      const agent = new Agent(`reclaim ${i}`);
      time.spawn(agent, this.#reclaim(agent, reclaim, new RandomStream(seed, agent.name)));
    }
    for (const [index, event] of scenario.events.entries()) {
      const agent = new Agent(`host event ${index}`);
      time.spawn(agent, this.#event(agent, event));
    }
  }

  *#reclaim(agent: Agent, settings: NonNullable<Scenario['reclaim']>, random: RandomStream): Task<void> {
    const { host, time, sink, stopped, remainingNs } = this.#options;
    const intervalNs = parseDurationNs(settings.interval);
    while (!stopped() && this.#reclaimed < settings.pages) {
      yield agent.spends('reclaim interval', Cost.nanosecond, Math.min(intervalNs, remainingNs()));
      const startNs = time.nowNs;
      // Asked for is counted as taken, so that several reclaimers together take no more than they should.
      const asked = Math.min(settings.batch, settings.pages - this.#reclaimed);
      if (stopped() || asked <= 0) continue;
      this.#reclaimed += asked;
      const pages =
        settings.by === 'lru' ? yield* host.reclaim(agent, asked) : yield* this.#pageOut(agent, asked, random);
      this.#reclaimed += pages - asked;
      if (sink.enabled)
        sink.record({
          atNs: startNs,
          durationNs: time.nowNs - startNs,
          track: agent.name,
          name: 'reclaim',
          args: { pages },
        });
    }
  }

  /** MADV_PAGEOUT of single pages that are resident, picked at random. @returns how many frames that freed */
  *#pageOut(agent: Agent, pages: number, random: RandomStream): Task<number> {
    const { vm } = this.#options;
    let freed = 0;
    for (let pick = 0; pick < PICKS + pages && freed < pages; pick++) {
      const page = vm.userPages.first + random.below(vm.userPages.count);
      if (vm.mm.lookup(page) >= 0 && (yield* vm.mm.pageOut(agent, page))) freed++;
    }
    return freed;
  }

  *#event(agent: Agent, event: Scenario['events'][number]): Task<void> {
    yield agent.spends('until the event', Cost.nanosecond, parseDurationNs(event.at));
    if (this.#options.stopped()) return;
    const page = Number(parseSize(event.gpa) / 4096n);
    const pages = Number(parseSize(event.length) / 4096n);
    yield* this.#options.vm.discard(agent, page, pages);
  }
}
