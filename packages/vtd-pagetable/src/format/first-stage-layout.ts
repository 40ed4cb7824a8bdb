import type { TableLevel } from '../entry.ts';
import { type BitField, conditional, type Layout, layout, used, yesNo } from './bit-field.ts';
import { addressField, ignored, leafSizeName } from './paging-entry-layout.ts';

/** What of a unit decides which bits of first-stage entries are reserved. */
export interface FirstStageCapabilities {
  /** Host address width: address bits from here up to 51 are reserved. */
  readonly hostAddressWidth: number;
  /** CAP.FS1GP: 1G leaves. Leaves of 2M there always are. */
  readonly page1G: boolean;
}

const NAMES = ['', 'PTE', 'PDE', 'PDPE', 'PML4E', 'PML5E'] as const;
const NEXT_TABLES = ['', '', 'page table', 'page directory', 'page-directory-pointer table', 'PML4 table'] as const;

/** The specification's name for a first-stage entry of a table at this level, with FS before it: `FS-PDE`. */
export const firstStageEntryName = (level: number): string => `FS-${NAMES[level] ?? `level-${level} entry`}`;

const bit = (position: number, name: string, title: string, yes: string, no: string): Omit<BitField, 'use'> => ({
  name,
  title,
  high: position,
  low: position,
  meaning: yesNo(yes, no),
});

/** Bit 7: PS, PAT, or reserved. */
function bit7(level: TableLevel, { page1G }: FirstStageCapabilities): BitField {
  if (level === 1) return used(bit(7, 'PAT', 'page attribute', 'set', 'clear'));
  if (level >= 4) return { name: 'reserved', title: 'must be 0', high: 7, low: 7, use: 'reserved' };
  const size = bit(7, 'PS', 'page size', `${leafSizeName(level)} leaf`, 'points to a table');
  return level === 3 ? conditional(page1G, 'CAP.FS1GP=0', size) : used(size);
}

/** Bits 51:12. What is neither the address nor PAT is left to be reserved. */
function addressFields(level: TableLevel, leaf: boolean, { hostAddressWidth }: FirstStageCapabilities): BitField[] {
  const address = addressField(level, leaf, hostAddressWidth, NEXT_TABLES);
  return leaf && level > 1 ? [address, used(bit(12, 'PAT', 'page attribute', 'set', 'clear'))] : [address];
}

/** Bits 11:0 but bit 7. */
const lowFields = (leaf: boolean): BitField[] => [
  ignored(11, 11, 'for software'),
  ignored(10, 10, 'EA (extended accessed) if EAFE were on'),
  ignored(9, 8, leaf ? 'for software, and G' : 'for software'),
  leaf
    ? used(bit(6, 'D', 'dirty', 'written since cleared', 'not written since cleared'))
    : ignored(6, 6, 'for software'),
  used(bit(5, 'A', 'accessed', 'used since cleared', 'not used since cleared')),
  ...(leaf
    ? [used(bit(4, 'PCD', 'cache disable', 'set', 'clear')), used(bit(3, 'PWT', 'write through', 'set', 'clear'))]
    : [ignored(4, 3, 'for software')]),
  used(bit(2, 'U/S', 'user or supervisor', 'user', 'supervisor')),
  used(bit(1, 'R/W', 'read or write', 'write allowed', 'read only')),
  used(bit(0, 'P', 'present', 'yes', 'no')),
];

const built = new WeakMap<FirstStageCapabilities, (Layout | undefined)[]>();

/**
 * Layout of a first-stage paging entry (Rev 5.10, 9.7, tables 34 to 40), with EAFE off.
 * @param leaf whether it maps a page; PS in a PDE or PDPE says so, and no PML4E or PML5E does
 */
export function firstStageLayout(level: TableLevel, leaf: boolean, capabilities: FirstStageCapabilities): Layout {
  const isLeaf = level === 1 || (leaf && level <= 3);
  const layouts = built.get(capabilities) ?? [];
  built.set(capabilities, layouts);
  const index = level * 2 + (isLeaf ? 1 : 0);
  layouts[index] ??= layout({
    name: firstStageEntryName(level),
    source: '9.7',
    words: 1,
    fields: [
      ignored(63, 52, 'for software'),
      ...addressFields(level, isLeaf, capabilities),
      bit7(level, capabilities),
      ...lowFields(isLeaf),
    ],
  });
  return layouts[index];
}
