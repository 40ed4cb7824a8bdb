import { hex } from '@faultline/address';
import type { Agent, Task } from '@faultline/sim';
import { checkInteger, checkPageRange } from '../argument.ts';
import { pinFilePages, unpinFilePages } from '../fault/pin-file.ts';
import { framesOf } from '../folio/folio-order.ts';
import type { FileMapping } from '../folio/mapping.ts';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import type { PageRun } from '../mm/contiguous-run.ts';
import type { MmState } from '../mm/mm-state.ts';
import { BACKING_SHAPES, BACKINGS, type Backing, Vma } from '../mm/vma.ts';
import { punchHole, truncateFile } from './punch-hole.ts';

/** Shared memory that several address spaces may map. Made by `HostMemory.createMemfd`. */
export class Memfd {
  /** @internal */
  readonly file: FileMapping;

  readonly #host: HostState;

  /** @internal */
  constructor(host: HostState, file: FileMapping) {
    this.#host = host;
    this.file = file;
  }

  get name(): string {
    return this.file.name;
  }

  /** Size in pages. */
  get pages(): number {
    return this.file.pages;
  }

  /** Bytes in the page cache, and bytes in swap. */
  get residentBytes(): number {
    return this.file.cached * 4096;
  }

  get swappedBytes(): number {
    return this.file.swapped * 4096;
  }

  /**
   * FALLOC_FL_PUNCH_HOLE: drops pages from offset `startIndex` on, which read as zeros afterwards; private copies stay. Fires CLEAR over each
   * mapping's part.
   */
  punchHole(agent: Agent, startIndex: number, pages: number): Task<void> {
    checkPageRange({ startPage: startIndex, pages });
    return punchHole(this.#host, agent, this.file, { startIndex, pages });
  }

  /**
   * Long-term pins pages from offset `startIndex` on, mapped anywhere or not (memfd_pin_folios).
   * @returns the frames, one run a page, `startPage` being the offset @throws HostMemoryError EINVAL (beyond the end), ENOMEM, EFAULT, EHWPOISON, with nothing pinned
   */
  pinPages(agent: Agent, startIndex: number, pages: number): Task<PageRun[]> {
    checkPageRange({ startPage: startIndex, pages });
    return pinFilePages(this.#host, agent, this.file, { startIndex, pages });
  }

  /** Gives pins of {@link pinPages} back, all or in part. */
  unpinPages(agent: Agent, runs: readonly PageRun[]): Task<void> {
    return unpinFilePages(this.#host, agent, runs);
  }

  /** ftruncate: changes its size; what is cut off goes as in {@link punchHole}, private copies too, and is SIGBUS from then on. */
  truncate(agent: Agent, pages: number): Task<void> {
    checkInteger('pages', pages, 0, 2 ** 45);
    return truncateFile(this.#host, agent, this.file, pages);
  }
}

/** What is to be mapped where. */
export interface MmapRequest {
  readonly startPage: number;
  readonly pages: number;
  /** Of anonymous memory; a memfd has 4K folios. */
  readonly backing: Backing;
  /** Read-only memory if true. */
  readonly readOnly?: boolean;
  /** Maps a memfd instead of anonymous memory, MAP_SHARED or, if `private`, with copies of what is written. */
  readonly file?: { readonly memfd: Memfd; readonly offset: number; readonly private?: boolean };
}

/** mmap: a new mapping. @throws RangeError naming the argument; HostMemoryError ENOMEM without enough huge pages in the pool */
export function mapMemory(host: HostState, mm: MmState, request: MmapRequest): void {
  if (mm.exited) throw new RangeError(`${mm.name}: the address space has exited`);
  const { startPage, pages, backing, readOnly = false, file } = request;
  checkPageRange({ startPage, pages });
  const shape = BACKING_SHAPES[backing];
  if (shape === undefined) throw new RangeError(`backing: ${backing} is not one of ${BACKINGS.join(', ')}`);
  const unit = framesOf(shape.alignment);
  if (startPage % unit !== 0)
    throw new RangeError(`startPage: ${hex(startPage)} is not aligned to ${backing} (${hex(unit)} pages)`);
  if (pages % unit !== 0)
    throw new RangeError(`pages: ${hex(pages)} is not a multiple of ${backing} (${hex(unit)} pages)`);
  if (file && backing !== '4K') throw new RangeError(`backing: a memfd has 4K folios, not ${backing}`);
  const vma = new Vma(mm, {
    startPage,
    endPage: startPage + pages,
    backing,
    readable: true,
    writeable: !readOnly,
    shared: file !== undefined && !file.private,
    pgoff: file ? file.offset : startPage,
    file: file?.memfd.file ?? null,
    anonVma: null,
  });
  mm.vmas.add(vma);
  vma.file?.vmas.add(vma);
  if (!shape.hugetlb || host.hugePages.reserve(shape.order, pages / unit)) return;
  mm.vmas.remove(vma);
  const free = host.hugePages.counts(shape.order);
  throw new HostMemoryError(
    'ENOMEM',
    startPage,
    `mmap: ${pages / unit} huge pages wanted for ${backing}, ${free.free - free.reserved} of ${free.total} are neither in use nor reserved`,
  );
}
