import { expect, test } from 'vitest';
import { parseOptions, Usage } from '../src/options.ts';
import { BENCHMARKS } from '../src/suite.ts';
import { EXPLORED } from '../src/verification.ts';

const usageOf = (...args: string[]): Usage => {
  try {
    parseOptions(args);
  } catch (error) {
    if (error instanceof Usage) return error;
    throw error;
  }
  throw new Error('accepted');
};

test('without options everything is measured in pinned rounds', () => {
  expect(parseOptions([])).toEqual({
    benchmarks: BENCHMARKS,
    protocols: EXPLORED,
    effort: { rounds: 40, warmUpRounds: 8, divisor: 1 },
    json: false,
  });
});

test('options choose', () => {
  const { benchmarks, effort, json } = parseOptions(['--json', '--quick', '--rounds', '3', '--only', 'walk']);
  expect(benchmarks.map(({ name }) => name)).toEqual(['walk to 4K', 'walk to 2M', 'walk to 1G']);
  expect(effort).toMatchObject({ rounds: 3, divisor: 10 });
  expect(json).toBe(true);
});

test('explorations can be chosen too, and have no short form', () => {
  expect(parseOptions(['--only', 'verify'])).toMatchObject({ benchmarks: [], protocols: EXPLORED });
  expect(parseOptions(['--only', 'verify detach']).protocols).toEqual(['detach']);
  expect(parseOptions(['--only', 'walk']).protocols).toEqual([]);
  expect(parseOptions(['--quick']).protocols).toEqual([]);
});

test.each([
  [['--only', 'nothing like it'], "'nothing like it' is invalid. no benchmark has this in its name; there are \"iotlb"],
  [['--rounds', '0'], "'0' is invalid. expected an integer in 1..10000"],
  [['--rounds', '1e3'], "'1e3' is invalid"],
  [['--fast'], "unknown option '--fast'"],
  [['walk'], 'too many arguments'],
])('%j is refused with exit code 2', (args, message) => {
  const usage = usageOf(...args);
  expect(usage.exitCode).toBe(2);
  expect(usage.message).toContain(message);
});

test('help is no error', () => {
  const usage = usageOf('--help');
  expect(usage.exitCode).toBe(0);
  expect(usage.message).toMatch(/--only <name> .*\(default: all\)/);
});
