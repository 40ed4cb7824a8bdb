import { assert } from '@faultline/sim';
import { FANOUT } from '../folio/folio-order.ts';

/** The folios in the swap cache by swap entry: one number for each slot of a cluster in use. */
export class SwapCache {
  readonly #clusters = new Map<number, { readonly folios: Int32Array; used: number }>();
  #pages = 0;

  /** Pages in it. */
  get pages(): number {
    return this.#pages;
  }

  /** The folio that holds what belongs to the entry, or 0. */
  get(entry: number): number {
    return this.#clusters.get(Math.floor(entry / FANOUT))?.folios[entry % FANOUT] ?? 0;
  }

  add(entry: number, pages: number, folio: number): void {
    for (let i = 0; i < pages; i++) {
      const key = Math.floor((entry + i) / FANOUT);
      let cluster = this.#clusters.get(key);
      if (!cluster) {
        cluster = { folios: new Int32Array(FANOUT), used: 0 };
        this.#clusters.set(key, cluster);
      }
      const at = (entry + i) % FANOUT;
      if (cluster.folios[at] === 0) {
        cluster.used++;
        this.#pages++;
      }
      cluster.folios[at] = folio;
    }
  }

  delete(entry: number, pages: number): void {
    for (let i = 0; i < pages; i++) {
      const key = Math.floor((entry + i) / FANOUT);
      const cluster = this.#clusters.get(key);
      const at = (entry + i) % FANOUT;
      assert(
        cluster !== undefined && cluster.folios[at] !== 0,
        () => `swap entry ${entry + i} is not in the swap cache`,
      );
      cluster.folios[at] = 0;
      this.#pages--;
      if (--cluster.used === 0) this.#clusters.delete(key);
    }
  }
}
