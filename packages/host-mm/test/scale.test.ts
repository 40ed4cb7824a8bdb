import { Agent, runToEnd } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { HostMemory } from '../src/index.ts';
import { countSteps } from './run.ts';

const GIG = 1 << 18;

describe('cost follows what is touched', () => {
  it('populates, pins and drops 1 TiB of 1G folios in a few steps a folio', () => {
    const gigs = 1024;
    const host = new HostMemory({ frames: gigs * GIG, swapSlots: 1024 });
    const mm = host.createAddressSpace('vmm');
    const agent = new Agent('boot');
    mm.mmap({ startPage: 2 ** 40, pages: gigs * GIG, backing: 'pud-thp' });
    expect(countSteps(mm.populate(agent, 2 ** 40, gigs * GIG))).toBeLessThanOrEqual(gigs + 8);
    expect(mm.residentBytes).toBe(2 ** 40);
    expect(host.freeBytes).toBe(0);
    expect(mm.leafPages(2 ** 40 + 12345)).toBe(GIG);
    expect(countSteps(mm.pin(agent, 2 ** 40, 16 * GIG))).toBeLessThanOrEqual(16 + 8);
    expect(mm.pinnedBytes).toBe(16 * 2 ** 30);
    runToEnd(mm.unpin(agent, 2 ** 40, 16 * GIG));
    expect(countSteps(mm.exit(agent))).toBeLessThanOrEqual(gigs + 16);
    expect(host.allocator.allocatedFrames).toBe(0);
    expect(host.audit()).toEqual([]);
  });

  it('takes one 4K page out of 1 TiB by splitting two leaves', () => {
    const gigs = 1024;
    const host = new HostMemory({ frames: gigs * GIG, swapSlots: 1024 });
    const mm = host.createAddressSpace('vmm');
    const agent = new Agent('boot');
    mm.mmap({ startPage: 0, pages: gigs * GIG, backing: 'pud-thp' });
    runToEnd(mm.populate(agent, 0, gigs * GIG));
    expect(runToEnd(mm.pageOut(agent, 5 * GIG + 777))).toBe(true);
    expect(host.counters.folioSplits).toEqual({ '1G->2M': 1, '2M->4K': 1 });
    expect(mm.swappedBytes).toBe(4096);
    expect(mm.residentBytes).toBe(2 ** 40 - 4096);
    expect(host.audit()).toEqual([]);
  });
});
