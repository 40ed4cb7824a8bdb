import { type Agent, Condition, Mutex, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { PageResponseCode, PgfaultFlag } from './ioctl-flags.ts';
import { IommufdObject } from './object-table.ts';

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

/** A page request of a group that user space is to answer. */
export interface UserFault {
  readonly addr: bigint;
  /** PgfaultPerm bits. */
  readonly perm: number;
  readonly grpid: number;
  /** Null for a request without one. */
  readonly pasid: number | null;
}

/** A whole page group on its way to user space. */
export interface UserFaultGroup {
  /** Id of the device object that faulted. */
  readonly devId: number;
  /** The attachment that it came through; when that ends, the group is answered INVALID. */
  readonly handle: object;
  /** In arrival order; the last is the one with LAST. */
  readonly faults: readonly UserFault[];
  /** Sends the one response: 0 success, 1 invalid. */
  respond(agent: Agent, code: number): Task<void>;
}

/** poll() bits. */
const EPOLLIN = 0x1;
const EPOLLOUT = 0x4;
const EPOLLRDNORM = 0x40;
/** sizeof struct iommu_hwpt_pgfault, iommu_hwpt_page_response. */
const PGFAULT_BYTES = 40;
const RESPONSE_BYTES = 8;

/** A FAULT object: page groups that user space answers. Every group gets one response, from user space or, when its attachment ends, from here. */
export class FaultObject extends IommufdObject implements FaultQueue {
  readonly type = 'FAULT';
  readonly readable = new Condition('fault queue: groups', () => this.#queued.length > 0);
  readonly #mutex = new Mutex('fault mutex');
  readonly #queued: UserFaultGroup[] = [];
  /** Read and not answered yet, by cookie. */
  readonly #delivered = new Map<number, UserFaultGroup>();
  #open = true;

  constructor() {
    super();
    this.users++; // the file's
  }

  /** Groups that have no response yet. */
  get outstanding(): number {
    return this.#queued.length + this.#delivered.size;
  }

  /** Queues a group for user space. Part of the caller's step. */
  report(group: UserFaultGroup): void {
    this.#queued.push(group);
    this.readable.wake();
  }

  *read(agent: Agent, countBytes: number): Task<readonly Pgfault[]> {
    if (countBytes % PGFAULT_BYTES !== 0)
      throw new IommufdError('ESPIPE', `count: ${countBytes} is not a multiple of ${PGFAULT_BYTES}`);
    yield* this.#mutex.acquire(agent);
    try {
      const records: Pgfault[] = [];
      const room = countBytes / PGFAULT_BYTES;
      for (let group = this.#queued[0]; group && records.length < room; group = this.#queued[0]) {
        if (records.length + group.faults.length > room) {
          if (records.length > 0) break;
          throw new IommufdError('EINVAL', `count: the first group needs ${group.faults.length * PGFAULT_BYTES} bytes`);
        }
        this.#queued.shift();
        records.push(...this.#deliver(group));
      }
      return records;
    } finally {
      this.#mutex.release(agent);
    }
  }

  *write(agent: Agent, responses: readonly PageResponse[], countBytes: number): Task<number> {
    if (countBytes % RESPONSE_BYTES !== 0)
      throw new IommufdError('ESPIPE', `count: ${countBytes} is not a multiple of ${RESPONSE_BYTES}`);
    yield* this.#mutex.acquire(agent);
    try {
      let done = 0;
      for (const { cookie, code } of responses.slice(0, countBytes / RESPONSE_BYTES)) {
        const group = this.#delivered.get(cookie);
        const isCode = code === PageResponseCode.SUCCESS || code === PageResponseCode.INVALID;
        if (!isCode || !group) {
          if (done > 0) break; // earlier responses of the same write stand
          throw new IommufdError('EINVAL', isCode ? `cookie: ${cookie} is no group's` : `code: ${code} is not 0 or 1`);
        }
        this.#delivered.delete(cookie);
        yield* group.respond(agent, code);
        done += RESPONSE_BYTES;
      }
      return done;
    } finally {
      this.#mutex.release(agent);
    }
  }

  poll(): number {
    return EPOLLOUT | (this.#queued.length > 0 ? EPOLLIN | EPOLLRDNORM : 0);
  }

  close(): void {
    if (this.#open) this.users--;
    this.#open = false;
  }

  /** The end of an attachment: its groups, read or not, are answered INVALID (iommufd_auto_response_faults). */
  *dropHandle(agent: Agent, handle: object): Task<void> {
    yield* this.#mutex.acquire(agent);
    try {
      yield* this.#drop(agent, (group) => group.handle === handle);
    } finally {
      this.#mutex.release(agent);
    }
  }

  *destroy(agent: Agent): Task<void> {
    yield* this.#drop(agent, () => true);
  }

  *#drop(agent: Agent, matches: (group: UserFaultGroup) => boolean): Task<void> {
    const queued = this.#queued.filter(matches);
    const rest = this.#queued.filter((group) => !matches(group));
    this.#queued.splice(0, this.#queued.length, ...rest);
    const delivered = [...this.#delivered].filter(([, group]) => matches(group));
    for (const [cookie] of delivered) this.#delivered.delete(cookie);
    for (const group of [...queued, ...delivered.map(([, group]) => group)])
      yield* group.respond(agent, PageResponseCode.INVALID);
  }

  #deliver(group: UserFaultGroup): Pgfault[] {
    let cookie = 1; // lowest free, as xa_alloc
    while (this.#delivered.has(cookie)) cookie++;
    this.#delivered.set(cookie, group);
    return group.faults.map((fault, index) => ({
      flags:
        (fault.pasid === null ? 0 : PgfaultFlag.PASID_VALID) |
        (index === group.faults.length - 1 ? PgfaultFlag.LAST_PAGE : 0),
      devId: group.devId,
      pasid: fault.pasid ?? 0,
      grpid: fault.grpid,
      perm: fault.perm,
      addr: fault.addr,
      length: 0,
      cookie,
    }));
  }
}
