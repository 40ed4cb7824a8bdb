import { Agent, runToEnd } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { HostMemory } from '../src/index.ts';
import { countSteps } from './run.ts';

const GIG = 1 << 18;
const GIGS = 1024;
const START = 2 ** 40;

/** A 1 TiB VM of 1G folios. */
function terabyte(backing: 'pud-thp' | 'hugetlb-1G') {
  const host = new HostMemory({ frames: GIGS * GIG, swapSlots: 1024 });
  if (backing === 'hugetlb-1G') host.setHugePages('1G', GIGS);
  const mm = host.createAddressSpace('vmm');
  const agent = new Agent('boot');
  mm.mmap({ startPage: START, pages: GIGS * GIG, backing });
  return { host, mm, agent };
}

describe('cost follows what is touched', () => {
  it.each([
    ['pud-thp', 1],
    // It takes the huge page, zeroes it and maps it as a fault does.
    ['hugetlb-1G', 5],
  ] as const)('boots 1 TiB of %s in a few steps and one folio each GiB', (backing, stepsEach) => {
    const { host, mm, agent } = terabyte(backing);
    expect(countSteps(mm.populate(agent, START, GIGS * GIG))).toBeLessThanOrEqual(GIGS * stepsEach + 8);
    expect([mm.residentBytes, host.freeBytes, host.state.folios.live]).toEqual([2 ** 40, 0, GIGS]);
    expect(mm.leafPages(START + 12345)).toBe(GIG);
    expect(countSteps(mm.pin(agent, START, 16 * GIG))).toBeLessThanOrEqual(16 + 8);
    expect(mm.pinnedBytes).toBe(16 * 2 ** 30);
    runToEnd(mm.unpin(agent, START, 16 * GIG));
    expect(countSteps(mm.exit(agent))).toBeLessThanOrEqual(GIGS + 16);
    host.setHugePages('1G', 0);
    expect(host.allocator.allocatedFrames).toBe(0);
    expect(host.audit()).toEqual([]);
  });

  it('takes one 4K page out of 1 TiB by splitting two folios, into 512 + 512 and nothing else', () => {
    const { host, mm, agent } = terabyte('pud-thp');
    runToEnd(mm.populate(agent, START, GIGS * GIG));
    expect(host.state.folios.limit).toBe(GIGS + 1);
    const page = START + 5 * GIG + 777;
    runToEnd(mm.cpuAccess(agent, page, { write: true, tagLo: 1, tagHi: 2 }));
    const steps = countSteps(mm.pageOut(agent, page));
    // Two splits, one page: no step for each piece.
    expect(steps).toBeLessThan(40);
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 1, '2M->4K': 1 });
    expect(host.state.folios.live).toBe(GIGS - 1 + 511 + 511);
    expect(host.state.folios.limit).toBeLessThanOrEqual(GIGS + 511 + 511 + 1);
    // Nobody has looked at the LRU.
    expect([host.counters.pgscan_direct, host.counters.pgscan_proactive, host.counters.pgscan_kswapd]).toEqual([
      0, 0, 0,
    ]);
    expect([mm.swappedBytes, mm.residentBytes]).toEqual([4096, 2 ** 40 - 4096]);
    expect([mm.leafPages(page - 1), mm.leafPages(page + 512), mm.leafPages(page + GIG)]).toEqual([1, 512, GIG]);
    expect(host.audit()).toEqual([]);
  });
});
