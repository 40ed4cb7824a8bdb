import { Agent, Cost, RandomStream, runToEnd, type Task, TaskRun, VirtualTime } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Descriptor, encodeDescriptor, InFlightDma, InvalidationQueue } from '../src/index.ts';
import { iotlbDescriptor, PROFILE, UnitSetup } from './unit-setup.ts';

const psi = (page: number): Descriptor => iotlbDescriptor(3, { page });

/** A queue with a hardware that logs what it does. */
class QueueSetup {
  readonly time = new VirtualTime(PROFILE);
  readonly queue: InvalidationQueue;
  readonly log: string[] = [];
  readonly hardware = new Agent('hardware');
  errors = 0;

  constructor(entries = 256) {
    this.queue = new InvalidationQueue(0, entries);
  }

  *run(): Task<void> {
    const { log } = this;
    yield* this.queue.run(
      this.hardware,
      {
        *execute(agent, descriptor) {
          yield agent.spends('execute', Cost.invalidationExecute);
          log.push(descriptor.type === 'iotlb' ? `page ${descriptor.page}` : descriptor.type);
        },
        *drain(agent) {
          yield agent.spends('drain', Cost.free);
          log.push('drain');
        },
      },
      () => this.errors++,
    );
  }

  *submitter(agent: Agent, pages: readonly number[]): Task<void> {
    yield* this.queue.submit(agent, pages.map(psi));
    this.log.push(`${agent.name} returns`);
  }
}

describe('the invalidation queue', () => {
  it('executes in order and returns after drain and wait, once for each submission', () => {
    const setup = new QueueSetup();
    setup.time.spawn(setup.hardware, setup.run(), { daemon: true });
    const agents = ['a', 'b', 'c'].map((name) => new Agent(name));
    for (const [i, agent] of agents.entries()) setup.time.spawn(agent, setup.submitter(agent, [i * 2, i * 2 + 1]));
    setup.time.run();
    const pages = setup.log.filter((line) => line.startsWith('page'));
    expect(pages).toEqual(['page 0', 'page 1', 'page 2', 'page 3', 'page 4', 'page 5']);
    for (const [i, name] of ['a', 'b', 'c'].entries()) {
      const returned = setup.log.indexOf(`${name} returns`);
      const mine = setup.log.indexOf(`page ${i * 2 + 1}`);
      expect(setup.log.slice(mine, returned)).toContain('drain');
    }
    expect([setup.queue.executed, setup.queue.waits, setup.queue.idle]).toEqual([6, 3, true]);
  });

  it('every submitter returns after its own, whatever the order of steps, over any number of laps of a small ring', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), fc.constantFrom(4, 8, 16), (seed, entries) => {
        const setup = new QueueSetup(entries);
        const random = new RandomStream(seed, 'submitters');
        const sizes = Array.from({ length: 12 }, () => random.below(entries - 2));
        const agents = sizes.map((_, i) => new Agent(`s${i}`));
        const submitted = sizes.map((size, i) => Array.from({ length: size }, (_, j) => i * 100 + j));
        const runs = agents.map((agent, i) => new TaskRun(agent, setup.submitter(agent, submitted[i] as number[])));
        const hardware = new TaskRun(setup.hardware, setup.run());
        for (let left = runs.length; left > 0; ) {
          const enabled = [hardware, ...runs].filter((run) => run.enabled);
          expect(enabled.length, 'deadlock').toBeGreaterThan(0);
          const run = random.pick(enabled);
          run.advance();
          if (run !== hardware && run.done) left--;
        }
        for (const [i, pages] of submitted.entries())
          for (const page of pages) {
            const executed = setup.log.indexOf(`page ${page}`);
            expect(executed).toBeGreaterThanOrEqual(0);
            expect(executed).toBeLessThan(setup.log.indexOf(`s${i} returns`));
          }
        expect(setup.log.filter((line) => line.startsWith('page'))).toHaveLength(submitted.flat().length);
      }),
      { numRuns: 200 },
    );
  });

  it('a submitter that comes back late keeps its status word and its slots', () => {
    const setup = new QueueSetup(8);
    const hardware = new TaskRun(setup.hardware, setup.run());
    const late = new Agent('late');
    const slow = new TaskRun(late, setup.submitter(late, [1]));
    while (slow.pending?.label !== 'wait for the invalidation') slow.advance();
    while (hardware.enabled) hardware.advance();
    // Others go round the ring as often as they get room.
    const others = [2, 3, 4, 5].map((page) => {
      const agent = new Agent(`other ${page}`);
      return new TaskRun(agent, setup.submitter(agent, [page]));
    });
    for (let turns = 0; turns < 200; turns++) for (const run of [...others, hardware]) if (run.enabled) run.advance();
    expect(slow.enabled).toBe(true);
    slow.advance();
    expect(slow.done).toBe(true);
    for (let turns = 0; turns < 200; turns++) for (const run of [...others, hardware]) if (run.enabled) run.advance();
    expect(others.every((run) => run.done)).toBe(true);
  });

  it('uses all of the ring but one slot, and refuses what can never fit', () => {
    const setup = new QueueSetup(8);
    setup.time.spawn(setup.hardware, setup.run(), { daemon: true });
    const agent = new Agent('a');
    setup.time.spawn(agent, setup.submitter(agent, [1, 2, 3, 4, 5, 6]));
    setup.time.run();
    expect(setup.log.at(-1)).toBe('a returns');
    expect(() => runToEnd(setup.queue.submit(agent, [1, 2, 3, 4, 5, 6, 7].map(psi)))).toThrow(
      'descriptors: 7 and a wait do not fit a ring of 8',
    );
    for (const entries of [0, 2, 6]) expect(() => new InvalidationQueue(0, entries)).toThrow(RangeError);
  });

  it('a submission larger than what is free waits for room and overwrites nothing', () => {
    const setup = new QueueSetup(8);
    const [first, second] = [new Agent('first'), new Agent('second')];
    const one = new TaskRun(first, setup.submitter(first, [1, 2]));
    const two = new TaskRun(second, setup.submitter(second, [3, 4, 5, 6]));
    for (let i = 0; i < 20; i++) for (const run of [one, two]) if (run.enabled) run.advance();
    expect(two.pending?.label).toBe('room in the invalidation queue');
    const hardware = new TaskRun(setup.hardware, setup.run());
    for (let i = 0; i < 200; i++) for (const run of [hardware, one, two]) if (run.enabled) run.advance();
    expect(two.done).toBe(true);
    expect(setup.log.filter((line) => line.startsWith('page'))).toEqual(
      [1, 2, 3, 4, 5, 6].map((page) => `page ${page}`),
    );
  });
});

describe('a bad descriptor', () => {
  it('stops the queue: head and FSTS.IQE stay, earlier ones are done, nothing after is', () => {
    const setup = new UnitSetup();
    const { unit } = setup;
    const [lo, hi] = encodeDescriptor(psi(1));
    unit.invalidationQueue.writeRaw(lo, hi);
    unit.invalidationQueue.writeRaw(0x4n, 0n); // interrupt entry cache: not modelled
    unit.invalidationQueue.writeRaw(lo, hi);
    const waits = setup.spawn('driver', (agent) => unit.invalidationQueue.submit(agent, [psi(2)]), { daemon: true });
    setup.time.run();
    expect(waits.done).toBe(false);
    expect(setup.executed).toHaveLength(1);
    expect([unit.invalidationQueue.error, unit.invalidationQueue.idle]).toEqual([true, false]);
    expect(unit.faults.status & 0x10).toBe(0x10);
  });

  it('a wait without status write completes and writes nothing', () => {
    const setup = new UnitSetup();
    setup.unit.invalidationQueue.writeRaw(0x2_0000_0005n, 0xfee0_0000_0000n);
    setup.time.run();
    expect(setup.unit.invalidationQueue.idle).toBe(true);
    setup.submit(psi(1));
    expect(setup.unit.invalidationQueue.waits).toBe(1); // that of the submission
  });
});

describe('drain', () => {
  it('waits for DMA that began before it, and for no other', () => {
    const dma = new InFlightDma('unit');
    const agent = new Agent('hardware');
    const before = [dma.begin(), dma.begin()];
    const drain = new TaskRun(agent, dma.drain(agent));
    drain.advance();
    const after = dma.begin();
    expect(drain.enabled).toBe(false);
    dma.end(before[0] as number);
    expect(drain.enabled).toBe(false);
    dma.end(before[1] as number);
    expect(drain.enabled).toBe(true);
    drain.advance();
    expect([drain.done, dma.count]).toEqual([true, 1]);
    // The next one waits for what the first did not.
    const next = new TaskRun(agent, dma.drain(agent));
    next.advance();
    expect(next.enabled).toBe(false);
    dma.end(after);
    expect(next.enabled).toBe(true);
  });

  it('with nothing in flight takes no step; a DMA cannot end twice', () => {
    const dma = new InFlightDma('unit');
    expect(new InFlightDma('idle').drain(new Agent('a')).next().done).toBe(true);
    const token = dma.begin();
    dma.end(token);
    expect(() => dma.end(token)).toThrow('a DMA ended twice');
  });

  it('holds up the wait of an invalidation in the unit', () => {
    const setup = new UnitSetup();
    const token = setup.unit.inFlight.begin();
    const submit = setup.spawn('driver', (agent) => setup.unit.invalidationQueue.submit(agent, [psi(1)]));
    const device = setup.spawn('device', function* (agent) {
      yield agent.spends('payload', Cost.nanosecond, 5000);
      expect(submit.done).toBe(false);
      setup.unit.inFlight.end(token);
    });
    setup.time.run();
    expect([device.done, submit.done]).toEqual([true, true]);
    expect(setup.time.nowNs).toBeGreaterThanOrEqual(5000);
  });
});
