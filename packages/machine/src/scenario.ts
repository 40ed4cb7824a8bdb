import { BACKINGS, type Backing } from '@faultline/host-mm';
import {
  DEFAULT_FAULT_POLICY,
  STRATEGIES as FOLLOWING,
  PATCH_2023_DEFECTS,
  type StrategyName,
} from '@faultline/iommufd-core';
import { z } from 'zod';
import { devices } from './device-settings.ts';
import { hostEvent } from './host-event.ts';
import { count, duration, fraction, size } from './quantity.ts';

/** Ways to take 4K out of a large leaf: `pinned`, which takes nothing, and those of `@faultline/iommufd-core`. */
export const STRATEGIES = ['pinned', ...(Object.keys(FOLLOWING) as StrategyName[])] as const;
/** A strategy by name. */
export type Strategy = (typeof STRATEGIES)[number];

const strategy = z.enum(STRATEGIES, {
  error: (issue) => `expected one of ${STRATEGIES.join(', ')}, got ${JSON.stringify(issue.input)}`,
});

const cacheArray = z.strictObject({
  sets: count('Sets, a power of two', 1, 65_536),
  ways: count('Entries per set', 0, 65_536),
});

const host = z.strictObject({
  memory: size('Host memory that can back guests').default('24G'),
  swap: size('Swap space').default('8G'),
  swapKind: z
    .enum(['disk', 'zram'])
    .describe('What swap is on: a drive such as NVMe, or compressed memory of the host itself (zram)')
    .default('disk'),
  swapQueueDepth: count(
    'Commands that the drive executes at a time; 0: whoever swaps a page out waits until it is written',
    0,
    65_536,
  ).default(0),
  swapHeader: z.boolean().describe('Whether slot 0 holds the header that mkswap writes').default(false),
  zswap: z.boolean().describe('Whether pages are compressed in memory before they go to the drive').default(false),
  pageCluster: count('log2 of the pages read ahead at a swap-in (vm.page-cluster)', 0, 5).default(3),
  lru: z
    .enum(['classic', 'mglru'])
    .describe('How reclaim tells cold pages: active and inactive list, or generations (MGLRU)')
    .default('classic'),
  watermarks: z
    .enum(['none', 'linux'])
    .describe('Free memory at which kswapd and direct reclaim begin: as Linux computes it at boot, or none at all')
    .default('linux'),
  thpSwap: z.boolean().describe('Whether 2M folios go to swap whole (CONFIG_THP_SWAP)').default(true),
  splitNotify: z
    .enum(['none', 'clear'])
    .describe('Whether splitting a large folio calls the notifiers for all of it, as Linux 7.3 does (clear)')
    .default('none'),
  profile: z
    .enum(['reference', 'linux-recordings'])
    .describe('Timing profile: published figures, or the emulated machine of the recordings of Linux')
    .default('reference'),
});

const reclaim = z.strictObject({
  by: z
    .enum(['pageout', 'lru'])
    .describe(
      'A user-space reclaimer that names single pages at random (MADV_PAGEOUT), or memory.reclaim, which takes what the LRU holds for cold',
    )
    .default('pageout'),
  pages: count('How many 4K pages the host swaps out in all').default(4096),
  interval: duration('Time between two batches').default('20us'),
  batch: count('4K pages asked for at a time; one run of memory.reclaim takes at least 32', 1).default(1),
  reclaimers: count('Reclaimers at work at once', 1, 1024).default(2),
});

const mark = z.string().min(1).describe('Name under which the figures at its end are kept');
const programStep = z.discriminatedUnion('step', [
  z.strictObject({ step: z.literal('fill').describe('Write every page, in address order'), mark }),
  z.strictObject({
    step: z.literal('limit').describe('Lower memory.max of the cgroup, from within'),
    memoryMax: size('The new limit'),
    mark,
  }),
  z.strictObject({
    step: z.literal('touch').describe('Read pages'),
    order: z.enum(['ascending', 'random']),
    pages: count('How many; all of them if left out', 1).optional(),
    mark,
  }),
]);

const backing = z
  .enum(BACKINGS, {
    error: (issue) => {
      const renamed: Record<string, string> = { '1G': 'pud-thp or hugetlb-1G', '2M': 'thp-2M or hugetlb-2M' };
      const hint = renamed[String(issue.input)];
      return `expected one of ${BACKINGS.join(', ')}, got ${JSON.stringify(issue.input)}${hint ? ` (is it ${hint}?)` : ''}`;
    },
  })
  .describe(
    'What backs it: small folios (4K), transparent huge pages (thp-2M), the huge page pool (hugetlb-2M, hugetlb-1G; never swapped), folios in contiguous frames (contiguous, contiguous-4K), or hypothetical 1G folios that can be swapped (pud-thp), which Linux does not have',
  );

const equalPages = z
  .strictObject({
    gpa: size('First byte of the range, a guest-physical address'),
    length: size('Bytes of the range'),
    distinct: count('How many different contents there are; they take turns', 1).default(256),
  })
  .describe(
    'Pages that the guest fills at boot with content that others have too, as kernel images and libraries: what KSM merges',
  );

const balloon = z
  .strictObject({
    size: size('Guest memory that the balloon takes before it gives all back').default('64M'),
    batch: count('4K pages for which the guest asks the VMM at a time', 1, 256).default(16),
    interval: duration('Time between two batches').default('100us'),
    hold: duration('Time that it stays inflated, and then deflated').default('2ms'),
  })
  .describe('A guest that gives memory back and takes it again: the VMM answers with MADV_DONTNEED');

const vm = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9-]+$/)
    .describe('By which events and figures name it')
    .default('vm0'),
  memory: size('Guest memory').default('16G'),
  backing: backing.default('pud-thp'),
  memoryMax: size('memory.max of its cgroup; no limit if left out').optional(),
  program: z
    .array(programStep)
    .describe('Instead of a guest: a process that goes through these steps, without devices')
    .nullable()
    .default(null),
  cpuTouchInterval: duration('Time between two touches of a random page by the guest CPU').default('50us'),
  cpuRefaults: fraction('Share of the CPU’s touches that go to a page the host has taken away').default(0.3),
  equalPages: equalPages.nullable().default(null),
  balloon: balloon.nullable().default(null),
  devices: devices.prefault({}),
});

const faultPolicy = z.strictObject({
  prefault: z
    .enum(['none', 'resident', 'populate'])
    .describe(
      'What is mapped before the first fault: nothing, what is resident, or everything, faulted in without pins',
    )
    .default(DEFAULT_FAULT_POLICY.prefault),
  around: count(
    'Fault-around: pages of the aligned window around a fault of which all that is resident is mapped; a power of two, 1 for none',
    1,
    262_144,
  ).default(DEFAULT_FAULT_POLICY.around),
  populateAround: z
    .boolean()
    .describe('Whether what is missing in that window is faulted in, too')
    .default(DEFAULT_FAULT_POLICY.populateAround),
  largest: z.enum(['4K', '2M', '1G']).describe('The largest leaf that is made').default(DEFAULT_FAULT_POLICY.largest),
});

const iommu = z.strictObject({
  iotlb: z
    .strictObject({ '4K': cacheArray, '2M': cacheArray, '1G': cacheArray })
    .optional()
    .describe('IOTLB geometry; the default is 64 entries for 4K, 32 for 2M and 4 for 1G'),
  pageRequestEntries: count('Page request queue entries, a power of two', 2, 16_384).default(2048),
  faultWorkers: count('Fault handlers at work at once', 1, 1024).default(2),
  reservePages: count('Table pages kept so that a notifier cannot fail', 0, 65_536).default(4),
  accessedDirty: z
    .boolean()
    .describe(
      'Whether hardware sets the A and D bits of the second stage (SSADE), so that writes by DMA are reported (I6)',
    )
    .default(true),
  faultPolicy: faultPolicy.describe('What of an unpinned VM is mapped before and around faults').prefault({}),
  onUnfaultable: z
    .enum(['refuse', 'pin-all'])
    .describe('What becomes of a device with a path that cannot fault and ranges that are not declared')
    .default('refuse'),
  collapse: z
    .strictObject({
      interval: duration('Time between two passes').default('2ms'),
      quietPasses: count('Passes for which a block is left alone after a page of it went or came', 1, 1000).default(2),
    })
    .describe('When cut+collapse puts large leaves back')
    .prefault({}),
  patchDefects: z
    .array(z.enum(PATCH_2023_DEFECTS))
    .describe('Which defects of the patch of 2023 are on, if strategy is patch-2023; D2 is of the first stage')
    .default([...PATCH_2023_DEFECTS]),
});

const inject = z
  .strictObject({
    frameAllocation: fraction('Share of folio allocations that find no memory').default(0),
    tableAllocation: fraction('Share of table page allocations that are refused').default(0),
    swapRead: fraction('Share of swap reads that fail').default(0),
    swapWrite: fraction('Share of swap writes that fail').default(0),
    slowSwap: count('How many times as long the swap device takes', 1, 1 << 20).default(1),
    invalidationTimeout: fraction('Share of device-TLB invalidations that a device does not answer (ITE)').default(0),
    invalidationSilence: fraction('Share of those after which the device answers none any more').default(0),
    timeoutAfter: duration('Time after which the unit gives up an invalidation; PCIe gives devices a minute').default(
      '60s',
    ),
  })
  .describe('Failures on purpose, from the end of the boot on');

/** The scenario document, schema of YAML files and of `--set`. */
export const scenarioSchema = z.strictObject({
  name: z
    .string()
    .regex(/^\P{Cc}+$/u, 'expected at least one character, and none that controls a terminal')
    .describe('Under which it is reported')
    .default('unnamed'),
  description: z.string().describe('What it is about, for the report').default(''),
  strategy: strategy
    .describe('How a range is taken out of the I/O page table when the host changes it; pinned: not at all')
    .default('cut'),
  expect: z
    .enum(['ok', 'host-crashed', 'invariant-violated', 'refused'])
    .describe('The verdict that is no failure; refused: iommufd does not let a device in')
    .default('ok'),
  duration: duration('Virtual time that the workloads run').default('100ms'),
  host: host.prefault({}),
  reclaim: reclaim.nullable().prefault({}),
  vm: vm.prefault({}),
  vms: z.array(vm).describe('Several VMs on one host, instead of vm').default([]),
  iommu: iommu.prefault({}),
  events: z.array(hostEvent).describe('What the host does besides, while its guests run').default([]),
  inject: inject.prefault({}),
  thresholds: z
    .array(z.string())
    .describe("Conditions on the stats document, such as 'dma.latencyNs.p99 < 500us'")
    .default([]),
});

/** Bytes of the leaf to which a backing is aligned. */
export const BACKING_GRANULE: Readonly<Record<Backing, bigint>> = {
  '4K': 4096n,
  'thp-2M': 1n << 21n,
  'hugetlb-2M': 1n << 21n,
  'hugetlb-1G': 1n << 30n,
  contiguous: 1n << 21n,
  'contiguous-4K': 4096n,
  'pud-thp': 1n << 30n,
};

/** A scenario with every default filled in. Sizes and durations are still text; see `parseSize`, `parseDurationNs`. */
export type Scenario = z.output<typeof scenarioSchema>;
/** The settings of one VM. */
export type VmSettings = Scenario['vm'];
/** The VMs of a scenario: those of `vms`, or the one of `vm`. */
export const vmsOf = (scenario: Scenario): readonly VmSettings[] =>
  scenario.vms.length > 0 ? scenario.vms : [scenario.vm];
/** What `vm` is if nobody says anything of it. */
export const defaultVm = (): VmSettings => vm.parse({});
/** A scenario as a user writes it. */
export type ScenarioInput = z.input<typeof scenarioSchema>;

/** JSON schema of scenario files, for editors. */
export const scenarioJsonSchema = (): unknown => z.toJSONSchema(scenarioSchema, { io: 'input' });
