import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  Access,
  type AccessMode,
  Agent,
  ANY_LOCATION,
  CachePart,
  Cost,
  type Footprint,
  Location,
  type LocationKind,
  stepsConflict,
  translationCacheLocation,
} from '../src/index.ts';

interface Touch {
  readonly kind: LocationKind;
  readonly location: number;
  readonly access: AccessMode;
}

const touch: fc.Arbitrary<Touch> = fc.record({
  kind: fc.constantFrom<LocationKind>(Location.nothing, Location.entry, Location.frame),
  location: fc.constantFrom(ANY_LOCATION, 0, 1, 2),
  access: fc.constantFrom<AccessMode>(Access.none, Access.read, Access.write),
});

const footprint = (first: Touch, second: Touch): Footprint => ({
  ...first,
  alsoKind: second.kind,
  alsoLocation: second.location,
  alsoAccess: second.access,
});

/** The rule by sets of locations: one of the two writes what the other touches. */
function conflictBySets(a: readonly Touch[], b: readonly Touch[]): boolean {
  const locationsOf = ({ kind, location }: Touch) =>
    (location === ANY_LOCATION ? [ANY_LOCATION, 0, 1, 2] : [location]).map((each) => `${kind}/${each}`);
  const touched = (touches: readonly Touch[], writesOnly: boolean) =>
    touches
      .filter(({ access }) => access === Access.write || (access === Access.read && !writesOnly))
      .flatMap(locationsOf);
  const meet = (x: readonly string[], y: readonly string[]) => x.some((each) => y.includes(each));
  return meet(touched(a, true), touched(b, false)) || meet(touched(a, false), touched(b, true));
}

describe('the footprint of a step', () => {
  it('conflicts as the sets of what both steps read and write say, with two locations each and with any', () => {
    fc.assert(
      fc.property(touch, touch, touch, touch, (a1, a2, b1, b2) => {
        const [a, b] = [footprint(a1, a2), footprint(b1, b2)];
        const expected = conflictBySets([a1, a2], [b1, b2]);
        expect(stepsConflict(a, b)).toBe(expected);
        expect(stepsConflict(b, a)).toBe(expected);
      }),
      { numRuns: 5000 },
    );
  });

  it('any location is every one of its kind, and of no other', () => {
    const nothing = { kind: Location.nothing, location: 0, access: Access.none } as const;
    const free = footprint({ kind: Location.entry, location: ANY_LOCATION, access: Access.write }, nothing);
    const read = (kind: LocationKind, location: number) => footprint({ kind, location, access: Access.read }, nothing);
    expect([0, 1, 2 ** 40].map((location) => stepsConflict(free, read(Location.entry, location)))).toEqual([
      true,
      true,
      true,
    ]);
    expect(stepsConflict(free, read(Location.frame, 1))).toBe(false);
    const scan = footprint({ kind: Location.entry, location: ANY_LOCATION, access: Access.read }, nothing);
    expect(stepsConflict(scan, read(Location.entry, 1))).toBe(false);
    expect(stepsConflict(scan, free)).toBe(true);
  });
});

describe('the translation caches of a unit', () => {
  const nothing = { kind: Location.nothing, location: 0, access: Access.none } as const;
  const touches = (id: number, part: (typeof CachePart)[keyof typeof CachePart], access: AccessMode) =>
    footprint({ kind: Location.translationCache, location: translationCacheLocation(id, part), access }, nothing);

  it('are filled apart and invalidated together; those of another unit are others', () => {
    const { iotlb, pagingStructures, all } = CachePart;
    const fill = touches(1, iotlb, Access.write);
    for (const [part, conflicts] of [
      [iotlb, true],
      [pagingStructures, false],
      [all, true],
    ] as const) {
      expect(stepsConflict(fill, touches(1, part, Access.read))).toBe(conflicts);
      expect(stepsConflict(touches(1, part, Access.read), fill)).toBe(conflicts);
      expect(stepsConflict(touches(1, all, Access.write), touches(1, part, Access.read))).toBe(true);
      for (const other of [0, 2]) expect(stepsConflict(fill, touches(other, part, Access.write))).toBe(false);
    }
    expect(stepsConflict(touches(1, iotlb, Access.read), touches(1, all, Access.read))).toBe(false);
  });
});

describe('Agent.alsoReads', () => {
  it('adds a second location that is read', () => {
    const agent = new Agent('walker');
    const step = agent.alsoReads(agent.reads('r', Location.entry, 7, Cost.free), Location.frame, 3);
    expect(step).toMatchObject({ alsoKind: Location.frame, alsoLocation: 3, alsoAccess: Access.read });
  });
});

describe('Agent.alsoWrites', () => {
  const agent = new Agent('walker');

  it('adds a second location to the agent’s own step', () => {
    const step = agent.reads('read SS-PTE', Location.entry, 7, Cost.walkRead);
    expect(agent.alsoWrites(step, Location.translationCache, 3)).toBe(step);
    expect({ ...step }).toMatchObject({
      kind: Location.entry,
      location: 7,
      access: Access.read,
      cost: Cost.walkRead,
      alsoKind: Location.translationCache,
      alsoLocation: 3,
      alsoAccess: Access.write,
    });
  });

  it('is undone by the next step, whichever it is', () => {
    const cache = { kind: Location.translationCache, location: 3, access: Access.write } as const;
    const other = footprint(cache, { kind: Location.nothing, location: 0, access: Access.none });
    for (const next of [
      () => agent.reads('r', Location.entry, 7, Cost.free),
      () => agent.writes('w', Location.entry, 7, Cost.free),
      () => agent.spends('s', Cost.free),
      () => agent.chooses('c', 2),
    ]) {
      const step = agent.reads('read SS-PTE', Location.entry, 7, Cost.walkRead);
      agent.alsoWrites(step, cache.kind, cache.location);
      expect(stepsConflict(step, other)).toBe(true);
      expect(next().alsoAccess).toBe(Access.none);
      expect(stepsConflict(step, other)).toBe(false);
    }
  });
});
