import { Cost } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import {
  BUILT_IN_SCENARIOS,
  evaluateThresholds,
  parseThreshold,
  STRATEGIES,
  type StatsDocument,
  scenarioJsonSchema,
  scenarioSchema,
} from '../src/index.ts';
import { REFERENCE_PROFILE } from '../src/timing-profile.ts';

const messages = (input: unknown): string[] =>
  scenarioSchema.safeParse(input).error?.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`) ?? [];

describe('scenario', () => {
  it('fills every default in, and the result parses to itself', () => {
    const scenario = scenarioSchema.parse({});
    expect(scenario).toMatchObject({ strategy: 'cut', vm: { memory: '16G', backing: 'pud-thp' }, expect: 'ok' });
    expect(scenarioSchema.parse(scenario)).toEqual(scenario);
  });

  it.each(BUILT_IN_SCENARIOS.map((scenario) => [scenario.name, scenario] as const))(
    '%s is valid and carries its name',
    (name, { scenario, title }) => {
      expect(scenarioSchema.parse(scenario).name).toBe(name);
      expect(title.length).toBeGreaterThan(10);
    },
  );

  it('refuses a strategy that there is not, and names those that there are', () => {
    expect(messages({ strategy: 'wrong' })).toEqual([
      `strategy: expected one of ${STRATEGIES.join(', ')}, got "wrong"`,
    ]);
    expect(STRATEGIES).toEqual(expect.arrayContaining(['pinned', 'naive', 'whole-leaf', 'cut']));
  });

  it('refuses a bare number where a size or duration is meant, and unknown keys', () => {
    expect(messages({ vm: { memory: '16' } })).toEqual(['vm.memory: expected a size such as 4K, 2M or 16G, got "16"']);
    expect(messages({ duration: '10' })[0]).toContain('expected a duration such as 10us or 50ms');
    expect(messages({ vm: { memroy: '16G' } })[0]).toContain('memroy');
    expect(messages({ vm: { devices: { accelerator: { writeFraction: 2 } } } })).toHaveLength(1);
  });

  it('has a JSON schema with descriptions', () => {
    expect(JSON.stringify(scenarioJsonSchema())).toContain('Host memory that can back guests');
  });
});

describe('timing profile', () => {
  it('gives every cost class a duration and says where it comes from', () => {
    for (const name of Object.keys(Cost)) {
      const entry = REFERENCE_PROFILE[name as keyof typeof REFERENCE_PROFILE];
      expect(entry.ns, name).toBeGreaterThanOrEqual(0);
      expect(entry.source, name).toMatch(/^(P\d+|assumption|derived|by definition)/);
    }
  });
});

describe('thresholds', () => {
  const stats = {
    dma: { latencyNs: { p99: 400_000 }, bytes: 8192 },
    iopt: { splits: { '1G->2M': 3 } },
  } as unknown as StatsDocument;
  const evaluate = (text: string) => evaluateThresholds(stats, [parseThreshold(text)])[0];

  it.each([
    ['dma.latencyNs.p99 < 500us', true, 400_000],
    ['dma.latencyNs.p99 < 400us', false, 400_000],
    ['dma.latencyNs.p99 <= 400000', true, 400_000],
    ['dma.bytes >= 8K', true, 8192],
    ['dma.bytes == 8192', true, 8192],
    ['dma.bytes != 8192', false, 8192],
    ['iopt.splits.1G->2M > 2', true, 3],
  ])('%s', (expression, ok, value) => {
    expect(evaluate(expression)).toEqual({ expression, value, ok });
  });

  it.each(['dma.latencyNs.p99', 'a < ', '< 3', 'a ~ 3'])('refuses %j', (text) => {
    expect(() => parseThreshold(text)).toThrow('expected <field> <operator> <value>');
  });

  it('names the field that does not exist and those that do', () => {
    expect(() => evaluate('dma.latency < 1us')).toThrow('no field "latency" in stats.dma; it has latencyNs, bytes');
    expect(() => evaluate('dma < 1')).toThrow('stats.dma is not a number');
    expect(() => parseThreshold('a < 10ks')).toThrow('"10ks" is no number, duration (500us) or size (4K)');
  });
});
