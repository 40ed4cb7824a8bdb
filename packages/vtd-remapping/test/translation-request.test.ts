import { Agent, runToEnd } from '@faultline/sim';
import {
  encodeLeaf,
  FaultReason,
  SS_READ,
  SS_WRITE,
  TranslationType,
  WalkAccess,
  writeContext,
} from '@faultline/vtd-pagetable';
import { describe, expect, it } from 'vitest';
import { CompletionStatus, GlobalCommand, Register, type UnitCapabilities, type VtdDomain } from '../src/index.ts';
import { RecordingEndpoint, UnitSetup } from './unit-setup.ts';

const SOURCE = 0x20;
const device = new Agent('device');
const { success, unsupportedRequest, completerAbort } = CompletionStatus;
const MODES = ['legacy', 'scalable'] as const;
const INTERRUPTS = 0xfee00;

function attached(mode: (typeof MODES)[number], capabilities: Partial<UnitCapabilities> = {}) {
  const setup = new UnitSetup({ capabilities }, { mode });
  const domain = setup.domain();
  domain.attach(SOURCE, new RecordingEndpoint());
  return { setup, domain };
}

const map = (setup: UnitSetup, domain: VtdDomain, page: number, frame: number, pages: number, write = true) =>
  setup.run((agent) => domain.map(agent, { page, frame, pages, write }));

/** Overwrites the 4K leaf of a page, with nothing cached. */
function setLeaf(setup: UnitSetup, domain: VtdDomain, page: number, entry: bigint): void {
  let pfn = domain.table.rootPfn;
  for (let level = domain.table.levels as number; level > 1; level--)
    pfn = Number(setup.memory.load(pfn, Math.floor(page / 512 ** (level - 1)) % 512) >> 12n) & 0xff_ffff;
  setup.memory.store(pfn, page % 512, entry);
}

const dma = (setup: UnitSetup, page: number, access: number) =>
  setup.unit.dma({ sourceId: SOURCE, iovaHi: Math.floor(page / 2 ** 20), iovaLo: (page << 12) | 0, access });

describe.each(MODES)('a translation request in %s mode', (mode) => {
  it('is answered with the size of the leaf, walked or cached', () => {
    const { setup, domain } = attached(mode);
    map(setup, domain, 3, 0x80003, 1);
    map(setup, domain, 512, 0x90200, 512);
    map(setup, domain, 0x40000, 0x140000, 0x40000);
    for (const again of [false, true])
      for (const [page, level, frame] of [
        [3, 1, 0x80003],
        [700, 2, 0x902bc],
        [0x54321, 3, 0x154321],
      ] as const) {
        const reads = setup.unit.walkReads;
        expect(setup.ats(SOURCE, page, true)).toMatchObject({ status: success, level, frame, rights: 3, reason: 0 });
        expect(setup.unit.walkReads === reads).toBe(again);
      }
  });

  it('gets the rights that there are; NW takes W away, if the unit knows it', () => {
    for (const noWriteFlag of [true, false]) {
      const { setup, domain } = attached(mode, { noWriteFlag });
      map(setup, domain, 0, 0x80000, 8);
      const rights = (page: number) => [setup.ats(SOURCE, page, true), setup.ats(SOURCE, page, false)];
      expect(rights(1).map((each) => each.rights)).toEqual([3, noWriteFlag ? 1 : 3]);
      setLeaf(setup, domain, 2, encodeLeaf(1, 0x80002, 1));
      expect(rights(2).map((each) => each.rights)).toEqual([1, 1]);
      setLeaf(setup, domain, 3, encodeLeaf(1, 0x80003, 2));
      const lack = mode === 'legacy' ? FaultReason.readNotAllowed : FaultReason.scalableReadNotAllowed;
      const nothing = { frame: -1, rights: 0, reason: lack };
      const writeOnly = { frame: 0x80003, rights: 2, reason: 0 };
      expect(rights(3)).toMatchObject([writeOnly, noWriteFlag ? nothing : writeOnly]);
      setLeaf(setup, domain, 4, 0n);
      const absent = mode === 'legacy' ? FaultReason.readNotAllowed : FaultReason.secondStageNoPermission;
      expect(rights(4)).toMatchObject(
        [absent, absent].map((reason) => ({ status: success, frame: -1, rights: 0, reason })),
      );
      expect(setup.unit.faults.takeAll()).toEqual([]);
    }
  });

  it('is blocked without DTE or TT=01, though an untranslated request has filled the IOTLB', () => {
    const { setup, domain } = attached(mode);
    const plain = SOURCE + 8;
    domain.attach(plain, null);
    map(setup, domain, 1, 0x80001, 1);
    expect(setup.dma(plain, 1)).toBe(0x80001);
    const reason = mode === 'legacy' ? FaultReason.translationTypeBlocked : FaultReason.deviceTlbDisabled;
    expect(setup.ats(plain, 1)).toMatchObject({ status: unsupportedRequest, frame: -1, rights: 0, reason });
    expect(setup.unit.faults.takeAll()).toMatchObject([{ sourceId: plain, reason, addressType: 1 }]);
  });

  it('for FEEx_xxxxh is told to stay untranslated, or with NW that there is nothing (S.1, S.2)', () => {
    const { setup } = attached(mode);
    const told = { status: success, frame: INTERRUPTS, rights: 2, untranslatedOnly: true, reason: 0 };
    expect(setup.ats(SOURCE, INTERRUPTS, true)).toMatchObject(told);
    expect(setup.ats(SOURCE, INTERRUPTS + 0xff, false)).toMatchObject({ status: success, frame: -1, rights: 0 });
    expect(setup.ats(SOURCE, INTERRUPTS + 0x100, true).untranslatedOnly).toBe(false);
    expect(setup.unit.faults.takeAll().map((fault) => fault.page)).not.toContain(INTERRUPTS);
  });

  it('for FEEx_xxxxh is told nothing of that to a function that may not ask', () => {
    const { setup, domain } = attached(mode);
    domain.attach(SOURCE + 8, null);
    for (const source of [SOURCE + 8, SOURCE + 16])
      expect(setup.ats(source, INTERRUPTS, true)).toMatchObject({ status: unsupportedRequest, rights: 0 });
  });

  it('for FEEx_xxxxh, and a write to it, find nothing cached of a large leaf that maps that input range', () => {
    const { setup, domain } = attached(mode);
    map(setup, domain, 0xc0000, 0x10_0000, 0x40000);
    expect([0xc0000, 0xc0001, INTERRUPTS - 1].map((page) => dma(setup, page, WalkAccess.write))).toEqual([
      0x10_0000,
      0x10_0001,
      0x10_0000 + INTERRUPTS - 1 - 0xc0000,
    ]);
    const reads = setup.unit.walkReads;
    expect(dma(setup, 0xc0001, WalkAccess.write)).toBe(0x10_0001);
    expect(setup.unit.walkReads).toBe(reads);
    expect(dma(setup, INTERRUPTS, WalkAccess.write)).toBe(INTERRUPTS);
    expect(setup.ats(SOURCE, INTERRUPTS, true).untranslatedOnly).toBe(true);
    expect(setup.ats(SOURCE, 0xc0000, true)).toMatchObject({ frame: 0x10_0000, rights: 3 });
  });

  it('for a leaf that reaches into FEEx_xxxxh is aborted; an untranslated request only for the page itself', () => {
    const { setup, domain } = attached(mode);
    map(setup, domain, 0x40000, 0xc0000, 0x40000); // 1G: C000_0000h to FFFF_FFFFh
    const reason = mode === 'legacy' ? FaultReason.interruptOutput : FaultReason.scalableInterruptOutput;
    expect(setup.ats(SOURCE, 0x40000)).toMatchObject({ status: completerAbort, frame: -1, rights: 0, reason });
    expect(setup.unit.faults.takeAll()).toMatchObject([{ reason, addressType: 1 }]);
    expect(dma(setup, 0x40000, WalkAccess.read)).toBe(0xc0000);
    const through = 0x40000 + INTERRUPTS - 0xc0000;
    expect([-1, 0, 0xff, 0x100].map((near) => dma(setup, through + near, WalkAccess.write))).toEqual([
      INTERRUPTS - 1,
      -reason,
      -reason,
      INTERRUPTS + 0x100,
    ]);
    expect(setup.unit.iotlb.size).toBe(0); // such a leaf is not cached
  });

  it('is unsupported while translation is off, when untranslated requests pass as they are', () => {
    const { setup, domain } = attached(mode);
    map(setup, domain, 1, 0x80001, 1);
    dma(setup, 1, WalkAccess.read);
    setup.unit.registers.write32(Register.GCMD, GlobalCommand.queuedInvalidationEnable);
    expect(setup.ats(SOURCE, 1)).toMatchObject({ status: unsupportedRequest, reason: 0 });
    expect([dma(setup, 1, WalkAccess.read), dma(setup, 2 ** 50, WalkAccess.atomic)]).toEqual([1, 2 ** 50]);
    // Turned off between look-up and walk, too.
    const request = { sourceId: SOURCE, iovaHi: 0, iovaLo: 0x1000, access: WalkAccess.read };
    expect(runToEnd(setup.unit.translateMiss(device, request))).toBe(1);
    expect(setup.unit.faults.takeAll()).toEqual([]);
  });
});

describe.each(MODES)('an untranslated request in %s mode', (mode) => {
  const lacks = mode === 'legacy' ? [-5, -6] : [-0x85, -0x86];

  it('needs R to read, W to write, both for an atomic operation, and any for a zero-length read, if CAP.ZLR', () => {
    for (const zeroLengthRead of [true, false]) {
      const { setup, domain } = attached(mode, { zeroLengthRead });
      map(setup, domain, 0, 0x80000, 8);
      setLeaf(setup, domain, 1, encodeLeaf(1, 0x80001, Number(SS_READ)));
      setLeaf(setup, domain, 2, encodeLeaf(1, 0x80002, Number(SS_WRITE)));
      const [noWrite, noRead] = lacks;
      const { read, write, atomic, zeroLengthRead: empty } = WalkAccess;
      const answers = (page: number) => [read, write, atomic, empty].map((access) => dma(setup, page, access));
      for (let round = 0; round < 2; round++) {
        expect(answers(0)).toEqual([0x80000, 0x80000, 0x80000, 0x80000]);
        expect(answers(1)).toEqual([0x80001, noWrite, noWrite, 0x80001]);
        expect(answers(2)).toEqual([noRead, 0x80002, noRead, zeroLengthRead ? 0x80002 : noRead]);
      }
    }
  });

  it('needs a requester id', () => {
    const { setup } = attached(mode);
    expect(() => setup.dma(0x1_0020, 1)).toThrow('sourceId: 0x10020 is not in 0..0xffff');
  });

  it('to FEEx_xxxxh is an interrupt if it writes, and completes if it is a zero-length read; the rest is blocked (3.15)', () => {
    const { setup } = attached(mode);
    const { read, write, atomic, zeroLengthRead } = WalkAccess;
    const reason = mode === 'legacy' ? FaultReason.interruptOutput : FaultReason.scalableInterruptOutput;
    expect([write, zeroLengthRead].map((access) => dma(setup, INTERRUPTS, access))).toEqual([INTERRUPTS, INTERRUPTS]);
    for (const access of [read, atomic]) {
      expect(dma(setup, INTERRUPTS, access)).toBe(-reason);
      expect(setup.unit.faults.takeAll()).toMatchObject([{ sourceId: SOURCE, page: INTERRUPTS, reason, write: false }]);
    }
  });
});

describe('pass-through', () => {
  it('gives a device as large a range as there are pages of, but none that reaches into FEEx_xxxxh (4.2.3)', () => {
    const sizes = (capabilities: Partial<UnitCapabilities>) => {
      const { setup, domain } = attached('scalable', capabilities);
      // The PASID entry of RID_PASID: PGTT 100b, and a DID of its own.
      const { memory, rootPfn } = setup.driver;
      const next = (pfn: number, index: number) => Number((memory.load(pfn, index) >> 12n) & 0xff_ffffn);
      const entry = next(next(next(rootPfn, 0), SOURCE * 4), 0);
      memory.store(entry, 0, 1n | (4n << 6n));
      memory.store(entry, 1, 9n);
      expect(domain.table.frameAt(1)).toBe(-1);
      return [0x12345, INTERRUPTS - 0x201, INTERRUPTS - 1, INTERRUPTS + 0x100, 2 ** 34 - 1].map((page) => {
        const { frame, level, rights, leafLo, leafHi } = setup.ats(SOURCE, page, true);
        expect([frame, rights]).toEqual([page, 3]);
        const start = (leafHi >>> 0) * 2 ** 20 + (leafLo >>> 12);
        expect(start).toBe(page - (page % 512 ** (level - 1)));
        return level;
      });
    };
    expect(sizes({})).toEqual([3, 2, 2, 1, 3]);
    expect(sizes({ page1G: false })).toEqual([2, 2, 2, 1, 2]);
    expect(sizes({ page2M: false })).toEqual([1, 1, 1, 1, 1]);
  });

  it('blocks ATS in legacy mode, and has the width of the host as its limit', () => {
    const setup = new UnitSetup({}, { mode: 'legacy' });
    const context = { faultProcessingDisabled: false, tablePfn: 0, addressWidth: 2, domainId: 9 };
    writeContext(setup.memory, setup.driver.rootPfn, SOURCE, {
      ...context,
      translationType: TranslationType.passThrough,
    });
    expect(setup.ats(SOURCE, 1)).toMatchObject({ status: unsupportedRequest, reason: 0xd });
    expect([dma(setup, 2 ** 34 - 1, 1), dma(setup, 2 ** 34, 1)]).toEqual([
      2 ** 34 - 1,
      -FaultReason.addressBeyondWidth,
    ]);
  });
});
