import { Condition, Cost, type Task } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { type FaultOutcomeCode, type IoPageRequest, IopfQueue, type PageRequestSource } from '../src/index.ts';
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

function handler(workers = 1) {
  const setup = new HostSetup({ backing: '4K', populate: false });
  const hwpt = setup.addDomain();
  setup.map(0, 1024);
  const source = new ScriptedSource();
  const queue = new IopfQueue({
    source,
    handlerOf: (sourceId) => (sourceId === 0x18 ? { kind: 'kernel', hwpt } : null),
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
});
