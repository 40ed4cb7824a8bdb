import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventInterrupt, FaultRecording, FaultStatus } from '../src/index.ts';

const IM = 0x8000_0000;
const IP = 0x4000_0000;
const { overflow, pending, queueError, completionError, timeout } = FaultStatus;

const event = () => {
  const sent: [bigint, number][] = [];
  return { sent, event: new EventInterrupt((address, data) => sent.push([address, data])) };
};
const control = (each: EventInterrupt): number => each.read(0) >>> 0;

describe('an event', () => {
  it('is masked at reset, then pending, then sent once when IM is cleared', () => {
    const { sent, event: each } = event();
    expect(control(each)).toBe(IM);
    each.raise();
    expect([control(each), each.pending, sent.length]).toEqual([(IM | IP) >>> 0, true, 0]);
    each.write(0, IM | 0);
    expect(sent).toHaveLength(0);
    each.write(0, 0);
    each.write(0, 0);
    expect([control(each), each.pending, sent.length, each.delivered]).toEqual([0, false, 1, 1]);
  });

  it('has the address and data that are in its registers when it is sent', () => {
    const { sent, event: each } = event();
    for (const [index, value] of [-1, -1, -1].entries()) each.write(index + 1, value);
    expect([1, 2, 3].map((index) => each.read(index) >>> 0)).toEqual([0xffff, 0xffff_fffc, 0xffff_ffff]);
    each.raise();
    each.write(1, 0x41);
    each.write(2, 0xfee0_0000 | 0);
    each.write(3, 0);
    each.write(0, 0);
    expect(sent).toEqual([[0xfee0_0000n, 0x41]]);
  });

  it('does as the specification says over any sequence', () => {
    const any = fc.constantFrom('raise', 'settle', 'mask', 'unmask', 'set IP');
    fc.assert(
      fc.property(fc.array(any), (operations) => {
        const { sent, event: each } = event();
        let [masked, held, messages] = [true, false, 0];
        for (const operation of operations) {
          if (operation === 'raise') each.raise();
          else if (operation === 'settle') each.settle();
          else each.write(0, operation === 'mask' ? IM | 0 : operation === 'unmask' ? 0 : IM | IP | 0);
          if (operation === 'raise') held = true;
          if (operation === 'settle') held = false;
          if (operation === 'mask' || operation === 'set IP') masked = true; // IP is read-only
          if (operation === 'unmask') masked = false;
          if (held && !masked) {
            held = false;
            messages++;
          }
          expect([control(each), sent.length]).toEqual([((masked ? IM : 0) | (held ? IP : 0)) >>> 0, messages]);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('the fault event (7.3)', () => {
  const faultOf = (sourceId: number) => ({ sourceId, page: 1, reason: 0x79, write: false });

  it('is raised for a first fault, IQE, ICE or ITE, and not while anything is unserved', () => {
    for (const first of [queueError, completionError, timeout, pending]) {
      const { sent, event: each } = event();
      each.write(0, 0);
      const faults = new FaultRecording(2, each);
      const cause = (status: number, sourceId: number) =>
        status === pending ? faults.record(faultOf(sourceId)) : faults.setError(status);
      cause(first, 1);
      expect(sent).toHaveLength(1);
      for (const [i, later] of [queueError, completionError, timeout, pending].entries()) cause(later, 2 + i);
      expect(sent).toHaveLength(1);
      faults.clearStatus(-1);
      expect(faults.status & pending).toBe(pending); // the records hold it
      faults.setError(timeout);
      expect(sent).toHaveLength(1);
      faults.takeAll();
      faults.clearStatus(timeout);
      expect(faults.status & 0xff).toBe(0);
      faults.record(faultOf(9));
      expect(sent).toHaveLength(2);
    }
  });

  it('is not raised by an overflow, which comes while faults are pending', () => {
    const { sent, event: each } = event();
    each.write(0, 0);
    const faults = new FaultRecording(1, each);
    faults.record(faultOf(1));
    faults.record(faultOf(2));
    expect([faults.status & 0xff, sent.length]).toEqual([pending | overflow, 1]);
    // With the record read and PFO left, a new error is still not a new condition.
    faults.clear(0);
    faults.setError(queueError);
    expect(sent).toHaveLength(1);
  });

  it('that is held by IM is settled once all conditions are served, one by one', () => {
    const { sent, event: each } = event();
    const faults = new FaultRecording(2, each);
    faults.record(faultOf(1));
    faults.setError(queueError);
    expect(each.pending).toBe(true);
    faults.clear(0);
    expect(each.pending).toBe(true);
    faults.clearStatus(queueError);
    expect(each.pending).toBe(false);
    each.write(0, 0);
    expect(sent).toHaveLength(0);
  });
});
