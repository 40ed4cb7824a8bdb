import { beforeEach, describe, expect, it, type TestContext } from 'vitest';
import { DEFECT_MODELS, PROTOCOL_MODELS } from '../src/catalogue.ts';
import { exploreAll, exploreDefect } from '../src/commands.ts';
import { COMPARED, runAdversary } from '../src/comparison.ts';
import { explore, toolVersions } from '../src/spin.ts';

const LIMITS = { memoryMib: 2000, seconds: 300 };

beforeEach(async (context: TestContext) => {
  try {
    await toolVersions();
  } catch (error) {
    context.skip(`not tested: ${(error as Error).message}`);
  }
});

describe('every protocol has the expected verdict in every configuration', () => {
  for (const { name, expected, configurations } of PROTOCOL_MODELS)
    for (const configuration of configurations)
      it(`${name}: ${configuration.name}`, async () => {
        const found = await explore({ protocol: name, defines: configuration.defines }, LIMITS);
        expect(found.reason).toBe(null);
        expect(found.counterexample.length > 0).toBe(expected === 'violated');
        expect(found.verdict).toBe(expected);
        // A search of a few states would hold whatever the model says.
        if (expected === 'holds') expect(found.states).toBeGreaterThan(2000);
      });
});

describe('every defect is found, by an invariant that it breaks', () => {
  for (const defect of DEFECT_MODELS)
    it(defect.id, async () => {
      const { verdict, invariant, counterexample } = await exploreDefect(defect, LIMITS);
      expect(verdict).toBe('violated');
      expect(defect.invariants).toContain(invariant);
      expect(counterexample.length).toBeGreaterThan(3);
    });

  const key = (protocol: string, defines: readonly string[]): string => [protocol, ...[...defines].sort()].join(' ');
  const explored = new Set(
    PROTOCOL_MODELS.flatMap(({ name, configurations }) => configurations.map(({ defines }) => key(name, defines))),
  );
  for (const { protocol, defines } of DEFECT_MODELS) {
    const without = key(protocol, defines);
    if (explored.has(without)) continue;
    explored.add(without);
    it(`and without a defect ${without} holds`, async () => {
      expect((await explore({ protocol, defines }, LIMITS)).verdict).toBe('holds');
    });
  }
});

describe('interleave, on the code that runs, and spin, on the model, agree', () => {
  for (const model of PROTOCOL_MODELS.filter(({ name }) => COMPARED.includes(name)))
    it(model.name, async () => {
      const adversary = runAdversary(model.name, () => performance.now(), 500);
      const spin = await exploreAll(model, LIMITS);
      expect(adversary.verdict).toBe(spin.verdict);
    });
});
