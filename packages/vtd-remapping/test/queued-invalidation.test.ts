import { Agent, RandomStream, runToEnd, type Task, TaskRun } from '@faultline/sim';
import { TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import {
  type Descriptor,
  FaultStatus,
  GlobalCommand,
  InvalidationError,
  type InvalidationExecutor,
  type QueuedInvalidation,
  Register,
  RemappingUnit,
  VtdDriver,
  type VtdDriverOptions,
} from '../src/index.ts';
import { DEVICE, deviceTlb, psi } from './raw-unit.ts';
import { RecordingEndpoint, UnitSetup } from './unit-setup.ts';

/** A unit with a driver, and a hardware that logs what it does. */
class QueueSetup {
  readonly memory = new TableMemory({ pages: 64 });
  readonly unit = new RemappingUnit({ memory: this.memory });
  readonly queue: QueuedInvalidation;
  readonly log: string[] = [];
  readonly hardware: TaskRun<void>;
  readonly endpoint = new RecordingEndpoint();

  constructor(driver: Partial<VtdDriverOptions> = {}) {
    const { unit, log } = this;
    unit.connect(DEVICE, this.endpoint);
    this.queue = new VtdDriver({ unit, queueEntries: 128, ...driver }).invalidations;
    const executor: InvalidationExecutor = {
      *execute(agent, descriptor) {
        yield* unit.execute(agent, descriptor);
        log.push(descriptor.type === 'iotlb' ? `page ${descriptor.page}` : descriptor.type);
      },
      sendMessage: (agent, descriptor) => unit.sendMessage(agent, descriptor),
      *drain(agent) {
        yield* unit.drain(agent);
        log.push('drain');
      },
      drainPageRequests: (agent) => unit.drainPageRequests(agent),
      descriptorRules: (wide) => unit.descriptorRules(wide),
    };
    const agent = new Agent('hardware');
    this.hardware = new TaskRun(agent, unit.invalidationQueue.run(agent, executor));
  }

  submitter(name: string, descriptors: readonly Descriptor[], repeats = 1): TaskRun<void> {
    const agent = new Agent(name);
    const { queue, log } = this;
    return new TaskRun(
      agent,
      (function* (): Task<void> {
        for (let i = 0; i < repeats; i++) yield* queue.submit(agent, descriptors);
        log.push(`${name} returns`);
      })(),
    );
  }

  /** Advances what can go on, in turn, until nothing can. */
  settle(...runs: TaskRun<unknown>[]): void {
    for (let moved = true; moved; ) {
      moved = false;
      for (const run of [this.hardware, ...runs])
        if (run.enabled) {
          run.advance();
          moved = true;
        }
    }
  }

  get pages(): string[] {
    return this.log.filter((line) => line.startsWith('page'));
  }
}

const range = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first + i);

describe('the driver of an invalidation queue', () => {
  it('returns after its own descriptors are executed and drained, once for each submission', () => {
    const setup = new QueueSetup();
    const runs = ['a', 'b', 'c'].map((name, i) => setup.submitter(name, [psi(i * 2), psi(i * 2 + 1)]));
    setup.settle(...runs);
    expect(setup.pages).toEqual(range(0, 6).map((page) => `page ${page}`));
    for (const [i, name] of ['a', 'b', 'c'].entries()) {
      const returned = setup.log.indexOf(`${name} returns`);
      const mine = setup.log.indexOf(`page ${i * 2 + 1}`);
      expect(setup.log.slice(mine, returned)).toContain('drain');
    }
    const { executed, waits, hasWork } = setup.unit.invalidationQueue;
    expect([executed, waits, hasWork]).toEqual([6, 3, false]);
  });

  it('lets every submitter return after its own, whatever the order of steps, over many laps of either ring', () => {
    const small = fc.record({ seed: fc.integer({ min: 0, max: 1e6 }), wide: fc.boolean() });
    fc.assert(
      fc.property(small, ({ seed, wide }) => {
        const setup = new QueueSetup(wide ? {} : { mode: 'legacy', queueEntries: 256 });
        const { entries } = setup.queue;
        expect(entries).toBe(wide ? 128 : 256);
        const random = new RandomStream(seed, 'submitters');
        const sizes = range(0, 8).map(() => random.below(entries - 1));
        const submitted = sizes.map((size, i) => range(i * 1000, size));
        const runs = submitted.map((pages, i) => setup.submitter(`s${i}`, pages.map(psi)));
        for (let left = runs.length; left > 0; ) {
          const enabled = [setup.hardware, ...runs].filter((run) => run.enabled);
          expect(enabled.length, 'deadlock').toBeGreaterThan(0);
          const run = random.pick(enabled);
          run.advance();
          if (run !== setup.hardware && run.done) left--;
        }
        const at = new Map(setup.log.map((line, i) => [line, i]));
        for (const [i, pages] of submitted.entries())
          for (const page of pages) {
            expect(at.get(`page ${page}`)).toBeGreaterThanOrEqual(0);
            expect(at.get(`page ${page}`)).toBeLessThan(at.get(`s${i} returns`) as number);
          }
        expect(setup.pages).toHaveLength(submitted.flat().length);
        expect(setup.unit.faults.status & FaultStatus.queueError).toBe(0);
      }),
      { numRuns: 25 },
    );
  });

  it('goes round the ring: head and tail come back to 0, and nothing is lost', () => {
    const setup = new QueueSetup();
    const run = setup.submitter('a', range(0, 9).map(psi), 64);
    setup.settle(run);
    expect([run.done, setup.pages.length]).toEqual([true, 64 * 9]);
    expect(setup.unit.registers.read64(Register.IQH)).toBe(0n); // 640 slots are five laps of 128
    expect(setup.unit.registers.read64(Register.IQT)).toBe(0n);
  });

  it('keeps the status word and the slots of a submitter that comes back late', () => {
    const setup = new QueueSetup();
    const slow = setup.submitter('late', [psi(1)]);
    while (slow.pending?.label !== 'wait for the invalidation') slow.advance();
    setup.settle();
    // Others go round the ring as often as they get room.
    const others = range(2, 4).map((page) => setup.submitter(`other ${page}`, range(page * 100, 40).map(psi)));
    setup.settle(...others);
    expect(others.map((run) => run.done)).toEqual([true, true, true, false]);
    expect(slow.enabled).toBe(true);
    slow.advance();
    expect(slow.done).toBe(true);
    setup.settle(...others);
    expect(others.every((run) => run.done)).toBe(true);
    expect(setup.pages).toHaveLength(161);
  });

  it('uses all of the ring but one slot, and refuses what can never fit', () => {
    const setup = new QueueSetup();
    const fits = setup.submitter('a', range(0, 126).map(psi));
    setup.settle(fits);
    expect(fits.done).toBe(true);
    expect(() => runToEnd(setup.queue.submit(new Agent('b'), range(0, 127).map(psi)))).toThrow(
      'descriptors: 127 and a wait do not fit a ring of 128',
    );
  });

  it('refuses a descriptor that cannot be encoded before it takes the lock or a slot', () => {
    const setup = new QueueSetup();
    const wrong = setup.submitter('wrong', [psi(1), { ...psi(2), domainId: 0x10007 } as Descriptor]);
    expect(() => setup.settle(wrong)).toThrow('domainId: 0x10007 is not an integer in 0x0..0xffff');
    const right = setup.submitter('right', [psi(3)]);
    setup.settle(right);
    expect(right.done).toBe(true);
    expect(setup.pages).toEqual(['page 3']);
    expect(setup.unit.registers.read64(Register.IQT)).toBe(64n);
  });

  it('has a number of entries that QS can say, for each width', () => {
    const { unit } = new QueueSetup();
    for (const queueEntries of [0, 64, 129, 32768])
      expect(() => new VtdDriver({ unit, queueEntries })).toThrow(
        `entries: ${queueEntries} is not a power of two in 128..16384`,
      );
    for (const queueEntries of [128, 65536])
      expect(() => new VtdDriver({ unit, mode: 'legacy', queueEntries })).toThrow(
        `entries: ${queueEntries} is not a power of two in 256..32768`,
      );
  });

  it('has a status word for every slot of a large ring, in memory of its own', () => {
    const setup = new QueueSetup({ queueEntries: 2048 });
    // The ring of page requests is what comes next in memory.
    const next = Number(setup.unit.registers.read64(Register.PQA) >> 12n);
    for (const index of range(0, 512)) setup.memory.store(next, index, 0x1234n);
    const untouched = (): boolean => range(0, 512).every((index) => setup.memory.load(next, index) === 0x1234n);
    const run = setup.submitter('a', range(0, 1023).map(psi), 3);
    setup.settle(run);
    expect([run.done, untouched()]).toEqual([true, true]);
  });

  it('lets a submission larger than what is free wait for room, and overwrites nothing', () => {
    const setup = new QueueSetup();
    const first = setup.submitter('first', range(0, 60).map(psi));
    const second = setup.submitter('second', range(60, 80).map(psi));
    for (let i = 0; i < 20; i++) for (const run of [first, second]) if (run.enabled) run.advance();
    expect(second.pending?.label).toBe('room in the invalidation queue');
    setup.settle(first, second);
    expect(second.done).toBe(true);
    expect(setup.pages).toEqual(range(0, 140).map((page) => `page ${page}`));
  });
});

describe('a submission that the hardware refuses', () => {
  const bad: Descriptor = {
    type: 'pasidIotlb',
    granularity: 3,
    domainId: 1,
    pasid: 0,
    page: 0,
    addressMask: 0,
    leafOnly: false,
  };

  it('is EINVAL for its submitter, who is told which descriptor; the others go on', () => {
    const setup = new UnitSetup({}, { mode: 'legacy' });
    const submit = (...descriptors: Descriptor[]) =>
      setup.spawn('driver', (agent) => setup.driver.invalidations.submit(agent, descriptors));
    const outcomes: string[] = [];
    setup.spawn('refused', function* (agent) {
      try {
        yield* setup.driver.invalidations.submit(agent, [psi(1), bad, psi(2)]);
      } catch (error) {
        outcomes.push(`${(error as InvalidationError).code} ${(error as Error).message}`);
      }
    });
    const others = [submit(psi(3)), submit(psi(4), psi(5))];
    setup.time.run();
    expect(outcomes).toEqual(['EINVAL EINVAL: descriptor 1 of the submission was refused (IQEI 3)']);
    expect(others.every((run) => run.done)).toBe(true);
    expect(setup.executed.map((each) => (each.type === 'iotlb' ? each.page : -1)).sort()).toEqual([1, 2, 3, 4, 5]);
    expect(setup.unit.faults.status & FaultStatus.queueError).toBe(0);
    setup.submit(psi(6));
  });

  it('is EINVAL too if it is the wait: PD without ECAP.PDS', () => {
    const setup = new UnitSetup({ capabilities: { pageRequestDrain: false } });
    expect(() =>
      setup.run((agent) => setup.driver.invalidations.submit(agent, [psi(1)], { drainPageRequests: true })),
    ).toThrow('EINVAL: descriptor 1 of the submission was refused (IQEI 4)');
    setup.submit(psi(2));
    expect(setup.executed).toHaveLength(2);
  });

  it('because the queue itself is wrong fails for everybody, from then on, instead of waiting for ever', () => {
    const setup = new UnitSetup();
    const { registers } = setup.unit;
    registers.write64(Register.IQA, registers.read64(Register.IQA) & ~0x800n);
    const outcomes: string[] = [];
    for (const name of ['a', 'b', 'c'])
      setup.spawn(name, function* (agent) {
        try {
          yield* setup.driver.invalidations.submit(agent, range(0, 100).map(psi));
        } catch (error) {
          outcomes.push((error as Error).message);
        }
      });
    setup.time.run();
    expect(outcomes).toEqual(range(0, 3).map(() => 'EINVAL: the invalidation queue has stopped (IQEI 5)'));
    expect(() => setup.submit(psi(1))).toThrow(InvalidationError);
  });
});

it('whatever the order of steps, each of many submitters ends as he deserves: done, refused, or timed out', () => {
  const kind = fc.constantFrom('good', 'answers', 'refused', 'silent', 'late');
  const program = fc.array(kind, { minLength: 2, maxLength: 8 });
  fc.assert(
    fc.property(program, fc.integer({ min: 0, max: 1e6 }), (kinds, seed) => {
      const setup = new QueueSetup();
      const late = new RecordingEndpoint();
      setup.unit.connect(0x28, late);
      late.outcome = 'timed-out';
      // Answers from its second invalidation on.
      late.onInvalidate = () => {
        if (late.invalidations.length > 0) late.outcome = 'completed';
      };
      const reserved: Descriptor = { ...psi(0), addressMask: 63 } as Descriptor;
      const content: Record<string, Descriptor> = {
        good: psi(9),
        answers: deviceTlb(1, DEVICE),
        refused: reserved,
        silent: deviceTlb(1, 0x20),
        late: deviceTlb(1, 0x28),
      };
      const ends: string[] = kinds.map(() => 'never');
      const runs = kinds.map((each, i) => {
        const agent = new Agent(`s${i}`);
        return new TaskRun(
          agent,
          (function* (): Task<void> {
            try {
              yield* setup.queue.submit(agent, [psi(100 + i), content[each] as Descriptor, psi(200 + i)]);
              ends[i] = 'done';
            } catch (error) {
              ends[i] = (error as InvalidationError).code;
            }
          })(),
        );
      });
      const random = new RandomStream(seed, 'submitters');
      for (;;) {
        const enabled = [setup.hardware, ...runs].filter((run) => run.enabled && !run.done);
        if (enabled.length === 0) break;
        random.pick(enabled).advance();
      }
      const deserved = { good: 'done', answers: 'done', refused: 'EINVAL', silent: 'ETIMEDOUT', late: 'done' };
      expect(ends).toEqual(kinds.map((each) => deserved[each as keyof typeof deserved]));
      for (const [i, each] of kinds.entries()) {
        const times = setup.pages.filter((line) => line === `page ${100 + i}`).length;
        // A silent device is tried four times; the first that meets the late one is made again.
        expect(times).toBe(each === 'silent' ? 4 : times === 2 && each === 'late' ? 2 : 1);
      }
      expect(setup.unit.faults.status & 0x70).toBe(0);
    }),
    { numRuns: 150 },
  );
});

it('a queue that somebody took over, with its head in nobody’s slots, fails too', () => {
  const setup = new UnitSetup();
  setup.submit(psi(1));
  const { registers } = setup.unit;
  registers.write32(Register.GCMD, 0);
  registers.write64(Register.IQA, registers.read64(Register.IQA) & ~0x800n);
  registers.write32(Register.GCMD, GlobalCommand.queuedInvalidationEnable);
  expect(() => setup.submit(psi(2))).toThrow('EINVAL: the invalidation queue has stopped (IQEI 5)');
});

it('a second driver of a unit begins anew, with its own queues', () => {
  const setup = new UnitSetup();
  setup.submit(psi(1), psi(2));
  const { registers } = setup.unit;
  const write64 = registers.write64.bind(registers);
  const states: number[] = [];
  vi.spyOn(registers, 'write64').mockImplementation((offset, value) => {
    states.push(registers.read32(Register.GSTS) & ~GlobalCommand.setRootTable);
    write64(offset, value);
  });
  const second = new VtdDriver({ unit: setup.unit });
  expect(new Set(states)).toEqual(new Set([0])); // everything is set up while the queue and translation are off
  setup.run((agent) => second.invalidations.submit(agent, [psi(3)]));
  expect(setup.executed).toMatchObject([1, 2, 3].map((page) => ({ page })));
  expect(setup.unit.registers.read64(Register.IQH)).toBe(64n);
});

describe('a device that does not answer', () => {
  it('makes the driver submit again, and a device that answers then is served', () => {
    const setup = new UnitSetup();
    const endpoint = new RecordingEndpoint();
    setup.unit.connect(DEVICE, endpoint);
    endpoint.outcome = 'timed-out';
    endpoint.onInvalidate = () => {
      if (endpoint.invalidations.length === 2) endpoint.outcome = 'completed';
    };
    setup.submit(psi(1), deviceTlb());
    expect(endpoint.invalidations).toHaveLength(3);
    expect(setup.executed.map(({ type }) => type)).toEqual(range(0, 3).flatMap(() => ['iotlb', 'deviceTlb']));
    expect(setup.unit.faults.status & 0x70).toBe(0);
  });

  it('is given up with ETIMEDOUT after a bounded number of times, and named; others go on', () => {
    const setup = new UnitSetup();
    const other = setup.spawn('other', function* (agent) {
      for (let i = 0; i < 20; i++) yield* setup.driver.invalidations.submit(agent, [psi(i)]);
    });
    expect(() => setup.submit(deviceTlb(1, 0x20))).toThrow(
      'ETIMEDOUT: device 0x20 does not answer device-TLB invalidations, made 4 times',
    );
    setup.time.run();
    expect(other.done).toBe(true);
    setup.submit(psi(1));
  });
});
