import type { Defect } from './defect.ts';
import { HWPT_DEFECTS } from './hwpt-defects.ts';
import { PATCH_DEFECTS } from './patch-defects.ts';
import { TABLE_DEFECTS } from './table-defects.ts';

/** Every known defect; each is found by exploring its protocol. */
export const ZOO: readonly Defect[] = [...PATCH_DEFECTS, ...HWPT_DEFECTS, ...TABLE_DEFECTS];
