import { checkHostAddressWidth, entryName, levelFrames } from '../entry.ts';
import { FaultReason } from '../fault-reason.ts';
import { DEFAULT_STRUCTURE_CAPABILITIES, type StructureCapabilities } from '../structure-capabilities.ts';
import { type EntryVerdict, judgeEntry } from './entry-account.ts';
import { kindOfLevel } from './entry-kind.ts';
import type { DumpRow } from './translation-dump.ts';
import { type FaultAccount, faultAccount, hexAddress } from './verdict.ts';

/** Where a page-table page is used. */
interface TableUse {
  readonly level: number;
  readonly line: number;
}

/** What a walk of one row finds. */
export interface WalkAccount {
  readonly row: DumpRow;
  /** Entries that the walk reads, from the top; those below a leaf or an absent entry are not read. */
  readonly entries: readonly EntryVerdict[];
  /** The page, or null if the walk finds none. */
  readonly page: {
    /** First input address of the page. */
    readonly iova: bigint;
    /** First host address. */
    readonly host: bigint;
    readonly bytes: bigint;
    /** AND of R (bit 0) and W (bit 1) over all levels. */
    readonly rights: number;
  } | null;
  /** Requests that fault, with the rights of all levels. */
  readonly faults: readonly FaultAccount[];
  /** What is odd about the row, alone or beside the others. */
  readonly oddities: readonly string[];
}

/**
 * Walks the rows of a text and compares those of each dump with each other. A dump is taken while the tables change, so its rows may
 * contradict each other without anything being wrong.
 */
export function explainDump(
  rows: readonly DumpRow[],
  capabilities: StructureCapabilities = DEFAULT_STRUCTURE_CAPABILITIES,
): readonly WalkAccount[] {
  checkHostAddressWidth(capabilities.hostAddressWidth);
  const dumps = new Map<number, WalkAccount[]>();
  const accounts = rows.map((row) => explainRow(row, capabilities));
  for (const account of accounts) {
    const dump = dumps.get(account.row.dump);
    if (dump === undefined) dumps.set(account.row.dump, [account]);
    else dump.push(account);
  }
  const compared = new Map<WalkAccount, WalkAccount>();
  for (const dump of dumps.values()) compareRows(dump, compared);
  return accounts.map((account) => compared.get(account) ?? account);
}

/** Adds what is odd about the rows of one dump beside each other. */
function compareRows(dump: readonly WalkAccount[], compared: Map<WalkAccount, WalkAccount>): void {
  const seen = new Map<string, { readonly value: bigint; readonly line: number }>();
  const tables = new Map<bigint, TableUse>();
  const contradicting = dump.map((account) => contradictions(account, seen, tables));
  const addresses = [...tables.keys()].sort((a, b) => (a < b ? -1 : 1));
  dump.forEach((account, index) => {
    const found = [...(contradicting[index] ?? []), ...pagesThatAreTables(account, addresses, tables)];
    if (found.length > 0) compared.set(account, { ...account, oddities: [...account.oddities, ...found] });
  });
}

function explainRow(row: DumpRow, capabilities: StructureCapabilities): WalkAccount {
  const entries: EntryVerdict[] = [];
  let rights = 3;
  for (const { level, value } of row.entries) {
    const entry = judgeEntry(kindOfLevel(level), [value], capabilities);
    entries.push(entry);
    rights &= Number(value & 3n);
    if (entry.shape !== 'table' || entry.reservedBits.length > 0) break;
  }
  const last = entries.at(-1);
  const faults = walkFaults(entries);
  const level = (row.entries[entries.length - 1]?.level ?? 1) as number;
  const bytes = BigInt(levelFrames(level)) << 12n;
  const page =
    last?.shape === 'leaf' && last.address !== null && entries.every(({ reservedBits }) => reservedBits.length === 0)
      ? { iova: row.iova & ~(bytes - 1n), host: last.address, bytes, rights }
      : null;
  return { row, entries, page, faults, oddities: oddities(row, entries, capabilities) };
}

/** Reads and writes in both modes, with the rights of all levels together. */
function walkFaults(entries: readonly EntryVerdict[]): FaultAccount[] {
  const faults: FaultAccount[] = [];
  for (const [request, right] of [
    ['read', 1n],
    ['write', 2n],
  ] as const)
    for (const mode of ['legacy', 'scalable'] as const) {
      const reason = walkReason(entries, right, mode);
      if (reason !== 0) faults.push(faultAccount(request, mode, reason));
    }
  return faults;
}

/**
 * The reason of a walk's fault, or 0. Legacy mode looks for the right at each level and then for reserved bits; scalable mode for any
 * right at all, then for reserved bits, and at the leaf for the right (table 30).
 */
function walkReason(entries: readonly EntryVerdict[], right: bigint, mode: FaultAccount['mode']): number {
  let rights = 3n;
  for (const { words, reservedBits, shape } of entries) {
    rights &= words[0] ?? 0n;
    const granted = (rights & right) !== 0n;
    if (mode === 'legacy') {
      if (!granted) return right === 1n ? FaultReason.readNotAllowed : FaultReason.writeNotAllowed;
      if (reservedBits.length > 0) return FaultReason.pagingReserved;
    } else {
      if (rights === 0n) return FaultReason.secondStageNoPermission;
      if (reservedBits.length > 0) return FaultReason.secondStageReserved;
      if (!granted && shape === 'leaf')
        return right === 1n ? FaultReason.scalableReadNotAllowed : FaultReason.scalableWriteNotAllowed;
    }
  }
  return 0;
}

function oddities(row: DumpRow, entries: readonly EntryVerdict[], unit: StructureCapabilities): string[] {
  const found: string[] = [];
  const last = entries.at(-1);
  for (const { name, reservedBits } of entries)
    if (reservedBits.length > 0) found.push(`${name} has reserved bits set: ${reservedBits.join(', ')}`);
  for (const { name, notes, shape } of entries)
    for (const note of notes) if (shape !== 'table') found.push(`${name}: ${note}`);
  for (const { level, value } of row.entries.slice(entries.length))
    if (value !== 0n && last?.shape !== 'table')
      found.push(`${entryName(level)} ${hexAddress(value)} is shown, but the walk ends at ${last?.name}`);
  const top = (row.entries[0]?.level ?? 4) as number;
  const bits = Math.min(12 + 9 * top, unit.guestAddressWidth);
  if (row.iova >= 1n << BigInt(bits))
    found.push(`the address has more than ${bits} bits: a request would be refused first`);
  if (last?.shape === 'leaf' && (row.iova & (last.bytes - 1n)) !== 0n)
    found.push('the row does not begin where its page does');
  return found;
}

/** Where this row says something else than an earlier one about the same entry, or uses a table at two levels. */
function contradictions(
  { row, entries }: WalkAccount,
  seen: Map<string, { readonly value: bigint; readonly line: number }>,
  tables: Map<bigint, TableUse>,
): string[] {
  const found: string[] = [];
  entries.forEach((entry, depth) => {
    const level = (row.entries[depth]?.level ?? 1) as number;
    const key = `${row.device} ${level} ${row.iova >> BigInt(12 + 9 * (level - 1))}`;
    const value = entry.words[0] ?? 0n;
    const earlier = seen.get(key);
    if (earlier !== undefined && earlier.value !== value)
      found.push(
        `${entry.name} was ${hexAddress(earlier.value)} in line ${earlier.line}: the table changed under the dump`,
      );
    seen.set(key, { value, line: row.line });
    if (entry.shape !== 'table' || entry.address === null) return;
    const use = tables.get(entry.address);
    if (use === undefined) tables.set(entry.address, { level, line: row.line });
    else if (use.level !== level)
      found.push(`the table at ${hexAddress(entry.address)} is used at another level in line ${use.line}`);
  });
  return found;
}

/** A device that can write a page that is a table owns the host. `addresses` are those of all tables, in order. */
function pagesThatAreTables(
  { page }: WalkAccount,
  addresses: readonly bigint[],
  tables: ReadonlyMap<bigint, TableUse>,
): string[] {
  if (page === null) return [];
  let low = 0;
  for (let high = addresses.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((addresses[middle] as bigint) < page.host) low = middle + 1;
    else high = middle;
  }
  const address = addresses[low];
  if (address === undefined || address >= page.host + page.bytes) return [];
  return [
    `maps the page-table page at ${hexAddress(address)} that line ${tables.get(address)?.line ?? 0} walks through`,
  ];
}
