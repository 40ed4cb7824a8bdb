import { tableIndex } from '@faultline/vtd-pagetable';
import { invalidatePages } from './invalidation-generator.ts';
import { DATA, DIRECTORY_INDICES, PAGE, PAGE_INDICES, type ProgramDomain, type ProgramWorld } from './program-world.ts';
import { SOURCE_IDS } from './qemu-subject.ts';

const READ = 1n;
const WRITE = 2n;
const PAGE_SIZE = 0x80n;
const ALL_ONES = 0xffff_ffff_ffff_ffffn;

/** Bits that walks ignore (Rev 5.10, tables 43-47, legacy mode). */
const IGNORED_BITS = [2, 3, 4, 5, 6, 8, 9, 10, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 63] as const;
/** Pages of the sweep that fills the IOTLB: with four requesters more than its 1024 entries. */
const SWEEP_PAGES = 300;

const levelBytes = (level: number): number => PAGE * 512 ** (level - 1);
const isLarge = (entry: bigint): boolean => (entry & PAGE_SIZE) !== 0n;

/** Builds and changes the second-stage tables of a program. */
export class PagingProgram {
  readonly #world: ProgramWorld;
  /** Tables that are meant to be there, by domain, level and first address. */
  readonly #tables = new Map<string, number>();

  constructor(world: ProgramWorld) {
    this.#world = world;
  }

  /** Gives a domain some mappings of every size to begin with. */
  populate(domain: ProgramDomain): void {
    const { random } = this.#world;
    for (let i = 0; i < 12; i++) {
      const page = this.#world.hotPage();
      const level = random.pick([1, 1, 1, 1, 1, 2, 2, 3]);
      if (!this.#reaches(domain, page)) continue;
      this.#world.write(this.#entry(domain, level, page), this.#leaf(level, READ | WRITE));
    }
  }

  /** Writes one entry, valid or corrupt, at any level of a path. */
  change(): void {
    const { random } = this.#world;
    const domain = random.pick(this.#world.domains);
    const page = this.#world.hotPage();
    if (!this.#reaches(domain, page)) return;
    const level = Math.min(random.pick([1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4]), domain.levels);
    const at = this.#entry(domain, level, page);
    this.#world.write(at, this.#value(domain, level, page));
    if (random.chance(0.4)) invalidatePages(this.#world, domain.did, page, random.pick([0, 0, 9, 18]));
  }

  /** Replaces a large leaf by a table with the same translation, or a table by a large leaf. */
  splitOrCollapse(): void {
    const { random } = this.#world;
    const domain = random.pick(this.#world.domains);
    const page = this.#world.hotPage();
    if (!this.#reaches(domain, page)) return;
    const level = random.pick([2, 2, 3]);
    const at = this.#entry(domain, level, page);
    const entry = this.#world.read(at);
    const isLeaf = (entry & (READ | WRITE)) !== 0n && isLarge(entry);
    // A corrupted pointer may look like a large leaf of the lowest memory, where firmware and the queue are.
    if (isLeaf && this.#leafBase(level, entry) >= BigInt(DATA)) this.#split(domain, level, page, entry);
    else this.#world.write(at, this.#leaf(level, READ | WRITE));
    const dice = random.below(3);
    if (dice === 0) invalidatePages(this.#world, domain.did, page, level === 2 ? 9 : 18);
    else if (dice === 1) invalidatePages(this.#world, domain.did, page, 0);
  }

  /** Fills the IOTLB beyond what it holds, with nothing in between that drops entries. */
  sweep(): void {
    const world = this.#world;
    const domain = world.domains[0] as ProgramDomain;
    const base = world.regions[0] as number;
    for (const sourceId of SOURCE_IDS) {
      world.assign(sourceId, domain);
      world.writeContext(sourceId, domain);
    }
    const table = this.#table(domain, 1, base);
    this.#link(domain, base);
    for (let index = 0; index < SWEEP_PAGES; index++)
      world.write(table + index * 8, BigInt(DATA + index * PAGE) | READ | WRITE);
    world.invalidate(0x11n, 0n);
    world.invalidate(0x12n, 0n);
    for (const sourceId of SOURCE_IDS)
      for (let index = 0; index < SWEEP_PAGES; index++) world.dmaTo(base + index * PAGE, sourceId);
    for (let i = 0; i < 150; i++)
      world.dmaTo(base + world.random.below(SWEEP_PAGES) * PAGE, world.random.pick(SOURCE_IDS));
  }

  #reaches(domain: ProgramDomain, page: number): boolean {
    return page < levelBytes(domain.levels + 1);
  }

  /** The table of a level that holds a page; tables above it are made, but not linked again if something broke the link. */
  #table(domain: ProgramDomain, level: number, page: number): number {
    if (level === domain.levels) return domain.top;
    const first = Math.floor(page / levelBytes(level + 1));
    const key = `${domain.did}/${level}/${first}`;
    const known = this.#tables.get(key);
    if (known !== undefined) return known;
    const table = this.#world.allocateTable();
    this.#tables.set(key, table);
    const parent = this.#table(domain, level + 1, page) + tableIndex(page / PAGE, level + 1) * 8;
    if (this.#world.read(parent) === 0n || this.#world.random.chance(0.5))
      this.#world.write(parent, BigInt(table) | READ | WRITE);
    return table;
  }

  #entry(domain: ProgramDomain, level: number, page: number): number {
    return this.#table(domain, level, page) + tableIndex(page / PAGE, level) * 8;
  }

  /** Links all tables on the way to a page. */
  #link(domain: ProgramDomain, page: number): void {
    for (let level = domain.levels as number; level > 1; level--)
      this.#world.write(this.#entry(domain, level, page), this.#pointer(domain, level, page));
  }

  #pointer(domain: ProgramDomain, level: number, page: number): bigint {
    return BigInt(this.#table(domain, level - 1, page)) | READ | WRITE;
  }

  /** A leaf to memory, or now and then to where there is none. */
  #leaf(level: number, rights: bigint): bigint {
    const { random } = this.#world;
    const outside = level === 3 || random.chance(0.15);
    // Never onto the devices below 4 GiB.
    const base = level === 3 ? random.pick([0x4000_0000, 0x8000_0000, 2 ** 32, 2 ** 38]) : outside ? 2 ** 33 : DATA;
    const size = levelBytes(level);
    const address = base + (level === 3 ? 0 : random.below(level === 1 ? 64 : 16) * size);
    return BigInt(address) | rights | (level > 1 ? PAGE_SIZE : 0n);
  }

  #value(domain: ProgramDomain, level: number, page: number): bigint {
    const { random } = this.#world;
    const rights = random.chance(0.6) ? READ | WRITE : BigInt(random.below(4));
    const isLeaf = level === 1 || (level < 4 && random.chance(0.4));
    const good = isLeaf ? this.#leaf(level, rights) : (this.#pointer(domain, level, page) & ~3n) | rights;
    const dice = random.below(100);
    if (dice < 55) return good;
    if (dice < 65) return 0n;
    if (dice < 75) return good | (1n << BigInt(random.pick(IGNORED_BITS))) | (1n << BigInt(random.pick(IGNORED_BITS)));
    if (dice < 92) return good | this.#reservedBit(level, isLeaf);
    if (dice < 97 && !isLeaf) return BigInt(this.#world.outside()) | rights;
    return this.#anyBits();
  }

  /** A bit that is reserved for the kind of entry. Bit 7 of a pointer makes it a large leaf whose address is not aligned. */
  #reservedBit(level: number, isLeaf: boolean): bigint {
    const { random, addressBits } = this.#world;
    const candidates = [11, 62, addressBits, addressBits + random.below(52 - addressBits), 51];
    if (!isLeaf) candidates.push(7, 7);
    else if (level > 1) candidates.push(12, 12 + random.below(9 * (level - 1)), 9 * (level - 1) + 11);
    return 1n << BigInt(random.pick(candidates));
  }

  /** Any 64 bits, but not all ones (see the rules), and no address below 4 GiB, where devices are. */
  #anyBits(): bigint {
    const { random } = this.#world;
    const bits = (BigInt(random.bits32() >>> 0) << 32n) | BigInt(random.bits32() >>> 0) | (1n << 38n);
    return bits === ALL_ONES ? 0n : bits;
  }

  #leafBase(level: number, entry: bigint): bigint {
    return entry & ~(BigInt(levelBytes(level)) - 1n) & ((1n << BigInt(this.#world.addressBits)) - 1n);
  }

  #split(domain: ProgramDomain, level: number, page: number, entry: bigint): void {
    const table = this.#world.allocateTable();
    const below = level - 1;
    const first = Math.floor(page / levelBytes(level)) * levelBytes(level);
    this.#tables.set(`${domain.did}/${below}/${first / levelBytes(level)}`, table);
    const base = this.#leafBase(level, entry);
    const keep = (entry & (READ | WRITE)) | (below > 1 ? PAGE_SIZE : 0n);
    for (const index of below === 1 ? PAGE_INDICES : DIRECTORY_INDICES)
      this.#world.write(table + index * 8, base + BigInt(index * levelBytes(below)) + keep);
    const parent = this.#table(domain, level, page) + tableIndex(page / PAGE, level) * 8;
    this.#world.write(parent, BigInt(table) | READ | WRITE);
  }
}
