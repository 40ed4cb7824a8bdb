import { describe, expect, it } from 'vitest';
import {
  AccessedDirtyMode,
  DEFAULT_ENTRY_CAPABILITIES,
  reservedMasks,
  TableMemory,
  WalkAccess,
  WalkMode,
  WalkState,
  WalkStatus,
  walk,
  walkLevel,
} from '../src/index.ts';

const masks = reservedMasks(DEFAULT_ENTRY_CAPABILITIES);
const { read, write, atomic, zeroLengthRead, anything } = WalkAccess;

/** Four levels with one leaf for address 0, and a walker of scalable mode over them. */
function build(leaf: bigint, upper = 3n) {
  const memory = new TableMemory({ pages: 8 });
  const root = memory.allocate();
  let leafPfn = root;
  for (let level = 4; level > 1; level--) {
    const child = memory.allocate();
    memory.store(leafPfn, 0, (BigInt(child) << 12n) | upper);
    leafPfn = child;
  }
  memory.store(leafPfn, 0, leaf);
  const run = (access: number, accessedDirty: number = AccessedDirtyMode.off, mayWrite = true) => {
    const state = new WalkState();
    state.mode = WalkMode.scalable;
    state.accessedDirty = accessedDirty;
    state.mayWrite = mayWrite;
    state.begin(root, 4, 0, 0, access);
    walk(memory, masks, state);
    return state;
  };
  /** A (bit 0) and D (bit 1) of the top entry and of the leaf. */
  const flags = () => [root, leafPfn].map((pfn) => Number((memory.load(pfn, 0) >> 8n) & 3n));
  return { memory, root, leafPfn, run, flags };
}

describe('a walk of scalable mode', () => {
  it.each([
    ['R=W=0 with reserved bits is no permission, not reserved', 0x800n | (1n << 62n), 3n, read, 0x79],
    ['rights that vanish together', 0x1001n, 2n, read, 0x79],
    ['a reserved bit counts before the right asked for', 0x1801n, 3n, write, 0x7a],
    ['a write without W', 0x1001n, 3n, write, 0x85],
    ['an atomic operation without W', 0x1001n, 3n, atomic, 0x85],
    ['an atomic operation without R', 0x1002n, 3n, atomic, 0x86],
    ['a read without R', 0x1002n, 3n, read, 0x86],
    ['a zero-length read of a write-only page', 0x1002n, 3n, zeroLengthRead, 0],
    ['a translation request of a read-only page', 0x1001n, 3n, anything, 0],
    ['a translation request of nothing', 0x1000n, 3n, anything, 0x79],
  ])('%s', (_what, leaf, upper, access, reason) => {
    expect(build(leaf, upper).run(access).faultReason).toBe(reason);
  });

  it('looks for the right asked for at the leaf: a level without W above a reserved bit is 7Ah', () => {
    expect(build(0x1803n, 1n).run(write).faultReason).toBe(0x7a);
    expect(build(0x1003n, 1n).run(write).faultReason).toBe(0x85);
  });

  it('says 78h where a table is not in memory', () => {
    const { memory, root, run } = build(3n);
    memory.store(root, 0, (0x7777n << 12n) | 3n);
    expect(run(read).faultReason).toBe(0x78);
  });
});

describe('A and D', () => {
  it.each([
    ['a read', read, true, [1, 1]],
    ['a write', write, true, [1, 3]],
    ['an atomic operation', atomic, true, [1, 3]],
    ['a translation request that may write', anything, true, [1, 3]],
    ['a translation request with NW', anything, false, [1, 1]],
  ])('%s sets A on the way, and D in the leaf only if it writes', (_what, access, mayWrite, expected) => {
    const tables = build(0x1003n);
    const state = tables.run(access, AccessedDirtyMode.update, mayWrite);
    expect([state.status, tables.flags()]).toEqual([WalkStatus.translated, expected]);
    expect(state.entry).toBe(tables.memory.load(tables.leafPfn, 0));
  });

  it('stay as they are without SSADE, and in the leaf of a request that faults there', () => {
    const off = build(0x1003n);
    off.run(write);
    expect(off.flags()).toEqual([0, 0]);
    const readOnly = build(0x1001n);
    expect(readOnly.run(write, AccessedDirtyMode.update).faultReason).toBe(0x85);
    expect(readOnly.flags()).toEqual([1, 0]);
  });

  it('are a fault, 7Ch, where one is missing and the walk does not snoop', () => {
    expect(build(0x1003n).run(read, AccessedDirtyMode.fault).faultReason).toBe(0x7c);
    const set = build(0x1103n, 0x103n);
    expect(set.run(read, AccessedDirtyMode.fault).faultReason).toBe(0);
    expect(set.run(write, AccessedDirtyMode.fault).faultReason).toBe(0x7c);
  });

  it('are set in what is there: an entry that changes first is read and checked again', () => {
    const tables = build(0x1003n);
    const { memory, leafPfn } = tables;
    const exchange = memory.compareExchange.bind(memory);
    let raced = false;
    memory.compareExchange = (pfn, index, expected, replacement) => {
      if (pfn === leafPfn && !raced) {
        raced = true;
        memory.store(leafPfn, 0, 0x2001n); // software takes W away and moves the page
      }
      return exchange(pfn, index, expected, replacement);
    };
    expect(tables.run(write, AccessedDirtyMode.update).faultReason).toBe(0x85);
    expect(memory.load(leafPfn, 0)).toBe(0x2001n);
  });
});

describe('a walk of memory that is not coherent', () => {
  it('sees what was flushed, not what the CPU wrote', () => {
    const memory = new TableMemory({ pages: 4, coherent: false });
    const root = memory.allocate();
    const reasonNow = () => {
      const state = new WalkState();
      state.begin(root, 3, 0, 0, read);
      return walkLevel(memory, masks, state) === WalkStatus.faulted ? state.faultReason : 0;
    };
    memory.store(root, 0, 0x4000_0083n);
    expect(reasonNow()).toBe(6);
    memory.flush(root, 0);
    expect(reasonNow()).toBe(0);
    memory.store(root, 0, 0n);
    expect(reasonNow()).toBe(0);
  });
});
