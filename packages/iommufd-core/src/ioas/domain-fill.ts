import type { Agent, Task } from '@faultline/sim';
import type { HwptPaging } from '../stage2/hwpt-paging.ts';
import type { Area } from './area.ts';

/** Which domains an area comes into or leaves, and whether no other domain has it: then its memory is pinned first, or unpinned after. */
export interface FillTarget {
  readonly hwpts: readonly HwptPaging[];
  readonly alone: boolean;
}

/** Maps an area into domains (iopt_area_fill_domains). What fails is undone, here and in all domains of the target. */
export function* fillArea(agent: Agent, area: Area, { hwpts, alone }: FillTarget): Task<void> {
  if (hwpts.length === 0) return;
  const { memory, unpinned } = area;
  const pins = alone && !unpinned;
  if (!unpinned) yield* memory.mutex.acquire(agent);
  try {
    if (pins) yield* memory.use(agent, area.wholeSpan);
    try {
      for (const hwpt of hwpts) yield* hwpt.mapResident(agent, area);
    } catch (error) {
      if (area.state === 'making') area.state = 'going'; // a fault must not map it again
      for (const hwpt of hwpts) yield* hwpt.unmapArea(agent, area);
      if (pins) yield* memory.endUse(agent, area.wholeSpan);
      throw error;
    }
  } finally {
    if (!unpinned) memory.mutex.release(agent);
  }
}

/** Unmaps an area from domains, the storage domain last, then unpins what nobody else uses (iopt_area_unfill_domains). */
export function* unfillArea(agent: Agent, area: Area, { hwpts, alone }: FillTarget): Task<void> {
  if (hwpts.length === 0) return;
  const { memory, unpinned } = area;
  if (!unpinned) yield* memory.mutex.acquire(agent);
  try {
    for (const hwpt of [...hwpts.slice(1), ...hwpts.slice(0, 1)]) yield* hwpt.unmapArea(agent, area);
    if (alone && !unpinned) yield* memory.endUse(agent, area.wholeSpan);
  } finally {
    if (!unpinned) memory.mutex.release(agent);
  }
}
