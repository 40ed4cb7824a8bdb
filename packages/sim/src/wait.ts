/** Something parked on a {@link Waitable}; the scheduler implements it. */
export interface Parked {
  /** Makes the parked task runnable again. */
  unpark(): void;
}

let lastId = 0;

/**
 * Something a task can wait for. The adversary asks {@link ready}; virtual time parks the task here until {@link wake}.
 * Whoever changes the state that `ready` looks at calls `wake`.
 */
export abstract class Waitable {
  /** A number of its own, the location of steps that wait here. */
  readonly id: number = ++lastId;
  /** For messages: `iommufd iova_rwsem`. */
  readonly name: string;
  readonly #parked: Parked[] = [];

  constructor(name: string) {
    this.name = name;
  }

  /** Whether a waiter may go on now. Must not change anything. */
  abstract ready(): boolean;

  /** Lets the scheduler park a task here. */
  park(task: Parked): void {
    this.#parked.push(task);
  }

  /** How many tasks are parked here. */
  get waiters(): number {
    return this.#parked.length;
  }

  /** Makes every parked task runnable, in the order in which they came. They test `ready` again. */
  wake(): void {
    if (this.#parked.length === 0) return;
    for (const task of this.#parked.splice(0)) task.unpark();
  }
}

/** A wait for a predicate over the caller's own state; call {@link Waitable.wake} after changing it. */
export class Condition extends Waitable {
  readonly #predicate: () => boolean;

  constructor(name: string, predicate: () => boolean) {
    super(name);
    this.#predicate = predicate;
  }

  ready(): boolean {
    return this.#predicate();
  }
}
