import fc from 'fast-check';
import type { EntryCapabilities, StructureCapabilities } from '../src/index.ts';

const entryFields = {
  hostAddressWidth: fc.integer({ min: 32, max: 52 }),
  page2M: fc.boolean(),
  page1G: fc.boolean(),
  snoopControl: fc.boolean(),
  specRevision: fc.constantFrom<'3.x' | '5.10'>('3.x', '5.10'),
  deviceTlb: fc.boolean(),
};

/** Any unit's paging entries. */
export const entryUnits: fc.Arbitrary<EntryCapabilities> = fc.record(entryFields);

/** Any unit's structures. */
export const structureUnits: fc.Arbitrary<StructureCapabilities> = fc.record({
  ...entryFields,
  guestAddressWidth: fc.constantFrom(39, 46, 48, 57),
  addressWidths: fc.subarray([1, 2, 3]),
  domainIdWidth: fc.integer({ min: 4, max: 16 }),
  passThrough: fc.boolean(),
  pasid: fc.boolean(),
  pageRequest: fc.boolean(),
  pasidInTranslated: fc.boolean(),
  ridPasid: fc.boolean(),
  ridPrivilege: fc.boolean(),
  hostPermissionTable: fc.boolean(),
  firstStage: fc.boolean(),
  firstStage5Level: fc.boolean(),
  secondStage: fc.boolean(),
  nested: fc.boolean(),
  secondStageAccessedDirty: fc.boolean(),
  extendedAccessed: fc.boolean(),
  memoryType: fc.boolean(),
  pageWalkCoherency: fc.boolean(),
  supervisorRequest: fc.boolean(),
  executeRequest: fc.boolean(),
});

/** A quadword. */
export const words64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
