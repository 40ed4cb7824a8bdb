import { decodePasidDirectoryEntry, encodePasidDirectoryEntry } from './pasid-directory-entry.ts';
import { encodePasidEntry, type PasidEntry } from './pasid-entry.ts';
import type { TableMemory } from './table-memory.ts';

/** Quadwords of a PASID entry. */
const WORDS = 8;
/** Bits of a PASID. */
const PASID_BITS = 20;

/** Where the directory entry of a PASID is: index = PASID bits 19:6, 512 entries a page. @throws RangeError for no PASID */
function directorySlot(directoryPfn: number, pasid: number): { readonly pfn: number; readonly index: number } {
  if (!Number.isInteger(pasid) || pasid < 0 || pasid >= 2 ** PASID_BITS)
    throw new RangeError(`pasid: 0x${pasid.toString(16)} is not in 0..0xfffff`);
  return { pfn: directoryPfn + (pasid >> 15), index: (pasid >> 6) & 0x1ff };
}

const entryIndex = (pasid: number): number => (pasid & 63) * WORDS;

/** Frame of the PASID table that holds a PASID's entry, or -1 if the directory has none. */
function presentTable(memory: TableMemory, directoryPfn: number, pasid: number): number {
  const { pfn, index } = directorySlot(directoryPfn, pasid);
  return decodePasidDirectoryEntry([memory.load(pfn, index)])?.pasidTablePfn ?? -1;
}

/**
 * Writes a PASID entry as a driver does: a PASID table for the directory slot if there is none, then the quadwords without P, the one
 * with P last; each write is flushed, which costs nothing if memory is coherent. The directory is contiguous; PDTS of the
 * context entry says how long it is, which is for the caller to respect.
 * @returns false if no table page could be had
 * @throws RangeError for a field that does not fit, and for an entry that is present: clear and invalidate it first
 */
export function writePasidEntry(memory: TableMemory, directoryPfn: number, pasid: number, entry: PasidEntry): boolean {
  const words = encodePasidEntry(entry);
  let tablePfn = presentTable(memory, directoryPfn, pasid);
  if (tablePfn < 0) {
    tablePfn = memory.allocate();
    if (tablePfn < 0) return false;
    memory.flush(tablePfn, 0, 512);
    const { pfn, index } = directorySlot(directoryPfn, pasid);
    memory.store(
      pfn,
      index,
      encodePasidDirectoryEntry({ faultProcessingDisabled: false, pasidTablePfn: tablePfn })[0] as bigint,
    );
    memory.flush(pfn, index);
  }
  const first = entryIndex(pasid);
  if ((memory.load(tablePfn, first) & 1n) !== 0n)
    throw new RangeError(`pasid: 0x${pasid.toString(16)} has an entry already; clear it first`);
  for (let word = WORDS - 1; word >= 0; word--) {
    memory.store(tablePfn, first + word, words[word] as bigint);
    memory.flush(tablePfn, first + word);
  }
  return true;
}

/**
 * First step of a tear-down: clears P and nothing else, so that what hardware reads is the old entry or an absent one. The caller then
 * invalidates the PASID cache, the IOTLB and device TLBs, and calls {@link clearPasidEntry}.
 */
export function clearPasidPresent(memory: TableMemory, directoryPfn: number, pasid: number): void {
  const tablePfn = presentTable(memory, directoryPfn, pasid);
  if (tablePfn < 0) return;
  const first = entryIndex(pasid);
  memory.store(tablePfn, first, memory.load(tablePfn, first) & ~1n);
  memory.flush(tablePfn, first);
}

/** SSADE: bit 9 of the first quadword. */
const SECOND_STAGE_ACCESSED_DIRTY = 0x200n;

/**
 * Turns the setting of A and D bits on or off in an entry that is in use (SSADE), by one store. The caller then invalidates the PASID cache and
 * the IOTLB. Without an entry nothing happens.
 */
export function setPasidAccessedDirty(
  memory: TableMemory,
  directoryPfn: number,
  pasid: number,
  enabled: boolean,
): void {
  const tablePfn = presentTable(memory, directoryPfn, pasid);
  if (tablePfn < 0) return;
  const first = entryIndex(pasid);
  const word = memory.load(tablePfn, first) & ~SECOND_STAGE_ACCESSED_DIRTY;
  memory.store(tablePfn, first, enabled ? word | SECOND_STAGE_ACCESSED_DIRTY : word);
  memory.flush(tablePfn, first);
}

/** Zeroes a PASID entry, the quadword with P first. The PASID table stays. */
export function clearPasidEntry(memory: TableMemory, directoryPfn: number, pasid: number): void {
  const tablePfn = presentTable(memory, directoryPfn, pasid);
  if (tablePfn < 0) return;
  const first = entryIndex(pasid);
  for (let word = 0; word < WORDS; word++) {
    memory.store(tablePfn, first + word, 0n);
    memory.flush(tablePfn, first + word);
  }
}
