import { type Agent, Cost, type Task } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { FaultObject, type IopfHandler, IopfQueue } from '../src/index.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

const SOURCE = 0x18;
const GROUPS = 4;
/** Between two moments that are tried. A step costs 10 ns, and those of several agents are not in time with one another. */
const STEP_NS = 20;

/** A device that sends groups of two requests through the real queue in memory, and keeps the answers. */
class Sender {
  readonly answers: number[][] = Array.from({ length: GROUPS }, () => []);
  isRemoved = false;

  *invalidateDeviceTlb(agent: Agent): Task<'completed'> {
    yield agent.spends('invalidate', Cost.deviceTlbInvalidate);
    return 'completed';
  }

  pageGroupResponse(groupIndex: number, code: number): void {
    this.answers[groupIndex]?.push(code);
  }
}

function world(options: HostSetupOptions & { workers?: number; user?: FaultObject } = {}) {
  const setup = new HostSetup({ backing: '4K', pages: 64, frames: 256, populate: false, ...options });
  const hwpt = setup.addDomain();
  setup.map(0, 64, { policy: { prefault: 'none' } });
  const { pageRequests } = setup.domain.driver;
  if (!pageRequests) throw new Error('no page requests');
  const state: { handler: IopfHandler | null } = {
    handler: options.user ? { kind: 'user', fault: options.user, devId: 1, handle: setup } : { kind: 'kernel', hwpt },
  };
  const queue = new IopfQueue({ source: pageRequests, handlerOf: () => state.handler });
  setup.spawn('interrupt', (agent) => queue.interruptThread(agent), true);
  for (let i = 0; i < (options.workers ?? 2); i++) setup.spawn(`worker ${i}`, (agent) => queue.worker(agent), true);
  const sender = new Sender();
  setup.domain.attach(SOURCE, sender);
  const send = function* (agent: Agent): Task<void> {
    for (let groupIndex = 0; groupIndex < GROUPS; groupIndex++)
      for (const last of [false, true]) {
        const page = 2 * groupIndex + (last ? 1 : 0);
        yield* setup.unit.pageRequest(agent, { sourceId: SOURCE, page, read: true, write: true, last, groupIndex });
      }
    yield* setup.unit.pageRequest(agent, {
      sourceId: SOURCE,
      page: 40,
      read: true,
      write: true,
      last: false,
      groupIndex: 9,
    });
  };
  return { setup, hwpt, state, queue, sender, send, hash: setup.ioas.areas.hash() };
}
type World = ReturnType<typeof world>;

/** Runs an event after each of many delays while groups are under way. @returns how many answers there were of each code, over all delays */
function atAnyTime(
  options: Parameters<typeof world>[0],
  event: (world: World, agent: Agent) => Task<unknown>,
  check: (world: World, mappedAtEvent: number) => void = () => undefined,
): Map<number, number> {
  const codes = new Map<number, number>();
  for (let delay = 0; ; delay += STEP_NS) {
    const made = world(options);
    const { setup, sender, queue, send, hash } = made;
    let mappedAtEvent = -1;
    const sending = setup.spawn('device', send);
    const run = setup.spawn('event', function* (agent): Task<void> {
      yield agent.spends('wait', Cost.nanosecond, delay);
      yield* event(made, agent);
      mappedAtEvent = setup.domain.table.mappedPages;
    });
    setup.time.run();
    expect([sending.done, run.done]).toEqual([true, true]);
    // Exactly one answer for each group (I9), and nobody is left at any.
    expect(sender.answers.map((answers) => answers.length)).toEqual(Array(GROUPS).fill(1));
    expect(queue.outstanding).toBeLessThanOrEqual(1); // the request whose LAST never came
    if (setup.ioas.areas.size > 0) expect(setup.ioas.areas.hash()).toBe(hash);
    expect(setup.stale()).toEqual([]);
    check(made, mappedAtEvent);
    for (const [code = -1] of sender.answers) codes.set(code, (codes.get(code) ?? 0) + 1);
    if (sender.answers.every(([code]) => code === 0) && delay > 1000) return codes;
    expect(delay).toBeLessThan(20_000);
  }
}

const nothingMapsAfterwards = ({ setup }: World, mappedAtEvent: number): void =>
  expect(setup.domain.table.mappedPages).toBe(mappedAtEvent);

describe('page groups have exactly one answer, whenever', () => {
  it('the device is detached from the IOAS: INVALID, and nobody maps for it any more', () => {
    const codes = atAnyTime(
      {},
      function* ({ setup, state, queue }, agent) {
        const faults = { queue, sourceId: SOURCE };
        yield* setup.ioas.attach(agent, { name: 'device', paths: [{ path: 'read', canFault: true }] }, { faults });
        state.handler = null;
        yield* setup.ioas.detach(agent, 'device');
      },
      nothingMapsAfterwards,
    );
    expect([...codes.keys()].sort()).toEqual([0, 1]);
  });

  it('its driver detaches it: those that the queue has are answered by the time it is over, later ones by the unit', () => {
    const codes = new Set<number>();
    for (let delay = 0; delay < 2000; delay += STEP_NS) {
      const { setup, state, sender, send, queue } = world();
      const taken: number[] = [];
      queue.watch(SOURCE, ({ last, groupIndex }) => last && taken.push(groupIndex));
      setup.spawn('device', send);
      setup.spawn('event', function* (agent) {
        yield agent.spends('wait', Cost.nanosecond, delay);
        state.handler = null;
        yield* setup.domain.detach(agent, SOURCE);
        // Nobody is at any of its groups; what may be left is a request whose LAST found no tables.
        expect(queue.outstanding).toBeLessThanOrEqual(1);
        expect(queue.answered).toBe(taken.length);
      });
      setup.time.run();
      // What comes later finds no tables, and the unit itself answers it.
      expect(sender.answers.map((answers) => answers.length)).toEqual(Array(GROUPS).fill(1));
      expect([queue.answered, queue.outstanding <= 1, setup.stale()]).toEqual([taken.length, true, []]);
      for (const groupIndex of taken) codes.add(sender.answers[groupIndex]?.[0] ?? -1);
    }
    expect([...codes].sort()).toEqual([0, 1]);
  });

  it('it is removed from the queue, partial list and all; a removed device is answered INVALID', () => {
    const codes = atAnyTime(
      {},
      ({ queue }, agent) => queue.removeDevice(agent, SOURCE),
      (made, mapped) => {
        nothingMapsAfterwards(made, mapped);
      },
    );
    expect([...codes.keys()].sort()).toEqual([0, 1]);
    const { setup, queue, sender, send } = world();
    setup.run((agent) => queue.removeDevice(agent, SOURCE));
    setup.run(send);
    expect([sender.answers.flat(), queue.outstanding]).toEqual([[1, 1, 1, 1], 0]);
    queue.addDevice(SOURCE);
    expect(() => queue.addDevice(SOURCE)).toThrow('EBUSY: device 0x18');
    setup.run(send);
    expect(sender.answers.map((answers) => answers[1])).toEqual([0, 0, 0, 0]);
  });

  it('it is moved to another hwpt: nothing of its old one is worked at afterwards', () => {
    atAnyTime(
      {},
      function* ({ setup, state, queue, hwpt }, agent) {
        const other = yield* setup.ioas.addDomain(agent, setup.secondDomain());
        state.handler = { kind: 'kernel', hwpt: other };
        yield* queue.detach(agent, SOURCE, hwpt);
      },
      nothingMapsAfterwards,
    );
  });

  it('the process dies: INVALID, and nothing is mapped', () => {
    const codes = atAnyTime(
      {},
      ({ setup }, agent) => setup.mm.exit(agent),
      ({ setup }) => {
        expect([setup.domain.table.mappedPages, setup.mm.mmapLock.held]).toEqual([0, false]);
        expect(setup.host.allocator.allocatedFrames).toBe(0);
      },
    );
    expect([...codes.keys()].sort()).toEqual([0, 1]);
  });

  it('the areas are unmapped and the IOAS destroyed', () => {
    atAnyTime(
      {},
      function* ({ setup }, agent) {
        yield* setup.ioas.unmap(agent, 0n, 64n * 4096n);
        yield* setup.ioas.destroy(agent);
      },
      ({ setup }) => expect(setup.domain.table.mappedPages).toBe(0),
    );
  });

  it('the queue overflows: the unit answers success, the device would ask again', () => {
    let overflows = 0;
    for (const workers of [1, 3])
      atAnyTime(
        { pageRequestLimit: 2, workers },
        ({ setup }, agent) => setup.mm.madviseDontNeed(agent, USER, 8),
        ({ setup }) => {
          overflows += setup.unit.pageRequestQueue.overflows;
        },
      );
    expect(overflows).toBeGreaterThan(0);
  });

  it('user space handles them: its answer, or INVALID when the attachment ends', () => {
    const codes = new Map<number, number>();
    for (let delay = 0; delay < 2000; delay += STEP_NS) {
      const user = new FaultObject();
      const { setup, state, sender, queue, send } = world({ user });
      setup.spawn('device', send);
      const reader = setup.spawn(
        'user',
        function* (agent): Task<void> {
          for (;;) {
            while (!user.readable.ready()) yield agent.waits('poll', user.readable);
            for (const { cookie, flags } of yield* user.read(agent, 80))
              try {
                if ((flags & 2) !== 0) yield* user.write(agent, [{ cookie, code: 0 }], 8);
              } catch {} // the cookie's group was answered meanwhile: EINVAL
          }
        },
        true,
      );
      setup.spawn('event', function* (agent) {
        yield agent.spends('wait', Cost.nanosecond, delay);
        state.handler = null;
        yield* queue.detach(agent, SOURCE);
        yield* user.dropHandle(agent, setup);
      });
      setup.time.run();
      expect(reader.done).toBe(false);
      expect(sender.answers.map((answers) => answers.length)).toEqual(Array(GROUPS).fill(1));
      expect([user.outstanding, setup.domain.table.mappedPages]).toEqual([0, 0]);
      for (const [code = -1] of sender.answers) codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    expect([...codes.keys()].sort()).toEqual([0, 1]);
  });
});
