import { DmaStatus } from '@faultline/pci-device';
import { Agent, ANY_LOCATION, Cost, Location, type Task } from '@faultline/sim';
import { PageTableError } from '@faultline/vtd-pagetable';
import type { Protocol, ProtocolConfiguration } from '../protocol.ts';
import { type DomainDefects, DomainWorld, FRAME, type HarvestedRange } from './domain-world.ts';

const DEVICE = new Agent('device');
const MAPPER = new Agent('mapper');
const OTHER = new Agent('other mapper');
const SET_UP = new Agent('set-up');
const DEVICE_ID = 1 << 3;
/** The page that the device uses, within the range that changes. */
const PAGE = 5;
/** Another page of the range, which is cut out. */
const VICTIM = 9;
/** Where something else is mapped, in a table of its own. */
const ELSEWHERE = 512;
/** A page that nothing maps, at the other end of the table. */
const NOWHERE = 2 ** 35;
/** Frames of somebody else. */
const FOREIGN = FRAME + 0x4000;

interface Choices {
  readonly ats: boolean;
  /** Whether the device has used the page before, so that caches hold its translation. */
  readonly warm: boolean;
}

const devices = (ats: boolean): string => (ats ? 'ATS' : 'no ATS');
const caches = (warm: boolean): string => (warm ? 'cached' : 'not cached');

/** Each device with and without a device TLB, each with caches that hold the translation and without. */
const configurations = (what: string, build: (choices: Choices) => DomainWorld): ProtocolConfiguration[] =>
  [false, true].flatMap((ats) =>
    [false, true].map((warm) => ({
      name: `${what}, ${devices(ats)}, ${caches(warm)}`,
      build: () => build({ ats, warm }),
    })),
  );

/** A device that writes one page, once before if it is to be cached. */
function addWriter(world: DomainWorld, { ats, warm }: Choices, page = PAGE): void {
  const endpoint = world.connect('device', DEVICE_ID, ats);
  // Its context is cached in any case: where it is read the table does not matter.
  world.now(endpoint.dmaPage(SET_UP, 'write', warm ? page : NOWHERE, true, 0, 0));
  world.spawn(DEVICE, endpoint.dmaPage(DEVICE, 'write', page, true, 1, 1));
}

/** Maps a range onto the frames of the same numbers, in 4K leaves: it is mapped large, then cut. */
function mapSmall(world: DomainWorld, page: number, pages: 512 | 262144): void {
  world.now(world.domain.map(SET_UP, { page, frame: FRAME + page, pages, write: true }));
  const gather = world.domain.gather();
  world.now(world.domain.cut(SET_UP, page, pages === 512 ? 1 : 512, gather));
  world.now(world.domain.flush(SET_UP, gather));
}

/** Somebody else takes the freed table pages, and fills them with words that look like entries: a walker that holds one gets there. */
function* reuseTables(world: DomainWorld, agent: Agent): Task<void> {
  yield agent.writes('use freed pages', Location.entry, ANY_LOCATION, Cost.free);
  for (let i = 0; i < 4; i++) {
    const pfn = world.tables.allocate();
    for (let index = 0; index < 512; index++) world.tables.store(pfn, index, (BigInt(FOREIGN + index) << 12n) | 3n);
  }
}

interface UnmapChoices extends Choices {
  readonly target: 'victim' | 'neighbour';
  /** All pages of a table, which goes with them, or so many of its leaves. */
  readonly pages: 512 | 8;
  readonly coherent: boolean;
  readonly accessedDirty: boolean;
}

const unmapWorld = (choices: UnmapChoices, defects: DomainDefects): DomainWorld => {
  const { pages, coherent, accessedDirty } = choices;
  const world = new DomainWorld({ coherent, accessedDirty, defects });
  const owed = accessedDirty ? new OwedDirt(world) : null;
  mapSmall(world, 0, 512);
  world.now(world.domain.map(SET_UP, { page: ELSEWHERE, frame: FRAME + ELSEWHERE, pages: 512, write: true }));
  let gone = false;
  world.ruleOf = (page) =>
    page < 512 ? { frame: gone ? -1 : FRAME + page, mayFault: true } : { frame: FRAME + page, mayFault: false };
  if (choices.target === 'neighbour') addWriter(world, choices, ELSEWHERE + 3);
  else addWriter(world, choices);
  world.spawn(
    MAPPER,
    (function* (): Task<void> {
      const gather = world.domain.gather();
      yield* world.domain.unmap(MAPPER, { page: 0, pages, partialLeaf: 'linux-7.3', holes: 'skip' }, gather);
      yield* world.domain.flush(MAPPER, gather);
      yield MAPPER.writes('give the frame to somebody else', Location.frame, FRAME + PAGE, Cost.free);
      gone = true;
      yield* reuseTables(world, MAPPER);
    })(),
  );
  if (owed) world.atEnd = () => owed.afterLastHarvest(ELSEWHERE + 512);
  return world;
};

const unmapConfigurations = (defects: DomainDefects): ProtocolConfiguration[] => {
  const whole = { pages: 512, coherent: true, accessedDirty: false } as const;
  return (['victim', 'neighbour'] as const).flatMap((target) => [
    ...configurations(`512 x 4K, DMA to the ${target}`, (choices) =>
      unmapWorld({ ...choices, ...whole, target }, defects),
    ),
    ...(
      [
        ['512 x 4K, not snooped', { ...whole, coherent: false }],
        ['8 x 4K, not snooped', { ...whole, pages: 8, coherent: false }],
        ['512 x 4K, A and D', { ...whole, accessedDirty: true }],
        ['8 x 4K, A and D', { ...whole, pages: 8, accessedDirty: true }],
      ] as const
    ).map(([what, parts]) => ({
      name: `${what}, DMA to the ${target}, no ATS, not cached`,
      build: () => unmapWorld({ ats: false, warm: false, target, ...parts }, defects),
    })),
  ]);
};

interface CollapseChoices extends Choices {
  readonly pages: 512 | 262144;
  /** Units that do not snoop set no A and D. */
  readonly coherent: boolean;
}

const collapseWorld = (choices: CollapseChoices, defects: DomainDefects): DomainWorld => {
  const { coherent } = choices;
  const world = new DomainWorld({ coherent, accessedDirty: coherent, defects });
  const owed = coherent ? new OwedDirt(world) : null;
  if (choices.pages === 512) mapSmall(world, 0, 512);
  else mapSmall(world, 0, 262144);
  addWriter(world, choices);
  world.spawn(
    MAPPER,
    (function* (): Task<void> {
      const { leaves, obstacles } = yield* world.domain.collapse(MAPPER, 0, choices.pages);
      if (leaves['2M'] + leaves['1G'] !== 1)
        world.fail('I13', `the collapse did not come about: ${JSON.stringify(obstacles)}`);
      yield* reuseTables(world, MAPPER);
    })(),
  );
  if (owed) world.atEnd = () => owed.afterLastHarvest(choices.pages);
  return world;
};

const collapseConfigurations = (what: string, pages: 512 | 262144, defects: DomainDefects): ProtocolConfiguration[] => [
  ...configurations(what, (choices) => collapseWorld({ ...choices, pages, coherent: true }, defects)),
  {
    name: `${what}, not snooped, no ATS, not cached`,
    build: () => collapseWorld({ ats: false, warm: false, pages, coherent: false }, defects),
  },
];

/** Which writes no harvest has reported since. A page that is processed and written later is owed again (I6). */
class OwedDirt {
  readonly #world: DomainWorld;
  readonly #owed = new Set<number>();

  constructor(world: DomainWorld) {
    this.#world = world;
    world.reported = (ranges) => this.processed(ranges);
    world.wrote = (page) => this.#owed.add(page);
  }

  /** What was reported has been processed by now. */
  processed(ranges: readonly HarvestedRange[]): void {
    for (const page of this.#owed)
      if (ranges.some((range) => page >= range.page && page < range.page + range.pages)) this.#owed.delete(page);
  }

  afterLastHarvest(pages: number): { invariant: string; message: string } | null {
    this.processed(this.#world.now(this.#world.domain.readAndClearDirty(SET_UP, 0, pages, true)));
    const [page] = this.#owed;
    return page === undefined
      ? null
      : { invariant: 'I6', message: `page 0x${page.toString(16)} was written and is reported by no harvest since` };
  }
}

const harvestWorld = (choices: Choices, defects: DomainDefects): DomainWorld => {
  const world = new DomainWorld({ accessedDirty: true, defects });
  const owed = new OwedDirt(world);
  mapSmall(world, 0, 512);
  const endpoint = world.connect('device', DEVICE_ID, choices.ats);
  if (choices.warm) world.now(endpoint.dmaPage(SET_UP, 'write', PAGE, true, 0, 0)); // D is set and cached
  world.spawn(
    DEVICE,
    (function* (): Task<void> {
      yield* endpoint.dmaPage(DEVICE, 'write', PAGE, true, 1, 1);
      yield* endpoint.dmaPage(DEVICE, 'write', PAGE, true, 2, 2);
    })(),
  );
  world.spawn(
    MAPPER,
    (function* (): Task<void> {
      const process = function* (ranges: readonly HarvestedRange[]): Task<void> {
        yield MAPPER.reads('process the page', Location.frame, FRAME + PAGE, Cost.free);
        owed.processed(ranges);
      };
      const range = { page: 0, pages: 512 };
      yield* process(
        yield* defects.harvest?.(world, MAPPER, range, process) ??
          world.domain.readAndClearDirty(MAPPER, range.page, range.pages, true),
      );
    })(),
  );
  world.atEnd = () => owed.afterLastHarvest(512);
  return world;
};

/** A page is cut out of its large leaf while a device writes another for the first time, which sets D. */
const cutDirtyWorld = (
  choices: Choices & { readonly pages: 512 | 262144; readonly installs: 'one' | 'two' },
  defects: DomainDefects,
): DomainWorld => {
  const { pages, installs } = choices;
  const world = new DomainWorld({ accessedDirty: true, defects });
  const owed = new OwedDirt(world);
  world.now(world.domain.map(SET_UP, { page: 0, frame: FRAME, pages, write: true }));
  addWriter(world, { ...choices, warm: false });
  world.spawn(
    MAPPER,
    (function* (): Task<void> {
      if (defects.cut) {
        yield* defects.cut(world, MAPPER, VICTIM);
        return;
      }
      const gather = world.domain.gather();
      yield* world.domain.cut(MAPPER, VICTIM, 1, gather, { installs });
      yield* world.domain.flush(MAPPER, gather);
    })(),
  );
  world.atEnd = () => owed.afterLastHarvest(pages);
  return world;
};

const cutDirtyConfigurations = (defects: DomainDefects): ProtocolConfiguration[] =>
  [false, true].flatMap((ats) =>
    (
      [
        ['2M', 512, 'one'],
        ['1G', 262144, 'one'],
        ['1G', 262144, 'two'],
      ] as const
    ).map(([leaf, pages, installs]) => ({
      name: `a page is cut out of a ${leaf} leaf meanwhile${leaf === '1G' ? ` by ${installs} install${installs === 'one' ? '' : 's'}` : ''}, ${devices(ats)}`,
      build: () => cutDirtyWorld({ ats, warm: false, pages, installs }, defects),
    })),
  );

interface MapChoices {
  readonly ats: boolean;
  readonly coherent: boolean;
  readonly fails: boolean;
  readonly mappers: 1 | 2;
  /** Whether the device makes its DMA meanwhile, or at the end. */
  readonly during: boolean;
}

const mapWorld = (choices: MapChoices, defects: DomainDefects): DomainWorld => {
  const { ats, coherent, fails, mappers, during } = choices;
  const world = new DomainWorld({ coherent, allocationMayFail: fails, defects });
  const outcomes = new Map<number, 'mapped' | 'failed'>();
  const shift = FRAME + 1;
  world.ruleOf = (page) => ({ frame: shift + page, mayFault: outcomes.get(page < 512 ? 0 : 512) !== 'mapped' });
  const endpoint = world.connect('device', DEVICE_ID, ats);
  world.now(endpoint.dmaPage(SET_UP, 'read', NOWHERE, false, 0, 0));
  if (during) world.spawn(DEVICE, endpoint.dmaPage(DEVICE, 'write', PAGE, true, 1, 1));
  for (const [agent, first] of [[MAPPER, 0] as const, [OTHER, 512] as const].slice(0, mappers))
    world.spawn(
      agent,
      (function* (): Task<void> {
        try {
          // One frame further: no large leaf fits, so tables are made; both mappers want the same ones above.
          yield* world.domain.map(agent, { page: first, frame: shift + first, pages: 8, write: true });
          outcomes.set(first, 'mapped');
        } catch (error) {
          if (!(error instanceof PageTableError) || error.code !== 'ENOMEM') throw error;
          outcomes.set(first, 'failed');
        }
      })(),
    );
  world.atEnd = () => {
    // What was mapped is there for hardware too.
    for (const [first, outcome] of outcomes)
      if (
        outcome === 'mapped' &&
        world.now(endpoint.dmaPage(SET_UP, 'read', first + 7, false, 0, 0)) !== DmaStatus.completed
      )
        return {
          invariant: 'I4',
          message: `page 0x${(first + 7).toString(16)} was mapped, and a device does not get there`,
        };
    return null;
  };
  return world;
};

const mapConfigurations = (defects: DomainDefects): ProtocolConfiguration[] => {
  const configuration = (name: string, choices: MapChoices) => ({ name, build: () => mapWorld(choices, defects) });
  const two = { ats: false, coherent: true, mappers: 2, during: true } as const;
  return [
    ...[false, true].flatMap((ats) =>
      [false, true].map((fails) =>
        configuration(`4K by two mappers, ${devices(ats)}, allocation ${fails ? 'may fail' : 'succeeds'}`, {
          ...two,
          ats,
          fails,
        }),
      ),
    ),
    configuration('4K, not coherent, one mapper', { ...two, coherent: false, mappers: 1, fails: false }),
    configuration('4K, not coherent, two mappers, DMA afterwards', {
      ...two,
      coherent: false,
      during: false,
      fails: false,
    }),
  ];
};

/** A large leaf over a table that was emptied page by page: hardware may have the table in a paging-structure cache. */
const superpageWorld = (choices: Choices, defects: DomainDefects): DomainWorld => {
  const world = new DomainWorld({ defects });
  let mapped = false;
  mapSmall(world, 0, 512);
  world.ruleOf = () => ({ frame: FRAME + PAGE, mayFault: !mapped });
  const endpoint = world.connect('device', DEVICE_ID, choices.ats);
  if (choices.warm) world.now(endpoint.dmaPage(SET_UP, 'read', PAGE, false, 0, 0));
  for (let page = 0; page < 512; page += 256) {
    // In two halves, so that the emptied table stays; the invalidation hint leaves the paging-structure caches alone.
    const gather = world.domain.gather();
    world.now(world.domain.unmap(SET_UP, { page, pages: 256, partialLeaf: 'linux-7.3', holes: 'skip' }, gather));
    world.now(world.domain.flush(SET_UP, gather));
  }
  world.spawn(DEVICE, endpoint.dmaPage(DEVICE, 'write', PAGE, true, 1, 1));
  world.spawn(
    MAPPER,
    (function* (): Task<void> {
      yield* world.domain.map(MAPPER, { page: 0, frame: FRAME, pages: 512, write: true });
      mapped = true;
      yield* reuseTables(world, MAPPER);
    })(),
  );
  world.atEnd = () =>
    world.now(endpoint.dmaPage(SET_UP, 'read', PAGE, false, 0, 0)) === DmaStatus.completed
      ? null
      : { invariant: 'I4', message: 'the superpage is mapped, and a device does not get there' };
  return world;
};

const detachWorld = (choices: Choices, defects: DomainDefects): DomainWorld => {
  const world = new DomainWorld({ defects });
  mapSmall(world, 0, 512);
  let attached = true;
  world.ruleOf = (page) => ({ frame: attached ? FRAME + page : -1, mayFault: true });
  addWriter(world, choices);
  world.spawn(
    MAPPER,
    (function* (): Task<void> {
      yield* world.domain.detach(MAPPER, DEVICE_ID);
      yield MAPPER.writes('give the frame to somebody else', Location.frame, FRAME + PAGE, Cost.free);
      attached = false;
      world.domain.destroy();
      yield* reuseTables(world, MAPPER);
    })(),
  );
  return world;
};

/** The protocols on one domain's table, with what `defects` makes wrong. */
export function tableProtocols(defects: DomainDefects = {}): readonly Protocol[] {
  return [
    {
      name: 'map',
      title:
        'two mappers build tables in one place while a device uses what appears; a superpage takes an emptied table’s place',
      configurations: [
        ...mapConfigurations(defects),
        ...configurations('2M over an emptied table', (choices) => superpageWorld(choices, defects)),
      ],
    },
    {
      name: 'unmap',
      title:
        'a range goes while a device uses it, with its table or without; the table page is used again, no dirty page is lost',
      configurations: unmapConfigurations(defects),
    },
    {
      name: 'collapse',
      title: 'small leaves become a large one while a device writes: hitless, and no dirty page is lost',
      configurations: [
        ...collapseConfigurations('512 x 4K -> 2M', 512, defects),
        ...collapseConfigurations('2M and 4K -> 1G', 262144, defects),
      ],
    },
    {
      name: 'dirty-harvest',
      title: 'dirty bits are read and cleared while a device writes: each write is reported after it',
      configurations: [
        ...configurations('4K', (choices) => harvestWorld(choices, defects)),
        ...cutDirtyConfigurations(defects),
      ],
    },
    {
      name: 'detach',
      title: 'a device is detached while it makes DMA; its table and memory go to somebody else',
      configurations: configurations('4K', (choices) => detachWorld(choices, defects)),
    },
  ];
}
