import type { TableLevel } from '../entry.ts';

/** A row of the kernel's dump: what the tables say of one address, from the top down. */
export interface DumpRow {
  /** Line of the text, from 1. */
  readonly line: number;
  /** Number of the dump that the row belongs to, from 1: rows with nothing but headings and empty lines between them were dumped together. */
  readonly dump: number;
  /** The domain's device as the dump names it; empty if it names none. */
  readonly device: string;
  /** First address that the row is about. */
  readonly iova: bigint;
  /** Entries from the top level down to level 1; below a leaf they are 0. */
  readonly entries: readonly { readonly level: TableLevel; readonly value: bigint }[];
}

/** What a text holds of such rows. */
export interface TranslationDump {
  readonly rows: readonly DumpRow[];
  /** Lines that look like rows and are none, with what is wrong. */
  readonly damaged: readonly { readonly line: number; readonly text: string; readonly problem: string }[];
}

const LABELLED = /\bIOVA_PFN=/;
const COLUMNS = /^\s*0x[0-9a-f]+ \|/i;
const HEADING = /^\s*(?:IOVA_PFN\s|$)/;
const DEVICE = /^\s*Device ([\w:.-]+(?: with pasid \w+)?) @/i;
const LEVEL_OF_NAME: Readonly<Record<string, TableLevel>> = { PML5E: 5, PML4E: 4, PDPE: 3, PDE: 2, PTE: 1 };

/**
 * Finds the rows of the Intel driver's `domain_translation_struct` in a text and passes over everything else. Two forms: the file's own,
 * a page number, a bar and five columns from PML5E to PTE, and `IOVA_PFN=0x10 PML4E=… PDPE=… PDE=… PTE=…` within a line. Top levels that
 * are 0 in all five columns do not exist: the table has four or three.
 */
export function parseTranslationDump(text: string): TranslationDump {
  const rows: DumpRow[] = [];
  const damaged: { line: number; text: string; problem: string }[] = [];
  let device = '';
  let dump = 0;
  let apart = true;
  text.split(/\r?\n/).forEach((content, index) => {
    const line = index + 1;
    const named = DEVICE.exec(content)?.[1];
    device = named ?? device;
    const labelled = LABELLED.test(content);
    if (!labelled && !COLUMNS.test(content)) {
      apart ||= named === undefined && !HEADING.test(content);
      return;
    }
    if (apart) dump++;
    apart = false;
    const found = labelled ? labelledRow(content) : columnRow(content);
    if ('problem' in found) damaged.push({ line, text: content.trim(), problem: found.problem });
    else rows.push({ line, dump, device, ...found });
  });
  return { rows, damaged };
}

type RowFound = Pick<DumpRow, 'iova' | 'entries'> | { readonly problem: string };

function labelledRow(content: string): RowFound {
  const fields = new Map(
    [...content.matchAll(/\b(IOVA_PFN|PML5E|PML4E|PDPE|PDE|PTE)=(\S*)/g)].map(([, name = '', value = '']) => [
      name,
      hexadecimal(value),
    ]),
  );
  for (const [name, value] of fields)
    if (value === null) return { problem: `${name} is not a hexadecimal 64-bit number` };
  const entries = Object.entries(LEVEL_OF_NAME).flatMap(([name, level]) => {
    const value = fields.get(name);
    return value === undefined || value === null ? [] : [{ level, value }];
  });
  return rowOf(fields.get('IOVA_PFN') ?? 0n, entries);
}

function columnRow(content: string): RowFound {
  const [page = '', columns = ''] = content.split('|');
  const values = columns.trim().split(/\s+/).map(hexadecimal);
  const pfn = hexadecimal(page.trim());
  if (pfn === null || values.includes(null)) return { problem: 'a column is not a hexadecimal 64-bit number' };
  if (values.length !== 5) return { problem: `expected five columns, PML5E to PTE, not ${values.length}` };
  const entries = values.map((value, index) => ({ level: (5 - index) as TableLevel, value: value ?? 0n }));
  const top = entries.findIndex(({ value }) => value !== 0n);
  return rowOf(pfn, top < 0 ? [] : entries.slice(Math.min(top, 2)));
}

function rowOf(pfn: bigint, entries: DumpRow['entries']): RowFound {
  if (pfn >= 1n << 52n) return { problem: 'the page number has more than 52 bits' };
  const levels = entries.map(({ level }) => level);
  const complete = levels.length >= 3 && levels.every((level, index) => level === levels.length - index);
  if (!complete) return { problem: 'expected the entries of three, four or five levels, down to PTE' };
  return { iova: pfn << 12n, entries };
}

function hexadecimal(text: string): bigint | null {
  return /^(?:0x)?[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text.replace(/^0x/i, '')}`) : null;
}
