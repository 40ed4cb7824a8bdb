import { randomScenario, runStormMachine } from '@faultline/machine';
import { expect, it } from 'vitest';

const machines = Number(process.env.CHOICES_MACHINES);

it(`${machines} random machines`, { timeout: 3_600_000 }, () => {
  for (let seed = 1; seed <= machines; seed++) expect(runStormMachine(seed, randomScenario(seed)).failure).toBeNull();
});
