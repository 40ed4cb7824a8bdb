import { entryFrame, isLeaf, isPresent, levelFrames, tableIndex } from '@faultline/vtd-pagetable';
import type { VtdDomain } from '@faultline/vtd-remapping';
import type { IofdLeafCounts, IofdTableRow } from '../iofd-log.ts';

/** What Linux 7.3 marks entries with that lead to tables; a driver's own bit, which hardware ignores and the model does not set. */
const TABLE_MARK = 1n << 10n;
const LOW_BITS = 0xfffn;

/** The entries of a walk from the top, 0 behind a leaf or where nothing is; as the kernel's dump of a four-level table. */
export function tableRow(domain: VtdDomain | null, page: number): bigint[] {
  const entries = [0n, 0n, 0n, 0n];
  if (domain === null) return entries;
  const { memory, levels } = domain.table;
  let pfn = domain.table.rootPfn;
  for (let level = levels as number; level >= 1; level--) {
    const entry = memory.load(pfn, tableIndex(page, level));
    if (level <= 4) entries[4 - level] = entry;
    if (!isPresent(entry) || isLeaf(entry, level)) break;
    pfn = entryFrame(entry);
  }
  return entries;
}

/** Compares the low 12 bits of a row: rights, page size, what else there is. Frames are not the recording's. */
export function sameRow(recorded: IofdTableRow, entries: readonly bigint[]): boolean {
  return recorded.entries.every((entry, i) => comparedBits(entry) === comparedBits(entries[i] ?? 0n));
}

const comparedBits = (entry: bigint): bigint => entry & LOW_BITS & ~TABLE_MARK;

/** A row in words. */
export const rowText = (entries: readonly bigint[]): string =>
  entries.map((entry) => (entry === 0n ? '0' : `..${comparedBits(entry).toString(16).padStart(3, '0')}`)).join(' ');

/** How many leaves of each size begin in a range. */
export function countLeaves(domain: VtdDomain | null, { start, last }: IofdLeafCounts): IofdLeafCounts['leaves'] {
  const leaves = { '4K': 0, '2M': 0, '1G': 0 };
  const firstPage = Number(start >> 12n);
  const lastPage = Number(last >> 12n);
  for (const leaf of domain?.table.allLeaves() ?? []) {
    if (leaf.page < firstPage || leaf.page > lastPage) continue;
    const frames = levelFrames(leaf.level);
    leaves[frames === 1 ? '4K' : frames === 512 ? '2M' : '1G']++;
  }
  return leaves;
}

/** Counts as the log writes them. */
export const leavesText = (leaves: IofdLeafCounts['leaves']): string =>
  `4K=${leaves['4K']} 2M=${leaves['2M']} 1G=${leaves['1G']}`;
