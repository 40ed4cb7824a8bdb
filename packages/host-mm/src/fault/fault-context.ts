import { type Agent, Cost, Location, type Step } from '@faultline/sim';
import type { HostState } from '../host-state.ts';
import type { MmState } from '../mm/mm-state.ts';
import type { Vma } from '../mm/vma.ts';

/** Something changed while the handler slept: look at the entry again. */
export const AGAIN = -1;

/** One fault under way. The agent holds `mmap_lock` for reading, unless {@link dropped}. */
export interface FaultContext {
  readonly host: HostState;
  readonly mm: MmState;
  readonly agent: Agent;
  readonly vma: Vma;
  readonly page: number;
  readonly write: boolean;
  /** FAULT_FLAG_UNSHARE: it is read, but must be a page of its own, because it is about to be pinned. */
  readonly unshare: boolean;
  /** FAULT_FLAG_ALLOW_RETRY: the handler may drop `mmap_lock`, wait, and answer RETRY or COMPLETED. */
  readonly allowRetry: boolean;
  /** Whether swap was read for it, however often the entry is looked at again. */
  readonly io: { isMajor: boolean };
}

/** Gives `mmap_lock` back on behalf of the caller, who sees RETRY or COMPLETED. */
export const dropMmapLock = ({ mm, agent }: FaultContext): void => mm.mmapLock.releaseRead(agent);

/** The step in which a fault changes its entry; whoever reads or changes it too conflicts. */
export const entryStep = ({ agent, mm, page }: FaultContext, label: string): Step =>
  agent.writes(label, Location.cpuEntry, mm.entryLocation(page), Cost.entryWrite);
