import type { EntryCapabilities, TableLevel } from '../entry.ts';
import { at, type BitField, conditional, type Layout, layout, namedValues, used, yesNo } from './bit-field.ts';

const NAMES = ['', 'SS-PTE', 'SS-PDE', 'SS-PDPTE', 'SS-PML4E', 'SS-PML5E'] as const;
const NEXT_TABLES = ['', '', 'SS-PTE table', 'SS-PDE table', 'SS-PDPTE table', 'SS-PML4E table'] as const;
const LEAF_SIZES: readonly string[] = ['', '4K', '2M', '1G'];

/** The specification's name for an entry of a table at this level. */
export const entryName = (level: number): string => NAMES[level] ?? `level-${level} entry`;

/** Size of the page that a leaf at this level maps: `4K`, `2M` or `1G`. */
export const leafSizeName = (level: number): string => LEAF_SIZES[level] ?? '';

const bit = (
  position: number,
  name: string,
  title: string,
  meaning: (value: bigint) => string,
): Omit<BitField, 'use'> => ({ name, title, high: position, low: position, meaning });

/** Bits that hardware ignores. */
export const ignored = (high: number, low: number, title: string): BitField => ({
  name: 'ignored',
  title,
  high,
  low,
  use: 'ignored',
});

/** Bits 63:52: software's, and what revisions use differently. */
function highFields(leaf: boolean, { specRevision, deviceTlb }: EntryCapabilities): BitField[] {
  const revision3 = specRevision === '3.x';
  const bit62 = revision3
    ? conditional(
        leaf && deviceTlb,
        'ECAP.DT=0, or no leaf',
        bit(62, 'TM', 'transient mapping', yesNo('device must not cache for long', 'no')),
      )
    : conditional(false, 'I/O permission bits are off', bit(62, 'IW', 'I/O write', yesNo('set', 'clear')));
  return [
    ignored(63, 63, 'Linux software bit 10'),
    bit62,
    revision3 ? ignored(61, 61, 'for software') : ignored(61, 61, 'IR (I/O read) if I/O permission bits were on'),
    ignored(60, 52, 'Linux software bits 9:1'),
  ];
}

/** Bit 7. */
function pageSizeField(level: TableLevel, capabilities: EntryCapabilities): BitField {
  if (level === 1) return ignored(7, 7, 'for software');
  if (level >= 4) return { name: 'reserved', title: 'must be 0', high: 7, low: 7, use: 'reserved' };
  const size = leafSizeName(level);
  const supported = level === 2 ? capabilities.page2M : capabilities.page1G;
  return conditional(
    supported,
    `CAP.SSLPS has no ${size}`,
    bit(7, 'PS', 'page size', yesNo(`${size} leaf`, 'points to a table')),
  );
}

/** Bits 11:0 but PS. */
function lowFields(leaf: boolean, { snoopControl, specRevision }: EntryCapabilities): BitField[] {
  const accessed = used(bit(8, 'A', 'accessed', yesNo('used since cleared', 'not used since cleared')));
  const common = [
    accessed,
    specRevision === '3.x'
      ? used(bit(2, 'X', 'execute', yesNo('allowed where execute requests are', 'no')))
      : ignored(2, 2, 'execute (X) before Rev 5.10'),
    used(bit(1, 'W', 'write', yesNo('allowed', 'not allowed'))),
    used(bit(0, 'R', 'read', yesNo('allowed', 'not allowed'))),
  ];
  if (!leaf)
    return [
      ...common,
      ignored(10, 10, 'Linux software bit 0'),
      ignored(9, 9, 'for software'),
      ignored(6, 3, 'for software'),
    ];
  return [
    ...common,
    conditional(
      snoopControl,
      'ECAP.SC=0',
      bit(11, 'SNP', 'snoop', yesNo('accesses snoop the caches', 'by other attributes')),
    ),
    ignored(10, 10, 'Linux software bit 0'),
    used(bit(9, 'D', 'dirty', yesNo('written since cleared', 'not written since cleared'))),
    used(bit(6, 'IPAT', 'ignore PAT, if EMTE', yesNo('PAT of the PASID entry is ignored', 'no'))),
    used({
      name: 'EMT',
      title: 'extended memory type, if EMTE',
      high: 5,
      low: 3,
      meaning: namedValues(['UC', 'WC', '', '', 'WT', 'WP', 'WB']),
    }),
  ];
}

/** Bits 51:12; what is not the address is left to be reserved. */
export function addressField(
  level: TableLevel,
  leaf: boolean,
  hostAddressWidth: number,
  nextTables: readonly string[],
): BitField {
  const low = leaf ? 12 + 9 * (level - 1) : 12;
  return used({
    name: 'ADDR',
    title: leaf ? 'page frame' : 'next table',
    high: hostAddressWidth - 1,
    low,
    meaning: leaf
      ? (value) => `${leafSizeName(level)} page at 0x${(value << BigInt(low)).toString(16)}`
      : at(nextTables[level] as string),
  });
}

const built = new WeakMap<EntryCapabilities, (Layout | undefined)[]>();

/**
 * Layout of a second-stage paging entry (Rev 5.10, 9.8; bits 62 and 2 also as in Rev 3.x).
 * @param leaf whether it maps a page; PS in an SS-PDE or SS-PDPTE says so, and no SS-PML4E or SS-PML5E does
 */
export function pagingEntryLayout(level: TableLevel, leaf: boolean, capabilities: EntryCapabilities): Layout {
  const isLeaf = level === 1 || (leaf && level <= 3);
  const layouts = built.get(capabilities) ?? [];
  built.set(capabilities, layouts);
  const index = level * 2 + (isLeaf ? 1 : 0);
  layouts[index] ??= layout({
    name: NAMES[level],
    source: '9.8',
    words: 1,
    fields: [
      ...highFields(isLeaf, capabilities),
      addressField(level, isLeaf, capabilities.hostAddressWidth, NEXT_TABLES),
      pageSizeField(level, capabilities),
      ...lowFields(isLeaf, capabilities),
    ],
  });
  return layouts[index];
}
