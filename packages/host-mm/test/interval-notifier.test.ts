import { Agent, Cost, Location, Mutex, RandomStream, runToEnd, type Task, TaskRun } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AddressSpace,
  HostMemory,
  type MmuIntervalNotifier,
  NotifierEvent,
  type NotifierRange,
  VM_FAULT_ERROR,
} from '../src/index.ts';
import { runShuffled } from './run.ts';

const agent = new Agent('agent');

const clear = (startPage: number, pages: number): NotifierRange => ({
  startPage,
  pages,
  event: NotifierEvent.CLEAR,
  blockable: true,
});

/** An interval that only notes what it hears. */
class Listener implements MmuIntervalNotifier {
  readonly heard: string[] = [];
  readonly startPage: number;
  readonly pages: number;
  readonly #mm: AddressSpace;

  constructor(mm: AddressSpace, startPage: number, pages: number) {
    this.#mm = mm;
    this.startPage = startPage;
    this.pages = pages;
    mm.intervals.insert(this);
  }

  *invalidate(by: Agent, range: NotifierRange, sequence: number): Task<boolean> {
    yield by.spends('callback', Cost.free);
    this.heard.push(`${range.event} ${range.startPage}+${range.pages} seq ${sequence}`);
    this.#mm.intervals.setSequence(this, sequence);
    return true;
  }
}

function machine() {
  const host = new HostMemory({ frames: 64, swapSlots: 64, pageCluster: 0 });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 0, pages: 16, backing: '4K' });
  return { host, mm };
}

describe('the sequence of interval notifiers', () => {
  it('is odd while a range that overlaps an interval is in progress, and even otherwise', () => {
    const { mm } = machine();
    const listener = new Listener(mm, 4, 4);
    const { intervals } = mm;
    expect(intervals.sequence).toBe(2);
    const [one, two, far] = [clear(6, 4), clear(0, 5), clear(12, 2)];
    runToEnd(mm.invalidateRangeStart(agent, far));
    expect([intervals.sequence, listener.heard]).toEqual([2, []]);
    runToEnd(mm.invalidateRangeStart(agent, one));
    runToEnd(mm.invalidateRangeStart(agent, two));
    expect([intervals.sequence, listener.heard]).toEqual([3, ['1 6+4 seq 3', '1 0+5 seq 3']]);
    runToEnd(mm.invalidateRangeEnd(agent, one));
    runToEnd(mm.invalidateRangeEnd(agent, two));
    // As in Linux, the last range of all ends it, whatever its pages.
    expect(intervals.sequence).toBe(3);
    runToEnd(mm.invalidateRangeEnd(agent, far));
    expect(intervals.sequence).toBe(4);
  });

  it('tells a reader to start over if its interval was invalidated, and only then', () => {
    const { mm } = machine();
    const near = new Listener(mm, 4, 4);
    const far = new Listener(mm, 10, 2);
    const sequences = [near, far].map((each) => runToEnd(mm.intervals.readBegin(agent, each)));
    expect([near, far].map((each, i) => mm.intervals.readRetry(each, sequences[i]!))).toEqual([false, false]);
    const range = clear(5, 1);
    runToEnd(mm.invalidateRangeStart(agent, range));
    expect([near, far].map((each, i) => mm.intervals.readRetry(each, sequences[i]!))).toEqual([true, false]);
    runToEnd(mm.invalidateRangeEnd(agent, range));
    expect([near, far].map((each, i) => mm.intervals.readRetry(each, sequences[i]!))).toEqual([true, false]);
    const again = runToEnd(mm.intervals.readBegin(agent, near));
    expect(mm.intervals.readRetry(near, again)).toBe(false);
  });

  it('makes a reader of an interval that is being invalidated wait; but not for the next invalidation', () => {
    const { mm } = machine();
    const listener = new Listener(mm, 4, 4);
    const first = clear(4, 1);
    runToEnd(mm.invalidateRangeStart(agent, first));
    const reader = new TaskRun(new Agent('reader'), mm.intervals.readBegin(new Agent('reader'), listener));
    while (reader.enabled) reader.advance();
    expect(reader.done).toBe(false);
    runToEnd(mm.invalidateRangeEnd(agent, first));
    const second = clear(4, 1);
    runToEnd(mm.invalidateRangeStart(agent, second));
    expect(reader.enabled).toBe(true);
    while (!reader.done) reader.advance();
    // What it got is stale, and it will see that.
    expect(mm.intervals.readRetry(listener, reader.value!)).toBe(true);
    runToEnd(mm.invalidateRangeEnd(agent, second));
  });

  it('makes a new interval wait for ranges in progress that it has not heard of', () => {
    const { mm } = machine();
    const range = clear(0, 16);
    runToEnd(mm.invalidateRangeStart(agent, range));
    expect(mm.intervals.sequence).toBe(2);
    const listener = new Listener(mm, 4, 4);
    const reader = new TaskRun(new Agent('reader'), mm.intervals.readBegin(new Agent('reader'), listener));
    while (reader.enabled) reader.advance();
    expect(reader.done).toBe(false);
    runToEnd(mm.invalidateRangeEnd(agent, range));
    while (!reader.done) reader.advance();
    expect(mm.intervals.readRetry(listener, reader.value!)).toBe(false);
  });

  it('removes an interval once no range is in progress; a callback on its way may still set its sequence', () => {
    const { mm } = machine();
    const listener = new Listener(mm, 4, 4);
    const range = clear(4, 1);
    const start = new TaskRun(agent, mm.invalidateRangeStart(agent, range));
    while (mm.intervals.sequence % 2 === 0) start.advance();
    const remover = new TaskRun(new Agent('remover'), mm.intervals.remove(new Agent('remover'), listener));
    while (remover.enabled) remover.advance();
    expect(remover.done).toBe(false);
    while (!start.done) start.advance();
    expect(listener.heard.length).toBe(1);
    runToEnd(mm.invalidateRangeEnd(agent, range));
    while (!remover.done) remover.advance();
    runToEnd(mm.invalidateRangeStart(agent, range));
    runToEnd(mm.invalidateRangeEnd(agent, range));
    expect(listener.heard.length).toBe(1);
    expect(() => runToEnd(mm.intervals.remove(agent, listener))).toThrow('notifier: is not inserted');
    expect(() => new Listener(mm, 4, 4) && mm.intervals.insert(listener)).not.toThrow();
    expect(() => mm.intervals.insert(listener)).toThrow('notifier: is inserted already');
  });

  it('fires RELEASE over all addresses when the process exits', () => {
    const { mm } = machine();
    const listeners = [new Listener(mm, 4, 4), new Listener(mm, 10, 2)];
    runToEnd(mm.exit(agent));
    for (const { heard } of listeners) expect(heard[0]).toBe(`5 0+${2 ** 45} seq 3`);
  });
});

/** A device's page table over an interval, kept in step by the interval's sequence alone. */
class IntervalUser implements MmuIntervalNotifier {
  readonly startPage = 0;
  readonly pages = 8;
  readonly translations = new Map<number, number>();
  retries = 0;
  readonly #lock = new Mutex('user lock');
  readonly #mm: AddressSpace;

  constructor(mm: AddressSpace) {
    this.#mm = mm;
  }

  *invalidate(by: Agent, range: NotifierRange, sequence: number): Task<boolean> {
    yield* this.#lock.acquire(by);
    this.#mm.intervals.setSequence(this, sequence);
    yield by.spends('tear down', Cost.entryWrite);
    for (const page of [...this.translations.keys()])
      if (page >= range.startPage && page < range.startPage + range.pages) this.translations.delete(page);
    this.#lock.release(by);
    return true;
  }

  *install(by: Agent, page: number): Task<void> {
    const mm = this.#mm;
    for (let tries = 0; tries < 8; tries++) {
      const sequence = yield* mm.intervals.readBegin(by, this);
      yield* mm.mmapLock.acquireRead(by);
      const bits = yield* mm.handleMmFault(by, page, { write: true });
      yield by.reads('look up', Location.cpuEntry, mm.entryLocation(page), Cost.entryRead);
      const pfn = mm.lookup(page);
      mm.mmapLock.releaseRead(by);
      if ((bits & VM_FAULT_ERROR) !== 0) return;
      yield* this.#lock.acquire(by);
      yield by.reads('retry?', Location.notifierSequence, mm.notifierLocation, Cost.free);
      const isStale = mm.intervals.readRetry(this, sequence);
      if (!isStale && pfn >= 0) {
        yield by.spends('install', Cost.entryWrite);
        this.translations.set(page, pfn);
      }
      this.#lock.release(by);
      if (!isStale) return;
      this.retries++;
    }
  }

  /** What the device reaches is what the CPU maps. */
  check(): void {
    for (const [page, pfn] of this.translations) expect(this.#mm.lookup(page), `page ${page}`).toBe(pfn);
  }
}

type Op =
  | { readonly kind: 'install' | 'use' | 'pageOut' | 'migrate' | 'dontNeed'; readonly page: number }
  | { readonly kind: 'insert' | 'remove' };

describe('a user of the protocol, under shuffled steps', () => {
  it('never keeps a translation that is stale', () => {
    const page = fc.integer({ min: 0, max: 9 });
    const op: fc.Arbitrary<Op> = fc.oneof(
      {
        weight: 12,
        arbitrary: fc.record({
          kind: fc.constantFrom(
            'install' as const,
            'install' as const,
            'use' as const,
            'pageOut' as const,
            'migrate' as const,
            'dontNeed' as const,
          ),
          page,
        }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('insert' as const, 'remove' as const) }) },
    );
    let retries = 0;
    fc.assert(
      fc.property(
        fc.array(fc.array(op, { maxLength: 10 }), { minLength: 2, maxLength: 4 }),
        fc.nat(),
        (lists, seed) => {
          const { host, mm } = machine();
          const user = new IntervalUser(mm);
          const state = { inserted: false, busy: 0 };
          const runs = lists.map((list, i) => {
            const by = new Agent(`agent ${i}`);
            return new TaskRun(by, perform(host, mm, user, by, list, state));
          });
          runShuffled(new RandomStream(seed, 'order'), runs);
          if (state.inserted) user.check();
          expect(host.audit()).toEqual([]);
          retries += user.retries;
        },
      ),
      { numRuns: 500 },
    );
    expect(retries).toBeGreaterThan(0);
  });
});

function* perform(
  host: HostMemory,
  mm: AddressSpace,
  user: IntervalUser,
  by: Agent,
  list: readonly Op[],
  state: { inserted: boolean; busy: number },
): Task<void> {
  for (const each of list) {
    if (each.kind === 'insert') {
      if (state.inserted || state.busy < 0) continue;
      mm.intervals.insert(user);
      state.inserted = true;
    } else if (each.kind === 'remove') {
      // Whoever removes an interval has no readers under way.
      if (!state.inserted || state.busy > 0) continue;
      state.inserted = false;
      state.busy = -100;
      yield* mm.intervals.remove(by, user);
      user.translations.clear();
      state.busy = 0;
    } else if (each.kind === 'install') {
      if (!state.inserted || state.busy < 0) continue;
      state.busy++;
      yield* user.install(by, each.page % 8);
      state.busy--;
    } else if (each.kind === 'use') {
      yield by.spends('dma', Cost.dmaBase);
      if (state.inserted) user.check();
    } else if (each.kind === 'pageOut') yield* mm.pageOut(by, each.page);
    else if (each.kind === 'migrate' && mm.lookup(each.page) >= 0) yield* host.migratePage(by, mm.lookup(each.page));
    else if (each.kind === 'dontNeed') yield* mm.madviseDontNeed(by, each.page, 2);
  }
}
