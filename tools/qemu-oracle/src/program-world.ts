import type { RandomStream } from '@faultline/sim';
import type { Operation } from './program.ts';
import { RAM_BYTES, SOURCE_IDS } from './qemu-subject.ts';

/** Where programs have their structures. */
export const ROOT_TABLE = 0x10_0000;
export const CONTEXT_TABLE = 0x10_2000;
const SECOND_ROOT_TABLE = 0x10_1000;
const SECOND_CONTEXT_TABLE = 0x10_3000;
const TABLES = 0x10_4000;
/** Data begins here, and tables end. */
export const DATA = 0x200_0000;

const GIB = 2 ** 30;
export const PAGE = 4096;

/** A domain of the program: a table and the tag of its translations. */
export interface ProgramDomain {
  readonly did: number;
  readonly levels: 3 | 4;
  /** Address of the top table. */
  readonly top: number;
}

/** First bytes of the 1 GiB regions that programs use, at both ends of each width; none holds the interrupt window. */
const REGIONS = {
  3: [0, 5 * GIB, 2 ** 38, 2 ** 39 - GIB],
  4: [0, 5 * GIB, 2 ** 39 - GIB, 2 ** 39, 0x180_4000_0000, 2 ** 47, 2 ** 48 - GIB],
} as const;
/** Indices into a page directory and a page table: neighbours, ends, and pairs that are equal modulo 256. */
export const DIRECTORY_INDICES: readonly number[] = [0, 1, 2, 3, 511];
export const PAGE_INDICES: readonly number[] = [0, 1, 2, 3, 4, 7, 8, 9, 255, 256, 511];

/** Addresses where nothing answers: above RAM, above 2 GiB, above 4 GiB. */
const OUTSIDE = [RAM_BYTES, 0x8000_0000, 0x1_0000_0000, 2 ** 36, 2 ** 38] as const;

const RECENT = 24;
/** Operations that something broken stays broken, at most. */
const LONGEST_DAMAGE = 60;

/** What a program under construction has written so far, and what it means to have. */
export class ProgramWorld {
  readonly random: RandomStream;
  readonly levels: 3 | 4;
  readonly operations: Operation[] = [];
  readonly domains: readonly ProgramDomain[];
  /** 1 GiB regions of this program. */
  readonly regions: readonly number[];
  /** Address bits of the unit: reserved from here on in every entry. */
  readonly addressBits: number;
  readonly #memory = new Map<number, bigint>();
  readonly #assigned = new Map<number, ProgramDomain>();
  readonly #recent: number[] = [];
  #nextTable = TABLES;
  #repairAt = Number.POSITIVE_INFINITY;

  constructor(random: RandomStream, levels: 3 | 4) {
    this.random = random;
    this.levels = levels;
    this.addressBits = levels === 3 ? 39 : 48;
    const lists = REGIONS[levels];
    this.regions = [0, 1, 2].map(() => random.pick(lists));
    this.domains = [
      { did: 1, levels, top: this.allocateTable() },
      { did: 0x1234, levels, top: this.allocateTable() },
      // A unit of four levels can have domains of three.
      { did: 0xffff, levels: 3, top: this.allocateTable() },
    ];
    for (const sid of SOURCE_IDS) this.#assigned.set(sid, random.pick(this.domains));
  }

  /** A page for a table; never one on a 2M boundary, so that no corrupted pointer is a valid large leaf into the tables. */
  allocateTable(): number {
    const at = this.#nextTable;
    this.#nextTable += PAGE;
    if (this.#nextTable % 0x20_0000 === 0) this.#nextTable += PAGE;
    if (this.#nextTable >= DATA) throw new RangeError(`no room for tables below 0x${DATA.toString(16)}`);
    return at;
  }

  write(pa: number, value: bigint): void {
    this.#memory.set(pa, value);
    this.operations.push({ kind: 'write', pa: BigInt(pa), value });
  }

  /** What the program itself wrote there last. */
  read(pa: number): bigint {
    return this.#memory.get(pa) ?? 0n;
  }

  invalidate(lo: bigint, hi: bigint): void {
    this.operations.push({ kind: 'invalidate', lo, hi });
  }

  setRoot(pa: number): void {
    this.operations.push({ kind: 'root', pa: BigInt(pa) });
  }

  /** The domain that a requester is meant to have. */
  domainOf(sourceId: number): ProgramDomain {
    return this.#assigned.get(sourceId) ?? (this.domains[0] as ProgramDomain);
  }

  assign(sourceId: number, domain: ProgramDomain): void {
    this.#assigned.set(sourceId, domain);
  }

  /** A page that the program has something to do with. */
  hotPage(): number {
    const { random } = this;
    const first = random.pick(this.regions) + random.pick(DIRECTORY_INDICES) * 0x20_0000;
    // A passed-through DMA must not reach the lowest memory, where firmware and the invalidation queue are.
    return (first === 0 ? 0x80_0000 : first) + random.pick(PAGE_INDICES) * PAGE;
  }

  /** An address where there is no memory, inside the width of the unit. */
  outside(): number {
    return this.random.pick(OUTSIDE) + this.random.below(16) * PAGE;
  }

  /** A DMA: mostly to pages used lately, sometimes beyond the width. */
  dma(): void {
    const { random } = this;
    const sourceId = random.chance(0.6) ? (SOURCE_IDS[0] as number) : random.pick(SOURCE_IDS);
    this.dmaTo(this.#dmaPage(), sourceId);
  }

  dmaTo(page: number, sourceId: number): void {
    const { random } = this;
    const offset = random.chance(0.5) ? 0 : random.below(PAGE / 4) * 4;
    const iova = BigInt(page) + BigInt(offset);
    this.operations.push({ kind: 'dma', iova, access: random.chance(0.5) ? 'w' : 'r', sourceId });
  }

  #dmaPage(): number {
    const { random } = this;
    if (random.chance(0.02)) return 2 ** (this.addressBits + random.below(52 - this.addressBits)) + this.hotPage();
    if (this.#recent.length > 0 && random.chance(0.7)) return random.pick(this.#recent);
    const page = this.hotPage();
    if (this.#recent.length < RECENT) this.#recent.push(page);
    else this.#recent[random.below(RECENT)] = page;
    return page;
  }

  /** Words that tell the pages of data apart, at the beginning of those that leaves lead to. */
  writeData(): void {
    for (let i = 0; i < 32; i++)
      for (const size of [PAGE, 0x20_0000])
        if (DATA + i * size < RAM_BYTES)
          this.write(DATA + i * size, BigInt(this.random.bits32() >>> 0) * 0x1_0000_0001n);
  }

  /** Root tables and context tables as they are meant to be. */
  writeContexts(): void {
    this.write(ROOT_TABLE, BigInt(CONTEXT_TABLE | 1));
    this.write(SECOND_ROOT_TABLE, BigInt(SECOND_CONTEXT_TABLE | 1));
    for (const [index, sourceId] of SOURCE_IDS.entries()) {
      this.writeContext(sourceId, this.domainOf(sourceId));
      const other = this.domains[(index + 1) % this.domains.length] as ProgramDomain;
      this.#writeContextAt(SECOND_CONTEXT_TABLE, sourceId, BigInt(other.top | 1), contextHigh(other));
    }
  }

  /** A context entry; high half first, as a driver does. Without halves, the right one for the domain. */
  writeContext(sourceId: number, domain: ProgramDomain, lo = BigInt(domain.top | 1), hi = contextHigh(domain)): void {
    this.#writeContextAt(CONTEXT_TABLE, sourceId, lo, hi);
  }

  #writeContextAt(table: number, sourceId: number, lo: bigint, hi: bigint): void {
    const entry = table + (sourceId & 0xff) * 16;
    this.write(entry + 8, hi);
    this.write(entry, lo);
  }

  /** Other root entries, or another root: what a program may do to it. */
  readonly roots = { second: SECOND_ROOT_TABLE, secondContexts: SECOND_CONTEXT_TABLE };

  /** Something above the tables was broken: it is put right some operations later. */
  damaged(): void {
    const until = this.operations.length + 5 + this.random.below(LONGEST_DAMAGE);
    this.#repairAt = Math.min(this.#repairAt, until);
  }

  /** Puts root and contexts right if it is time. */
  repairIfDue(): void {
    if (this.operations.length < this.#repairAt) return;
    this.#repairAt = Number.POSITIVE_INFINITY;
    this.write(ROOT_TABLE, BigInt(CONTEXT_TABLE | 1));
    this.write(ROOT_TABLE + 8, 0n);
    for (const sourceId of SOURCE_IDS) this.writeContext(sourceId, this.domainOf(sourceId));
    this.setRoot(ROOT_TABLE);
    this.invalidate(0x11n, 0n);
    if (this.random.chance(0.5)) this.invalidate(0x12n, 0n);
  }
}

/** High half of the right context entry: AW and DID. */
export const contextHigh = (domain: ProgramDomain): bigint => BigInt(domain.levels - 2) | (BigInt(domain.did) << 8n);
