import {
  AccessedDirtyMode,
  DEFAULT_ENTRY_CAPABILITIES,
  FaultReason,
  reservedMasks,
  TableMemory,
  WalkAccess,
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
  state.accessedDirty = AccessedDirtyMode.update;
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
    // Every fourth walk is a write, and sets D; all of them set A, in table entries too: the mapper's exchanges meet it.
    const access = count % 4 === 0 ? WalkAccess.write : WalkAccess.read;
    state.begin(task.rootPfn, 4, Math.floor(page / 2 ** 20), page << 12, access);
    walk(memory, masks, state);
    Atomics.add(control, clock, 1);
    const faulted = state.status === WalkStatus.faulted;
    const right = judge(history, nth, mark, state);
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

/** Whether the answer was right at some moment since the mark; null if the log is too short to tell. */
function judge(history: SharedHistory, nth: number, mark: number, state: WalkState): boolean | null {
  if (state.status === WalkStatus.translated) return history.judge(nth, mark, state.framePfn * 4 + state.rights);
  if (state.faultReason === FaultReason.readNotAllowed) return history.judge(nth, mark, 0);
  // Not mapped, or mapped without W; any other fault is wrong whenever it comes.
  return state.faultReason === FaultReason.writeNotAllowed ? history.judge(nth, mark, 0, 2) : false;
}
