import type { Agent, Task } from '@faultline/sim';
import type { IommuDomain } from '../iommu-domain.ts';
import { isOutOfMemory } from './hwpt-seat.ts';
import { type Strategy, type StrategySeat, type StrategyState, TAKEN, type TakeAwayOutcome } from './strategy.ts';
import { StrategyCounters } from './strategy-counters.ts';
import { flushAll } from './take-away.ts';

/**
 * The rule of architectures without hitless replacement, and the patch's "unmap all, then map the rest again": the leaves that
 * the range touches are cleared, their invalidation completes, and what of them lies outside the range is mapped
 * back in smaller leaves. In between the innocents fault, and where no table page is to be had they stay unmapped.
 */
export function breakBeforeMake(): Strategy {
  return {
    name: 'break-before-make',
    claimsHitless: false,
    claimsSafe: true,
    notifierMemory: 'host',
    leaves: 'every other page, after a while without any; none where table pages are short',
    sharesCpuTable: false,
    start: (seat) => new BreakBeforeMake(seat),
  };
}

/** A part of a leaf that is to be mapped back. */
interface Rest {
  readonly page: number;
  readonly pages: number;
  readonly frame: number;
  readonly read: boolean;
  readonly write: boolean;
}

class BreakBeforeMake implements StrategyState {
  readonly counters = new StrategyCounters();
  readonly #domain: IommuDomain;

  constructor({ domain }: StrategySeat) {
    this.#domain = domain;
  }

  *takeAway(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome> {
    const domain = this.#domain;
    // Under the update lock nobody else changes the table. What it maps is valid: a notifier for it has not had its turn yet.
    const rests = [this.#rest(page, 'before'), this.#rest(page + pages, 'after')];
    const gather = domain.gather();
    yield* domain.unmap(agent, { page, pages, partialLeaf: 'whole-leaf', holes: 'skip' }, gather);
    yield* flushAll(agent, domain, gather);
    for (const rest of rests) if (rest !== null) yield* this.#mapBack(agent, rest);
    return TAKEN;
  }

  /** The part of a leaf that lies outside the range, where the leaf crosses an end of it. */
  #rest(end: number, side: 'before' | 'after'): Rest | null {
    const leaf = this.#domain.leafAt(side === 'before' ? end : end - 1);
    if (leaf === null) return null;
    const rights = { read: (leaf.rights & 1) !== 0, write: (leaf.rights & 2) !== 0 };
    const size = 512 ** (leaf.level - 1);
    const inside = end - leaf.page;
    if (side === 'before') return inside > 0 ? { page: leaf.page, pages: inside, frame: leaf.frame, ...rights } : null;
    return inside < size ? { page: end, pages: size - inside, frame: leaf.frame + inside, ...rights } : null;
  }

  *#mapBack(agent: Agent, rest: Rest): Task<void> {
    let lost = 0;
    try {
      yield* this.#domain.map(agent, rest);
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
      lost = this.#vacant(rest.page, rest.pages);
    }
    this.counters.lostInnocents += lost;
    this.counters.mappedBack += rest.pages - lost;
  }

  /** Pages of a range that are not mapped. */
  #vacant(page: number, pages: number): number {
    let vacant = 0;
    for (let at = page; at < page + pages; ) {
      const level = this.#domain.vacantLevel(at);
      const size = 512 ** ((level === 0 ? (this.#domain.leafAt(at)?.level ?? 1) : level) - 1);
      const next = Math.min(page + pages, (Math.floor(at / size) + 1) * size);
      if (level > 0) vacant += next - at;
      at = next;
    }
    return vacant;
  }
}
