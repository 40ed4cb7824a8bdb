import { TableMemory } from '@faultline/vtd-pagetable';
import { describe, expect, it } from 'vitest';
import {
  DEFAULT_CAPABILITIES,
  FAULT_REGISTERS,
  GlobalCommand,
  Register,
  RemappingUnit,
  type UnitCapabilities,
} from '../src/index.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const MEMORY = new TableMemory({ pages: 1 });
const fresh = (capabilities: Partial<UnitCapabilities> = {}) => {
  const unit = new RemappingUnit({ memory: MEMORY, capabilities });
  return { unit, registers: unit.registers };
};

describe('the fault recording registers', () => {
  const fault = (sourceId: number, page = 0x40123) => ({ sourceId, page, reason: 0x79, write: false });
  const recorded = (index: number) => FAULT_REGISTERS + index * 16;

  it('are where CAP says, NFR+1 of them, and can be read whole and in parts', () => {
    for (const faultRegisters of [1, 8, 160]) {
      const { unit, registers } = fresh({ faultRegisters });
      const cap = registers.read64(Register.CAP);
      const [offset, count] = [Number((cap >> 24n) & 0x3ffn) * 16, Number((cap >> 40n) & 0xffn) + 1];
      expect([offset, count]).toEqual([FAULT_REGISTERS, faultRegisters]);
      for (let i = 0; i < count; i++) unit.faults.record(fault(i, 0x1000 + i));
      for (let i = 0; i < count; i++) {
        const high = (3n << 62n) | (0x79n << 32n) | BigInt(i); // F, T1: a read
        expect([registers.read64(recorded(i)), registers.read64(recorded(i) + 8)]).toEqual([
          BigInt(0x1000 + i) << 12n,
          high,
        ]);
        expect(registers.read32(recorded(i) + 12)).toBe(0xc000_0079);
      }
    }
  });

  it('show no address bits above the largest AGAW', () => {
    for (const [levels, shown] of [
      [[3], 0x7f_ffff_f000n],
      [[4], 0xffff_ffff_f000n],
      [[4, 5], 0x1ff_ffff_ffff_f000n],
    ] as const) {
      const { unit, registers } = fresh({ levels });
      unit.faults.record(fault(1, 2 ** 52 - 1));
      expect(registers.read64(recorded(0))).toBe(shown);
    }
  });

  it('are freed by F alone, written with 1 in the highest word', () => {
    const { unit, registers } = fresh();
    unit.faults.record(fault(1));
    registers.write64(recorded(0), ALL);
    registers.write32(recorded(0) + 8, -1);
    registers.write32(recorded(0) + 12, 0x7fff_ffff);
    expect(registers.read32(Register.FSTS)).toBe(2);
    registers.write64(recorded(0) + 8, 1n << 63n);
    expect([registers.read64(recorded(0)), registers.read64(recorded(0) + 8), registers.read32(Register.FSTS)]).toEqual(
      [0n, 0n, 0],
    );
  });

  it('wrap, keep FRI at the first pending one, and PPF as the OR of F', () => {
    const { unit, registers } = fresh({ faultRegisters: 4 });
    const status = () => registers.read32(Register.FSTS);
    for (let i = 0; i < 3; i++) unit.faults.record(fault(i));
    expect(status()).toBe(0x002);
    for (const i of [0, 2]) registers.write32(recorded(i) + 12, -1);
    expect(status()).toBe(0x002);
    registers.write32(recorded(1) + 12, -1);
    expect(status() & 2).toBe(0);
    unit.faults.record(fault(3));
    unit.faults.record(fault(4)); // wraps to 0
    expect(status()).toBe(0x302);
    expect(registers.read64(recorded(0) + 8) & 0xffffn).toBe(4n);
    for (let i = 5; i < 9; i++) unit.faults.record(fault(i)); // fills, and overflows
    expect(status()).toBe(0x303);
    // PFO alone is cleared by its bit, and then the index goes on where it was.
    registers.write32(Register.FSTS, 1);
    expect(status()).toBe(0x302);
    registers.write32(recorded(3) + 12, -1);
    unit.faults.record(fault(9));
    expect(registers.read64(recorded(3) + 8) & 0xffffn).toBe(9n);
  });

  it('start again at 0 when translation is turned off', () => {
    const { unit, registers } = fresh();
    for (let i = 0; i < 3; i++) unit.faults.record(fault(i));
    unit.faults.takeAll();
    registers.write32(Register.GCMD, GlobalCommand.translationEnable);
    unit.faults.record(fault(1));
    expect(registers.read32(Register.FSTS)).toBe(0x302);
    unit.faults.takeAll();
    registers.write32(Register.GCMD, 0);
    unit.faults.record(fault(1));
    expect(registers.read32(Register.FSTS)).toBe(0x002);
  });

  it('are as many as fit', () => {
    for (const faultRegisters of [0, 161, 1.5])
      expect(() => fresh({ faultRegisters })).toThrow(`faultRegisters: ${faultRegisters} is not an integer in 1..160`);
    expect(DEFAULT_CAPABILITIES.faultRegisters).toBe(8);
  });
});
