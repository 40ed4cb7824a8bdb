import { formatSize } from '@faultline/address';
import type { EntryRun, TableAccount } from '@faultline/vtd-pagetable';
import { counted, plural, wrapped } from '../columns.ts';
import type { Palette } from '../terminal.ts';
import { hex, shapeColor } from './entry-text.ts';

const MAX_WIDTH = 120;

/** What `vm-sim explain --table KIND FILE` prints. */
export function tableText(name: string, table: TableAccount, color: Palette, columns: number): string {
  const width = Math.min(columns, MAX_WIDTH);
  const rows = table.runs.map((run) => ({ run, index: indexText(run), offset: offsetText(run, table) }));
  const indexWidth = Math.max(...rows.map(({ index }) => index.length));
  const offsetWidth = Math.max(...rows.map(({ offset }) => offset.length));
  const lines = wrapped(headline(name, table), width).map((line) => color.bold(line));
  lines.push('');
  for (const { run, index, offset } of rows) {
    const head = `${index.padStart(indexWidth)}  ${offset === '' ? '' : `${offset.padEnd(offsetWidth)}  `}`;
    const paint = run.entry.present ? shapeColor(run.entry, color) : color.dim;
    wrapped(runText(run), width - head.length).forEach((text, line) => {
      lines.push(`${line === 0 ? head : ' '.repeat(head.length)}${paint(text)}`);
    });
  }
  return `${lines.join('\n')}\n`;
}

function headline(name: string, table: TableAccount): string {
  const { leaves, tables, structures, absent, reserved, bytesPerEntry, entries } = table;
  const each = bytesPerEntry > 0n ? ` of ${formatSize(bytesPerEntry)}` : '';
  const parts = [
    leaves > 0 ? plural(leaves, 'leaf').replace('leafs', 'leaves') : '',
    tables > 0 ? plural(tables, 'pointer') : '',
    structures > 0 ? `${counted(structures)} present` : '',
    `${counted(absent)} absent`,
    reserved.length > 0 ? `${counted(reserved.length)} with reserved bits` : '',
  ].filter((part) => part !== '');
  return `${name}: ${counted(entries)} entries${each} (${table.runs[0]?.entry.name ?? ''}): ${parts.join(', ')}`;
}

const indexText = ({ first, last }: EntryRun): string => (first === last ? `${first}` : `${first}-${last}`);

const offsetText = ({ first }: EntryRun, { bytesPerEntry }: TableAccount): string =>
  bytesPerEntry === 0n ? '' : `+${hex(bytesPerEntry * BigInt(first))}`;

/** Reserved bits, or what else stops every request; empty for a sound entry. */
function wrongText({ reservedBits, faults, present }: EntryRun['entry']): string {
  if (!present) return '';
  const stops = faults.filter(({ request, text }) => request === 'any request' || /reserved/.test(text));
  const reasons = [...new Set(stops.map(({ reason, mode }) => `0x${reason.toString(16)} ${mode}`))].join(', ');
  if (reservedBits.length > 0)
    return `; reserved ${reservedBits.length > 1 ? 'bits' : 'bit'} ${reservedBits.join(', ')} set: fault ${reasons}`;
  return reasons === '' ? '' : `; fault ${reasons}`;
}

function runText({ first, last, entry, consecutive }: EntryRun): string {
  const count = last - first + 1;
  const wrong = wrongText(entry);
  if (count === 1) return `${entry.summary}${wrong}`;
  if (entry.shape === 'leaf' && entry.address !== null) {
    const end = entry.address + entry.bytes * BigInt(count) - 1n;
    const rights = entry.summary.slice(entry.summary.lastIndexOf(', '));
    return `${count} ${formatSize(entry.bytes)} leaves in a row, host ${hex(entry.address)}-${hex(end)}${rights}${wrong}`;
  }
  const alike = consecutive ? 'the next ones follow in memory' : 'the others alike, elsewhere';
  if (entry.shape === 'table') return `${count}: ${entry.summary}; ${alike}${wrong}`;
  return entry.shape === 'absent' ? entry.summary : `${count} equal: ${entry.summary}${wrong}`;
}
