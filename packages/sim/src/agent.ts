import { Cost, type CostClass } from './cost.ts';
import { Access, type AccessMode, Location, type LocationKind, Step } from './step.ts';
import type { Waitable } from './wait.ts';

/**
 * Who acts: a device queue, a notifier, a fault worker. Every task runs on behalf of one agent, and the agent's
 * methods fill its one {@link Step} for the task to yield:
 *
 * ```ts
 * yield agent.reads('load SS-PDPTE', Location.entry, address, Cost.walkRead)
 * const entry = table.load(address) // happens on resume
 * ```
 */
export class Agent {
  /** Unique among the agents of a run; shown in counterexamples and event tracks. */
  readonly name: string;
  /** Refilled by every method below. */
  readonly step = new Step();
  /** False while the agent runs where the kernel must not sleep; a wait then is a bug that {@link waits} reports. */
  maySleep = true;

  constructor(name: string) {
    this.name = name;
  }

  /** About to read a shared location. */
  reads(label: string, kind: LocationKind, location: number, cost: CostClass, units = 1): Step {
    return this.#fill(label, kind, location, Access.read, cost, units);
  }

  /** About to write (or read and write) a shared location. */
  writes(label: string, kind: LocationKind, location: number, cost: CostClass, units = 1): Step {
    return this.#fill(label, kind, location, Access.write, cost, units);
  }

  /**
   * Adds a second location to the step that was just filled. Every action on shared state must be announced: the adversary
   * leaves out orders of steps that do not conflict.
   */
  alsoWrites(step: Step, kind: LocationKind, location: number): Step {
    return also(step, kind, location, Access.write);
  }

  /** Adds a second location to the step that was just filled, which the same action only reads. */
  alsoReads(step: Step, kind: LocationKind, location: number): Step {
    return also(step, kind, location, Access.read);
  }

  /** Time passes; nothing shared is touched. */
  spends(label: string, cost: CostClass, units = 1): Step {
    return this.#fill(label, Location.nothing, 0, Access.none, cost, units);
  }

  /**
   * Goes on once `waitable.ready()`. Others may act between the wake-up and the resume, so a task takes what it waited
   * for in a loop. @throws Error if the agent may not sleep here and would have to.
   */
  waits(label: string, waitable: Waitable): Step {
    if (!this.maySleep && !waitable.ready()) throw this.wouldSleep(waitable, label);
    const step = this.#fill(label, Location.lock, waitable.id, Access.write, Cost.free, 0);
    step.waitFor = waitable;
    return step;
  }

  /** As {@link waits}, by polling, and so also where the agent may not sleep. */
  spins(label: string, waitable: Waitable): Step {
    const step = this.#fill(label, Location.lock, waitable.id, Access.write, Cost.free, 0);
    step.waitFor = waitable;
    step.spins = true;
    return step;
  }

  /** A choice that is not this task's to make, such as whether an allocation fails; read `agent.step.chosen` after it. */
  chooses(label: string, choices: number): Step {
    const step = this.#fill(label, Location.nothing, 0, Access.none, Cost.free, 0);
    step.choices = choices;
    return step;
  }

  /** The error for a wait where the agent may not sleep; a scheduler throws it before it parks the agent's task. */
  wouldSleep(waitable: Waitable, label: string): Error {
    return new Error(`${this.name}: would sleep on ${waitable.name} where sleeping is not allowed (${label})`);
  }

  #fill(
    label: string,
    kind: LocationKind,
    location: number,
    access: Step['access'],
    cost: CostClass,
    units: number,
  ): Step {
    const step = this.step;
    step.label = label;
    step.kind = kind;
    step.location = location;
    step.access = access;
    step.cost = cost;
    step.units = units;
    step.waitFor = null;
    step.spins = false;
    step.alsoAccess = Access.none;
    step.choices = 0;
    step.chosen = 0;
    return step;
  }
}

function also(step: Step, kind: LocationKind, location: number, access: AccessMode): Step {
  step.alsoKind = kind;
  step.alsoLocation = location;
  step.alsoAccess = access;
  return step;
}
