import type { UnitCapabilities } from '../src/index.ts';

/** Memory by quadword: what is at an address that is divided by 8, or undefined outside of memory. */
export type ReadWord = (address: bigint) => bigint | undefined;

/** A request as table 30 tells requests apart. */
export interface NaiveRequest {
  readonly kind: 'untranslated' | 'translation' | 'page';
  readonly sourceId: number;
  readonly address: bigint;
  readonly pasid: number | null;
  readonly access: 'read' | 'write' | 'atomic' | 'zeroLengthRead';
  /** NW of a translation request. */
  readonly noWrite: boolean;
}

/** What becomes of it. */
export interface NaiveAnswer {
  /** 4K frame, or -1 without a translation. */
  readonly frame: number;
  /** Level of the leaf of a translation completion. */
  readonly level: number;
  /** R bit 0, W bit 1, of a translation completion. */
  readonly rights: number;
  readonly reason: number;
  readonly status: 'success' | 'UR' | 'CA' | 'IR' | 'accepted';
  readonly recorded: boolean;
  /** U of a translation completion. */
  readonly untranslatedOnly: boolean;
  /** A and D to be set: quadword address and bits. */
  readonly updates: ReadonlyMap<bigint, bigint>;
}

/** Registers that say where the tables are. */
export interface NaiveRoot {
  readonly capabilities: UnitCapabilities;
  readonly rootAddress: bigint;
  readonly mode: number;
}

/** Thrown by the first condition that holds. */
class Fault {
  readonly reason: number;
  constructor(reason: number) {
    this.reason = reason;
  }
}

const range = (high: number, low: number): bigint => ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);
const bit = (position: number): bigint => 1n << BigInt(position);
const field = (word: bigint, high: number, low: number): number => Number((word & range(high, low)) >> BigInt(low));
const has = (word: bigint, position: number): boolean => (word & bit(position)) !== 0n;

/** Column "Qualified" of table 30: no. */
const UNQUALIFIED = [0x8, 0x1, 0xa, 0x9, 0x30, 0x31, 0x32, 0x33, 0x34, 0x38, 0x39, 0x3a, 0x40, 0x50, 0x58];
/** Columns "Translation Req". */
const UR = [0x1, 0x2, 0xd, 0x31, 0x33, 0x34, 0x39, 0x41, 0x44, 0x45, 0x46, 0x48, 0x89];
const SUCCESS = [0x4, 0x5, 0x6, 0x51, 0x59, 0x79, 0x83, 0x84, 0x85, 0x86];

/**
 * A restatement of VT-d Rev 5.10, 3.4, 3.7, 3.9, 3.14, 3.15, 4.2.3 and table 30 for second-stage and pass-through translation: no caches,
 * no tasks, whole quadwords. Shares nothing with the unit but the names of its capabilities.
 */
export class NaiveUnit {
  readonly #root: NaiveRoot;
  readonly #unit: UnitCapabilities;
  readonly #read: ReadWord;
  #disabled = false;
  #updates = new Map<bigint, bigint>();

  constructor(root: NaiveRoot, read: ReadWord) {
    this.#root = root;
    this.#unit = root.capabilities;
    this.#read = read;
  }

  answer(request: NaiveRequest): NaiveAnswer {
    this.#disabled = false;
    this.#updates = new Map();
    const nothing = {
      frame: -1,
      level: 1,
      rights: 0,
      reason: 0,
      recorded: false,
      untranslatedOnly: false,
      updates: this.#updates,
    };
    try {
      return { ...nothing, status: request.kind === 'page' ? 'accepted' : 'success', ...this.#translate(request) };
    } catch (thrown) {
      if (!(thrown instanceof Fault)) throw thrown;
      const { reason } = thrown;
      const status =
        request.kind === 'page'
          ? 'IR'
          : request.kind === 'untranslated' || UR.includes(reason)
            ? 'UR'
            : SUCCESS.includes(reason)
              ? 'success'
              : 'CA';
      const oldExemption = this.#unit.specRevision === '3.x' && reason === 0xb;
      const suppressed = this.#disabled && !UNQUALIFIED.includes(reason) && !oldExemption;
      return { ...nothing, reason, status, recorded: status !== 'success' && !suppressed };
    }
  }

  #translate(request: NaiveRequest): Partial<NaiveAnswer> {
    const { kind, address, pasid } = request;
    const isLegacy = this.#root.mode === 0;
    const inRange = address >> 20n === 0xfeen;
    const noWrite = request.noWrite && this.#unit.noWriteFlag;
    const page = Number(address >> 12n);
    if (kind === 'translation' && !this.#unit.deviceTlb) return { status: 'UR' };
    if (kind === 'untranslated' && inRange && pasid === null) {
      if (request.access === 'write' || request.access === 'zeroLengthRead') return { frame: page };
      throw new Fault(isLegacy ? 0xe : 0x87);
    }
    const found = isLegacy ? this.#legacy(request) : this.#scalable(request);
    if (kind === 'page') return {};
    if (inRange && pasid === null) return noWrite ? {} : { frame: page, rights: 2, untranslatedOnly: true };
    if (found.passThrough) {
      if (address >= bit(this.#unit.hostAddressWidth)) throw new Fault(isLegacy ? 0x4 : 0x83);
      if (kind === 'untranslated') {
        if (inRange) throw new Fault(isLegacy ? 0xe : 0x87);
        return { frame: page };
      }
      if (inRange) return { reason: 0x87 };
      const level = [3, 2, 1].find((size) => this.#hasSize(size) && !overlaps(address, size)) as number;
      return { frame: page, level, rights: noWrite ? 1 : 3 };
    }
    return this.#walk(request, found, isLegacy, noWrite);
  }

  #hasSize(level: number): boolean {
    return level === 1 || (this.#unit.page2M && (level === 2 || this.#unit.page1G));
  }

  #legacy({ sourceId, kind, pasid }: NaiveRequest) {
    const { rootAddress } = this.#root;
    const { hostAddressWidth: haw, levels, deviceTlb, passThrough, domainIdBits } = this.#unit;
    if (kind === 'page') throw new Fault(0x32);
    if (pasid !== null) throw new Fault(0x31);
    const [root, rootHigh] = this.#entry(rootAddress + BigInt((sourceId >> 8) * 16), 2, 0x8);
    if (!has(root, 0)) throw new Fault(0x1);
    if ((root & (range(11, 1) | range(63, haw))) !== 0n || rootHigh !== 0n) throw new Fault(0xa);
    const [low, high] = this.#entry((root & range(haw - 1, 12)) + BigInt((sourceId & 0xff) * 16), 2, 0x9);
    this.#disabled = has(low, 1);
    if (!has(low, 0)) throw new Fault(0x2);
    const reserved = (low & (range(11, 4) | range(63, haw))) | (high & (bit(7) | range(63, 8 + domainIdBits)));
    if (reserved !== 0n) throw new Fault(0xb);
    const type = field(low, 3, 2);
    const tableLevels = field(high, 2, 0) + 2;
    if (!levels.includes(tableLevels as 3 | 4 | 5)) throw new Fault(0x3);
    if (type === 3 || (type === 1 && !deviceTlb) || (type === 2 && !passThrough)) throw new Fault(0x3);
    if (kind === 'translation' && type !== 1) throw new Fault(0xd);
    return {
      passThrough: type === 2,
      table: low & range(haw - 1, 12),
      levels: tableLevels,
      dirty: false,
      snoops: true,
    };
  }

  #scalable({ sourceId, kind, pasid }: NaiveRequest) {
    const { rootAddress, mode } = this.#root;
    const unit = this.#unit;
    const haw = unit.hostAddressWidth;
    if (mode === 2 || (mode === 3 && !unit.abortDmaMode) || (mode === 1 && !unit.scalableMode)) throw new Fault(0x30);
    if (mode === 3) throw new Fault(0x33);
    const half = (sourceId & 0x80) === 0 ? 0n : 8n;
    const [root] = this.#entry(rootAddress + BigInt((sourceId >> 8) * 16) + half, 1, 0x38);
    if (!has(root, 0)) throw new Fault(0x39);
    if ((root & (range(11, 1) | range(63, haw))) !== 0n) throw new Fault(0x3a);
    const context = this.#entry((root & range(haw - 1, 12)) + BigInt((sourceId & 0x7f) * 32), 4, 0x40);
    const [low, second] = context;
    this.#disabled = has(low, 1);
    if (!has(low, 0)) throw new Fault(0x41);
    let reserved = low & (range(8, 5) | range(63, haw));
    if (!unit.deviceTlb) reserved |= low & bit(2);
    if (unit.pasidBits === 0) reserved |= low & bit(3);
    if (!unit.pageRequests) reserved |= low & bit(4);
    reserved |= second & (unit.ridPasid ? range(63, 20) : range(63, 0));
    if ((reserved | context[2] | context[3]) !== 0n) throw new Fault(0x42);
    const limit = 2 ** (field(low, 11, 9) + 13);
    const ridPasid = field(second, 19, 0);
    if ((has(low, 4) && !has(low, 2)) || ridPasid >= limit) throw new Fault(0x43);
    if (kind === 'translation' && !has(low, 2)) throw new Fault(0x44);
    if (kind === 'page' && !has(low, 4)) throw new Fault(0x47);
    if (pasid !== null) {
      if (!has(low, 3)) throw new Fault(0x45);
      if (kind !== 'page' && pasid >= 2 ** unit.pasidBits) throw new Fault(0x89);
      if (pasid >= limit) throw new Fault(0x46);
      if (pasid === ridPasid) throw new Fault(0x48);
    }
    return this.#pasid(low & range(haw - 1, 12), pasid ?? ridPasid);
  }

  #pasid(directoryAddress: bigint, pasid: number) {
    const unit = this.#unit;
    const haw = unit.hostAddressWidth;
    const [directory] = this.#entry(directoryAddress + BigInt(pasid >> 6) * 8n, 1, 0x50);
    this.#disabled ||= has(directory, 1);
    if (!has(directory, 0)) throw new Fault(0x51);
    if ((directory & (range(11, 2) | range(63, haw))) !== 0n) throw new Fault(0x52);
    const entry = this.#entry((directory & range(haw - 1, 12)) + BigInt(pasid & 63) * 64n, 8, 0x58);
    const [low, second, third] = entry;
    this.#disabled ||= has(low, 1);
    if (!has(low, 0)) throw new Fault(0x59);
    let reserved = low & (bit(5) | range(11, 10) | range(63, haw));
    if (!unit.accessedDirty) reserved |= low & bit(9);
    reserved |= second & (range(22, unit.domainIdBits) | range(63, 25));
    if (!unit.pageWalkCoherent) reserved |= second & bit(23);
    if (!unit.snoopControl) reserved |= second & bit(24);
    reserved |= third & ~range(6, 5);
    if (reserved !== 0n || entry.slice(3).some((word) => word !== 0n)) throw new Fault(0x5a);
    const type = field(low, 8, 6);
    const levels = field(low, 4, 2) + 2;
    if (type !== 2 && !(type === 4 && unit.passThrough)) throw new Fault(0x5b);
    if (type === 2 && !unit.levels.includes(levels as 3 | 4 | 5)) throw new Fault(0x5b);
    const table = low & range(haw - 1, 12);
    return { passThrough: type === 4, table, levels, dirty: has(low, 9), snoops: has(second, 23) };
  }

  #walk(
    request: NaiveRequest,
    context: { table: bigint; levels: number; dirty: boolean; snoops: boolean },
    isLegacy: boolean,
    noWrite: boolean,
  ): Partial<NaiveAnswer> {
    const { address, kind } = request;
    const width = Math.min(context.levels * 9 + 12, this.#unit.guestAddressWidth);
    if (address >= bit(width)) throw new Fault(isLegacy ? 0x4 : 0x84);
    const needed = rightsNeeded(request, this.#unit.zeroLengthRead);
    let rights = 3n;
    let table = context.table;
    for (let level = context.levels; ; level--) {
      const index = BigInt(field(address, level * 9 + 11, level * 9 + 3));
      const unreadable = level === context.levels ? (isLegacy ? 0x3 : 0x7b) : isLegacy ? 0x7 : 0x78;
      const [entry] = this.#entry(table + index * 8n, 1, unreadable);
      rights &= entry;
      const lack = lacking(needed, Number(rights));
      if (isLegacy && lack !== null) throw new Fault(lack === 'write' ? 0x5 : 0x6);
      if (rights === 0n) throw new Fault(0x79);
      const isLeaf = level === 1 || (level <= 3 && has(entry, 7));
      if ((entry & this.#pagingReserved(level, isLeaf)) !== 0n) throw new Fault(isLegacy ? 0xc : 0x7a);
      if (isLeaf && lack !== null) throw new Fault(lack === 'write' ? 0x85 : 0x86);
      if (context.dirty) {
        const writes =
          isLeaf && (kind === 'translation' ? !noWrite && has(rights, 1) : needed === 'write' || needed === 'both');
        const wanted = bit(8) | (writes ? bit(9) : 0n);
        if ((entry & wanted) !== wanted) {
          if (!context.snoops) throw new Fault(0x7c);
          this.#updates.set((table >> 3n) + index, wanted);
        }
      }
      if (!isLeaf) {
        table = entry & range(51, 12);
        continue;
      }
      const size = BigInt(12 + 9 * (level - 1));
      const output = (entry & range(51, 12)) | (address & (bit(Number(size)) - 1n));
      if (kind === 'translation' ? overlaps(output, level) : output >> 20n === 0xfeen)
        throw new Fault(isLegacy ? 0xe : 0x87);
      const granted = noWrite ? Number(rights) & 1 : Number(rights);
      if (kind === 'translation' && granted === 0) return { reason: isLegacy ? 0x6 : 0x86 };
      return { frame: Number(output >> 12n), level, rights: granted };
    }
  }

  #pagingReserved(level: number, isLeaf: boolean): bigint {
    const { hostAddressWidth, snoopControl, specRevision, deviceTlb } = this.#unit;
    let reserved = range(51, hostAddressWidth) & range(51, 12);
    if (hostAddressWidth === 52) reserved = 0n;
    if (!(isLeaf && snoopControl)) reserved |= bit(11);
    if (!(specRevision === '3.x' && isLeaf && deviceTlb)) reserved |= bit(62);
    if (level >= 4 || (isLeaf && level > 1 && !this.#hasSize(level))) reserved |= bit(7);
    if (isLeaf && level > 1) reserved |= range(9 * (level - 1) + 11, 12);
    return reserved;
  }

  /** Some quadwords in a row, all of which are in memory or none. */
  #entry(address: bigint, words: number, unreadable: number): [bigint, bigint, bigint, bigint, ...bigint[]] {
    const read: bigint[] = [];
    for (let nth = 0n; nth < words; nth++) {
      const word = this.#read((address >> 3n) + nth);
      if (word === undefined) throw new Fault(unreadable);
      read.push(word);
    }
    while (read.length < 4) read.push(0n);
    return read as [bigint, bigint, bigint, bigint, ...bigint[]];
  }
}

function rightsNeeded({ kind, access }: NaiveRequest, zeroLengthRead: boolean): 'any' | 'read' | 'write' | 'both' {
  if (kind === 'translation') return 'any';
  if (access === 'zeroLengthRead') return zeroLengthRead ? 'any' : 'read';
  return access === 'atomic' ? 'both' : access;
}

/** Which right is missing, write before read; `any` is missing as a read. */
function lacking(needed: 'any' | 'read' | 'write' | 'both', rights: number): 'write' | 'read' | null {
  if ((needed === 'write' || needed === 'both') && (rights & 2) === 0) return 'write';
  if ((needed === 'read' || needed === 'both') && (rights & 1) === 0) return 'read';
  return rights === 0 ? 'read' : null;
}

/** Whether the block of this size around an address has a page in FEEx_xxxxh. */
function overlaps(address: bigint, level: number): boolean {
  const size = bit(12 + 9 * (level - 1));
  const start = address - (address % size);
  return start < 0xfef0_0000n && start + size > 0xfee0_0000n;
}
