import { STRATEGIES, type Strategy, statelessStrategy, type TakeAway } from '@faultline/iommufd-core';
import type { Protocol } from '../protocol.ts';
import { SPLIT_CONFIGURATIONS } from '../split-configuration.ts';
import type { SplitProtocol } from '../split-protocol.ts';
import { SplitWorld } from '../split-world.ts';
import type { ExploredDefect } from './defect.ts';

/** A protocol in those worlds in which its defect can show itself. */
const inWorlds = (name: string, parts: SplitProtocol, fits: RegExp): Protocol => ({
  name,
  title: name,
  configurations: SPLIT_CONFIGURATIONS.filter((configuration) => fits.test(configuration.name)).map(
    (configuration) => ({
      name: configuration.name,
      build: () => new SplitWorld(configuration, parts),
    }),
  ),
});

const takingAway = (takeAway: TakeAway): SplitProtocol => ({
  strategy: statelessStrategy('defect', true, takeAway),
  hitless: true,
});

const flushFirst: TakeAway = function* (agent, domain, page, pages) {
  const before = domain.gather();
  before.add(Math.floor(page / 262144) * 262144, 262144);
  yield* domain.flush(agent, before);
  const gather = domain.gather();
  yield* domain.cut(agent, page, pages, gather);
  yield* domain.unmap(agent, { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' }, gather);
  return { fellBack: false, unsplit: null };
};

/** The strategy, in a hwpt whose update lock is waited for even where it should only be tried. */
const waitingWhereItMustNot = (strategy: Strategy): Strategy => ({
  ...strategy,
  start(seat) {
    const { updateLock } = seat;
    updateLock.tryAcquire = function* (agent) {
      yield* updateLock.acquire(agent);
      return true;
    };
    return strategy.start(seat);
  },
});

const WITH_FAULTS = /ATS and PRI/;

/** Defects of the notifier and of the fault path. */
export const HWPT_DEFECTS: readonly ExploredDefect[] = [
  {
    id: 'invalidation-before-change',
    title: 'the caches are invalidated first, and the entry changes after that',
    source: null,
    text: 'Between the two a device walks the old leaf again, and the IOTLB has it back. Nothing invalidates it any more: the device goes on reaching the frame.',
    breaks: ['I1'],
    protocol: inWorlds('invalidation before the change', takingAway(flushFirst), /cached, allocation succeeds/),
  },
  {
    id: 'map-without-sequence-check',
    title: 'a fault maps what it looked up, without a look at the notifier’s sequence',
    source: 'the rule of mmu_interval_read_retry() and of KVM’s mmu_invalidate_retry()',
    text: 'The handler looks the page up; the host takes it away, and the notifier finds nothing to unmap; then the handler maps the frame that it has in hand. The frame is somebody else’s by then.',
    breaks: ['I1', 'I8', 'I10'],
    protocol: inWorlds(
      'no sequence check',
      { strategy: STRATEGIES.cut, hitless: true, variant: { noSequenceCheck: true, startsEmpty: true } },
      WITH_FAULTS,
    ),
    // One schedule in some thousands finds it; with this seed the 151st.
    options: { random: { executions: 20_000, seed: 10 }, shrink: { executions: 300 } },
  },
  {
    id: 'non-blockable-notifier-blocks',
    title: 'a notifier waits for a lock where nobody may sleep',
    source:
      'Linux commit 93065ac753e4, "mm, oom: distinguish blockable mode for mmu notifiers": such a notifier answers EAGAIN',
    text: 'The OOM reaper takes a dying process’s memory away in ranges that are not blockable. The holder of the update lock may itself wait for memory, which only the reaper can free: who waits for the lock there may wait for ever. The right notifier tries the lock and answers EAGAIN, and the reaper leaves the mapping alone.',
    breaks: ['I8'],
    protocol: inWorlds(
      'waits for the update lock in the OOM reaper',
      {
        strategy: waitingWhereItMustNot(STRATEGIES.cut),
        hitless: true,
        variant: { startsEmpty: true, reaped: true },
      },
      WITH_FAULTS,
    ),
    options: { random: { executions: 20_000, seed: 1 }, shrink: { executions: 300 } },
  },
];
