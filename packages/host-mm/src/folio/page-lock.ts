import { type Agent, assert, type LocationKind, type Task, Waitable } from '@faultline/sim';

class PageLock extends Waitable {
  owner: Agent | null = null;
  /** Who holds it or waits for it; the lock exists while there are any. */
  users = 0;

  ready(): boolean {
    return this.owner === null;
  }
}

/** Where a step that waits for a page lock says it is. */
export interface LockPlace {
  readonly kind: LocationKind;
  readonly location: number;
}

/**
 * Locks of pages in flight, by page: made when first taken, gone when nobody wants them. It stands for Linux's folio lock
 * of a page that is swapped in or out, and keeps a second fault from allocating what the first one is about to map.
 */
export class PageLockTable {
  readonly #name: string;
  readonly #locks = new Map<number, PageLock>();

  constructor(name: string) {
    this.#name = name;
  }

  /** How many pages are locked or waited for. */
  get size(): number {
    return this.#locks.size;
  }

  /** Waits until nobody holds the page's lock and takes it. */
  *acquire(agent: Agent, page: number, place: LockPlace): Task<void> {
    const lock = this.#lock(page);
    assert(lock.owner !== agent, () => `${agent.name} takes a page lock that it holds`);
    lock.users++;
    do {
      const step = agent.waits('lock page', lock);
      step.kind = place.kind;
      step.location = place.location;
      yield step;
    } while (lock.owner !== null);
    lock.owner = agent;
  }

  /** Takes the lock if nobody holds it; part of the caller's step. */
  tryAcquire(agent: Agent, page: number): boolean {
    const lock = this.#lock(page);
    if (lock.owner !== null) return false;
    lock.users++;
    lock.owner = agent;
    return true;
  }

  /** Gives the lock back. Asserts that the agent holds it. */
  release(agent: Agent, page: number): void {
    const lock = this.#locks.get(page);
    assert(lock?.owner === agent, () => `${agent.name} releases a page lock that it does not hold`);
    lock.owner = null;
    lock.users--;
    if (lock.users === 0) this.#locks.delete(page);
    lock.wake();
  }

  #lock(page: number): PageLock {
    let lock = this.#locks.get(page);
    if (!lock) {
      lock = new PageLock(this.#name);
      this.#locks.set(page, lock);
    }
    return lock;
  }
}
