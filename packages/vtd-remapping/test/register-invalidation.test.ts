import { describe, expect, it } from 'vitest';
import { GlobalCommand, IOTLB_REGISTERS, Register, type UnitCapabilities } from '../src/index.ts';
import { DEVICE } from './raw-unit.ts';
import { UnitSetup } from './unit-setup.ts';

describe('invalidation by register', () => {
  const DOMAIN = 5;
  const legacy = (capabilities: Partial<UnitCapabilities> = {}, queue = false) => {
    const setup = new UnitSetup({ capabilities: { majorVersion: 5, ...capabilities } }, { mode: 'legacy' });
    const domain = setup.domain({ domainId: DOMAIN });
    domain.attach(DEVICE, null);
    setup.run((agent) => domain.map(agent, { page: 0, frame: 0x80000, pages: 16, write: false }));
    for (const page of [1, 2]) setup.dma(DEVICE, page);
    const { registers } = setup.unit;
    const enabled = GlobalCommand.translationEnable | (queue ? GlobalCommand.queuedInvalidationEnable : 0);
    registers.write32(Register.GCMD, enabled);
    expect([setup.unit.iotlb.size, setup.unit.contextCache.size]).toEqual([2, 1]);
    return { unit: setup.unit, registers };
  };
  const ccmd = (granularity: bigint, domainId = DOMAIN, sourceId = DEVICE, functionMask = 0n) =>
    (1n << 63n) | (granularity << 61n) | (functionMask << 32n) | (BigInt(sourceId) << 16n) | BigInt(domainId);
  const iotlb = (granularity: bigint, domainId = DOMAIN) =>
    (1n << 63n) | (granularity << 60n) | (BigInt(domainId) << 32n);

  it('drops contexts at the granularity that CAIG then reports, with ICC clear', () => {
    for (const [command, left] of [
      [ccmd(1n, 99), 0],
      [ccmd(2n), 0],
      [ccmd(2n, 99), 1],
      [ccmd(3n), 0],
      [ccmd(3n, DOMAIN, DEVICE + 1), 1],
      [ccmd(3n, DOMAIN, DEVICE + 4, 1n), 0],
    ] as const) {
      const { unit, registers } = legacy();
      registers.write64(Register.CCMD, command);
      const value = registers.read64(Register.CCMD);
      expect([value >> 63n, (value >> 59n) & 3n]).toEqual([0n, (command >> 61n) & 3n]);
      expect(unit.contextCache.size).toBe(left);
    }
  });

  it('drops IOTLB entries at the granularity that IAIG then reports, with the address in IVA', () => {
    for (const [command, address, left] of [
      [iotlb(1n, 99), 0n, 0],
      [iotlb(2n), 0n, 0],
      [iotlb(2n, 99), 0n, 2],
      [iotlb(3n), 0x1000n, 1],
      [iotlb(3n), 0x1001n, 1],
      [iotlb(3n), 0x1002n, 0],
      [iotlb(3n, 99), 0x1002n, 2],
    ] as const) {
      for (const inHalves of [false, true]) {
        const { unit, registers } = legacy();
        if (inHalves) {
          registers.write32(IOTLB_REGISTERS, Number(address));
          registers.write32(IOTLB_REGISTERS + 4, 0);
          registers.write32(IOTLB_REGISTERS + 8, 0);
          expect(unit.iotlb.size).toBe(2);
          registers.write32(IOTLB_REGISTERS + 12, Number(command >> 32n));
        } else {
          registers.write64(IOTLB_REGISTERS, address);
          registers.write64(IOTLB_REGISTERS + 8, command);
        }
        const value = registers.read64(IOTLB_REGISTERS + 8);
        expect([value >> 63n, (value >> 57n) & 3n]).toEqual([0n, (command >> 60n) & 3n]);
        expect(unit.iotlb.size, `${command.toString(16)} ${address.toString(16)}`).toBe(left);
      }
    }
  });

  it('keeps the paging-structure caches with IH', () => {
    for (const [address, left] of [
      [0x1040n, true],
      [0x1000n, false],
    ] as const) {
      const { unit, registers } = legacy();
      expect(unit.pagingCache.size).toBeGreaterThan(0);
      registers.write64(IOTLB_REGISTERS, address);
      registers.write64(IOTLB_REGISTERS + 8, iotlb(3n));
      expect(unit.pagingCache.size > 0).toBe(left);
    }
  });

  it('is refused with 00b, and drops nothing, from version 6 on, with the queue on, and for reserved values', () => {
    const refuse = (made: ReturnType<typeof legacy>, context: bigint, entries: bigint, address = 0n) => {
      const { unit, registers } = made;
      registers.write64(Register.CCMD, context);
      registers.write64(IOTLB_REGISTERS, address);
      registers.write64(IOTLB_REGISTERS + 8, entries);
      expect(registers.read64(Register.CCMD) >> 63n).toBe(0n);
      expect((registers.read64(Register.CCMD) >> 59n) & 3n).toBe(0n);
      expect((registers.read64(IOTLB_REGISTERS + 8) >> 57n) & 3n).toBe(0n);
      expect([unit.contextCache.size, unit.iotlb.size]).toEqual([1, 2]);
    };
    refuse(legacy({ majorVersion: 6 }), ccmd(1n), iotlb(1n));
    refuse(legacy({}, true), ccmd(1n), iotlb(1n));
    refuse(legacy(), ccmd(0n), iotlb(0n));
    refuse(legacy({ maximumAddressMask: 9 }), ccmd(0n), iotlb(3n), 10n);
    refuse(legacy({ pageSelective: false }), ccmd(0n), iotlb(3n));
    // In another mode than legacy.
    const { unit, registers } = legacy({ enhancedSetRootTable: false });
    registers.write64(Register.RTADDR, 0x400n);
    registers.write32(Register.GCMD, GlobalCommand.setRootTable | GlobalCommand.translationEnable);
    refuse({ unit, registers }, ccmd(1n), iotlb(1n));
  });

  it('reports what was refused although an earlier one was done, and its upper half alone is not CAIG', () => {
    const { registers } = legacy();
    registers.write64(Register.CCMD, ccmd(2n));
    registers.write32(Register.CCMD + 4, 0x1800_0000); // CAIG is read-only
    expect((registers.read64(Register.CCMD) >> 59n) & 3n).toBe(2n);
    registers.write64(Register.CCMD, ccmd(0n));
    expect((registers.read64(Register.CCMD) >> 59n) & 3n).toBe(0n);
  });
});
