import { type Agent, Cost, Location, type Step, type Task } from '@faultline/sim';
import type { TableMemory } from './table-memory.ts';

/** Options of a {@link TableReserve}. */
export interface TableReserveOptions {
  /** Table pages kept back; two per edge of a range let a cut from 1G to 4K go through, so four serve any one range. */
  readonly target: number;
  /** Let the scheduler decide whether an allocation fails; for verification and fault injection. */
  readonly allocationMayFail?: boolean;
}

/**
 * Table pages set aside while memory is there, so that taking a page away cannot fail when it is short (I8). An
 * allocation first asks the host; only when that fails does it take from the reserve.
 */
export class TableReserve {
  readonly memory: TableMemory;
  readonly #target: number;
  readonly #mayFail: boolean;
  readonly #pages: number[] = [];
  #failures = 0;
  #taken = 0;
  #lowWater: number;

  constructor(memory: TableMemory, options: TableReserveOptions) {
    this.memory = memory;
    this.#target = options.target;
    this.#mayFail = options.allocationMayFail ?? false;
    for (let i = 0; i < options.target; i++) {
      const page = memory.allocate();
      if (page < 0) break;
      this.#pages.push(page);
    }
    this.#lowWater = this.#pages.length;
  }

  /** Pages in reserve now: the price of I8, in table pages. */
  get held(): number {
    return this.#pages.length;
  }

  /** The same in bytes. */
  get heldBytes(): number {
    return this.#pages.length * 4096;
  }

  /** Allocations that the host refused. */
  get failures(): number {
    return this.#failures;
  }

  /** Fewest pages that were ever left: how near the reserve came to its end. */
  get lowWater(): number {
    return this.#lowWater;
  }

  /** Times the reserve had to help out. */
  get taken(): number {
    return this.#taken;
  }

  /** Whether the scheduler is to decide, by a step of {@link chooseFailure}, if the next allocation fails. */
  get asksScheduler(): boolean {
    return this.#mayFail;
  }

  /** The step to yield before an allocation if {@link asksScheduler}; `agent.step.chosen` is 1 if it is to fail. */
  chooseFailure(agent: Agent): Step {
    return agent.chooses('allocate a table page', 2);
  }

  /**
   * A table page from the host, or -1.
   * @param refused the scheduler decided that there is none
   * @param zeroed false if the caller writes all of it before anybody sees it
   */
  allocate(refused: boolean, zeroed = true): number {
    const page = refused ? -1 : this.memory.allocate(zeroed);
    if (page < 0) this.#failures++;
    return page;
  }

  /** A table page from the host, else from the reserve, else -1; arguments as for {@link allocate}. */
  allocateOrTake(refused: boolean, zeroed = true): number {
    const page = this.allocate(refused, zeroed);
    if (page >= 0) return page;
    const kept = this.#pages.pop();
    if (kept === undefined) return -1;
    this.#taken++;
    if (this.#pages.length < this.#lowWater) this.#lowWater = this.#pages.length;
    return kept;
  }

  /** Takes back a page that was not used after all: zeroed into the reserve if that is short, else to the host. */
  giveBack(page: number): void {
    if (this.#pages.length >= this.#target) {
      this.memory.free(page);
      return;
    }
    this.memory.clear(page);
    this.#pages.push(page);
  }

  /** Fills the reserve up again as far as the host gives pages; called after the work that used it, where it may fail. */
  *refill(agent: Agent): Task<void> {
    while (this.#pages.length < this.#target) {
      yield agent.writes('refill table reserve', Location.allocator, 0, Cost.entryWrite);
      if (this.#mayFail) yield this.chooseFailure(agent);
      const page = this.allocate(this.#mayFail && agent.step.chosen === 1);
      if (page < 0) return;
      this.#pages.push(page);
    }
  }

  /** Gives every reserved page back. */
  release(): void {
    for (const page of this.#pages.splice(0)) this.memory.free(page);
  }
}
