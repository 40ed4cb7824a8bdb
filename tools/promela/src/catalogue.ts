/** What is expected of a model: that all invariants it claims hold, or that one is broken. */
export type Verdict = 'holds' | 'violated';

/** One small world in which a model is explored. */
export interface Configuration {
  readonly name: string;
  /** For the preprocessor: `NAME` or `NAME=value`. */
  readonly defines: readonly string[];
}

/** A protocol as a Promela model. */
export interface ProtocolModel {
  /** The name that `vm-sim verify` has for it; the model is `models/<name>.pml`. */
  readonly name: string;
  readonly expected: Verdict;
  readonly configurations: readonly Configuration[];
}

/** A defect, switched on alone over a correct model. */
export interface DefectModel {
  /** Kebab-case; the switch is the same in capitals, with underscores. */
  readonly id: string;
  /** The protocol that is right without it. */
  readonly protocol: string;
  /** The configuration that shows it, without the switch itself. */
  readonly defines: readonly string[];
  /** Invariants that it may break, the first step that breaks any being the one that is reported. */
  readonly invariants: readonly string[];
  /** One line for a list. */
  readonly what: string;
}

const LARGE = 'LEAF_LEVEL=3';
const SMALL = 'LEAF_LEVEL=1';

const configuration = (name: string, ...defines: string[]): Configuration => ({ name, defines });

/** All protocols, in the order of `vm-sim verify`. */
export const PROTOCOL_MODELS: readonly ProtocolModel[] = [
  {
    name: 'cut',
    expected: 'holds',
    configurations: [
      configuration('2M'),
      configuration('2M, ATS', 'ATS'),
      configuration('2M, pages 1 to 2, A and D', 'FIRST=1', 'LAST=2', 'ADE'),
      configuration('2M, two devices, A and D', 'DEVICES=2', 'DMAS=1', 'ADE'),
      configuration('1G, A and D', LARGE, 'ADE'),
      configuration('1G, ATS, A and D', LARGE, 'ATS', 'ADE'),
      configuration('1G, not coherent, allocation may fail', LARGE, 'NONCOHERENT', 'ALLOC_FAIL'),
      configuration('1G, pages 1 to 2, allocation may fail', LARGE, 'FIRST=1', 'LAST=2', 'ALLOC_FAIL'),
      configuration('1G, rights in high bits', LARGE, 'IO_RIGHTS'),
    ],
  },
  {
    name: 'collapse',
    expected: 'holds',
    configurations: [
      configuration('4K->2M, A and D', 'ADE'),
      configuration('4K->2M, ATS, A and D', 'ADE', 'ATS'),
      configuration('4K->2M, not coherent', 'NONCOHERENT'),
      configuration('4K->1G, A and D', 'TO_LEVEL=3', 'ADE'),
    ],
  },
  {
    name: 'map',
    expected: 'holds',
    configurations: [
      configuration('two mappers'),
      configuration('two mappers, allocation may fail', 'ALLOC_FAIL'),
      configuration('two mappers, not coherent', 'NONCOHERENT'),
      configuration('2M over a vacant table, ATS', 'VACANT_TABLE', 'ATS'),
      configuration('2M over a vacant table, not coherent', 'VACANT_TABLE', 'NONCOHERENT'),
    ],
  },
  {
    name: 'unmap',
    expected: 'holds',
    configurations: [
      configuration('4K and 2M'),
      configuration('4K and 2M, ATS, A and D', 'ATS', 'ADE'),
      configuration('4K and 2M, not coherent', 'NONCOHERENT'),
      configuration('1G, A and D', LARGE, 'ADE'),
    ],
  },
  {
    name: 'fault-vs-notifier',
    expected: 'holds',
    configurations: [
      configuration('2M'),
      configuration('2M, two reclaims, ATS', 'RECLAIMS=2', 'ATS'),
      configuration('4K, two reclaims', SMALL, 'RECLAIMS=2'),
      configuration('not mapped at first, ATS', 'LEAF_LEVEL=0', 'ATS'),
    ],
  },
  {
    name: 'fault-vs-fault',
    expected: 'holds',
    configurations: [
      configuration('two devices'),
      configuration('two devices, ATS', 'ATS'),
      configuration('two devices, allocation may fail', 'ALLOC_FAIL'),
    ],
  },
  {
    name: 'dirty-harvest',
    expected: 'holds',
    configurations: [
      configuration('2M'),
      configuration('2M, two rounds', 'ROUNDS=2'),
      configuration('4K, ATS', SMALL, 'ATS'),
    ],
  },
  {
    name: 'prq',
    expected: 'holds',
    configurations: [configuration('ring of 3', 'RING=3'), configuration('ring of 4', 'RING=4')],
  },
  {
    name: 'detach',
    expected: 'holds',
    configurations: [
      configuration('two DMAs'),
      configuration('two DMAs, ATS', 'ATS'),
      configuration('three DMAs', 'DMAS=3'),
    ],
  },
  {
    name: 'patch-2023',
    expected: 'violated',
    configurations: [
      configuration('2M'),
      configuration('2M, A and D', 'ADE'),
      configuration('2M, not coherent', 'NONCOHERENT'),
      configuration('2M, rights in high bits', 'IO_RIGHTS'),
      configuration('2M, pages 1 to 2', 'FIRST=1', 'LAST=2'),
      configuration('1G, allocation may fail', LARGE, 'ALLOC_FAIL'),
    ],
  },
  {
    name: 'break-before-make',
    expected: 'holds',
    configurations: [
      configuration('2M, ATS, A and D', 'ATS', 'ADE'),
      configuration('1G, allocation may fail', LARGE, 'ALLOC_FAIL'),
      configuration('1G, not coherent', LARGE, 'NONCOHERENT'),
    ],
  },
  { name: 'naive', expected: 'violated', configurations: [configuration('2M'), configuration('1G', LARGE)] },
  {
    name: 'whole-leaf',
    expected: 'holds',
    configurations: [
      configuration('2M'),
      configuration('2M, ATS, A and D', 'ATS', 'ADE'),
      configuration('1G, not coherent', LARGE, 'NONCOHERENT'),
    ],
  },
  {
    name: 'paired',
    expected: 'holds',
    configurations: [
      configuration('2M, ATS', 'ATS'),
      configuration('1G', LARGE),
      configuration('4K and 2M, A and D', SMALL, 'ADE'),
    ],
  },
];

const defect = (
  id: string,
  protocol: string,
  defines: readonly string[],
  invariants: readonly string[],
  what: string,
): DefectModel => ({ id, protocol, defines, invariants, what });

/** All defects: those of the patch posted in 2023 by their numbers, then the others by name. */
export const DEFECT_MODELS: readonly DefectModel[] = [
  defect('D1', 'cut', ['NONCOHERENT'], ['I4', 'I11'], 'the new table is published before it is flushed'),
  defect('D3', 'cut', [LARGE, 'ALLOC_FAIL'], ['I8'], 'the second split fails, and unmap reports success'),
  defect(
    'D4',
    'cut',
    ['FIRST=1', 'LAST=2'],
    ['I3'],
    'a leaf covered at head or tail by a range of its size is not split',
  ),
  defect('D5', 'cut', ['ADE'], ['I8'], 'a compare-and-swap that A or D made fail is not tried again'),
  defect('D6', 'cut', ['ALLOC_FAIL'], ['I8'], 'unmap needs table pages, and there are none'),
  defect('D8', 'cut', ['IO_RIGHTS'], ['I4'], 'attributes above bit 51 are not copied'),
  defect('D9', 'cut', [], ['I1'], 'only the range is invalidated, not the whole old leaf'),
  defect('missing-invalidation', 'cut', [], ['I1'], 'nothing is invalidated'),
  defect('invalidation-before-change', 'cut', [], ['I1'], 'the invalidation comes before the entries change'),
  defect(
    'second-install-loses-dirty',
    'cut',
    [LARGE, 'ADE'],
    ['I6'],
    'the second install is a store of what was read before',
  ),
  defect('device-tlb-not-invalidated', 'cut', ['ATS'], ['I1'], 'the device TLB keeps the old translation'),
  defect('device-tlb-before-iotlb', 'cut', ['ATS'], ['I1'], 'the device TLB is refilled from a stale IOTLB'),
  defect('table-freed-early', 'unmap', [], ['I5'], 'table pages are freed before the invalidation is complete'),
  defect('ih-on-non-leaf', 'unmap', [], ['I5'], 'IH=1 although an entry that leads to a table has changed'),
  defect(
    'stale-4k-paging-entry-after-superpage',
    'map',
    ['VACANT_TABLE'],
    ['I5', 'I13'],
    'a paging-structure entry survives the switch to a superpage',
  ),
  defect(
    'install-without-compare',
    'map',
    [],
    ['I12', 'I13'],
    'a table is put in by a store, over that of another mapper',
  ),
  defect(
    'path-flush-left-to-winner',
    'map',
    ['NONCOHERENT'],
    ['I13'],
    'the entry to a table is flushed by who installed it only',
  ),
  defect(
    'response-before-map',
    'fault-vs-notifier',
    [],
    ['I13'],
    'the page group is answered before the map is visible',
  ),
  defect(
    'map-without-sequence-check',
    'fault-vs-notifier',
    ['LEAF_LEVEL=0'],
    ['I1', 'I10'],
    'no look at the notifier sequence',
  ),
  defect(
    'sequence-check-before-lock',
    'fault-vs-notifier',
    ['LEAF_LEVEL=0'],
    ['I1', 'I10'],
    'the sequence is read before the lock',
  ),
  defect(
    'unlocked-before-flush',
    'fault-vs-notifier',
    ['RECLAIMS=2'],
    ['I1'],
    'the update lock is released before the invalidation is complete',
  ),
  defect('dirty-harvest-without-flush', 'dirty-harvest', [], ['I6'], 'D is cleared and nothing invalidated'),
  defect('copy-before-flush', 'dirty-harvest', [], ['I6'], 'pages are copied before the invalidation'),
  defect('overflow-loses-group', 'prq', [], ['I9'], 'an overflow is handled by throwing the ring away'),
  defect('group-answered-twice', 'prq', [], ['I9'], 'a request that is not the last of its group is answered'),
  defect('ppr-cleared-last', 'prq', [], ['I9'], 'PPR is cleared after the ring was read'),
  defect(
    'collapse-while-walker-holds-old-table',
    'collapse',
    [],
    ['I5'],
    'the old table is freed before the invalidation',
  ),
  defect(
    'late-bits-lost',
    'collapse',
    ['ADE'],
    ['I6'],
    'what hardware set in the old table until the flush is dropped',
  ),
  defect('stale-context-on-detach', 'detach', [], ['I1', 'I5'], 'the PASID cache is not invalidated'),
  defect('group-lost-on-detach', 'detach', [], ['I13'], 'page requests in the queue get no answer'),
];

/** The preprocessor's name of a defect's switch. */
export const switchOf = (id: string): string => id.toUpperCase().replaceAll('-', '_');
