import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BUILT_IN_SCENARIOS, Machine, type MarkStats, scenarioSchema } from '../src/index.ts';

/** Figures since the mark "start"; kB, pages or events. */
type Figures = Record<string, number>;
const RECORDINGS = JSON.parse(readFileSync(new URL('./vectors/linux-swap.json', import.meta.url), 'utf8')) as {
  recordings: Record<string, { sinceStart: Record<string, Figures> }>;
};
const MARKS = ['filled', 'limited', 'touched', 'random touched'] as const;
/** The recordings' kernels swapped two pages of somebody else, twice each in some. */
const OTHER_PAGES = 2;
/** Huge pages that may still be in the swap cache when they are touched: that depends on the speed of the drive. */
const CACHED_HUGE_PAGES = 2;

function run(name: string): Map<string, Figures> {
  const scenario = BUILT_IN_SCENARIOS.find((each) => each.name === name)?.scenario;
  const machine = new Machine(scenarioSchema.parse(scenario), { seed: 1 });
  machine.runUntil(Number.POSITIVE_INFINITY);
  const stats = machine.finish();
  expect(stats.verdict).toBe('ok');
  expect(stats.hostMm.marks.map((mark) => mark.name)).toEqual(MARKS);
  return new Map(stats.hostMm.marks.map((mark) => [mark.name, figures(mark)]));
}

const figures = ({ residentBytes, anonHugeBytes, swappedBytes, vmstat }: MarkStats): Figures => ({
  'Rss kB': residentBytes / 1024,
  'AnonHugePages kB': anonHugeBytes / 1024,
  'Swap kB': swappedBytes / 1024,
  ...vmstat,
});

describe.each([
  ['linux-swap-thp', 'swap-thp'],
  ['linux-swap-4k', 'swap73-4k'],
])('%s against the recording %s', (scenario, recording) => {
  const ours = run(scenario);
  const linux = RECORDINGS.recordings[recording]?.sinceStart ?? {};
  const both = (mark: string, name: string): [number, number] => [
    ours.get(mark)?.[name] ?? -1,
    linux[mark]?.[name] ?? -2,
  ];
  const exactly = (marks: readonly string[], names: readonly string[]): void => {
    for (const mark of marks)
      for (const name of names) expect(both(mark, name)[0], `${mark}: ${name}`).toBe(both(mark, name)[1]);
  };
  const within = (mark: string, name: string, tolerance: number): void => {
    const [ownFigure, recorded] = both(mark, name);
    expect(
      Math.abs(ownFigure - recorded),
      `${mark}: ${name} is ${ownFigure}, recorded ${recorded}`,
    ).toBeLessThanOrEqual(tolerance);
  };

  it('is exact where Linux is deterministic', () => {
    exactly(['filled'], ['Rss kB', 'AnonHugePages kB', 'Swap kB', 'pswpin', 'pswpout']);
    exactly(MARKS, ['thp_fault_alloc', 'thp_swpout_fallback', 'thp_split_page']);
    exactly(['touched', 'random touched'], ['AnonHugePages kB', 'thp_swpout', 'thp_split_pmd']);
  });

  it('writes each page once, and nothing of what is only read', () => {
    within('touched', 'pswpout', OTHER_PAGES);
    expect(both('random touched', 'pswpout')[0]).toBe(both('touched', 'pswpout')[0]);
  });

  it('is over the limit’s goal by what write-back in flight makes of it, fitted to the recorded drive', () => {
    within('limited', 'Swap kB', 1024);
    within('limited', 'Rss kB', 1024);
    within('limited', 'pswpout', 256);
    within('limited', 'thp_swpout', 0);
  });

  it('has the same residency after the touches, and as many swap-ins within what read-ahead and the cache leave open', () => {
    for (const mark of ['touched', 'random touched']) {
      within(mark, 'Rss kB', 512);
      within(mark, 'Swap kB', 512);
      within(mark, 'pswpin', CACHED_HUGE_PAGES * 512);
    }
    const atRandom = (of: 0 | 1): number => both('random touched', 'pswpin')[of] - both('touched', 'pswpin')[of];
    expect(Math.abs(atRandom(0) - atRandom(1))).toBeLessThanOrEqual(0.15 * atRandom(1));
  });
});
