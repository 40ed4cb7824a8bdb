import type { Agent, Task } from '@faultline/sim';
import { ResponseCode } from './descriptor.ts';
import type { PageRequest } from './page-request-queue.ts';
import type { RemappingUnit } from './remapping-unit.ts';

/** Response codes by the fault handler's outcome: 0 success, 1 invalid, 2 failure, as Linux's generic code numbers them. */
const RESPONSE_CODES = [ResponseCode.success, ResponseCode.invalid, ResponseCode.failure] as const;

/**
 * The driver's side of page requests: takes them from the unit's queue and answers through its invalidation queue. Linux
 * writes its generic FAILURE (2) into the descriptor as it is, a reserved code; this sends Response Failure (0xf).
 */
export class PageRequestPort {
  readonly #unit: RemappingUnit;

  constructor(unit: RemappingUnit) {
    this.#unit = unit;
  }

  /** Waits for requests and takes all that are there. */
  take(agent: Agent): Task<{ readonly requests: readonly PageRequest[]; readonly overflowed: boolean }> {
    return this.#unit.pageRequestQueue.take(agent);
  }

  /** Clears PRS.PRO; false if requests came in between. */
  clearOverflow(): boolean {
    return this.#unit.pageRequestQueue.clearOverflow();
  }

  /** Answers one group. */
  *respond(agent: Agent, sourceId: number, groupIndex: number, outcome: 0 | 1 | 2): Task<void> {
    yield* this.#unit.invalidationQueue.submit(agent, [
      { type: 'pageGroupResponse', sourceId, groupIndex, responseCode: RESPONSE_CODES[outcome] },
    ]);
  }
}
