/** Where QEMU's q35 has its remapping unit, and the registers used here (VT-d Rev 5.10, 11.4). */
export const DMAR = {
  base: 0xfed9_0000,
  cap: 0x08,
  ecap: 0x10,
  gcmd: 0x18,
  gsts: 0x1c,
  rtaddr: 0x20,
  fsts: 0x34,
  iqt: 0x88,
  iqa: 0x90,
} as const;

/** Bits of GCMD and GSTS. */
export const GCMD = { te: 0x8000_0000, srtp: 0x4000_0000, qie: 0x0400_0000 } as const;

/** PPF and PFO, cleared by writing them. */
export const FSTS_FAULTS = 0x3;

/** A fault recording register, decoded; null if F is clear. */
export interface FaultRegister {
  readonly sourceId: number;
  readonly reason: number;
  readonly write: boolean;
  readonly address: bigint;
}

/** Decodes a fault recording register of 128 bits. */
export function decodeFaultRegister(lo: bigint, hi: bigint): FaultRegister | null {
  if (hi >> 63n === 0n) return null;
  return {
    sourceId: Number(hi & 0xffffn),
    reason: Number((hi >> 32n) & 0xffn),
    write: ((hi >> 62n) & 1n) === 0n,
    address: lo & ~0xfffn,
  };
}

/** CAP.FRO: offset of the first fault recording register in bytes. */
export const faultRegisterOffset = (cap: bigint): number => Number((cap >> 24n) & 0x3ffn) * 16;
