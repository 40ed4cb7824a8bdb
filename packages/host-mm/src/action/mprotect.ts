import { hex } from '@faultline/address';
import type { Agent, Task } from '@faultline/sim';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import { carveMappings } from '../mm/carve.ts';
import { canChangeWriteable, changeProtection, type EntryChange } from '../mm/change-protection.ts';
import { Entry } from '../mm/entry-table.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';

/** Rights to memory: PROT_READ and PROT_WRITE. A mapping that may be written to may be read too, as on x86. */
export interface Protection {
  readonly readable: boolean;
  readonly writeable: boolean;
}

/**
 * mprotect: splits mappings (and leaves) at the ends of the range, then changes one mapping after the other: its rights, and within
 * PROTECTION_VMA its entries. A mapping that has the rights already is left alone.
 * @throws HostMemoryError ENOMEM at a hole; what lies before it is changed, as in Linux
 */
export function* protectMemory(
  host: HostState,
  mm: MmState,
  agent: Agent,
  range: { readonly startPage: number; readonly pages: number },
  protection: Protection,
): Task<void> {
  const { startPage, pages } = range;
  yield* mm.mmapLock.acquireWrite(agent);
  try {
    const hole = mm.vmas.firstHole(startPage, pages);
    const endPage = hole < 0 ? startPage + pages : hole;
    if (hole !== startPage)
      for (const vma of yield* carveMappings(host, mm, agent, { startPage, endPage }))
        yield* protectVma(host, agent, vma, protection);
    if (hole >= 0) throw new HostMemoryError('ENOMEM', hole, `mprotect: page ${hex(hole)} is not mapped`);
  } finally {
    mm.mmapLock.releaseWrite(agent);
  }
}

function* protectVma(host: HostState, agent: Agent, vma: Vma, { readable, writeable }: Protection): Task<void> {
  if (vma.readable === (readable || writeable) && vma.writeable === writeable) return;
  vma.readable = readable || writeable;
  vma.writeable = writeable;
  yield* changeProtection(host, agent, vma, vma, protect(vma));
}

/** What the rights of a mapping make of its entries. Swap entries have none; on the move, an entry loses what it is not sure of. */
const protect =
  (vma: Vma): EntryChange =>
  (flags) => {
    if ((flags & (Entry.PRESENT | Entry.MIGRATION)) === 0) return flags;
    const bits = (flags & ~(Entry.WRITE | Entry.PROT_NONE)) | (vma.readable ? 0 : Entry.PROT_NONE);
    return (flags & Entry.PRESENT) !== 0 && canChangeWriteable(vma, bits) ? bits | Entry.WRITE : bits;
  };
