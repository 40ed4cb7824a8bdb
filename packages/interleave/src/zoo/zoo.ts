import type { Defect } from './defect.ts';
import { TABLE_DEFECTS } from './table-defects.ts';

/** Every known defect; each is found by exploring its protocol. */
export const ZOO: readonly Defect[] = [...TABLE_DEFECTS];
