import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import {
  entryFrame,
  InvalidationGather,
  isLeaf,
  isPresent,
  type Rights,
  SecondStageTable,
  TableMemory,
  tableIndex,
} from '@faultline/vtd-pagetable';
import { expect, type TestContext, test } from 'vitest';
import { callNumber, type IofdCall, type IofdLeaves, readIofdLog } from './iofd-log.ts';

const PAGE = 4096;
const BOTH: Rights = { read: true, write: true };
/** Linux's software bit 10 of table entries, and where the tables are, are no business of ours. */
const POINTER_BITS = 0xbffn;

/** Our table, given the same maps and unmaps as the kernel's. */
class Replica {
  #table = this.#empty();
  /** Rights by first address, as the map calls gave them. */
  readonly #rights = new Map<number, Rights>();
  rows = 0;
  counts = 0;
  /** Rows of a mapping whose event was not written down. */
  unknown = 0;
  readonly #writeImpliesRead: boolean;

  /** @param writeImpliesRead Linux 6.12 gives a map that is writeable only R as well */
  constructor(writeImpliesRead: boolean) {
    this.#writeImpliesRead = writeImpliesRead;
  }

  #empty(): SecondStageTable {
    const memory = new TableMemory({ pages: 4096 });
    return new SecondStageTable({ memory, levels: 4 });
  }

  call(call: IofdCall): void {
    // The domain of an attachment is new, and its maps are under the call; those of the old domain go.
    if (call.text.startsWith('VFIO ATTACH') && call.events.some(({ kind }) => kind === 'map'))
      this.#table = this.#empty();
    if (call.text.startsWith('MAP')) this.#rights.set(callNumber(call, 'iova_out'), this.#rightsOf(call));
    for (const event of call.events) {
      const [page, pages] = [event.iova / PAGE, event.bytes / PAGE];
      if (event.kind === 'unmap') this.#unmap(page, pages);
      else if (this.#table.frameAt(page) < 0)
        this.#table.map({ page, pages, frame: event.paddr / PAGE, rights: this.#rightsAt(event.iova, call) });
    }
    for (const row of call.rows) {
      if (call.truncated && this.#table.frameAt(row.page) < 0) {
        this.unknown++;
        continue;
      }
      expect(this.#path(row.page, row.entries), `line ${call.line}, page 0x${row.page.toString(16)}`).toEqual(
        row.entries.map((entry, index) => (this.#isPointer(row.entries, index) ? entry & POINTER_BITS : entry)),
      );
      this.rows++;
    }
    if (call.truncated) return;
    for (const leaves of call.leaves) {
      expect(this.#leaves(leaves), `line ${call.line}: ${call.text}`).toEqual(leaves.counts);
      this.counts++;
    }
  }

  /** Of a map call's flags: WRITEABLE is 2 there, READABLE 4. */
  #rightsOf(call: IofdCall): Rights {
    const flags = callNumber(call, 'fl');
    const write = (flags & 2) !== 0;
    return { read: (flags & 4) !== 0 || (write && this.#writeImpliesRead), write };
  }

  #unmap(page: number, pages: number): void {
    const gather = new InvalidationGather();
    this.#table.unmap(page, pages, gather);
    this.#table.freeTables(gather);
  }

  /** An attachment maps what was mapped before it. */
  #rightsAt(iova: number, call: IofdCall): Rights {
    return call.text.startsWith('MAP') ? this.#rightsOf(call) : (this.#rights.get(iova) ?? BOTH);
  }

  #isPointer(entries: readonly bigint[], index: number): boolean {
    const level = 4 - index;
    const entry = entries[index] ?? 0n;
    return isPresent(entry) && !isLeaf(entry, level);
  }

  /** The entries on the way to a page, as the dump shows them: pointers without their address. */
  #path(page: number, shown: readonly bigint[]): bigint[] {
    let table = this.#table.rootPfn;
    const path = shown.map(() => 0n);
    for (let level = 4; level >= 1; level--) {
      const entry = this.#table.memory.load(table, tableIndex(page, level));
      const isEnd = !isPresent(entry) || isLeaf(entry, level);
      path[4 - level] = isEnd ? entry : entry & POINTER_BITS;
      if (isEnd) break;
      table = entryFrame(entry);
    }
    return path;
  }

  #leaves({ first, last }: IofdLeaves) {
    const counts = { '4K': 0, '2M': 0, '1G': 0 };
    for (const leaf of this.#table.allLeaves()) {
      if (leaf.page * PAGE < first || leaf.page * PAGE > last) continue;
      counts[leaf.level === 1 ? '4K' : leaf.level === 2 ? '2M' : '1G']++;
    }
    return counts;
  }
}

function replay(text: string, writeImpliesRead = false): Replica {
  const replica = new Replica(writeImpliesRead);
  for (const call of readIofdLog(text)) replica.call(call);
  return replica;
}

/** The whole logs lie in a directory beside the checkout. */
function whole(context: TestContext, name: string): string {
  const path = join(resolve(import.meta.dirname, '../../../../shared/traces'), name);
  if (!existsSync(path)) context.skip(`not tested: ../shared/traces/${name} is not there`);
  return readFileSync(path, 'utf8');
}

test('our mapper makes the entries and leaf sizes of Linux 7.3.4, given its maps: the beginning', () => {
  const replica = replay(readFileSync(join(import.meta.dirname, 'fixtures', 'iofd-7.3.4-head.log'), 'utf8'));
  expect([replica.rows, replica.counts, replica.unknown]).toEqual([23, 15, 0]);
});

// Calls whose events were cut off in the log have rows that are compared and counts that are not: 4 or 5 of the 25.
test('the same for the whole log of Linux 7.3.4', (context) => {
  const replica = replay(whole(context, 'iofd-7.3.4.log'));
  expect([replica.rows, replica.counts, replica.unknown]).toEqual([32, 20, 1]);
});

test('the same for the whole log of Linux 6.12.95', (context) => {
  const replica = replay(whole(context, 'iofd-6.12.95.log'), true);
  expect([replica.rows, replica.counts, replica.unknown]).toEqual([33, 21, 0]);
});
