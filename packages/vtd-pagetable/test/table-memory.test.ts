import { runToEnd } from '@faultline/sim';
import { describe, expect, it } from 'vitest';
import { InvalidationGather, TableMemory, TableReserve } from '../src/index.ts';
import { PLAIN } from './plain-agent.ts';

describe('table memory', () => {
  it('hands out each page once, zeroed, and counts', () => {
    const memory = new TableMemory({ basePfn: 0x500, pages: 3 });
    const pages = [memory.allocate(), memory.allocate(), memory.allocate(), memory.allocate()];
    expect(pages).toEqual([0x500, 0x501, 0x502, -1]);
    memory.store(0x501, 3, 99n);
    expect([memory.isEmpty(0x500), memory.isEmpty(0x501)]).toEqual([true, false]);
    memory.free(0x501);
    expect([memory.used, memory.peak, memory.isAllocated(0x501), memory.contains(0x501)]).toEqual([2, 3, false, true]);
    expect(memory.load(0x501, 3)).toBe(0x7fff_ffff_ffff_ffffn);
    expect(memory.allocate()).toBe(0x501);
    expect(memory.isEmpty(0x501)).toBe(true);
  });
  it('refuses a second free and frames outside', () => {
    const memory = new TableMemory({ pages: 2 });
    const pfn = memory.allocate();
    memory.free(pfn);
    expect(() => memory.free(pfn)).toThrow('table page 1000 freed twice or never allocated');
    expect(() => memory.free(0x1001)).toThrow('freed twice or never allocated');
    expect(() => memory.load(0x1002, 0)).toThrow('frame 0x1002 is not in table memory');
    expect([memory.contains(0xfff), memory.contains(0x1002)]).toEqual([false, false]);
  });
  it.each([
    [{ pages: 0 }, 'pages: 0'],
    [{ pages: 1.5 }, 'pages: 1.5'],
    [{ pages: 2 ** 21 + 1 }, 'pages: 2097153 is not an integer in 1..2^21'],
    [{ pages: 1, basePfn: 0 }, 'basePfn: 0'],
    [{ pages: 1, basePfn: 0x7fff_ffff }, 'basePfn: 2147483647'],
  ])('refuses %j', (options, message) => {
    expect(() => new TableMemory(options)).toThrow(message);
  });
  it('is one memory through every view of its buffer', () => {
    const options = { pages: 2 };
    const memory = new TableMemory(options);
    const view = TableMemory.attach(options, memory.buffer);
    const pfn = memory.allocate();
    memory.store(pfn, 511, 0x1234_5678_9abc_def0n);
    expect(view.load(pfn, 511)).toBe(0x1234_5678_9abc_def0n);
    expect([view.halves[1022], view.halves[1023]]).toEqual([0x9abc_def0 | 0, 0x1234_5678]);
    expect(view.compareExchange(pfn, 511, 0n, 1n)).toBe(0x1234_5678_9abc_def0n);
    expect(view.compareExchange(pfn, 511, 0x1234_5678_9abc_def0n, 1n)).toBe(0x1234_5678_9abc_def0n);
    expect(memory.load(pfn, 511)).toBe(1n);
    expect(memory.location(pfn, 511) * 8).toBe(pfn * 4096 + 511 * 8);
  });
});

describe('the reserve', () => {
  it('helps out only when the host is short, with zeroed pages', () => {
    const memory = new TableMemory({ pages: 3 });
    const reserve = new TableReserve(memory, { target: 2 });
    const [first, second, third, fourth] = [0, 1, 2, 3].map(() => runToEnd(reserve.allocateOrTake(PLAIN)));
    expect([reserve.held, reserve.taken, reserve.failures, fourth]).toEqual([0, 2, 3, -1]);
    memory.store(second as number, 7, 7n);
    reserve.giveBack(second as number);
    reserve.giveBack(third as number);
    reserve.giveBack(first as number); // full: back to the host
    expect([reserve.held, memory.used]).toEqual([2, 2]);
    const again = [0, 1, 2].map(() => runToEnd(reserve.allocateOrTake(PLAIN)));
    expect(again.map((pfn) => memory.isEmpty(pfn))).toEqual([true, true, true]);
    for (const pfn of again) reserve.giveBack(pfn);
    reserve.release();
    expect([reserve.held, memory.used]).toEqual([0, 0]);
  });
  it('announces a refill before it takes a page', () => {
    const memory = new TableMemory({ pages: 2 });
    const reserve = new TableReserve(memory, { target: 1 });
    const pages = [0, 1].map(() => runToEnd(reserve.allocateOrTake(PLAIN)));
    memory.free(pages[0] as number);
    const refill = reserve.refill(PLAIN);
    expect([refill.next().done, reserve.held, memory.used]).toEqual([false, 0, 1]);
    runToEnd(refill);
    expect([reserve.held, memory.used]).toEqual([1, 2]);
  });
  it('holds what it could get', () => {
    expect(new TableReserve(new TableMemory({ pages: 1 }), { target: 4 }).held).toBe(1);
    expect(runToEnd(new TableReserve(new TableMemory({ pages: 1 }), { target: 1 }).allocate(PLAIN))).toBe(-1);
  });
});

it('a gather is the hull of what was added', () => {
  const gather = new InvalidationGather();
  expect([gather.empty, gather.leafOnly]).toEqual([true, true]);
  gather.add(10, 1);
  gather.add(0, 1);
  expect([gather.empty, gather.firstPage, gather.lastPage]).toEqual([false, 0, 10]);
  gather.addTable(0x1005, 512, 512);
  expect([gather.lastPage, gather.leafOnly, gather.freedTables]).toEqual([1023, false, [0x1005]]);
});
