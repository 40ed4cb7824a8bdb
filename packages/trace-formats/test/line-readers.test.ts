/// <reference types="node" />
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { knownQemuVtdEvents, LineAccount, readFtraceLine, readQemuVtdLine } from '../src/index.ts';

const vector = (name: string): string => readFileSync(join(import.meta.dirname, 'vectors', name), 'utf8');
const qemu = (line: string): unknown => readQemuVtdLine(line, new LineAccount('x'));
const ftrace = (line: string): unknown => readFtraceLine(line, new LineAccount('x'));

describe('QEMU vtd_* log', () => {
  test('every trace event of QEMU 7.2 and 11.1 is known by name, and no other', () => {
    expect(knownQemuVtdEvents()).toEqual(vector('qemu-vtd-events.txt').trim().split('\n').sort());
  });

  test.each([
    [
      'vtd_dmar_translate dev 02:1f.07 iova 0x200000 -> gpa 0x40000000 mask 0x1fffff',
      { kind: 'translate', sid: 0x2ff, iova: 0x20_0000n, gpa: 0x4000_0000n, mask: 0x1f_ffffn },
    ],
    [
      'vtd_iotlb_page_update IOTLB page update sid 0x8 iova 0xffffe040 slpte 0x8000000011d7b003 domain 0x3',
      { kind: 'pageUpdate', sid: 8, iova: 0xffff_e040n, slpte: 0x8000_0000_11d7_b003n, did: 3 },
    ],
    [
      'vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0x40 slpte 0x3 domain 0x3',
      { kind: 'pageHit', sid: 8, iova: 0x40n, slpte: 3n, did: 3 },
    ],
    [
      'vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x3 addr 0xffffd000 mask 0x12',
      { kind: 'invalidatePages', did: 3, address: 0xffff_d000n, addressMask: 18 },
    ],
    ['vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0xffff', { kind: 'invalidateDomain', did: 0xffff }],
    ['vtd_inv_desc_iotlb_global iotlb invalidate global', { kind: 'invalidateGlobal' }],
    [
      'vtd_inv_desc_iotlb_pasid_pages iotlb invalidate domain 0x1 addr 0x1000 mask 0x0 pasid 0x5',
      { kind: 'invalidatePasidPages', did: 1, address: 0x1000n, addressMask: 0, pasid: 5 },
    ],
    ['vtd_inv_desc_iotlb_pasid iotlb invalidate domain 0x1 pasid 0x5', { kind: 'invalidatePasid', did: 1, pasid: 5 }],
    [
      'vtd_iotlb_cc_update IOTLB context update bus 0x1 devfn 0x10 high 0x402 low 0x227f001 gen 0 -> gen 1',
      { kind: 'contextUpdate', sid: 0x110, high: 0x402n, low: 0x227_f001n },
    ],
    ['vtd_inv_desc_cc_global context invalidate globally', { kind: 'contextInvalidateGlobal' }],
    ['vtd_inv_desc_cc_domain context invalidate domain 0x3', { kind: 'contextInvalidateDomain', did: 3 }],
    ['vtd_inv_desc_cc_device context invalidate device 00:02.01', { kind: 'contextInvalidateDevice', sid: 0x11 }],
    [
      'vtd_inv_desc_cc_devices context invalidate devices sid 0x10 fmask 0xfff8',
      { kind: 'contextInvalidateDevices', sid: 0x10, compared: 0xfff8 },
    ],
    ['vtd_context_cache_reset ', { kind: 'contextReset' }],
    [
      'vtd_iotlb_reset IOTLB reset (reason: iotlb exceeds size limit)',
      { kind: 'iotlbReset', reason: 'iotlb exceeds size limit' },
    ],
    ['vtd_dmar_enable enable 0', { kind: 'dmarEnable', enabled: false }],
    [
      'vtd_dmar_fault sid 0x20 fault 6 addr 0x5000 write 0',
      { kind: 'fault', sid: 0x20, reason: 6, address: 0x5000n, write: false },
    ],
    [
      'vtd_inv_desc_wait_sw wait invalidate status write addr 0x11ba004 data 0x2',
      { kind: 'waitStatus', address: 0x11b_a004n, data: 2 },
    ],
  ])('%s', (text, event) => {
    for (const prefix of ['', '1795365745.940988:', '4711@1795365745.940988:'])
      expect(qemu(prefix + text)).toEqual(event);
  });

  test('every line is accounted for', () => {
    const account = new LineAccount('x.log');
    const lines = [
      'vtd_dmar_enable enable 1',
      'vtd_ir_enable enable 1',
      '',
      'vtd_dmar_enable enable 7',
      'vtd_dmar_translate dev 00:01.00 iova 0xffffe0',
      'vtd_from_the_future 1',
      'qemu-system-x86_64: warning: x',
    ];
    for (const line of lines) readQemuVtdLine(line, account);
    expect(account.snapshot()).toMatchObject({ lines: 7, parsed: 1, irrelevant: 1, comments: 1, unknown: 4 });
    expect(account.snapshot().firstUnknown[1]).toEqual({ file: 'x.log', line: 5, text: lines[4] });
  });

  test('of many damaged lines the first ten are kept, long ones cut', () => {
    const account = new LineAccount('x.log');
    for (let index = 0; index < 1000; index++) readQemuVtdLine('#'.repeat(5000), account);
    expect(account.unknown).toBe(1000);
    expect(account.snapshot().firstUnknown.map(({ text }) => text.length)).toEqual(new Array(10).fill(200));
  });
});

describe('ftrace text', () => {
  const prefix = '          <idle>-0       [000] d.h2.    16.447521: ';
  test.each([
    [
      `${prefix}map: IOMMU: iova=0x00000000fffff000 - 0x0000000100000000 paddr=0x0000000003388000 size=4096`,
      { kind: 'map', iova: 0xffff_f000n, paddr: 0x338_8000n, size: 4096n },
    ],
    [
      `${prefix}unmap: IOMMU: iova=0x00000000fff7e000 - 0x00000000fff7f000 size=4096 unmapped_size=2097152`,
      { kind: 'unmap', iova: 0xfff7_e000n, size: 4096n, unmappedSize: 0x20_0000n },
    ],
    [`${prefix}tracing_mark_write: nic-up: now`, { kind: 'mark', text: 'nic-up: now' }],
    [
      `${prefix}io_page_fault: IOMMU:nvme 0000:00:02.0 iova=0x00000000deadb000 flags=0x0001`,
      { kind: 'ioPageFault', device: 'nvme 0000:00:02.0', iova: 0xdead_b000n, flags: 1 },
    ],
    ['CPU:0 [LOST 12 EVENTS]', { kind: 'lost', events: 12 }],
    ['CPU:3 [LOST EVENTS]', { kind: 'lost', events: null }],
    ['# entries-in-buffer/entries-written: 100/150   #P:1', { kind: 'lost', events: 50 }],
    ['# entries-in-buffer/entries-written: 150/150   #P:1', null],
    [`my task-with-dashes-12 ( 12) [001] 5.000001: tracing_mark_write: x`, { kind: 'mark', text: 'x' }],
  ])('%s', (line, event) => {
    expect(ftrace(line)).toEqual(event);
    expect(ftrace(`${line}\r`.trimEnd())).toEqual(event);
  });

  test('other events are irrelevant; damaged ones of ours are shown', () => {
    const account = new LineAccount('x.txt');
    readFtraceLine(`${prefix}sched_switch: prev_comm=x`, account);
    readFtraceLine('# tracer: nop', account);
    readFtraceLine(`${prefix}map: IOMMU: iova=0x1000 - 0x3000 paddr=0x5000 size=4096`, account);
    readFtraceLine(`${prefix}unmap: IOMMU: iova=0x1000`, account);
    readFtraceLine('garbage', account);
    expect(account.snapshot()).toMatchObject({ lines: 5, parsed: 0, irrelevant: 1, comments: 1, unknown: 3 });
    expect(account.snapshot().firstUnknown.map(({ line }) => line)).toEqual([3, 4, 5]);
  });
});
