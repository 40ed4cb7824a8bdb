import { Agent, runToEnd } from '@faultline/sim';
import { WalkAccess } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CompletionStatus, type FaultRecord, MISS, RemappingUnit, ResponseCode } from '../src/index.ts';
import {
  anyCapabilities,
  anyChoice,
  anyCorruption,
  anyRequest,
  type Corruption,
  type StructureChoice,
  Structures,
} from './corrupt-structures.ts';
import { type NaiveAnswer, type NaiveRequest, NaiveUnit } from './naive-unit.ts';
import { RecordingEndpoint } from './unit-setup.ts';

const agent = new Agent('device');
const STATUS = {
  [CompletionStatus.success]: 'success',
  [CompletionStatus.unsupportedRequest]: 'UR',
  [CompletionStatus.completerAbort]: 'CA',
} as const;

type Observed = Omit<NaiveAnswer, 'updates'>;
const NOTHING = { frame: -1, level: 1, rights: 0, reason: 0, untranslatedOnly: false };

/** Sends one request the way that a device would. */
function observe(unit: RemappingUnit, request: NaiveRequest): { seen: Observed; records: FaultRecord[] } {
  const { kind, sourceId, address, noWrite } = request;
  const pasid = request.pasid === null ? {} : { pasid: request.pasid };
  const iovaHi = Number(BigInt.asIntN(32, address >> 32n));
  const iovaLo = Number(BigInt.asIntN(32, address));
  let seen: Omit<Observed, 'recorded'>;
  if (kind === 'untranslated') {
    const access = WalkAccess[request.access];
    const hit = access > 2 ? MISS : unit.translate(sourceId, iovaHi, iovaLo, access, request.pasid ?? -1);
    const miss = { sourceId, iovaHi, iovaLo, access, ...pasid };
    const frame = hit === MISS ? runToEnd(unit.translateMiss(agent, miss)) : hit;
    seen = frame >= 0 ? { ...NOTHING, frame, status: 'success' } : { ...NOTHING, reason: -frame, status: 'UR' };
  } else if (kind === 'translation') {
    const completion = runToEnd(unit.translationRequest(agent, { sourceId, iovaHi, iovaLo, noWrite, ...pasid }));
    const { frame, level, rights, reason, untranslatedOnly } = completion;
    seen = { frame, level, rights, reason, untranslatedOnly, status: STATUS[completion.status] };
  } else {
    const endpoint = new RecordingEndpoint();
    unit.connect(sourceId, endpoint);
    const page = Number(address >> 12n);
    const queued = unit.pageRequestQueue.requests;
    const sent = { sourceId, page, read: true, write: !noWrite, last: true, groupIndex: 5, ...pasid };
    runToEnd(unit.pageRequest(agent, sent));
    const isQueued = unit.pageRequestQueue.requests > queued;
    expect(endpoint.responses).toEqual(isQueued ? [] : [{ groupIndex: 5, responseCode: ResponseCode.invalid }]);
    seen = { ...NOTHING, status: isQueued ? 'accepted' : 'IR' };
  }
  const records = unit.faults.takeAll();
  return { seen: { ...seen, recorded: records.length > 0 }, records };
}

interface Scenario {
  readonly capabilities: Parameters<typeof unitOf>[1];
  readonly mode: number;
  readonly choice: Omit<StructureChoice, 'isLegacy'>;
  readonly corruptions: readonly Corruption[];
  readonly rootOutside: boolean;
}

const unitOf = (
  structures: Structures,
  capabilities: NonNullable<ConstructorParameters<typeof RemappingUnit>[0]>['capabilities'],
) => new RemappingUnit({ memory: structures.memory, ...(capabilities === undefined ? {} : { capabilities }) });

function setUp({ capabilities, mode, choice, corruptions, rootOutside }: Scenario) {
  const structures = new Structures({ ...choice, isLegacy: mode === 0 });
  for (const corruption of corruptions) structures.corrupt(corruption);
  const unit = unitOf(structures, capabilities);
  const rootAddress = BigInt(rootOutside ? 0x7000_0000 : structures.rootPfn) << 12n;
  unit.setRootTable(rootAddress | (BigInt(mode) << 10n));
  unit.setTranslation(true);
  const { memory } = structures;
  const naive = new NaiveUnit({ capabilities: unit.capabilities, rootAddress, mode }, (word) => {
    const pfn = Number(word >> 9n);
    return memory.contains(pfn) ? memory.hardwareLoad(pfn, Number(word & 511n)) : undefined;
  });
  return { structures, unit, naive, rootAddress };
}

const anyScenario: fc.Arbitrary<Scenario> = fc.record({
  capabilities: anyCapabilities,
  mode: fc.oneof({ weight: 12, arbitrary: fc.constantFrom(0, 1, 1) }, { weight: 1, arbitrary: fc.constantFrom(2, 3) }),
  choice: anyChoice,
  corruptions: fc.array(anyCorruption, { maxLength: 2 }),
  rootOutside: fc.integer({ min: 0, max: 40 }).map((n) => n === 0),
});

/** Every reason that untranslated, translation and page requests can meet in second-stage and pass-through translation. */
const REASONS = [
  0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0x30, 0x31, 0x32, 0x33, 0x38, 0x39, 0x3a, 0x40,
  0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x50, 0x51, 0x52, 0x58, 0x59, 0x5a, 0x5b, 0x78, 0x79, 0x7a, 0x7b,
  0x7c, 0x83, 0x84, 0x85, 0x86, 0x87, 0x89,
];

/** Reasons and answers that were met, over all tests of the file. */
const reached = new Set<number>();
const statuses = new Set<string>();

/** Sends requests to a unit and to the naive one, and compares what is answered, recorded and written. */
function compare(scenario: Scenario, requests: readonly NaiveRequest[]): void {
  const { structures, unit, naive, rootAddress } = setUp(scenario);
  const { memory, words } = structures;
  for (const request of requests) {
    const { updates, ...expected } = naive.answer(request);
    const before = words.map(([pfn, index]) => memory.load(pfn, index));
    const { seen, records } = observe(unit, request);
    reached.add(expected.reason);
    statuses.add(`${request.kind} ${expected.status}`);
    // Only a translation completion has a size and rights; the reason of a page request is only in its record.
    const hidden = { level: 1, rights: 0, ...(request.kind === 'page' ? { reason: 0 } : {}) };
    const comparable = request.kind === 'translation' ? {} : hidden;
    expect({ ...seen, ...comparable }).toEqual({ ...expected, ...comparable });
    if (expected.recorded) expect(records).toEqual([recordOf(request, expected.reason)]);
    for (const [nth, [pfn, index]] of words.entries())
      if (memory.load(pfn, index) !== ((before[nth] as bigint) | (updates.get(BigInt(pfn * 512 + index)) ?? 0n)))
        expect.fail(`A or D in word ${index} of frame 0x${pfn.toString(16)}`);
    // Nothing stays cached from one request to the next (CAP.ESRTPS).
    unit.setRootTable(rootAddress | (BigInt(scenario.mode) << 10n));
  }
}

const recordOf = ({ kind, sourceId, address, access, pasid }: NaiveRequest, reason: number): FaultRecord => ({
  sourceId,
  page: Number(address >> 12n),
  reason,
  write: kind === 'untranslated' && access === 'write',
  ...(pasid === null ? {} : { pasid }),
  ...(kind === 'untranslated' && access === 'atomic' ? { atomic: true } : {}),
  ...(kind === 'translation' ? { addressType: 1 } : {}),
  ...(kind === 'page' ? { pageRequest: true } : {}),
});

const BITS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 23, 24, 40, 51, 62] as const;
const WAYS: readonly Omit<Corruption, 'word'>[] = [
  ...BITS.map((bit) => ({ how: 'flip' as const, bit })),
  ...(['zero', 'ones', 'outside', 'cycle', 'elsewhere'] as const).map((how) => ({ how, bit: 3 })),
];

const base = { sourceId: 0x18, pasid: null, access: 'read', noWrite: false, kind: 'untranslated' } as const;
const REQUESTS: readonly NaiveRequest[] = [
  { ...base, address: 0n },
  { ...base, access: 'write', address: 0x1000n },
  { ...base, access: 'atomic', address: 0x2000n, pasid: 5 },
  { ...base, sourceId: 0x98, access: 'zeroLengthRead', address: 0x2000n, pasid: 70 },
  { ...base, address: 0x8000_0000n + 0x3ee0_5000n },
  { ...base, address: 1n << 57n },
  { ...base, access: 'write', address: 1n << 51n, pasid: 7 },
  { ...base, address: 0x4000_0000n, pasid: 0x2001 },
  { ...base, kind: 'translation', address: 0x20_0000n },
  { ...base, kind: 'translation', address: 0x40_0000n, noWrite: true, pasid: 3 },
  { ...base, kind: 'translation', address: 0xfee0_1000n, pasid: 7, sourceId: 0x98 },
  { ...base, kind: 'page', address: 0x3000n },
  { ...base, kind: 'page', address: 0x3000n, pasid: 70 },
];

describe('table 30', () => {
  const sound = { levels: 4, translationType: 1, dirty: true, snoops: true, directorySize: 0, enables: 7 } as const;
  const scenario: Scenario = { capabilities: {}, mode: 1, choice: sound, corruptions: [], rootOutside: false };

  it.each([
    ['legacy', 0],
    ['scalable', 1],
  ] as const)(
    'is what the unit does in %s mode with each word of the structures broken in each way',
    (_, mode) => {
      const { words } = new Structures({ ...sound, isLegacy: mode === 0 });
      compare({ ...scenario, mode }, REQUESTS);
      for (const [word] of words.entries())
        for (const way of WAYS) compare({ ...scenario, mode, corruptions: [{ ...way, word }] }, REQUESTS);
    },
    60_000,
  );

  it('is what it does where the registers and capabilities decide', () => {
    for (const mode of [0, 1, 2, 3])
      for (const rootOutside of [false, true])
        for (const abortDmaMode of [false, true])
          for (const scalableMode of [false, true])
            compare({ ...scenario, mode, rootOutside, capabilities: { abortDmaMode, scalableMode } }, REQUESTS);
    const few = { ...scenario, capabilities: { pasidBits: 6 } };
    for (const choice of [sound, { ...sound, enables: 0 }, { ...sound, enables: 4 }, { ...sound, snoops: false }])
      compare({ ...few, choice }, REQUESTS);
    expect(REASONS.filter((reason) => !reached.has(reason)).map((reason) => reason.toString(16))).toEqual([]);
    expect([...statuses].sort()).toEqual([
      'page IR',
      'page accepted',
      'translation CA',
      'translation UR',
      'translation success',
      'untranslated UR',
      'untranslated success',
    ]);
  });

  it('is what it does with every kind of request, over random and corrupt structures and capabilities', () => {
    fc.assert(
      fc.property(anyScenario, fc.array(anyRequest, { minLength: 30, maxLength: 30 }), (random, requests) =>
        compare(random, requests),
      ),
      { numRuns: 300 },
    );
  }, 60_000);
});
