/** One fault recording register (FRCD), decoded. */
export interface FaultRecord {
  /** Requester: bus, device and function. */
  readonly sourceId: number;
  /** Faulting 4K page number. */
  readonly page: number;
  /** A fault reason code. */
  readonly reason: number;
  /** T: whether the request was a write. */
  readonly write: boolean;
}

/** Bits of the fault status register. */
export const FaultStatus = { overflow: 1 << 0, pending: 1 << 1, queueError: 1 << 4 } as const;

/**
 * Primary fault recording (VT-d Rev 5.10, 7.2.1): CAP.NFR+1 registers used in turn. A fault that finds its register still
 * full sets PFO, and nothing is recorded until software clears that. A further fault of a requester that has a
 * pending record is collapsed into it, as the specification allows and QEMU does.
 */
export class FaultRecording {
  readonly #records: (FaultRecord | null)[];
  #next = 0;
  #status = 0;
  #fri = 0;
  #lost = 0;
  #collapsed = 0;

  /** @param registers CAP.NFR + 1, 1 to 256; default 8 @throws RangeError for another number */
  constructor(registers = 8) {
    if (!Number.isInteger(registers) || registers < 1 || registers > 256)
      throw new RangeError(`registers: ${registers} is not an integer in 1..256`);
    this.#records = new Array<FaultRecord | null>(registers).fill(null);
  }

  /** FSTS: {@link FaultStatus} bits, with FRI in bits 15:8. */
  get status(): number {
    return this.#status | (this.#fri << 8);
  }

  /** Faults that were not recorded because of overflow. */
  get lost(): number {
    return this.#lost;
  }

  /** Faults that were collapsed into a pending record of the same requester. */
  get collapsed(): number {
    return this.#collapsed;
  }

  /** Records a fault. @returns whether it went into a register */
  record(fault: FaultRecord): boolean {
    if ((this.#status & FaultStatus.overflow) !== 0) {
      this.#lost++;
      return false;
    }
    if (this.#records.some((pending) => pending?.sourceId === fault.sourceId)) {
      this.#collapsed++;
      return false;
    }
    if (this.#records[this.#next] !== null) {
      this.#status |= FaultStatus.overflow;
      this.#lost++;
      return false;
    }
    this.#records[this.#next] = fault;
    if ((this.#status & FaultStatus.pending) === 0) this.#fri = this.#next;
    this.#status |= FaultStatus.pending;
    this.#next = (this.#next + 1) % this.#records.length;
    return true;
  }

  /** Sets FSTS.IQE. */
  queueError(): void {
    this.#status |= FaultStatus.queueError;
  }

  /**
   * Reads and clears all records from FRI on (F written with 1), PPF and PFO, as Linux's `dmar_fault` does. IQE stays: it
   * belongs to the invalidation queue, whose driver clears it.
   */
  takeAll(): FaultRecord[] {
    const taken: FaultRecord[] = [];
    for (let i = 0; i < this.#records.length; i++) {
      const index = (this.#fri + i) % this.#records.length;
      const record = this.#records[index];
      if (record) taken.push(record);
      this.#records[index] = null;
    }
    this.#status &= FaultStatus.queueError;
    return taken;
  }
}
