import { INVALIDATION_VARIANTS } from '@faultline/iotlb';
import { Agent, runToEnd } from '@faultline/sim';
import { encodePasidEntry, SecondStageTable, TableMemory } from '@faultline/vtd-pagetable';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Descriptor, Granularity, type RemappingUnitOptions } from '../src/index.ts';
import { type NaiveRequest, NaiveUnit } from './naive-unit.ts';
import { iotlbDescriptor, UnitSetup } from './unit-setup.ts';

const device = new Agent('device');
const SOURCES = [0x18, 0x98] as const;
/** RID_PASID, and PASIDs in two tables. */
const PASIDS = [0, 5, 70] as const;
const DOMAINS = [1, 2] as const;
const PASS_THROUGH = 9;

/** One change of a word or two in memory, and what table 28 of Rev 5.10 asks for after it. */
interface Change {
  apply(): void;
  /** Whether something present changes: without CAP.CM nothing is owed otherwise. */
  readonly wasPresent: boolean;
  readonly owed: readonly Descriptor[];
}

/** Two functions with three PASIDs each (in legacy mode with none), and two domains whose tables and structures change. */
class Caches {
  readonly setup: UnitSetup;
  readonly memory = new TableMemory({ pages: 64 });
  readonly tables: readonly SecondStageTable[];
  readonly naive: NaiveUnit;
  readonly #isLegacy: boolean;
  readonly #directories: readonly number[];
  readonly #contexts: readonly number[];

  constructor(mode: 'legacy' | 'scalable', options: Partial<RemappingUnitOptions>) {
    this.#isLegacy = mode === 'legacy';
    this.setup = new UnitSetup({ ...options, memory: this.memory }, { mode });
    const { unit, driver } = this.setup;
    this.tables = DOMAINS.map(() => new SecondStageTable({ memory: this.memory, capabilities: unit.structures }));
    for (const [nth, table] of this.tables.entries()) {
      const frame = 0x10_0000 * (nth + 1);
      const rights = { read: true, write: true };
      table.map({ page: 0, frame, pages: 8, rights });
      table.map({ page: 512, frame: frame + 512, pages: 512, rights });
    }
    const pages = (count: number) => Array.from({ length: count }, () => this.memory.allocate());
    this.#contexts = this.#isLegacy ? pages(1) : pages(2);
    this.#directories = this.#isLegacy ? [] : pages(2);
    for (const [half, pfn] of this.#contexts.entries()) this.#store(driver.rootPfn, half, pointer(pfn) | 1n);
    for (const [nth, directory] of this.#directories.entries()) {
      for (const slot of [0, 1]) this.#store(directory, slot, pointer(this.memory.allocate()) | 1n);
      for (const pasid of PASIDS) this.#pasidEntry(nth, pasid, DOMAINS[nth] as number).apply();
      const [pfn, index] = this.#contextAt(nth);
      this.#store(pfn, index, pointer(directory) | 0b1_1101n);
    }
    if (this.#isLegacy) for (const nth of [0, 1]) this.#legacyContext(nth, DOMAINS[nth] as number).apply();
    const rootAddress = BigInt(driver.rootPfn) << 12n;
    const root = { capabilities: unit.capabilities, rootAddress, mode: this.#isLegacy ? 0 : 1 };
    this.naive = new NaiveUnit(root, (word) => {
      const pfn = Number(word >> 9n);
      return this.memory.contains(pfn) ? this.memory.load(pfn, Number(word & 511n)) : undefined;
    });
  }

  #store(pfn: number, index: number, word: bigint): void {
    this.memory.store(pfn, index, word);
  }

  #contextAt(nth: number): readonly [number, number] {
    if (this.#isLegacy) return [this.#contexts[0] as number, (SOURCES[nth] as number) * 2];
    return [this.#contexts[nth] as number, ((SOURCES[nth] as number) & 0x7f) * 4];
  }

  #pasidTable(nth: number, pasid: number): number {
    const directory = this.memory.load(this.#directories[nth] as number, pasid >> 6);
    return Number((directory >> 12n) & 0xff_ffffn);
  }

  /** DID of a PASID-table entry if it is present; else of nothing that is cached. */
  #domainOf(nth: number, pasid: number): number {
    const at = this.#pasidTable(nth, pasid);
    const isPresent = (this.memory.load(at, (pasid & 63) * 8) & 1n) !== 0n;
    return isPresent ? Number(this.memory.load(at, (pasid & 63) * 8 + 1) & 0xffffn) : 0;
  }

  /** A leaf of 4K: another frame, read-only, or gone. */
  leaf(domain: number, page: number, value: number): Change {
    const table = this.tables[domain] as SecondStageTable;
    let pfn = table.rootPfn;
    for (let level = 4; level > 1; level--) pfn = Number(this.memory.load(pfn, 0) >> 12n) & 0xff_ffff;
    const word = [0n, (0x5000n << 12n) | 1n, (0x6000n << 12n) | 3n][value] as bigint;
    return {
      apply: () => this.#store(pfn, page, word),
      wasPresent: (this.memory.load(pfn, page) & 3n) !== 0n,
      owed: [iotlbDescriptor(Granularity.selective, { domainId: DOMAINS[domain] as number, page, leafOnly: true })],
    };
  }

  /** The second 2M: a leaf, a table with one page in it, or nothing. */
  block(domain: number, value: number): Change {
    const table = this.tables[domain] as SecondStageTable;
    let pfn = table.rootPfn;
    for (let level = 4; level > 2; level--) pfn = Number(this.memory.load(pfn, 0) >> 12n) & 0xff_ffff;
    const below = value === 2 ? this.memory.allocate() : -1;
    if (value === 2) this.#store(below, 3, (0x7003n << 12n) | 3n);
    const word = [0n, (0x8000n << 12n) | 0x83n, pointer(below) | 3n][value] as bigint;
    const descriptor = { domainId: DOMAINS[domain] as number, page: 512, addressMask: 9 };
    return {
      apply: () => this.#store(pfn, 1, word),
      wasPresent: (this.memory.load(pfn, 1) & 3n) !== 0n,
      owed: [iotlbDescriptor(value === 2 ? Granularity.domain : Granularity.selective, descriptor)],
    };
  }

  #legacyContext(nth: number, domainId: number): Change {
    const [pfn, index] = this.#contextAt(nth);
    const old = this.memory.load(pfn, index + 1);
    const oldDomain = Number((old >> 8n) & 0xffffn);
    const sourceId = SOURCES[nth] as number;
    const table = this.tables[DOMAINS.indexOf(domainId as 1 | 2)];
    const low = domainId === 0 ? 0n : table ? pointer(table.rootPfn) | 0b0101n : 0b1001n;
    return {
      apply: () => {
        this.#store(pfn, index + 1, (BigInt(domainId) << 8n) | 2n);
        this.#store(pfn, index, low);
      },
      wasPresent: (this.memory.load(pfn, index) & 1n) !== 0n,
      owed: [
        { type: 'contextCache', granularity: Granularity.selective, domainId: oldDomain, sourceId, functionMask: 0 },
        iotlbDescriptor(Granularity.domain, { domainId: oldDomain }),
      ],
    };
  }

  #pasidEntry(nth: number, pasid: number, domainId: number): Change {
    const at = this.#pasidTable(nth, pasid);
    const oldDomain = this.#domainOf(nth, pasid);
    const table = this.tables[DOMAINS.indexOf(domainId as 1 | 2)];
    const words = encodePasidEntry({
      faultProcessingDisabled: false,
      addressWidth: 2,
      translationType: table ? 2 : 4,
      secondStageAccessedDirty: false,
      secondStagePfn: table?.rootPfn ?? 0,
      domainId,
      pageWalkSnoop: true,
      pageSnoop: false,
    });
    const first = (pasid & 63) * 8;
    const isCleared = domainId === 0;
    return {
      apply: () => {
        for (let nthWord = 7; nthWord >= 0; nthWord--)
          this.#store(at, first + nthWord, isCleared ? 0n : (words[nthWord] as bigint));
      },
      wasPresent: (this.memory.load(at, first) & 1n) !== 0n,
      owed: [
        { type: 'pasidCache', granularity: 1, domainId: oldDomain, pasid },
        isCleared
          ? iotlbDescriptor(Granularity.domain, { domainId: oldDomain })
          : {
              type: 'pasidIotlb',
              granularity: 2,
              domainId: oldDomain,
              pasid,
              page: 0,
              addressMask: 0,
              leafOnly: false,
            },
      ],
    };
  }

  /** What a function, or one of its PASIDs, is attached to: a domain, pass-through, or nothing. */
  attachment(nth: number, which: number, value: number): Change {
    const domainId = [0, 1, 2, PASS_THROUGH][value] as number;
    return this.#isLegacy
      ? this.#legacyContext(nth, domainId)
      : this.#pasidEntry(nth, PASIDS[which] as number, domainId);
  }

  /** P of a PASID-directory entry. */
  directory(nth: number, slot: number): Change {
    const pfn = this.#directories[nth] as number;
    const word = this.memory.load(pfn, slot);
    const affected = PASIDS.filter((pasid) => pasid >> 6 === slot);
    return {
      apply: () => this.#store(pfn, slot, word ^ 1n),
      wasPresent: (word & 1n) !== 0n,
      owed: [
        ...affected.map(
          (pasid) => ({ type: 'pasidCache', granularity: 1, domainId: this.#domainOf(nth, pasid), pasid }) as const,
        ),
        ...affected.map((pasid) => iotlbDescriptor(Granularity.domain, { domainId: this.#domainOf(nth, pasid) })),
      ],
    };
  }

  /** P, DTE with PRE, or PASIDE of a scalable-mode context entry. */
  context(nth: number, bits: bigint): Change {
    const [pfn, index] = this.#contextAt(nth);
    const word = this.memory.load(pfn, index);
    const domains = [...DOMAINS, PASS_THROUGH];
    const sourceId = SOURCES[nth] as number;
    return {
      apply: () => this.#store(pfn, index, word ^ bits),
      wasPresent: (word & 1n) !== 0n,
      owed: [
        { type: 'contextCache', granularity: Granularity.selective, domainId: 0, sourceId, functionMask: 0 },
        ...domains.map((domainId) => ({ type: 'pasidCache', granularity: 0, domainId, pasid: 0 }) as const),
        ...domains.map((domainId) => iotlbDescriptor(Granularity.domain, { domainId })),
      ],
    };
  }

  /** P of a root entry, or of a half of one. */
  root(half: number): Change {
    const { rootPfn } = this.setup.driver;
    const index = this.#isLegacy ? 0 : half;
    const word = this.memory.load(rootPfn, index);
    return {
      apply: () => this.#store(rootPfn, index, word ^ 1n),
      wasPresent: (word & 1n) !== 0n,
      owed: [
        { type: 'contextCache', granularity: Granularity.global, domainId: 0, sourceId: 0, functionMask: 0 },
        ...(this.#isLegacy ? [] : [{ type: 'pasidCache', granularity: 3, domainId: 0, pasid: 0 } as const]),
        iotlbDescriptor(Granularity.global),
      ],
    };
  }

  change({ what, nth, which, value }: Program[number]['change']): Change {
    if (what === 'leaf') return this.leaf(nth, which, value % 3);
    if (what === 'block') return this.block(nth, value % 3);
    if (what === 'root') return this.root(nth);
    if (this.#isLegacy || what === 'attachment') return this.attachment(nth, which, value);
    return what === 'directory'
      ? this.directory(nth, which & 1)
      : this.context(nth, [1n, 0b1_0100n, 8n][which] as bigint);
  }

  /** The unit's answer and the naive one's, in the same words. */
  ask(request: NaiveRequest): string {
    const { kind, sourceId, address, pasid, noWrite } = request;
    const { unit } = this.setup;
    const iova = { sourceId, iovaHi: 0, iovaLo: Number(address), ...(pasid === null ? {} : { pasid }) };
    if (kind === 'translation') {
      const { frame, rights, reason } = runToEnd(unit.translationRequest(device, { ...iova, noWrite }));
      return `${frame} ${rights} ${reason}`;
    }
    return `${unit.dma({ ...iova, access: request.access === 'write' ? 1 : 0 })}`;
  }

  expected(request: NaiveRequest): string {
    const { frame, rights, reason } = this.naive.answer(request);
    if (request.kind === 'translation') return `${frame} ${rights} ${reason}`;
    return `${reason === 0 ? frame : -reason}`;
  }
}

const pointer = (pfn: number): bigint => BigInt(pfn) << 12n;

type Program = readonly {
  readonly change: {
    readonly what: 'leaf' | 'block' | 'attachment' | 'directory' | 'context' | 'root';
    readonly nth: number;
    readonly which: number;
    readonly value: number;
  };
  readonly requests: readonly NaiveRequest[];
}[];

const anyRequest: fc.Arbitrary<NaiveRequest> = fc.record({
  kind: fc.constantFrom<'untranslated' | 'translation'>('untranslated', 'translation'),
  sourceId: fc.constantFrom(...SOURCES),
  address: fc.constantFrom(0, 1, 2, 9, 512, 515, 600).map((page) => BigInt(page) << 12n),
  pasid: fc.constantFrom<number | null>(null, null, 5, 70),
  access: fc.constantFrom<'read' | 'write'>('read', 'write'),
  noWrite: fc.boolean(),
});

const anyProgram: fc.Arbitrary<Program> = fc.array(
  fc.record({
    change: fc.record({
      what: fc.constantFrom(
        'leaf',
        'leaf',
        'block',
        'block',
        'attachment',
        'attachment',
        'directory',
        'context',
        'root',
      ),
      nth: fc.nat(1),
      which: fc.nat(2),
      value: fc.nat(3),
    }),
    requests: fc.array(anyRequest, { minLength: 4, maxLength: 12 }),
  }),
  { minLength: 1, maxLength: 10 },
);

const TINY: Partial<RemappingUnitOptions> = {
  iotlb: { geometry: { '4K': { sets: 1, ways: 2 }, '2M': { sets: 1, ways: 1 }, '1G': { sets: 1, ways: 1 } } },
};

describe.each([
  ['legacy', false],
  ['legacy', true],
  ['scalable', false],
  ['scalable', true],
] as const)('caches in %s mode with CAP.CM=%s', (mode, cachingMode) => {
  it.each<[string, Partial<RemappingUnitOptions>]>([
    ['of small size', TINY],
    ['of usual size', {}],
    ['that invalidate coarsely', { invalidation: INVALIDATION_VARIANTS.coarse }],
    ['of fractions', { invalidation: INVALIDATION_VARIANTS.fractured }],
  ])(
    '%s answer old or new before the invalidations of table 28, and new after them',
    (_, sizes) => {
      let stale = 0;
      fc.assert(
        fc.property(anyProgram, (program) => {
          const caches = new Caches(mode, { ...sizes, capabilities: { cachingMode } });
          for (const { change, requests } of program) {
            for (const request of requests) expect(caches.ask(request)).toBe(caches.expected(request));
            const before = requests.map((request) => caches.expected(request));
            const { apply, wasPresent, owed } = caches.change(change);
            apply();
            const isOwed = wasPresent || cachingMode;
            for (const [nth, request] of requests.entries()) {
              const answer = caches.ask(request);
              const now = caches.expected(request);
              if (answer !== now) stale++;
              expect(isOwed ? [before[nth], now] : [now]).toContain(answer);
            }
            if (isOwed) caches.setup.submit(...owed);
            for (const request of requests) expect(caches.ask(request)).toBe(caches.expected(request));
          }
        }),
        { numRuns: 100 },
      );
      expect(stale).toBeGreaterThan(20);
    },
    60_000,
  );
});

describe.each(['legacy', 'scalable'] as const)('a unit in %s mode', (mode) => {
  /** Translations, table pointers, contexts and PASID entries that are left of two functions in one domain. */
  const left = (descriptor: Descriptor, variant: keyof typeof INVALIDATION_VARIANTS) => {
    const setup = new UnitSetup({ iotlb: {}, invalidation: INVALIDATION_VARIANTS[variant] }, { mode });
    const domain = setup.domain();
    setup.run((agent) => domain.map(agent, { page: 0, frame: 0x80000, pages: 600, write: true }));
    for (const sourceId of SOURCES) {
      domain.attach(sourceId, null);
      for (const page of [1, 2, 0x203]) setup.dma(sourceId, page);
    }
    setup.submit(descriptor);
    const { iotlb, pagingCache, contextCache, scalableContextCache, pasidCache } = setup.unit;
    const contexts = mode === 'legacy' ? contextCache : scalableContextCache;
    return [iotlb.size, pagingCache.size, contexts.size, pasidCache.size];
  };

  it('that is coarse drops the domain where a part of it is asked for', () => {
    const [sourceId] = SOURCES;
    const page = iotlbDescriptor(Granularity.selective, { page: 1 });
    const device: Descriptor = { type: 'contextCache', granularity: 3, domainId: 1, sourceId, functionMask: 0 };
    const pasid: Descriptor = { type: 'pasidCache', granularity: 1, domainId: 1, pasid: 1 };
    const pasids = mode === 'legacy' ? 0 : 2;
    // Each function has a 2M and a 4K entry, of which page 1 is a part of the first; in fractions three of 4K.
    expect(left(page, 'exact')).toEqual([4, 1, 2, pasids]);
    expect(left(page, 'fractured')).toEqual([4, 1, 2, pasids]);
    expect(left(page, 'coarse')).toEqual([0, 0, 2, pasids]);
    expect(left(device, 'exact')).toEqual([4, 3, 1, pasids]);
    expect(left(device, 'coarse')).toEqual([4, 3, 0, pasids]);
    if (mode === 'legacy') return;
    expect(left(pasid, 'exact')).toEqual([4, 3, 2, 2]);
    expect(left(pasid, 'coarse')).toEqual([4, 3, 2, 0]);
  });
});
