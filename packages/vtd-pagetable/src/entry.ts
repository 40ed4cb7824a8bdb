import { pagingEntryLayout } from './format/paging-entry-layout.ts';

export { entryName, leafSizeName } from './format/paging-entry-layout.ts';

/**
 * Second-stage paging entries, VT-d Rev 5.10 section 9.8 (SS-PML5E .. SS-PTE). Entries are handled as two signed 32-bit
 * halves where speed counts, and as one bigint where a whole entry is loaded, stored or swapped.
 */

/** The level of a table: 1 holds SS-PTEs, 2 SS-PDEs, 3 SS-PDPTEs, 4 SS-PML4Es, 5 SS-PML5Es. */
export type TableLevel = 1 | 2 | 3 | 4 | 5;

/** Bit 0: read. */
export const SS_READ = 1n << 0n;
/** Bit 1: write. */
export const SS_WRITE = 1n << 1n;
/** Bit 7 of an SS-PDE or SS-PDPTE: the entry is a 2M or 1G leaf. */
export const SS_PAGE_SIZE = 1n << 7n;
/** Bit 8: accessed; set by hardware when the unit runs with SSADE. */
export const SS_ACCESSED = 1n << 8n;
/** Bit 9 of a leaf: dirty; set by hardware when the unit runs with SSADE. */
export const SS_DIRTY = 1n << 9n;
/** Bit 11 of a leaf: snoop behaviour; reserved if ECAP.SC = 0. */
export const SS_SNOOP = 1n << 11n;
/** Bits 51:12, the frame or next-table address. */
export const SS_ADDRESS_MASK = 0x000f_ffff_ffff_f000n;

/** Low half: R and W. */
export const LO_RIGHTS = 0x3;
/** Low half: PS. */
export const LO_PAGE_SIZE = 0x80;
/** High half: address bits 51:32. */
export const HI_ADDRESS = 0x000f_ffff;

/** What decides which bits are reserved. */
export interface EntryCapabilities {
  /** Host address width (MAXPHYADDR), 32 .. 52: address bits from here up to 51 are reserved. */
  readonly hostAddressWidth: number;
  /** CAP.SSLPS bit 0: 2M leaves. */
  readonly page2M: boolean;
  /** CAP.SSLPS bit 1: 1G leaves. */
  readonly page1G: boolean;
  /** ECAP.SC: bit 11 of a leaf is SNP, otherwise reserved. */
  readonly snoopControl: boolean;
  /**
   * The architecture's revision. In Rev 3.x, which QEMU follows, bit 62 of a leaf is TM (transient mapping) on a unit with device TLBs,
   * and bit 2 is X (execute). In Rev 5.10 bit 2 is ignored, and bit 62 is reserved as long as second-stage I/O permission bits
   * (RTADDR.SSIRWE) are off; this model does not have them on.
   */
  readonly specRevision: '3.x' | '5.10';
  /** ECAP.DT: the unit serves device TLBs (ATS). */
  readonly deviceTlb: boolean;
}

/** A current unit: 46-bit host addresses, 2M and 1G leaves, no snoop control, device TLBs, Rev 5.10. */
export const DEFAULT_ENTRY_CAPABILITIES: EntryCapabilities = {
  hostAddressWidth: 46,
  page2M: true,
  page1G: true,
  snoopControl: false,
  specRevision: '5.10',
  deviceTlb: true,
};

/**
 * Reserved-bit masks by level and kind as 32-bit halves: index `level * 2 + (leaf ? 1 : 0)`. They apply only to entries
 * with R or W set (Rev 5.10, 3.7).
 */
export interface ReservedMasks {
  readonly lo: Int32Array;
  readonly hi: Int32Array;
  // The rest is for a walk that only asks whether everything is as usual. Fields: V8 loads an element with four loads more.
  /** R, W, PS and what is reserved in the low half of a table entry of level 2, 3 or 4. As usual are R and W alone. */
  readonly tableLo: number;
  /** Reserved in the low half of a leaf of level 1, 2, 3. */
  readonly leafLo1: number;
  readonly leafLo2: number;
  readonly leafLo3: number;
  /** Reserved in the high half of some entry, and the bits of frames from 2^31 on, where no table memory is. */
  readonly anyHi: number;
}

/** @throws RangeError for an impossible host address width */
export function checkHostAddressWidth(hostAddressWidth: number): void {
  if (!Number.isInteger(hostAddressWidth) || hostAddressWidth < 32 || hostAddressWidth > 52)
    throw new RangeError(`hostAddressWidth: ${hostAddressWidth} is not an integer in 32..52`);
}

/** Kept for each capabilities object, which is not to change. */
const MASKS = new WeakMap<EntryCapabilities, ReservedMasks>();

/**
 * Builds the reserved-bit masks of a unit from the layouts of its entries (Rev 5.10, tables 41-47). Levels 4 and 5 have no leaves; their
 * second mask equals the first.
 * @throws RangeError for an impossible host address width
 */
export function reservedMasks(capabilities: EntryCapabilities): ReservedMasks {
  const known = MASKS.get(capabilities);
  if (known !== undefined) return known;
  checkHostAddressWidth(capabilities.hostAddressWidth);
  const lo = new Int32Array(12);
  const hi = new Int32Array(12);
  for (const level of [1, 2, 3, 4, 5] as const)
    for (const leaf of [false, true]) {
      const [mask = 0n] = pagingEntryLayout(level, leaf, capabilities).reserved;
      lo[level * 2 + (leaf ? 1 : 0)] = Number(BigInt.asIntN(32, mask));
      hi[level * 2 + (leaf ? 1 : 0)] = Number(BigInt.asIntN(32, mask >> 32n));
    }
  const tableLo = LO_RIGHTS | LO_PAGE_SIZE | lo[4]! | lo[6]! | lo[8]!;
  const anyHi = hi.reduce((all, mask) => all | mask, 0x000f_f800);
  const masks = { lo, hi, tableLo, leafLo1: lo[3]!, leafLo2: lo[5]!, leafLo3: lo[7]!, anyHi };
  MASKS.set(capabilities, masks);
  return masks;
}

/** Rights of a mapping, as in bits 1:0 of an entry. */
export interface Rights {
  readonly read: boolean;
  readonly write: boolean;
}

/** Bits 1:0 for the rights. */
export const rightsBits = (rights: Rights): number => (rights.read ? 1 : 0) | (rights.write ? 2 : 0);

/** log2 of the number of 4 KiB frames that one entry of a table at this level maps: 0, 9, 18, 27, 36. */
export const levelFrameShift = (level: number): number => 9 * (level - 1);

const LEVEL_FRAMES = [0, 1, 2 ** 9, 2 ** 18, 2 ** 27, 2 ** 36, 2 ** 45] as const;

/** Number of 4 KiB frames that one entry of a table at this level maps; at level 6, that a five-level table maps. */
export const levelFrames = (level: number): number => LEVEL_FRAMES[level] as number;

/** Index into the table at `level` for an IOVA given by its 4K page number. */
export const tableIndex = (page: number, level: number): number => (page / levelFrames(level)) & 0x1ff;

/** A leaf entry: 4K at level 1, 2M at 2, 1G at 3; PS set as the level needs. `attributes` are further bits, such as SNP. */
export function encodeLeaf(level: TableLevel, frame: number, rights: number, attributes = 0n): bigint {
  return (BigInt(frame) << 12n) | BigInt(rights & LO_RIGHTS) | (level > 1 ? SS_PAGE_SIZE : 0n) | attributes;
}

/** A table entry: points to the next table, R and W set, as Linux writes it. */
export const encodeTable = (tablePfn: number): bigint => (BigInt(tablePfn) << 12n) | SS_READ | SS_WRITE;

/** The frame number in bits 51:12. */
export const entryFrame = (entry: bigint): number => Number((entry & SS_ADDRESS_MASK) >> 12n);

/** Whether R or W is set; anything else is not present, whatever its other bits (Rev 5.10, 3.7). */
export const isPresent = (entry: bigint): boolean => (entry & (SS_READ | SS_WRITE)) !== 0n;

/** Whether a present entry of a table at this level maps memory rather than pointing to a table. */
export const isLeaf = (entry: bigint, level: number): boolean =>
  level === 1 || ((level === 2 || level === 3) && (entry & SS_PAGE_SIZE) !== 0n);

/** Attributes that a leaf hands to the leaves it is cut into: everything but address, R, W, PS. */
export const leafAttributes = (entry: bigint): bigint => entry & ~(SS_ADDRESS_MASK | SS_READ | SS_WRITE | SS_PAGE_SIZE);
