import type { StatsDocument } from '@faultline/machine';
import type { Interruption } from '../interruption.ts';
import { ProgressMeter } from '../progress-meter.ts';
import type { LoadedScenario } from '../scenario/load.ts';
import type { Terminal } from '../terminal.ts';
import { type DrivenMachine, withThresholds } from './driven-machine.ts';

/** A slice of this much wall time is short enough for Ctrl-C and the meter, and long enough to cost nothing. */
const SLICE_MS = 40;
/** Virtual time of the first slice; the next ones adapt. */
const FIRST_SLICE_NS = 100_000;

/** Wall time of the parts of a run. */
export interface Timings {
  /** Building and booting. */
  readonly bootSeconds: number;
  readonly runSeconds: number;
  readonly finishSeconds: number;
}

/** A machine to be run, and what is said meanwhile. */
export interface Simulation {
  readonly machine: DrivenMachine;
  readonly loaded: LoadedScenario;
  readonly quiet: boolean;
  /** Shown by the meter, where several machines run one after the other. */
  readonly name?: string;
}

/** Runs a machine in slices, with a meter, until it is over or the user interrupts it. */
export async function simulate(
  { machine, loaded, quiet, name }: Simulation,
  terminal: Terminal,
  interruption: Interruption,
): Promise<{ stats: StatsDocument; timings: Timings }> {
  const meter = new ProgressMeter(terminal, quiet);
  const started = terminal.nowMs();
  try {
    let sliceNs = FIRST_SLICE_NS;
    let over = false;
    let booted = started;
    while (!over && !interruption.requested) {
      const before = terminal.nowMs();
      over = machine.runUntil(machine.progress.virtualTimeNs + sliceNs);
      const tookMs = terminal.nowMs() - before;
      if (machine.progress.phase === 'booting') booted = terminal.nowMs();
      if (tookMs < SLICE_MS / 2) sliceNs *= 2;
      else if (tookMs > SLICE_MS * 2) sliceNs = Math.max(1000, Math.floor(sliceNs / 2));
      const { virtualTimeNs, endNs, dmaPages, phase } = machine.progress;
      const fraction = phase === 'booting' ? 0 : virtualTimeNs / endNs;
      meter.update({
        fraction,
        done: dmaPages,
        unit: 'DMA pages',
        phase: name === undefined ? phase : `${name}, ${phase}`,
      });
      await terminal.breathe();
    }
    const ran = terminal.nowMs();
    const stats = withThresholds(machine.finish({ interrupted: !over }), loaded.scenario.thresholds);
    const ended = terminal.nowMs();
    const seconds = (from: number, to: number): number => (to - from) / 1000;
    return {
      stats,
      timings: {
        bootSeconds: seconds(started, booted),
        runSeconds: seconds(booted, ran),
        finishSeconds: seconds(ran, ended),
      },
    };
  } finally {
    meter.clear();
  }
}
