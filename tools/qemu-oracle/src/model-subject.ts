import { type IotlbOptions, QEMU_7_2_IOTLB_OPTIONS, QEMU_IOTLB_OPTIONS } from '@faultline/iotlb';
import { FaultReason, readContext, readRoot, TableMemory, TranslationType, WalkAccess } from '@faultline/vtd-pagetable';
import { FAULT_REGISTERS, FaultStatus, Register, RemappingUnit, type UnitCapabilities } from '@faultline/vtd-remapping';
import { decodeFaultRegister, type FaultRegister, FSTS_FAULTS, GCMD } from './dmar-registers.ts';
import type { Answer, Configuration, DmaRequest, Subject } from './program.ts';
import { ALL_RULES, type RuleId } from './rules.ts';

/** Caches without entries. */
const NO_CACHE = { sets: 1, ways: 0 };
const NO_PAGING_CACHE = { pde: NO_CACHE, pdpe: NO_CACHE, pml4e: NO_CACHE, pml5e: NO_CACHE };
const LARGE = { sets: 1, ways: 2048 };
const LARGE_GEOMETRY = { '4K': LARGE, '2M': LARGE, '1G': LARGE };
/** The invalidation queue: one page, whose words are put back after each descriptor. */
const QUEUE = 0x8000;
const QUEUE_BYTES = 0x1000;

const CONTEXT_DESCRIPTOR = 0x1n;
const GRANULARITY = 0x30n;
const GLOBAL = 0x10n;
const DOMAIN = 0x20n;
const DID = 0xffff_0000n;
/** Source-id bits that a function mask leaves out (Rev 5.10, table 21). */
const FUNCTION_MASKS = [0, 4, 6, 7] as const;

const field = (register: bigint, high: number, low: number): number =>
  Number((register >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
const flag = (register: bigint, position: number): boolean => field(register, position, position) === 1;
const highHalf = (value: bigint): number => Number(BigInt.asIntN(32, value >> 32n));
const lowHalf = (value: bigint): number => Number(BigInt.asIntN(32, value));

/** The IOTLB of the QEMU that answered: before 10 it dropped too much on a page-selective invalidation. */
function iotlbOptions(qemu: string, rules: ReadonlySet<RuleId>): IotlbOptions {
  const major = Number(/\d+/.exec(qemu)?.[0] ?? 11);
  const options = major < 10 && rules.has('page-mask-8-bits') ? QEMU_7_2_IOTLB_OPTIONS : QEMU_IOTLB_OPTIONS;
  const { resetAtEntries, ...unlimited } = options;
  return {
    ...unlimited,
    ...(rules.has('iotlb-1024-reset') ? { resetAtEntries } : { geometry: LARGE_GEOMETRY }),
    partialInvalidation: rules.has('partial-invalidation-drops-large') ? 'whole' : 'none',
  };
}

/** The unit that CAP and ECAP describe. */
function capabilitiesOf(configuration: Configuration, rules: ReadonlySet<RuleId>): Partial<UnitCapabilities> {
  const { cap, ecap } = configuration;
  const sagaw = field(cap, 12, 8);
  return {
    majorVersion: 1,
    specRevision: rules.has('context-reserved-recorded') ? '3.x' : '5.10',
    domainIdBits: 4 + 2 * field(cap, 2, 0),
    levels: ([3, 4, 5] as const).filter((levels) => ((sagaw >> (levels - 2)) & 1) === 1),
    guestAddressWidth: field(cap, 21, 16) + 1,
    // QEMU has one width for both: it reserves the address bits that CAP.MGAW does not reach.
    hostAddressWidth: rules.has('address-width-is-mgaw') ? Math.min(52, field(cap, 21, 16) + 1) : 52,
    page2M: flag(cap, 34),
    page1G: flag(cap, 35),
    pageSelective: flag(cap, 39),
    maximumAddressMask: field(cap, 53, 48),
    faultRegisters: field(cap, 47, 40) + 1,
    cachingMode: flag(cap, 7),
    zeroLengthRead: flag(cap, 22),
    enhancedSetRootTable: flag(cap, 63) || rules.has('srtp-invalidates'),
    snoopControl: flag(ecap, 7),
    passThrough: flag(ecap, 6),
    deviceTlb: flag(ecap, 2),
    scalableMode: false,
    abortDmaMode: false,
  };
}

/**
 * The model as a subject: the one place that knows its API. It is driven as a driver would, by registers and a queue in memory, and
 * gets the geometry of QEMU's caches. Each rule of `rules.ts` that is in `rules` is applied here; without
 * them all, it answers as the specification says.
 */
export class ModelSubject implements Subject {
  readonly memory: TableMemory;
  readonly unit: RemappingUnit;
  readonly #rules: ReadonlySet<RuleId>;
  #tail = 0;
  /** Where DMA has put something: numbers of 32-bit words. */
  readonly #stored = new Set<number>();
  /** By source-id: what the device read last, which it writes next. */
  readonly #buffers = new Map<number, number>();
  /** Functions that there are. */
  readonly #requesters: Set<number>;
  /** Those that QEMU has taken out of remapping until the next invalidation of their context. */
  readonly #bypassed = new Set<number>();

  /** @param memory zeroed memory to use again @throws RangeError for capabilities that no unit has */
  constructor(configuration: Configuration, rules: ReadonlySet<RuleId> = ALL_RULES, memory?: TableMemory) {
    this.#rules = rules;
    this.#requesters = new Set(configuration.requesters);
    this.memory = memory ?? new TableMemory({ basePfn: 0, pages: configuration.ramBytes / 4096 });
    this.unit = new RemappingUnit({
      memory: this.memory,
      capabilities: capabilitiesOf(configuration, rules),
      iotlb: iotlbOptions(configuration.qemu, rules),
      ...(rules.has('no-paging-structure-cache') ? { pagingCache: NO_PAGING_CACHE } : {}),
    });
    const { registers } = this.unit;
    registers.write64(Register.RTADDR, configuration.root);
    registers.write32(Register.GCMD, GCMD.srtp);
    registers.write64(Register.IQA, BigInt(QUEUE));
    registers.write32(Register.GCMD, GCMD.qie);
    registers.write32(Register.GCMD, GCMD.te + GCMD.qie);
  }

  writeWord(pa: bigint, value: bigint): void {
    const pfn = Number(pa >> 12n);
    if (this.memory.contains(pfn)) this.memory.store(pfn, Number((pa >> 3n) & 511n), value);
  }

  /** @throws RangeError for a descriptor that the unit refuses (IQE) */
  invalidate(lo: bigint, hi: bigint): void {
    if ((lo & 0xfn) === CONTEXT_DESCRIPTOR) this.#invalidateContext(lo);
    else this.#submit(lo, hi);
  }

  setRoot(pa: bigint): void {
    this.unit.registers.write64(Register.RTADDR, pa);
    this.unit.registers.write32(Register.GCMD, GCMD.te + GCMD.qie + GCMD.srtp);
    this.#switchBypass(0, 0);
  }

  dma(request: DmaRequest): Answer {
    const { iova, sourceId } = request;
    const { unit } = this;
    this.#requesters.add(sourceId);
    if (this.#bypassed.has(sourceId)) return this.#passThrough(request);
    const iovaHi = highHalf(iova);
    const iovaLo = lowHalf(iova);
    const access = request.access === 'w' ? WalkAccess.write : WalkAccess.read;
    const cached = unit.iotlb.peek(sourceId, iovaHi, iovaLo);
    const isDenied = cached >= 0 && (unit.iotlb.rightsAt(cached) & (request.access === 'w' ? 2 : 1)) === 0;
    if (isDenied && this.#rules.has('silent-denial')) {
      if (request.access === 'r') this.#buffers.set(sourceId, 0);
      return this.#page(cached, unit.iotlb.pfnAt(cached, iovaHi, iovaLo), true);
    }
    const frame = unit.dma({ sourceId, iovaHi, iovaLo, access });
    if (frame < 0) return this.#faulted(request, -frame);
    const slot = unit.iotlb.peek(sourceId, iovaHi, iovaLo);
    if (slot >= 0) {
      this.#transfer(request, BigInt(frame) << 12n);
      return this.#page(slot, frame, cached >= 0 && !isDenied);
    }
    if (this.#isContextPassThrough(sourceId)) return this.#passThrough(request);
    // Translated and not cached: a page of a leaf that overlaps the interrupt range.
    this.#transfer(request, BigInt(frame) << 12n);
    return { kind: 'translated', gpa: BigInt(frame) << 12n, mask: 0xfffn, hit: false, slpte: 0n };
  }

  #isContextPassThrough(sourceId: number): boolean {
    const slot = this.unit.contextCache.lookup(sourceId);
    return slot >= 0 && this.unit.contextCache.valueAt(slot).passThrough;
  }

  readMemory(pa: bigint): Answer {
    const inMemory = this.memory.contains(Number(pa >> 12n));
    return { kind: 'data', value: inMemory ? (this.memory.halves[Number(pa >> 2n)] as number) >>> 0 : 0 };
  }

  /** Addresses that DMA wrote to, in the order of the first time. */
  get storedAddresses(): bigint[] {
    return [...this.#stored].map((half) => BigInt(half) << 2n);
  }

  /** QEMU does a domain-selective one as global, and looks at no domain-id in a device-selective one. */
  #invalidateContext(lo: bigint): void {
    const granularity = lo & GRANULARITY;
    const isDevice = granularity !== GLOBAL && granularity !== DOMAIN;
    const sourceId = field(lo, 47, 32);
    const compared = 0xffff & ~(FUNCTION_MASKS[field(lo, 49, 48)] as number);
    this.#switchBypass(sourceId, isDevice ? compared : 0);
    if (granularity === DOMAIN && this.#rules.has('context-domain-is-global'))
      this.#submit((lo & ~GRANULARITY) | GLOBAL, 0n);
    else if (isDevice && this.#rules.has('context-device-ignores-did'))
      for (const { did } of [...this.unit.contextCache.entries()]) this.#submit((lo & ~DID) | (BigInt(did) << 16n), 0n);
    else this.#submit(lo, 0n);
  }

  /** At an invalidation of contexts QEMU looks which of the functions are passed through, and takes those out of remapping. */
  #switchBypass(sourceId: number, compared: number): void {
    if (!this.#rules.has('pass-through-bypass')) return;
    for (const known of this.#requesters) {
      if (((known ^ sourceId) & compared) !== 0) continue;
      if (this.#isPassedThrough(known)) this.#bypassed.add(known);
      else this.#bypassed.delete(known);
    }
  }

  #isPassedThrough(sourceId: number): boolean {
    const { rootPfn, structures } = this.unit;
    const root = readRoot(this.memory, rootPfn, sourceId >> 8, structures);
    if (root.reason !== 0) return false;
    const levels = new Set(structures.addressWidths.map((width) => width + 2));
    const found = readContext(this.memory, root.pfn, sourceId & 0xff, levels, structures);
    return found.ok && found.context.translationType === TranslationType.passThrough;
  }

  /** One descriptor through the queue in memory. */
  #submit(lo: bigint, hi: bigint): void {
    const { registers } = this.unit;
    const pfn = QUEUE / 4096;
    const slot = this.#tail / 8;
    const kept = [this.memory.load(pfn, slot), this.memory.load(pfn, slot + 1)];
    this.memory.store(pfn, slot, lo);
    this.memory.store(pfn, slot + 1, hi);
    this.#tail = (this.#tail + 16) % QUEUE_BYTES;
    registers.write64(Register.IQT, BigInt(this.#tail));
    this.unit.processQueue();
    for (const [index, word] of kept.entries()) this.memory.store(pfn, slot + index, word);
    if ((registers.read32(Register.FSTS) & FaultStatus.queueError) !== 0)
      throw new RangeError(`descriptor: the unit refuses 0x${lo.toString(16)}, 0x${hi.toString(16)}`);
  }

  #faulted(request: DmaRequest, reason: number): Answer {
    const fault = this.#takeFault();
    const isBeyond = reason === FaultReason.addressBeyondWidth && this.#isContextPassThrough(request.sourceId);
    if (isBeyond && this.#rules.has('pass-through-any-width')) return this.#passThrough(request);
    if (request.access === 'r') this.#buffers.set(request.sourceId, 0);
    if (fault !== null)
      return {
        kind: 'fault',
        reason: fault.reason,
        type: fault.write ? 'w' : 'r',
        address: fault.address | this.#addressBitsLost(request),
        sourceId: fault.sourceId,
      };
    return { kind: 'blocked' };
  }

  /** What FI does not show of an address. */
  #addressBitsLost({ iova }: DmaRequest): bigint {
    const width = 12 + 9 * Math.max(...this.unit.capabilities.levels);
    return this.#rules.has('fault-address-whole') ? (iova >> BigInt(width)) << BigInt(width) : 0n;
  }

  /** Reads the fault recording register that holds something, and clears it. */
  #takeFault(): FaultRegister | null {
    const { registers } = this.unit;
    // One fault at a time, and the registers are used in turn: the pending one is where FRI says.
    const index = (registers.read32(Register.FSTS) >> 8) & 0xff;
    const at = FAULT_REGISTERS + index * 16;
    const fault = decodeFaultRegister(registers.read64(at), registers.read64(at + 8));
    registers.write32(at + 12, 0x8000_0000);
    registers.write32(Register.FSTS, FSTS_FAULTS);
    return fault;
  }

  #page(slot: number, frame: number, hit: boolean): Answer {
    const { iotlb } = this.unit;
    const mask = (1n << BigInt(9 * iotlb.levelAt(slot) + 3)) - 1n;
    const slpte = BigInt.asUintN(64, (BigInt(iotlb.leafHiAt(slot)) << 32n) | BigInt(iotlb.leafLoAt(slot) >>> 0));
    return { kind: 'translated', gpa: (BigInt(frame) << 12n) & ~mask, mask, hit, slpte };
  }

  #passThrough(request: DmaRequest): Answer {
    if (this.#rules.has('pass-through-bypass')) this.#bypassed.add(request.sourceId);
    this.#transfer(request, request.iova & ~0xfffn);
    return { kind: 'passThrough' };
  }

  /** The data itself: a program may lead a DMA into its own tables. */
  #transfer(request: DmaRequest, page: bigint): void {
    const { sourceId, access, iova } = request;
    const address = page | (iova & 0xfffn);
    const inMemory = this.memory.contains(Number(address >> 12n));
    const half = Number(address >> 2n);
    if (access === 'r') this.#buffers.set(sourceId, inMemory ? (this.memory.halves[half] as number) : 0);
    else if (inMemory) {
      this.memory.halves[half] = this.#buffers.get(sourceId) ?? 0;
      this.#stored.add(half);
    }
  }
}
