import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import type { Area } from '../ioas/area.ts';
import { LEAF_LEVEL } from './fault-policy.ts';
import type { Strategy, StrategySeat, StrategyState, TakeAwayOutcome } from './strategy.ts';
import { StrategyCounters } from './strategy-counters.ts';
import { dropWriteByCut, takeAwayByCut } from './take-away.ts';

/** When `cut+collapse` puts large leaves back. */
export interface CollapseOptions {
  /** Between two passes of the background task, in ns; default 10 ms. */
  readonly intervalNs?: number;
  /** Passes for which a block has had no page taken away or mapped before it is tried; default 2. */
  readonly quietPasses?: number;
  /** A block that is cut again after it was collapsed waits twice as long as before, up to so many passes; default 64. */
  readonly mostQuietPasses?: number;
}

const INTERVAL_NS = 10_000_000;

/**
 * `cut`, and a background task that puts the large leaf back where a block has come whole again: every page mapped, the frames in
 * a row and aligned, the rights equal. Nothing but a take-away or a map changes a block, so only blocks that one of them touched
 * are looked at, and each once after it has been quiet for a while.
 * @throws RangeError for an option that is no positive integer
 */
export function cutAndCollapse(options: CollapseOptions = {}): Strategy {
  const { intervalNs = INTERVAL_NS, quietPasses = 2, mostQuietPasses = 64 } = options;
  for (const [name, value] of Object.entries({ intervalNs, quietPasses, mostQuietPasses }))
    if (!Number.isSafeInteger(value) || value <= 0) throw new RangeError(`${name}: ${value} is not a positive integer`);
  return {
    name: 'cut+collapse',
    claimsHitless: true,
    claimsSafe: true,
    notifierMemory: 'reserve',
    leaves:
      'every other page, in the largest leaves that fit; the large leaf comes back once its block is whole and quiet',
    sharesCpuTable: false,
    start: (seat) => new CutAndCollapse(seat, { intervalNs, quietPasses, mostQuietPasses }),
  };
}

/** An aligned block that may become a leaf. */
interface Candidate {
  readonly level: 2 | 3;
  readonly page: number;
  /** Passes left before it is tried. */
  quiet: number;
}

const SIZE = { 2: 512, 3: 262144 } as const;

class CutAndCollapse implements StrategyState {
  readonly counters = new StrategyCounters();
  readonly #seat: StrategySeat;
  readonly #options: Required<CollapseOptions>;
  /** By first page, for each level. */
  readonly #candidates = { 2: new Map<number, Candidate>(), 3: new Map<number, Candidate>() } as const;
  /** Passes to wait for blocks that were collapsed before, by first page: hot ones wait longer and longer. */
  readonly #patience = { 2: new Map<number, number>(), 3: new Map<number, number>() } as const;

  constructor(seat: StrategySeat, options: Required<CollapseOptions>) {
    this.#seat = seat;
    this.#options = options;
  }

  takeAway(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome> {
    this.#touch(page, pages);
    return takeAwayByCut(agent, this.#seat.domain, page, pages);
  }

  dropWrite(agent: Agent, page: number, pages: number): Task<TakeAwayOutcome> {
    this.#touch(page, pages);
    return dropWriteByCut(agent, this.#seat.domain, page, pages);
  }

  mapped(page: number, pages: number): void {
    this.#touch(page, pages);
  }

  unmapped(page: number, pages: number): void {
    for (const level of [2, 3] as const) {
      const size = SIZE[level];
      for (const block of [...this.#candidates[level].keys(), ...this.#patience[level].keys()])
        if (block < page + pages && page < block + size) {
          this.#candidates[level].delete(block);
          this.#patience[level].delete(block);
        }
    }
  }

  /** Only blocks that an end lies in can have become smaller leaves; those covered whole are vacant, or a leaf again. */
  #touch(page: number, pages: number): void {
    for (const level of [2, 3] as const) {
      const size = SIZE[level];
      if (page % size !== 0) this.#put(level, page);
      if ((page + pages) % size !== 0) this.#put(level, page + pages - 1);
    }
  }

  #put(level: 2 | 3, within: number): void {
    const page = within - (within % SIZE[level]);
    const quiet = this.#patience[level].get(page) ?? this.#options.quietPasses;
    this.#candidates[level].set(page, { level, page, quiet });
  }

  *background(agent: Agent): Task<void> {
    for (;;) {
      yield agent.spends('collapse interval', Cost.nanosecond, this.#options.intervalNs);
      yield* this.backgroundPass(agent);
    }
  }

  /** Looks once at every candidate that has been quiet: 2M blocks first, so that a 1G block finds them whole. */
  *backgroundPass(agent: Agent): Task<void> {
    for (const level of [2, 3] as const)
      for (const candidate of [...this.#candidates[level].values()]) {
        if (this.#candidates[level].get(candidate.page) !== candidate) continue; // touched meanwhile
        if (--candidate.quiet > 0 || (level === 3 && this.#hasSmaller(candidate.page))) continue;
        this.#candidates[level].delete(candidate.page);
        if (yield* this.#collapse(agent, candidate)) this.#collapsed(candidate);
      }
  }

  #hasSmaller(page: number): boolean {
    for (const block of this.#candidates[2].keys()) if (block >= page && block < page + SIZE[3]) return true;
    return false;
  }

  #collapsed({ level, page }: Candidate): void {
    const { quietPasses, mostQuietPasses } = this.#options;
    this.counters.collapses++;
    const patience = this.#patience[level].get(page) ?? quietPasses;
    this.#patience[level].set(page, Math.min(2 * patience, mostQuietPasses));
    if (level === 2) this.#put(3, page);
  }

  /**
   * Faults and the notifier are held off by the update lock. Where a notifier has begun it would only have to cut again, so
   * such a block is left to the map that follows, by the same sequence check that a fault makes.
   * @returns whether there is a leaf of the candidate's size now that was none before
   */
  *#collapse(agent: Agent, { level, page }: Candidate): Task<boolean> {
    const { areas, domain, mm, updateLock } = this.#seat;
    const area = areas.find(page);
    if (!area || !this.#seat.largePages() || !mayHold(area, page, level)) return false;
    const userPage = area.userPage + (page - area.page);
    const sequence = yield* mm.notifierReadBegin(agent, userPage, SIZE[level]);
    yield* updateLock.acquire(agent);
    try {
      yield agent.reads('check notifier sequence', Location.notifierSequence, mm.notifierLocation, Cost.free);
      if (this.#seat.released() || areas.find(page) !== area) return false;
      if (mm.notifierReadRetry(userPage, sequence, SIZE[level])) {
        this.#put(level, page);
        return false;
      }
      const { leaves } = yield* domain.collapse(agent, page, SIZE[level]);
      return leaves[level === 2 ? '2M' : '1G'] > 0;
    } finally {
      updateLock.release(agent);
    }
  }
}

/** A leaf must not reach beyond its area, as what was mapped as one is unmapped as one; nor be larger than its policy has it. */
const mayHold = (area: Area, page: number, level: 2 | 3): boolean =>
  area.unpinned &&
  LEAF_LEVEL[area.policy.largest] >= level &&
  page >= area.page &&
  page + SIZE[level] <= area.page + area.pages;
