import { Agent, type Task, VirtualTime } from '@faultline/sim';
import { expect } from 'vitest';
import {
  type AddressSpace,
  type Backing,
  HostMemory,
  HostMemoryError,
  type HostMemoryOptions,
  type MadviseAdvice,
  type MemoryCgroup,
  VM_FAULT_ERROR,
} from '../src/index.ts';
import { ReferenceMm } from './reference-mm.ts';
import { testProfile } from './run.ts';

/** Address spaces, in two cgroups, and one file that all may map. */
const SPACES = 3;
const CGROUPS = 2;
const FILE_PAGES = 48;
const GIG = 2 ** 18;

/** One operation of a random program. `at` and `count` are brought into the mapping that is meant. */
export type Op =
  | {
      readonly kind: 'mmap';
      readonly space: number;
      readonly place: number;
      readonly backing: Backing | 'shared' | 'private';
    }
  | {
      readonly kind: 'munmap' | 'pin' | 'populate' | 'fill';
      readonly space: number;
      readonly place: number;
      readonly at: number;
      readonly count: number;
    }
  | {
      readonly kind: 'advise';
      readonly advice: MadviseAdvice;
      readonly space: number;
      readonly place: number;
      readonly at: number;
      readonly count: number;
    }
  | { readonly kind: 'read' | 'write'; readonly space: number; readonly place: number; readonly at: number }
  | { readonly kind: 'reclaim'; readonly pages: number; readonly cgroup: number | null }
  | { readonly kind: 'limit'; readonly pages: number; readonly cgroup: number }
  | { readonly kind: 'unpin' };

/** Pages of a mapping of each backing. */
const PAGES: Readonly<Record<Backing | 'shared' | 'private', number>> = {
  '4K': 64,
  'thp-2M': 1024,
  'hugetlb-2M': 1024,
  'hugetlb-1G': GIG,
  contiguous: 1536,
  'contiguous-4K': 700,
  'pud-thp': GIG,
  shared: FILE_PAGES,
  private: FILE_PAGES,
};

export interface WorldOptions {
  readonly host: HostMemoryOptions;
  readonly hugePages: { readonly '2M': number; readonly '1G': number };
  /** Serve the swap areas by workers; run kswapd. */
  readonly workers: boolean;
  readonly kswapd: boolean;
}

/** The real host and the reference, which do the same. */
export class ReferenceWorld {
  readonly host: HostMemory;
  readonly spaces: AddressSpace[];
  readonly cgroups: MemoryCgroup[];
  readonly reference = new ReferenceMm();
  readonly frames: number;
  /** The most that each cgroup may use: its limit, or what was left when nothing more could be reclaimed. */
  readonly #bounds: number[] = Array<number>(CGROUPS).fill(Number.POSITIVE_INFINITY);
  readonly #pins: { space: number; startPage: number; pages: number }[] = [];
  readonly #file;
  readonly #time: VirtualTime;
  readonly #kswapd: boolean;
  #tag = 0;

  constructor(options: WorldOptions) {
    this.host = new HostMemory(options.host);
    this.frames = options.host.frames;
    this.host.setHugePages('1G', options.hugePages['1G']);
    this.host.setHugePages('2M', options.hugePages['2M']);
    this.cgroups = Array.from({ length: CGROUPS }, (_, i) => this.host.createMemoryCgroup({ name: `cgroup ${i}` }));
    this.spaces = Array.from({ length: SPACES }, (_, i) =>
      this.host.createAddressSpace(`mm ${i}`, this.cgroups[i % CGROUPS]),
    );
    this.#file = this.host.createMemfd('file', FILE_PAGES);
    this.#time = new VirtualTime(testProfile({ swapWrite: 70, swapRead: 50 }));
    if (options.workers)
      for (const area of this.host.swap.areas.filter((each) => each.zram === null)) {
        const agent = new Agent(`worker of ${area.name}`);
        this.#time.spawn(agent, this.host.swapIo.worker(agent, area), { daemon: true });
      }
    this.#kswapd = options.kswapd;
    const kswapd = new Agent('kswapd');
    if (options.kswapd) this.#time.spawn(kswapd, this.host.kswapd(kswapd), { daemon: true });
  }

  /** Runs a task to its end, with the daemons, until everybody sleeps. */
  #run<T>(task: (agent: Agent) => Task<T>): T {
    const agent = new Agent('program');
    const run = this.#time.spawn(agent, caught(task(agent)));
    const atRest = this.#time.run(this.#time.nowNs + (this.frames > 10_000 ? 1e9 : 5e7));
    if (!atRest && run.done) throw new Error('kswapd or a worker never sleeps');
    if (!run.done) throw new Error(`no end in sight: ${run.pending?.label}`);
    const result = run.value;
    if (result === undefined || 'error' in result) throw result?.error;
    return result.value;
  }

  do(op: Op): void {
    if (op.kind === 'mmap') this.#mmap(op);
    else if (op.kind === 'reclaim') this.#reclaim(op.pages, op.cgroup);
    else if (op.kind === 'limit') this.#limit(op.cgroup, op.pages);
    else if (op.kind === 'unpin') this.#unpin();
    else this.#onMapping(op);
    this.checkBounds();
  }

  #mmap({ space, place, backing }: Extract<Op, { kind: 'mmap' }>): void {
    const startPage = place * GIG;
    const pages = PAGES[backing];
    if (this.reference.mappings.some((each) => each.space === space && Math.floor(each.startPage / GIG) === place))
      return;
    const isFile = backing === 'shared' || backing === 'private';
    const file = isFile ? { file: { memfd: this.#file, offset: 0, private: backing === 'private' } } : {};
    try {
      this.spaces[space]?.mmap({ startPage, pages, backing: isFile ? '4K' : backing, ...file });
    } catch (error) {
      if (!(error instanceof HostMemoryError)) throw error;
      expect(error.code).toBe('ENOMEM');
      return;
    }
    this.reference.mmap({
      space,
      startPage,
      pages,
      file: isFile ? { id: 0, offset: 0, isPrivate: backing === 'private' } : null,
    });
  }

  #reclaim(pages: number, cgroup: number | null): void {
    const used = this.cgroups.map((each) => each.usedPages);
    const memcg = cgroup === null ? null : (this.cgroups[cgroup] ?? null);
    this.#run((agent) => this.host.reclaim(agent, pages, memcg));
    // Only who is meant loses anything, unless kswapd has been woken.
    for (const [i, each] of this.cgroups.entries())
      if (cgroup !== null && i !== cgroup && !this.#kswapd) expect(each.usedPages).toBe(used[i]);
  }

  #limit(cgroup: number, pages: number): void {
    const memcg = this.cgroups[cgroup]!;
    const within = this.#run((agent) => this.host.setMemoryMax(agent, memcg, pages * 4096));
    expect(within).toBe(memcg.usedPages <= pages);
    this.#bounds[cgroup] = Math.max(pages, memcg.usedPages);
    if (!within) expect(this.#mayFail(), 'a limit is not reached although memory could be reclaimed').toBe(true);
  }

  /** Whether there are reasons why reclaim may find nothing: no room in swap, or pins. */
  #mayFail(): boolean {
    const { host } = this;
    const isCompressed = host.swap.areas.some((area) => area.zram !== null) || host.swapIo.zswap !== null;
    return isCompressed || host.swap.freeSlots < 64 || this.#pins.length > 0;
  }

  #unpin(): void {
    const pin = this.#pins.shift();
    if (pin) this.#run((agent) => this.spaces[pin.space]!.unpin(agent, pin.startPage, pin.pages));
  }

  #onMapping(op: Exclude<Op, { kind: 'mmap' | 'reclaim' | 'limit' | 'unpin' }>): void {
    const { space } = op;
    const mappings = this.reference.mappings.filter((each) => each.space === space);
    const mapping = mappings[op.place % Math.max(1, mappings.length)];
    const mm = this.spaces[space]!;
    if (!mapping) return;
    const at = mapping.startPage + (op.at % mapping.pages);
    if (!('count' in op)) {
      this.#touch(space, at, op.kind === 'write');
      return;
    }
    const backing = mm.vmas.find((vma) => at >= vma.startPage && at < vma.startPage + vma.pages)?.backing;
    const unit = backing === 'hugetlb-1G' ? GIG : backing === 'hugetlb-2M' ? 512 : 1;
    const startPage = at - (at % unit);
    const pages = Math.min(Math.ceil(op.count / unit) * unit, mapping.startPage + mapping.pages - startPage);
    if (op.kind === 'fill') for (let i = 0; i < Math.min(pages, 48); i++) this.#touch(space, startPage + i, true);
    else if (op.kind === 'pin') this.#pin(space, startPage, Math.min(pages, 40));
    else if (op.kind === 'populate') this.#orNoMemory((agent) => mm.populate(agent, startPage, Math.min(pages, 600)));
    else if (op.kind === 'munmap') {
      this.#run((agent) => mm.munmap(agent, startPage, pages));
      this.reference.munmap(space, startPage, pages);
    } else if ('advice' in op) {
      this.#run((agent) => mm.madvise(agent, startPage, pages, op.advice));
      if (op.advice === 'DONTNEED') this.reference.dontNeed(space, startPage, pages);
    }
  }

  #pin(space: number, startPage: number, pages: number): void {
    if (this.#pins.some((pin) => pin.space === space && pin.startPage === startPage && pin.pages === pages)) return;
    if (this.#orNoMemory((agent) => this.spaces[space]!.pin(agent, startPage, pages)))
      this.#pins.push({ space, startPage, pages });
  }

  /** @returns whether there was memory for it */
  #orNoMemory(task: (agent: Agent) => Task<void>): boolean {
    try {
      this.#run(task);
      return true;
    } catch (error) {
      if (!(error instanceof HostMemoryError)) throw error;
      expect(this.#pins.length > 0 ? ['ENOMEM', 'EFAULT'] : ['ENOMEM']).toContain(error.code);
      this.#checkOom();
      return false;
    }
  }

  #touch(space: number, page: number, write: boolean): void {
    const mm = this.spaces[space]!;
    const tag = ++this.#tag;
    const bits = this.#run((agent) => mm.cpuAccess(agent, page, { write, tagLo: tag, tagHi: ~tag }));
    if ((bits & VM_FAULT_ERROR) === 0) {
      if (write) this.reference.write(space, page, tag);
    } else {
      // SIGBUS: the huge page that was dropped is pinned, and so not back in its pool.
      expect(this.#pins.length > 0 ? [1, 2] : [1]).toContain(bits & VM_FAULT_ERROR);
      this.#checkOom();
    }
    this.checkPage(space, page);
  }

  /** No memory only where none could be had: a tight limit, few frames, swap full, or pins. */
  #checkOom(): void {
    const tight = this.#bounds.some((bound) => bound < 64);
    // Contiguous folios and watermarks take their share of a small host.
    expect(tight || this.frames < 4096 || this.#mayFail(), 'no memory although some could be reclaimed').toBe(true);
  }

  checkPage(space: number, page: number): void {
    const tag = this.reference.read(space, page);
    if (tag === undefined) expect(this.spaces[space]!.lookup(page)).toBe(-1);
    else expect(this.spaces[space]!.cpuRead(page)).toMatchObject({ tagLo: tag, tagHi: tag === 0 ? 0 : ~tag });
  }

  checkBounds(): void {
    expect(this.host.allocator.allocatedFrames).toBeLessThanOrEqual(this.frames);
    for (const [i, memcg] of this.cgroups.entries())
      expect(memcg.usedPages, memcg.name).toBeLessThanOrEqual(this.#bounds[i]!);
  }

  checkAll(): void {
    expect(this.host.audit()).toEqual([]);
    for (let space = 0; space < SPACES; space++)
      for (const page of this.reference.written(space)) this.checkPage(space, page);
  }

  /** Ends every process; nothing is left but what the file and the pools hold. */
  checkEnd(): void {
    const { host } = this;
    this.checkAll();
    for (const [i, mm] of this.spaces.entries()) {
      this.#run((agent) => mm.exit(agent));
      this.reference.exit(i);
    }
    while (this.#pins.length > 0) this.#unpin();
    expect(host.audit()).toEqual([]);
    host.setHugePages('2M', 0);
    host.setHugePages('1G', 0);
    for (const mm of this.spaces)
      expect([mm.residentBytes, mm.swappedBytes, mm.pinnedBytes, mm.anonHugeBytes]).toEqual([0, 0, 0, 0]);
    expect(host.swap.usedSlots).toBe(this.#file.swappedBytes / 4096);
    const compressed = host.swap.areas.reduce(
      (sum, area) => sum + (area.zram?.mem_used_total ?? 0),
      host.swapIo.zswap?.pool_total_size ?? 0,
    );
    // A page of the file may be in the swap cache.
    const inSwapCache = host.state.swapCache.pages;
    expect(inSwapCache).toBeLessThanOrEqual(this.#file.swappedBytes / 4096);
    expect(host.allocator.allocatedFrames).toBe((this.#file.residentBytes + compressed) / 4096 + inSwapCache);
  }
}

/** An error must not stop the clock while daemons are at work. */
function* caught<T>(task: Task<T>): Task<{ readonly value: T } | { readonly error: unknown }> {
  try {
    return { value: yield* task };
  } catch (error) {
    return { error };
  }
}
