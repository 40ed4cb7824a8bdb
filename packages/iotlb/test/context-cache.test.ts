import { describe, expect, test } from 'vitest';
import { ContextCache } from '../src/index.ts';

const value = { tablePfn: 0x227, addressWidth: 2, translationType: 0, faultDisable: false };

function filled(mode: 'legacy' | 'scalable'): ContextCache {
  const cache = new ContextCache({ mode });
  for (let sourceId = 0; sourceId < 16; sourceId++) cache.fill(sourceId, sourceId < 8 ? 1 : 2, value);
  return cache;
}

describe('ContextCache', () => {
  test('look-up by source-id; a second fill replaces', () => {
    const cache = filled('legacy');
    cache.fill(3, 7, { ...value, tablePfn: 0x999 });
    const slot = cache.lookup(3);
    expect([cache.didAt(slot), cache.valueAt(slot).tablePfn]).toEqual([7, 0x999]);
    expect(cache.lookup(0x100)).toBe(-1);
    expect(cache.counters).toEqual({ lookups: 2, hits: 1 });
    expect(cache.size).toBe(16);
  });

  test('function masks select 1, 2, 4 and 8 functions', () => {
    const dropped = ([0, 1, 2, 3] as const).map((mask) => filled('legacy').invalidateDevice(1, 2, mask));
    expect(dropped).toEqual([1, 2, 4, 8]);
    const cache = filled('legacy');
    cache.invalidateDevice(1, 2, 1);
    expect([cache.lookup(2), cache.lookup(6)]).toEqual([-1, -1]);
    expect(cache.lookup(3)).toBeGreaterThanOrEqual(0);
  });

  test('legacy honours the domain-id, scalable mode ignores it', () => {
    expect(filled('legacy').invalidateDomain(2)).toBe(8);
    expect(filled('legacy').invalidateDevice(2, 2, 0)).toBe(0);
    expect(filled('scalable').invalidateDomain(2)).toBe(16);
    expect(filled('scalable').invalidateDevice(2, 2, 0)).toBe(1);
    expect(filled('scalable').invalidateGlobal()).toBe(16);
  });

  test('what no descriptor and no request can carry is refused', () => {
    const cache = filled('legacy');
    for (const mask of [4, -1, 1.5])
      expect(() => cache.invalidateDevice(1, 2, mask as 0)).toThrow(`functionMask: ${mask} is not one of 0, 1, 2, 3`);
    expect(() => cache.fill(0x10000, 1, value)).toThrow('sourceId: 0x10000 is not an integer in 0..0xffff');
    expect(cache.size).toBe(16);
    expect(() => new ContextCache({ mode: 'abort' as 'legacy' })).toThrow('mode: abort is not one of legacy, scalable');
    expect(() => new ContextCache({ finestInvalidation: 'page' as 'device' })).toThrow(
      'finestInvalidation: page is not one of device, domain, global',
    );
  });

  test('an invalidated slot gives nothing', () => {
    const cache = filled('legacy');
    const slot = cache.lookup(5);
    cache.invalidateDevice(1, 5, 0);
    expect(() => cache.valueAt(slot)).toThrow(RangeError);
    expect([...cache.entries()].map((entry) => entry.sourceId)).not.toContain(5);
  });
});
