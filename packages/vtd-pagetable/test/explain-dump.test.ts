/// <reference types="node" />
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_STRUCTURE_CAPABILITIES,
  encodeLeaf,
  encodeTable,
  explainDump,
  explainTable,
  FaultReason,
  InvalidationGather,
  parseTranslationDump,
  reservedMasks,
  SecondStageTable,
  type TableLevel,
  TableMemory,
  WalkAccess,
  WalkMode,
  WalkState,
  WalkStatus,
  walk,
} from '../src/index.ts';
import { entryUnits, words64 } from './arbitrary-unit.ts';

const RW = { read: true, write: true };
const hex16 = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`;

/** The text that the kernel's file has for a table, by a walk of our own over all entries. */
function debugfsText(table: SecondStageTable): string {
  const lines = [`Device 0000:00:05.0 @0x${(table.rootPfn * 4096).toString(16)}`, 'IOVA_PFN\t\tPML5E\t\t\tPML4E'];
  const visit = (pfn: number, level: number, page: number, path: readonly bigint[]): void => {
    for (let index = 0; index < 512; index++) {
      const entry = table.memory.load(pfn, index);
      if ((entry & 3n) === 0n) continue;
      const at = page + index * 512 ** (level - 1);
      const here = [...path, entry];
      if (level > 1 && (entry & 0x80n) === 0n) visit(Number((entry >> 12n) & 0xff_ffff_ffffn), level - 1, at, here);
      else {
        const columns = [...Array.from({ length: 5 - table.levels }, () => 0n), ...here, 0n, 0n, 0n, 0n].slice(0, 5);
        lines.push(`0x${at.toString(16).padStart(13, '0')} |\t${columns.map(hex16).join('\t')}`);
      }
    }
  };
  visit(table.rootPfn, table.levels, 0, []);
  return `${lines.join('\n')}\n\n`;
}

describe('a dump', () => {
  it('of any table is walked to what the table says', () => {
    const mapping = fc.record({
      page: fc.integer({ min: 0, max: 2 ** 20 }),
      // Below the interrupt range, which would be odd.
      frame: fc.integer({ min: 0, max: 0xf_0000 }),
      pages: fc.constantFrom(1, 3, 512, 700),
      align: fc.constantFrom(1, 512),
      read: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(3 as const, 4 as const, 5 as const),
        fc.array(mapping, { maxLength: 5 }),
        (levels, mappings) => {
          const table = new SecondStageTable({ memory: new TableMemory({ basePfn: 0x40_0000, pages: 200 }), levels });
          for (const { page, frame, pages, align, read } of mappings)
            try {
              table.map({
                page: page - (page % align),
                frame: frame - (frame % align),
                pages,
                rights: { read, write: true },
              });
            } catch {
              // It overlaps an earlier one; what was mapped of it stays.
            }
          const { rows, damaged } = parseTranslationDump(debugfsText(table));
          expect(damaged).toEqual([]);
          expect(rows.every(({ device, dump }) => device === '0000:00:05.0' && dump === 1)).toBe(true);
          const accounts = explainDump(rows, { ...DEFAULT_STRUCTURE_CAPABILITIES, guestAddressWidth: 57 });
          let pages = 0;
          for (const { page, entries, oddities, faults, row } of accounts) {
            expect(oddities).toEqual([]);
            expect(row.entries).toHaveLength(levels);
            expect(entries.at(-1)?.shape).toBe('leaf');
            const first = Number((page?.iova ?? 0n) >> 12n);
            const size = Number((page?.bytes ?? 0n) >> 12n);
            pages += size;
            expect(table.frameAt(first)).toBe(Number((page?.host ?? 0n) >> 12n));
            expect(table.frameAt(first + size - 1)).toBe(Number((page?.host ?? 0n) >> 12n) + size - 1);
            expect(faults.map(({ request }) => request)).toEqual(page?.rights === 3 ? [] : ['read', 'read']);
          }
          const { '4K': small, '2M': middle, '1G': large } = table.leafCounts;
          expect(accounts).toHaveLength(small + middle + large);
          expect(pages).toBe(small + middle * 512 + large * 512 * 512);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('has the page and the faults that a walk of either mode has, over any entries', () => {
    const entry = (next: number) =>
      fc.oneof(
        { weight: 6, arbitrary: fc.nat(3).map((rights) => (BigInt(next) << 12n) | BigInt(rights)) },
        { weight: 6, arbitrary: fc.constant((BigInt(next) << 12n) | 3n) },
        { weight: 1, arbitrary: fc.nat(11).map((bit) => (BigInt(next) << 12n) | 3n | (1n << BigInt(bit))) },
        { weight: 1, arbitrary: fc.constant(0x4000_0083n) },
        { weight: 1, arbitrary: words64 },
      );
    const chain = fc.tuple(entry(0x101), entry(0x102), entry(0x103), entry(0x900));
    fc.assert(
      fc.property(entryUnits, chain, (unit, words) => {
        const memory = new TableMemory({ basePfn: 0x100, pages: 4 });
        for (const word of words) memory.store(memory.allocate(), 0, word);
        const rows = [
          {
            line: 1,
            dump: 1,
            device: '',
            iova: 0n,
            entries: words.map((value, index) => ({ level: (4 - index) as TableLevel, value })),
          },
        ];
        const [account] = explainDump(rows, { ...DEFAULT_STRUCTURE_CAPABILITIES, ...unit });
        for (const mode of ['legacy', 'scalable'] as const)
          for (const request of ['read', 'write'] as const) {
            const state = new WalkState();
            state.mode = WalkMode[mode];
            state.begin(0x100, 4, 0, 0, WalkAccess[request]);
            walk(memory, reservedMasks(unit), state);
            // A dump shows what the kernel found; where the words lead elsewhere, it is no chain.
            fc.pre(![FaultReason.tableAccess, FaultReason.secondStageAccess].includes(state.faultReason as 7));
            fc.pre(state.status !== WalkStatus.faulted || state.tablePfn === 0x104 - state.level);
            fc.pre(state.status !== WalkStatus.translated || state.tablePfn === 0x104 - state.level);
            const fault = account?.faults.find((found) => found.mode === mode && found.request === request);
            expect(fault?.reason ?? 0, `${mode} ${request}`).toBe(state.faultReason);
            if (state.status !== WalkStatus.translated) continue;
            expect(account?.page?.host).toBe(BigInt(state.framePfn) << 12n);
            expect(account?.page?.rights).toBe(state.rights);
          }
      }),
      { numRuns: 3000 },
    );
  });

  it('has a fault where the rights of the levels do not meet', () => {
    const text = (pde: string, pte: string) => `pt IOVA_PFN=0x10 PML4E=1003 PDPE=2003 PDE=${pde} PTE=${pte}`;
    const explained = (pde: string, pte: string) => {
      const [account] = explainDump(parseTranslationDump(text(pde, pte)).rows);
      return {
        rights: account?.page?.rights,
        faults: account?.faults.map(({ request, reason }) => `${request} ${reason.toString(16)}`).sort(),
      };
    };
    expect(explained('3003', '5003')).toEqual({ rights: 3, faults: [] });
    expect(explained('3001', '5003')).toEqual({ rights: 1, faults: ['write 5', 'write 85'] });
    expect(explained('3001', '5001')).toEqual({ rights: 1, faults: ['write 5', 'write 85'] });
    // Read at one level, write at the other: nothing is left, which scalable mode reports as 79h.
    expect(explained('3001', '5002')).toEqual({ rights: 0, faults: ['read 6', 'read 79', 'write 5', 'write 79'] });
    expect(explained('3003', '0')).toEqual({ rights: undefined, faults: ['read 6', 'read 79', 'write 5', 'write 79'] });
    expect(explained('3803', '5003')).toEqual({
      rights: undefined,
      faults: ['read 7a', 'read c', 'write 7a', 'write c'],
    });
  });

  it('shows what is odd', () => {
    const oddities = (...lines: string[]) =>
      explainDump(parseTranslationDump(lines.join('\n')).rows).flatMap(({ oddities: found }) => found);
    expect(oddities('IOVA_PFN=0x200 PML4E=1003 PDPE=2003 PDE=200083 PTE=5003')).toEqual([
      'SS-PTE 0x5003 is shown, but the walk ends at SS-PDE',
    ]);
    expect(oddities('IOVA_PFN=0x201 PML4E=1003 PDPE=2003 PDE=200083 PTE=0')).toEqual([
      'the row does not begin where its page does',
    ]);
    expect(oddities('IOVA_PFN=0x1000000000 PML4E=1003 PDPE=2003 PDE=200083 PTE=0')).toEqual([
      'the address has more than 48 bits: a request would be refused first',
    ]);
    expect(oddities('IOVA_PFN=0x1 PML4E=1803 PDPE=2003 PDE=3003 PTE=5003')).toEqual([
      'SS-PML4E has reserved bits set: 11',
    ]);
    const first = 'IOVA_PFN=0x1 PML4E=1003 PDPE=2003 PDE=3003 PTE=5003';
    expect(oddities(first, 'IOVA_PFN=0x2 PML4E=9003 PDPE=2003 PDE=3003 PTE=6003')).toEqual([
      'SS-PML4E was 0x1003 in line 1: the table changed under the dump',
    ]);
    expect(oddities(first, 'IOVA_PFN=0x201 PML4E=1003 PDPE=2003 PDE=1003 PTE=6003')).toEqual([
      'the table at 0x1000 is used at another level in line 1',
    ]);
    expect(oddities(first, 'IOVA_PFN=0x2 PML4E=1003 PDPE=2003 PDE=3003 PTE=3003')).toEqual([
      'maps the page-table page at 0x3000 that line 1 walks through',
    ]);
    // Rows apart were not dumped together, and other devices have other tables.
    expect(oddities(first, 'something else', 'IOVA_PFN=0x2 PML4E=9003 PDPE=2003 PDE=3003 PTE=6003')).toEqual([]);
    const column = (page: string, pml4e: string) =>
      `0x000000000000${page} |\t0x0\t0x${pml4e}\t0x0000000000002003\t0x0000000000003003\t0x0000000000005003`;
    expect(
      oddities('Device 0000:00:01.0 @0x1', column('1', '1003'), '', 'Device 0000:00:02.0 @0x2', column('1', '9003')),
    ).toEqual([]);
    expect(oddities('Device 0000:00:01.0 @0x1', column('1', '1003'), column('2', '9003'))).toHaveLength(1);
  });

  it('tells damaged rows from other lines', () => {
    const { rows, damaged } = parseTranslationDump(
      [
        'nothing to see',
        'IOVA_PFN=0x10 PML4E=1003 PDPE=xyz PDE=0 PTE=0',
        'IOVA_PFN=0x10 PML4E=1003 PDE=0 PTE=0',
        '0x0000000000010 |\t0x1\t0x2',
        '0x0000000000010 |\t0x1\t0x2\t0x3\t0x4\t0xzz',
        '  pt IOVA_PFN=0x10 PDPE=2003 PDE=3003 PTE=5003',
      ].join('\r\n'),
    );
    expect(damaged.map(({ line, problem }) => `${line} ${problem}`)).toEqual([
      '2 PDPE is not a hexadecimal 64-bit number',
      '3 expected the entries of three, four or five levels, down to PTE',
      '4 expected five columns, PML5E to PTE, not 2',
      '5 a column is not a hexadecimal 64-bit number',
    ]);
    expect(rows).toEqual([
      {
        line: 6,
        dump: 1,
        device: '',
        iova: 0x10000n,
        entries: [
          { level: 3, value: 0x2003n },
          { level: 2, value: 0x3003n },
          { level: 1, value: 0x5003n },
        ],
      },
    ]);
  });

  it.for(['6.12.95', '7.3.4'])('of Linux %s, as recorded, maps what its map events say', (version, context) => {
    const path = resolve(import.meta.dirname, `../../../../shared/traces/iofd-${version}.log`);
    if (!existsSync(path)) context.skip(`not tested: the recording ../shared/traces/iofd-${version}.log is not there`);
    const text = readFileSync(path, 'utf8');
    const { rows, damaged } = parseTranslationDump(text);
    expect([rows.length, damaged.length]).toEqual([33, 0]);
    const lines = text.split('\n');
    let compared = 0;
    for (const { page, faults, oddities, row } of explainDump(rows)) {
      expect(page).not.toBeNull();
      expect(oddities).toEqual([]);
      expect(faults.length).toBe(page?.rights === 3 ? 0 : 2);
      // The last map event above that covers the row's first page gives the same host address.
      for (let index = row.line - 2; index >= 0; index--) {
        const event = /map: IOMMU: iova=(0x\w+) - (0x\w+) paddr=(0x\w+)/.exec(lines[index] ?? '');
        const [start, end, host] = (event?.slice(1) ?? []).map(BigInt);
        if (start === undefined || end === undefined || host === undefined || row.iova < start || row.iova >= end)
          continue;
        // An event of another domain with the same address has another host address.
        if (host + (row.iova - start) === (page?.host ?? 0n) + (row.iova - (page?.iova ?? 0n))) compared++;
        break;
      }
    }
    expect(compared).toBeGreaterThan(25);
  });
});

describe('a whole table', () => {
  it('comes as runs of like entries', () => {
    const words = Array.from({ length: 512 }, () => 0n);
    for (let index = 0; index < 8; index++) words[index + 2] = encodeLeaf(2, 0x2_0000 + index * 512, 3);
    words[10] = encodeLeaf(2, 0x9_0000, 3);
    words[11] = encodeTable(0x55);
    words[12] = encodeTable(0x33);
    words[13] = encodeTable(0x34) | 0x800n;
    const table = explainTable('pde', words);
    expect(table).toMatchObject({
      entries: 512,
      bytesPerEntry: 0x200000n,
      leaves: 9,
      tables: 3,
      absent: 500,
      reserved: [13],
    });
    expect(table.runs.map(({ first, last, consecutive, entry }) => [first, last, consecutive, entry.shape])).toEqual([
      [0, 1, false, 'absent'],
      [2, 9, true, 'leaf'],
      [10, 10, false, 'leaf'],
      [11, 12, false, 'table'],
      [13, 13, false, 'table'],
      [14, 511, false, 'absent'],
    ]);
  });
  it('does not hide a reserved bit of the address in a run', () => {
    const words = Array.from({ length: 512 }, (_, index) => encodeLeaf(2, index * 512, 3));
    words[7] = (words[7] ?? 0n) | 0x1000n;
    const pointers = Array.from({ length: 512 }, (_, index) => encodeTable(0x900 + index));
    pointers[7] = (pointers[7] ?? 0n) | (1n << 50n);
    for (const page of [words, pointers]) {
      const { runs, reserved } = explainTable('pde', page);
      expect(reserved).toEqual([7]);
      expect(runs.map(({ first, last, entry }) => [first, last, entry.reservedBits.length])).toEqual([
        [0, 6, 0],
        [7, 7, 1],
        [8, 511, 0],
      ]);
    }
  });
  it('of a cut leaf is what the cut left', () => {
    const table = new SecondStageTable({ memory: new TableMemory({ pages: 16 }), levels: 4 });
    table.map({ page: 0x40000, frame: 0x240000, pages: 262144, rights: RW });
    const gather = new InvalidationGather();
    table.cut(0x40123, 1, gather);
    table.unmap(0x40123, 1, gather);
    const pageAt = (pfn: number) => Array.from({ length: 512 }, (_, index) => table.memory.load(pfn, index));
    const address = (words: readonly bigint[], index: number) =>
      Number(((words[index] ?? 0n) >> 12n) & 0xff_ffff_ffffn);
    const pdptes = pageAt(address(pageAt(table.rootPfn), 0));
    const pdes = pageAt(address(pdptes, 1));
    const runs = (kind: 'pde' | 'pte', words: readonly bigint[]) =>
      explainTable(kind, words).runs.map(({ first, last, entry }) => `${first}-${last} ${entry.shape}`);
    expect(runs('pde', pdes)).toEqual(['0-0 table', '1-511 leaf']);
    expect(runs('pte', pageAt(address(pdes, 0)))).toEqual(['0-290 leaf', '291-291 absent', '292-511 leaf']);
  });
  it('of structures counts entries of their size', () => {
    const words = Array.from({ length: 512 }, () => 0n);
    words[8] = 0x1003n;
    expect(explainTable('pasid', words)).toMatchObject({ entries: 64, structures: 1, absent: 63, bytesPerEntry: 0n });
    expect(explainTable('context-scalable', words)).toMatchObject({ entries: 128, structures: 1 });
    expect(() => explainTable('pde', words.slice(1))).toThrow('words: a table has 512, not 511');
  });
});
