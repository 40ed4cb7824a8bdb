import { Agent, runToEnd, TaskRun, VirtualTime } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  GlobalCommand,
  IOTLB_REGISTERS,
  Register,
  RemappingUnit,
  type UnitCapabilities,
  VtdDriver,
} from '../src/index.ts';
import { PROFILE, RecordingEndpoint } from './unit-setup.ts';

const BASE = 0x1000;
const PAGES = 32;
const offsets = [...Object.values(Register), IOTLB_REGISTERS, IOTLB_REGISTERS + 8, 0x600, 0x608];
const { translationEnable, setRootTable, queuedInvalidationEnable } = GlobalCommand;

/** Values that reach deep: addresses in memory with any low bits, levels, offsets into rings, and anything. */
const value = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc
    .tuple(fc.integer({ min: BASE - 1, max: BASE + PAGES }), fc.integer({ min: 0, max: 0xfff }))
    .map(([pfn, low]) => (BigInt(pfn) << 12n) | BigInt(low)),
  fc.integer({ min: 0, max: 300 }).map((slot) => BigInt(slot * 16)),
  fc
    .constantFrom(queuedInvalidationEnable, queuedInvalidationEnable | setRootTable, translationEnable, -1, 0)
    .map((bits) => BigInt(bits >>> 0)),
);

const MEANT: readonly (readonly [lo: bigint, hi: bigint])[] = [
  [0n, 0n],
  [0x3_ffff_ffff_0030n, 0n],
  [0xffff_00f0n, 0xffff_ffff_ffff_f07fn],
  [0xffff_0000_0000n, 0xffff_ffff_ffff_f001n],
  [0xffff_f800_0010n, 0n],
  [0xffff_ffff_0000_00f0n, 0xffff_ffff_ffff_fffcn],
  [0xf_ffff_ffff_0030n, 0xffff_ffff_ffff_f07fn],
  [0xf_ffff_ffff_0030n, 0n],
  [0xf_ffff_ffff_0000n, 0xffff_ffff_ffff_f801n],
  [0xf_ffff_ffff_f010n, 0xffcn],
];
/** Descriptors that are nearly right: most with no reserved bit, some with any bits. */
const descriptor = fc
  .tuple(
    fc.integer({ min: 0, max: 10 }),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    value,
    fc.integer({ min: 0, max: 15 }),
  )
  .map(([type, lo, hi, chance]) => {
    const [low, high] = chance === 0 ? [~0n, ~0n] : (MEANT[type] ?? [~0n, ~0n]);
    // The function that answers, more often than others.
    const addressed = chance < 8 && type === 3 ? (lo & 0xffffn) | (0x18n << 32n) : lo;
    return [BigInt(type) | (addressed & low & ~0xfn), hi & high] as const;
  });

type Action =
  | { readonly kind: 'write32' | 'write64'; readonly offset: number; readonly value: bigint }
  | { readonly kind: 'memory'; readonly page: number; readonly slot: number; readonly words: readonly bigint[] }
  | { readonly kind: 'submit'; readonly descriptors: readonly (readonly bigint[])[] }
  | { readonly kind: 'request'; readonly sourceId: number; readonly page: number; readonly last: boolean }
  | { readonly kind: 'dma'; readonly sourceId: number; readonly page: number }
  | { readonly kind: 'clear errors' | 'run' };

const sourceId = fc.constantFrom(0x18, 0x20, 0, 0xffff);
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constantFrom('write32', 'write64'), offset: fc.constantFrom(...offsets), value }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('memory'),
      page: fc.integer({ min: 0, max: PAGES - 1 }),
      slot: fc.integer({ min: 0, max: 254 }),
      words: fc.oneof(descriptor, fc.array(value, { minLength: 1, maxLength: 4 })),
    }),
  },
  fc.record({
    kind: fc.constant('request'),
    sourceId,
    page: fc.integer({ min: 0, max: 2 ** 52 - 1 }),
    last: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('dma'), sourceId, page: fc.integer({ min: 0, max: 2 ** 52 - 1 }) }),
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('submit'),
      descriptors: fc.array(descriptor, { minLength: 1, maxLength: 6 }),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: 'clear errors' }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'run' }) },
) as fc.Arbitrary<Action>;

const capabilities = fc.record({
  scalableMode: fc.boolean(),
  abortDmaMode: fc.boolean(),
  majorVersion: fc.constantFrom(1, 5, 7),
  faultRegisters: fc.constantFrom(1, 8),
  pageRequestDrain: fc.boolean(),
});

/** Steps that the hardware may take for one round of the largest ring, with margin. */
const STEP_LIMIT = 400_000;

class Attack {
  readonly memory = new TableMemory({ basePfn: BASE, pages: PAGES });
  readonly unit: RemappingUnit;
  readonly hardware = new Agent('hardware');
  readonly run: TaskRun<void>;

  constructor(options: Partial<UnitCapabilities>) {
    this.unit = new RemappingUnit({ memory: this.memory, capabilities: options });
    // Something to spoil: queues and tables as a driver sets them up, and a function that the tables lead somewhere.
    const driver = new VtdDriver({ unit: this.unit, queueEntries: 256, pageRequestEntries: 128 });
    driver.attach(0x18, {
      domainId: 1,
      tablePfn: this.memory.allocate(),
      levels: 4,
      endpoint: new RecordingEndpoint(),
    });
    while (this.memory.allocate() >= 0);
    this.run = new TaskRun(this.hardware, this.unit.run(this.hardware));
  }

  settle(): void {
    for (let steps = 0; this.run.enabled; steps++) {
      if (steps === STEP_LIMIT) throw new Error('the hardware does not come to rest');
      this.run.advance();
    }
  }

  /** Behind the tail, wherever that is, if there is memory; each followed by a wait that writes next to the ring. */
  submit(descriptors: readonly (readonly bigint[])[]): void {
    const { registers, invalidationQueue } = this.unit;
    const width = invalidationQueue.wide ? 32 : 16;
    const ring = Number(registers.read64(Register.IQA) >> 12n);
    let tail = Number(registers.read64(Register.IQT)) % (invalidationQueue.entries * width);
    for (const words of [...descriptors, [0x3_0000_0025n, BigInt(BASE + PAGES - 1) << 12n]]) {
      const pfn = ring + (tail >> 12);
      for (let i = 0; i < width / 8 && this.memory.contains(pfn); i++)
        this.memory.store(pfn, (((tail & 0xfff) >> 3) + i) % 512, words[i] ?? 0n);
      tail = (tail + width) % (invalidationQueue.entries * width);
    }
    registers.write64(Register.IQT, BigInt(tail));
  }

  do(each: Action): void {
    const { registers } = this.unit;
    if (each.kind === 'write32') registers.write32(each.offset & ~3, Number(each.value & 0xffff_ffffn));
    else if (each.kind === 'write64') registers.write64(each.offset & ~7, each.value);
    else if (each.kind === 'memory') {
      const first = each.slot * 2;
      for (const [i, word] of each.words.entries())
        if (first + i < 512) this.memory.store(BASE + each.page, first + i, word);
    } else if (each.kind === 'submit') this.submit(each.descriptors);
    else if (each.kind === 'clear errors') registers.write32(Register.FSTS, -1);
    else if (each.kind === 'request') {
      const { sourceId: from, page, last } = each;
      const request = { sourceId: from, page, read: true, write: false, last, groupIndex: page % 512 };
      runToEnd(this.unit.pageRequest(new Agent('device'), request));
    } else if (each.kind === 'dma') {
      const { sourceId: from, page } = each;
      this.unit.dma({ sourceId: from, iovaHi: Math.floor(page / 2 ** 20) | 0, iovaLo: (page << 12) | 0, access: 1 });
    } else this.settle();
  }

  /** What holds at rest whatever was written. */
  check(): void {
    const { registers, invalidationQueue, faults } = this.unit;
    const status = registers.read32(Register.FSTS);
    expect(status & ~0xff73).toBe(0);
    expect((status & 2) !== 0).toBe(faults.status !== (faults.status & ~2));
    const head = Number(registers.read64(Register.IQH));
    expect(head).toBeLessThan(invalidationQueue.entries * (invalidationQueue.wide ? 32 : 16));
    expect(head % (invalidationQueue.wide ? 32 : 16)).toBe(0);
    // At rest the queue is off, empty, or stopped by an error.
    const isOn = (registers.read32(Register.GSTS) & queuedInvalidationEnable) !== 0;
    const isEmpty = registers.read64(Register.IQH) === registers.read64(Register.IQT);
    expect(!isOn || isEmpty || (status & 0x50) !== 0).toBe(true);
    expect(this.unit.inFlight.count).toBe(0);
    expect(this.unit.receivedRequests.count).toBe(0);
  }
}

describe('whatever software writes to registers and memory', () => {
  it('the hardware neither throws nor runs for ever, and its registers stay legal', () => {
    fc.assert(
      fc.property(capabilities, fc.array(action, { minLength: 10, maxLength: 60 }), (options, actions) => {
        const attack = new Attack(options);
        for (const each of actions) {
          attack.do(each);
        }
        attack.settle();
        attack.check();
      }),
      { numRuns: 400 },
    );
  });

  it('a ring full of anything ends at the tail, or at an error, and a repaired queue works again', () => {
    fc.assert(
      fc.property(fc.array(descriptor, { minLength: 1, maxLength: 40 }), fc.constantFrom(0, 1), (descriptors, mode) => {
        const attack = new Attack({});
        const { registers } = attack.unit;
        const width = mode === 1 ? 32 : 16;
        registers.write64(Register.RTADDR, (BigInt(BASE) << 12n) | (BigInt(mode) << 10n));
        registers.write32(Register.GCMD, setRootTable);
        registers.write64(Register.IQA, (BigInt(BASE + 1) << 12n) | (mode === 1 ? 0x800n : 0n));
        registers.write32(Register.GCMD, queuedInvalidationEnable);
        for (const [slot, [lo, hi]] of descriptors.entries()) {
          attack.memory.store(BASE + 1, (slot * width) / 8, lo);
          attack.memory.store(BASE + 1, (slot * width) / 8 + 1, hi);
        }
        registers.write64(Register.IQT, BigInt(descriptors.length * width));
        // As a driver would: overwrite the bad one with a wait, clear, and go on. Each round takes the head further.
        for (let rounds = 0; ; rounds++) {
          attack.settle();
          attack.check();
          const status = registers.read32(Register.FSTS) & 0x50;
          if (status === 0) break;
          expect(rounds).toBeLessThanOrEqual(2 * descriptors.length);
          const head = Number(registers.read64(Register.IQH));
          if ((status & 0x10) !== 0) {
            attack.memory.store(BASE + 1, head / 8, 5n);
            for (let i = 1; i < width / 8; i++) attack.memory.store(BASE + 1, head / 8 + i, 0n);
          }
          registers.write32(Register.FSTS, status);
        }
        expect(registers.read64(Register.IQH)).toBe(registers.read64(Register.IQT));
      }),
      { numRuns: 300 },
    );
  });

  it('under virtual time, a queue that stops leaves the other tasks running', () => {
    const time = new VirtualTime(PROFILE);
    const attack = new Attack({});
    time.spawn(attack.hardware, attack.unit.run(attack.hardware), { daemon: true });
    const { registers } = attack.unit;
    registers.write64(Register.IQT, 0x7_fff0n);
    registers.write32(Register.GCMD, queuedInvalidationEnable);
    time.run();
    expect(registers.read32(Register.FSTS)).toBe(0x10);
  });
});
