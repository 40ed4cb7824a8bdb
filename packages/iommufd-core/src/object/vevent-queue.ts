import type { Agent, Condition, Task } from '@faultline/sim';

/** One event as user space reads it: struct iommufd_vevent_header, then the data. */
export interface Vevent {
  readonly flags: number;
  readonly sequence: number;
  readonly data: Uint8Array;
}

/** The file of a VEVENTQ object. */
export interface VeventQueue {
  /** Ready when an event can be read. */
  readonly readable: Condition;
  /** read(). @throws IommufdError EINVAL (count below a header's 8 bytes, or first event larger than that) */
  read(agent: Agent, countBytes: number): Task<readonly Vevent[]>;
  /** poll(): EPOLLIN | EPOLLRDNORM with an event queued. */
  poll(): number;
  /** Closes the file, which kept the object from being destroyed. */
  close(): void;
}
