/** RTADDR.TTM: which tables a unit uses (VT-d Rev 5.10, 11.4.5). */
export const TranslationMode = {
  /** Root and context tables; requests with PASID and page requests are refused. */
  legacy: 0,
  /** Scalable-mode root and context tables, PASID directory and table. */
  scalable: 1,
  /** Reserved: every request faults. */
  reserved: 2,
  /** Every request is blocked; needs ECAP.ADMS. */
  abort: 3,
} as const;
/** 0 legacy, 1 scalable, 2 reserved, 3 abort-DMA. */
export type TranslationModeCode = (typeof TranslationMode)[keyof typeof TranslationMode];
