import { levelFrames, SS_ADDRESS_MASK } from '../entry.ts';
import { DEFAULT_STRUCTURE_CAPABILITIES, type StructureCapabilities } from '../structure-capabilities.ts';
import { type EntryAccount, explainEntry } from './entry-account.ts';
import { type EntryKind, levelOfKind, wordsOfKind } from './entry-kind.ts';

/** Quadwords of a table page. */
const TABLE_WORDS = 512;

/** Entries in a row of a table that are alike: all empty, leaves to frames in a row, or equal but for the table they lead to. */
export interface EntryRun {
  /** Index of the first entry. */
  readonly first: number;
  /** Index of the last entry. */
  readonly last: number;
  /** The first entry. */
  readonly entry: EntryAccount;
  /** Whether each entry's address follows on the one before: one page further, or one table page. False for a single one. */
  readonly consecutive: boolean;
}

/** A whole table page. */
export interface TableAccount {
  readonly kind: EntryKind;
  /** Entries in the page. */
  readonly entries: number;
  /** Bytes of input address that one entry stands for; 0 for root, context and PASID structures. */
  readonly bytesPerEntry: bigint;
  readonly leaves: number;
  readonly tables: number;
  readonly structures: number;
  readonly absent: number;
  /** Indexes of present entries with reserved bits. */
  readonly reserved: readonly number[];
  /** All entries, in order. */
  readonly runs: readonly EntryRun[];
}

/**
 * Explains a table page as runs of like entries.
 * @param words the 512 quadwords of the page
 * @throws RangeError for another number of words, or one that is not of 64 bits
 */
export function explainTable(
  kind: EntryKind,
  words: readonly bigint[],
  capabilities: StructureCapabilities = DEFAULT_STRUCTURE_CAPABILITIES,
): TableAccount {
  if (words.length !== TABLE_WORDS) throw new RangeError(`words: a table has ${TABLE_WORDS}, not ${words.length}`);
  const size = wordsOfKind(kind);
  const accounts = Array.from({ length: TABLE_WORDS / size }, (_, index) =>
    explainEntry(kind, words.slice(index * size, index * size + size), capabilities),
  );
  const level = levelOfKind(kind);
  const count = (shape: EntryAccount['shape']): number => accounts.filter((account) => account.shape === shape).length;
  return {
    kind,
    entries: accounts.length,
    bytesPerEntry: level === undefined ? 0n : BigInt(levelFrames(level)) << 12n,
    leaves: count('leaf'),
    tables: count('table'),
    structures: count('structure'),
    absent: count('absent'),
    reserved: accounts.flatMap(({ reservedBits }, index) => (reservedBits.length > 0 ? [index] : [])),
    runs: runsOf(accounts),
  };
}

function runsOf(accounts: readonly EntryAccount[]): EntryRun[] {
  const runs: EntryRun[] = [];
  let first = 0;
  let consecutive = true;
  for (let index = 1; index <= accounts.length; index++) {
    const before = accounts[index - 1] as EntryAccount;
    const account = accounts[index];
    if (account !== undefined && alike(before, account)) {
      consecutive &&= follows(before, account);
      continue;
    }
    const entry = accounts[first] as EntryAccount;
    runs.push({ first, last: index - 1, entry, consecutive: consecutive && index - 1 > first && entry.present });
    first = index;
    consecutive = true;
  }
  return runs;
}

const follows = (before: EntryAccount, account: EntryAccount): boolean =>
  before.address !== null &&
  account.address === before.address + (before.shape === 'leaf' ? before.bytes : BigInt(TABLE_WORDS * 8));

/** Equal words, but for where tables are; leaves have to follow each other. Bits of the address can be reserved, too. */
function alike(before: EntryAccount, account: EntryAccount): boolean {
  if (before.shape !== account.shape || before.reservedBits.join() !== account.reservedBits.join()) return false;
  if (before.shape === 'leaf' && !follows(before, account)) return false;
  const mask = before.shape === 'leaf' || before.shape === 'table' ? SS_ADDRESS_MASK : 0n;
  return before.words.every((word, index) => {
    const other = account.words[index] ?? 0n;
    return (word & ~mask) === (other & ~mask);
  });
}
