export type { Gpa, Hpa, Hva, Iova, Pfn } from './address.ts';
export { gpa, hex, hpa, hpaOf, hva, iova, pfn, pfnOf } from './address.ts';
export type { PageSize } from './page-size.ts';
export {
  FRAMES_PER_PAGE,
  PAGE_SHIFT,
  PAGE_SIZE,
  PAGE_SIZE_BYTES,
  PAGE_SIZE_SHIFT,
  PAGE_SIZES,
} from './page-size.ts';
export {
  formatBytes,
  formatDurationNs,
  formatSize,
  parseDurationNs,
  parseSize,
} from './quantity.ts';
export type { AddressRange } from './range.ts';
export { alignDown, alignUp, formatRange, isAligned, rangeContains, rangeEnd, rangesOverlap } from './range.ts';
