import {
  DEFAULT_ENTRY_CAPABILITIES,
  FaultReason,
  reservedMasks,
  TableMemory,
  WalkState,
  WalkStatus,
  walk,
} from '../../src/index.ts';
import { SharedHistory } from './shared-history.ts';
import { Control, type ThreadReport, type ThreadTask, watchedPages } from './thread-plan.ts';

/** Walks watched pages until told to stop, and judges every answer. */
export function runWalker(task: ThreadTask): ThreadReport {
  const memory = TableMemory.attach({ pages: task.tablePages }, task.memory);
  const masks = reservedMasks(DEFAULT_ENTRY_CAPABILITIES);
  const history = new SharedHistory(watchedPages, task.history);
  const control = new Int32Array(task.control);
  const clock = Control.walkers + task.nth * Control.wordsPerWalker;
  const state = new WalkState();
  const wrong: string[] = [];
  let random = task.seed | 1;
  let count = 0;
  let unjudged = 0;
  while (Atomics.load(control, Control.stop) === 0 && wrong.length < 3) {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) | 0;
    const nth = (random >>> 8) % watchedPages.length;
    const page = watchedPages[nth] as number;
    const mark = history.mark(nth);
    Atomics.add(control, clock, 1);
    state.begin(task.rootPfn, 4, Math.floor(page / 2 ** 20), page << 12, 0);
    walk(memory, masks, state);
    // Every fourth walk is a write by hardware that sets A and D: the mapper's exchanges meet changes that are not its own.
    if (count % 4 === 0 && state.status === WalkStatus.translated && (state.rights & 2) !== 0)
      memory.compareExchange(state.tablePfn, state.index, state.entry, state.entry | 0x300n);
    Atomics.add(control, clock, 1);
    // A walk of a page that is not mapped ends with "read not allowed"; any other fault is a wrong answer.
    const faulted = state.status === WalkStatus.faulted;
    const value = faulted
      ? state.faultReason === FaultReason.readNotAllowed
        ? 0
        : -1
      : state.framePfn * 4 + state.rights;
    const right = history.judge(nth, mark, value);
    if (right === null) unjudged++;
    else count++;
    if (right === false)
      wrong.push(
        faulted
          ? `page ${page}: fault ${state.faultReason} at level ${state.level}, entry ${state.entry.toString(16)}`
          : `page ${page}: frame ${state.framePfn.toString(16)}, rights ${state.rights}`,
      );
  }
  Atomics.store(control, Control.stop, wrong.length > 0 ? 1 : Atomics.load(control, Control.stop));
  return { role: 'walker', count, unjudged, kinds: {}, wrong };
}
