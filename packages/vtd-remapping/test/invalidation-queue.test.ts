import { Agent, Cost, type Task, TaskRun } from '@faultline/sim';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Descriptor, FaultStatus, GlobalCommand, QueueErrorInfo, Register } from '../src/index.ts';
import { DEVICE, deviceTlb, psi, RawUnit, response } from './raw-unit.ts';

const { queueError, completionError, timeout } = FaultStatus;

describe('the ring', () => {
  it('is fetched from only while QIE is set; clearing it resets the head, and GSTS follows', () => {
    const raw = new RawUnit();
    raw.submit(psi(1));
    raw.run();
    expect([raw.log, raw.head]).toEqual([[], 0]);
    raw.enable().run();
    expect(raw.read32(Register.GSTS) & GlobalCommand.queuedInvalidationEnable).not.toBe(0);
    expect([raw.log, raw.head]).toEqual([['iotlb'], 1]);
    raw.disable();
    expect(raw.read32(Register.GSTS) & GlobalCommand.queuedInvalidationEnable).toBe(0);
    expect([raw.head, raw.read64(Register.IQT)]).toEqual([0, BigInt(raw.width)]);
    raw.run();
    expect(raw.log).toHaveLength(1);
  });

  it.each([
    [0, 0, 256],
    [0, 1, 128],
    [1, 0, 512],
    [3, 1, 1024],
  ] as const)('of QS %i and DW %i has %i entries, goes round, and uses all but one', (queueSize, dw, entries) => {
    const raw = new RawUnit({ mode: dw ? 1 : 0, queueSize }).enable();
    expect(raw.entries).toBe(entries);
    for (let lap = 0; lap < 3; lap++) {
      raw.submit(...Array.from({ length: entries - 2 }, (_, i) => psi(i)), raw.wait(lap));
      raw.run();
      expect([raw.status(lap), raw.head, raw.errors]).toEqual([lap + 1, raw.tail, 0]);
    }
    expect(raw.log).toHaveLength(3 * (entries - 2));
  });

  it('keeps its tail, and the head inside it, when IQA changes the size or the width', () => {
    const raw = new RawUnit({ mode: 0, queueSize: 1 }).enable();
    raw.submit(...Array.from({ length: 300 }, (_, i) => psi(i)));
    raw.run();
    expect(raw.head).toBe(300);
    raw.write64(Register.IQA, BigInt(raw.ringPfn) << 12n);
    expect(raw.head).toBe(300 - 256);
    raw.disable();
    raw.write64(Register.IQT, 0x10n);
    raw.write64(Register.IQA, (BigInt(raw.ringPfn) << 12n) | 0x800n);
    expect([raw.read64(Register.IQT), raw.read64(Register.IQH)]).toEqual([0x10n, 0n]);
    raw.enable().run();
    expect([raw.errors, raw.errorInfo]).toEqual([queueError, QueueErrorInfo.misalignedTail]);
  });

  it('that software empties or disables before the fetch happens gives nothing', () => {
    for (const stop of [(raw: RawUnit) => raw.disable(), (raw: RawUnit) => raw.write64(Register.IQT, 0n)]) {
      const raw = new RawUnit().enable();
      raw.submit(psi(1));
      const run = new TaskRun(raw.hardware, raw.unit.invalidationQueue.process(raw.hardware, raw.executor));
      run.advance();
      expect(run.pending?.label).toBe('fetch descriptor');
      stop(raw);
      while (!run.done) run.advance();
      expect([raw.log, raw.head, raw.errors]).toEqual([[], 0, 0]);
    }
  });
});

describe('an invalid descriptor or queue (IQE)', () => {
  /** What makes the queue stop, and what repairs it. */
  const causes: Record<number, { spoil: (raw: RawUnit) => void; repair: (raw: RawUnit) => void }> = {
    [QueueErrorInfo.invalidTail]: {
      spoil: (raw) => raw.write64(Register.IQT, 0x1000n),
      repair: (raw) => raw.submit(psi(2)),
    },
    [QueueErrorInfo.fetchError]: {
      spoil: (raw) => {
        raw.write64(Register.IQA, (1n << 51n) | 0x800n);
        raw.submit(psi(1));
      },
      repair: (raw) => raw.write64(Register.IQA, (BigInt(raw.ringPfn) << 12n) | 0x800n),
    },
    [QueueErrorInfo.invalidType]: { spoil: (raw) => raw.submit([0xan]), repair: (raw) => raw.put(2, [0x5n]) },
    [QueueErrorInfo.reservedField]: { spoil: (raw) => raw.submit([0x105n]), repair: (raw) => raw.put(2, [0x5n]) },
    [QueueErrorInfo.invalidWidth]: {
      spoil: (raw) => {
        raw.write64(Register.IQA, BigInt(raw.ringPfn) << 12n);
        raw.submit(psi(1));
      },
      repair: (raw) => raw.write64(Register.IQA, (BigInt(raw.ringPfn) << 12n) | 0x800n),
    },
    [QueueErrorInfo.misalignedTail]: {
      spoil: (raw) => raw.write64(Register.IQT, BigInt(raw.tail * 32 + 16)),
      repair: (raw) => raw.submit(psi(2)),
    },
    [QueueErrorInfo.invalidTranslationMode]: {
      spoil: (raw) => {
        raw.setMode(2);
        raw.submit(psi(1));
      },
      repair: (raw) => raw.setMode(1),
    },
  };

  it.each(Object.keys(causes).map(Number))(
    'with IQEI %i stops at its place until cleared, and then goes on',
    (info) => {
      const { spoil, repair } = causes[info] as (typeof causes)[number];
      const raw = new RawUnit().enable();
      raw.submit(psi(1), raw.wait(0));
      raw.run();
      spoil(raw);
      raw.run();
      expect([raw.errors, raw.errorInfo, raw.head]).toEqual([queueError, info, 2]);
      expect([raw.log, raw.status(0)]).toEqual([['iotlb'], 1]);
      // More descriptors, and a repair without clearing IQE, start nothing.
      repair(raw);
      raw.run();
      expect([raw.head, raw.log]).toEqual([2, ['iotlb']]);
      raw.write32(Register.FSTS, queueError);
      raw.run();
      expect(raw.errors).toBe(0);
      raw.submit(psi(3), raw.wait(1));
      raw.run();
      expect([raw.head, raw.status(1), raw.log.at(-1)]).toEqual([raw.tail, 2, 'iotlb']);
    },
  );

  it('that is cleared and not repaired comes again', () => {
    const raw = new RawUnit().enable();
    raw.submit([0xan], psi(1));
    for (let i = 0; i < 3; i++) {
      raw.run();
      expect([raw.errors, raw.head, raw.log]).toEqual([queueError, 0, []]);
      raw.write32(Register.FSTS, queueError);
      expect(raw.errors).toBe(0);
    }
  });

  it('with DW=1 is the unit that has neither scalable nor abort-DMA mode', () => {
    const narrow = { scalableMode: false, abortDmaMode: false };
    for (const [capabilities, info] of [
      [narrow, QueueErrorInfo.invalidWidth],
      [{ ...narrow, abortDmaMode: true }, 0],
    ] as const) {
      const raw = new RawUnit({ mode: 0, wide: true, capabilities }).enable();
      raw.submit(psi(1));
      raw.run();
      expect([raw.errorInfo, raw.errors]).toEqual([info, info === 0 ? 0 : queueError]);
    }
  });

  it('with a mode that the unit lacks is the same as with the reserved one', () => {
    const lacking = { scalableMode: false, abortDmaMode: false };
    for (const [mode, capabilities] of [
      [1, lacking],
      [1, { ...lacking, abortDmaMode: true }],
      [3, lacking],
      [3, { abortDmaMode: false }],
    ] as const) {
      const raw = new RawUnit({ mode, capabilities }).enable();
      raw.submit(psi(1));
      raw.run();
      expect([raw.errors, raw.errorInfo]).toEqual([queueError, QueueErrorInfo.invalidTranslationMode]);
    }
  });

  it('lets messages to devices that were fetched before it go out', () => {
    const raw = new RawUnit().enable();
    raw.submit(response(1), deviceTlb(5), [0xan], raw.wait(0));
    raw.run();
    expect([raw.log, raw.errors, raw.status(0)]).toEqual([['pageGroupResponse', 'deviceTlb'], queueError, 0]);
  });
});

describe('a wait', () => {
  it('writes 32 bits and no others, with SW only, wherever in a 64-bit word', () => {
    const raw = new RawUnit().enable();
    raw.memory.store(raw.statusPfn, 0, 0x1111_1111_2222_2222n);
    raw.submit(raw.wait(1, 0xdead_beef));
    raw.run();
    expect(raw.memory.load(raw.statusPfn, 0)).toBe(0xdead_beef_2222_2222n);
    raw.submit(raw.wait(0, 0xffff_ffff), { ...raw.wait(1, 5), statusWrite: false } as Descriptor);
    raw.run();
    expect(raw.memory.load(raw.statusPfn, 0)).toBe(0xdead_beef_ffff_ffffn);
  });

  it('without SW ignores its address, and one to no memory is lost', () => {
    const raw = new RawUnit().enable();
    raw.submit([0x2_0000_0005n, 0xfee0_0000_0000n], [0x2_0000_0025n, 0xfffn << 40n], raw.wait(0));
    raw.run();
    expect([raw.errors, raw.status(0), raw.unit.invalidationQueue.waits]).toEqual([0, 1, 3]);
  });

  it('with IF sets IWC and sends one event until that is cleared; masked it is pending, and settled by clearing IWC', () => {
    const raw = new RawUnit().enable();
    raw.write32(Register.IEDATA, 0x1234_5678);
    raw.write32(Register.IEADDR, 0xfee0_1007 | 0);
    raw.write32(Register.IEUADDR, 7);
    const complete = () => {
      raw.submit(raw.wait(0, 1, { interrupt: true }));
      raw.run();
    };
    const state = () => [raw.read32(Register.ICS), raw.read32(Register.IECTL), raw.interrupts.length];
    complete();
    expect(state()).toEqual([1, 0xc000_0000, 0]); // masked at reset: IM and IP
    raw.write32(Register.IECTL, 0);
    expect(state()).toEqual([1, 0, 1]);
    expect(raw.interrupts[0]).toEqual({ address: 0x7_fee0_1004n, data: 0x5678 });
    complete(); // IWC is still set
    expect(state()).toEqual([1, 0, 1]);
    raw.write32(Register.ICS, 0);
    expect(raw.read32(Register.ICS)).toBe(1);
    raw.write32(Register.ICS, 1);
    complete();
    expect(state()).toEqual([1, 0, 2]);
    raw.write32(Register.IECTL, 0x8000_0000 | 0);
    raw.write32(Register.ICS, 1);
    complete();
    expect(state()).toEqual([1, 0xc000_0000, 2]);
    raw.write32(Register.ICS, 1); // served by polling
    expect(state()).toEqual([0, 0x8000_0000, 2]);
    raw.write32(Register.IECTL, 0);
    expect(state()).toEqual([0, 0, 2]);
  });

  it('without IF sets nothing', () => {
    const raw = new RawUnit().enable();
    raw.submit(raw.wait(0));
    raw.run();
    expect([raw.read32(Register.ICS), raw.read32(Register.IECTL)]).toEqual([0, 0x8000_0000]);
  });

  it('with PD comes after page requests that were received before it, and with none does not wait', () => {
    const raw = new RawUnit().enable();
    const request = { sourceId: DEVICE, page: 1, read: true, write: false, last: true, groupIndex: 3 };
    const device = new Agent('device');
    const sending = new TaskRun(device, raw.unit.pageRequest(device, request));
    sending.advance(); // received: its structures are being read
    expect(sending.done).toBe(false);
    raw.submit(raw.wait(0), raw.wait(1, 2, { drain: true }), raw.wait(2));
    raw.run();
    expect([raw.status(0), raw.status(1), raw.status(2)]).toEqual([1, 0, 0]);
    while (!sending.done) sending.advance();
    raw.run();
    expect([raw.status(1), raw.status(2)]).toEqual([2, 3]);
    raw.submit(raw.wait(3, 4, { drain: true }));
    raw.run();
    expect(raw.status(3)).toBe(4);
  });
});

describe('a device that does not answer (ITE)', () => {
  const GONE = 0x20;

  it('aborts the wait, with no status write, and stops fetching until cleared', () => {
    const raw = new RawUnit().enable();
    raw.submit(psi(1), deviceTlb(1, GONE), raw.wait(0), psi(2), raw.wait(1));
    raw.run();
    expect([raw.errors, raw.status(0), raw.status(1), raw.head]).toEqual([timeout, 0, 0, 3]);
    expect(Number((raw.read64(Register.IQERCD) >> 32n) & 0xffffn)).toBe(GONE);
    raw.submit(psi(3));
    raw.run();
    expect(raw.head).toBe(3);
    raw.write32(Register.FSTS, timeout);
    raw.run();
    // What follows runs; the aborted wait never completes.
    expect([raw.errors, raw.status(0), raw.status(1), raw.head]).toEqual([0, 0, 2, 6]);
  });

  it('aborts the wait for good, also if ITE is cleared while another device is still being waited for', () => {
    const raw = new RawUnit().enable();
    raw.endpoint.onInvalidate = () => raw.write32(Register.FSTS, timeout);
    raw.submit(deviceTlb(1, GONE), deviceTlb(2), raw.wait(0), raw.wait(1));
    raw.run();
    expect([raw.errors, raw.status(0), raw.status(1)]).toEqual([0, 0, 2]);
  });

  it('keeps the first requester until ITE is cleared', () => {
    const raw = new RawUnit().enable();
    raw.submit(deviceTlb(1, GONE), deviceTlb(1, 0x28), raw.wait(0));
    raw.run();
    const silent = () => Number((raw.read64(Register.IQERCD) >> 32n) & 0xffffn);
    expect(silent()).toBe(GONE);
    raw.write32(Register.FSTS, timeout);
    raw.submit(deviceTlb(1, 0x28), raw.wait(1));
    raw.run();
    expect(silent()).toBe(0x28);
  });

  it('after the last descriptor needs no wait to be found', () => {
    const raw = new RawUnit().enable();
    raw.submit(deviceTlb(1, GONE));
    raw.run();
    expect([raw.errors, raw.head]).toEqual([timeout, 1]);
  });
});

describe('a completion that nobody expects (ICE)', () => {
  it('is reported with its requester, and processing goes on', () => {
    const raw = new RawUnit().enable();
    raw.endpoint.outcome = 'unexpected-completion';
    raw.submit(deviceTlb(), raw.wait(0), psi(1), raw.wait(1));
    raw.run();
    expect([raw.errors, raw.status(0), raw.status(1), raw.head]).toEqual([completionError, 1, 2, 4]);
    expect(Number(raw.read64(Register.IQERCD) >> 48n)).toBe(DEVICE);
    raw.write32(Register.FSTS, completionError);
    expect(raw.errors).toBe(0);
  });
});

describe('order (6.5.2.12, 7.8)', () => {
  const pasid = { domainId: 1, pasid: 1 } as const;
  const KINDS: Record<string, Descriptor> = {
    contextCache: { type: 'contextCache', granularity: 1, domainId: 0, sourceId: 0, functionMask: 0 },
    pasidCache: { type: 'pasidCache', granularity: 3, ...pasid },
    iotlb: psi(1),
    pasidIotlb: { type: 'pasidIotlb', granularity: 2, ...pasid, page: 0, addressMask: 0, leafOnly: false },
    interruptEntryCache: { type: 'interruptEntryCache', indexSelective: false, index: 0, indexMask: 0 },
    deviceTlb: deviceTlb(),
    pasidDeviceTlb: { type: 'pasidDeviceTlb', sourceId: DEVICE, pasid: 1, global: false, page: 0, sizeLog2: 0 },
    pageGroupResponse: response(1),
  };
  const MESSAGES = ['deviceTlb', 'pasidDeviceTlb', 'pageGroupResponse'];
  /** By type: what ahead of it has to be complete. */
  const AFTER: Record<string, readonly string[]> = {
    pasidCache: ['contextCache'],
    iotlb: ['contextCache', 'pasidCache'],
    pasidIotlb: ['contextCache', 'pasidCache'],
    deviceTlb: ['iotlb', 'interruptEntryCache', ...MESSAGES],
    pasidDeviceTlb: ['iotlb', 'pasidIotlb', 'interruptEntryCache', ...MESSAGES],
    pageGroupResponse: MESSAGES,
  };

  it('holds over any program: nothing overtakes what it has to wait for, and a wait nothing since the wait before', () => {
    const item = fc.oneof(fc.constantFrom(...Object.keys(KINDS)), fc.constantFrom('wait', 'fence'));
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 60 }), (program) => {
        const raw = new RawUnit().enable();
        /** Positions in the program, in the order of completion. */
        const completed: number[] = [];
        const position = (type: string): number =>
          program.findIndex((kind, at) => kind === type && !completed.includes(at));
        const { executor } = raw;
        const inOrder = {
          ...executor,
          *execute(agent: Agent, descriptor: Descriptor): Task<void> {
            yield* executor.execute(agent, descriptor);
            completed.push(position(descriptor.type));
          },
          *sendMessage(agent: Agent, descriptor: Descriptor) {
            const outcome = yield* executor.sendMessage(agent, descriptor);
            completed.push(position(descriptor.type));
            return outcome;
          },
        };
        const waits = program.flatMap((kind, at) => (kind === 'wait' || kind === 'fence' ? [at] : []));
        raw.unit.invalidationQueue.observe(() => {
          for (const at of waits) if (raw.status(at) !== 0 && !completed.includes(at)) completed.push(at);
        });
        raw.disable();
        const hardware = new TaskRun(raw.hardware, raw.unit.invalidationQueue.run(raw.hardware, inOrder));
        raw.enable();
        raw.submit(
          ...program.map((kind, at) =>
            kind === 'wait' || kind === 'fence'
              ? raw.wait(at, 1, { fence: kind === 'fence' })
              : (KINDS[kind] as Descriptor),
          ),
        );
        while (hardware.enabled) hardware.advance();
        expect([...completed].sort((a, b) => a - b)).toEqual(program.map((_, at) => at));
        const when = (at: number): number => completed.indexOf(at);
        for (const [at, kind] of program.entries())
          for (let before = 0; before < at; before++) {
            const isWait = kind === 'wait' || kind === 'fence';
            const mustFollow =
              (AFTER[kind] ?? []).includes(program[before] as string) || isWait || program[before] === 'fence';
            if (mustFollow) expect(when(before), `${program[before]} before ${kind}`).toBeLessThan(when(at));
          }
      }),
      { numRuns: 100 },
    );
  });

  it('draws a device-TLB invalidation out: no later descriptor than its wait completes before the device answers', () => {
    const raw = new RawUnit().enable();
    const heldUp: number[][] = [];
    raw.endpoint.onInvalidate = () => heldUp.push([raw.status(0), raw.status(1)]);
    raw.submit(deviceTlb(1), raw.wait(0, 1, { fence: true }), deviceTlb(2), raw.wait(1));
    raw.run();
    expect(heldUp).toEqual([
      [0, 0],
      [1, 0],
    ]);
  });
});

describe('drain', () => {
  it('holds up the wait of an invalidation in the unit', () => {
    const raw = new RawUnit().enable();
    const token = raw.unit.inFlight.begin();
    raw.submit(psi(1), raw.wait(0));
    const device = new Agent('device');
    raw.time.spawn(
      device,
      (function* (): Task<void> {
        yield device.spends('payload', Cost.nanosecond, 5000);
        expect(raw.status(0)).toBe(0);
        raw.unit.inFlight.end(token);
      })(),
    );
    raw.run();
    expect(raw.status(0)).toBe(1);
    expect(raw.time.nowNs).toBeGreaterThanOrEqual(5000);
  });

  it('is asked for by DR and DW with major version 1, and always done from 2 on', () => {
    const plain: Descriptor = { ...psi(1), drainReads: false, drainWrites: false } as Descriptor;
    for (const [majorVersion, descriptor, done] of [
      [1, plain, 1],
      [1, psi(1), 0],
      [1, { ...psi(1), drainReads: false } as Descriptor, 0],
      [2, plain, 0],
    ] as const) {
      const raw = new RawUnit({ mode: 0, capabilities: { majorVersion } }).enable();
      raw.unit.inFlight.begin();
      raw.submit(descriptor, raw.wait(0));
      raw.run();
      expect(raw.status(0), `version ${majorVersion}`).toBe(done);
    }
  });
});
