import type { EventInterrupt } from './event-interrupt.ts';

/** AT of a faulted request: untranslated, translation request, translated. */
export const AddressType = { untranslated: 0, translationRequest: 1, translated: 2 } as const;
/** 0 untranslated, 1 translation request, 2 translated. */
export type AddressTypeCode = (typeof AddressType)[keyof typeof AddressType];

/** One fault recording register (FRCD), decoded. */
export interface FaultRecord {
  /** Requester: bus, device and function. */
  readonly sourceId: number;
  /** Faulting 4K page number. */
  readonly page: number;
  /** A fault reason code. */
  readonly reason: number;
  /** T1=0: a write request. */
  readonly write: boolean;
  /** T1=0 and T2=1: a page request rather than a DMA; default false. */
  readonly pageRequest?: boolean;
  /** T1=1 and T2=1: an AtomicOp request, which reads and writes; default false. */
  readonly atomic?: boolean;
  /** AT; default untranslated. */
  readonly addressType?: AddressTypeCode;
  /** PV, with PP set; absent for a request without PASID. */
  readonly pasid?: number;
}

/** Bits of the fault status register (VT-d Rev 5.10, 11.4.7.1). */
export const FaultStatus = {
  /** PFO. */
  overflow: 1 << 0,
  /** PPF: the OR of all F bits. */
  pending: 1 << 1,
  /** IQE. */
  queueError: 1 << 4,
  /** ICE. */
  completionError: 1 << 5,
  /** ITE. */
  timeout: 1 << 6,
} as const;

const WRITE_CLEARS = FaultStatus.overflow | FaultStatus.queueError | FaultStatus.completionError | FaultStatus.timeout;
const F = 1n << 63n;

/** The 128-bit register of a record: low and high quadword (11.4.7.6). */
export function encodeFaultRecord(record: FaultRecord): readonly [lo: bigint, hi: bigint] {
  const { sourceId, page, reason, write, pageRequest = false, atomic = false, addressType = 0, pasid } = record;
  const isWrite = (write && !atomic) || pageRequest;
  return [
    BigInt(page) << 12n,
    F |
      (isWrite ? 0n : 1n << 62n) |
      (BigInt(addressType) << 60n) |
      (BigInt(pasid ?? 0) << 40n) |
      (BigInt(reason) << 32n) |
      (pasid === undefined ? 0n : 1n << 31n) |
      (pageRequest || atomic ? 1n << 28n : 0n) |
      BigInt(sourceId),
  ];
}

/**
 * Primary fault recording (VT-d Rev 5.10, 7.2.1): CAP.NFR+1 registers used in turn. A fault that finds its register still
 * full sets PFO, and nothing is recorded until software clears that. A further fault of a requester that has a
 * pending record is collapsed into it, as the specification allows and QEMU does. Also the rest of FSTS, and the fault event.
 */
export class FaultRecording {
  readonly #records: (FaultRecord | null)[];
  readonly #event: EventInterrupt | null;
  readonly #pages: number;
  #next = 0;
  #errors = 0;
  #fri = 0;
  #lost = 0;
  #collapsed = 0;

  /**
   * @param registers CAP.NFR + 1, 1 to 256; default 8
   * @param addressWidth the largest AGAW of the unit: {@link read} shows no higher bits of an address (FI, 11.4.7.6); default 64
   * @throws RangeError for another number of registers
   */
  constructor(registers = 8, event: EventInterrupt | null = null, addressWidth = 64) {
    if (!Number.isInteger(registers) || registers < 1 || registers > 256)
      throw new RangeError(`registers: ${registers} is not an integer in 1..256`);
    this.#records = new Array<FaultRecord | null>(registers).fill(null);
    this.#event = event;
    this.#pages = 2 ** (addressWidth - 12);
  }

  /** FSTS: {@link FaultStatus} bits, with FRI in bits 15:8. */
  get status(): number {
    const pending = this.#records.some((record) => record !== null);
    return this.#errors | (pending ? FaultStatus.pending : 0) | (this.#fri << 8);
  }

  /** Whether IQE or ITE keeps the invalidation queue from fetching. */
  get queueStopped(): boolean {
    return (this.#errors & (FaultStatus.queueError | FaultStatus.timeout)) !== 0;
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
    if ((this.#errors & FaultStatus.overflow) !== 0) {
      this.#lost++;
      return false;
    }
    if (this.#records.some((pending) => pending?.sourceId === fault.sourceId)) {
      this.#collapsed++;
      return false;
    }
    if (this.#records[this.#next] !== null) {
      this.#errors |= FaultStatus.overflow;
      this.#lost++;
      return false;
    }
    const isFirst = (this.status & FaultStatus.pending) === 0;
    if (isFirst) this.#fri = this.#next;
    const isQuiet = isFirst && this.#errors === 0;
    this.#records[this.#next] = fault;
    this.#next = (this.#next + 1) % this.#records.length;
    if (isQuiet) this.#event?.raise();
    return true;
  }

  /** Sets IQE, ICE or ITE, and raises the fault event unless something else waits to be served. */
  setError(status: number): void {
    const isQuiet = (this.status & (WRITE_CLEARS | FaultStatus.pending)) === 0;
    this.#errors |= status;
    if (isQuiet) this.#event?.raise();
  }

  /** A write to FSTS: bits written as 1 are cleared. */
  clearStatus(value: number): void {
    this.#errors &= ~(value & WRITE_CLEARS);
    this.#settle();
  }

  /** A 64-bit half of the register at `index`: 0 low, 1 high; 0 if it holds no fault. */
  read(index: number, half: 0 | 1): bigint {
    const record = this.#records[index];
    if (!record) return 0n;
    return encodeFaultRecord({ ...record, page: record.page % this.#pages })[half] as bigint;
  }

  /** F written with 1: the register is free again. */
  clear(index: number): void {
    this.#records[index] = null;
    this.#settle();
  }

  /** Address translation was turned off: the index starts again. */
  restart(): void {
    this.#next = 0;
  }

  /**
   * Takes all records from FRI on, as they were recorded, and clears them and PFO, as Linux's `dmar_fault` does with F and PFO. IQE,
   * ICE and ITE stay: they belong to the invalidation queue, whose driver clears them.
   */
  takeAll(): FaultRecord[] {
    const taken: FaultRecord[] = [];
    for (let i = 0; i < this.#records.length; i++) {
      const index = (this.#fri + i) % this.#records.length;
      const record = this.#records[index];
      if (record) taken.push(record);
      this.#records[index] = null;
    }
    this.clearStatus(FaultStatus.overflow);
    return taken;
  }

  #settle(): void {
    if ((this.status & (WRITE_CLEARS | FaultStatus.pending)) === 0) this.#event?.settle();
  }
}
