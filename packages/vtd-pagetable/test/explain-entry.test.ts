import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_STRUCTURE_CAPABILITIES,
  ENTRY_KINDS,
  type EntryCapabilities,
  type EntryKind,
  encodeContext,
  encodePasidEntry,
  encodeScalableContext,
  encodeTable,
  explainEntry,
  explainWords,
  FaultReason,
  layout,
  levelOfKind,
  namedValues,
  pagingEntryLayout,
  reservedMasks,
  type TableLevel,
  TableMemory,
  WalkAccess,
  WalkMode,
  WalkState,
  WalkStatus,
  walk,
  wordsOfKind,
} from '../src/index.ts';
import { entryUnits, structureUnits, words64 } from './arbitrary-unit.ts';
import { RESERVED } from './naive-structure.ts';
import { isReserved } from './naive-table.ts';

const levels = fc.constantFrom<TableLevel>(1, 2, 3, 4, 5);
const kinds = fc.constantFrom<EntryKind>(...ENTRY_KINDS);
/** Junk, and what looks like an entry. */
const pagingWords = fc.oneof(
  words64,
  fc
    .tuple(
      fc.bigInt({ min: 0n, max: 2n ** 25n - 1n }),
      fc.constantFrom(12n, 21n, 30n),
      fc.bigInt({ min: 0n, max: 0xfffn }),
    )
    .map(([frame, shift, low]) => ((frame << shift) & 0xf_ffff_ffff_f000n) | low),
);

/** Walks through plain tables to an entry at `level`; the entry's frame lies outside memory. */
function walkTo(
  unit: EntryCapabilities,
  level: TableLevel,
  entry: bigint,
  how: { access: 'read' | 'write'; mode: 'legacy' | 'scalable' },
): WalkState {
  const memory = new TableMemory({ basePfn: 0xf_fff0, pages: 5 });
  const tables = [1, 2, 3, 4, 5].map(() => memory.allocate());
  for (let at = 5; at > level; at--) memory.store(tables[5 - at] as number, 0, encodeTable(tables[6 - at] as number));
  memory.store(tables[5 - level] as number, 0, entry);
  const state = new WalkState();
  state.mode = WalkMode[how.mode];
  state.begin(tables[0] as number, 5, 0, 0, WalkAccess[how.access]);
  walk(memory, reservedMasks(unit), state);
  return state;
}

describe('paging entries', () => {
  it('are reserved in explain where the walker has them reserved, and where the tables of 9.8 say so', () => {
    fc.assert(
      fc.property(entryUnits, (unit) => {
        const masks = reservedMasks(unit);
        for (const level of [1, 2, 3, 4, 5] as const)
          for (const leaf of level === 1 ? [true] : level <= 3 ? [false, true] : [false]) {
            const { fields } = pagingEntryLayout(level, leaf, unit);
            const index = level * 2 + (leaf ? 1 : 0);
            const mask = (BigInt(masks.hi[index] as number) << 32n) | BigInt((masks.lo[index] as number) >>> 0);
            for (let bit = 0; bit < 64; bit++) {
              const field = fields.find(({ high, low }) => bit >= low && bit <= high);
              const reserved = field?.use === 'reserved';
              expect(reserved, `${level} ${leaf} ${bit}`).toBe(((mask >> BigInt(bit)) & 1n) === 1n);
              expect(reserved, `${level} ${leaf} ${bit}`).toBe(
                isReserved(bit, level, leaf, unit) && !(level === 1 && bit === 7),
              );
            }
          }
      }),
    );
  });

  it('give the faults that a walk gives, for reads and writes in both modes', () => {
    const access = fc.constantFrom('read' as const, 'write' as const);
    const mode = fc.constantFrom('legacy' as const, 'scalable' as const);
    fc.assert(
      fc.property(entryUnits, levels, pagingWords, fc.record({ access, mode }), (unit, level, entry, how) => {
        const kind = (['pte', 'pde', 'pdpte', 'pml4e', 'pml5e'] as const)[level - 1] ?? 'pte';
        const account = explainEntry(kind, [entry], { ...DEFAULT_STRUCTURE_CAPABILITIES, ...unit });
        const fault = account.faults.find((found) => found.mode === how.mode && found.request === how.access);
        const state = walkTo(unit, level, entry, how);
        // A table that passes leads out of memory: the walk faults there, not at this entry.
        const { tableAccess, secondStageAccess, scalableReadNotAllowed, scalableWriteNotAllowed } = FaultReason;
        const left = state.faultReason === tableAccess || state.faultReason === secondStageAccess;
        const passed = state.status === WalkStatus.translated || left;
        if (left && how.mode === 'scalable') {
          // A right that a table lacks is missed at the leaf only, with the reason that is foretold here.
          const denied = (entry >> (how.access === 'read' ? 0n : 1n)) & 1n ? 0 : 1;
          const foretold = how.access === 'read' ? scalableReadNotAllowed : scalableWriteNotAllowed;
          expect(fault?.reason ?? 0).toBe(denied ? foretold : 0);
        } else expect(fault?.reason ?? 0).toBe(passed ? 0 : state.faultReason);
        if (!passed) return;
        expect(account.shape).toBe(state.status === WalkStatus.translated ? 'leaf' : 'table');
        const frame = state.status === WalkStatus.translated ? state.framePfn : state.tablePfn;
        expect(account.address).toBe(BigInt(frame) << 12n);
        expect(account.bytes).toBe(account.shape === 'leaf' ? 4096n << BigInt(9 * (level - 1)) : 0n);
      }),
      { numRuns: 3000 },
    );
  });

  it('give the scalable faults in the order of table 30: no permission, reserved, then the one right', () => {
    const of = (entry: bigint) =>
      explainEntry('pde', [entry])
        .faults.filter(({ mode }) => mode === 'scalable')
        .map(({ request, reason }) => `${request} ${reason.toString(16)}`);
    expect(of(0x200083n)).toEqual([]);
    expect(of(0x200081n)).toEqual(['write 85']);
    expect(of(0x200082n)).toEqual(['read 86']);
    expect(of(0x200080n)).toEqual(['read 79', 'write 79']);
    // Bit 12 is reserved in a 2M leaf; in an entry without R and W nobody looks.
    expect(of(0x201081n)).toEqual(['read 7a', 'write 7a']);
    expect(of(0x201080n)).toEqual(['read 79', 'write 79']);
    expect(explainEntry('pde', [0x201080n]).reservedBits).toEqual([]);
  });

  it('say in a line what they are', () => {
    const summary = (kind: EntryKind, word: bigint) => explainEntry(kind, [word]).summary;
    expect(summary('pde', 0x142a00083n)).toBe('2M leaf, host 0x142a00000-0x142bfffff, read/write');
    expect(summary('pdpte', 0x100000081n)).toBe('1G leaf, host 0x100000000-0x13fffffff, read only');
    expect(summary('pte', 0x14168e002n)).toBe('4K leaf, host 0x14168e000-0x14168efff, write only');
    expect(summary('pml5e', 0x1003n)).toBe('leads to the SS-PML4E table at 0x1000, read/write');
    expect(summary('pde', 0x2003n)).toBe('leads to the SS-PTE table at 0x2000, read/write');
    expect(summary('pte', 0n)).toBe('empty: nothing is mapped');
    expect(summary('pte', 0x1000n)).toBe('not present: R and W are clear');
  });

  it('note what is odd', () => {
    const notes = (kind: EntryKind, word: bigint) => explainEntry(kind, [word]).notes.join('; ');
    expect(notes('pde', 0x200083n)).toBe('');
    expect(notes('pte', 0x1201n)).toMatch(/dirty but not writable.*dirty but not accessed/);
    expect(notes('pte', 0x101bn)).toMatch(/EMT 3 is a reserved/);
    expect(notes('pte', 0x1007n)).toMatch(/bit 2 was execute/);
    expect(notes('pml4e', 0x1403n)).toMatch(/Linux software bit 0/);
    expect(notes('pte', 0x1004n)).toMatch(/ignores the other bits/);
    // Condition LGN.4, in scalable mode SGN.8.1: the output address is in the interrupt address range.
    for (const [kind, word] of [
      ['pte', 0xfee0_0003n],
      ['pte', 0xfeef_f003n],
      ['pde', 0xfee0_0083n],
      ['pdpte', 0xc000_0083n],
    ] as const)
      expect(notes(kind, word)).toBe(
        'host 0xfee00000-0xfeefffff is the interrupt range: a request translated to it faults (0xe, in scalable mode 0x87)',
      );
    for (const [kind, word] of [
      ['pte', 0xfedf_f003n],
      ['pte', 0xfef0_0003n],
      ['pde', 0xfec0_0083n],
      ['pde', 0xff00_0083n],
      ['pde', 0xfee0_0003n],
    ] as const)
      expect(notes(kind, word)).toBe('');
  });

  it('name TM and X in Rev 3.x only', () => {
    const names = (specRevision: '3.x' | '5.10') =>
      explainEntry('pte', [0x4000_0000_0000_1007n], { ...DEFAULT_STRUCTURE_CAPABILITIES, specRevision })
        .fields.filter(({ low }) => low === 62 || low === 2)
        .map(({ name, use }) => `${name} ${use}`);
    expect(names('3.x')).toEqual(['TM field', 'X field']);
    expect(names('5.10')).toEqual(['IW reserved', 'ignored ignored']);
  });
});

describe('every kind', () => {
  it('has each bit in exactly one field, and the values put together are the words', () => {
    fc.assert(
      fc.property(kinds, structureUnits, fc.array(words64, { minLength: 8, maxLength: 8 }), (kind, unit, many) => {
        const words = many.slice(0, wordsOfKind(kind));
        const account = explainEntry(kind, words, unit);
        let next = words.length * 64 - 1;
        let value = 0n;
        for (const field of account.fields) {
          expect(field.high).toBe(next);
          value |= field.value << BigInt(field.low);
          next = field.low - 1;
        }
        expect(next).toBe(-1);
        expect(words.map((_, index) => BigInt.asUintN(64, value >> BigInt(index * 64)))).toEqual(words);
        expect(account.words).toEqual(words);
      }),
    );
  });

  it('lists the reserved bits that hardware minds', () => {
    fc.assert(
      fc.property(kinds, structureUnits, fc.array(words64, { minLength: 8, maxLength: 8 }), (kind, unit, many) => {
        const words = many.slice(0, wordsOfKind(kind));
        const level = levelOfKind(kind);
        const rule = RESERVED[kind];
        const first = words[0] ?? 0n;
        const leaf = level === 1 || (level !== undefined && level <= 3 && (first & 0x80n) !== 0n);
        const expected: number[] = [];
        words.forEach((word, index) => {
          const present =
            level !== undefined ? (first & 3n) !== 0n : ((kind === 'root-scalable' ? word : first) & 1n) !== 0n;
          for (let bit = index * 64; present && bit < index * 64 + 64; bit++) {
            const reserved =
              level === undefined
                ? rule?.(bit, unit)
                : isReserved(bit, level, leaf, unit) && !(level === 1 && bit === 7);
            if (reserved && ((word >> BigInt(bit % 64)) & 1n) === 1n) expected.unshift(bit);
          }
        });
        expect(explainEntry(kind, words, unit).reservedBits).toEqual(expected);
      }),
    );
  });

  it('refuses a wrong number of words, words of another size, and impossible units', () => {
    expect(() => explainEntry('context', [1n])).toThrow('words: a context entry has 2, not 1');
    expect(() => explainEntry('pte', [1n << 64n])).toThrow('words[0]: 0x10000000000000000 does not fit in 64 bits');
    expect(() => explainEntry('pte', [-1n])).toThrow('words[0]: -1 does not fit in 64 bits');
    expect(() => explainEntry('pte', [3 as unknown as bigint])).toThrow(
      new TypeError('words[0]: 3 (number) is not a bigint'),
    );
    expect(() => explainEntry('toString' as EntryKind, [3n])).toThrow(/^kind: toString is none of pml5e, pml4e, /);
    expect(() => explainEntry('pte', [0n], { ...DEFAULT_STRUCTURE_CAPABILITIES, hostAddressWidth: 60 })).toThrow(
      'hostAddressWidth: 60',
    );
  });
});

describe('structures', () => {
  const faultsOf = (kind: EntryKind, words: readonly bigint[]) =>
    explainEntry(kind, words).faults.map(({ request, reason }) => `${request} ${reason.toString(16)}`);

  it('root', () => {
    expect(explainEntry('root', [0x102001n, 0n]).summary).toBe('leads to the context table at 0x102000');
    expect(faultsOf('root', [0x102003n, 0n])).toEqual(['any request a']);
    expect(faultsOf('root', [0n, 0n])).toEqual(['any request 1']);
    expect(explainEntry('root-scalable', [0x1001n, 0n]).summary).toBe(
      'devfn 0-0x7f: context table at 0x1000; 0x80-0xff: not present',
    );
    expect(faultsOf('root-scalable', [0x1001n, 0x2003n])).toEqual(['devfn 0x80-0xff 3a']);
  });

  it('context', () => {
    const entry = { faultProcessingDisabled: false, tablePfn: 0x141600, addressWidth: 2, domainId: 5 };
    const words = (translationType: number) => Object.values(encodeContext({ ...entry, translationType }));
    const account = explainEntry('context', words(1));
    expect(account.summary).toBe('second stage of 4 levels at 0x141600000, domain 5, ATS allowed');
    expect(account.faults).toEqual([]);
    // LCT.5 of table 30 blocks both.
    expect(faultsOf('context', words(0))).toEqual(['ATS d']);
    expect(faultsOf('context', words(2))).toEqual(['ATS d']);
    expect(explainEntry('context', words(2)).summary).toBe('pass-through, domain 5');
    expect(explainEntry('context', words(3)).notes).toEqual(['the unit does not have TT 3']);
    expect(explainEntry('context', [2n, 0n])).toMatchObject({
      present: false,
      notes: ['FPD counts though P is clear: no report'],
    });
  });

  it('scalable context', () => {
    const entry = {
      faultProcessingDisabled: false,
      deviceTlbEnable: true,
      pasidEnable: false,
      pageRequestEnable: true,
      pasidDirectorySize: 0,
      pasidDirectoryPfn: 0x55,
      ridPasid: 0,
      ridPrivilege: false,
    };
    const account = explainEntry('context-scalable', encodeScalableContext(entry));
    expect(account.summary).toBe('PASID directory at 0x55000, allows ATS, page requests');
    expect(account.faults.map(({ request, text }) => `${request}: ${text}`)).toEqual([
      'with PASID: request with PASID blocked: PASIDE=0 (0x45)',
      'translated request with PASID: translated request with PASID blocked: EPTR=0 (0x49)',
    ]);
    const unit = { ...DEFAULT_STRUCTURE_CAPABILITIES, pasidInTranslated: true };
    const faults = (change: object) =>
      explainEntry('context-scalable', encodeScalableContext({ ...entry, ...change }), unit).faults.map(
        ({ request, reason }) => `${request} ${reason.toString(16)}`,
      );
    // Rows SCT.4.3, SCT.6 and SCT.10 of table 30.
    expect(faults({ pasidEnable: true })).toEqual(['translated request with PASID 49']);
    expect(faults({ pasidEnable: true, pasidInTranslatedEnable: true })).toEqual([]);
    expect(faults({ pasidInTranslatedEnable: true })).toEqual([
      'without PASID, translated or page request 43',
      'with PASID 45',
    ]);
    const without = encodeScalableContext({ ...entry, deviceTlbEnable: false, ridPasid: 0x2001 });
    expect(explainEntry('context-scalable', without)).toMatchObject({
      notes: ['PRE needs DTE', 'RID_PASID 0x2001 is beyond the directory, which ends at 0x2000'],
      faults: [{ request: 'any request', reason: 0x43, condition: 'SCT.4', qualified: true }],
    });
  });

  it('PASID directory and table', () => {
    expect(explainEntry('pasid-dir', [0x99001n]).summary).toBe('leads to the PASID table at 0x99000');
    const entry = {
      faultProcessingDisabled: false,
      addressWidth: 2,
      translationType: 2,
      secondStageAccessedDirty: true,
      secondStagePfn: 0x4567,
      domainId: 7,
      pageWalkSnoop: true,
      pageSnoop: false,
    };
    const account = explainEntry('pasid', encodePasidEntry(entry));
    expect(account.summary).toBe('second stage of 4 levels at 0x4567000, domain 7, A and D are set');
    expect(account.faults.map(({ reason }) => reason)).toEqual([FaultReason.supervisorDisabled]);
    // Hardware ignores SSADE where there is no second stage.
    for (const [translationType, summary] of [
      [1, 'first stage at 0x0, domain 7'],
      [3, 'nested: first stage at 0x0 (guest), second stage of 4 levels at 0x4567000, domain 7, A and D are set'],
      [4, 'pass-through, domain 7'],
    ] as const)
      expect(explainEntry('pasid', encodePasidEntry({ ...entry, translationType })).summary).toBe(summary);
    expect(explainEntry('pasid', encodePasidEntry({ ...entry, addressWidth: 3 }))).toMatchObject({
      notes: ['AW has a value that the unit does not have'],
      faults: [{ reason: FaultReason.pasidEntryInvalid }],
    });
  });
});

describe('explainWords', () => {
  const register = layout({
    name: 'a register',
    source: '11.4',
    words: 1,
    fields: [
      { name: 'MODE', title: 'mode', high: 9, low: 8, use: 'field', meaning: namedValues(['off', 'on', '', 'both']) },
      { name: 'ignored', title: '', high: 3, low: 0, use: 'ignored' },
    ],
  });
  it('explains any layout', () => {
    const { fields, reservedBits } = explainWords(register, [0x8000_0000_0000_0285n]);
    expect(fields.map(({ high, low, value, meaning }) => [high, low, value, meaning])).toEqual([
      [63, 10, 1n << 53n, 'must be 0'],
      [9, 8, 2n, 'reserved value'],
      [7, 4, 8n, 'must be 0'],
      [3, 0, 5n, 'ignored by hardware'],
    ]);
    expect(reservedBits).toEqual([63, 7]);
  });
  it('refuses layouts whose fields overlap or leave the structure', () => {
    const field = (high: number, low: number) => ({ name: `F${low}`, title: '', high, low, use: 'field' as const });
    for (const fields of [[field(9, 8), field(8, 7)], [field(64, 60)], [field(3, 4)], [field(3, -1)]])
      expect(() => layout({ name: 'X', source: '', words: 1, fields })).toThrow(/^X\.F\S+: bits /);
  });
});
