import { TableMemory } from '../../src/index.ts';

/**
 * Table memory that publishes an entry by two 32-bit stores, the low half first, with a gap: the defect that a 64-bit atomic
 * operation is there to avoid. Only for showing that the thread test finds it.
 */
export class TornMemory extends TableMemory {
  override store(pfn: number, index: number, entry: bigint): void {
    this.#write(pfn, index, entry);
  }

  override compareExchange(pfn: number, index: number, expected: bigint, replacement: bigint): bigint {
    const seen = this.load(pfn, index);
    if (seen === expected) this.#write(pfn, index, replacement);
    return seen;
  }

  #write(pfn: number, index: number, entry: bigint): void {
    const half = ((pfn - this.basePfn) << 10) | (index << 1);
    Atomics.store(this.halves, half, Number(BigInt.asIntN(32, entry)));
    for (let gap = 0; gap < 200; gap++) Atomics.load(this.halves, half);
    Atomics.store(this.halves, half + 1, Number(BigInt.asIntN(32, entry >> 32n)));
  }
}
