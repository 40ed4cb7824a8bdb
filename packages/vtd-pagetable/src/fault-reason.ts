/**
 * Fault reasons of DMA remapping: the numbers of VT-d Rev 5.10, table 30 (7.1.3), under names of our own. Up to `interruptOutput` they
 * belong to legacy mode, from `rootRegister` on to the root-table address register and scalable mode.
 */
export const FaultReason = {
  /** The present (P) field in the root entry is clear. */
  rootNotPresent: 0x1,
  /** The present (P) field in the context entry is clear. */
  contextNotPresent: 0x2,
  /** Invalid context entry: AW, TT or table pointer. */
  contextInvalid: 0x3,
  /** Address beyond the domain's width, or beyond the host's for pass-through and translated requests. */
  addressBeyondWidth: 0x4,
  /** Write not allowed. */
  writeNotAllowed: 0x5,
  /** Read not allowed. */
  readNotAllowed: 0x6,
  /** Next page-table pointer is invalid: not in memory. */
  tableAccess: 0x7,
  /** Root table address is invalid. */
  rootAccess: 0x8,
  /** Context-table pointer is invalid. */
  contextAccess: 0x9,
  /** Reserved field set in a root entry. */
  rootReserved: 0xa,
  /** Reserved field set in a context entry. */
  contextReserved: 0xb,
  /** Reserved field set in a paging entry. */
  pagingReserved: 0xc,
  /** The translation request is blocked by the context entry's translation type. */
  translationTypeBlocked: 0xd,
  /** The translated address is in the interrupt range. */
  interruptOutput: 0xe,

  /** The root-table address register is programmed with a mode that the unit does not have. */
  rootRegister: 0x30,
  /** A request with PASID in legacy mode. */
  legacyModePasid: 0x31,
  /** A page request in legacy mode. */
  legacyModePageRequest: 0x32,
  /** Any request in abort-DMA mode. */
  abortDmaMode: 0x33,
  /** A request with PASID asks to execute; units of major version 8 and above. */
  executeRequested: 0x34,
  /** Scalable-mode root entry cannot be read. */
  scalableRootAccess: 0x38,
  /** LP or UP of the scalable-mode root entry is clear. */
  scalableRootNotPresent: 0x39,
  /** Reserved field set in a present half of a scalable-mode root entry. */
  scalableRootReserved: 0x3a,
  /** Scalable-mode context entry cannot be read. */
  scalableContextAccess: 0x40,
  /** P of the scalable-mode context entry is clear. */
  scalableContextNotPresent: 0x41,
  /** Reserved field set in a scalable-mode context entry. */
  scalableContextReserved: 0x42,
  /** Fields of a scalable-mode context entry contradict each other. */
  scalableContextInvalid: 0x43,
  /** DTE is clear: translation and translated requests are blocked. */
  deviceTlbDisabled: 0x44,
  /** PASIDE is clear: requests with PASID are blocked. */
  pasidDisabled: 0x45,
  /** The PASID is beyond the directory's size (PDTS). */
  pasidBeyondDirectory: 0x46,
  /** PRE is clear: page requests are blocked. */
  pageRequestDisabled: 0x47,
  /** A request with PASID uses the PASID that is set aside for requests without (RID_PASID). */
  pasidIsRidPasid: 0x48,
  /** EPTR is clear: translated requests with PASID are blocked. */
  translatedPasidDisabled: 0x49,
  /** PASID directory entry cannot be read. */
  pasidDirectoryAccess: 0x50,
  /** P of the PASID directory entry is clear. */
  pasidDirectoryNotPresent: 0x51,
  /** Reserved field set in a PASID directory entry. */
  pasidDirectoryReserved: 0x52,
  /** PASID table entry cannot be read. */
  pasidEntryAccess: 0x58,
  /** P of the PASID table entry is clear. */
  pasidEntryNotPresent: 0x59,
  /** Reserved field set in a PASID table entry. */
  pasidEntryReserved: 0x5a,
  /** Invalid PASID table entry: AW, PGTT, FSPM or FSPTPTR. */
  pasidEntryInvalid: 0x5b,
  /** A request with PASID asks to execute and the unit does not support that; units up to major version 7. */
  executeUnsupported: 0x5c,
  /** SRE is clear and the request asks for supervisor privilege. */
  supervisorDisabled: 0x5d,
  /** A translated address is beyond the host permission table. */
  addressBeyondHpt: 0x60,
  /** First-stage entry, not the first one of the walk, cannot be read. */
  firstStageAccess: 0x70,
  /** P of a first-stage entry is clear. */
  firstStageNotPresent: 0x71,
  /** Reserved field set in a first-stage entry. */
  firstStageReserved: 0x72,
  /** First-stage table that the PASID table entry names cannot be read. */
  firstStagePointer: 0x73,
  /** Nested: a first-stage entry holds an address beyond the second stage's width. */
  firstStageBeyondWidth: 0x74,
  /** Nested: the second stage does not let the first-stage top table be read. */
  firstStagePointerUnreadable: 0x75,
  /** Nested: the second stage does not let a first-stage table be read. */
  firstStageUnreadable: 0x76,
  /** Nested: the second stage does not let A, D or EA of a first-stage entry be written. */
  firstStageUnwritable: 0x77,
  /** Second-stage entry, not the first one of the walk, cannot be read. */
  secondStageAccess: 0x78,
  /** R=W=0 in a second-stage entry, or nothing left of R and W over the levels. */
  secondStageNoPermission: 0x79,
  /** Reserved field set in a second-stage entry with R or W. */
  secondStageReserved: 0x7a,
  /** Second-stage table that the PASID table entry names cannot be read. */
  secondStagePointer: 0x7b,
  /** A or D of a second-stage entry has to be set, and walks do not snoop. */
  secondStageUpdateNoSnoop: 0x7c,
  /** Setting A or D of a second-stage entry failed. */
  secondStageUpdateFailed: 0x7d,
  /** First-stage input address is not canonical. */
  notCanonical: 0x80,
  /** User request meets a supervisor first-stage entry. */
  userPrivilege: 0x81,
  /** First stage does not allow to execute; older revisions, gone in Rev 5.10. */
  executeNotAllowed: 0x82,
  /** A host address in the request, pass-through or translated, is beyond the host address width. */
  hostAddressBeyondWidth: 0x83,
  /** Second-stage input address beyond the smaller of MGAW and AW. */
  inputBeyondWidth: 0x84,
  /** Write not allowed, in scalable mode. */
  scalableWriteNotAllowed: 0x85,
  /** Read not allowed, in scalable mode. */
  scalableReadNotAllowed: 0x86,
  /** The translated address is in the interrupt range, in scalable mode. */
  scalableInterruptOutput: 0x87,
  /** The PASID has more bits than the unit supports (PSS). */
  pasidBeyondSize: 0x89,
  /** A, D or EA of a first-stage entry has to be set, and walks do not snoop. */
  firstStageUpdateNoSnoop: 0x90,
  /** Setting A, D or EA of a first-stage entry failed. */
  firstStageUpdateFailed: 0x91,
  /** Host permission table entry, not the first one of the walk, cannot be read. */
  hptAccess: 0xa0,
  /** Reserved field set in a host permission table entry. */
  hptReserved: 0xa1,
  /** Host permission table that the PASID table entry names cannot be read. */
  hptPointer: 0xa2,
  /** A zero-length translated read finds no permission at all in the host permission table. */
  hptNoPermission: 0xa3,
  /** The host permission table does not allow the write. */
  hptWriteNotAllowed: 0xa4,
  /** The host permission table does not allow the read. */
  hptReadNotAllowed: 0xa5,
} as const;

/** A fault reason of DMA remapping. */
export type FaultReasonCode = (typeof FaultReason)[keyof typeof FaultReason];

/** What the specification says of a fault reason. */
export interface FaultCondition {
  readonly reason: number;
  /** The condition codes of table 30 that report it, such as `SSS.3`. */
  readonly code: string;
  /** In our words. */
  readonly text: string;
  /** Whether an FPD bit met on the way suppresses the report (table 30, column "Qualified"). */
  readonly qualified: boolean;
}

const UNQUALIFIED = false;
const QUALIFIED = true;

const CONDITIONS: readonly (readonly [number, string, boolean, string])[] = [
  [0x1, 'LRT.2', UNQUALIFIED, 'root entry not present'],
  [0x2, 'LCT.2', QUALIFIED, 'context entry not present'],
  [0x3, 'LCT.4', QUALIFIED, 'invalid context entry'],
  [0x4, 'LGN.1', QUALIFIED, 'address beyond the domain width'],
  [0x5, 'LGN.2', QUALIFIED, 'write not allowed (not present or W=0)'],
  [0x6, 'LGN.3', QUALIFIED, 'read not allowed (not present or R=0)'],
  [0x7, 'LSS.1', QUALIFIED, 'next table pointer invalid'],
  [0x8, 'LRT.1', UNQUALIFIED, 'root table address invalid'],
  [0x9, 'LCT.1', UNQUALIFIED, 'context table pointer invalid'],
  [0xa, 'LRT.3', UNQUALIFIED, 'reserved bit in root entry'],
  [0xb, 'LCT.3', QUALIFIED, 'reserved bit in context entry'],
  [0xc, 'LSS.2', QUALIFIED, 'reserved bit in paging entry'],
  [0xd, 'LCT.5', QUALIFIED, 'translation request blocked by translation type'],
  [0xe, 'LGN.4', QUALIFIED, 'translated address in the interrupt range'],
  [0x30, 'RTA.1', UNQUALIFIED, 'root table address register programmed with an unsupported mode'],
  [0x31, 'RTA.2', UNQUALIFIED, 'request with PASID in legacy mode'],
  [0x32, 'RTA.3', UNQUALIFIED, 'page request in legacy mode'],
  [0x33, 'RTA.4', UNQUALIFIED, 'request in abort-DMA mode'],
  [0x34, 'RTA.5', UNQUALIFIED, 'request with PASID asks to execute'],
  [0x38, 'SRT.1', UNQUALIFIED, 'scalable root entry not accessible'],
  [0x39, 'SRT.2', UNQUALIFIED, 'scalable root entry: half not present'],
  [0x3a, 'SRT.3', UNQUALIFIED, 'reserved bit in scalable root entry'],
  [0x40, 'SCT.1', UNQUALIFIED, 'scalable context entry not accessible'],
  [0x41, 'SCT.2', QUALIFIED, 'scalable context entry not present'],
  [0x42, 'SCT.3', QUALIFIED, 'reserved bit in scalable context entry'],
  [0x43, 'SCT.4', QUALIFIED, 'invalid scalable context entry'],
  [0x44, 'SCT.5', QUALIFIED, 'translation or translated request blocked: DTE=0'],
  [0x45, 'SCT.6', QUALIFIED, 'request with PASID blocked: PASIDE=0'],
  [0x46, 'SCT.7', QUALIFIED, 'PASID beyond the PASID directory'],
  [0x47, 'SCT.8', QUALIFIED, 'page request blocked: PRE=0'],
  [0x48, 'SCT.9', QUALIFIED, 'request with PASID uses the value of RID_PASID'],
  [0x49, 'SCT.10', QUALIFIED, 'translated request with PASID blocked: EPTR=0'],
  [0x50, 'SPD.1', UNQUALIFIED, 'PASID directory entry not accessible'],
  [0x51, 'SPD.2', QUALIFIED, 'PASID directory entry not present'],
  [0x52, 'SPD.3', QUALIFIED, 'reserved bit in PASID directory entry'],
  [0x58, 'SPT.1', UNQUALIFIED, 'PASID table entry not accessible'],
  [0x59, 'SPT.2', QUALIFIED, 'PASID table entry not present'],
  [0x5a, 'SPT.3', QUALIFIED, 'reserved bit in PASID table entry'],
  [0x5b, 'SPT.4', QUALIFIED, 'invalid PASID table entry'],
  [0x5c, 'SPT.5', QUALIFIED, 'execute request not supported'],
  [0x5d, 'SPT.6', QUALIFIED, 'supervisor request blocked: SRE=0'],
  [0x60, 'SPT.9', QUALIFIED, 'translated address beyond the host permission table'],
  [0x70, 'SFS.1', QUALIFIED, 'first-stage entry not accessible'],
  [0x71, 'SFS.2', QUALIFIED, 'first-stage entry not present'],
  [0x72, 'SFS.3', QUALIFIED, 'reserved bit in first-stage entry'],
  [0x73, 'SFS.4', QUALIFIED, 'first-stage table pointer invalid'],
  [0x74, 'SFS.5', QUALIFIED, 'first-stage entry holds an address beyond the second-stage width'],
  [0x75, 'SFS.6', QUALIFIED, 'second stage does not allow to read the first-stage top table'],
  [0x76, 'SFS.7', QUALIFIED, 'second stage does not allow to read a first-stage table'],
  [0x77, 'SFS.8', QUALIFIED, 'second stage does not allow to set A, D or EA of a first-stage entry'],
  [0x78, 'SSS.1', QUALIFIED, 'second-stage entry not accessible'],
  [0x79, 'SSS.2', QUALIFIED, 'no second-stage permission (not present, or R and W end at different levels)'],
  [0x7a, 'SSS.3', QUALIFIED, 'reserved bit in second-stage entry'],
  [0x7b, 'SSS.4', QUALIFIED, 'second-stage table pointer invalid'],
  [0x7c, 'SSS.5', QUALIFIED, 'second-stage A or D to be set by walks that do not snoop'],
  [0x7d, 'SSS.6', QUALIFIED, 'setting second-stage A or D failed'],
  [0x80, 'SGN.1', QUALIFIED, 'first-stage address not canonical'],
  [0x81, 'SGN.2', QUALIFIED, 'user request to a supervisor page'],
  [0x82, 'SGN.3', QUALIFIED, 'execute not allowed (before Rev 5.10)'],
  [0x83, 'SGN.4', QUALIFIED, 'host address beyond the host address width'],
  [0x84, 'SGN.5', QUALIFIED, 'address beyond the second-stage width'],
  [0x85, 'SGN.6', QUALIFIED, 'write not allowed'],
  [0x86, 'SGN.7', QUALIFIED, 'read not allowed'],
  [0x87, 'SGN.8', QUALIFIED, 'translated address in the interrupt range'],
  [0x89, 'SGN.10', QUALIFIED, 'PASID wider than the unit supports'],
  [0x90, 'SFS.9', QUALIFIED, 'first-stage A, D or EA to be set by walks that do not snoop'],
  [0x91, 'SFS.10', QUALIFIED, 'setting first-stage A, D or EA failed'],
  [0xa0, 'HPT.1', QUALIFIED, 'host permission table entry not accessible'],
  [0xa1, 'HPT.2', QUALIFIED, 'reserved bit in host permission table entry'],
  [0xa2, 'HPT.3', QUALIFIED, 'host permission table pointer invalid'],
  [0xa3, 'HPT.4', QUALIFIED, 'host permission table: no permission'],
  [0xa4, 'HPT.5', QUALIFIED, 'host permission table: write not allowed'],
  [0xa5, 'HPT.6', QUALIFIED, 'host permission table: read not allowed'],
];

const BY_REASON: ReadonlyMap<number, FaultCondition> = new Map(
  CONDITIONS.map(([reason, code, qualified, text]) => [reason, { reason, code, qualified, text }]),
);

/** What is known of a fault reason; undefined if table 30 has no such number. */
export const faultCondition = (reason: number): FaultCondition | undefined => BY_REASON.get(reason);

/** The reason in words, with its number. */
export const faultReasonText = (reason: number): string =>
  `${BY_REASON.get(reason)?.text ?? 'unknown reason'} (0x${reason.toString(16)})`;

/**
 * Whether an FPD bit that the request met suppresses the report (table 30). False for a number that is not in the table: what is not
 * known is reported.
 */
export const isQualifiedFault = (reason: number): boolean => BY_REASON.get(reason)?.qualified ?? false;

const WALK_ERRORS: ReadonlySet<number> = new Set([
  FaultReason.tableAccess,
  FaultReason.pagingReserved,
  FaultReason.firstStageAccess,
  FaultReason.firstStageReserved,
  FaultReason.firstStagePointer,
  FaultReason.firstStageBeyondWidth,
  FaultReason.secondStageAccess,
  FaultReason.secondStageReserved,
  FaultReason.secondStagePointer,
]);

/** Whether the reason means that the walk met a corrupt table (I3), not a page that is simply not mapped. */
export const isWalkError = (reason: number): boolean => WALK_ERRORS.has(reason);
