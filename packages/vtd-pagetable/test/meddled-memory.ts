import { TableMemory } from '../src/index.ts';

/** Table memory in which somebody else changes an entry right before a compare-and-swap of it: what only real threads do by themselves. */
export class MeddledMemory extends TableMemory {
  /** Changes of the next compare-and-swaps, in turn: the entry as it was, to what it becomes. */
  readonly meddling: ((entry: bigint) => bigint)[] = [];

  override compareExchange(pfn: number, index: number, expected: bigint, replacement: bigint): bigint {
    const change = this.meddling.shift();
    if (change) this.store(pfn, index, change(this.load(pfn, index)));
    return super.compareExchange(pfn, index, expected, replacement);
  }
}
