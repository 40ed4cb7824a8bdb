import { expect, test } from 'vitest';
import { decodeFaultRegister, faultRegisterOffset } from '../src/dmar-registers.ts';
import { answerOf } from '../src/trace-answer.ts';

const request = { iova: 0x1234n, access: 'r', sourceId: 0x20 } as const;
const HIT = 'vtd_iotlb_page_hit IOTLB page hit sid 0x20 iova 0x1234 slpte 0x40000003 domain 0x1';
const WALK = 'vtd_iotlb_page_update IOTLB page update sid 0x20 iova 0x1234 slpte 0x40000003 domain 0x1';
const TRANSLATED = 'vtd_dmar_translate dev 00:04.00 iova 0x1000 -> gpa 0x40000000 mask 0xfff';
const FAULT = 'vtd_dmar_fault sid 0x20 fault 6 addr 0x1234 write 0';
const record = { sourceId: 0x20, reason: 6, write: false, address: 0x1000n };

test('a hit and a walk', () => {
  const page = { kind: 'translated', gpa: 0x4000_0000n, mask: 0xfffn, slpte: 0x4000_0003n };
  expect(answerOf(request, [HIT, TRANSLATED], null)).toEqual({ ...page, hit: true });
  expect(answerOf(request, [WALK, TRANSLATED], null)).toEqual({ ...page, hit: false });
});

test('a fault, a suppressed fault, pass-through', () => {
  const fault = { kind: 'fault', reason: 6, type: 'r', address: 0x1000n, sourceId: 0x20 };
  expect(answerOf(request, [FAULT], record)).toEqual(fault);
  expect(answerOf(request, ['vtd_fault_disabled Fault processing disabled for context entry'], null)).toEqual({
    kind: 'blocked',
  });
  expect(answerOf(request, ['vtd_translate_pt source id 0x20, iova 0x1000', TRANSLATED], null)).toEqual({
    kind: 'passThrough',
  });
  expect(answerOf(request, [], null)).toEqual({ kind: 'passThrough' });
});

test.each([
  ['a record without a line', [HIT, TRANSLATED], record],
  ['a line without a record', [FAULT], null],
  ['another reason', [FAULT], { ...record, reason: 5 }],
  ['another requester', [FAULT], { ...record, sourceId: 0x28 }],
  ['two faults', [FAULT, FAULT], record],
  ['half a translation', [TRANSLATED], null],
])('a contradiction is an error: %s', (_name, lines, fault) => {
  expect(() => answerOf(request, lines, fault)).toThrow(/contradict.*0x1234/);
});

test('fault recording registers', () => {
  const high = (1n << 63n) | (1n << 62n) | (0xcn << 32n) | 0x28n;
  expect(decodeFaultRegister(0x5000n, high)).toEqual({ sourceId: 0x28, reason: 0xc, write: false, address: 0x5000n });
  expect(decodeFaultRegister(0x5000n, high & ~(1n << 63n))).toBeNull();
  expect(faultRegisterOffset(0xd2008c222f0606n)).toBe(0x220);
});
