import { DEFAULT_ENTRY_CAPABILITIES, type EntryCapabilities } from './entry.ts';

/**
 * What decides which bits of root, context and PASID structures are reserved and which values are valid: fields of CAP and ECAP,
 * named in each line (Rev 5.10, 9.1-9.6).
 */
export interface StructureCapabilities extends EntryCapabilities {
  /** CAP.MGAW + 1: width of second-stage input addresses. */
  readonly guestAddressWidth: number;
  /** CAP.SAGAW as AW codes: 1 = 3 levels, 2 = 4, 3 = 5. */
  readonly addressWidths: readonly number[];
  /** Bits of a domain-id, 4 .. 16 (CAP.ND); higher bits of DID are reserved. */
  readonly domainIdWidth: number;
  /** ECAP.PT. */
  readonly passThrough: boolean;
  /** ECAP.PASID. */
  readonly pasid: boolean;
  /** ECAP.PRS. */
  readonly pageRequest: boolean;
  /** ECAP.PTRS: translated requests may carry a PASID. */
  readonly pasidInTranslated: boolean;
  /** ECAP.RPS. */
  readonly ridPasid: boolean;
  /** ECAP.RPRIVS. */
  readonly ridPrivilege: boolean;
  /** ECAP.HPTS: host permission tables. */
  readonly hostPermissionTable: boolean;
  /** ECAP.FSTS. */
  readonly firstStage: boolean;
  /** CAP.FS5LP. */
  readonly firstStage5Level: boolean;
  /** ECAP.SSTS. */
  readonly secondStage: boolean;
  /** ECAP.NEST. */
  readonly nested: boolean;
  /** ECAP.SSADS. */
  readonly secondStageAccessedDirty: boolean;
  /** ECAP.EAFS. */
  readonly extendedAccessed: boolean;
  /** ECAP.MTS. */
  readonly memoryType: boolean;
  /** ECAP.SMPWC. */
  readonly pageWalkCoherency: boolean;
  /** ECAP.SRS. */
  readonly supervisorRequest: boolean;
  /** ECAP.ERS; the fields ERE and SLEE that belong to it exist in Rev 3.x only. */
  readonly executeRequest: boolean;
}

/** A current unit: 48-bit second stage with A and D, first stage, nesting, PASID, page requests; no host permission tables. */
export const DEFAULT_STRUCTURE_CAPABILITIES: StructureCapabilities = {
  ...DEFAULT_ENTRY_CAPABILITIES,
  guestAddressWidth: 48,
  addressWidths: [1, 2],
  domainIdWidth: 16,
  passThrough: true,
  pasid: true,
  pageRequest: true,
  pasidInTranslated: false,
  ridPasid: true,
  ridPrivilege: true,
  hostPermissionTable: false,
  firstStage: true,
  firstStage5Level: false,
  secondStage: true,
  nested: true,
  secondStageAccessedDirty: true,
  extendedAccessed: true,
  memoryType: false,
  pageWalkCoherency: true,
  supervisorRequest: true,
  executeRequest: false,
};

/** Everything that any revision has: the fields that the encoders know. */
export const EVERY_STRUCTURE_CAPABILITY: StructureCapabilities = {
  ...DEFAULT_STRUCTURE_CAPABILITIES,
  hostAddressWidth: 52,
  guestAddressWidth: 57,
  snoopControl: true,
  specRevision: '3.x',
  addressWidths: [1, 2, 3],
  pasidInTranslated: true,
  hostPermissionTable: true,
  firstStage5Level: true,
  memoryType: true,
  executeRequest: true,
};
