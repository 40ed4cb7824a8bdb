import { beforeAll, describe, expect, it } from 'vitest';
import {
  featuresOf,
  HOST_ACTIONS,
  randomScenario,
  type Scenario,
  STORM_FEATURE_KINDS,
  scenarioSchema,
} from '../src/index.ts';

const MACHINES = 1000;
const STRATEGIES = ['cut', 'cut+collapse', 'shared-ept', 'whole-leaf', 'break-before-make', 'paired', 'pinned'];
const BACKINGS = ['4K', 'thp-2M', 'contiguous', 'contiguous-4K', 'hugetlb-2M', 'hugetlb-1G', 'pud-thp'];
const FAILURES = ['frameAllocation', 'tableAllocation', 'swapRead', 'swapWrite', 'invalidationTimeout', 'slowSwap'];

describe('what a storm draws, in 1,000 machines', () => {
  let scenarios: Scenario[];
  const counts = new Map<string, number>();
  const pairs = new Map<string, number>();
  beforeAll(() => {
    scenarios = Array.from({ length: MACHINES }, (_, seed) => scenarioSchema.parse(randomScenario(seed + 1)));
    const add = (to: Map<string, number>, key: string): void => {
      to.set(key, (to.get(key) ?? 0) + 1);
    };
    for (const features of scenarios.map(featuresOf)) {
      for (const kind of STORM_FEATURE_KINDS) for (const name of features[kind]) add(counts, `${kind} ${name}`);
      for (const backing of features.backing) add(pairs, `${features.strategy[0]} on ${backing}`);
    }
  });

  it('has every strategy, backing, event and failure', () => {
    const wanted = [
      ...STRATEGIES.map((name) => `strategy ${name}`),
      ...BACKINGS.map((name) => `backing ${name}`),
      ...Object.keys(HOST_ACTIONS).map((name) => `event ${name}`),
      ...FAILURES.map((name) => `failure ${name}`),
      ...['several', 'balloon', 'memoryMax', 'equalPages'].map((name) => `guest ${name}`),
      ...['accelerator', 'disk', 'nic', 'ats', 'no ats', 'few credits'].map((name) => `device ${name}`),
      ...['zswap', 'queued swap', 'less than its guests', 'no dirty bits', 'no reserve'].map((name) => `host ${name}`),
      ...['disk', 'zram', 'classic', 'mglru', 'reclaim by lru', 'reclaim by pageout'].map((name) => `host ${name}`),
      ...['none', 'resident', 'populate'].map((name) => `policy prefault ${name}`),
      ...['4K', '2M', '1G'].map((name) => `policy largest ${name}`),
    ];
    expect(wanted.filter((name) => !counts.has(name))).toEqual([]);
  });

  it('turns each feature on in at least 1 % of them and off in as many', () => {
    const always = [...counts].filter(([, count]) => count < MACHINES / 100 || count > MACHINES - MACHINES / 100);
    expect(always).toEqual([]);
  });

  it('has every strategy with each backing', () => {
    const wanted = STRATEGIES.flatMap((strategy) => BACKINGS.map((backing) => `${strategy} on ${backing}`));
    expect(wanted.filter((pair) => !pairs.has(pair))).toEqual([]);
  });
});
