import { PROTOCOLS, patch2023Protocol, verify } from '@faultline/interleave';
import { expect, it } from 'vitest';

/** So many random schedules in each configuration of a split: they reach more than as many of the first in depth. */
const executions = Number(process.env.CHOICES_EXECUTIONS);
const STAGES = ['D1', 'D3', 'D4', 'D5', 'D6', 'D8', 'D9'] as const;
// Those that are violated at once are no choices of a protocol that holds.
const HOLDING = PROTOCOLS.filter(({ name }) => name !== 'naive' && name !== 'patch-2023');
const protocols = [...HOLDING, ...STAGES.map((stage) => patch2023Protocol(stage, []))];

/** These have so few orders that all are tried. */
const EXHAUSTED = new Set(['map', 'unmap', 'collapse', 'dirty-harvest', 'detach']);

it.each(protocols.map((protocol) => [protocol.name, protocol] as const))('%s', { timeout: 600_000 }, (_, protocol) => {
  for (const configuration of protocol.configurations) {
    const search = verify(
      { ...protocol, configurations: [configuration] },
      EXHAUSTED.has(protocol.name) ? {} : { random: { executions, seed: 1 } },
    );
    let next = search.next();
    while (!next.done) next = search.next();
    expect(next.value.executions).toBeGreaterThan(0);
  }
});
