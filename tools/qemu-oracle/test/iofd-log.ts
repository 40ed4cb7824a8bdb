/** A map or unmap event under a call: addresses in bytes. */
export interface IofdEvent {
  readonly kind: 'map' | 'unmap';
  readonly iova: number;
  readonly bytes: number;
  /** 0 for an unmap. */
  readonly paddr: number;
}

/** A row of the kernel's dump: the entries on the way to a page, 0 below a leaf. */
export interface IofdRow {
  readonly page: number;
  /** PML4E, PDPE, PDE, PTE. */
  readonly entries: readonly bigint[];
}

/** A count of leaves in a range, both ends included. */
export interface IofdLeaves {
  readonly first: number;
  readonly last: number;
  readonly counts: { readonly '4K': number; readonly '2M': number; readonly '1G': number };
}

/** One call of the log and what stands under it. */
export interface IofdCall {
  readonly line: number;
  readonly text: string;
  readonly events: readonly IofdEvent[];
  /** More events happened than were written down. */
  readonly truncated: boolean;
  readonly rows: readonly IofdRow[];
  readonly leaves: readonly IofdLeaves[];
}

const EVENT = /^ +ftrace (map|unmap): IOMMU: iova=(0x[0-9a-f]+) - (0x[0-9a-f]+)(?: paddr=(0x[0-9a-f]+))? size=\d+/;
const ROW = /^ +pt IOVA_PFN=(0x[0-9a-f]+) PML4E=([0-9a-f]+) PDPE=([0-9a-f]+) PDE=([0-9a-f]+) PTE=([0-9a-f]+)$/;
const LEAVES = /^ +pt leaves in \[([0-9a-f]+),([0-9a-f]+)\]: 4K=(\d+) 2M=(\d+) 1G=(\d+)$/;
const TRUNCATED = /^ +ftrace \.\.\. total/;

const hex = (text: string | undefined): number => Number.parseInt((text ?? '0').replace(/^0x/, ''), 16);

function event(match: RegExpExecArray): IofdEvent {
  const iova = hex(match[2]);
  return { kind: match[1] === 'map' ? 'map' : 'unmap', iova, bytes: hex(match[3]) - iova, paddr: hex(match[4]) };
}

/** Reads a log: lines that are not indented are calls. */
export function readIofdLog(text: string): IofdCall[] {
  const calls: (IofdCall & { events: IofdEvent[]; rows: IofdRow[]; leaves: IofdLeaves[]; truncated: boolean })[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (/^\S/.test(line)) {
      calls.push({ line: index + 1, text: line, events: [], truncated: false, rows: [], leaves: [] });
      continue;
    }
    const call = calls.at(-1);
    if (call === undefined) continue;
    const [seen, row, leaves] = [EVENT.exec(line), ROW.exec(line), LEAVES.exec(line)];
    if (seen) call.events.push(event(seen));
    if (row) call.rows.push({ page: hex(row[1]), entries: [2, 3, 4, 5].map((field) => BigInt(`0x${row[field]}`)) });
    if (leaves)
      call.leaves.push({
        first: hex(leaves[1]),
        last: hex(leaves[2]),
        counts: { '4K': Number(leaves[3]), '2M': Number(leaves[4]), '1G': Number(leaves[5]) },
      });
    if (TRUNCATED.test(line)) call.truncated = true;
  }
  return calls;
}

/** A number of a call's text, such as `iova` or `fl`, in hexadecimal; 0 if it has none. */
export const callNumber = (call: IofdCall, name: string): number =>
  hex(new RegExp(` ${name}=([0-9a-f]+)`).exec(call.text)?.[1]);
