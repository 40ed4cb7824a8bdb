import type { PageSize } from '@faultline/address';
import { Agent, runToEnd } from '@faultline/sim';
import {
  DEFAULT_ENTRY_CAPABILITIES,
  InvalidationGather,
  levelFrames,
  PageTableError,
  SecondStageTable,
  TableMemory,
  unmap,
} from '@faultline/vtd-pagetable';
import { type FtraceEvent, readFtraceLine } from '../ftrace-iommu.ts';
import { LineAccount, type LineCounts } from '../line-account.ts';
import { type OpenTrace, openAs } from '../open-trace.ts';
import type { TraceSource } from '../trace-source.ts';
import { type MappedPiece, MappingBook } from './mapping-book.ts';

/** Options of {@link replayFtrace}. */
export interface FtraceReplayOptions {
  /** Called with every event and its line number, in order. */
  readonly onEvent?: (event: FtraceEvent, line: number) => void;
}

/** How often a size occurred. */
export interface SizeCount {
  /** In bytes. */
  readonly bytes: number;
  readonly count: number;
}

/** A stretch of the recording between two marks of its workload. */
export interface FtracePhase {
  /** Text of the mark that begins it; empty before the first. */
  readonly mark: string;
  readonly maps: number;
  readonly unmaps: number;
}

/** Result of replaying ftrace `iommu:map`/`unmap` events. */
export interface FtraceReplayResult {
  readonly schema: 'faultline.replay.ftrace/1';
  readonly file: string;
  readonly lines: LineCounts;
  readonly maps: number;
  readonly unmaps: number;
  readonly ioPageFaults: number;
  /** The kernel's notes of lost events: a recording with any is incomplete. */
  readonly lost: { readonly notes: number; readonly events: number };
  /** Address spaces (domains) that explain the recording: no range is mapped twice in one. */
  readonly spaces: number;
  /** Whether the tables hold at the end exactly what independent book-keeping of the recording holds. */
  readonly matches: boolean;
  /** Pages that do not match, as text; the first ones. */
  readonly firstMismatches: readonly string[];
  readonly mappedPages: number;
  readonly mappedBytes: number;
  /** Leaves of all tables at the end. */
  readonly leaves: Readonly<Record<PageSize, number>>;
  /** Most leaves of each size at once. */
  readonly peakLeaves: Readonly<Record<PageSize, number>>;
  /** Table pages at the end and at most, roots included. */
  readonly tablePages: number;
  readonly tablePagesPeak: number;
  readonly mapSizes: readonly SizeCount[];
  readonly unmapSizes: readonly SizeCount[];
  /** Unmaps of ranges never mapped in the recording: mapped before it began. */
  readonly unmapsOfEarlierMappings: number;
  /** Unmaps of ranges that are known only in part or that were put into several spaces. */
  readonly unmapsPartlyKnown: number;
  /**
   * Unmaps that fit several address spaces, one of which was taken: the events name no domain. The set of mapped IOVAs is
   * right all the same; which frame stays behind is a guess for these.
   */
  readonly unmapsAmbiguous: number;
  /** Unmaps for which the kernel reports another size than the model's table gives. */
  readonly unmappedSizeDiffers: number;
  /** Maps that the model's table refused. */
  readonly mapsRefused: number;
  readonly phases: readonly FtracePhase[];
}

const TABLE_PAGES = 1 << 14;
const KEPT_MISMATCHES = 10;
const SIZES: readonly PageSize[] = ['4K', '2M', '1G'];

class FtraceReplay {
  readonly account: LineAccount;
  readonly #book = new MappingBook();
  readonly #memory = new TableMemory({ pages: TABLE_PAGES });
  readonly #tables: SecondStageTable[] = [];
  readonly #agent = new Agent('replay');
  readonly #mapSizes = new Map<number, number>();
  readonly #unmapSizes = new Map<number, number>();
  readonly #peakLeaves: Record<PageSize, number> = { '4K': 0, '2M': 0, '1G': 0 };
  readonly #phases: { mark: string; maps: number; unmaps: number }[] = [{ mark: '', maps: 0, unmaps: 0 }];
  readonly #counts = {
    maps: 0,
    unmaps: 0,
    ioPageFaults: 0,
    unmapsOfEarlierMappings: 0,
    unmapsPartlyKnown: 0,
    unmapsAmbiguous: 0,
    unmappedSizeDiffers: 0,
    mapsRefused: 0,
  };
  readonly #lost = { notes: 0, events: 0 };

  constructor(file: string) {
    this.account = new LineAccount(file);
  }

  apply(event: FtraceEvent): void {
    const phase = this.#phases.at(-1);
    switch (event.kind) {
      case 'map':
        if (phase) phase.maps++;
        this.#map(pageOf(event.iova), pageOf(event.size), pageOf(event.paddr));
        return;
      case 'unmap':
        if (phase) phase.unmaps++;
        this.#unmap(pageOf(event.iova), pageOf(event.size), pageOf(event.unmappedSize));
        return;
      case 'mark':
        this.#phases.push({ mark: event.text, maps: 0, unmaps: 0 });
        return;
      case 'ioPageFault':
        this.#counts.ioPageFaults++;
        return;
      case 'lost':
        this.#lost.notes++;
        this.#lost.events += event.events ?? 0;
    }
  }

  #map(page: number, pages: number, frame: number): void {
    this.#counts.maps++;
    addSize(this.#mapSizes, pages);
    const space = this.#book.map(page, pages, frame);
    const table = this.#table(space);
    try {
      table.map({ page, frame, pages, rights: { read: true, write: true } });
    } catch (error) {
      if (!(error instanceof PageTableError) || error.code === 'ENOMEM') throw error;
      this.#counts.mapsRefused++;
    }
    for (const size of SIZES)
      this.#peakLeaves[size] = Math.max(
        this.#peakLeaves[size],
        this.#tables.reduce((sum, { leafCounts }) => sum + leafCounts[size], 0),
      );
  }

  #unmap(page: number, pages: number, unmappedPages: number): void {
    this.#counts.unmaps++;
    addSize(this.#unmapSizes, pages);
    if (unmappedPages === 0) return;
    const finding = this.#book.unmap(page, unmappedPages);
    if (finding.kind === 'unknown') {
      this.#counts.unmapsOfEarlierMappings++;
      return;
    }
    if (finding.kind === 'ambiguous') this.#counts.unmapsAmbiguous++;
    if (finding.kind === 'partly') this.#counts.unmapsPartlyKnown++;
    let done = 0;
    for (const piece of finding.pieces) done += this.#clear(piece);
    if (finding.kind !== 'partly' && done !== unmappedPages) this.#counts.unmappedSizeDiffers++;
  }

  #clear({ space, page, pages }: MappedPiece): number {
    const table = this.#table(space);
    const gather = new InvalidationGather();
    const request = { page, pages, partialLeaf: 'linux-7.3', holes: 'skip' } as const;
    const done = runToEnd(unmap(this.#agent, table, request, gather));
    table.freeTables(gather);
    return done;
  }

  #table(space: number): SecondStageTable {
    let table = this.#tables[space];
    if (table === undefined) {
      const capabilities = { ...DEFAULT_ENTRY_CAPABILITIES, hostAddressWidth: 52 };
      table = new SecondStageTable({ memory: this.#memory, levels: 5, capabilities, reservePages: 0 });
      this.#tables[space] = table;
    }
    return table;
  }

  /** Compares each table, walked leaf by leaf, with the book. */
  #mismatches(): string[] {
    const found: string[] = [];
    for (const [space, table] of this.#tables.entries()) {
      const rest = new Map(this.#book.pagesOf(space));
      for (const leaf of table.allLeaves()) {
        for (let offset = 0; offset < levelFrames(leaf.level); offset++) {
          const page = leaf.page + offset;
          const expected = rest.get(page);
          if (expected !== leaf.frame + offset)
            found.push(
              `space ${space} page 0x${page.toString(16)}: table has a leaf, the recording ${expected ?? 'none'}`,
            );
          rest.delete(page);
        }
      }
      for (const page of rest.keys())
        found.push(`space ${space} page 0x${page.toString(16)}: mapped in the recording, not in the table`);
    }
    const inTables = this.#tables.reduce((sum, table) => sum + table.mappedPages, 0);
    if (inTables !== this.#book.mappedPages)
      found.push(`${inTables} pages in the tables, ${this.#book.mappedPages} in the recording`);
    return found;
  }

  result(): FtraceReplayResult {
    const mismatches = this.#mismatches();
    const leaves: Record<PageSize, number> = { '4K': 0, '2M': 0, '1G': 0 };
    for (const size of SIZES) for (const { leafCounts } of this.#tables) leaves[size] += leafCounts[size];
    const mappedPages = this.#tables.reduce((sum, table) => sum + table.mappedPages, 0);
    return {
      schema: 'faultline.replay.ftrace/1',
      file: this.account.file,
      lines: this.account.snapshot(),
      ...this.#counts,
      lost: { ...this.#lost },
      spaces: this.#book.spaces,
      matches: mismatches.length === 0,
      firstMismatches: mismatches.slice(0, KEPT_MISMATCHES),
      mappedPages,
      mappedBytes: mappedPages * 4096,
      leaves,
      peakLeaves: { ...this.#peakLeaves },
      tablePages: this.#tables.reduce((sum, table) => sum + table.tablePages, 0),
      tablePagesPeak: this.#memory.peak,
      mapSizes: sizeCounts(this.#mapSizes),
      unmapSizes: sizeCounts(this.#unmapSizes),
      phases: this.#phases.filter(({ mark, maps, unmaps }) => mark !== '' || maps + unmaps > 0),
    };
  }
}

const pageOf = (address: bigint): number => Number(address >> 12n);

function addSize(sizes: Map<number, number>, pages: number): void {
  sizes.set(pages, (sizes.get(pages) ?? 0) + 1);
}

const sizeCounts = (sizes: ReadonlyMap<number, number>): SizeCount[] =>
  [...sizes].sort(([a], [b]) => a - b).map(([pages, count]) => ({ bytes: pages * 4096, count }));

/**
 * Drives page tables with the `iommu:map` and `iommu:unmap` events of ftrace text and compares what they hold at the end
 * with independent book-keeping.
 * @throws TraceFormatError if the input is empty, damaged gzip, or of another format
 */
export async function replayFtrace(
  trace: TraceSource | OpenTrace,
  options: FtraceReplayOptions = {},
): Promise<FtraceReplayResult> {
  const open = await openAs(trace, 'ftrace');
  const replay = new FtraceReplay(open.name);
  for await (const batch of open.batches) {
    for (const line of batch) {
      const event = readFtraceLine(line, replay.account);
      if (event === null) continue;
      options.onEvent?.(event, replay.account.line);
      replay.apply(event);
    }
  }
  return replay.result();
}
