import { Agent, type Task, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import {
  type Descriptor,
  encodeDescriptor,
  GlobalCommand,
  type InvalidationExecutor,
  type MessageOutcome,
  Register,
  RemappingUnit,
  type UnitCapabilities,
} from '../src/index.ts';
import { iotlbDescriptor, PROFILE, RecordingEndpoint } from './unit-setup.ts';

/** A device with ATS, connected to every {@link RawUnit}. */
export const DEVICE = 0x18;

/** Options of a {@link RawUnit}. */
export interface RawUnitOptions {
  /** RTADDR.TTM; default 1, scalable mode. */
  readonly mode?: 0 | 1 | 2 | 3;
  /** IQA.DW; default: as the mode demands. */
  readonly wide?: boolean;
  /** IQA.QS; default 0. */
  readonly queueSize?: number;
  readonly capabilities?: Partial<UnitCapabilities>;
}

/** What a driver writes, by hand: registers, and a ring with whatever bits in memory. The hardware runs in virtual time. */
export class RawUnit {
  readonly time = new VirtualTime(PROFILE);
  readonly memory = new TableMemory({ pages: 256 });
  readonly interrupts: { address: bigint; data: number }[] = [];
  readonly endpoint = new RecordingEndpoint();
  readonly unit: RemappingUnit;
  readonly ringPfn: number;
  /** A page for status words. */
  readonly statusPfn: number;
  readonly wide: boolean;
  /** Types of what was executed or sent, in order; `wait` for a status write is not among them. */
  readonly log: string[] = [];
  readonly hardware = new Agent('hardware');
  readonly executor: InvalidationExecutor;
  tail = 0;

  constructor(options: RawUnitOptions = {}) {
    const { mode = 1, queueSize = 0, capabilities = {} } = options;
    this.wide = options.wide ?? mode !== 0;
    const onInterrupt = (address: bigint, data: number) => this.interrupts.push({ address, data });
    this.unit = new RemappingUnit({ memory: this.memory, capabilities, onInterrupt });
    this.ringPfn = this.memory.allocateContiguous(2 ** queueSize);
    this.statusPfn = this.memory.allocate();
    this.unit.connect(DEVICE, this.endpoint);
    const { unit, log } = this;
    this.executor = {
      *execute(agent: Agent, descriptor: Descriptor): Task<void> {
        yield* unit.execute(agent, descriptor);
        log.push(descriptor.type);
      },
      *sendMessage(agent: Agent, descriptor: Descriptor): Task<MessageOutcome> {
        const outcome = yield* unit.sendMessage(agent, descriptor);
        log.push(descriptor.type);
        return outcome;
      },
      drain: (agent: Agent) => unit.drain(agent),
      drainPageRequests: (agent: Agent) => unit.drainPageRequests(agent),
      descriptorRules: (wide: boolean) => unit.descriptorRules(wide),
    };
    this.setMode(mode);
    this.write64(Register.IQT, 0n);
    this.write64(Register.IQA, (BigInt(this.ringPfn) << 12n) | (this.wide ? 0x800n : 0n) | BigInt(queueSize));
    this.time.spawn(this.hardware, unit.invalidationQueue.run(this.hardware, this.executor), { daemon: true });
  }

  /** Bytes of a descriptor. */
  get width(): number {
    return this.wide ? 32 : 16;
  }

  get entries(): number {
    return this.unit.invalidationQueue.entries;
  }

  read32(offset: number): number {
    return this.unit.registers.read32(offset);
  }

  read64(offset: number): bigint {
    return this.unit.registers.read64(offset);
  }

  write32(offset: number, value: number): void {
    this.unit.registers.write32(offset, value);
  }

  write64(offset: number, value: bigint): void {
    this.unit.registers.write64(offset, value);
  }

  /** RTADDR and SRTP; GCMD's levels stay. */
  setMode(mode: number): void {
    this.write64(Register.RTADDR, (BigInt(this.statusPfn) << 12n) | (BigInt(mode) << 10n));
    const levels = this.read32(Register.GSTS) & ~GlobalCommand.setRootTable;
    this.write32(Register.GCMD, levels | GlobalCommand.setRootTable);
  }

  enable(): this {
    this.write32(Register.GCMD, GlobalCommand.queuedInvalidationEnable);
    return this;
  }

  disable(): void {
    this.write32(Register.GCMD, 0);
  }

  /** Writes words into a slot of the ring. */
  put(slot: number, words: readonly bigint[]): void {
    const first = slot * (this.width / 8);
    for (let i = 0; i < this.width / 8; i++) {
      const pfn = this.ringPfn + Math.floor((first + i) / 512);
      this.memory.store(pfn, (first + i) % 512, words[i] ?? 0n);
    }
  }

  /** Writes descriptors, or words, behind the tail, and moves it. */
  submit(...descriptors: (Descriptor | readonly bigint[])[]): void {
    for (const each of descriptors) {
      this.put(this.tail, 'type' in each ? encodeDescriptor(each) : each);
      this.tail = (this.tail + 1) % this.entries;
    }
    this.write64(Register.IQT, BigInt(this.tail * this.width));
  }

  run(): this {
    this.time.run();
    return this;
  }

  /** IQH as a slot. */
  get head(): number {
    return Number(this.read64(Register.IQH)) / this.width;
  }

  /** FSTS.IQE, ICE and ITE as they are. */
  get errors(): number {
    return this.read32(Register.FSTS) & 0x70;
  }

  /** IQERCD.IQEI. */
  get errorInfo(): number {
    return Number(this.read64(Register.IQERCD) & 0xfn);
  }

  /** A 32-bit status word. */
  status(index: number): number {
    const word = this.memory.load(this.statusPfn, index >> 1);
    return Number((word >> (index % 2 === 0 ? 0n : 32n)) & 0xffff_ffffn);
  }

  /** A wait that writes `data` to a status word. */
  wait(
    index: number,
    data = index + 1,
    flags: { interrupt?: boolean; fence?: boolean; drain?: boolean } = {},
  ): Descriptor {
    return {
      type: 'wait',
      statusAddress: (BigInt(this.statusPfn) << 12n) + BigInt(index * 4),
      statusData: data,
      statusWrite: true,
      interrupt: flags.interrupt ?? false,
      fence: flags.fence ?? false,
      pageRequestDrain: flags.drain ?? false,
    };
  }
}

/** A page-selective invalidation. */
export const psi = (page: number): Descriptor => iotlbDescriptor(3, { page });

/** A device-TLB invalidation of one page. */
export const deviceTlb = (page = 1, sourceId = DEVICE): Descriptor => ({
  type: 'deviceTlb',
  sourceId,
  page,
  sizeLog2: 0,
});

/** A page group response with success. */
export const response = (groupIndex: number): Descriptor => ({
  type: 'pageGroupResponse',
  sourceId: DEVICE,
  responseCode: 0,
  groupIndex,
});
