import { parseDurationNs } from '@faultline/address';
import type { HostMemory } from '@faultline/host-mm';
import { Agent, Cost, type EventSink, RandomStream, type Task, type VirtualTime } from '@faultline/sim';
import type { Scenario } from './scenario.ts';
import type { VirtualMachine } from './virtual-machine.ts';

/** Whom the host takes memory from, and until when. */
export interface HostPressureOptions {
  readonly scenario: Scenario;
  readonly seed: number;
  readonly host: HostMemory;
  readonly vms: readonly VirtualMachine[];
  readonly time: VirtualTime;
  readonly sink: EventSink;
  readonly stopped: () => boolean;
  readonly remainingNs: () => number;
}

/** Times that a reclaimer looks for a page that is resident before it waits for its next turn. */
const PICKS = 64;

/** How the host swaps its guests' memory out while they run. */
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

  /** Starts the reclaimers of the scenario, and the background work of its strategy. */
  start(): void {
    const { scenario, time, seed, vms } = this.#options;
    const intervalNs = parseDurationNs(scenario.iommu.collapse.interval);
    for (const vm of vms) {
      if (vm.iommu.hwpt?.strategy?.backgroundPass === undefined) continue;
      const agent = new Agent(`${vm.name} collapse`);
      time.spawn(agent, this.#collapse(agent, vm, intervalNs));
    }
    const { reclaim } = scenario;
    for (let i = 0; reclaim && i < reclaim.reclaimers; i++) {
      const agent = new Agent(`reclaim ${i}`);
      time.spawn(agent, this.#reclaim(agent, reclaim, new RandomStream(seed, agent.name)));
    }
  }

  /** The background work of the strategy for one VM: khugepaged's counterpart for I/O page tables. */
  *#collapse(agent: Agent, vm: VirtualMachine, intervalNs: number): Task<void> {
    const { stopped, remainingNs } = this.#options;
    while (!stopped() && !vm.exited) {
      yield agent.spends('collapse interval', Cost.nanosecond, Math.min(intervalNs, remainingNs()));
      const strategy = stopped() || vm.exited ? null : vm.iommu.hwpt?.strategy;
      if (strategy?.backgroundPass) yield* strategy.backgroundPass(agent);
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
      // Who writes to memory.reclaim is killed at the end: else 16 fruitless scans of a whole LRU may take longer than the run.
      const pages =
        settings.by === 'lru'
          ? yield* host.reclaim(agent, asked, null, stopped)
          : yield* this.#pageOut(agent, asked, random);
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

  /** MADV_PAGEOUT of single pages that are resident, picked at random from all VMs. @returns how many frames that freed */
  *#pageOut(agent: Agent, pages: number, random: RandomStream): Task<number> {
    const { vms } = this.#options;
    const all = vms.reduce((sum, vm) => sum + vm.userPages.count, 0);
    let freed = 0;
    for (let pick = 0; pick < PICKS + pages && freed < pages; pick++) {
      const { mm, page } = userPageAt(vms, random.below(all));
      if (mm.lookup(page) >= 0 && (yield* mm.pageOut(agent, page))) freed++;
    }
    return freed;
  }
}

/** The n-th page of the memory of all VMs. */
function userPageAt(vms: readonly VirtualMachine[], index: number): { mm: VirtualMachine['mm']; page: number } {
  let before = 0;
  for (const { mm, userPages } of vms) {
    if (index < before + userPages.count) return { mm, page: userPages.first + (index - before) };
    before += userPages.count;
  }
  throw new RangeError(`page ${index} is beyond the ${before} pages of all VMs`);
}
