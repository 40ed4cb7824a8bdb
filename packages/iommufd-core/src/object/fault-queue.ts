import type { Agent, Condition, Task } from '@faultline/sim';

/** One page fault as user space reads it (struct iommu_hwpt_pgfault; `length` is 0 in Linux too). */
export interface Pgfault {
  readonly flags: number;
  readonly devId: number;
  readonly pasid: number;
  readonly grpid: number;
  readonly perm: number;
  readonly addr: bigint;
  readonly length: number;
  readonly cookie: number;
}

/** A page response as user space writes it (struct iommu_hwpt_page_response). */
export interface PageResponse {
  readonly cookie: number;
  readonly code: number;
}

/** The file of a FAULT object: groups of page faults out, one response a group in. */
export interface FaultQueue {
  /** Ready when a group can be read. */
  readonly readable: Condition;
  /** read(): whole groups only. @throws IommufdError ESPIPE (count is no multiple of 40), EINVAL (first group larger than that) */
  read(agent: Agent, countBytes: number): Task<readonly Pgfault[]>;
  /** write(). @returns bytes taken @throws IommufdError ESPIPE, EINVAL if not even the first response was good */
  write(agent: Agent, responses: readonly PageResponse[], countBytes: number): Task<number>;
  /** poll(): EPOLLOUT always, EPOLLIN | EPOLLRDNORM with a group queued. */
  poll(): number;
  /** Closes the file, which kept the object from being destroyed. */
  close(): void;
}
