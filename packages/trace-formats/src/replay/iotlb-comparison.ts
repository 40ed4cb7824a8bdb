import { Iotlb, type IotlbOptions, type LeafLevel } from '@faultline/iotlb';

/** How one cache compares with QEMU's, look-up by look-up. */
export interface IotlbComparison {
  readonly lookups: number;
  readonly hits: number;
  /** Look-ups for which this cache and QEMU's did the same: both hit, or both had to walk. */
  readonly sameAsRecorded: number;
  /** It hit where QEMU walked: QEMU had evicted or over-invalidated. */
  readonly hitWhereQemuWalked: number;
  /** It missed where QEMU hit: its capacity, or an invalidation that QEMU did not honour. */
  readonly missedWhereQemuHit: number;
  /** Times that it was emptied because it was full. */
  readonly resets: number;
}

/** A cache of its own beside the model, fed with the recorded leaves, to compare hit by hit. */
export class ComparedIotlb {
  readonly iotlb: Iotlb;
  #same = 0;
  #more = 0;
  #fewer = 0;

  constructor(options: IotlbOptions) {
    this.iotlb = new Iotlb(options);
  }

  /** One look-up that QEMU answered from its cache (`recordedHit`) or by a walk. */
  lookup(lookup: {
    readonly sid: number;
    readonly did: number;
    readonly hi: number;
    readonly lo: number;
    readonly level: LeafLevel;
    readonly recordedHit: boolean;
  }): void {
    const hit = this.iotlb.lookup(lookup.sid, lookup.hi, lookup.lo) >= 0;
    if (hit === lookup.recordedHit) this.#same++;
    else if (hit) this.#more++;
    else this.#fewer++;
    if (!hit) this.iotlb.fill(lookup.sid, lookup.did, lookup.hi, lookup.lo, lookup.level, 3, 0, 3);
  }

  /** The comparison so far. */
  snapshot(): IotlbComparison {
    const { lookups, hits, resets } = this.iotlb.counters;
    return {
      lookups,
      hits,
      sameAsRecorded: this.#same,
      hitWhereQemuWalked: this.#more,
      missedWhereQemuHit: this.#fewer,
      resets,
    };
  }
}
