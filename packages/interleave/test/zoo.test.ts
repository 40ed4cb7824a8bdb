import { describe, expect, it, vi } from 'vitest';
import { type ExploredDefect, type MeasuredDefect, replaySchedule, ZOO } from '../src/index.ts';
import { outcome } from './outcome.ts';

// Explorations take seconds, and more on a machine that does other things besides.
vi.setConfig({ testTimeout: 90_000 });

const explored = ZOO.filter((defect): defect is ExploredDefect => 'protocol' in defect);
const measured = ZOO.filter((defect): defect is MeasuredDefect => 'measure' in defect);

const builderOf = ({ protocol }: ExploredDefect, name: string) => {
  const found = protocol.configurations.find((configuration) => configuration.name === name);
  if (!found) throw new Error(`no configuration ${name}`);
  return found.build;
};

describe.each(explored.map((defect) => [defect.id, defect] as const))('%s', (_, defect) => {
  it('is found, and its schedule breaks what it should', () => {
    // `vm-sim zoo` makes schedules as short as they get; here a try is enough.
    const { verdict, counterexample } = outcome(defect.protocol, { ...defect.options, shrink: { executions: 50 } });
    expect(verdict).toBe('violated');
    if (counterexample === null) return;
    expect(defect.breaks).toContain(counterexample.invariant);
    const build = builderOf(defect, counterexample.configuration);
    expect(replaySchedule(build, counterexample.schedule).violation?.invariant).toBe(counterexample.invariant);
  });
});

it('D7 is measured: one written page, and every page left of the old leaf is reported dirty', () => {
  expect(measured.map(({ id, measure }) => [id, measure().cases])).toEqual([
    [
      'D7',
      [
        { name: '2M leaf', right: 1, wrong: 511 },
        { name: '1G leaf', right: 1, wrong: 262_143 },
      ],
    ],
  ]);
});
