import { Access, Agent, Condition, Cost, Location, type Task } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  type DeliveredGroup,
  type FaultOutcomeCode,
  type IoPageRequest,
  type IopfHandler,
  IopfQueue,
  type PageRequestSource,
} from '../src/index.ts';
import { HostSetup } from './host-setup.ts';

/** Requests handed in by the test, answers kept. */
class ScriptedSource implements PageRequestSource {
  readonly answers: { groupIndex: number; outcome: FaultOutcomeCode }[] = [];
  readonly pasids: (number | undefined)[] = [];
  finish: ((agent: Agent, sourceId: number) => Task<void>) | null = null;
  overflowsCleared = 0;
  #batches: { requests: IoPageRequest[]; overflowed: boolean }[] = [];
  readonly #arrived = new Condition('requests', () => this.#batches.length > 0);

  give(requests: IoPageRequest[], overflowed = false): void {
    this.#batches.push({ requests, overflowed });
    this.#arrived.wake();
  }

  *take(agent: Parameters<PageRequestSource['take']>[0]): ReturnType<PageRequestSource['take']> {
    while (!this.#arrived.ready()) yield agent.waits('requests', this.#arrived);
    return this.#batches.shift() ?? { requests: [], overflowed: false };
  }

  /** Times that requests come in before the overflow can be cleared. */
  fullAgain = 0;

  clearOverflow(): boolean {
    if (this.fullAgain-- > 0) return false;
    this.overflowsCleared++;
    return true;
  }

  *respond(
    agent: Parameters<PageRequestSource['respond']>[0],
    _sourceId: number,
    groupIndex: number,
    outcome: FaultOutcomeCode,
    pasid?: number,
  ): Task<void> {
    yield agent.spends('respond', Cost.pageResponse);
    this.answers.push({ groupIndex, outcome });
    this.pasids.push(pasid);
  }

  onDrain(finish: (agent: Agent, sourceId: number) => Task<void>): void {
    this.finish = finish;
  }
}

const request = (groupIndex: number, page: number, last = true, sourceId = 0x18): IoPageRequest => ({
  sourceId,
  page,
  write: true,
  last,
  groupIndex,
});

function handler(workers = 1, mayAllocate = () => true) {
  const setup = new HostSetup({ backing: '4K', populate: false });
  const hwpt = setup.addDomain();
  setup.map(0, 1024);
  const source = new ScriptedSource();
  const queue = new IopfQueue({
    source,
    handlerOf: (sourceId) => (sourceId === 0x18 ? { kind: 'kernel', hwpt } : null),
    mayAllocate,
  });
  setup.spawn('interrupt', (agent) => queue.interruptThread(agent), true);
  for (let i = 0; i < workers; i++) setup.spawn(`worker ${i}`, (agent) => queue.worker(agent), true);
  return { setup, source, queue, hwpt };
}

describe('page groups', () => {
  it('are answered once, when the last request came; all their pages are mapped', () => {
    const { setup, source, queue } = handler();
    source.give([request(3, 10, false), request(4, 20, false), request(3, 11, false)]);
    setup.time.run();
    expect([source.answers, queue.outstanding]).toEqual([[], 3]);
    source.give([request(3, 12)]);
    setup.time.run();
    expect(source.answers).toEqual([{ groupIndex: 3, outcome: 0 }]);
    expect([10, 11, 12, 20].map((page) => setup.domain.frameAt(page) >= 0)).toEqual([true, true, true, false]);
    source.give([request(4, 21)]);
    setup.time.run();
    expect([source.answers.length, queue.answered, queue.outstanding]).toEqual([2, 2, 0]);
  });

  it('of two requesters with one index are two groups', () => {
    const { setup, source } = handler();
    source.give([request(3, 10, false), request(3, 11, true, 0x20), request(3, 12)]);
    setup.time.run();
    expect(source.answers).toEqual([
      { groupIndex: 3, outcome: 1 }, // nobody is attached there
      { groupIndex: 3, outcome: 0 },
    ]);
  });

  it('stop at the first request that fails, and have its outcome', () => {
    const { setup, source } = handler();
    source.give([request(3, 10, false), request(3, 5000, false), request(3, 11)]);
    setup.time.run();
    expect(source.answers).toEqual([{ groupIndex: 3, outcome: 1 }]);
    expect([setup.domain.frameAt(10) >= 0, setup.domain.frameAt(11)]).toEqual([true, -1]);
  });

  it('an overflow throws partial groups away, and answers those that are whole', () => {
    const { setup, source, queue } = handler();
    source.give([request(3, 10, false)]);
    source.give([request(4, 11), request(5, 12, false)], true);
    setup.time.run();
    expect([source.answers, queue.discardedPartial, source.overflowsCleared]).toEqual([
      [{ groupIndex: 4, outcome: 0 }],
      2,
      1,
    ]);
    source.give([request(3, 13)]); // its first request is gone
    setup.time.run();
    expect([setup.domain.frameAt(10), source.answers.length, queue.outstanding]).toEqual([-1, 2, 0]);
  });

  it('are handled by several workers at once, each group once', () => {
    const elapsed = [1, 4].map((workers) => {
      const { setup, source, queue } = handler(workers);
      source.give(Array.from({ length: 40 }, (_, i) => request(i, i)));
      setup.time.run();
      expect(source.answers.map((answer) => answer.groupIndex).sort((a, b) => a - b)).toEqual(
        Array.from({ length: 40 }, (_, i) => i),
      );
      expect([queue.answered, queue.outstanding]).toEqual([40, 0]);
      return setup.time.nowNs;
    });
    expect(elapsed[1]).toBeLessThan((elapsed[0] as number) / 2);
  });

  it('without memory: a request of a partial list is dropped, a whole group is answered FAILURE', () => {
    let refuse = true;
    const { setup, source, queue } = handler(1, () => !refuse);
    source.give([request(3, 10, false), request(4, 20)]);
    setup.time.run();
    expect([source.answers, queue.refusedPartial]).toEqual([[{ groupIndex: 4, outcome: 2 }], 1]);
    refuse = false;
    source.give([request(3, 11)]); // goes on without its first
    setup.time.run();
    expect([source.answers[1], setup.domain.frameAt(10), queue.outstanding]).toEqual([
      { groupIndex: 3, outcome: 0 },
      -1,
      0,
    ]);
    expect(queue.answers).toEqual({ success: 1, invalid: 0, failure: 1 });
  });

  it('of one index are one group whatever their PASIDs, and user space sees them as the uAPI has them', () => {
    const setup = new HostSetup({ backing: '4K', populate: false });
    const source = new ScriptedSource();
    const groups: DeliveredGroup[] = [];
    const fault = { report: (group: DeliveredGroup) => groups.push(group) };
    const queue = new IopfQueue({ source, handlerOf: () => ({ kind: 'user', fault, devId: 7, handle: source }) });
    setup.spawn('interrupt', (agent) => queue.interruptThread(agent), true);
    source.give([
      { ...request(3, 10, false), read: false, pasid: 1 },
      { ...request(3, 11), write: false },
    ]);
    setup.time.run();
    expect(groups).toMatchObject([
      {
        devId: 7,
        handle: source,
        faults: [
          { addr: 0xa000n, perm: 2, grpid: 3, pasid: 1 },
          { addr: 0xb000n, perm: 1, grpid: 3, pasid: null },
        ],
      },
    ]);
    const [group] = groups;
    if (!group) return;
    setup.run((agent) => group.respond(agent, 0));
    setup.run((agent) => group.respond(agent, 1)); // too late
    expect([source.answers, queue.outstanding]).toEqual([[{ groupIndex: 3, outcome: 0 }], 0]);
  });

  it('are shown to whoever watches the device, before they are handled', () => {
    const { setup, source, queue } = handler();
    const seen: number[] = [];
    queue.watch(0x18, ({ page }) => seen.push(page));
    source.give([request(3, 10, false), request(4, 20, true, 0x20), request(3, 11)]);
    setup.time.run();
    expect(seen).toEqual([10, 11]);
  });

  it('flush waits for those of the device that workers have, and for no others', () => {
    const { setup, source, queue } = handler(1);
    source.give(Array.from({ length: 6 }, (_, i) => request(i, i)));
    setup.spawn('flush', function* (agent): Task<void> {
      while (source.answers.length === 0) yield agent.spends('wait', Cost.nanosecond, 1);
      yield* queue.flush(agent, 0x20);
      expect(source.answers.length).toBeLessThan(6);
      yield* queue.flush(agent, 0x18);
      expect(source.answers.length).toBeGreaterThanOrEqual(5);
    });
    setup.time.run();
    expect(source.answers).toHaveLength(6);
  });
});

/** A queue with no workers and no interrupt thread of its own: the test moves each by hand. */
function parts(handlerOf: (sourceId: number) => IopfHandler | null, mayAllocate?: () => boolean) {
  const setup = new HostSetup({ backing: '4K', pages: 64, populate: false });
  const source = new ScriptedSource();
  const queue = new IopfQueue({ source, handlerOf, ...(mayAllocate ? { mayAllocate } : {}) });
  setup.spawn('interrupt', (agent) => queue.interruptThread(agent), true);
  return { setup, source, queue };
}

/** A hwpt that keeps a fault for some time. */
const slowHwpt = (seen: number[], ns = 100, outcome: FaultOutcomeCode = 0) => ({
  *handleFault(agent: Agent, page: number): Task<FaultOutcomeCode> {
    seen.push(page);
    yield agent.spends('slow', Cost.nanosecond, ns);
    return outcome;
  },
});

describe('what must not be lost or answered twice', () => {
  it('an overflow that cannot be cleared yet throws no partial group away: its LAST is still to come', () => {
    const { setup, source, queue } = handler();
    source.fullAgain = 1;
    source.give([request(3, 10, false)], true);
    setup.time.run();
    expect([queue.discardedPartial, queue.outstanding]).toEqual([0, 1]);
    source.give([request(3, 11)]);
    setup.time.run();
    expect([source.answers, setup.domain.frameAt(10) >= 0]).toEqual([[{ groupIndex: 3, outcome: 0 }], true]);
    source.give([request(4, 12, false)], true);
    setup.time.run();
    expect([queue.discardedPartial, queue.outstanding, source.overflowsCleared]).toEqual([1, 0, 1]);
  });

  it('with no overflow nothing is cleared, and partial groups stay', () => {
    const { setup, source, queue } = handler();
    source.give([request(3, 10, false)]);
    setup.time.run();
    expect([source.overflowsCleared, queue.discardedPartial, queue.outstanding]).toEqual([0, 0, 1]);
  });

  it('a removed device: its requests are INVALID, no list is kept of them and nobody is shown them, until it is added', () => {
    const { setup, source, queue } = handler();
    const seen: number[] = [];
    queue.addDevice(0x18);
    queue.watch(0x18, ({ page }) => seen.push(page));
    source.give([request(3, 10, false), request(3, 20, false, 0x20)]);
    setup.time.run();
    setup.run((agent) => queue.removeDevice(agent, 0x18));
    expect([queue.outstanding, source.answers]).toEqual([1, []]); // the other requester's
    source.give([request(3, 11, false)]);
    setup.time.run();
    expect(queue.outstanding).toBe(1);
    source.give([request(3, 12)]);
    setup.time.run();
    expect([source.answers, setup.domain.table.mappedPages, seen]).toEqual([[{ groupIndex: 3, outcome: 1 }], 0, [10]]);
    queue.addDevice(0x18);
    expect(() => queue.addDevice(0x18)).toThrow('EBUSY: device 0x18 has been added already');
    source.give([request(3, 13, false), request(3, 14)]);
    setup.time.run();
    expect([source.answers[1], setup.domain.table.mappedPages]).toEqual([{ groupIndex: 3, outcome: 0 }, 2]);
    setup.run((agent) => queue.removeDevice(agent, 0x18));
    queue.addDevice(0x18);
  });

  it('the driver drains a function: its groups are INVALID, and those of others are not touched', () => {
    const seen: number[] = [];
    const { setup, source, queue } = parts(() => ({ kind: 'kernel', hwpt: slowHwpt(seen) }));
    source.give([request(1, 10), request(2, 20, true, 0x20)]);
    setup.time.run();
    setup.run((agent) => source.finish?.(agent, 0x18) as Task<void>);
    expect([source.answers, queue.outstanding]).toEqual([[{ groupIndex: 1, outcome: 1 }], 1]);
    setup.spawn('worker', (agent) => queue.worker(agent), true);
    setup.time.run();
    // The worker passes the answered one over: it maps nothing for a function that has gone.
    expect([source.answers[1], seen, queue.outstanding]).toEqual([{ groupIndex: 2, outcome: 0 }, [20], 0]);
    expect(queue.answers).toEqual({ success: 1, invalid: 1, failure: 0 });
  });

  it('the end of one attachment answers the groups of its own HWPT or FAULT object only', () => {
    const fault = { report: () => undefined };
    const hwpt = slowHwpt([]);
    let handler: IopfHandler = { kind: 'kernel', hwpt };
    const { setup, source, queue } = parts(() => handler);
    source.give([request(1, 10)]);
    setup.time.run();
    handler = { kind: 'user', fault, devId: 1, handle: fault };
    source.give([request(2, 20)]);
    setup.time.run();
    setup.run((agent) => queue.detach(agent, 0x18, fault));
    expect([source.answers, queue.outstanding]).toEqual([[{ groupIndex: 2, outcome: 1 }], 1]);
    setup.run((agent) => queue.detach(agent, 0x18, hwpt));
    expect([source.answers[1], queue.outstanding]).toEqual([{ groupIndex: 1, outcome: 1 }, 0]);
  });

  it('a detach returns only when the worker has left the group, whose other pages it does not touch', () => {
    const seen: number[] = [];
    const { setup, source, queue } = parts(() => ({ kind: 'kernel', hwpt: slowHwpt(seen) }));
    source.give([request(1, 10, false), request(1, 11, false), request(1, 12)]);
    setup.spawn('worker', (agent) => queue.worker(agent), true);
    const detach = setup.spawn('detach', function* (agent): Task<[number, number]> {
      while (seen.length === 0) yield agent.spends('wait', Cost.nanosecond, 1);
      const began = setup.time.nowNs;
      yield* queue.detach(agent, 0x18);
      return [setup.time.nowNs - began, queue.outstanding];
    });
    setup.time.run();
    const [took = 0, left] = detach.value as [number, number];
    expect(took).toBeGreaterThan(80);
    expect([left, seen, source.answers]).toEqual([0, [10], [{ groupIndex: 1, outcome: 1 }]]);
  });

  it('a flush waits for the group that a worker is at, and not for one at user space or of another device', () => {
    const seen: number[] = [];
    const fault = { report: () => undefined };
    const hwpt = slowHwpt(seen);
    const { setup, source, queue } = parts((sourceId) =>
      sourceId === 0x18 ? { kind: 'user', fault, devId: 1, handle: fault } : { kind: 'kernel', hwpt },
    );
    source.give([request(1, 10), request(2, 20, true, 0x20)]);
    setup.time.run();
    setup.run((agent) => queue.flush(agent, 0x18)); // would never end
    expect(queue.outstanding).toBe(2);
    // Queued, and nobody is there to take it.
    const waiting = setup.spawn('flush', (agent) => queue.flush(agent, 0x20), true);
    setup.time.run();
    expect(waiting.done).toBe(false);
    setup.spawn('worker', (agent) => queue.worker(agent), true);
    const inWork = setup.spawn('flush', function* (agent): Task<number> {
      while (seen.length === 0) yield agent.spends('wait', Cost.nanosecond, 1);
      yield* queue.flush(agent, 0x20);
      return source.answers.length;
    });
    setup.time.run();
    expect([waiting.done, inWork.value, queue.outstanding]).toEqual([true, 1, 1]);
  });

  it('a detach while requests are being received waits for those that are no group yet', () => {
    const { setup, source, queue } = parts(() => null);
    source.give([request(1, 10, true, 0x20), request(2, 20)]);
    const detach = setup.spawn('detach', function* (agent): Task<number> {
      while (queue.outstanding === 0) yield agent.spends('wait', Cost.nanosecond, 1);
      yield* queue.detach(agent, 0x18);
      return source.answers.length;
    });
    setup.time.run();
    expect(detach.value).toBe(2);
  });

  it('a queue that has received nothing lets a device go, whatever its driver can do', () => {
    const source = new ScriptedSource();
    const { take, clearOverflow, respond } = source;
    const queue = new IopfQueue({ source: { take, clearOverflow, respond }, handlerOf: () => null });
    expect(new HostSetup().run((agent) => queue.removeDevice(agent, 0x18))).toBe(undefined);
    expect([...queue.removeDevice(new Agent('again'), 0x18)].map(({ label }) => label)).toEqual([
      'look for page groups',
    ]);
  });

  it('a worker spends nothing on a group that has its answer', () => {
    const { setup, source, queue } = parts(() => ({ kind: 'kernel', hwpt: slowHwpt([]) }));
    source.give([request(1, 10), request(2, 20)]);
    setup.time.run();
    setup.run((agent) => queue.detach(agent, 0x18));
    const worker = queue.worker(new Agent('worker'));
    const labels = [1, 2, 3, 4].map(() => (worker.next().value as { label: string }).label);
    expect([labels, source.answers.length]).toEqual([Array(4).fill('iopf work'), 2]);
  });

  it('the answer has the PASID of the last request', () => {
    const { setup, source } = handler();
    source.give([{ ...request(3, 10, false), pasid: 1 }, { ...request(3, 11), pasid: 2 }, request(4, 12)]);
    setup.time.run();
    expect(source.pasids).toEqual([2, undefined]);
  });

  it('user space answers INVALID by its code 1; no memory for a group is FAILURE, and it is shown nothing', () => {
    const groups: DeliveredGroup[] = [];
    const fault = { report: (group: DeliveredGroup) => groups.push(group) };
    let memory = true;
    const { setup, source, queue } = parts(
      () => ({ kind: 'user', fault, devId: 1, handle: fault }),
      () => memory,
    );
    source.give([request(3, 10)]);
    setup.time.run();
    setup.run((agent) => (groups[0] as DeliveredGroup).respond(agent, 1));
    memory = false;
    source.give([request(4, 10)]);
    setup.time.run();
    expect(source.answers).toEqual([
      { groupIndex: 3, outcome: 1 },
      { groupIndex: 4, outcome: 2 },
    ]);
    expect([groups.length, queue.answered, queue.outstanding]).toEqual([1, 2, 0]);
  });
});

it('interrupt thread, workers and detach announce their steps on the list of groups as writes of one place', () => {
  const seen: number[] = [];
  const hwpt = slowHwpt(seen);
  const source = new ScriptedSource();
  const queue = new IopfQueue({ source, handlerOf: () => ({ kind: 'kernel', hwpt }) });
  const locks = new Set<number>();
  const labels = new Set<string>();
  /** Moves a task until it waits for what is not there. */
  const move = (name: string, make: (agent: Agent) => Task<void>): void => {
    const agent = new Agent(name);
    const task = make(agent);
    for (let step = task.next(); !step.done; step = task.next()) {
      const { kind, access, location, label, waitFor } = agent.step;
      if (waitFor !== null && !waitFor.ready()) return;
      if (waitFor !== null) continue;
      expect([label, access]).toEqual([label, kind === Location.nothing ? Access.none : Access.write]);
      if (kind === Location.lock) locks.add(location);
      else if (label === 'clear PRO') expect([kind, location]).toEqual([Location.pageRequestQueue, -1]);
      if (kind !== Location.nothing) labels.add(label);
    }
  };
  source.give([request(1, 10), request(2, 11, false)], true);
  move('interrupt', (agent) => queue.interruptThread(agent));
  source.give([request(2, 12)]);
  move('interrupt', (agent) => queue.interruptThread(agent));
  move('worker', (agent) => queue.worker(agent));
  move('detach', (agent) => queue.detach(agent, 0x18));
  expect([...labels]).toEqual(['queue page group', 'clear PRO', 'claim page group', 'look for page groups']);
  expect([locks.size, queue.outstanding, seen]).toEqual([1, 0, [10, 12]]);
});
