import { describe, expect, it } from 'vitest';
import { nearest, suggestion } from '../src/nearest.ts';

describe('nearest', () => {
  it.each([
    ['memroy', 'memory'],
    ['Memory', 'memory'],
    ['mem', 'memory'],
    ['wholeleaf', 'whole-leaf'],
    ['cutt', 'cut'],
  ])('%s is %s', (name, meant) => {
    expect(nearest(name, ['memory', 'whole-leaf', 'cut', 'swap'])).toBe(meant);
  });

  it.each(['', 'xyzzy', 'q', 'zz'])('%j is nothing', (name) => {
    expect(nearest(name, ['memory', 'whole-leaf', 'cut'])).toBeUndefined();
  });

  it('lists what there is where nothing is near, if that is short', () => {
    expect(suggestion('xyzzy', ['a', 'b'])).toBe('; there is a, b');
    expect(suggestion('xyzzy', ['a', 'b'], 1)).toBe('');
    expect(suggestion('xyzzy', [])).toBe('');
  });
});
