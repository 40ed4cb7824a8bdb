import { checkInteger } from '../argument.ts';

/** Bytes of a page, and of one that is stored as it is. */
export const PAGE_BYTES = 4096;

/**
 * How well pages compress: data, from which each content's size follows. Compressible pages have sizes spread evenly
 * over half to one and a half times their mean (an assumption about the shape).
 */
export interface CompressionModel {
  /** 4096 divided by the mean compressed size of the pages that compress, at least 1. */
  readonly meanRatio: number;
  /** Share of the pages, 0..1, that do not get smaller. */
  readonly incompressibleShare: number;
  /** Compressed pages of this size or more are kept in whole frames (zs_huge_class_size), 1..4096 bytes. */
  readonly hugeClassBytes: number;
  /** Where the numbers come from. */
  readonly source: string;
}

/** Used where no other model is given. */
export const DEFAULT_COMPRESSION: CompressionModel = {
  meanRatio: 3,
  incompressibleShare: 0.3,
  hugeClassBytes: 3072,
  source:
    'ratio: Lagar-Cavilla et al., Software-Defined Far Memory, ASPLOS 2019: far memory by zswap with lzo costs 67 % less, and payloads above 2990 bytes gain nothing; ' +
    'incompressible share and shape of the distribution: assumptions; huge class: assumption of 3/4 of a page (the watermark depends on CONFIG_ZSMALLOC_CHAIN_SIZE)',
};

/** The model itself. @throws RangeError naming the number that does not fit */
export function checkCompression(model: CompressionModel): CompressionModel {
  if (!(model.meanRatio >= 1)) throw new RangeError(`meanRatio: ${model.meanRatio} is not at least 1`);
  if (!(model.incompressibleShare >= 0 && model.incompressibleShare <= 1))
    throw new RangeError(`incompressibleShare: ${model.incompressibleShare} is not in 0..1`);
  checkInteger('hugeClassBytes', model.hugeClassBytes, 1, PAGE_BYTES);
  return model;
}

/** murmur3's finaliser over both halves; `salt` gives independent draws for one content. */
function hash(tagLo: number, tagHi: number, salt: number): number {
  let h = tagLo ^ Math.imul(tagHi, 0x9e3779b1) ^ salt;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ tagHi ^ (h >>> 13), 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  return (h ^ (h >>> 13)) >>> 0;
}

/** Size of a compressed page in bytes, a function of its tag: 0 for zeros, 1..4095, or 4096 if it is kept in a whole frame. */
export function compressedBytes(model: CompressionModel, tagLo: number, tagHi: number): number {
  if ((tagLo | tagHi) === 0) return 0;
  if (hash(tagLo, tagHi, 0x2545f491) < model.incompressibleShare * 2 ** 32) return PAGE_BYTES;
  const spread = 0.5 + hash(tagLo, tagHi, 0x68bc21eb) / 2 ** 32;
  const bytes = Math.max(1, Math.round((PAGE_BYTES / model.meanRatio) * spread));
  return bytes >= model.hugeClassBytes ? PAGE_BYTES : bytes;
}
