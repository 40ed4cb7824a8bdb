import SortedBTree from 'sorted-btree';

/**
 * A map in the order of its keys, which finds the key at or below a number. The library is CommonJS: Node's own loader hands
 * its exports object over as the default, bundlers the class.
 */
export const OrderedMap = (SortedBTree as unknown as { default?: typeof SortedBTree }).default ?? SortedBTree;
