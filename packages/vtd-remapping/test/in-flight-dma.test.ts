import { Agent, TaskRun } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { InFlightDma } from '../src/index.ts';

describe('drain', () => {
  it('waits for DMA that began before it, and for no other', () => {
    const dma = new InFlightDma('unit');
    const agent = new Agent('hardware');
    const before = [dma.begin(), dma.begin()];
    const drain = new TaskRun(agent, dma.drain(agent));
    drain.advance();
    const after = dma.begin();
    expect(drain.enabled).toBe(false);
    dma.end(before[0] as number);
    expect(drain.enabled).toBe(false);
    dma.end(before[1] as number);
    expect(drain.enabled).toBe(true);
    drain.advance();
    expect([drain.done, dma.count]).toEqual([true, 1]);
    // The next one waits for what the first did not.
    const next = new TaskRun(agent, dma.drain(agent));
    next.advance();
    expect(next.enabled).toBe(false);
    dma.end(after);
    expect(next.enabled).toBe(true);
  });

  it('with nothing in flight takes no step; a DMA cannot end twice', () => {
    const dma = new InFlightDma('unit');
    expect(new InFlightDma('idle').drain(new Agent('a')).next().done).toBe(true);
    const token = dma.begin();
    dma.end(token);
    expect(() => dma.end(token)).toThrow('a DMA ended twice');
  });
});
