import type { Iotlb } from './iotlb.ts';
import { NO_PASID } from './pasid.ts';

/**
 * How an observed look-up fits the model:
 * - `agree`: both hit with the same frame, or both missed.
 * - `lost`: only the model has an entry. Legal, since hardware may evict or over-invalidate at any time (VT-d Rev 5.10, 6.2.4
 *   and 6.5.2.3).
 * - `unexpected`: it hit where the model has no entry: one that should have gone, or was never made.
 * - `different`: both hit, with different frames: a stale entry.
 */
export type LookupAgreement = 'agree' | 'lost' | 'unexpected' | 'different';

/**
 * Compares look-ups of an implementation that may lose entries at any time with a model that never does. After a loss the model
 * forgets the entry too, so that a later hit counts as unexpected unless a fill came before it. The model has to be an
 * upper bound: with at least the implementation's capacity and never coarser invalidations, or its own evictions show as
 * `unexpected`.
 */
export class LossyComparison {
  /** The upper bound; fills and invalidations that were observed go to it directly. */
  readonly model: Iotlb;
  readonly #counts: Record<LookupAgreement, number> = { agree: 0, lost: 0, unexpected: 0, different: 0 };

  /** @param model usually with more ways than any trace fills */
  constructor(model: Iotlb) {
    this.model = model;
  }

  /** How often each outcome came up. */
  get counts(): Readonly<Record<LookupAgreement, number>> {
    return { ...this.#counts };
  }

  /** True as long as each difference was a loss, which is legal. */
  get legal(): boolean {
    return this.#counts.unexpected === 0 && this.#counts.different === 0;
  }

  /** @param observedPfn the 4K frame of an observed hit, or -1 for a miss */
  lookup(
    sourceId: number,
    iovaHi: number,
    iovaLo: number,
    observedPfn: number,
    pasid: number = NO_PASID,
  ): LookupAgreement {
    const slot = this.model.lookup(sourceId, iovaHi, iovaLo, pasid);
    const agreement = this.#judge(slot, iovaHi, iovaLo, observedPfn);
    if (agreement === 'lost') this.#forget(sourceId, iovaHi, iovaLo, pasid);
    this.#counts[agreement]++;
    return agreement;
  }

  #judge(slot: number, iovaHi: number, iovaLo: number, observedPfn: number): LookupAgreement {
    if (slot < 0) return observedPfn < 0 ? 'agree' : 'unexpected';
    if (observedPfn < 0) return 'lost';
    return this.model.pfnAt(slot, iovaHi, iovaLo) === observedPfn ? 'agree' : 'different';
  }

  /** A miss means that no entry of any size answered. */
  #forget(sourceId: number, iovaHi: number, iovaLo: number, pasid: number): void {
    for (;;) {
      const slot = this.model.peek(sourceId, iovaHi, iovaLo, pasid);
      if (slot < 0) return;
      this.model.lose(slot);
    }
  }
}
