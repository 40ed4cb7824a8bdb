import { type Agent, Condition, type Task } from '@faultline/sim';
import type { AtsEndpoint, MessageOutcome, RemappingUnit } from '@faultline/vtd-remapping';

/** A function with PRI that asks for pages and makes no DMA: groups of several requests, and for pages that it has not tried to translate. */
export class PageRequester implements AtsEndpoint {
  readonly name: string;
  readonly sourceId: number;
  /** Groups whose last request is out, and their answer not here. */
  readonly expecting = new Set<number>();
  /** Groups for which software has sent an answer since. */
  readonly bySoftware = new Set<number>();
  /** Response codes by group. */
  readonly #codes = new Map<number, number>();
  readonly #fail: (message: string) => void;
  readonly #waits = new Set<Condition>();

  constructor(name: string, sourceId: number, fail: (message: string) => void) {
    this.name = name;
    this.sourceId = sourceId;
    this.#fail = fail;
  }

  /** Sends a group, and waits for its answer. @returns the response code */
  *ask(agent: Agent, unit: RemappingUnit, groupIndex: number, pages: readonly number[]): Task<number> {
    const { sourceId } = this;
    const answered = new Condition(`${this.name}: page group ${groupIndex}`, () => !this.expecting.has(groupIndex));
    for (const [nth, page] of pages.entries()) {
      const last = nth === pages.length - 1;
      if (last) this.expecting.add(groupIndex);
      yield* unit.pageRequest(agent, { sourceId, page, read: true, write: true, last, groupIndex });
    }
    this.#waits.add(answered);
    while (!answered.ready()) yield agent.waits('page group response', answered);
    this.#waits.delete(answered);
    return this.#codes.get(groupIndex) as number;
  }

  /** {@inheritDoc AtsEndpoint.pageGroupResponse} */
  pageGroupResponse(groupIndex: number, code: number): void {
    this.#codes.set(groupIndex, code);
    if (!this.expecting.delete(groupIndex))
      this.#fail(`${this.name} gets an answer to page group ${groupIndex}, which waits for none`);
    for (const wait of this.#waits) wait.wake();
  }

  /** {@inheritDoc AtsEndpoint.invalidateDeviceTlb} */
  // biome-ignore lint/correctness/useYield: it has no device TLB
  *invalidateDeviceTlb(): Task<MessageOutcome> {
    return 'completed';
  }
}
