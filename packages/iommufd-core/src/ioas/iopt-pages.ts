import { hex } from '@faultline/address';
import { type Agent, assert, Mutex, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { ContiguousRun, HostAddressSpace, MappableFile } from '../host-address-space.ts';
import type { Process } from '../process.ts';
import { type AccountMode, chargePins } from './locked-memory.ts';
import { type PageSpan, type PinnedRun, RunList } from './run-list.ts';

/** Options of an {@link IoptPages}. */
export interface IoptPagesOptions {
  /** Whose memory it is, and who pays. */
  readonly process: Process;
  /** User VA, or offset into the file; the array begins at its page. */
  readonly start: bigint;
  readonly length: bigint;
  /** Devices may write: pins ask for it (FOLL_WRITE), and so may copies. */
  readonly writeable: boolean;
  /** Null for the process's memory. */
  readonly file?: MappableFile | null;
  /** Never pinned: follows the host's changes. Ours. */
  readonly unpinned?: boolean;
  readonly account: AccountMode;
}

/**
 * A linear array of pages of user memory or of a file, shared by the areas that map parts of it (struct iopt_pages; COPY shares it). A page is
 * pinned while anybody uses it, once, whoever they are: areas that domains map, and accesses. Linux reads the frame of a pinned page back from
 * the storage domain; here it is kept beside the pin.
 */
export class IoptPages {
  readonly mutex = new Mutex('iopt_pages mutex');
  readonly start: bigint;
  readonly pages: number;
  readonly writeable: boolean;
  readonly unpinned: boolean;
  readonly file: MappableFile | null;
  #process: Process;
  #account: AccountMode;
  /** Who uses what; a span for each use. */
  readonly #uses: PageSpan[] = [];
  /** What is pinned, by index. */
  readonly #runs = new RunList();
  #pinnedPages = 0;

  constructor(options: IoptPagesOptions) {
    this.start = options.start;
    this.pages = Number(((options.start & 0xfffn) + options.length + 0xfffn) >> 12n);
    this.writeable = options.writeable;
    this.unpinned = options.unpinned ?? false;
    this.file = options.file ?? null;
    this.#process = options.process;
    this.#account = options.account;
  }

  /** The mm that the memory is of. For a file: whose process pays. */
  get mm(): HostAddressSpace {
    return this.#process.mm;
  }

  /** Page of the user's address space (or of the file) at index 0. */
  get firstPage(): number {
    return Number(this.start >> 12n);
  }

  /** Pages pinned now, each counted once. */
  get pinnedPages(): number {
    return this.#pinnedPages;
  }

  /** Who pays for the pins. */
  get process(): Process {
    return this.#process;
  }

  /**
   * Keeps a span pinned for one more user. Caller holds {@link mutex}. @throws IommufdError ENOMEM (limit, checked after pinning as in
   * Linux); EFAULT and others of the pin; EINVAL for a file that cannot be pinned. Nothing is pinned then.
   */
  *use(agent: Agent, span: PageSpan): Task<void> {
    assert(span.first >= 0 && span.last < this.pages && !this.unpinned, 'a span of pinnable pages');
    const added: PinnedRun[][] = [];
    let pages = 0;
    try {
      for (const part of this.#notUsed(span)) {
        added.push(yield* this.#pin(agent, part));
        pages += part.last - part.first + 1;
      }
      chargePins(this.#process, this.#account, pages);
    } catch (error) {
      for (const runs of added) yield* this.#unpin(agent, runs);
      throw error;
    }
    this.#uses.push(span);
    this.#pinnedPages += pages;
    for (const runs of added) this.#runs.insert(runs);
  }

  /** Ends one use; what nobody else uses is unpinned. Caller holds {@link mutex}, and no device reaches what goes. */
  *endUse(agent: Agent, span: PageSpan): Task<void> {
    const at = this.#uses.findIndex((use) => use.first === span.first && use.last === span.last);
    assert(at >= 0, 'the end of a use that began');
    this.#uses.splice(at, 1);
    for (const part of this.#notUsed(span)) {
      const pages = part.last - part.first + 1;
      this.#pinnedPages -= pages;
      chargePins(this.#process, this.#account, -pages);
      yield* this.#unpin(agent, this.#runs.take(part));
    }
  }

  /** Makes one use two, the second from an index on, so that they can end one by one. Caller holds {@link mutex}. */
  splitUse(span: PageSpan, index: number): void {
    const at = this.#uses.findIndex((use) => use.first === span.first && use.last === span.last);
    assert(at >= 0 && index > span.first && index <= span.last, 'a use that began, and an index within it');
    this.#uses.splice(at, 1, { first: span.first, last: index - 1 }, { first: index, last: span.last });
  }

  /** The frames of a span that is in use: runs that are contiguous on the host, whatever the CPU's leaves. */
  runs(span: PageSpan): PinnedRun[] {
    const merged: PinnedRun[] = [];
    for (const run of this.#runs.within(span)) {
      const before = merged.at(-1);
      if (before && before.pfn + before.pages === run.pfn)
        merged[merged.length - 1] = { ...before, pages: before.pages + run.pages };
      else merged.push(run);
    }
    return merged;
  }

  /** Has another process pay from now on (IOAS_CHANGE_PROCESS, files only). @throws IommufdError ENOMEM, with nothing changed */
  changeProcess(process: Process): void {
    if (process === this.#process) return;
    chargePins(process, this.#account, this.#pinnedPages);
    chargePins(this.#process, this.#account, -this.#pinnedPages);
    this.#process = process;
  }

  /** The parts of a span that nobody uses, in order. */
  #notUsed(span: PageSpan): PageSpan[] {
    const inside = this.#uses.filter((use) => use.first <= span.last && span.first <= use.last);
    inside.sort((a, b) => a.first - b.first);
    const parts: PageSpan[] = [];
    let from = span.first;
    for (const use of inside) {
      if (use.first > from) parts.push({ first: from, last: use.first - 1 });
      from = Math.max(from, use.last + 1);
    }
    if (from <= span.last) parts.push({ first: from, last: span.last });
    return parts;
  }

  *#pin(agent: Agent, { first, last }: PageSpan): Task<PinnedRun[]> {
    const { file, firstPage } = this;
    const startPage = firstPage + first;
    const pages = last - first + 1;
    let runs: readonly ContiguousRun[];
    if (file === null) {
      if (startPage + pages > USER_PAGES)
        throw new IommufdError('EFAULT', `user_va: ${hex(startPage * 4096)} + ${hex(pages * 4096)} is no user memory`);
      runs = yield* this.mm.pinUserPages(agent, startPage, pages, this.writeable);
    } else {
      if (!file.pinPages)
        throw new IommufdError('EINVAL', `fd: ${file.name} is no memfd, and its pages cannot be pinned`);
      runs = yield* file.pinPages(agent, startPage, pages);
    }
    return runs.map((run) => ({ index: run.startPage - firstPage, pages: run.pages, pfn: run.pfn }));
  }

  *#unpin(agent: Agent, runs: readonly PinnedRun[]): Task<void> {
    if (runs.length === 0) return;
    const { file, firstPage } = this;
    const back = runs.map(({ index, pages, pfn }) => ({ startPage: firstPage + index, pages, pfn }));
    if (file === null) yield* this.mm.unpinUserPages(agent, back);
    else yield* file.unpinPages?.(agent, back) ?? nothing();
  }
}

/** Pages below the end of what an AddressSpace of the host has (57 bits): a pin beyond is EFAULT. */
const USER_PAGES = 2 ** 45;

function* nothing(): Task<void> {}
