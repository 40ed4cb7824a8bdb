import type { Backing } from '@faultline/host-mm';
import { RandomStream } from '@faultline/sim';
import { HOST_ACTIONS, type HostAction, needsOf } from '../host-event.ts';
import type { ScenarioInput } from '../scenario.ts';

type VmInput = NonNullable<ScenarioInput['vm']>;
type EventInput = NonNullable<ScenarioInput['events']>[number];

/** Strategies that claim to be safe, which is what a storm holds them to. */
const STRATEGIES = [
  'cut',
  'cut',
  'cut',
  'cut+collapse',
  'cut+collapse',
  'shared-ept',
  'whole-leaf',
  'break-before-make',
  'paired',
  'pinned',
] as const;
/** A 1G guest costs as much as many small ones, so that there are few. */
const BACKINGS: readonly Backing[] = [
  ...(['4K', 'thp-2M', 'contiguous', 'contiguous-4K'] as const).flatMap((each) => [each, each, each, each]),
  ...(['hugetlb-2M', 'hugetlb-2M', 'thp-2M', 'thp-2M', 'pud-thp', 'pud-thp', 'hugetlb-1G'] as const),
];
const MIB = 2 ** 20;

/**
 * A whole machine at random, swarm style: each kind of thing that can happen is on or off for the whole run, so that now and then
 * few of them meet often. Small, so that a run takes a fraction of a second. One seed, one scenario.
 */
export function randomScenario(seed: number): ScenarioInput {
  return new ScenarioDraw(seed).draw();
}

class ScenarioDraw {
  readonly #random: RandomStream;
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed;
    this.#random = new RandomStream(seed, 'storm');
  }

  draw(): ScenarioInput {
    const random = this.#random;
    const count = this.#on(0.25) ? 2 + random.below(2) : 1;
    const strategy = random.pick(STRATEGIES);
    // Pinning more than memory.max ends at the boot, after reclaim has tried all: once in a while.
    const limited = this.#on(strategy === 'pinned' ? 0.02 : 0.2);
    const vms = Array.from({ length: count }, (_, index) => this.#vm(`vm${index}`, limited));
    const durationUs = 200 + random.below(1800);
    const swapKind = random.pick(['disk', 'disk', 'zram'] as const);
    return {
      name: `storm-${this.#seed}`,
      strategy,
      duration: `${durationUs}us`,
      host: this.#host(vms, { isPinned: strategy === 'pinned', swapKind }),
      reclaim: this.#on(0.8) ? this.#reclaim(vms) : null,
      ...(count === 1 ? { vm: vms[0] as VmInput } : { vms: vms as VmInput[] }),
      iommu: this.#iommu(),
      events: this.#events(vms, durationUs),
      inject: this.#inject(),
    };
  }

  #on(probability: number): boolean {
    return this.#random.chance(probability);
  }

  #vm(name: string, limited: boolean): VmInput {
    const random = this.#random;
    const backing = random.pick(BACKINGS);
    const megabytes = backing === 'pud-thp' || backing === 'hugetlb-1G' ? 1024 : random.pick([8, 8, 16, 16, 32, 64]);
    const memory = `${megabytes}M`;
    const device = { ats: this.#on(0.85), declares: true, credits: random.pick([1, 2, 8, 32, 512]) };
    const workingSet = `${Math.min(megabytes, random.pick([1, 4, megabytes]))}M`;
    return {
      name,
      memory,
      backing,
      cpuTouchInterval: `${random.pick([2, 10, 50])}us`,
      cpuRefaults: random.pick([0, 0.3, 0.9]),
      // A little less than it wants: what it is over its limit is swapped out at boot, page by page.
      ...(limited && megabytes <= 16 ? { memoryMax: `${megabytes - random.pick([1, 2, 4])}M` } : {}),
      equalPages: this.#on(0.3) ? { gpa: '1M', length: '256K', distinct: 1 + random.below(16) } : null,
      balloon:
        this.#on(0.25) && !backing.startsWith('hugetlb')
          ? {
              size: '256K',
              batch: 1 + random.below(32),
              interval: `${5 + random.below(60)}us`,
              hold: `${20 + random.below(200)}us`,
            }
          : null,
      devices: {
        accelerator: this.#on(0.85)
          ? {
              ...device,
              queues: random.pick([1, 2, 4, 16]),
              request: random.pick(['4K', '16K', '64K']),
              workingSet,
              thinkTime: random.pick(['0ns', '1us', '10us']),
              writeFraction: random.pick([0, 0.5, 1]),
              refaults: random.pick([0, 0.1, 0.7]),
            }
          : null,
        disk: this.#on(0.4)
          ? { ...device, buffers: random.pick(['128K', '1M']), request: random.pick(['4K', '64K']), mediaTime: '20us' }
          : null,
        nic: this.#on(0.4)
          ? { ...device, interval: random.pick(['2us', '20us']), receiveBuffers: 1 + random.below(64) }
          : null,
      },
    };
  }

  #host(
    vms: readonly VmInput[],
    { isPinned, swapKind }: { readonly isPinned: boolean; readonly swapKind: 'disk' | 'zram' },
  ): NonNullable<ScenarioInput['host']> {
    const random = this.#random;
    const guests = vms.reduce((sum, vm) => sum + megabytesOf(vm), 0);
    const slack = random.pick([16, 64, guests]);
    // Several guests need not fit, unless they are pinned; one alone has to. What is left is so little that kswapd works.
    const lack = isPinned ? -4 : random.pick([1, 2, 4]);
    // Huge page pools are set up before the guests, so that a host with less than these need has none.
    const maySwap = guests < 1024 && vms.every(({ backing }) => !backing?.startsWith('hugetlb'));
    return {
      // Room for the guests and a little more; or less than that, so that the host swaps by itself.
      memory: `${this.#on(0.3) && maySwap ? Math.max(...vms.map((vm) => megabytesOf(vm) + 2), guests - lack) : guests + slack}M`,
      swap: `${random.pick([guests, 2 * guests, 64])}M`,
      swapKind,
      swapQueueDepth: swapKind === 'disk' ? random.pick([0, 0, 1, 8]) : 0,
      zswap: this.#on(0.2) && swapKind === 'disk',
      pageCluster: random.pick([0, 3]),
      lru: random.pick(['classic', 'mglru'] as const),
      watermarks: random.pick(['none', 'linux'] as const),
      thpSwap: this.#on(0.5),
      splitNotify: random.pick(['none', 'clear'] as const),
    };
  }

  #reclaim(vms: readonly VmInput[]): NonNullable<ScenarioInput['reclaim']> {
    const random = this.#random;
    // The LRU gives a 1G folio whole: 262,144 pages to swap, which takes as long as fifty other machines.
    const isCheap = vms.every(({ backing }) => backing !== 'pud-thp');
    return {
      by: isCheap || this.#on(0.04) ? random.pick(['pageout', 'lru'] as const) : 'pageout',
      pages: random.pick([64, 512, 4096]),
      interval: `${random.pick([1, 5, 20])}us`,
      batch: random.pick([1, 8, 64]),
      reclaimers: 1 + random.below(4),
    };
  }

  #iommu(): NonNullable<ScenarioInput['iommu']> {
    const random = this.#random;
    const array = () => ({ sets: 2 ** random.below(4), ways: 1 + random.below(4) });
    return {
      ...(this.#on(0.5) ? { iotlb: { '4K': array(), '2M': array(), '1G': array() } } : {}),
      pageRequestEntries: random.pick([2, 4, 16, 2048]),
      faultWorkers: 1 + random.below(4),
      reservePages: random.pick([0, 1, 4, 4]),
      accessedDirty: this.#on(0.8),
      faultPolicy: {
        prefault: random.pick(['none', 'resident', 'populate'] as const),
        around: random.pick([1, 16, 512]),
        populateAround: this.#on(0.2),
        largest: random.pick(['4K', '2M', '1G', '1G'] as const),
      },
      onUnfaultable: random.pick(['refuse', 'pin-all'] as const),
      collapse: { interval: `${random.pick([20, 100])}us`, quietPasses: random.pick([1, 2]) },
    };
  }

  /** Some kinds of event, each of them a few times or over and over. */
  #events(vms: readonly VmInput[], durationUs: number): EventInput[] {
    const random = this.#random;
    const kinds = (Object.keys(HOST_ACTIONS) as HostAction[]).filter((action) =>
      this.#on(RARE.has(action) ? 0.06 : 0.3),
    );
    return kinds.flatMap((action) => {
      const repeats = !RARE.has(action) && this.#on(0.5);
      return Array.from({ length: repeats ? 1 : 1 + random.below(RARE.has(action) ? 1 : 3) }, () =>
        this.#event(action, vms, durationUs, repeats),
      ).filter((event) => event !== null);
    });
  }

  #event(action: HostAction, vms: readonly VmInput[], durationUs: number, repeats: boolean): EventInput | null {
    const random = this.#random;
    const vm = random.pick(vms);
    const { range, device, vm: takesVm } = needsOf(action);
    // A small huge page pool gives no 4K back, and nothing of it moves.
    if (range !== 'none' && vm.backing?.startsWith('hugetlb')) return null;
    const devices = Object.entries(vm.devices ?? {}).flatMap(([name, settings]) => (settings ? [name] : []));
    if (device === 'required' && devices.length === 0) return null;
    const megabytes = Math.min(megabytesOf(vm), 64);
    return {
      at: `${random.below(durationUs)}us`,
      ...(repeats ? { every: `${20 + random.below(300)}us` } : {}),
      action,
      ...(takesVm && action !== 'ksm' ? { vm: vm.name ?? 'vm0' } : {}),
      ...(range === 'required' ? this.#range(action === 'ksm' ? 1 : 0, action === 'ksm' ? 1 : megabytes) : {}),
      ...(device === 'required' ? { device: random.pick(devices) } : {}),
    };
  }

  /** A range of whole pages, or of whole 2M blocks, that starts within the megabytes. */
  #range(from: number, megabytes: number): { gpa: string; length: string } {
    const random = this.#random;
    if (megabytes - from <= 1) return { gpa: `${from}M`, length: '256K' };
    const large = megabytes - from >= 4 && this.#on(0.3);
    const unit = large ? 2 * MIB : 4096;
    const units = ((megabytes - from) * MIB) / unit;
    const length = 1 + random.below(Math.min(units - 1, large ? 2 : 64));
    return { gpa: hex(from * MIB + random.below(units - length) * unit), length: hex(length * unit) };
  }

  #inject(): NonNullable<ScenarioInput['inject']> {
    const random = this.#random;
    const share = (probability: number): number => (this.#on(probability) ? random.pick([0.01, 0.1, 0.5]) : 0);
    return {
      frameAllocation: share(0.15),
      tableAllocation: share(0.25),
      swapRead: share(0.05),
      swapWrite: share(0.15),
      slowSwap: random.pick([1, 1, 1, 20]),
      invalidationTimeout: share(0.15),
      invalidationSilence: random.pick([0, 0, 0.2, 1]),
      timeoutAfter: random.pick(['2us', '50us'] as const),
    };
  }
}

/** What ends a VM or a device: not in every run. */
const RARE: ReadonlySet<HostAction> = new Set(['poison', 'unplug', 'process-exit', 'hwpt-replace']);

const megabytesOf = (vm: VmInput): number => Number.parseInt(vm.memory ?? '8M', 10);
const hex = (bytes: number): string => `0x${bytes.toString(16)}`;
