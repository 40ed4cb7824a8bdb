import { type Agent, Condition, Cost, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { VeventFlag } from './ioctl-flags.ts';
import { IommufdObject } from './object-table.ts';
import type { ViommuObject } from './viommu-object.ts';

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
  /** read(): whole events, as many as fit. @throws IommufdError EINVAL (count below a header's 8 bytes) */
  read(agent: Agent, countBytes: number): Task<readonly Vevent[]>;
  /** poll(): EPOLLIN | EPOLLRDNORM with an event queued. */
  poll(): number;
  /** Closes the file, which kept the object from being destroyed. */
  close(): void;
}

const EPOLLIN = 0x1;
const EPOLLRDNORM = 0x40;
/** sizeof struct iommufd_vevent_header. */
const HEADER_BYTES = 8;
/** INT_MAX: where the sequence begins again at 0. */
const LAST_SEQUENCE = 2 ** 31 - 1;

/**
 * A VEVENTQ object: events of one type of a virtual IOMMU. When `depth` events wait, further ones are lost: one header with LOST_EVENTS stands at
 * the tail, and its sequence goes on counting.
 */
export class VeventqObject extends IommufdObject implements VeventQueue {
  readonly type = 'VEVENTQ';
  readonly readable = new Condition('vevent queue: events', () => this.poll() !== 0);
  readonly viommu: ViommuObject;
  readonly eventType: number;
  readonly #depth: number;
  readonly #events: Vevent[] = [];
  #lost: Vevent | null = null;
  #sequence = 0;
  #open = true;

  constructor(viommu: ViommuObject, eventType: number, depth: number) {
    super();
    this.viommu = viommu;
    this.eventType = eventType;
    this.#depth = depth;
    this.users++; // the file's
    viommu.users++;
    viommu.queues.set(eventType, this);
  }

  /** An event of the hardware; its data is copied. @returns false if it was lost */
  report(data: Uint8Array): boolean {
    const sequence = this.#sequence;
    this.#sequence = sequence === LAST_SEQUENCE ? 0 : sequence + 1;
    const isLost = this.#events.length === this.#depth;
    if (isLost) this.#lost = { flags: VeventFlag.LOST_EVENTS, sequence, data: new Uint8Array(0) };
    else {
      // A header at the tail gives way: the gap in the sequence tells of the loss.
      this.#lost = null;
      this.#events.push({ flags: 0, sequence, data: data.slice() });
    }
    this.readable.wake();
    return !isLost;
  }

  *read(agent: Agent, countBytes: number): Task<readonly Vevent[]> {
    if (countBytes < HEADER_BYTES)
      throw new IommufdError('EINVAL', `count: ${countBytes} is less than a header's ${HEADER_BYTES} bytes`);
    yield agent.spends('read events', Cost.free);
    const events: Vevent[] = [];
    let room = countBytes;
    for (let event = this.#events[0]; event; event = this.#events[0]) {
      const bytes = HEADER_BYTES + event.data.length;
      if (bytes > room) return events;
      room -= bytes;
      this.#events.shift();
      events.push(event);
    }
    if (this.#lost && room >= HEADER_BYTES) {
      events.push(this.#lost);
      this.#lost = null;
    }
    return events;
  }

  poll(): number {
    return this.#events.length > 0 || this.#lost ? EPOLLIN | EPOLLRDNORM : 0;
  }

  close(): void {
    if (this.#open) this.users--;
    this.#open = false;
  }

  *destroy(agent: Agent): Task<void> {
    yield agent.spends('destroy event queue', Cost.free);
    this.viommu.queues.delete(this.eventType);
    this.viommu.users--;
  }
}
