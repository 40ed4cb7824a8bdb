import { hex } from '@faultline/address';
import {
  capabilityRegister,
  extendedCapabilityRegister,
  FAULT_REGISTERS,
  IOTLB_REGISTERS,
  type UnitCapabilities,
  versionRegister,
} from './capability.ts';
import type { EventInterrupt } from './event-interrupt.ts';
import type { FaultRecording } from './fault-recording.ts';
import type { InvalidationQueue } from './invalidation-queue.ts';
import type { PageRequestQueue } from './page-request-queue.ts';
import { GlobalCommand, Register } from './register-offset.ts';

/** What the registers belong to: the unit's parts, and what commands do. */
export interface RegisterTarget {
  readonly capabilities: UnitCapabilities;
  readonly faults: FaultRecording;
  readonly invalidationQueue: InvalidationQueue;
  readonly pageRequestQueue: PageRequestQueue;
  readonly faultEvent: EventInterrupt;
  readonly completionEvent: EventInterrupt;
  readonly pageRequestEvent: EventInterrupt;
  /** GCMD.SRTP: RTADDR takes effect. */
  setRootTable(address: bigint): void;
  /** GCMD.TE changed. */
  setTranslation(enabled: boolean): void;
  /** CCMD with ICC set. @returns CAIG */
  invalidateContexts(command: bigint): number;
  /** IOTLB with IVT set. @returns IAIG */
  invalidateIotlb(command: bigint, address: bigint): number;
}

interface Wide {
  read(): bigint;
  /** @param high whether the upper half was written: what triggers a command */
  write?(value: bigint, high: boolean): void;
}
interface Narrow {
  read(): number;
  write?(value: number): void;
}

const TOP = 1n << 63n;
const ALL = 0xffff_ffff_ffff_ffffn;
const ROOT_TABLE_BITS = ALL & ~0x3ffn;
/** CIRG, FM, SID and DID of CCMD. */
const CONTEXT_COMMAND_BITS = (3n << 61n) | 0x3_ffff_ffffn;
/** IIRG, DR, DW and DID of IOTLB_REG. */
const IOTLB_COMMAND_BITS = (3n << 60n) | (0x3_ffffn << 32n);
/** ADDR, IH and AM of IVA_REG. */
const IOTLB_ADDRESS_BITS = ALL & ~0xf80n;
const MULTI_BIT_COMMANDS = GlobalCommand.translationEnable | GlobalCommand.queuedInvalidationEnable;

/**
 * The registers of one remapping unit in their 4 KiB of address space (VT-d Rev 5.10, 11.4), by offset, 32 or 64 bits at a time.
 * What is reserved or not there reads as zero and ignores writes, as the specification's RsvdZ does. Interrupt
 * remapping, protected memory ranges, MTRRs, performance monitoring and enhanced commands are not there.
 */
export class RegisterFile {
  readonly #target: RegisterTarget;
  readonly #wide = new Map<number, Wide>();
  readonly #narrow = new Map<number, Narrow>();
  #rootTable = 0n;
  #status = 0;
  /** CCMD and IOTLB_REG without ICC and IVT, which are never seen set: a command is complete at once. */
  #contextCommand = 0n;
  #contextActual = 0n;
  #iotlbCommand = 0n;
  #iotlbActual = 0n;
  #iotlbAddress = 0n;

  constructor(target: RegisterTarget) {
    this.#target = target;
    this.#addIdentity(target);
    this.#addCommands(target);
    this.#addInvalidationQueue(target.invalidationQueue);
    this.#addPageRequests(target);
    this.#addEvent(Register.FECTL, target.faultEvent);
    this.#addEvent(Register.IECTL, target.completionEvent);
    if (target.capabilities.pageRequests) this.#addEvent(Register.PECTL, target.pageRequestEvent);
  }

  /** Reads a 32-bit register, or half of a 64-bit one. @returns 0 .. 2^32-1 @throws RangeError for an offset that is not aligned or not in 0..0xffc */
  read32(offset: number): number {
    checkOffset(offset, 4);
    const fault = this.#faultRegister(offset);
    if (fault) return half(this.#target.faults.read(fault.index, fault.half), offset);
    const narrow = this.#narrow.get(offset);
    if (narrow) return narrow.read() >>> 0;
    return half(this.#wide.get(offset & ~7)?.read() ?? 0n, offset);
  }

  /** Reads a 64-bit register, or two 32-bit ones side by side. @throws RangeError as {@link read32} */
  read64(offset: number): bigint {
    checkOffset(offset, 8);
    return BigInt(this.read32(offset)) | (BigInt(this.read32(offset + 4)) << 32n);
  }

  /** Writes a 32-bit register, or half of a 64-bit one. @throws RangeError as {@link read32} */
  write32(offset: number, value: number): void {
    checkOffset(offset, 4);
    const fault = this.#faultRegister(offset);
    if (fault) {
      if (fault.half === 1 && (offset & 4) !== 0 && (value | 0) < 0) this.#target.faults.clear(fault.index);
      return;
    }
    const narrow = this.#narrow.get(offset);
    if (narrow) {
      narrow.write?.(value | 0);
      return;
    }
    const wide = this.#wide.get(offset & ~7);
    if (!wide?.write) return;
    const isHigh = (offset & 4) !== 0;
    const bits = BigInt(value >>> 0);
    const kept = wide.read();
    wide.write(isHigh ? (kept & 0xffff_ffffn) | (bits << 32n) : (kept & ~0xffff_ffffn) | bits, isHigh);
  }

  /** Writes a 64-bit register at once, or two 32-bit ones, the lower first. @throws RangeError as {@link read32} */
  write64(offset: number, value: bigint): void {
    checkOffset(offset, 8);
    const wide = this.#wide.get(offset);
    if (wide) {
      wide.write?.(value & ALL, true);
      return;
    }
    this.write32(offset, Number(value & 0xffff_ffffn));
    this.write32(offset + 4, Number((value >> 32n) & 0xffff_ffffn));
  }

  #faultRegister(offset: number): { index: number; half: 0 | 1 } | null {
    const relative = offset - FAULT_REGISTERS;
    if (relative < 0 || relative >= this.#target.capabilities.faultRegisters * 16) return null;
    return { index: relative >> 4, half: (relative & 8) === 0 ? 0 : 1 };
  }

  #addIdentity({ capabilities }: RegisterTarget): void {
    const [version, cap, ecap] = [
      versionRegister(capabilities),
      capabilityRegister(capabilities),
      extendedCapabilityRegister(capabilities),
    ];
    this.#narrow.set(Register.VER, { read: () => version });
    this.#wide.set(Register.CAP, { read: () => cap });
    this.#wide.set(Register.ECAP, { read: () => ecap });
  }

  #addCommands(target: RegisterTarget): void {
    const { faults, invalidationQueue } = target;
    this.#narrow.set(Register.GCMD, { read: () => 0, write: (value) => this.#command(value) });
    this.#narrow.set(Register.GSTS, { read: () => this.#status });
    this.#wide.set(Register.RTADDR, {
      read: () => this.#rootTable,
      write: (value) => {
        this.#rootTable = value & ROOT_TABLE_BITS;
      },
    });
    this.#narrow.set(Register.FSTS, {
      read: () => faults.status,
      write: (value) => {
        faults.clearStatus(value);
        invalidationQueue.resume();
      },
    });
    this.#wide.set(Register.CCMD, {
      read: () => this.#contextCommand | (this.#contextActual << 59n),
      write: (value, high) => {
        this.#contextCommand = value & CONTEXT_COMMAND_BITS;
        if (high && (value & TOP) !== 0n) this.#contextActual = BigInt(target.invalidateContexts(value));
      },
    });
    this.#wide.set(IOTLB_REGISTERS, {
      // Write-only, and a read is undefined; what was written serves the writes of one half.
      read: () => this.#iotlbAddress,
      write: (value) => {
        this.#iotlbAddress = value & IOTLB_ADDRESS_BITS;
      },
    });
    this.#wide.set(IOTLB_REGISTERS + 8, {
      read: () => this.#iotlbCommand | (this.#iotlbActual << 57n),
      write: (value, high) => {
        this.#iotlbCommand = value & IOTLB_COMMAND_BITS;
        if (high && (value & TOP) !== 0n) this.#iotlbActual = BigInt(target.invalidateIotlb(value, this.#iotlbAddress));
      },
    });
  }

  /** GCMD: TE and QIE are levels, SRTP is a one-shot command (6.6, 11.4.4.1). Each is complete at once. */
  #command(value: number): void {
    const { invalidationQueue } = this.#target;
    if ((value & GlobalCommand.setRootTable) !== 0) {
      this.#target.setRootTable(this.#rootTable);
      this.#status |= GlobalCommand.setRootTable;
    }
    const changed = (this.#status ^ value) & MULTI_BIT_COMMANDS;
    this.#status = (this.#status & ~MULTI_BIT_COMMANDS) | (value & MULTI_BIT_COMMANDS);
    if ((changed & GlobalCommand.queuedInvalidationEnable) !== 0) {
      if ((value & GlobalCommand.queuedInvalidationEnable) !== 0) invalidationQueue.enable();
      else invalidationQueue.disable();
    }
    if ((changed & GlobalCommand.translationEnable) !== 0)
      this.#target.setTranslation((value & GlobalCommand.translationEnable) !== 0);
  }

  #addInvalidationQueue(queue: InvalidationQueue): void {
    this.#wide.set(Register.IQH, { read: () => BigInt(queue.head) });
    this.#wide.set(Register.IQT, {
      read: () => BigInt(queue.tail),
      write: (value) => queue.setTail(Number(value & 0x7_fff0n)),
    });
    this.#wide.set(Register.IQA, { read: () => queue.address, write: (value) => queue.setAddress(value) });
    this.#narrow.set(Register.ICS, {
      read: () => queue.interruptStatus,
      write: (value) => {
        if ((value & 1) !== 0) queue.clearInterruptStatus();
      },
    });
    this.#wide.set(Register.IQERCD, { read: () => queue.errorRecord });
  }

  #addPageRequests({ capabilities, pageRequestQueue: queue }: RegisterTarget): void {
    if (!capabilities.pageRequests) return;
    this.#wide.set(Register.PQH, {
      read: () => BigInt(queue.head),
      write: (value) => queue.setHead(Number(value & 0x7_ffe0n)),
    });
    this.#wide.set(Register.PQT, {
      read: () => BigInt(queue.tail),
      write: (value) => queue.setTail(Number(value & 0x7_ffe0n)),
    });
    this.#wide.set(Register.PQA, { read: () => queue.address, write: (value) => queue.setAddress(value) });
    this.#narrow.set(Register.PRS, { read: () => queue.status, write: (value) => queue.clearStatus(value) });
  }

  #addEvent(offset: number, event: EventInterrupt): void {
    for (let index = 0; index < 4; index++)
      this.#narrow.set(offset + index * 4, {
        read: () => event.read(index),
        write: (value) => event.write(index, value),
      });
  }
}

const half = (value: bigint, offset: number): number =>
  Number((offset & 4) === 0 ? value & 0xffff_ffffn : value >> 32n);

function checkOffset(offset: number, bytes: 4 | 8): void {
  if (!Number.isInteger(offset) || offset < 0 || offset + bytes > 0x1000 || offset % bytes !== 0)
    throw new RangeError(`offset: ${hex(offset)} is not a multiple of ${bytes} in 0x0..${hex(0x1000 - bytes)}`);
}
