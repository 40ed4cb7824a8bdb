/** Legacy-mode fault reasons of DMA remapping (VT-d 7.1.3; texts as Linux prints them). */
export const FaultReason = {
  /** The present (P) field in the root entry is clear. */
  rootNotPresent: 0x1,
  /** The present (P) field in the context entry is clear. */
  contextNotPresent: 0x2,
  /** Invalid context entry: AW, TT or table pointer. */
  contextInvalid: 0x3,
  /** Address beyond the domain's width. */
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
  /** The output address is in the interrupt address range. */
  interruptRange: 0xe,
  /** Scalable mode: a paging entry could not be read. */
  scalablePagingAccess: 0x78,
  /** Scalable mode: R=W=0, or nothing left of the rights of all levels. */
  scalableNoPermission: 0x79,
  /** Scalable mode: reserved bit in a paging entry with R or W. */
  scalablePagingReserved: 0x7a,
  /** Scalable mode: A or D would have to be set on a walk that does not snoop. */
  scalableAccessedDirty: 0x7c,
  /** Scalable mode: no write permission. */
  scalableWriteNotAllowed: 0x85,
  /** Scalable mode: no read permission. */
  scalableReadNotAllowed: 0x86,
} as const;

/** A legacy-mode fault reason. */
export type FaultReasonCode = (typeof FaultReason)[keyof typeof FaultReason];

const REASON_TEXT: Readonly<Record<number, string>> = {
  1: 'root entry not present',
  2: 'context entry not present',
  3: 'invalid context entry',
  4: 'address beyond the domain width',
  5: 'write not allowed (not present or W=0)',
  6: 'read not allowed (not present or R=0)',
  7: 'next table pointer invalid',
  8: 'root table address invalid',
  9: 'context table pointer invalid',
  10: 'reserved bit in root entry',
  11: 'reserved bit in context entry',
  12: 'reserved bit in paging entry',
  13: 'translation request blocked by translation type',
};

/** The reason in words, with its number. */
export const faultReasonText = (reason: number): string =>
  `${REASON_TEXT[reason] ?? 'unknown reason'} (0x${reason.toString(16)})`;

/** Whether the reason means that the walk met a corrupt table (I3), not a page that is simply not mapped. */
export const isWalkError = (reason: number): boolean =>
  reason === FaultReason.tableAccess || reason === FaultReason.pagingReserved;
