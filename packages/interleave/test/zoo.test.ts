import { describe, expect, it, vi } from 'vitest';
import {
  type Defect,
  type Protocol,
  replaySchedule,
  type VerifyOptions,
  type VerifyResult,
  verify,
  ZOO,
} from '../src/index.ts';

// Explorations take seconds, and more on a machine that does other things besides.
vi.setConfig({ testTimeout: 90_000 });

function outcome(protocol: Protocol, options: VerifyOptions = {}): VerifyResult {
  const search = verify(protocol, options);
  let next = search.next();
  while (!next.done) next = search.next();
  return next.value;
}

const builderOf = ({ protocol }: Defect, name: string) => {
  const found = protocol.configurations.find((configuration) => configuration.name === name);
  if (!found) throw new Error(`no configuration ${name}`);
  return found.build;
};

describe.each(ZOO.map((defect) => [defect.id, defect] as const))('%s', (_, defect) => {
  it('is found, and its schedule breaks what it should', () => {
    const { verdict, counterexample } = outcome(defect.protocol, defect.options);
    expect(verdict).toBe('violated');
    if (counterexample === null) return;
    expect(defect.breaks).toContain(counterexample.invariant);
    const build = builderOf(defect, counterexample.configuration);
    expect(replaySchedule(build, counterexample.schedule).violation?.invariant).toBe(counterexample.invariant);
  });
});
