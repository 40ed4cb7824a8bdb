import { type Agent, Condition, type Task, Waitable } from '@faultline/sim';
import { AGAIN, dropMmapLock, entryStep, type FaultContext } from './fault-context.ts';
import { VmFault } from './vm-fault.ts';

/** A missing page that somebody touched, as read from a userfaultfd. */
export interface UserfaultMessage {
  readonly page: number;
  readonly write: boolean;
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

/**
 * A userfaultfd of one address space, for missing pages (UFFDIO_REGISTER_MODE_MISSING): faults wait until its owner fills the
 * page, or wakes them. Made by `AddressSpace.userfaultfd`.
 */
export class Userfaultfd {
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

  /** A fault on a missing page: queues the message and waits. @internal */
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

/** A missing page of a registered mapping: the owner of the userfaultfd decides (handle_userfault). */
export function* waitForUserfault(fault: FaultContext): Task<number> {
  const { mm, agent, page, write, allowRetry } = fault;
  const uffd = mm.userfaultfd;
  if (uffd === null) return VmFault.SIGBUS;
  // Without ALLOW_RETRY nobody may sleep here with mmap_lock held.
  if (!allowRetry) return VmFault.SIGBUS;
  yield entryStep(fault, 'fault: report to userfaultfd');
  if (mm.table.flags(page) !== 0) return AGAIN;
  dropMmapLock(fault);
  yield* uffd.wait(agent, { page, write });
  return VmFault.RETRY;
}
