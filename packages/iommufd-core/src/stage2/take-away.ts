import type { Agent, Task } from '@faultline/sim';
import type { DomainGather, IommuDomain } from '../iommu-domain.ts';
import { FELL_BACK, TAKEN, type TakeAwayOutcome } from './strategy.ts';

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
  // Filling the reserve up may wait for memory; where nobody may sleep it stays short until the next range.
  if (agent.maySleep) yield* domain.refillReserve(agent);
  return ok ? TAKEN : FELL_BACK;
}

/** Cut both ends, make what lies between read-only, flush the whole old leaf. Without a table page the whole leaf goes. */
export function* dropWriteByCut(agent: Agent, domain: IommuDomain, page: number, pages: number): Task<TakeAwayOutcome> {
  const gather = domain.gather();
  const { ok } = yield* domain.cut(agent, page, pages, gather);
  if (ok) yield* domain.protect(agent, { page, pages, rights: 1, holes: 'skip' }, gather);
  else yield* domain.unmap(agent, { page, pages, partialLeaf: 'whole-leaf', holes: 'skip' }, gather);
  yield* flushAll(agent, domain, gather);
  if (agent.maySleep) yield* domain.refillReserve(agent);
  return ok ? TAKEN : FELL_BACK;
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
  return TAKEN;
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

/** A flush, if anything is owed. */
export function* flushAll(agent: Agent, domain: IommuDomain, gather: DomainGather): Task<void> {
  if (!gather.empty) yield* domain.flush(agent, gather);
}
