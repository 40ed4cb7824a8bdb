/** Delivers a message-signaled interrupt of the unit. @param address bits 63:0 @param data 16 bits */
export type InterruptSink = (address: bigint, data: number) => void;

const MASK = 0x8000_0000 | 0;
const PENDING = 0x4000_0000;

/**
 * The four registers of one event of a remapping unit: control, data, address, upper address. They are alike for fault events
 * (FECTL .. FEUADDR), invalidation completion (IECTL ..) and page requests (PECTL ..): VT-d Rev 5.10, 7.3, 6.5.2.10, 7.5.
 */
export class EventInterrupt {
  /** IM is set at reset. */
  #control = MASK;
  #data = 0;
  #address = 0;
  #upperAddress = 0;
  #delivered = 0;
  readonly #deliver: InterruptSink;

  constructor(deliver: InterruptSink) {
    this.#deliver = deliver;
  }

  /** Messages sent. */
  get delivered(): number {
    return this.#delivered;
  }

  /** IP: a message is held back by IM. */
  get pending(): boolean {
    return (this.#control & PENDING) !== 0;
  }

  /** Reads the register at `index`: 0 control, 1 data, 2 address, 3 upper address. */
  read(index: number): number {
    return [this.#control, this.#data, this.#address, this.#upperAddress][index] ?? 0;
  }

  /** Writes the register at `index`. Clearing IM sends what was pending. */
  write(index: number, value: number): void {
    if (index === 0) {
      this.#control = (this.#control & PENDING) | (value & MASK);
      if (this.pending && (value & MASK) === 0) this.#send();
    } else if (index === 1) this.#data = value & 0xffff;
    else if (index === 2) this.#address = value & ~3;
    else this.#upperAddress = value | 0;
  }

  /** A new condition, with none of the event's status fields set before it: sends, or sets IP while masked. */
  raise(): void {
    this.#control |= PENDING;
    if ((this.#control & MASK) === 0) this.#send();
  }

  /** All status fields of the event are clear: what was pending is served. */
  settle(): void {
    this.#control &= ~PENDING;
  }

  #send(): void {
    this.#control &= ~PENDING;
    this.#delivered++;
    this.#deliver((BigInt(this.#upperAddress >>> 0) << 32n) | BigInt(this.#address >>> 0), this.#data);
  }
}
