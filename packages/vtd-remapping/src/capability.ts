import type { StructureCapabilities } from '@faultline/vtd-pagetable';
import { bit } from './bit-field.ts';

/**
 * What one remapping unit can do. {@link capabilityRegister}, {@link extendedCapabilityRegister} and {@link versionRegister}
 * show it to a driver as CAP, ECAP and VER (VT-d Rev 5.10, 11.4.1 to 11.4.3).
 */
export interface UnitCapabilities {
  /** VER: major version; from 2 on an IOTLB invalidation always drains, from 6 on it is not done by registers. */
  readonly majorVersion: number;
  /** Which revision's entry formats hold where they differ (bits 2 and 62 of paging entries). */
  readonly specRevision: '3.x' | '5.10';
  /** CAP.ND: bits of a domain-id, 4 to 16, even. */
  readonly domainIdBits: number;
  /** CAP.SAGAW: levels of second-stage tables. */
  readonly levels: readonly (3 | 4 | 5)[];
  /** CAP.MGAW + 1: bits of an input address. */
  readonly guestAddressWidth: number;
  /** HAW: bits of a host-physical address, 32 to 52. No register tells it. */
  readonly hostAddressWidth: number;
  /** CAP.SSLPS bit 0. */
  readonly page2M: boolean;
  /** CAP.SSLPS bit 1. */
  readonly page1G: boolean;
  /** CAP.PSI. */
  readonly pageSelective: boolean;
  /** CAP.MAMV. */
  readonly maximumAddressMask: number;
  /** CAP.NFR + 1: 1 to 160, as many as the 4 KiB of registers have room for behind {@link FAULT_REGISTERS}. */
  readonly faultRegisters: number;
  /** CAP.CM: entries that are not present, or erroneous, may be cached too. */
  readonly cachingMode: boolean;
  /** CAP.ZLR: zero-length reads of write-only pages are allowed. */
  readonly zeroLengthRead: boolean;
  /** CAP.ESRTPS: setting the root table pointer invalidates all caches. */
  readonly enhancedSetRootTable: boolean;
  /** ECAP.C: root, context and PASID structures, and in legacy mode the paging structures, are snooped. */
  readonly coherent: boolean;
  /** ECAP.SC: the SNP bit of leaves exists. */
  readonly snoopControl: boolean;
  /** ECAP.PT. */
  readonly passThrough: boolean;
  /** ECAP.DT: ATS. */
  readonly deviceTlb: boolean;
  /** ECAP.SMTS: scalable mode. */
  readonly scalableMode: boolean;
  /** ECAP.SMPWCS: walks of scalable mode snoop if PWSNP of the PASID entry is set. */
  readonly pageWalkCoherent: boolean;
  /** ECAP.SSADS: A and D bits in second-stage entries. */
  readonly accessedDirty: boolean;
  /** ECAP.PRS. */
  readonly pageRequests: boolean;
  /** ECAP.PDS. */
  readonly pageRequestDrain: boolean;
  /** ECAP.SMS: a stop marker that finds no room is dropped in silence. */
  readonly stopMarker: boolean;
  /** ECAP.NWFS: the no-write flag of translation requests is honoured. */
  readonly noWriteFlag: boolean;
  /** ECAP.PASID and PSS + 1: bits of a PASID; 0 for none. */
  readonly pasidBits: number;
  /** ECAP.RPS: the RID_PASID field of a context entry is honoured. */
  readonly ridPasid: boolean;
  /** ECAP.ADMS. */
  readonly abortDmaMode: boolean;
}

/** A current server unit: 48 and 57 bits, 46-bit host addresses, scalable mode with ATS and PRI, coherent, Rev 5.10. */
export const DEFAULT_CAPABILITIES: UnitCapabilities = {
  majorVersion: 7,
  specRevision: '5.10',
  domainIdBits: 16,
  levels: [4, 5],
  guestAddressWidth: 57,
  hostAddressWidth: 46,
  page2M: true,
  page1G: true,
  pageSelective: true,
  maximumAddressMask: 18,
  faultRegisters: 8,
  cachingMode: false,
  zeroLengthRead: true,
  enhancedSetRootTable: true,
  coherent: true,
  snoopControl: false,
  passThrough: true,
  deviceTlb: true,
  scalableMode: true,
  pageWalkCoherent: true,
  accessedDirty: true,
  pageRequests: true,
  pageRequestDrain: true,
  stopMarker: true,
  noWriteFlag: true,
  pasidBits: 20,
  ridPasid: true,
  abortDmaMode: true,
};

/** Offset of the IOTLB registers: free space behind the fixed ones. */
export const IOTLB_REGISTERS = 0x500;
/** Offset of the fault recording registers. */
export const FAULT_REGISTERS = 0x600;

const put = (value: number, low: number): bigint => BigInt(value) << BigInt(low);

/** VER. */
export const versionRegister = (unit: UnitCapabilities): number => unit.majorVersion << 4;

/** CAP. */
export function capabilityRegister(unit: UnitCapabilities): bigint {
  let sagaw = 0;
  for (const levels of unit.levels) sagaw |= 1 << (levels - 2);
  return (
    put((unit.domainIdBits - 4) / 2, 0) |
    bit(unit.cachingMode, 7) |
    put(sagaw, 8) |
    put(unit.guestAddressWidth - 1, 16) |
    bit(unit.zeroLengthRead, 22) |
    put(FAULT_REGISTERS / 16, 24) |
    put((unit.page2M ? 1 : 0) | (unit.page1G ? 2 : 0), 34) |
    bit(unit.pageSelective, 39) |
    put(unit.faultRegisters - 1, 40) |
    put(unit.maximumAddressMask, 48) |
    bit(true, 54) |
    bit(true, 55) |
    bit(unit.enhancedSetRootTable, 63)
  );
}

/** ECAP. */
export function extendedCapabilityRegister(unit: UnitCapabilities): bigint {
  return (
    bit(unit.coherent, 0) |
    bit(true, 1) |
    bit(unit.deviceTlb, 2) |
    bit(unit.passThrough, 6) |
    bit(unit.snoopControl, 7) |
    put(IOTLB_REGISTERS / 16, 8) |
    bit(unit.pageRequests, 29) |
    bit(unit.noWriteFlag, 33) |
    put(Math.max(0, unit.pasidBits - 1), 35) |
    bit(unit.pasidBits > 0, 40) |
    bit(unit.pageRequestDrain, 42) |
    bit(unit.scalableMode, 43) |
    bit(unit.accessedDirty, 45) |
    bit(unit.scalableMode, 46) |
    bit(unit.pageWalkCoherent, 48) |
    bit(unit.ridPasid, 49) |
    bit(unit.abortDmaMode, 52) |
    bit(unit.stopMarker, 58)
  );
}

/**
 * Fills in what is not given, takes away what depends on something that is not there, as the fields of ECAP require, and
 * checks the rest.
 * @throws RangeError naming the field
 */
export function unitCapabilities(options: Partial<UnitCapabilities>): UnitCapabilities {
  const asked = { ...DEFAULT_CAPABILITIES, ...options };
  const scalable = asked.scalableMode;
  const pasidBits = scalable ? asked.pasidBits : 0;
  const pageRequests = asked.pageRequests && scalable && asked.deviceTlb;
  const pageWalkCoherent = asked.pageWalkCoherent && scalable;
  const unit: UnitCapabilities = {
    ...asked,
    pasidBits,
    pageRequests,
    pageWalkCoherent,
    page1G: asked.page1G && asked.page2M,
    accessedDirty: asked.accessedDirty && pageWalkCoherent,
    pageRequestDrain: asked.pageRequestDrain && asked.deviceTlb,
    stopMarker: asked.stopMarker && pageRequests,
    noWriteFlag: asked.noWriteFlag && asked.deviceTlb,
    ridPasid: asked.ridPasid && scalable,
  };
  if (unit.specRevision !== '3.x' && unit.specRevision !== '5.10')
    throw new RangeError(`specRevision: ${unit.specRevision as string} is not one of 3.x, 5.10`);
  check('majorVersion', unit.majorVersion, 1, 15);
  check('domainIdBits', unit.domainIdBits, 4, 16);
  if (unit.domainIdBits % 2 !== 0) throw new RangeError(`domainIdBits: ${unit.domainIdBits} is not even`);
  check('guestAddressWidth', unit.guestAddressWidth, 32, 64);
  check('hostAddressWidth', unit.hostAddressWidth, 32, 52);
  check('maximumAddressMask', unit.maximumAddressMask, 0, 63);
  check('faultRegisters', unit.faultRegisters, 1, (0x1000 - FAULT_REGISTERS) / 16);
  check('pasidBits', unit.pasidBits, 0, 20);
  if (unit.levels.length === 0 || unit.levels.some((levels) => ![3, 4, 5].includes(levels)))
    throw new RangeError(`levels: [${unit.levels.join(', ')}] must hold some of 3, 4, 5`);
  return unit;
}

/** One object for units that are alike: vtd-pagetable keeps layouts and masks for each object. */
const structuresOf = new Map<string, StructureCapabilities>();

/** What vtd-pagetable's formats need of it: which bits are reserved, which values are valid. The same object for units that are alike. */
export function structureCapabilities(unit: UnitCapabilities): StructureCapabilities {
  const key = JSON.stringify(unit);
  const known = structuresOf.get(key);
  if (known !== undefined) return known;
  const structures: StructureCapabilities = {
    specRevision: unit.specRevision,
    hostAddressWidth: unit.hostAddressWidth,
    page2M: unit.page2M,
    page1G: unit.page1G,
    snoopControl: unit.snoopControl,
    deviceTlb: unit.deviceTlb,
    guestAddressWidth: unit.guestAddressWidth,
    addressWidths: unit.levels.map((levels) => levels - 2),
    domainIdWidth: unit.domainIdBits,
    passThrough: unit.passThrough,
    pasid: unit.pasidBits > 0,
    pageRequest: unit.pageRequests,
    pasidInTranslated: false,
    ridPasid: unit.ridPasid,
    ridPrivilege: false,
    hostPermissionTable: false,
    firstStage: false,
    firstStage5Level: false,
    secondStage: unit.scalableMode,
    nested: false,
    secondStageAccessedDirty: unit.accessedDirty,
    extendedAccessed: false,
    memoryType: false,
    pageWalkCoherency: unit.pageWalkCoherent,
    supervisorRequest: false,
    executeRequest: false,
  };
  structuresOf.set(key, structures);
  return structures;
}

function check(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${name}: ${value} is not an integer in ${least}..${most}`);
}
