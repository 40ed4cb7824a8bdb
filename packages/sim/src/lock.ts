import type { Agent } from './agent.ts';
import { Cost } from './cost.ts';
import { Location, type Step } from './step.ts';
import type { Task } from './task.ts';
import { Condition, Waitable } from './wait.ts';

/** A mutex, or a raw spinlock: one agent at a time. */
export class Mutex extends Waitable {
  readonly #spins: boolean;
  #owner: Agent | null = null;

  /** @param options.spins a raw spinlock: whoever may not sleep may wait for it. Default false */
  constructor(name: string, options: { readonly spins?: boolean } = {}) {
    super(name);
    this.#spins = options.spins ?? false;
  }

  ready(): boolean {
    return this.#owner === null;
  }

  /** The agent that holds the lock, or null. */
  get owner(): Agent | null {
    return this.#owner;
  }

  /** Waits until the lock is free and takes it. @throws Error if the agent holds it already. */
  *acquire(agent: Agent): Task<void> {
    if (this.#owner === agent) throw new Error(`${agent.name}: takes ${this.name}, which it already holds`);
    do {
      const step = this.#spins ? agent.spins('lock', this) : agent.waits('lock', this);
      step.cost = Cost.lock;
      step.units = 1;
      yield step;
    } while (this.#owner !== null);
    this.#owner = agent;
  }

  /** Takes the lock if it is free, and never waits. @returns whether it did. @throws Error if the agent holds it already */
  *tryAcquire(agent: Agent): Task<boolean> {
    if (this.#owner === agent) throw new Error(`${agent.name}: takes ${this.name}, which it already holds`);
    yield agent.writes('try lock', Location.lock, this.id, Cost.lock);
    if (this.#owner !== null) return false;
    this.#owner = agent;
    return true;
  }

  /** Gives the lock back. Private until the agent's next yield. @throws Error if another agent holds it. */
  release(agent: Agent): void {
    if (this.#owner !== agent)
      throw new Error(`${agent.name}: releases ${this.name}, held by ${this.#owner?.name ?? 'nobody'}`);
    this.#owner = null;
    this.wake();
  }
}

/** A reader-writer semaphore such as `mmap_lock` or `iova_rwsem`. Writers do not starve readers or the reverse by rule. */
export class RwSemaphore {
  readonly name: string;
  readonly #readSide: Condition;
  readonly #writeSide: Condition;
  readonly #state = { readers: 0, writer: null as Agent | null };

  constructor(name: string) {
    this.name = name;
    const state = this.#state;
    this.#readSide = new Condition(`${name} (read)`, () => state.writer === null);
    this.#writeSide = new Condition(`${name} (write)`, () => state.writer === null && state.readers === 0);
  }

  /** Takes the lock shared. */
  *acquireRead(agent: Agent): Task<void> {
    do yield this.#announce(agent, this.#readSide);
    while (!this.#readSide.ready());
    this.#state.readers++;
  }

  /** Takes the lock for itself. */
  *acquireWrite(agent: Agent): Task<void> {
    do yield this.#announce(agent, this.#writeSide);
    while (!this.#writeSide.ready());
    this.#state.writer = agent;
  }

  /** Gives a shared hold back. @throws Error if there is none. */
  releaseRead(agent: Agent): void {
    if (this.#state.readers === 0) throw new Error(`${agent.name}: releases ${this.name} (read), which nobody holds`);
    this.#state.readers--;
    this.#wakeBoth();
  }

  /** Gives the exclusive hold back. @throws Error if the agent does not hold it. */
  releaseWrite(agent: Agent): void {
    if (this.#state.writer !== agent)
      throw new Error(`${agent.name}: releases ${this.name} (write), which it does not hold`);
    this.#state.writer = null;
    this.#wakeBoth();
  }

  /** Whether any agent holds it in any way. */
  get held(): boolean {
    return this.#state.readers > 0 || this.#state.writer !== null;
  }

  #announce(agent: Agent, side: Condition): Step {
    const step = agent.waits('lock', side);
    // Both sides are one lock: a reader's and a writer's order matters.
    step.kind = Location.lock;
    step.location = this.#readSide.id;
    step.cost = Cost.lock;
    step.units = 1;
    return step;
  }

  #wakeBoth(): void {
    this.#readSide.wake();
    this.#writeSide.wake();
  }
}
