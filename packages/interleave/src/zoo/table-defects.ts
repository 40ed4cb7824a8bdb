import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import {
  entryFrame,
  type InvalidationGather,
  readAndClearDirty,
  SS_PAGE_SIZE,
  SS_READ,
  SS_WRITE,
  tableIndex,
} from '@faultline/vtd-pagetable';
import type { Descriptor } from '@faultline/vtd-remapping';
import type { Protocol } from '../protocol.ts';
import type { DomainDefects, DomainWorld, HarvestedRange } from '../worlds/domain-world.ts';
import { tableProtocols } from '../worlds/table-protocols.ts';
import type { ExploredDefect } from './defect.ts';

type Submit = NonNullable<DomainDefects['submit']>;

function protocolWith(name: string, defects: DomainDefects): Protocol {
  const found = tableProtocols(defects).find((protocol) => protocol.name === name);
  if (!found) throw new RangeError(`protocol: "${name}" does not exist`);
  return found;
}

const without =
  (...types: readonly Descriptor['type'][]): Submit =>
  (descriptors) => [descriptors.filter(({ type }) => !types.includes(type))];

/** IH on every IOTLB invalidation: paging-structure caches stay. */
const hintAlways: Submit = (descriptors) => [
  descriptors.map((descriptor) => (descriptor.type === 'iotlb' ? { ...descriptor, leafOnly: true } : descriptor)),
];

const deviceTlbFirst: Submit = (descriptors) => [
  descriptors.filter(({ type }) => type === 'deviceTlb'),
  descriptors.filter(({ type }) => type !== 'deviceTlb'),
];

type Harvest = NonNullable<DomainDefects['harvest']>;

/** Reads and clears D in a range. The flush that this owes is with the gather. */
function* clearDirty(world: DomainWorld, agent: Agent, { page, pages }: HarvestedRange, gather: InvalidationGather) {
  const found: HarvestedRange[] = [];
  yield* readAndClearDirty(agent, world.domain.table, { page, pages, clear: true }, gather, (first, count) => {
    found.push({ page: first, pages: count });
  });
  return found;
}

const harvestWithoutFlush: Harvest = (world, agent, range) => clearDirty(world, agent, range, world.domain.gather());

const processBeforeFlush: Harvest = function* (world, agent, range, process) {
  const gather = world.domain.gather();
  yield* process(yield* clearDirty(world, agent, range, gather));
  yield* world.domain.flush(agent, gather);
  return [];
};

/** What a collapse finds in the old table once hardware has left it is thrown away. */
function dropLateBits({ domain }: DomainWorld): void {
  const { table } = domain;
  const settle = table.settle.bind(table);
  table.settle = (gather) => {
    gather.lateTables.length = 0;
    return settle(gather);
  };
}

/** Two installs, 1G to 2M and 2M to 4K, of which the second writes what was made of the leaf over whatever is there by then. */
function* cutWithSecondStore({ domain, tables }: DomainWorld, agent: Agent, page: number): Task<void> {
  const gather = domain.gather();
  // A boundary of 2M leaves: the first install, as it should be.
  yield* domain.cut(agent, page - (page % 512) + 512, 512, gather);
  let pfn = domain.table.rootPfn;
  for (let level = domain.table.levels as number; level > 2; level--)
    pfn = entryFrame(tables.load(pfn, tableIndex(page, level)));
  const index = tableIndex(page, 2);
  yield agent.reads('read 2M leaf', Location.entry, tables.location(pfn, index), Cost.entryRead);
  const leaf = tables.load(pfn, index);
  const child = tables.allocate();
  for (let i = 0; i < 512; i++) tables.store(child, i, (leaf & ~SS_PAGE_SIZE) + (BigInt(i) << 12n));
  yield agent.writes('write table entry over the leaf', Location.entry, tables.location(pfn, index), Cost.entryWrite);
  tables.store(pfn, index, (BigInt(child) << 12n) | SS_READ | SS_WRITE);
  domain.table.places.put(child, 1, 0);
  yield* domain.flush(agent, gather);
}

/** Tables are put in by a store: whoever comes second wins. Nothing else is exchanged in the worlds of `map`. */
function storeInstead({ tables }: DomainWorld): void {
  tables.compareExchange = (pfn, index, expected, replacement) => {
    tables.store(pfn, index, replacement);
    return expected;
  };
}

/** Defects of what is done to a domain's table and to the caches. */
export const TABLE_DEFECTS: readonly ExploredDefect[] = [
  {
    id: 'missing-iotlb-invalidation',
    title: 'the IOTLB is not invalidated after an unmap',
    source: null,
    text: 'The entries are cleared and the device TLB is invalidated, but not the IOTLB of the unit. A device whose translation is cached there goes on reaching the frame, which the host has given to somebody else.',
    breaks: ['I1', 'I5'],
    protocol: protocolWith('unmap', { submit: without('iotlb') }),
  },
  {
    id: 'device-tlb-not-invalidated',
    title: 'the device TLB is not invalidated after an unmap',
    source: 'VT-d Rev 5.10, 6.5.2.5',
    text: 'A device with ATS keeps translations of its own, of which an invalidation of the IOTLB knows nothing. Its translated requests go straight to memory.',
    breaks: ['I1'],
    protocol: protocolWith('unmap', { submit: without('deviceTlb') }),
  },
  {
    id: 'device-tlb-before-iotlb',
    title: 'the device TLB is invalidated before the IOTLB',
    source: 'VT-d Rev 5.10, 6.5.2.5',
    text: 'Between the two the device asks for the translation again, and is answered from the IOTLB, which still holds the old one. It keeps it after both invalidations are complete.',
    breaks: ['I1'],
    protocol: protocolWith('unmap', { submit: deviceTlbFirst }),
  },
  {
    id: 'table-freed-early',
    title: 'a table page is freed before the invalidation that covers it',
    source: 'the rule that Linux keeps by putting table pages on the gather’s free list',
    text: 'Hardware holds the address of the table in a paging-structure cache, or in a walk that is under way. Once the page is somebody else’s, it reads words of his as entries.',
    breaks: ['I1', 'I3', 'I5'],
    protocol: protocolWith('unmap', { freesTablesEarly: true }),
  },
  {
    id: 'hint-although-non-leaf-changed',
    title: 'IH=1 although an entry that leads to a table has changed',
    source: 'VT-d Rev 5.10, 6.5.2.3',
    text: 'With the invalidation hint the unit keeps its paging-structure caches. They still lead to the table that was unlinked, and that is freed next.',
    breaks: ['I1', 'I3', 'I5'],
    protocol: protocolWith('unmap', { submit: hintAlways }),
  },
  {
    id: 'stale-table-under-superpage',
    title: 'a superpage takes the place of an emptied table without an invalidation',
    source:
      'Linux had it: switch_to_super_page() of its VT-d driver (6.1, 6.12) unmaps and flushes before the superpage is written',
    text: 'The table was emptied page by page, each time with the hint that only leaves had changed. Hardware may have the table’s address in a paging-structure cache. When a 2M leaf takes its place without an invalidation, a walk still goes to the empty table, or to whatever the page holds by then.',
    breaks: ['I1', 'I3', 'I4', 'I5'],
    protocol: superpageOnly({ submit: () => [] }),
  },
  {
    id: 'collapse-frees-table-early',
    title: 'a collapse frees the old table while a walker may hold it',
    source: null,
    text: 'The leaf is installed, and the table’s page goes back to the host at once. A walk that read the entry before the change, or a paging-structure cache, still leads there; dirty bits that hardware sets in it are lost.',
    breaks: ['I1', 'I3', 'I5', 'I6'],
    protocol: protocolWith('collapse', { freesTablesEarly: true }),
  },
  {
    id: 'dirty-harvest-without-flush',
    title: 'dirty bits are cleared and the caches keep saying that they are set',
    source: 'Linux 7.3 flushes the gather of read_and_clear_dirty for this reason',
    text: 'A translation that was cached with D set lets writes through without a look at the table. What a device writes after the harvest is reported by no later one.',
    breaks: ['I6'],
    protocol: protocolWith('dirty-harvest', { harvest: harvestWithoutFlush }),
  },
  {
    id: 'copy-before-flush',
    title: 'a dirty page is processed before the caches have been invalidated',
    source: 'the order of iommufd’s dirty tracking: the bitmap is handed out after iommu_iotlb_sync()',
    text: 'D is cleared and the page is copied, and only then the invalidation ends. Until then a cached translation with D set lets writes through: what is written after the copy is in no bitmap.',
    breaks: ['I6'],
    protocol: protocolWith('dirty-harvest', { harvest: processBeforeFlush }),
  },
  {
    id: 'late-bits-lost',
    title: 'a collapse drops the dirty bits that hardware sets in the old table until the flush',
    source: null,
    text: 'The large leaf gets the dirty bits as they were when it was made. A walk with a cached paging-structure entry still ends in the old table and sets D there; the table is freed, and the write is reported by no harvest.',
    breaks: ['I6'],
    protocol: protocolWith('collapse', { prepare: dropLateBits }),
  },
  {
    id: 'second-install-loses-dirty',
    title: 'the second of two installs is a plain store: a D bit set meanwhile is lost',
    source: 'the draft cut_mapping and the posted patch both install with a compare-and-swap for this reason',
    text: 'A 1G leaf is cut to 2M by compare-and-swap, and then one 2M leaf to 4K. Its children are filled from the leaf as it was read. Hardware sets D in it before the table entry takes its place; a plain store does not notice, and the write is reported by no harvest.',
    breaks: ['I6'],
    protocol: byTwoInstalls(protocolWith('dirty-harvest', { cut: cutWithSecondStore })),
  },
  {
    id: 'install-without-compare',
    title: 'a mapper puts its table in by a plain store, over that of another mapper',
    source: 'Linux’s pfn_to_dma_pte() installs by try_cmpxchg64() and frees its own table if another was there first',
    text: 'Two mappers find the same entry empty and each builds a table. The second store wins, and what the first has mapped, or is about to, is in a table that nothing leads to.',
    breaks: ['I4', 'I12'],
    protocol: protocolWith('map', { prepare: storeInstead }),
  },
  {
    id: 'stale-context-on-detach',
    title: 'a device is detached, and the context and PASID caches are not invalidated',
    source: 'VT-d Rev 5.10, table 28',
    text: 'The structures are cleared in memory, but the unit answers from its caches: the device keeps its domain, whose table is freed next.',
    breaks: ['I1', 'I3', 'I5'],
    protocol: protocolWith('detach', { submit: without('contextCache', 'pasidCache') }),
  },
];

function superpageOnly(defects: DomainDefects): Protocol {
  const map = protocolWith('map', defects);
  return { ...map, configurations: map.configurations.filter(({ name }) => name.startsWith('2M over')) };
}

function byTwoInstalls(protocol: Protocol): Protocol {
  return { ...protocol, configurations: protocol.configurations.filter(({ name }) => name.includes('two installs')) };
}
