import { type Agent, Agent as AgentOf, Cost, Location, runToEnd, type Task, TaskRun } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AtsEndpoint,
  InFlightDma,
  type MessageOutcome,
  MISS,
  RemappingUnit,
  VtdDomain,
  VtdDriver,
} from '../src/index.ts';
import { SMALL_IOTLB } from './unit-setup.ts';

const WITHOUT_ATS = 0x18;
const WITH_ATS = 0x20;
const PAGES = 1024;
const FRAME = 0x80000;
/** Writes and reads go to these: both ends and the middle of two 2M leaves. */
const TARGETS = [0, 1, 7, 300, 511, 512, 513, 900, 1023] as const;

/** A small stream of random numbers: one seed, one interleaving. */
class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 1;
  }
  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }
  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

/** A function with a device TLB that does what PCIe asks of one, and no more. */
class DeviceTlb implements AtsEndpoint {
  readonly rights = new Map<number, number>();
  readonly inFlight = new InFlightDma('translated requests');
  invalidations = 0;

  *invalidateDeviceTlb(agent: Agent, page: number, sizeLog2: number): Task<MessageOutcome> {
    yield agent.spends('invalidate device TLB', Cost.deviceTlbInvalidate);
    this.invalidations++;
    for (const cached of this.rights.keys())
      if (Math.floor(cached / 2 ** sizeLog2) === Math.floor(page / 2 ** sizeLog2)) this.rights.delete(cached);
    yield* this.inFlight.drain(agent);
    return 'completed';
  }

  pageGroupResponse(): void {}
}

/** Devices, a driver and the unit's queue, one step at a time in random order. */
class DirtyRun {
  readonly unit: RemappingUnit;
  readonly domain: VtdDomain;
  readonly tlb = new DeviceTlb();
  readonly #random: Random;
  readonly #policy: 'inherit' | 'clear-after-harvest';
  #now = 0;
  /** When each page was written last, and reported last. */
  readonly written = new Map<number, number>();
  readonly reported = new Map<number, number>();
  readonly counts = { writes: 0, reports: 0, cuts: 0, collapses: 0, unmaps: 0 };

  constructor(seed: number, policy: 'inherit' | 'clear-after-harvest') {
    this.#random = new Random(seed);
    this.#policy = policy;
    this.unit = new RemappingUnit({ memory: new TableMemory({ pages: 128 }), iotlb: SMALL_IOTLB });
    const driver = new VtdDriver({ unit: this.unit });
    this.domain = new VtdDomain({
      driver,
      domainId: 1,
      accessedDirty: true,
      onDirty: (ranges) => {
        for (const { page, pages } of ranges) this.#report(page, pages);
      },
    });
    this.domain.attach(WITHOUT_ATS, null);
    this.domain.attach(WITH_ATS, this.tlb);
    this.domain.table.map({ page: 0, frame: FRAME, pages: PAGES, rights: { read: true, write: true } });
  }

  #report(page: number, pages: number): void {
    this.counts.reports++;
    for (const target of TARGETS) if (target >= page && target < page + pages) this.reported.set(target, this.#now++);
  }

  #write(page: number, frame: number): void {
    expect(frame).toBe(FRAME + page);
    this.counts.writes++;
    this.written.set(page, this.#now++);
  }

  *device(agent: Agent, operations: number): Task<void> {
    for (let n = 0; n < operations; n++) {
      const page = this.#random.of(TARGETS);
      const isWrite = this.#random.below(3) > 0;
      yield agent.reads('translate', Location.translationCache, 0, Cost.dmaBase);
      const access = isWrite ? this.#random.of([1, 2]) : 0;
      const request = { sourceId: WITHOUT_ATS, iovaHi: 0, iovaLo: page << 12, access };
      const hit = this.unit.translate(WITHOUT_ATS, 0, page << 12, access);
      const frame = hit === MISS ? yield* this.unit.translateMiss(agent, request) : hit;
      if (frame < 0) continue;
      const token = this.unit.inFlight.begin();
      yield agent.spends('DMA', Cost.dmaBase);
      if (isWrite) this.#write(page, frame);
      this.unit.inFlight.end(token);
    }
  }

  *deviceWithAts(agent: Agent, operations: number): Task<void> {
    for (let n = 0; n < operations; n++) {
      const page = this.#random.of(TARGETS);
      const isWrite = this.#random.below(3) > 0;
      const needed = isWrite ? 2 : 1;
      yield agent.reads('look up device TLB', Location.translationCache, 1, Cost.dmaBase);
      if (((this.tlb.rights.get(page) ?? 0) & needed) === 0) {
        const asked = this.tlb.invalidations;
        const request = { sourceId: WITH_ATS, iovaHi: 0, iovaLo: page << 12, noWrite: !isWrite };
        const completion = yield* this.unit.translationRequest(agent, request);
        yield agent.writes('fill device TLB', Location.translationCache, 1, Cost.free);
        if (asked !== this.tlb.invalidations) continue;
        if (completion.rights !== 0) expect(completion.frame).toBe(FRAME + page);
        this.tlb.rights.set(page, completion.rights);
        if ((completion.rights & needed) === 0) continue;
      }
      const token = this.tlb.inFlight.begin();
      yield agent.spends('translated DMA', Cost.dmaBase);
      if (isWrite) this.#write(page, FRAME + page);
      this.tlb.inFlight.end(token);
    }
  }

  *driver(agent: Agent, operations: number): Task<void> {
    const { domain } = this;
    for (let n = 0; n < operations; n++) {
      const page = this.#random.of(TARGETS);
      const gather = domain.gather();
      switch (this.#random.below(6)) {
        case 0:
          this.counts.cuts += (yield* domain.cut(agent, page, 1, gather, { accessedDirty: this.#policy })).installs;
          yield* domain.flush(agent, gather);
          break;
        case 1:
          this.counts.collapses += (yield* domain.collapse(agent, 0, PAGES)).leaves['2M'];
          break;
        case 2:
          this.counts.unmaps += yield* domain.unmap(
            agent,
            { page, pages: 1, partialLeaf: 'whole-leaf', holes: 'skip' },
            gather,
          );
          yield* domain.flush(agent, gather);
          break;
        case 3:
          for (let at = 0, pages = 1; at < PAGES; at += pages) {
            pages = domain.vacantLevel(at) > 1 ? 512 : 1;
            if (domain.vacantLevel(at) > 0)
              yield* domain.map(agent, { page: at, frame: FRAME + at, pages, write: true });
          }
          break;
        default:
          for (const { page: first, pages } of yield* domain.readAndClearDirty(agent, 0, PAGES, true))
            this.#report(first, pages);
      }
    }
  }

  /** A second reader of dirty bits, beside the driver. */
  *harvester(agent: Agent, operations: number): Task<void> {
    for (let n = 0; n < operations; n++)
      for (const { page, pages } of yield* this.domain.readAndClearDirty(agent, 0, PAGES, true))
        this.#report(page, pages);
  }

  run(): void {
    const start = (name: string, task: (agent: Agent) => Task<void>): TaskRun<void> => {
      const agent = new AgentOf(name);
      return new TaskRun(agent, task(agent));
    };
    const queue = start('queue', (agent) => this.unit.run(agent));
    const others = [
      start('driver', (agent) => this.driver(agent, 14)),
      start('harvester', (agent) => this.harvester(agent, 4)),
      start('device', (agent) => this.device(agent, 40)),
      start('ATS device', (agent) => this.deviceWithAts(agent, 40)),
    ];
    while (others.some((run) => !run.done)) {
      const enabled = [queue, ...others].filter((run) => run.enabled);
      if (enabled.length === 0) expect.fail('nobody can go on');
      // In bursts too, so that a whole flush fits between two steps of a walk.
      const run = this.#random.of(enabled);
      for (let steps = this.#random.of([1, 1, 2, 30]); steps > 0 && run.enabled; steps--) run.advance();
    }
  }

  /** Pages whose last write nobody has heard of. */
  lost(): number[] {
    const still = new Set<number>();
    const dirty = (page: number, pages: number) => {
      for (const target of TARGETS) if (target >= page && target < page + pages) still.add(target);
    };
    const range = { iova: 0n, length: BigInt(PAGES) << 12n, clear: false };
    this.domain.table.readAndClearDirty(range, this.domain.gather(), (iova, length) =>
      dirty(Number(iova >> 12n), Number(length >> 12n)),
    );
    return TARGETS.filter(
      (page) => (this.written.get(page) ?? -1) > (this.reported.get(page) ?? -1) && !still.has(page),
    );
  }
}

describe('dirty pages (I6)', () => {
  it.each(['inherit', 'clear-after-harvest'] as const)(
    'are reported after their last write, or still dirty, whatever comes in between; cuts: %s',
    (policy) => {
      const totals = { writes: 0, reports: 0, cuts: 0, collapses: 0, unmaps: 0 };
      fc.assert(
        fc.property(fc.integer(), (seed) => {
          const run = new DirtyRun(seed, policy);
          run.run();
          expect(run.lost()).toEqual([]);
          for (const name of Object.keys(totals) as (keyof typeof totals)[]) totals[name] += run.counts[name];
        }),
        { numRuns: 300 },
      );
      for (const count of Object.values(totals)) expect(count).toBeGreaterThan(20);
    },
    60_000,
  );

  it('a clean page is cached without W, so that its first write sets D', () => {
    const run = new DirtyRun(1, 'inherit');
    const { unit, domain } = run;
    const dirty = (): number => {
      let leaves = 0;
      domain.table.readAndClearDirty({ iova: 0n, length: 0x40_0000n, clear: false }, domain.gather(), () => leaves++);
      return leaves;
    };
    expect([unit.dma({ sourceId: WITHOUT_ATS, iovaHi: 0, iovaLo: 0, access: 0 }), dirty()]).toEqual([FRAME, 0]);
    expect([unit.translate(WITHOUT_ATS, 0, 0, 0), unit.translate(WITHOUT_ATS, 0, 0, 1)]).toEqual([FRAME, MISS]);
    expect([unit.dma({ sourceId: WITHOUT_ATS, iovaHi: 0, iovaLo: 0, access: 1 }), dirty()]).toEqual([FRAME, 1]);
    expect(unit.translate(WITHOUT_ATS, 0, 0x1000, 1)).toBe(FRAME + 1);
  });

  it('a translation request makes a page dirty if it may write and is granted W, and not with NW', () => {
    const agent = new AgentOf('device');
    const run = new DirtyRun(1, 'inherit');
    const ask = (noWrite: boolean) =>
      runToEnd(run.unit.translationRequest(agent, { sourceId: WITH_ATS, iovaHi: 0, iovaLo: 0x20_0000, noWrite }));
    const leaf = () => run.domain.table.leafAt(512)?.entry;
    expect([ask(true).rights, ask(true).rights]).toEqual([1, 1]);
    expect((leaf() as bigint) & 0x300n).toBe(0x100n);
    expect(ask(false).rights).toBe(3);
    expect((leaf() as bigint) & 0x300n).toBe(0x300n);
  });
});
