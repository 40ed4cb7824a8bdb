import { QEMU_7_2_IOTLB_OPTIONS, QEMU_IOTLB_OPTIONS } from '@faultline/iotlb';
import { Agent, runToEnd } from '@faultline/sim';
import { TableMemory, WalkAccess } from '@faultline/vtd-pagetable';
import { type Descriptor, decodeDescriptor, Granularity, RemappingUnit } from '@faultline/vtd-remapping';
import type { Answer, Configuration, DmaRequest, Subject } from './program.ts';
import { ALL_RULES, type RuleId } from './rules.ts';

const NO_ENTRIES = { sets: 1, ways: 0 };

/** The IOTLB of the QEMU that answered: before 10 it dropped too much on a page-selective invalidation. */
function iotlbOptions(qemu: string, rules: ReadonlySet<RuleId>): typeof QEMU_IOTLB_OPTIONS {
  const major = Number(/(\d+)/.exec(qemu)?.[1] ?? 11);
  return major < 10 && rules.has('page-mask-8-bits') ? QEMU_7_2_IOTLB_OPTIONS : QEMU_IOTLB_OPTIONS;
}

const field = (register: bigint, high: number, low: number): number =>
  Number((register >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
const highHalf = (value: bigint): number => Number(BigInt.asIntN(32, value >> 32n));
const lowHalf = (value: bigint): number => Number(BigInt.asIntN(32, value));

/**
 * The model as a subject: the one place that knows its API. It gets the geometry of QEMU's caches, and each rule of
 * `rules.ts` that is in `rules` is applied here; without them all, it answers as the specification says.
 */
export class ModelSubject implements Subject {
  readonly memory: TableMemory;
  readonly unit: RemappingUnit;
  readonly #rules: ReadonlySet<RuleId>;
  readonly #agent = new Agent('device');
  /** By source-id: what the device read last, which it writes next. */
  readonly #buffers = new Map<number, number>();
  /** Requesters that QEMU has taken out of remapping until the next invalidation of their context. */
  readonly #bypassed = new Set<number>();

  constructor(configuration: Configuration, rules: ReadonlySet<RuleId> = ALL_RULES, memory?: TableMemory) {
    const { cap, ecap, qemu, ramBytes, root } = configuration;
    this.#rules = rules;
    this.memory = memory ?? new TableMemory({ basePfn: 0, pages: ramBytes / 4096 });
    const sagaw = field(cap, 12, 8);
    this.unit = new RemappingUnit({
      memory: this.memory,
      capabilities: {
        // QEMU has one width for both: it reserves the address bits that CAP.MGAW does not reach.
        hostAddressWidth: field(cap, 21, 16) + 1,
        page2M: field(cap, 34, 34) === 1,
        page1G: field(cap, 35, 35) === 1,
        snoopControl: field(ecap, 7, 7) === 1,
        transientMapping: field(ecap, 2, 2) === 1,
      },
      levels: [3, 4, 5].filter((levels) => ((sagaw >> (levels - 2)) & 1) === 1),
      iotlb: iotlbOptions(qemu, rules),
      pagingCache: { pde: NO_ENTRIES, pdpe: NO_ENTRIES, pml4e: NO_ENTRIES, pml5e: NO_ENTRIES },
      faultRegisters: field(cap, 47, 40) + 1,
    });
    this.#pointAt(root);
  }

  writeWord(pa: bigint, value: bigint): void {
    const pfn = Number(pa >> 12n);
    if (this.memory.contains(pfn)) this.memory.store(pfn, Number((pa >> 3n) & 511n), value);
  }

  invalidate(lo: bigint, hi: bigint): void {
    const descriptor = decodeDescriptor(lo, hi);
    if (descriptor === null) throw new RangeError(`descriptor: 0x${lo.toString(16)} 0x${hi.toString(16)} is reserved`);
    if (descriptor.type === 'contextCache') this.#invalidateContext(descriptor);
    else runToEnd(this.unit.execute(this.#agent, descriptor));
  }

  setRoot(pa: bigint): void {
    this.#pointAt(pa);
    if (!this.#rules.has('srtp-invalidates')) return;
    this.#bypassed.clear();
    this.unit.contextCache.invalidateGlobal();
    this.unit.iotlb.invalidateGlobal();
  }

  dma(request: DmaRequest): Answer {
    const { iova, sourceId } = request;
    const { unit } = this;
    if (this.#bypassed.has(sourceId)) return this.#passThrough(request);
    const iovaHi = highHalf(iova);
    const iovaLo = lowHalf(iova);
    const access = request.access === 'w' ? WalkAccess.write : WalkAccess.read;
    const cached = unit.iotlb.peek(sourceId, iovaHi, iovaLo);
    if (cached >= 0) {
      const frame = unit.translate(sourceId, iovaHi, iovaLo, access);
      if (frame >= 0) return this.#translated(request, cached, frame, true);
      if (this.#rules.has('silent-denial')) {
        if (access === WalkAccess.read) this.#buffers.set(sourceId, 0);
        return this.#page(cached, unit.iotlb.pfnAt(cached, iovaHi, iovaLo), true);
      }
    }
    const miss = { sourceId, iovaHi, iovaLo, access, translationRequest: false };
    const frame = runToEnd(unit.translateMiss(this.#agent, miss));
    if (frame < 0) return this.#faulted(request);
    const filled = unit.iotlb.peek(sourceId, iovaHi, iovaLo);
    if (filled >= 0) return this.#translated(request, filled, frame, false);
    if (this.#rules.has('pass-through-bypass')) this.#bypassed.add(sourceId);
    return this.#passThrough(request);
  }

  #pointAt(root: bigint): void {
    // The unit allocates its root table; here the program has built one.
    Object.defineProperty(this.unit, 'rootPfn', { value: Number(root >> 12n), configurable: true });
  }

  /** QEMU does a domain-selective one as global, and looks at no domain-id in a device-selective one. */
  #invalidateContext(descriptor: Extract<Descriptor, { type: 'contextCache' }>): void {
    const { granularity, sourceId, functionMask } = descriptor;
    if (granularity === Granularity.domain && this.#rules.has('context-domain-is-global')) {
      this.#invalidateContext({ ...descriptor, granularity: Granularity.global });
      return;
    }
    if (granularity === Granularity.selective) {
      const compared = 0xffff & ~([0, 4, 6, 7][functionMask] as number);
      for (const bypassed of this.#bypassed)
        if (((bypassed ^ sourceId) & compared) === 0) this.#bypassed.delete(bypassed);
      if (this.#rules.has('context-device-ignores-did'))
        for (const { did } of [...this.unit.contextCache.entries()])
          this.unit.contextCache.invalidateDevice(did, sourceId, functionMask);
    } else this.#bypassed.clear();
    runToEnd(this.unit.execute(this.#agent, descriptor));
  }

  #faulted(request: DmaRequest): Answer {
    if (request.access === 'r') this.#buffers.set(request.sourceId, 0);
    const [record] = this.unit.faults.takeAll();
    if (record === undefined) return { kind: 'blocked' };
    return {
      kind: 'fault',
      reason: record.reason,
      type: record.write ? 'w' : 'r',
      address: BigInt(record.page) << 12n,
      sourceId: record.sourceId,
    };
  }

  #translated(request: DmaRequest, slot: number, frame: number, hit: boolean): Answer {
    this.#transfer(request, BigInt(frame) << 12n);
    return this.#page(slot, frame, hit);
  }

  #page(slot: number, frame: number, hit: boolean): Answer {
    const { iotlb } = this.unit;
    const mask = (1n << BigInt(9 * iotlb.levelAt(slot) + 3)) - 1n;
    return { kind: 'translated', gpa: (BigInt(frame) << 12n) & ~mask, mask, hit, slpte: iotlb.leafAt(slot) };
  }

  #passThrough(request: DmaRequest): Answer {
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
    else if (inMemory) this.memory.halves[half] = this.#buffers.get(sourceId) ?? 0;
  }
}
