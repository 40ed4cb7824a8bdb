import type { Defect } from './defect.ts';
import { HWPT_DEFECTS } from './hwpt-defects.ts';
import { PAGE_REQUEST_DEFECTS } from './page-request-defects.ts';
import { PATCH_DEFECTS } from './patch-defects.ts';
import { TABLE_DEFECTS } from './table-defects.ts';

/** Every known defect; each is found, by exploring its protocol or by a measurement. */
export const ZOO: readonly Defect[] = [...PATCH_DEFECTS, ...HWPT_DEFECTS, ...PAGE_REQUEST_DEFECTS, ...TABLE_DEFECTS];
