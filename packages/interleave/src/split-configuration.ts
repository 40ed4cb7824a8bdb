/** One small configuration of a protocol that takes a page away while a device uses its leaf. */
export interface SplitConfiguration {
  readonly name: string;
  /** Leaf that maps the page at the start. */
  readonly leaf: '1G' | '2M';
  /** Which page the device writes: the one that is taken away, or its neighbour. */
  readonly target: 'victim' | 'neighbour';
  /** What the unit and the device have cached of the page's walk at the start: the large leaf too, the tables above it, nothing. */
  readonly cached: 'leaf' | 'tables' | 'nothing';
  /** Whether table pages may be refused. */
  readonly allocationMayFail: boolean;
  /** Without ATS, with a device TLB, or also with page requests that the stage-2 fault handler answers. */
  readonly device: 'no ATS' | 'ATS' | 'ATS and PRI';
  /** Of the two DMAs of the device, one after the other or both at once, each with a walker of its own. */
  readonly walkers: 1 | 2;
  /** Whether each cache may lose all its entries at any one moment, as hardware may let them go (Rev 5.10, 6.2.4). */
  readonly losesEntries: boolean;
  /** False: hardware does not snoop the CPU's caches, and sees what is written back. */
  readonly coherent: boolean;
  /** Hardware sets A and D. */
  readonly accessedDirty: boolean;
}

const CACHED = { leaf: 'cached', tables: 'tables cached', nothing: 'not cached' } as const;

type Parts = Omit<SplitConfiguration, 'name'>;

const PLAIN = {
  walkers: 1,
  losesEntries: false,
  coherent: true,
  accessedDirty: false,
  allocationMayFail: false,
} as const;

const LEAVES = ['2M', '1G'] as const;
const TARGETS = ['victim', 'neighbour'] as const;

/** Hardware that is not plain, for each leaf size and target. */
const HARDWARE: readonly Omit<Parts, 'leaf' | 'target'>[] = [
  ...(['leaf', 'nothing'] as const).flatMap((cached) => [
    { ...PLAIN, device: 'no ATS' as const, cached, coherent: false },
    { ...PLAIN, device: 'no ATS' as const, cached, accessedDirty: true },
  ]),
  { ...PLAIN, device: 'no ATS', cached: 'leaf', losesEntries: true },
  { ...PLAIN, device: 'no ATS', cached: 'tables', walkers: 2 },
];

/**
 * The configurations that every protocol is explored in: each leaf size, the page itself or its neighbour, cached or not, table
 * pages refused or not, with and without a device TLB; with page requests, the fault handler against the notifier; walks that do
 * not snoop, A and D bits, caches that lose entries, two walkers. Those with many orders last.
 */
export const SPLIT_CONFIGURATIONS: readonly SplitConfiguration[] = [
  ...LEAVES.flatMap((leaf) => [
    ...TARGETS.flatMap((target) =>
      (['no ATS', 'ATS'] as const).flatMap((device) =>
        (['leaf', 'nothing'] as const).flatMap((cached) =>
          [false, true].map((allocationMayFail) =>
            configuration({ ...PLAIN, leaf, target, device, cached, allocationMayFail }),
          ),
        ),
      ),
    ),
    configuration({ ...PLAIN, leaf, target: 'victim', device: 'ATS and PRI', cached: 'leaf' }),
  ]),
  ...HARDWARE.flatMap((parts) =>
    LEAVES.flatMap((leaf) => TARGETS.map((target) => configuration({ ...parts, leaf, target }))),
  ),
  // From 1G, and with two walkers, there are too many orders with a device TLB.
  ...TARGETS.map((target) =>
    configuration({ ...PLAIN, leaf: '2M', target, device: 'ATS', cached: 'leaf', losesEntries: true }),
  ),
];

/**
 * Those of the fault path, where nothing is mapped at the start: the device has page requests, and makes one DMA. A and D are left out: what
 * is mapped sets and loses them as in the others, and they make nine times as many orders here.
 */
export const FAULT_CONFIGURATIONS: readonly SplitConfiguration[] = (
  [{ leaf: '2M' }, { leaf: '1G' }, { leaf: '2M', allocationMayFail: true }, { leaf: '2M', coherent: false }] as const
).flatMap((parts) =>
  TARGETS.map((target) => configuration({ ...PLAIN, target, device: 'ATS and PRI', cached: 'nothing', ...parts })),
);

function configuration(parts: Parts): SplitConfiguration {
  const name = [
    `${parts.leaf}->4K`,
    `DMA to the ${parts.target}`,
    parts.device,
    CACHED[parts.cached],
    parts.allocationMayFail ? 'allocation may fail' : 'allocation succeeds',
    ...(parts.walkers === 2 ? ['two walkers'] : []),
    ...(parts.losesEntries ? ['entries may get lost'] : []),
    ...(parts.coherent ? [] : ['not snooped']),
    ...(parts.accessedDirty ? ['A and D'] : []),
  ].join(', ');
  return { name, ...parts };
}
