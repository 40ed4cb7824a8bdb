import { describe, expect, it } from 'vitest';
import { AddressType, encodeFaultRecord, FaultRecording, FaultStatus } from '../src/index.ts';

const fault = (sourceId: number, page = 1) => ({ sourceId, page, reason: 6, write: false });

describe('fault recording', () => {
  it('fills the registers in turn; FRI names the first that is pending', () => {
    const faults = new FaultRecording(4);
    expect(faults.record(fault(1))).toBe(true);
    expect(faults.record(fault(2))).toBe(true);
    expect(faults.status).toBe(FaultStatus.pending);
    expect(faults.takeAll().map((record) => record.sourceId)).toEqual([1, 2]);
    expect(faults.status & 0xff).toBe(0);
    faults.record(fault(3));
    expect(faults.status >> 8).toBe(2);
    faults.record(fault(4));
    faults.record(fault(5)); // wraps to register 0
    expect(faults.status >> 8).toBe(2);
    expect(faults.takeAll().map((record) => record.sourceId)).toEqual([3, 4, 5]);
  });

  it('collapses further faults of a requester that has a pending record', () => {
    const faults = new FaultRecording(1);
    faults.record(fault(1, 10));
    expect(faults.record(fault(1, 11))).toBe(false);
    expect([faults.collapsed, faults.lost]).toEqual([1, 0]);
    expect(faults.status & FaultStatus.overflow).toBe(0);
    expect(faults.takeAll()).toEqual([fault(1, 10)]);
    expect(faults.record(fault(1, 11))).toBe(true);
  });

  it('sets PFO when the next register is full, and then records nothing until that is cleared', () => {
    const faults = new FaultRecording(2);
    for (const source of [1, 2]) faults.record(fault(source));
    expect(faults.record(fault(3))).toBe(false);
    expect(faults.status & FaultStatus.overflow).toBe(FaultStatus.overflow);
    faults.record(fault(1)); // not even collapsed
    expect([faults.lost, faults.collapsed]).toEqual([2, 0]);
    expect(faults.takeAll()).toHaveLength(2);
    expect(faults.record(fault(3))).toBe(true);
    expect(faults.status & FaultStatus.overflow).toBe(0);
  });

  it('keeps IQE when the fault records are cleared: that is for the driver of the queue', () => {
    const faults = new FaultRecording();
    faults.setError(FaultStatus.queueError);
    faults.record(fault(1));
    expect(faults.status & 0xff).toBe(FaultStatus.pending | FaultStatus.queueError);
    faults.takeAll();
    expect(faults.status & 0xff).toBe(FaultStatus.queueError);
  });

  it('has the bits of 11.4.7.6', () => {
    const read = { sourceId: 0x18, page: 0x40123, reason: 0x79, write: false };
    const address = 0x4012_3000n;
    const F = 1n << 63n;
    const [T1, T2] = [1n << 62n, 1n << 28n];
    const common = (0x79n << 32n) | 0x18n | F;
    const { translationRequest, translated } = AddressType;
    for (const [record, high] of [
      [read, T1],
      [{ ...read, write: true }, 0n],
      [{ ...read, pageRequest: true }, T2],
      [{ ...read, atomic: true }, T1 | T2],
      [{ ...read, atomic: true, write: true }, T1 | T2],
      [{ ...read, addressType: translationRequest }, T1 | (1n << 60n)],
      [{ ...read, addressType: translated }, T1 | (2n << 60n)],
      [{ ...read, pasid: 0xabcde }, T1 | (0xabcden << 40n) | (1n << 31n)],
      [{ ...read, pasid: 0 }, T1 | (1n << 31n)],
    ] as const)
      expect(encodeFaultRecord(record)).toEqual([address, common | high]);
  });

  it('has 1 to 256 registers', () => {
    for (const registers of [0, 257, 1.5])
      expect(() => new FaultRecording(registers)).toThrow(`registers: ${registers} is not an integer in 1..256`);
  });
});
