import type { Agent, Task } from '@faultline/sim';
import type { DomainGather, IommuDomain } from '../iommu-domain.ts';
import { OrderedMap } from '../ordered-map.ts';
import { type Strategy, type StrategySeat, type StrategyState, TAKEN, type TakeAwayOutcome } from './strategy.ts';
import { StrategyCounters } from './strategy-counters.ts';
import { flushAll } from './take-away.ts';

/**
 * Baolu Lu's contract: map and unmap come in pairs, and what was mapped as one is unmapped as one. A sub-range is refused, so
 * taking a page away takes everything that came with it in the same map: for resident memory a run as long as it was
 * contiguous, after a fault the block that the fault mapped. No leaf is ever covered in part, and no memory is needed.
 */
export function paired(): Strategy {
  return {
    name: 'paired',
    claimsHitless: false,
    claimsSafe: true,
    notifierMemory: 'none',
    leaves: 'nothing of all that was mapped in the same call',
    sharesCpuTable: false,
    start: (seat) => new PairedUnits(seat),
  };
}

/** What each call of map has mapped and no unmap has taken since. */
class PairedUnits implements StrategyState {
  readonly counters = new StrategyCounters();
  readonly #domain: IommuDomain;
  /** Number of pages by first page; units never overlap, since a map never overwrites and {@link mapped} makes one of those that do. */
  readonly #units = new OrderedMap<number, number>();

  constructor({ domain }: StrategySeat) {
    this.#domain = domain;
  }

  *takeAway(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome> {
    const gather = this.#domain.gather();
    for (const unit of this.#takeUnits(page, pages)) {
      const outside = unit.pages - overlap(unit, { page, pages });
      this.counters.unitInnocents += outside;
      yield* this.#unmap(agent, unit, gather);
    }
    yield* flushAll(agent, this.#domain, gather);
    return TAKEN;
  }

  /** A unit may have been emptied in part by an unmap of its area: `skip` passes over what is not there. */
  *#unmap(agent: Agent, unit: Unit, gather: DomainGather): Task<void> {
    yield* this.#domain.unmap(agent, { ...unit, partialLeaf: 'linux-7.3', holes: 'skip' }, gather);
  }

  /** A map that failed is on record with all that it was to map. What is mapped there later goes together with what it left. */
  mapped(page: number, pages: number): void {
    let [first, end] = [page, page + pages];
    for (const unit of this.#takeUnits(page, pages)) {
      first = Math.min(first, unit.page);
      end = Math.max(end, unit.page + unit.pages);
    }
    this.#units.set(first, end - first);
  }

  unmapped(page: number, pages: number): void {
    this.#takeUnits(page, pages);
  }

  /** Takes the units that a range touches off the record. */
  #takeUnits(page: number, pages: number): Unit[] {
    const found: Unit[] = [];
    const before = this.#units.getPairOrNextLower(page - 1);
    if (before && before[0] + before[1] > page) found.push({ page: before[0], pages: before[1] });
    for (const [start, count] of this.#units.getRange(page, page + pages, false))
      found.push({ page: start, pages: count });
    for (const unit of found) this.#units.delete(unit.page);
    return found;
  }
}

interface Unit {
  readonly page: number;
  readonly pages: number;
}

const overlap = (a: Unit, b: Unit): number =>
  Math.max(0, Math.min(a.page + a.pages, b.page + b.pages) - Math.max(a.page, b.page));
