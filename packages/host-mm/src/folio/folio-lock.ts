import { type Agent, assert, Cost, Location, type Task, Waitable } from '@faultline/sim';

class FolioLock extends Waitable {
  owner: Agent | null = null;
  /** Who holds it or waits for it; the lock exists while there are any. */
  users = 0;

  ready(): boolean {
    return this.owner === null;
  }
}

/** The folio locks (PG_locked) that somebody holds or waits for, by folio: made when first taken, gone when nobody wants them. */
export class FolioLocks {
  readonly #locks = new Map<number, FolioLock>();

  /** How many are held or waited for. */
  get size(): number {
    return this.#locks.size;
  }

  isLocked(folio: number): boolean {
    return (this.#locks.get(folio)?.owner ?? null) !== null;
  }

  /** Waits until nobody holds the folio's lock and takes it. The caller holds a reference. @param pfn the folio's, its location */
  *acquire(agent: Agent, folio: number, pfn: number): Task<void> {
    const lock = this.#lock(folio);
    assert(lock.owner !== agent, () => `${agent.name} takes a folio lock that it holds`);
    lock.users++;
    do {
      const step = agent.waits('lock folio', lock);
      step.kind = Location.folio;
      step.location = pfn;
      step.cost = Cost.lock;
      step.units = 1;
      yield step;
    } while (lock.owner !== null);
    lock.owner = agent;
  }

  /**
   * Waits until the folio's lock is free, and does not take it (folio_put_wait_locked): needs no reference, so that the folio can
   * go or move meanwhile. The caller looks everything up again.
   */
  *waitUnlocked(agent: Agent, folio: number, pfn: number): Task<void> {
    const lock = this.#locks.get(folio);
    if (!lock || lock.owner === null) return;
    const step = agent.waits('wait for folio lock', lock);
    step.kind = Location.folio;
    step.location = pfn;
    yield step;
  }

  /** Takes the lock if nobody holds it; part of the caller's step. */
  tryAcquire(agent: Agent, folio: number): boolean {
    if (this.isLocked(folio)) return false;
    const lock = this.#lock(folio);
    lock.users++;
    lock.owner = agent;
    return true;
  }

  /** Gives the lock back; part of the caller's step. Asserts that the agent holds it. */
  release(agent: Agent, folio: number): void {
    const lock = this.#locks.get(folio);
    assert(lock?.owner === agent, () => `${agent.name} releases a folio lock that it does not hold`);
    lock.owner = null;
    lock.users--;
    if (lock.users === 0) this.#locks.delete(folio);
    lock.wake();
  }

  #lock(folio: number): FolioLock {
    let lock = this.#locks.get(folio);
    if (!lock) {
      lock = new FolioLock(`lock of folio ${folio}`);
      this.#locks.set(folio, lock);
    }
    return lock;
  }
}
