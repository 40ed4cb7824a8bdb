import { Agent, runToEnd, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { HostMemory } from '../src/index.ts';
import { Recorder } from './recorder.ts';

const agent = new Agent('agent');
const FIRST = 0x40000;
const PAGES = 4 * 512;

/** 8M of frames, all in use by 4K pages, of which every `keep`-th is left: no 2M is free. */
function fragmented(keep: number) {
  const host = new HostMemory({ frames: PAGES, firstPfn: FIRST });
  const mm = host.createAddressSpace('vmm');
  mm.mmap({ startPage: 0, pages: PAGES, backing: '4K' });
  runToEnd(mm.populate(agent, 0, PAGES));
  for (let page = 0; page < PAGES; page++) host.memory.writeTag(mm.lookup(page), page + 1, 7);
  for (let page = 0; page < PAGES; page++)
    if (mm.lookup(page) % keep !== 0) runToEnd(mm.madviseDontNeed(agent, page, 1));
  const left: number[] = [];
  for (let page = 0; page < PAGES; page++) if (mm.lookup(page) >= 0) left.push(page);
  return { host, mm, left, recorder: new Recorder(mm) };
}

describe('compaction', () => {
  it('makes a 2M block out of scattered frames: low pages move to high frames, each with a CLEAR of 4K', () => {
    const { host, mm, left, recorder } = fragmented(4);
    expect(host.allocator.largestFreeOrder).toBe(1);
    const before = left.map((page) => mm.lookup(page));
    expect(runToEnd(host.compact(agent))).toBe(true);
    expect(host.allocator.largestFreeOrder).toBe(9);
    const moved = left.filter((page, i) => mm.lookup(page) !== before[i]);
    expect(recorder.take().sort()).toEqual(moved.map((page) => `CLEAR ${page}+1`).sort());
    expect(moved.length).toBe(128);
    for (const page of moved) {
      expect(before[left.indexOf(page)]).toBeLessThan(FIRST + 512);
      expect(mm.lookup(page)).toBeGreaterThanOrEqual(FIRST + 3 * 512);
    }
    for (const page of left) expect(mm.cpuRead(page).tagLo).toBe(page + 1);
    expect(host.counters).toMatchObject({ compact_success: 1, compact_fail: 0, pgmigrate_success: 128 });
    expect(host.audit()).toEqual([]);
  });

  it('does nothing if there is such a block', () => {
    const { host, recorder } = fragmented(4);
    expect(runToEnd(host.compact(agent, 1))).toBe(true);
    expect(recorder.take()).toEqual([]);
  });

  it('stops at the order that is asked for', () => {
    const { host, recorder } = fragmented(4);
    expect(runToEnd(host.compact(agent, 4))).toBe(true);
    expect(recorder.take().length).toBe(4);
    expect(host.allocator.largestFreeOrder).toBe(4);
  });

  it('gives up where the scanners meet: too little is free', () => {
    const { host, mm } = fragmented(1);
    for (let page = 0; page < 400; page++) runToEnd(mm.madviseDontNeed(agent, page * 5, 1));
    expect(runToEnd(host.compact(agent))).toBe(false);
    expect(host.counters.compact_fail).toBe(1);
    expect(host.audit()).toEqual([]);
  });

  it('leaves pinned pages, whose 2M it cannot have, and takes the next one, telling nobody of them', () => {
    const { host, mm, left, recorder } = fragmented(4);
    const pinned = left.find((page) => mm.lookup(page) < FIRST + 16);
    if (pinned === undefined) throw new Error('no page is low');
    runToEnd(mm.pin(agent, pinned, 1));
    const pfn = mm.lookup(pinned);
    expect(runToEnd(host.compact(agent))).toBe(true);
    expect(mm.lookup(pinned)).toBe(pfn);
    expect(recorder.take()).not.toContain(`CLEAR ${pinned}+1`);
    runToEnd(mm.unpin(agent, pinned, 1));
    expect(host.audit()).toEqual([]);
  });

  it('visits what is in use only: nothing of a TiB that is free', () => {
    const frames = 2 ** 28;
    const host = new HostMemory({ frames, firstPfn: 0 });
    const mm = host.createAddressSpace('vmm');
    for (let pfn = 0; pfn < frames + 0x4_0000; pfn += 512)
      if (host.memory.contains(pfn + 511)) host.allocator.allocateAt(pfn, 0);
    mm.mmap({ startPage: 0, pages: 512, backing: '4K' });
    runToEnd(mm.populate(agent, 0, 512));
    const run = new TaskRun(agent, host.compact(agent));
    let steps = 0;
    for (; !run.done; steps++) run.advance();
    // The one 2M has a frame of the host itself, which does not move.
    expect(run.value).toBe(false);
    expect(steps).toBeLessThan(512 * 12);
  });

  it('refuses orders that it cannot make', () => {
    const { host } = fragmented(4);
    expect(() => runToEnd(host.compact(agent, 10))).toThrow('order: 0xa is not an integer in 0x1..0x9');
  });

  it('survives the exit of the process before any of its steps', () => {
    for (let steps = 0; steps < 400; steps += 3) {
      const { host, mm } = fragmented(64);
      const run = new TaskRun(agent, host.compact(agent));
      for (let i = 0; i < steps && !run.done; i++) run.advance();
      const exit = new TaskRun(new Agent('exit'), mm.exit(new Agent('exit')));
      while (!exit.done || !run.done) {
        if (!exit.done && exit.enabled) exit.advance();
        else run.advance();
      }
      expect(host.audit()).toEqual([]);
      expect(host.allocator.allocatedFrames).toBe(0);
    }
  });
});
