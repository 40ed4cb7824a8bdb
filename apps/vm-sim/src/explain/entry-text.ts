import type { EntryAccount, FaultAccount, FieldAccount, StructureCapabilities } from '@faultline/vtd-pagetable';
import { levelOfKind } from '@faultline/vtd-pagetable';
import { wrapped } from '../columns.ts';
import type { Palette } from '../terminal.ts';
import { unitText } from './explain-unit.ts';

/** The widest that text is made, however wide the terminal. */
const MAX_WIDTH = 120;

/** A number in hex. */
export const hex = (value: bigint): string => `0x${value.toString(16)}`;

/** What `vm-sim explain KIND VALUE...` prints. */
export function entryText(account: EntryAccount, unit: StructureCapabilities, color: Palette, columns: number): string {
  const width = Math.min(columns, MAX_WIDTH);
  const words = account.words.map(hex).join(' ');
  const lines = [
    ...wrapped(`${account.name} ${words}`, width).map((line) => color.bold(line)),
    ...wrapped(account.summary, width).map((line) => shapeColor(account, color)(line)),
    '',
    ...fieldLines(account, color, width),
    '',
    ...verdictLines(account, unit, color, width),
  ];
  return `${lines.join('\n')}\n`;
}

/** Green for what works, red for what cannot, yellow for what is not there. */
export function shapeColor(
  account: Pick<EntryAccount, 'present' | 'reservedBits' | 'faults'>,
  color: Palette,
): (text: string) => string {
  if (account.faults.some(({ request }) => request === 'any request') && account.present) return color.red;
  if (account.reservedBits.length > 0) return color.red;
  return account.present ? color.green : color.yellow;
}

function fieldLines(account: EntryAccount, color: Palette, width: number): string[] {
  const rows = account.fields.map((field) => ({ field, bits: bitsText(field), value: valueText(field) }));
  const widest = (of: (row: (typeof rows)[number]) => string): number => Math.max(...rows.map((row) => of(row).length));
  const bitsWidth = widest(({ bits }) => bits);
  const nameWidth = widest(({ field }) => field.name);
  const valueWidth = widest(({ value }) => value);
  const indent = 2 + bitsWidth + 2 + nameWidth + 2 + valueWidth + 2;
  const groups = account.words.map((word, index) => {
    const heading = account.words.length > 1 ? [color.bold(`quadword ${index}  ${hex(word)}`)] : [];
    const lines = rows
      .filter(({ field }) => field.low >> 6 === index)
      .flatMap(({ field, bits, value }) => {
        const [first = '', ...rest] = wrapped(describe(field), Math.max(20, width - indent));
        const paint = fieldColor(field, account, color);
        const head = `  ${bits.padStart(bitsWidth)}  ${field.name.padEnd(nameWidth)}  ${value.padStart(valueWidth)}`;
        return [`${head}  ${first}`.trimEnd(), ...rest.map((text) => `${' '.repeat(indent)}${text}`)].map((line) =>
          paint(line),
        );
      });
    return [...heading, ...lines];
  });
  return groups.flatMap((lines, index) => (index === 0 ? lines : ['', ...lines]));
}

const bitsText = ({ high, low }: FieldAccount): string => (high === low ? `${high}` : `${high}:${low}`);

const valueText = ({ high, low, value }: FieldAccount): string => (high === low ? `${value}` : hex(value));

/** Title and meaning; what a reserved field with a name depends on. */
function describe(field: FieldAccount): string {
  const { title, meaning, condition, use, name, value } = field;
  if (use !== 'field' && value === 0n)
    return use === 'reserved' && name !== 'reserved' ? `${title}; ${condition}` : title;
  if (use === 'reserved') return name === 'reserved' ? title : `${title}: must be 0; ${condition}`;
  return meaning === '' ? title : `${title}: ${meaning}`;
}

function fieldColor(field: FieldAccount, account: EntryAccount, color: Palette): (text: string) => string {
  if (field.use === 'field') return (text) => text;
  const minded = account.reservedBits.some((bit) => bit >= field.low && bit <= field.high);
  return minded ? color.red : color.dim;
}

function verdictLines(account: EntryAccount, unit: StructureCapabilities, color: Palette, width: number): string[] {
  const { shape, present, reservedBits, faults, notes } = account;
  const paging = levelOfKind(account.kind) !== undefined;
  const kind = shape === 'leaf' || shape === 'table' ? `yes, a ${paging ? shape : 'pointer'}` : present ? 'yes' : 'no';
  const rows: (readonly [string, string, (text: string) => string])[] = [
    ['present', kind, present ? (text) => text : color.yellow],
    ['reserved', reservedText(account), reservedBits.length > 0 ? color.red : (text) => text],
    ...faultRows(faults, paging, color),
    ...notes.map((note) => ['note', note, color.yellow] as const),
    ['unit', `${unitText(unit, !paging)}; layout of ${account.source}`, color.dim],
  ];
  return rows.flatMap(([name, text, paint]) =>
    wrapped(text, width - 12).map((line, index) => `${(index === 0 ? name : '').padEnd(10)}  ${paint(line)}`),
  );
}

function reservedText({ reservedBits, present, fields }: EntryAccount): string {
  if (reservedBits.length > 0)
    return `bit${reservedBits.length > 1 ? 's' : ''} ${reservedBits.join(', ')} set, must be 0`;
  const ignored = !present && fields.some(({ use, value }) => use === 'reserved' && value !== 0n);
  return ignored ? 'bits are set, but hardware does not look' : 'no bit is set';
}

function faultRows(
  faults: readonly FaultAccount[],
  paging: boolean,
  color: Palette,
): (readonly [string, string, (text: string) => string])[] {
  if (faults.length === 0) return [['faults', paging ? 'none: reads and writes pass here' : 'none', (text) => text]];
  return faults.map((fault, index) => {
    const mode = paging ? `, ${fault.mode} mode` : '';
    const corrupt = fault.request === 'any request' || /reserved/.test(fault.text);
    return [
      index === 0 ? 'faults' : '',
      `${fault.request}${mode}: ${fault.text}, ${fault.condition}${fault.qualified ? '' : ', recorded even with FPD'}`,
      corrupt ? color.red : (text: string) => text,
    ] as const;
  });
}
