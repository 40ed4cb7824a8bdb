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
const LO_SNOOP = 0x800;
/** High half: address bits 51:32. */
export const HI_ADDRESS = 0x000f_ffff;
/** High half: bit 62, reserved unless transient mappings (older revisions) or I/O permission bits are enabled. */
const HI_BIT_62 = 0x4000_0000;

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
   * Bit 62 of a leaf is TM and therefore allowed: Rev 3.x units with a device TLB, and QEMU. Rev 5.10 has it reserved
   * as long as second-stage I/O permission bits are off.
   */
  readonly transientMapping: boolean;
}

/** A current unit: 46-bit host addresses, 2M and 1G leaves, no snoop control, Rev 5.10. */
export const DEFAULT_ENTRY_CAPABILITIES: EntryCapabilities = {
  hostAddressWidth: 46,
  page2M: true,
  page1G: true,
  snoopControl: false,
  transientMapping: false,
};

/**
 * Reserved-bit masks by level and kind as 32-bit halves: index `level * 2 + (leaf ? 1 : 0)`. They apply only to entries
 * with R or W set (Rev 5.10, 3.7).
 */
export interface ReservedMasks {
  readonly lo: Int32Array;
  readonly hi: Int32Array;
}

/** Builds the reserved-bit masks of Rev 5.10 tables 43-47 for a unit. @throws RangeError for an impossible host address width */
export function reservedMasks(capabilities: EntryCapabilities): ReservedMasks {
  const haw = capabilities.hostAddressWidth;
  if (!Number.isInteger(haw) || haw < 32 || haw > 52)
    throw new RangeError(`hostAddressWidth: ${haw} is not an integer in 32..52`);
  const lo = new Int32Array(12);
  const hi = new Int32Array(12);
  const aboveHaw = HI_ADDRESS & ~(2 ** (haw - 32) - 1);
  for (let level = 1; level <= 5; level++) {
    const largeLeaf = (level === 2 && capabilities.page2M) || (level === 3 && capabilities.page1G);
    // Tables: bit 11 reserved, PS reserved where no leaf of that size exists (a set PS never selects the leaf kind there).
    lo[level * 2] = LO_SNOOP | (level > 1 && !largeLeaf ? LO_PAGE_SIZE : 0);
    hi[level * 2] = aboveHaw | HI_BIT_62;
    const offset = level === 1 ? 0 : level === 2 ? 0x001f_f000 : 0x3fff_f000;
    const noLeaf = level > 1 && !largeLeaf ? LO_PAGE_SIZE : 0;
    lo[level * 2 + 1] = offset | noLeaf | (capabilities.snoopControl ? 0 : LO_SNOOP);
    hi[level * 2 + 1] = aboveHaw | (capabilities.transientMapping ? 0 : HI_BIT_62);
  }
  return { lo, hi };
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

/** Number of 4 KiB frames that one entry of a table at this level maps. */
export const levelFrames = (level: number): number => 2 ** (9 * (level - 1));

/** Index into the table at `level` for an IOVA given by its 4K page number. */
export const tableIndex = (page: number, level: number): number => Math.floor(page / levelFrames(level)) % 512;

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

const ENTRY_NAMES = ['', 'SS-PTE', 'SS-PDE', 'SS-PDPTE', 'SS-PML4E', 'SS-PML5E'] as const;

/** The specification's name for an entry of a table at this level. */
export const entryName = (level: number): string => ENTRY_NAMES[level] ?? `level-${level} entry`;
