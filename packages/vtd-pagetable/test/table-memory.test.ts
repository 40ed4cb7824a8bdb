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
    [{ pages: 1, basePfn: -1 }, 'basePfn: -1'],
    [{ pages: 1, basePfn: 0x7fff_ffff }, 'basePfn: 2147483647'],
  ])('refuses %j', (options, message) => {
    expect(() => new TableMemory(options)).toThrow(message);
  });
  it('refuses a buffer that is smaller than its pages', () => {
    const { buffer } = new TableMemory({ pages: 2 });
    expect(() => TableMemory.attach({ pages: 3 }, buffer)).toThrow(
      new RangeError('pages: 3 do not fit in a buffer of 0x2000 bytes'),
    );
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

describe('memory without coherency', () => {
  const incoherent = () => new TableMemory({ pages: 8, coherent: false });

  it('shows a CPU write to hardware with the flush of its line, and to nobody else before', () => {
    const memory = incoherent();
    const pfn = memory.allocate();
    memory.store(pfn, 9, 0x1_0000_0003n);
    memory.store(pfn, 16, 5n);
    expect([memory.load(pfn, 9), memory.hardwareLoad(pfn, 9)]).toEqual([0x1_0000_0003n, 0n]);
    expect([memory.halves[18], memory.cpuHalves[18]]).toEqual([0, 3]);
    expect([memory.isUnflushed(pfn, 15), memory.isUnflushed(pfn, 0)]).toEqual([true, false]);
    memory.flush(pfn, 8);
    expect([memory.hardwareLoad(pfn, 9), memory.hardwareLoad(pfn, 16)]).toEqual([0x1_0000_0003n, 0n]);
    expect([memory.isUnflushed(pfn, 15), memory.isUnflushed(pfn, 16)]).toEqual([false, true]);
    memory.flush(pfn, 0, 512);
    expect(memory.hardwareLoad(pfn, 16)).toBe(5n);
  });
  it('flushes every line that the entries touch', () => {
    const memory = incoherent();
    const pfn = memory.allocate();
    for (let index = 0; index < 512; index++) memory.store(pfn, index, 1n);
    memory.flush(pfn, 7, 2);
    const seen = Array.from({ length: 512 }, (_, index) => memory.hardwareLoad(pfn, index));
    expect(seen.reduce((sum, word) => sum + Number(word), 0)).toBe(16);
    expect(seen.slice(0, 16).every((word) => word === 1n)).toBe(true);
  });
  it('leaves a page that is used again as hardware knew it until it is flushed', () => {
    const memory = incoherent();
    const pfn = memory.allocate();
    memory.store(pfn, 0, 3n);
    memory.flush(pfn, 0);
    memory.free(pfn);
    expect(memory.allocate()).toBe(pfn);
    expect([memory.load(pfn, 0), memory.hardwareLoad(pfn, 0)]).toEqual([0n, 3n]);
  });
  it('snoops what hardware writes, in both kinds of memory', () => {
    for (const memory of [incoherent(), new TableMemory({ pages: 8 })]) {
      const pfn = memory.allocate();
      memory.hardwareStore(pfn, 4, 0x77n);
      expect([memory.load(pfn, 4), memory.hardwareLoad(pfn, 4)]).toEqual([0x77n, 0x77n]);
    }
  });
  it('is seen at once if coherent, with or without a flush', () => {
    const memory = new TableMemory({ pages: 1 });
    const pfn = memory.allocate();
    memory.store(pfn, 1, 9n);
    expect([memory.hardwareLoad(pfn, 1), memory.isUnflushed(pfn, 1)]).toEqual([9n, false]);
    memory.flush(pfn, 1);
    expect(memory.load(pfn, 1)).toBe(9n);
  });
});

describe('pages in a row', () => {
  it('are zeroed, counted, and freed one by one', () => {
    const memory = new TableMemory({ basePfn: 0x10, pages: 6 });
    memory.allocate();
    expect(memory.allocateContiguous(4)).toBe(0x11);
    expect(memory.allocateContiguous(2)).toBe(-1);
    expect([memory.used, memory.isAllocated(0x14), memory.isAllocated(0x15)]).toEqual([5, true, false]);
    for (let pfn = 0x11; pfn < 0x15; pfn++) memory.free(pfn);
    expect(memory.used).toBe(1);
    expect(() => memory.allocateContiguous(0)).toThrow('count: 0');
  });
});

describe('the reserve', () => {
  it('helps out only when the host is short, with zeroed pages', () => {
    const memory = new TableMemory({ pages: 3 });
    const reserve = new TableReserve(memory, { target: 2 });
    const [first, second, third, fourth] = [0, 1, 2, 3].map(() => reserve.allocateOrTake(false));
    expect([reserve.held, reserve.taken, reserve.failures, fourth]).toEqual([0, 2, 3, -1]);
    memory.store(second as number, 7, 7n);
    reserve.giveBack(second as number);
    reserve.giveBack(third as number);
    reserve.giveBack(first as number); // full: back to the host
    expect([reserve.held, memory.used]).toEqual([2, 2]);
    const again = [0, 1, 2].map(() => reserve.allocateOrTake(false));
    expect(again.map((pfn) => memory.isEmpty(pfn))).toEqual([true, true, true]);
    for (const pfn of again) reserve.giveBack(pfn);
    reserve.release();
    expect([reserve.held, memory.used]).toEqual([0, 0]);
  });
  it('announces a refill before it takes a page', () => {
    const memory = new TableMemory({ pages: 2 });
    const reserve = new TableReserve(memory, { target: 1 });
    const pages = [0, 1].map(() => reserve.allocateOrTake(false));
    memory.free(pages[0] as number);
    const refill = reserve.refill(PLAIN);
    expect([refill.next().done, reserve.held, memory.used]).toEqual([false, 0, 1]);
    runToEnd(refill);
    expect([reserve.held, memory.used]).toEqual([1, 2]);
  });
  it('holds what it could get', () => {
    expect(new TableReserve(new TableMemory({ pages: 1 }), { target: 4 }).held).toBe(1);
    expect(new TableReserve(new TableMemory({ pages: 1 }), { target: 1 }).allocate(false)).toBe(-1);
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
