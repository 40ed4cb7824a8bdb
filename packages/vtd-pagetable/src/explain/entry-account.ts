import { checkHostAddressWidth } from '../entry.ts';
import { type Layout, reservedBitsSet } from '../format/bit-field.ts';
import { DEFAULT_STRUCTURE_CAPABILITIES, type StructureCapabilities } from '../structure-capabilities.ts';
import { type EntryKind, layoutOfKind, levelOfKind } from './entry-kind.ts';
import { pagingVerdict } from './paging-verdict.ts';
import { structureVerdict } from './structure-verdict.ts';
import type { Verdict } from './verdict.ts';
import { bitNumbers, checkWords, explainWords, type WordsAccount } from './words-account.ts';

/**
 * An entry and what it is good for. Its `reservedBits` are those that hardware minds: none if the entry, or that half of a scalable-mode
 * root entry, is not present.
 */
export interface EntryVerdict extends Verdict, Omit<WordsAccount, 'fields'> {
  readonly kind: EntryKind;
}

/** An entry field by field, and what it is good for. */
export interface EntryAccount extends EntryVerdict, WordsAccount {}

/**
 * Explains an entry: any value of the kind's quadwords, sound or not.
 * @throws RangeError for a wrong number of words, a word that is not of 64 bits, or an impossible host address width
 */
export function explainEntry(
  kind: EntryKind,
  words: readonly bigint[],
  capabilities: StructureCapabilities = DEFAULT_STRUCTURE_CAPABILITIES,
): EntryAccount {
  checkHostAddressWidth(capabilities.hostAddressWidth);
  const { fields } = explainWords(layoutOfKind(kind, words, capabilities), words);
  return { ...judgeEntry(kind, words, capabilities), fields };
}

/** The same without the fields, which is several times quicker. */
export function judgeEntry(
  kind: EntryKind,
  words: readonly bigint[],
  capabilities: StructureCapabilities,
): EntryVerdict {
  const layout = layoutOfKind(kind, words, capabilities);
  checkWords(layout, words);
  const reservedBits = mindedBits(kind, layout, words);
  const level = levelOfKind(kind);
  const verdict =
    level === undefined
      ? structureVerdict(kind, words, capabilities)
      : pagingVerdict(level, words[0] ?? 0n, reservedBits.length > 0, capabilities);
  return { kind, name: layout.name, source: layout.source, words, reservedBits, ...verdict };
}

/** Reserved bits that are set where hardware looks: R or W of a paging entry, LP or UP of its half, else P has to be set (3.7, 9.1-9.6). */
function mindedBits(kind: EntryKind, layout: Layout, words: readonly bigint[]): number[] {
  const present = levelOfKind(kind) === undefined ? 1n : 3n;
  return reservedBitsSet(layout, words)
    .flatMap((bits, index) => {
      const word = words[kind === 'root-scalable' ? index : 0] ?? 0n;
      return bits !== 0n && (word & present) !== 0n ? bitNumbers(bits, index * 64) : [];
    })
    .sort((a, b) => b - a);
}
