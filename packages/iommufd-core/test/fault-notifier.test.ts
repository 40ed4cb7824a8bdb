import type { Agent, Task } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import type { FaultPolicy, HostRange } from '../src/index.ts';
import { HostSetup, type HostSetupOptions, USER } from './host-setup.ts';

/** What is mapped although the host is about to take it: between a notifier's start and its end (I10). */
function watched(options: HostSetupOptions, policy: Partial<FaultPolicy>) {
  const setup = new HostSetup({ pages: 512, frames: 2048, ...options });
  const ranges: HostRange[] = [];
  const wrong: string[] = [];
  const mapped = new Set<number>();
  setup.mm.unregisterNotifier(setup.ioas); // to hear of a range before it does
  setup.mm.registerNotifier({
    // biome-ignore lint/correctness/useYield: it does not wait
    *invalidateRangeStart(_agent, range) {
      ranges.push(range);
    },
    invalidateRangeEnd: (_agent, range) => void ranges.splice(ranges.indexOf(range), 1),
  });
  setup.mm.registerNotifier(setup.ioas);
  const hwpt = setup.addDomain({
    mapping: (page, pages) => {
      for (let nth = 0; nth < pages; nth++) mapped.add(page + nth);
      for (const { startPage, pages: taken } of ranges)
        if (startPage < USER + page + pages && USER + page < startPage + taken) wrong.push(`${page}+${pages}`);
    },
  });
  setup.map(0, 512, { policy });
  return { setup, hwpt, wrong, mapped };
}

describe('at any step of a fault, nothing is mapped that a notifier is about to take', () => {
  const HOST: Record<string, (setup: HostSetup, agent: Agent) => Task<unknown>> = {
    'the page': ({ mm }, agent) => mm.madviseDontNeed(agent, USER + 7, 1),
    'a neighbour': ({ mm }, agent) => mm.madviseDontNeed(agent, USER + 9, 1),
    'all of it': ({ mm }, agent) => mm.madviseDontNeed(agent, USER, 512),
  };
  for (const [what, host] of Object.entries(HOST))
    it.each(['vacant', 'read-only'] as const)(`${what}; %s before`, (before) => {
      for (let steps = 1; ; steps++) {
        const { setup, hwpt, wrong, mapped } = watched(
          { backing: 'thp-2M' },
          { prefault: before === 'vacant' ? 'none' : 'resident' },
        );
        if (before === 'read-only') setup.run((agent) => setup.mm.clearSoftDirty(agent));
        const runs = setup.beside(
          (agent) => hwpt.handleFault(agent, 7, true),
          steps,
          (agent) => host(setup, agent),
        );
        if (runs === null) {
          expect(steps).toBeGreaterThan(3);
          break;
        }
        // It is answered once the page was mapped, though the host may have taken it again.
        expect([steps, mapped.has(7)]).toEqual([steps, true]);
        expect([steps, wrong, setup.stale(), runs.first.value, runs.second.done]).toEqual([steps, [], [], 0, true]);
      }
    });
});
