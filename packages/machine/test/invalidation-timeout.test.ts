import { describe, expect, it } from 'vitest';
import { checks, run, TINY, violated } from './run-scenario.ts';

const inject = { invalidationTimeout: 0.2, timeoutAfter: '5us' } as const;

describe('a device that does not answer device-TLB invalidations', () => {
  for (const strategy of ['cut', 'whole-leaf', 'shared-ept'] as const)
    it(`now and then is asked again, and nothing breaks: ${strategy}`, () => {
      const stats = run({ ...TINY, strategy, inject: { ...inject, invalidationTimeout: 0.1 } });
      expect(violated(stats)).toEqual([]);
      expect(stats.injected.invalidationTimeout).toBeGreaterThan(0);
      expect(checks(stats, 'I1')).toBeGreaterThan(1000);
    });

  it('any more is isolated before its page’s frame is given away, and the others work on', () => {
    const silent = { ...inject, invalidationSilence: 1 };
    const stats = run({ ...TINY, inject: silent });
    expect(violated(stats)).toEqual([]);
    expect(stats.isolatedDevices).toContain('vm0 accelerator');
    expect(stats.hostMm.swapOut).toBe(60);
    const none = run({ ...TINY, inject: { ...silent, invalidationTimeout: 0 } });
    expect([none.isolatedDevices, none.injected.invalidationTimeout]).toEqual([[], 0]);
    expect(stats.dma.completed).toBeLessThan(none.dma.completed);
  });

  it('any more does not keep devices from moving to another HWPT, and stays out', () => {
    const events = [
      { at: '2ms', action: 'hwpt-replace' },
      { at: '4ms', action: 'unplug', device: 'accelerator' },
      { at: '5ms', action: 'hwpt-replace' },
    ] as const;
    for (let seed = 1; seed <= 8; seed++) {
      const stats = run({ ...TINY, events: [...events], inject: { ...inject, invalidationSilence: 1 } }, seed);
      expect([seed, violated(stats)]).toEqual([seed, []]);
      expect(stats.isolatedDevices.length).toBeGreaterThan(0);
    }
  });

  it('costs the minute that PCIe gives devices, if nobody says otherwise', () => {
    const stats = run({ ...TINY, inject: { invalidationTimeout: 0.1 } });
    expect(violated(stats)).toEqual([]);
    expect(stats.virtualTimeNs).toBeGreaterThan(60e9);
  });
});
