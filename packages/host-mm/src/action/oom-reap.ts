import type { Agent, Task } from '@faultline/sim';
import type { HostState } from '../host-state.ts';
import type { MmState } from '../mm/mm-state.ts';
import { zapRange } from '../mm/zap.ts';
import { NotifierEvent, type NotifierRange } from '../notifier/mmu-notifier.ts';

/**
 * Frees the private memory of a process that the OOM killer has chosen, without waiting for it to exit (__oom_reap_task_mm): CLEAR over each private mapping that is
 * not of huge pages, in ranges that are not blockable. A mapping whose notifiers would have to sleep is left as it is. What is gone does not come back: a fault
 * there answers SIGBUS. @returns whether no mapping was left out
 */
export function* oomReap(host: HostState, mm: MmState, agent: Agent): Task<boolean> {
  let whole = true;
  yield* mm.mmapLock.acquireRead(agent);
  try {
    mm.unstable = true;
    for (const vma of [...mm.vmas.all]) {
      if (vma.shared || vma.shape.hugetlb) continue;
      const { startPage, pages, endPage } = vma;
      const range: NotifierRange = { startPage, pages, event: NotifierEvent.CLEAR, blockable: false };
      if (yield* mm.notifiers.start(agent, range)) yield* zapRange(host, mm, agent, { startPage, endPage });
      else whole = false;
      yield* mm.notifiers.end(agent, range);
    }
  } finally {
    mm.mmapLock.releaseRead(agent);
  }
  return whole;
}
