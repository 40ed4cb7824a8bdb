import type { Agent, Task } from '@faultline/sim';
import type { MessageOutcome } from './invalidation-queue.ts';

/** Which requests' translations a device-TLB invalidation concerns. */
export interface DeviceTlbScope {
  /** The PASID; absent: requests without PASID. */
  readonly pasid?: number;
  /** GI: every PASID. */
  readonly global?: boolean;
}

/** What the unit needs from an endpoint behind it that has a device TLB or sends page requests. */
export interface AtsEndpoint {
  /**
   * Drops device-TLB entries and waits for translated DMA that used them.
   * @returns how the invalidation completed: `timed-out` makes the unit set ITE, `unexpected-completion` ICE
   */
  invalidateDeviceTlb(agent: Agent, page: number, sizeLog2: number, scope: DeviceTlbScope): Task<MessageOutcome>;
  /** It was removed from its slot: it answers nothing any more, and nothing needs to be asked of it. */
  readonly isRemoved?: boolean;
  /** Delivers a page group response. */
  pageGroupResponse(groupIndex: number, responseCode: number): void;
}
