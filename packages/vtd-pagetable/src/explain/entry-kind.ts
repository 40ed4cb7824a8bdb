import { contextLayout } from '../context-entry.ts';
import type { TableLevel } from '../entry.ts';
import type { Layout } from '../format/bit-field.ts';
import { pagingEntryLayout } from '../format/paging-entry-layout.ts';
import { pasidLayout } from '../format/pasid-entry-layout.ts';
import { pasidDirectoryLayout } from '../pasid-directory-entry.ts';
import { rootLayout, scalableRootLayout } from '../root-entry.ts';
import { scalableContextLayout } from '../scalable-context-entry.ts';
import type { StructureCapabilities } from '../structure-capabilities.ts';

/** The kinds of entries that can be explained: paging entries from the top, then the structures in front of them. */
export const ENTRY_KINDS = [
  'pml5e',
  'pml4e',
  'pdpte',
  'pde',
  'pte',
  'root',
  'root-scalable',
  'context',
  'context-scalable',
  'pasid-dir',
  'pasid',
] as const;

/** One of {@link ENTRY_KINDS}. */
export type EntryKind = (typeof ENTRY_KINDS)[number];

const LEVELS: Readonly<Partial<Record<EntryKind, TableLevel>>> = { pml5e: 5, pml4e: 4, pdpte: 3, pde: 2, pte: 1 };
const PAGING_KINDS = ['', 'pte', 'pde', 'pdpte', 'pml4e', 'pml5e'] as const;

const STRUCTURES: Readonly<Partial<Record<EntryKind, (capabilities: StructureCapabilities) => Layout>>> = {
  root: rootLayout,
  'root-scalable': scalableRootLayout,
  context: contextLayout,
  'context-scalable': scalableContextLayout,
  'pasid-dir': pasidDirectoryLayout,
  pasid: pasidLayout,
};

/** Level of the table that a paging entry is in; undefined for other kinds. */
export const levelOfKind = (kind: EntryKind): TableLevel | undefined => LEVELS[kind];

/** The kind of a paging entry at a level. */
export const kindOfLevel = (level: TableLevel): EntryKind => PAGING_KINDS[level] as EntryKind;

/** Quadwords of an entry of this kind. */
export const wordsOfKind = (kind: EntryKind): number =>
  kind === 'pasid' ? 8 : kind === 'context-scalable' ? 4 : kind === 'context' || kind.startsWith('root') ? 2 : 1;

/** Layout of an entry on a unit; whether a paging entry is a leaf is for its PS bit to say. @throws TypeError for no kind of entry */
export function layoutOfKind(kind: EntryKind, words: readonly bigint[], capabilities: StructureCapabilities): Layout {
  if (!ENTRY_KINDS.includes(kind)) throw new TypeError(`kind: ${kind} is none of ${ENTRY_KINDS.join(', ')}`);
  const level = LEVELS[kind];
  if (level !== undefined)
    return pagingEntryLayout(level, typeof words[0] === 'bigint' && (words[0] & 0x80n) !== 0n, capabilities);
  return (STRUCTURES[kind] as (capabilities: StructureCapabilities) => Layout)(capabilities);
}
