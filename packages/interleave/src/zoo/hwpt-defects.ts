import { STRATEGIES, statelessStrategy, type TakeAway } from '@faultline/iommufd-core';
import type { Protocol } from '../protocol.ts';
import { SPLIT_CONFIGURATIONS } from '../split-configuration.ts';
import { type SplitProtocol, SplitWorld } from '../split-world.ts';
import type { Defect } from './defect.ts';

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

const WITH_FAULTS = /ATS and PRI/;

/** Defects of the notifier and of the fault path. */
export const HWPT_DEFECTS: readonly Defect[] = [
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
    options: { random: { executions: 20_000, seed: 1 } },
  },
  {
    id: 'group-answered-twice',
    title: 'a page group gets a second answer',
    source: 'PCIe ATS: a Page Request Group Index is free for another group with the first answer',
    text: 'The device uses the index again for its next group, which the second answer then ends before it was handled.',
    breaks: ['I9'],
    protocol: inWorlds(
      'answers twice',
      { strategy: STRATEGIES.cut, hitless: true, variant: { answersTwice: true } },
      WITH_FAULTS,
    ),
  },
];
