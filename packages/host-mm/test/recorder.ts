import type { Agent, Task } from '@faultline/sim';
import { type AddressSpace, type MmuNotifier, NotifierEvent, type NotifierRange } from '../src/index.ts';

const NAMES = Object.keys(NotifierEvent);

/** Notes what a notifier hears: `CLEAR 512+512`, with `end` behind it when the range has ended. */
export class Recorder implements MmuNotifier {
  /** One line for each range. */
  readonly log: string[] = [];
  /** Pages that were accessed by somebody whose accessed bits only this notifier knows. */
  readonly young = new Set<number>();
  readonly #open = new Map<NotifierRange, number>();

  constructor(mm: AddressSpace) {
    mm.registerNotifier(this);
  }

  *invalidateRangeStart(agent: Agent, range: NotifierRange): Task<void> {
    this.#open.set(range, this.log.length);
    this.log.push(`${NAMES[range.event]} ${range.startPage}+${range.pages} never ended`);
    yield agent.spends('callback', 0);
  }

  invalidateRangeEnd(_agent: Agent, range: NotifierRange): void {
    const at = this.#open.get(range);
    if (at === undefined) throw new Error('a range ends that did not start');
    this.log[at] = `${NAMES[range.event]} ${range.startPage}+${range.pages}`;
    this.#open.delete(range);
  }

  testYoung(_agent: Agent, page: number): boolean {
    return this.young.has(page);
  }

  /** What was heard since the last call. */
  take(): string[] {
    return this.log.splice(0);
  }
}
