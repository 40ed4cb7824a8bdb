import { type AddressSpace, HostMemory } from '@faultline/host-mm';
import { Process } from '@faultline/iommufd-core';
import type { Agent, Task } from '@faultline/sim';
import type { RecordedStep } from './iofd-recording.ts';

/** A kind of memory that the recording program makes. */
export type RegionKind =
  | 'thp'
  | 'thp-pinned'
  | 'thp-swapped'
  | 'small'
  | 'hugetlb-2M'
  | 'hugetlb-1G'
  | 'read-only'
  | 'prot-none'
  | 'hole'
  | 'untouched';

const PAGES_2M = 512;
const PAGES_1G = 512 * 512;
/** Regions lie 4 GiB apart. */
const REGION_PAGES = 1 << 20;
const FIRST_REGION_PAGE = 0x7e00_0000_0;
const MOST_SMALL_PAGES = 1 << 12;
const LARGEST_REGION = 1n << 30n;
const FIRST_PFN = 0x10_0000;
const SWAP_SLOTS = 1 << 14;

/** What a MAP says of the memory that it maps; the rest is plain THP memory. */
const KINDS: readonly (readonly [RegExp, RegionKind])[] = [
  [/\bhugetlb 1G\b/, 'hugetlb-1G'],
  [/\bhugetlb 2M\b/, 'hugetlb-2M'],
  [/\bRO va\b/, 'read-only'],
  [/\bPROT_NONE va\b/, 'prot-none'],
  [/\bva hole\b/, 'hole'],
  [/\buntouched anon\b/, 'untouched'],
  [/\b4K-backed\b|\bNOHUGEPAGE\b/, 'small'],
  [/\bTHP pin\b|\bon pinned\b|\bof pinned\b|^pinned$/, 'thp-pinned'],
  [/\bswapped-out\b|\bcollapse\b|\bCOLLAPSE\b|\bunpinned\b|^after map$/, 'thp-swapped'],
];

/** The kind of memory that a call or a pagemap speaks of. */
export const regionKind = (text: string): RegionKind => KINDS.find(([pattern]) => pattern.test(text))?.[1] ?? 'thp';

/** The page of a region that is missing, for `va hole at page 2 of 4`. */
const holeAt = (text: string): number => Number(/\bhole at page (\d+)/.exec(text)?.[1] ?? 1);

/** A process with the memory of the recording program, made as its calls speak of it. Its memory is full of tags, so that it goes to swap. */
export class RecordedProcess {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  /** Root, with every capability: its pins are not counted. */
  readonly root: Process;
  readonly #regions = new Map<string, number>();
  readonly #bytesOf = new Map<RegionKind, bigint>();

  /** @param steps the recording: how much of each kind of memory its MAPs reach */
  constructor(steps: readonly RecordedStep[]) {
    for (const { call } of steps) {
      if (call.kind !== 'call' || !call.text.startsWith('MAP ')) continue;
      const kind = regionKind(call.text);
      const end = (call.arguments['va%2M'] ?? 0n) + (call.arguments.len ?? 0n);
      // A length beyond all memory is there to fail.
      const bytes = end > 0n && end <= LARGEST_REGION ? end : 1n;
      if (bytes > (this.#bytesOf.get(kind) ?? 0n)) this.#bytesOf.set(kind, bytes);
    }
    const has1G = this.#bytesOf.has('hugetlb-1G');
    const pool2M = this.#bytesOf.has('hugetlb-2M') ? this.#pages('hugetlb-2M', PAGES_2M) / PAGES_2M : 0;
    const plain = [...this.#bytesOf.keys()].reduce(
      (sum, kind) => sum + (kind.startsWith('hugetlb') ? 0 : this.#pages(kind, PAGES_2M)),
      0,
    );
    const frames = PAGES_1G + (has1G ? PAGES_1G : 0) + (pool2M + 8) * PAGES_2M + 2 * plain;
    this.host = new HostMemory({ frames, firstPfn: FIRST_PFN, swap: [{ slots: SWAP_SLOTS, queueDepth: 1 }] });
    if (has1G) this.host.setHugePages('1G', 1);
    if (pool2M > 0) this.host.setHugePages('2M', pool2M);
    this.mm = this.host.createAddressSpace('recording program');
    this.root = new Process({
      mm: this.mm,
      capabilities: ['CAP_IPC_LOCK', 'CAP_SYS_RESOURCE', 'CAP_SYS_RAWIO'],
    });
  }

  /** A user's process on the same memory. */
  unprivileged(memlockBytes: bigint): Process {
    return new Process({ mm: this.mm, memlockBytes });
  }

  /** The first page of a region, made when it is first spoken of. @param offset of its first byte within 2M, for small regions */
  *region(agent: Agent, text: string, offset = 0n, bytes = 0n): Task<number> {
    const kind = regionKind(text);
    const isSmall = kind === 'read-only' || kind === 'prot-none' || kind === 'hole' || kind === 'untouched';
    const key = isSmall ? `${kind}@${offset}` : kind;
    const known = this.#regions.get(key);
    if (known !== undefined) return known;
    const base = FIRST_REGION_PAGE + this.#regions.size * REGION_PAGES;
    this.#regions.set(key, base);
    if (isSmall) yield* this.#makeSmall(agent, { kind, text, startPage: base + Number(offset >> 12n), bytes });
    else yield* this.#makeLarge(agent, kind, base);
    return base;
  }

  *#makeLarge(agent: Agent, kind: RegionKind, startPage: number): Task<void> {
    const { mm } = this;
    const hugetlb = kind === 'hugetlb-2M' || kind === 'hugetlb-1G';
    const backing = hugetlb ? kind : kind === 'small' ? '4K' : 'thp-2M';
    const pages = this.#pages(kind, kind === 'hugetlb-1G' ? PAGES_1G : PAGES_2M);
    mm.mmap({ startPage, pages, backing });
    yield* mm.populate(agent, startPage, pages);
    if (hugetlb) return;
    for (let page = startPage; page < startPage + pages; page++)
      yield* mm.cpuAccess(agent, page, { write: true, tagLo: page | 0, tagHi: 1 });
  }

  *#makeSmall(agent: Agent, region: { kind: RegionKind; text: string; startPage: number; bytes: bigint }): Task<void> {
    const { mm } = this;
    const { kind, startPage } = region;
    const pages = Math.min(MOST_SMALL_PAGES, Math.max(1, Number((region.bytes + 0xfffn) >> 12n)));
    mm.mmap({ startPage, pages, backing: '4K', readOnly: kind === 'read-only' });
    if (kind === 'prot-none') yield* mm.mprotect(agent, startPage, pages, { readable: false, writeable: false });
    if (kind === 'hole') yield* mm.munmap(agent, startPage + Math.min(holeAt(region.text), pages - 1), 1);
  }

  /** Pages of a kind that the recording reaches, in whole units. */
  #pages(kind: RegionKind, unit: number): number {
    const pages = Number(((this.#bytesOf.get(kind) ?? 0n) + 0xfffn) >> 12n);
    return Math.max(1, Math.ceil(pages / unit)) * unit;
  }
}
