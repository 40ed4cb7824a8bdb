import { dependent, type Transition } from './execution.ts';

/** An event of an execution: a transition that has happened. */
export interface Event {
  readonly transition: Transition;
  /** Its number among the events of its task, from 1. */
  readonly sequence: number;
  /** For each task the number of its events that happen before this one; its own included. */
  readonly clock: Int32Array;
}

/** Whether an event of another clock happens before the event with `clock`. */
const precedes = (event: Event, clock: Int32Array): boolean =>
  (clock[event.transition.task] as number) >= event.sequence;

/**
 * The happens-before relation of one execution, event by event: program order, dependence in the order met, and whoever enabled a
 * step that had to wait.
 */
export class HappensBefore {
  readonly #tasks: number;
  readonly #events: Event[] = [];
  /** For each task its last event, and the last event that enabled its pending step; -1 if there is none. */
  readonly #last: Int32Array;
  readonly #enabler: Int32Array;
  readonly #waiting: Uint8Array;

  constructor(tasks: number) {
    this.#tasks = tasks;
    this.#last = new Int32Array(tasks).fill(-1);
    this.#enabler = new Int32Array(tasks).fill(-1);
    this.#waiting = new Uint8Array(tasks);
  }

  /** Notes, before the next event, which tasks wait: whoever waited and does no more was enabled by the last event. */
  observe(isEnabled: (task: number) => boolean): void {
    for (let task = 0; task < this.#tasks; task++) {
      const enabled = isEnabled(task);
      if (enabled && this.#waiting[task] === 1) this.#enabler[task] = this.#events.length - 1;
      this.#waiting[task] = enabled ? 0 : 1;
    }
  }

  /**
   * What a transition would be as the next event. @returns it, and the indices of events it is in a reversible race with: dependent,
   * of another task, and with nothing between that orders the two
   */
  next(transition: Transition): { readonly event: Event; readonly races: readonly number[] } {
    const { task } = transition;
    const clock = new Int32Array(this.#tasks);
    const merge = (index: number): void => {
      const other = this.#events[index]?.clock;
      for (let i = 0; other && i < this.#tasks; i++)
        if ((other[i] as number) > (clock[i] as number)) clock[i] = other[i] as number;
    };
    merge(this.#last[task] as number);
    const sequence = (clock[task] as number) + 1;
    const races: number[] = [];
    const { access, alsoAccess } = transition.footprint;
    if (access !== 0 || alsoAccess !== 0)
      for (let index = this.#events.length - 1; index >= 0; index--) {
        const event = this.#events[index] as Event;
        if (precedes(event, clock) || !dependent(event.transition, transition)) continue;
        races.push(index);
        merge(index);
      }
    // Only now: whoever gave a lock back enabled this step, and it is in a race with the one who took it all the same.
    merge(this.#enabler[task] as number);
    clock[task] = sequence;
    return { event: { transition, sequence, clock }, races };
  }

  /**
   * Of the race between event `index` and the next event: the tasks that, taken at the state before `index`, lead towards the
   * other order (the initials of what does not happen after it). The first is that of the earliest such event.
   */
  initials(index: number, next: Event): number[] {
    const first = this.#events[index] as Event;
    const suffix = this.#events.slice(index + 1).filter((event) => !precedes(first, event.clock));
    suffix.push(next);
    const seen = new Set<number>();
    const found: number[] = [];
    for (const [at, event] of suffix.entries()) {
      const { task } = event.transition;
      if (seen.has(task)) continue;
      seen.add(task);
      if (!suffix.slice(0, at).some((earlier) => precedes(earlier, event.clock))) found.push(task);
    }
    return found;
  }

  /** Adds the next event. */
  add(event: Event): void {
    const { task } = event.transition;
    this.#last[task] = this.#events.length;
    this.#enabler[task] = -1;
    this.#waiting[task] = 0;
    this.#events.push(event);
  }
}
