import type { ScenarioInput } from './scenario.ts';

/** A scenario that comes with the package. */
export interface BuiltInScenario {
  readonly name: string;
  /** One line for `vm-sim list`. */
  readonly title: string;
  readonly scenario: ScenarioInput;
}

const storm = {
  vm: { memory: '16G', backing: '1G' },
  host: { memory: '24G', swap: '8G' },
} as const satisfies ScenarioInput;

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
];
