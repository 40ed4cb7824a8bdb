import { parseDurationNs, parseSize } from '@faultline/address';
import { BACKINGS, type Backing } from '@faultline/host-mm';
import { z } from 'zod';

const quantity = (what: 'size' | 'duration', example: string) =>
  z.string().superRefine((text, context) => {
    try {
      if (what === 'size') parseSize(text);
      else parseDurationNs(text);
    } catch {
      context.addIssue({ code: 'custom', message: `expected a ${what} such as ${example}, got "${text}"` });
    }
  });

/** A size with a unit, in bytes once parsed: `4K`, `16G`, `0x1000`. */
const size = (description: string) => quantity('size', '4K, 2M or 16G').describe(description);
/** A duration with a unit, in ns once parsed: `10us`, `50ms`. */
const duration = (description: string) => quantity('duration', '10us or 50ms').describe(description);
const count = (description: string, minimum = 0, maximum = 1e9) =>
  z.number().int().min(minimum).max(maximum).describe(description);
const fraction = (description: string) => z.number().min(0).max(1).describe(description);

/** Ways to take 4K out of a large leaf that this version runs. */
export const STRATEGIES = ['pinned', 'naive', 'whole-leaf', 'cut'] as const;
/** A strategy by name. */
export type Strategy = (typeof STRATEGIES)[number];

/** Strategies that are planned and refused with a clear error. */
export const PLANNED_STRATEGIES = ['paired', 'break-before-make', 'patch-2023', 'cut+collapse', 'shared-ept'] as const;

const strategy = z.enum(STRATEGIES, {
  error: (issue) =>
    PLANNED_STRATEGIES.includes(issue.input as (typeof PLANNED_STRATEGIES)[number])
      ? `strategy "${String(issue.input)}" is not implemented yet (see FIDELITY.md); expected one of ${STRATEGIES.join(', ')}`
      : `expected one of ${STRATEGIES.join(', ')}, got ${JSON.stringify(issue.input)}`,
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

const accelerator = z.strictObject({
  queues: count('Queues, each with one request at a time', 1, 1024).default(4),
  request: size('Bytes per request').default('16K'),
  workingSet: size('Guest memory over which requests are spread at random').default('16G'),
  thinkTime: duration('Pause between two requests of a queue').default('5us'),
  writeFraction: fraction('Share of requests that write guest memory').default(0.5),
  refaults: fraction(
    'Share of its pages that are picked from those the host has taken away: uniform accesses to 16 GiB almost never meet one',
  ).default(0.005),
});

const disk = z.strictObject({
  queueDepth: count('Commands at a time', 1, 1024).default(2),
  request: size('Bytes per sequential read').default('128K'),
  buffers: size('Guest memory that reads go to, used in turn').default('256M'),
  mediaTime: duration('Time of the medium per command').default('80us'),
});

const nic = z.strictObject({
  queues: count('Receive queues', 1, 1024).default(2),
  interval: duration('Time between two packets of a queue').default('20us'),
  receiveBuffers: count('Receive buffers of 4K per queue', 1).default(256),
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

const vm = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9-]+$/)
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
  devices: z
    .strictObject({
      accelerator: accelerator.nullable().prefault({}),
      disk: disk.nullable().prefault({}),
      nic: nic.nullable().prefault({}),
    })
    .describe('null removes a device')
    .prefault({}),
});

const iommu = z.strictObject({
  iotlb: z
    .strictObject({ '4K': cacheArray, '2M': cacheArray, '1G': cacheArray })
    .optional()
    .describe('IOTLB geometry; the default is 64 entries for 4K, 32 for 2M and 4 for 1G'),
  pageRequestEntries: count('Page request queue entries, a power of two', 2, 16_384).default(2048),
  faultWorkers: count('Fault handlers at work at once', 1, 1024).default(2),
  reservePages: count('Table pages kept so that a notifier cannot fail', 0, 65_536).default(4),
});

const hostEvent = z.strictObject({
  at: duration('Virtual time'),
  action: z.enum(['madvise-dontneed']).describe('What the host does'),
  gpa: size('First byte, a guest-physical address'),
  length: size('Bytes'),
});

/** The scenario document, schema of YAML files and of `--set`. */
export const scenarioSchema = z.strictObject({
  name: z
    .string()
    .regex(/^\P{Cc}+$/u, 'expected at least one character, and none that controls a terminal')
    .default('unnamed'),
  description: z.string().default(''),
  strategy: strategy.default('cut'),
  expect: z.enum(['ok', 'host-crashed']).describe('The verdict that is no failure').default('ok'),
  duration: duration('Virtual time that the workloads run').default('100ms'),
  host: host.prefault({}),
  reclaim: reclaim.nullable().prefault({}),
  vm: vm.prefault({}),
  iommu: iommu.prefault({}),
  events: z.array(hostEvent).default([]),
  thresholds: z.array(z.string()).default([]),
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
/** A scenario as a user writes it. */
export type ScenarioInput = z.input<typeof scenarioSchema>;

/** JSON schema of scenario files, for editors. */
export const scenarioJsonSchema = (): unknown => z.toJSONSchema(scenarioSchema, { io: 'input' });
