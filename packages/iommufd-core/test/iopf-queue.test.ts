import { Condition, Cost, type Task } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  type DeliveredGroup,
  type FaultOutcomeCode,
  type IoPageRequest,
  IopfQueue,
  type PageRequestSource,
} from '../src/index.ts';
import { HostSetup } from './host-setup.ts';

/** Requests handed in by the test, answers kept. */
class ScriptedSource implements PageRequestSource {
  readonly answers: { groupIndex: number; outcome: FaultOutcomeCode }[] = [];
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

  clearOverflow(): boolean {
    this.overflowsCleared++;
    return true;
  }

  *respond(
    agent: Parameters<PageRequestSource['respond']>[0],
    _sourceId: number,
    groupIndex: number,
    outcome: FaultOutcomeCode,
  ): Task<void> {
    yield agent.spends('respond', Cost.pageResponse);
    this.answers.push({ groupIndex, outcome });
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
