import { type Agent, assert, Condition, type Task } from '@faultline/sim';

/**
 * DMAs that have their translation and have not reached memory yet. An invalidation with drain (DR, DW) is complete only
 * when those that began before it have ended (VT-d Rev 5.10, 6.5.4). Beginning and ending allocate nothing.
 */
export class InFlightDma {
  readonly #counts = new Int32Array(2);
  readonly #drained: Condition;
  #phase = 0;

  /** @param name for messages of tasks that wait here */
  constructor(name: string) {
    this.#drained = new Condition(`${name}: DMA in flight`, () => this.#counts[this.#phase ^ 1] === 0);
  }

  /** DMAs in flight now. */
  get count(): number {
    return (this.#counts[0] as number) + (this.#counts[1] as number);
  }

  /** A DMA got its translation, in the same step. @returns the token for {@link end} */
  begin(): number {
    const phase = this.#phase;
    this.#counts[phase] = (this.#counts[phase] as number) + 1;
    return phase;
  }

  /** The DMA has reached memory, or was given up. */
  end(token: number): void {
    const left = (this.#counts[token] as number) - 1;
    assert(left >= 0, 'a DMA ended twice');
    this.#counts[token] = left;
    if (left === 0 && token !== this.#phase) this.#drained.wake();
  }

  /** Waits until every DMA that began before now has ended. One drain at a time: the invalidation queue is serial. */
  *drain(agent: Agent): Task<void> {
    this.#phase ^= 1;
    while (!this.#drained.ready()) yield agent.waits('drain DMA', this.#drained);
  }
}
