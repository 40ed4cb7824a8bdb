import type { Agent, Task } from '@faultline/sim';
import type { FaultOutcomeCode } from '../stage2/fault-handler.ts';

/** One page request as the driver reads it. */
export interface IoPageRequest {
  readonly sourceId: number;
  readonly page: number;
  /** Default true. */
  readonly read?: boolean;
  readonly write: boolean;
  /** Last of its group: the one that is answered. */
  readonly last: boolean;
  readonly groupIndex: number;
  /** Absent: a request without one. */
  readonly pasid?: number;
  readonly privileged?: boolean;
  readonly execute?: boolean;
}

/** A hwpt whose faults the kernel handles: `HwptPaging` is one. */
export interface FaultingHwpt {
  handleFault(agent: Agent, page: number, write: boolean): Task<FaultOutcomeCode>;
}

/** A page group on its way to user space; see `UserFaultGroup` of the FAULT object. */
export interface DeliveredGroup {
  readonly devId: number;
  readonly handle: object;
  readonly faults: readonly {
    readonly addr: bigint;
    readonly perm: number;
    readonly grpid: number;
    readonly pasid: number | null;
  }[];
  /** Sends the one response: 0 success, 1 invalid. What comes after another answer (the device was detached) is dropped. */
  respond(agent: Agent, code: number): Task<void>;
}

/** Who handles the page groups of a device, as its attach handle says: the stage-2 handler, or a FAULT object that user space reads. */
export type IopfHandler =
  | { readonly kind: 'kernel'; readonly hwpt: FaultingHwpt }
  | {
      readonly kind: 'user';
      readonly fault: { report(group: DeliveredGroup): void };
      readonly devId: number;
      readonly handle: object;
    };

/** A group of page requests that gets one answer. */
export class PageGroup {
  readonly sourceId: number;
  readonly groupIndex: number;
  /** Of the last request. */
  readonly pasid: number | undefined;
  /** In order of arrival, the last one last. */
  readonly requests: readonly IoPageRequest[];
  /** The hwpt or FAULT object that handles it, once the group is whole. */
  handledBy: object | null = null;
  /** Somebody sends or has sent the answer: nobody else does. */
  isAnswered = false;
  /** The answer has been sent. */
  isSent = false;
  /** A worker is at it. */
  inWork = false;

  constructor(requests: readonly IoPageRequest[], last: IoPageRequest) {
    this.sourceId = last.sourceId;
    this.groupIndex = last.groupIndex;
    this.pasid = last.pasid;
    this.requests = [...requests, last];
  }

  /** The group as a FAULT object delivers it. */
  delivered(
    handler: { readonly devId: number; readonly handle: object },
    respond: DeliveredGroup['respond'],
  ): DeliveredGroup {
    const faults = this.requests.map((request) => ({
      addr: BigInt(request.page) * 4096n,
      perm: permOf(request),
      grpid: request.groupIndex,
      pasid: request.pasid ?? null,
    }));
    return { devId: handler.devId, handle: handler.handle, faults, respond };
  }
}

/** IOMMU_FAULT_PERM_*: read 1, write 2, execute 4, privileged 8. */
const permOf = ({ read = true, write, execute = false, privileged = false }: IoPageRequest): number =>
  (read ? 1 : 0) | (write ? 2 : 0) | (execute ? 4 : 0) | (privileged ? 8 : 0);
