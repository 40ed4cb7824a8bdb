import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { prefaultAnonymous } from '../fault/anonymous.ts';
import { handleMmFault } from '../fault/handle-mm-fault.ts';
import { faultError } from '../fault/pin.ts';
import { VM_FAULT_ERROR } from '../fault/vm-fault.ts';
import type { HostState } from '../host-state.ts';
import type { MmState } from '../mm/mm-state.ts';

/** MAP_POPULATE: faults a range in, one step a folio; zeroing of anonymous folios is not charged. @throws HostMemoryError, or RangeError for a hole */
export function* populate(
  host: HostState,
  mm: MmState,
  agent: Agent,
  { startPage, pages }: { readonly startPage: number; readonly pages: number },
): Task<void> {
  const hole = mm.vmas.firstHole(startPage, pages);
  if (hole >= 0) throw new RangeError(`startPage: page ${hex(hole)} of the range is not mapped`);
  const { table, vmas } = mm;
  yield* mm.mmapLock.acquireRead(agent);
  try {
    for (let page = startPage; page < startPage + pages; ) {
      yield agent.writes('populate folio', Location.cpuEntry, mm.entryLocation(page), Cost.minorFault);
      const vma = vmas.find(page);
      const isDone = table.pfn(page) >= 0 || (vma && table.flags(page) === 0 && prefaultAnonymous(host, mm, vma, page));
      const bits = isDone ? 0 : yield* handleMmFault(host, mm, agent, { page, write: vma?.writeable ?? false });
      if ((bits & VM_FAULT_ERROR) !== 0) throw faultError(bits, page, 'populate');
      if (table.pfn(page) >= 0) page = table.end(page);
    }
  } finally {
    mm.mmapLock.releaseRead(agent);
  }
}
