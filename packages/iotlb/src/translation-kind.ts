/** How a cached mapping was made: the PGTT field of the PASID-table entry. Legacy mode has second-stage ones only. */
export const TranslationKind = { firstStage: 1, secondStage: 2, nested: 3, passThrough: 4 } as const;
/** A PGTT field that translates. */
export type TranslationKind = (typeof TranslationKind)[keyof typeof TranslationKind];

/** First-stage and nested mappings: page-selective invalidations treat them apart (VT-d Rev 5.10, Tables 23 and 24). */
export const hasFirstStage = (kind: number): boolean => (kind & 1) !== 0;
