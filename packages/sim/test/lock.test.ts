import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Agent, Cost, Location, Mutex, RwSemaphore, runToEnd, type Task, TaskRun, VirtualTime } from '../src/index.ts';
import { TEST_PROFILE } from './test-profile.ts';

interface Section {
  readonly lock: number;
  readonly write: boolean;
  readonly ns: number;
}

/** Locks 0 and 1 are mutexes, 2 and 3 semaphores; checks at every step inside that nobody is there who must not be. */
class Sections {
  readonly #mutexes = [new Mutex('m0'), new Mutex('m1')];
  readonly #semaphores = [new RwSemaphore('s0'), new RwSemaphore('s1')];
  readonly #writers = [0, 0, 0, 0];
  readonly #readers = [0, 0, 0, 0];
  finished = 0;

  /** Nested sections, always in ascending order of locks, so that no order of tasks can deadlock. */
  *run(agent: Agent, sections: readonly Section[]): Task<void> {
    const seen = new Set<number>();
    const ordered = [...sections].sort((a, b) => a.lock - b.lock);
    const nested = ordered.filter(({ lock }) => !seen.has(lock) && seen.add(lock));
    yield* this.#enter(agent, nested);
    for (const section of sections) yield* this.#enter(agent, [section]);
    this.finished++;
  }

  get allFree(): boolean {
    return this.#mutexes.every((mutex) => mutex.owner === null) && this.#semaphores.every((lock) => !lock.held);
  }

  *#enter(agent: Agent, sections: readonly Section[]): Task<void> {
    const [section, ...inner] = sections;
    if (section === undefined) return;
    const { lock } = section;
    const write = section.write || lock < 2;
    const mutex = this.#mutexes[lock];
    const semaphore = this.#semaphores[lock - 2];
    if (mutex) yield* mutex.acquire(agent);
    else if (semaphore) yield* write ? semaphore.acquireWrite(agent) : semaphore.acquireRead(agent);
    const counts = write ? this.#writers : this.#readers;
    counts[lock] = (counts[lock] as number) + 1;
    this.#check(lock);
    yield agent.spends('inside', Cost.nanosecond, section.ns);
    this.#check(lock);
    yield* this.#enter(agent, inner);
    this.#check(lock);
    counts[lock] = (counts[lock] as number) - 1;
    if (mutex) mutex.release(agent);
    else if (write) semaphore?.releaseWrite(agent);
    else semaphore?.releaseRead(agent);
  }

  #check(lock: number): void {
    const [writers, readers] = [this.#writers[lock] as number, this.#readers[lock] as number];
    if (writers > 1 || (writers === 1 && readers > 0)) throw new Error(`lock ${lock}: ${writers} + ${readers} inside`);
  }
}

const programs = fc.array(
  fc.array(fc.record({ lock: fc.nat(3), write: fc.boolean(), ns: fc.nat(4) }), { minLength: 1, maxLength: 5 }),
  { minLength: 2, maxLength: 6 },
);

describe('mutual exclusion, and nobody is lost', () => {
  it('in virtual time', () => {
    fc.assert(
      fc.property(programs, (tasks) => {
        const time = new VirtualTime(TEST_PROFILE);
        const sections = new Sections();
        for (const [index, program] of tasks.entries()) {
          const agent = new Agent(`t${index}`);
          time.spawn(agent, sections.run(agent, program));
        }
        expect(time.run()).toBe(true);
        expect([sections.finished, sections.allFree]).toEqual([tasks.length, true]);
      }),
      { numRuns: 500 },
    );
  });
  it('in any order that a scheduler may pick', () => {
    fc.assert(
      fc.property(programs, fc.infiniteStream(fc.nat(99)), (tasks, picks) => {
        const sections = new Sections();
        let runs = tasks.map((program, index) => {
          const agent = new Agent(`t${index}`);
          return new TaskRun(agent, sections.run(agent, program));
        });
        while (runs.length > 0) {
          const enabled = runs.filter((run) => run.enabled);
          expect(enabled.length).toBeGreaterThan(0);
          enabled[picks.next().value % enabled.length]?.advance();
          runs = runs.filter((run) => !run.done);
        }
        expect([sections.finished, sections.allFree]).toEqual([tasks.length, true]);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a mutex', () => {
  const [a, b] = [new Agent('a'), new Agent('b')];
  it('knows its owner and refuses what no kernel may do', () => {
    const mutex = new Mutex('mmap_lock');
    expect(() => mutex.release(a)).toThrow('a: releases mmap_lock, held by nobody');
    runToEnd(mutex.acquire(a));
    expect([mutex.owner, mutex.ready()]).toEqual([a, false]);
    expect(() => runToEnd(mutex.acquire(a))).toThrow('a: takes mmap_lock, which it already holds');
    expect(() => mutex.release(b)).toThrow('b: releases mmap_lock, held by a');
    expect(() => runToEnd(mutex.acquire(b))).toThrow(
      'runToEnd: the task waits for mmap_lock (lock) and nobody else runs',
    );
    mutex.release(a);
    expect(mutex.owner).toBeNull();
  });
  it('goes to those who wait in the order in which they came', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const mutex = new Mutex('lock');
    const order: string[] = [];
    function* hold(agent: Agent): Task<void> {
      yield* mutex.acquire(agent);
      order.push(agent.name);
      yield agent.spends('inside', Cost.nanosecond, 10);
      mutex.release(agent);
    }
    for (const name of ['1', '2', '3', '4']) {
      const agent = new Agent(name);
      time.spawn(agent, hold(agent));
    }
    time.run();
    expect(order).toEqual(['1', '2', '3', '4']);
  });
});

describe('a semaphore', () => {
  const [a, b] = [new Agent('a'), new Agent('b')];
  it('lets readers in together and a writer alone', () => {
    const lock = new RwSemaphore('iova_rwsem');
    expect(() => lock.releaseRead(a)).toThrow('a: releases iova_rwsem (read), which nobody holds');
    runToEnd(lock.acquireRead(a));
    runToEnd(lock.acquireRead(b));
    expect(() => runToEnd(lock.acquireWrite(a))).toThrow('iova_rwsem (write)');
    lock.releaseRead(a);
    lock.releaseRead(b);
    expect(lock.held).toBe(false);
    runToEnd(lock.acquireWrite(a));
    expect(() => runToEnd(lock.acquireRead(b))).toThrow('iova_rwsem (read)');
    expect(() => lock.releaseWrite(b)).toThrow('b: releases iova_rwsem (write), which it does not hold');
    lock.releaseWrite(a);
    expect(lock.held).toBe(false);
  });
  it('announces both sides as one location', () => {
    const lock = new RwSemaphore('lock');
    const locations = [lock.acquireRead(a), lock.acquireWrite(a)].map((task) => {
      const result = task.next();
      return result.done ? null : [result.value.kind, result.value.location];
    });
    expect(locations[0]).toEqual(locations[1]);
    expect(locations[0]?.[0]).toBe(Location.lock);
  });
});

describe('cost and sleeping', () => {
  it('a free lock of either kind costs the same', () => {
    const costs = [
      (agent: Agent) => new Mutex('m').acquire(agent),
      (agent: Agent) => new RwSemaphore('s').acquireRead(agent),
      (agent: Agent) => new RwSemaphore('s').acquireWrite(agent),
    ].map((acquire) => {
      const time = new VirtualTime(TEST_PROFILE);
      const agent = new Agent('a');
      time.spawn(agent, acquire(agent));
      time.run();
      return time.nowNs;
    });
    expect(costs).toEqual([2, 2, 2]); // 2.3 ns, rounded
  });
  it('an agent that may not sleep may take a free lock only', () => {
    const agent = new Agent('reclaim');
    agent.maySleep = false;
    const mutex = new Mutex('iova_rwsem');
    runToEnd(mutex.acquire(agent));
    const other = new Agent('other');
    other.maySleep = false;
    expect(() => runToEnd(mutex.acquire(other))).toThrow(
      'other: would sleep on iova_rwsem where sleeping is not allowed (lock)',
    );
  });
  it('nor may it sleep on a lock that was free when it asked', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const mutex = new Mutex('lock');
    const [first, second] = [new Agent('first'), new Agent('second')];
    second.maySleep = false;
    function* hold(): Task<void> {
      yield* mutex.acquire(first);
      yield first.spends('inside', Cost.nanosecond, 10);
      mutex.release(first);
    }
    time.spawn(first, hold());
    time.spawn(second, mutex.acquire(second));
    expect(() => time.run()).toThrow('second: would sleep on lock where sleeping is not allowed (lock)');
  });
  it('but it may try a lock, and wait for a raw spinlock', () => {
    const time = new VirtualTime(TEST_PROFILE);
    const [mutex, spinlock] = [new Mutex('mutex'), new Mutex('spinlock', { spins: true })];
    const [holder, atomic] = [new Agent('holder'), new Agent('atomic')];
    atomic.maySleep = false;
    function* hold(): Task<void> {
      yield* mutex.acquire(holder);
      yield* spinlock.acquire(holder);
      yield holder.spends('inside', Cost.nanosecond, 10);
      spinlock.release(holder);
      yield holder.spends('inside', Cost.nanosecond, 10);
      mutex.release(holder);
    }
    time.spawn(holder, hold());
    const tried = time.spawn(
      atomic,
      (function* (): Task<boolean> {
        yield atomic.spends('later', Cost.nanosecond, 7);
        const first = yield* mutex.tryAcquire(atomic);
        yield* spinlock.acquire(atomic);
        spinlock.release(atomic);
        yield atomic.spends('later', Cost.nanosecond, 30);
        return !first && (yield* mutex.tryAcquire(atomic)) && mutex.owner === atomic;
      })(),
    );
    time.run();
    expect(tried.value).toBe(true);
    expect(() => runToEnd(mutex.tryAcquire(atomic))).toThrow('atomic: takes mutex, which it already holds');
  });
});
