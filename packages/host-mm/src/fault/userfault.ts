import { type Agent, Condition, type Task, Waitable } from '@faultline/sim';
import { AGAIN, dropMmapLock, entryStep, type FaultContext } from './fault-context.ts';
import { VmFault } from './vm-fault.ts';

/** A page that somebody touched, as read from a userfaultfd (UFFD_EVENT_PAGEFAULT). */
export interface UserfaultMessage {
  readonly page: number;
  readonly write: boolean;
  /** It is there, and write-protected by `writeProtect` (UFFD_PAGEFAULT_FLAG_WP); else it is missing. */
  readonly wp: boolean;
}

/** A fault that waits for a page. */
class WaitingFault extends Waitable {
  readonly page: number;
  woken = false;

  constructor(page: number) {
    super('userfault');
    this.page = page;
  }

  ready(): boolean {
    return this.woken;
  }
}

/** The messages of a userfaultfd, and the faults that wait until its owner wakes them. */
export class UserfaultQueue {
  readonly #messages: UserfaultMessage[] = [];
  readonly #readable = new Condition('userfaultfd messages', () => this.#messages.length > 0);
  readonly #faults = new Set<WaitingFault>();

  /** Messages that can be read now. */
  get pending(): number {
    return this.#messages.length;
  }

  /** Faults that wait. */
  get waiters(): number {
    return this.#faults.size;
  }

  /** Waits for a message and takes it (read). */
  *read(agent: Agent): Task<UserfaultMessage> {
    for (;;) {
      const message = this.#messages.shift();
      if (message) return message;
      yield agent.waits('read userfaultfd', this.#readable);
    }
  }

  /** Lets faults in the range go on and look again (UFFDIO_WAKE); part of the caller's step. */
  wake(startPage: number, pages: number): void {
    for (const fault of [...this.#faults]) {
      if (fault.page < startPage || fault.page >= startPage + pages) continue;
      this.#faults.delete(fault);
      fault.woken = true;
      fault.wake();
    }
  }

  /** A fault: queues the message and waits. */
  *wait(agent: Agent, message: UserfaultMessage): Task<void> {
    const fault = new WaitingFault(message.page);
    this.#faults.add(fault);
    this.#messages.push(message);
    this.#readable.wake();
    try {
      while (!fault.woken) yield agent.waits('wait for userfault', fault);
    } finally {
      this.#faults.delete(fault);
    }
  }
}

/**
 * A missing page of a registered mapping, or a write to one that is write-protected: the owner of the userfaultfd decides
 * (handle_userfault). Without ALLOW_RETRY nobody may sleep here with `mmap_lock` held: SIGBUS.
 */
export function* waitForUserfault(fault: FaultContext, wp: boolean): Task<number> {
  const { mm, agent, page, write, allowRetry } = fault;
  const queue = mm.userfaults;
  if (queue === null || !allowRetry || mm.exited) return VmFault.SIGBUS;
  const flags = mm.table.flags(page);
  yield entryStep(fault, 'fault: report to userfaultfd');
  if (mm.table.flags(page) !== flags) return AGAIN;
  dropMmapLock(fault);
  yield* queue.wait(agent, { page, write, wp });
  return VmFault.RETRY;
}
