import type { CrashStats, MachineOptions, Scenario, StatsDocument } from '@faultline/machine';
import type { DrivenMachine, MachineFactory } from '../../src/run/driven-machine.ts';
import { SAMPLE_STATS } from '../../src/run/stats-sample.ts';

export const CRASH: CrashStats = {
  reason: 'bad page state: frame 0x180800 was freed as a page-table page and is none',
  faultReason: null,
  iova: '0x180800000',
  atNs: 20_080_483,
  totals: { unmaps: 1, mistaken: 2, corrupted: 1 },
  mistaken: [
    { level: 1, hpa: '0x57c00f70', word: '0x0', owner: 'vm0, guest page 0x17c00000' },
    { level: 2, hpa: '0x140000020', word: '0x180800063', owner: 'vm0, guest page 0x180000000' },
  ],
  corrupted: [{ hpa: '0x140000020', word: '0x180800063', owner: 'vm0, guest page 0x180000000' }],
  freed: [{ hpa: '0x180800000', owner: 'vm0, guest page 0x1c0800000' }],
};

export interface FakeMachineOptions {
  readonly stats?: Partial<StatsDocument>;
  readonly endNs?: number;
  /** Called at the begin of each slice. */
  readonly onSlice?: (virtualTimeNs: number) => void;
  readonly events?: number;
  readonly fail?: Error;
}

/** A machine that only counts time. */
export function fakeMachine(options: FakeMachineOptions = {}): MachineFactory & { slices: number } {
  const endNs = options.endNs ?? 1e6;
  const factory = (scenario: Scenario, { seed, sink }: MachineOptions): DrivenMachine => {
    if (options.fail instanceof RangeError) throw options.fail;
    let now = 0;
    return {
      get progress() {
        return { virtualTimeNs: now, endNs, dmaPages: now / 100, swapOut: 0, phase: 'running' as const };
      },
      runUntil(virtualNs) {
        built.slices++;
        options.onSlice?.(now);
        if (options.fail) throw options.fail;
        now = Math.min(endNs, virtualNs);
        return now >= endNs;
      },
      finish({ interrupted = false } = {}) {
        for (let i = 0; i < (options.events ?? 3); i++)
          sink?.record({ atNs: i, durationNs: 0, track: 'host', name: 'swap out', args: { iova: '0x1000' } });
        return {
          ...SAMPLE_STATS,
          crash: null,
          refusal: null,
          events: [],
          invariants: [{ id: 'I1', checks: 10, violations: 0 }],
          thresholds: [],
          scenario: scenario.name,
          strategy: scenario.strategy,
          expect: scenario.expect,
          seed,
          virtualTimeNs: now,
          interrupted,
          ...options.stats,
        };
      },
    };
  };
  const built = Object.assign(factory, { slices: 0 });
  return built;
}
