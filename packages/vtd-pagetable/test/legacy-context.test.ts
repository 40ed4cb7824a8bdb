import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ContextEntry,
  clearContext,
  contextReason,
  DEFAULT_STRUCTURE_CAPABILITIES,
  decodeContext,
  encodeContext,
  FaultReason,
  readContext,
  readRoot,
  TableMemory,
  TranslationType,
  writeContext,
} from '../src/index.ts';

const levels = new Set([3, 4]);
const contexts: fc.Arbitrary<ContextEntry> = fc.record({
  faultProcessingDisabled: fc.boolean(),
  translationType: fc.nat(3),
  tablePfn: fc.integer({ min: 0, max: 2 ** 40 - 1 }),
  addressWidth: fc.nat(7),
  domainId: fc.nat(0xffff),
});

function unit() {
  const memory = new TableMemory({ basePfn: 0x100, pages: 4 });
  const rootPfn = memory.allocate();
  const tablePfn = memory.allocate();
  const context = {
    faultProcessingDisabled: false,
    translationType: TranslationType.untranslatedOnly,
    tablePfn,
    addressWidth: 2,
    domainId: 0x1234,
  };
  return { memory, rootPfn, context };
}

describe('a context entry', () => {
  it('decodes to what was encoded', () => {
    fc.assert(
      fc.property(contexts, (entry) => {
        const { lo, hi } = encodeContext(entry);
        expect(decodeContext(lo, hi)).toEqual(entry);
        expect(decodeContext(lo & ~1n, hi)).toBeNull();
      }),
    );
  });
  it('has its fields where the specification puts them', () => {
    const { lo, hi } = encodeContext({
      faultProcessingDisabled: true,
      translationType: TranslationType.deviceTlb,
      tablePfn: 0xabcde,
      addressWidth: 3,
      domainId: 0x8001,
    });
    expect([lo, hi]).toEqual([0xabcde007n, 0x800103n]);
  });
  it.each([
    ['domainId', 0x10000],
    ['translationType', 4],
    ['addressWidth', 8],
    ['tablePfn', 2 ** 40],
    ['tablePfn', -1],
    ['addressWidth', 1.5],
  ])('refuses %s %d', (name, value) => {
    const { context } = unit();
    expect(() => encodeContext({ ...context, [name]: value })).toThrow(`${name}: ${value} is not in`);
  });
});

describe('reading', () => {
  it('finds what was written, by source-id', () => {
    fc.assert(
      fc.property(fc.nat(0xffff), fc.nat(0xffff), (sourceId, other) => {
        const { memory, rootPfn, context } = unit();
        expect(writeContext(memory, rootPfn, sourceId, context)).toBe(true);
        const root = readRoot(memory, rootPfn, sourceId >> 8);
        expect(root.reason).toBe(0);
        expect(readContext(memory, root.pfn, sourceId & 0xff, levels)).toEqual({ ok: true, context });
        if (other >> 8 !== sourceId >> 8)
          expect(readRoot(memory, rootPfn, other >> 8).reason).toBe(FaultReason.rootNotPresent);
        else if (other !== sourceId)
          expect(readContext(memory, root.pfn, other & 0xff, levels)).toEqual({ ok: false, reason: 2 });
        clearContext(memory, rootPfn, other);
        clearContext(memory, rootPfn, sourceId);
        expect(readContext(memory, root.pfn, sourceId & 0xff, levels)).toEqual({ ok: false, reason: 2 });
      }),
    );
  });
  it('takes one context table a bus, and says when there is no page for it', () => {
    const { memory, rootPfn, context } = unit();
    expect([0x0100, 0x0101, 0x0200].map((sid) => writeContext(memory, rootPfn, sid, context))).toEqual([
      true,
      true,
      true,
    ]);
    expect(memory.used).toBe(4);
    expect(writeContext(memory, rootPfn, 0x0300, context)).toBe(false);
    clearContext(memory, rootPfn, 0x0300);
  });
});

describe('reasons, as QEMU gives them', () => {
  it.each([
    ['root P=0', 0n, 0n, FaultReason.rootNotPresent],
    ['root P=0 with junk', 0xffen, ~0n, FaultReason.rootNotPresent],
    ['root reserved bit 1', 0x102003n, 0n, FaultReason.rootReserved],
    ['root reserved bit 11', 0x102801n, 0n, FaultReason.rootReserved],
    ['root high half', 0x102001n, 1n << 63n, FaultReason.rootReserved],
    ['context table outside memory', 0x999001n, 0n, FaultReason.contextAccess],
    ['sound', 0x102001n, 0n, 0],
  ])('%s', (_name, lo, hi, reason) => {
    const { memory, rootPfn } = unit();
    memory.store(rootPfn, 20, lo);
    memory.store(rootPfn, 21, BigInt.asUintN(64, hi));
    expect(readRoot(memory, rootPfn, 10)).toEqual({ pfn: reason === 0 ? 0x102 : -1, reason });
    expect(readRoot(memory, 0x99, 10)).toEqual({ pfn: -1, reason: FaultReason.rootAccess });
  });
  const { contextNotPresent, contextReserved, contextInvalid } = FaultReason;
  it.each<[string, Partial<ContextEntry>, bigint, bigint, number]>([
    ['sound', {}, 0n, 0n, 0],
    ['available bits 6:3 of the high half', {}, 0n, 0x78n, 0],
    ['low bit 4', {}, 0x10n, 0n, contextReserved],
    ['low bit 11', {}, 0x800n, 0n, contextReserved],
    ['high bit 7', {}, 0n, 0x80n, contextReserved],
    ['high bit 24', {}, 0n, 1n << 24n, contextReserved],
    ['high bit 63', {}, 0n, 1n << 63n, contextReserved],
    ['reserved before invalid', { translationType: 3 }, 0x10n, 0n, contextReserved],
    ['TT 3', { translationType: 3 }, 0n, 0n, contextInvalid],
    ['TT 1', { translationType: TranslationType.deviceTlb }, 0n, 0n, 0],
    ['AW 0', { addressWidth: 0 }, 0n, 0n, contextInvalid],
    ['AW 3', { addressWidth: 3 }, 0n, 0n, contextInvalid],
    ['AW 4', { addressWidth: 4 }, 0n, 0n, contextInvalid],
    ['AW 7', { addressWidth: 7 }, 0n, 0n, contextInvalid],
    ['table outside memory', { tablePfn: 0x99 }, 0n, 0n, contextInvalid],
    ['pass-through uses no table', { tablePfn: 0x99, translationType: TranslationType.passThrough }, 0n, 0n, 0],
  ])('context: %s', (_name, change, junkLo, junkHi, reason) => {
    const { memory, rootPfn, context } = unit();
    const { lo, hi } = encodeContext({ ...context, ...change });
    memory.store(rootPfn, 6, lo | junkLo);
    memory.store(rootPfn, 7, hi | junkHi);
    const found = readContext(memory, rootPfn, 3, levels);
    expect(found.ok ? 0 : found.reason).toBe(reason);
    memory.store(rootPfn, 6, (lo | junkLo) & ~1n);
    expect(readContext(memory, rootPfn, 3, levels)).toEqual({ ok: false, reason: contextNotPresent });
  });
  it('a translation type that the unit does not have is invalid (LCT.4.2)', () => {
    const { memory, rootPfn, context } = unit();
    for (const [translationType, missing] of [
      [TranslationType.deviceTlb, { deviceTlb: false }],
      [TranslationType.passThrough, { passThrough: false }],
    ] as const) {
      const { lo, hi } = encodeContext({ ...context, translationType });
      memory.store(rootPfn, 6, lo);
      memory.store(rootPfn, 7, hi);
      const capabilities = { ...DEFAULT_STRUCTURE_CAPABILITIES, ...missing };
      expect(readContext(memory, rootPfn, 3, levels)).toMatchObject({ ok: true });
      expect(readContext(memory, rootPfn, 3, levels, capabilities)).toEqual({ ok: false, reason: contextInvalid });
      expect(contextReason([lo, hi], capabilities)).toBe(contextInvalid);
    }
  });
});
