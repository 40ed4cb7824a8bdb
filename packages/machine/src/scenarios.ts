import type { ScenarioInput } from './scenario.ts';
import { type BuiltInScenario, STAGE2_SCENARIOS } from './stage2-scenarios.ts';

const storm = {
  vm: { memory: '16G', backing: 'pud-thp' },
  host: { memory: '24G', swap: '8G' },
} as const satisfies ScenarioInput;

/**
 * The process of the recordings `swap-thp` and `swap73-4k`: it fills its memory, halves its cgroup's limit, and reads everything
 * once in order and then some of it at random. How often at random was not recorded: 430 touches give its 236 swap-ins if uniform.
 */
function recordedSwap(name: string, backing: 'thp-2M' | '4K', kernel: string): ScenarioInput {
  return {
    name,
    description: `A 32 MiB process goes through what Linux ${kernel} was recorded doing: filled, limited to 16 MiB, touched in order, touched at random. The marks in the statistics compare with smaps_rollup and vmstat of the recording.`,
    strategy: 'cut',
    duration: '10s',
    reclaim: null,
    host: {
      memory: '1G',
      swap: '64M',
      swapHeader: true,
      swapQueueDepth: 1,
      splitNotify: 'clear',
      profile: 'linux-recordings',
    },
    vm: {
      name: 'process',
      memory: '32M',
      backing,
      devices: { accelerator: null, disk: null, nic: null },
      program: [
        { step: 'fill', mark: 'filled' },
        { step: 'limit', memoryMax: '16M', mark: 'limited' },
        { step: 'touch', order: 'ascending', mark: 'touched' },
        { step: 'touch', order: 'random', pages: 430, mark: 'random touched' },
      ],
    },
  };
}

/** The scenarios of `vm-sim list`, the default first. */
export const BUILT_IN_SCENARIOS: readonly BuiltInScenario[] = [
  {
    name: '1g-swap-storm',
    title: 'a 16 GiB VM with 1G-backed DMA; the host swaps thousands of 4K pages while all devices run',
    scenario: {
      ...storm,
      name: '1g-swap-storm',
      description:
        'One 16 GiB VM, backed by 1G folios and mapped for DMA with 1G leaves. An accelerator, a disk and a NIC make DMA while the host swaps 4K pages out and in. Each page taken away is cut out of its leaf.',
      strategy: 'cut',
    },
  },
  {
    name: 'pinned-baseline',
    title: 'the same VM and devices as today: all memory pinned, nothing to reclaim',
    scenario: {
      ...storm,
      name: 'pinned-baseline',
      description: 'What iommufd does today: every page is pinned when it is mapped, so the host reclaims nothing.',
      strategy: 'pinned',
    },
  },
  {
    name: 'naive-unmap',
    title: 'the bug of the 2023 thread: sub-range unmap with no split walks guest data and crashes the host',
    scenario: {
      ...storm,
      name: 'naive-unmap',
      description:
        'The notifier unmaps 4K of a 1G leaf with a clear that does not look at PS: the leaf is taken for a table, guest words for entries. What they point to is cleared, or freed as a table page.',
      strategy: 'naive',
      expect: 'host-crashed',
      duration: '40ms',
      events: [{ at: '20ms', action: 'madvise-dontneed', gpa: '0x180800000', length: '2M' }],
    },
  },
  {
    name: 'whole-leaf',
    title: 'today’s rule: the whole 1G or 2M leaf goes with the 4K page, and its innocent neighbours fault',
    scenario: {
      ...storm,
      name: 'whole-leaf',
      description: 'A page taken away takes the whole leaf with it. The rest of the leaf faults its way back.',
      strategy: 'whole-leaf',
    },
  },
  ...STAGE2_SCENARIOS,
  {
    name: 'linux-swap-thp',
    title: 'what Linux 6.12 was recorded doing: 32 MiB of huge pages under a limit of 16 MiB, swap on NVMe',
    scenario: recordedSwap('linux-swap-thp', 'thp-2M', '6.12.95'),
  },
  {
    name: 'linux-swap-4k',
    title: 'what Linux 7.3 was recorded doing: 32 MiB of small pages under a limit of 16 MiB, swap on NVMe',
    scenario: recordedSwap('linux-swap-4k', '4K', '7.3.4'),
  },
];
