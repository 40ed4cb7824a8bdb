import type { Agent, Task } from '@faultline/sim';
import type { DomainGather, IommuDomain, UnsplitUnmapReport } from '../iommu-domain.ts';

/** What taking a range away did beyond the range itself. */
export interface TakeAwayOutcome {
  /** No table page could be had for a cut, and whole leaves went instead. */
  readonly fellBack: boolean;
  /** For `naive` only. */
  readonly unsplit: UnsplitUnmapReport | null;
}

const PLAIN: TakeAwayOutcome = { fellBack: false, unsplit: null };

/**
 * How a range is taken out of a domain when the host's mapping of it changes. Runs under the domain's update lock; when it
 * returns, no DMA may reach the range's frames any more. It cannot fail (I8).
 */
export type TakeAway = (agent: Agent, domain: IommuDomain, page: number, pages: number) => Task<TakeAwayOutcome>;

/**
 * Cut both ends, unmap what lies between, flush what the cut and the unmap gathered: the whole old leaf. If neither the host
 * nor the reserve has a table page, the whole leaf goes: its neighbours fault, but the page is taken away.
 */
export function* takeAwayByCut(agent: Agent, domain: IommuDomain, page: number, pages: number): Task<TakeAwayOutcome> {
  const gather = domain.gather();
  const { ok } = yield* domain.cut(agent, page, pages, gather);
  const partialLeaf = ok ? 'linux-7.3' : 'whole-leaf';
  yield* domain.unmap(agent, { page, pages, partialLeaf, holes: 'skip' }, gather);
  yield* flushAll(agent, domain, gather);
  yield* domain.refillReserve(agent);
  return ok ? PLAIN : { fellBack: true, unsplit: null };
}

/** Unmap every leaf that the range touches, whole. */
export function* takeAwayWholeLeaf(
  agent: Agent,
  domain: IommuDomain,
  page: number,
  pages: number,
): Task<TakeAwayOutcome> {
  const gather = domain.gather();
  yield* domain.unmap(agent, { page, pages, partialLeaf: 'whole-leaf', holes: 'skip' }, gather);
  yield* flushAll(agent, domain, gather);
  return PLAIN;
}

/** The bug of the 2023 thread: no split, and no look at PS. Flushes just the range, as it believes to have unmapped it. */
export function* takeAwayNaively(
  agent: Agent,
  domain: IommuDomain,
  page: number,
  pages: number,
): Task<TakeAwayOutcome> {
  const unsplit = yield* domain.unmapWithoutSplit(agent, page, pages);
  if (unsplit.badAddress) return { fellBack: false, unsplit }; // the kernel is dead
  const gather = domain.gather();
  gather.add(page, pages);
  yield* domain.flush(agent, gather);
  return { fellBack: false, unsplit };
}

function* flushAll(agent: Agent, domain: IommuDomain, gather: DomainGather): Task<void> {
  if (!gather.empty) yield* domain.flush(agent, gather);
}

/** What a strategy works on: one hwpt's domain. Its calls run under the hwpt's update lock. */
export interface StrategySeat {
  readonly domain: IommuDomain;
}

/** What a strategy keeps for one hwpt. */
export interface StrategyState {
  /** Takes a range of IOVA pages away; see {@link TakeAway}. */
  takeAway(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome>;
}

/** A way to keep a domain in step with the host: an exchangeable policy of the one mechanism in `HwptPaging`. */
export interface Strategy {
  readonly name: string;
  /** Whether it claims that nobody outside the range notices (I4). */
  readonly claimsHitless: boolean;
  /** Begins for one hwpt. */
  start(seat: StrategySeat): StrategyState;
}

/** A strategy that remembers nothing between two ranges. */
export const statelessStrategy = (name: string, claimsHitless: boolean, takeAway: TakeAway): Strategy => ({
  name,
  claimsHitless,
  start: ({ domain }) => ({ takeAway: (agent, page, pages) => takeAway(agent, domain, page, pages) }),
});

/** The strategies that follow a host's changes. `pinned` is none of them: what is pinned does not change. */
export const STRATEGIES: Readonly<Record<'cut' | 'whole-leaf' | 'naive', Strategy>> = {
  cut: statelessStrategy('cut', true, takeAwayByCut),
  'whole-leaf': statelessStrategy('whole-leaf', false, takeAwayWholeLeaf),
  naive: statelessStrategy('naive', false, takeAwayNaively),
};
