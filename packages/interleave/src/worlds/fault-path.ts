import type { FaultingHwpt, PageRequestSource } from '@faultline/iommufd-core';

/** What a fault queue stands between: where requests come from and answers go, and who maps pages. */
export interface FaultPath {
  readonly source: PageRequestSource;
  readonly hwpt: FaultingHwpt;
}

/** A fault path made wrong, given the right one. */
export type FaultPathDefect = (path: FaultPath) => FaultPath;
