import {
  ENTRY_KINDS,
  type EntryKind,
  explainDump,
  explainEntry,
  explainTable,
  parseTranslationDump,
  type StructureCapabilities,
  wordsOfKind,
} from '@faultline/vtd-pagetable';
import { EXIT, type ExitCode, UsageError } from '../exit-code.ts';
import { nearest, suggestion } from '../nearest.ts';
import { openTraceFile } from '../replay/trace-file.ts';
import { paletteFor, type Terminal } from '../terminal.ts';
import { dumpText } from './dump-text.ts';
import { entryText } from './entry-text.ts';
import { type UnitOptions, unitOf } from './explain-unit.ts';
import { tableText } from './table-text.ts';
import { tableWords } from './table-words.ts';

/** Options of `vm-sim explain`. */
export interface ExplainOptions extends UnitOptions {
  readonly json?: boolean;
  /** Kind of the entries of a whole table page. */
  readonly table?: string;
}

/** Other names of kinds: the kernel's, and the specification's of other revisions. */
const ALIASES: Readonly<Record<string, EntryKind>> = {
  pdpe: 'pdpte',
  'scalable-root': 'root-scalable',
  'scalable-context': 'context-scalable',
  'pasid-directory': 'pasid-dir',
  'pasid-table': 'pasid',
};
const KIND_NAMES: readonly string[] = [...ENTRY_KINDS, ...Object.keys(ALIASES)];

/** The kind that a word names, in any case and with or without `SS-`. */
function kindOf(word: string): EntryKind | undefined {
  const plain = word.toLowerCase().replace(/^s[sl]-/, '');
  return ENTRY_KINDS.find((kind) => kind === plain) ?? ALIASES[plain];
}

/** Explains an entry, a table page, or the rows of a dump. */
export async function explainCommand(
  what: string,
  values: readonly string[],
  options: ExplainOptions,
  terminal: Terminal,
): Promise<ExitCode> {
  const unit = unitOf(options);
  if (options.table !== undefined) await explainTableFile(options.table, [what, ...values], options, unit, terminal);
  else {
    const kind = kindOf(what);
    if (kind !== undefined) explainValue(kind, values, options, unit, terminal);
    else if (values.length > 0 || isValue(what)) throw new UsageError(noKind(what));
    else await explainFile(what, options, unit, terminal);
  }
  return EXIT.ok;
}

const isValue = (word: string): boolean => /^0x/i.test(word);

function noKind(word: string): string {
  if (isValue(word))
    return `${word}: a value needs its kind before it, as in: explain pde ${word}; there is ${ENTRY_KINDS.join(', ')}`;
  return `"${word}" is no kind of entry${suggestion(word, KIND_NAMES, 30)}`;
}

function explainValue(
  kind: EntryKind,
  values: readonly string[],
  options: ExplainOptions,
  unit: StructureCapabilities,
  terminal: Terminal,
): void {
  const count = wordsOfKind(kind);
  if (values.length !== count)
    throw new UsageError(
      `${kind}: expected ${count === 1 ? 'one value' : `${count} values, low quadword first`}, not ${values.length}, as in: explain ${kind}${' 0x1'.repeat(Math.min(count, 2))}${count > 2 ? ' ...' : ''}`,
    );
  const words = values.map((text, index) => wordOf(text, count === 1 ? 'value' : `value ${index + 1}`));
  const account = explainEntry(kind, words, unit);
  print(account, options, terminal, () =>
    entryText(account, unit, paletteFor(terminal.stdout, terminal.env), terminal.stdout.columns),
  );
}

function wordOf(text: string, name: string): bigint {
  if (!/^(?:0x[0-9a-f]+|0)$/i.test(text))
    throw new UsageError(`${name}: "${text}" is not hexadecimal; expected 0x..., such as 0x142a00083`);
  const word = BigInt(text);
  if (word >= 1n << 64n) throw new UsageError(`${name}: ${text} has more than 64 bits`);
  return word;
}

async function explainFile(
  given: string,
  options: ExplainOptions,
  unit: StructureCapabilities,
  terminal: Terminal,
): Promise<void> {
  const near = nearest(given, KIND_NAMES);
  const bytes = await contentOf(given, terminal, near === undefined ? '' : `; did you mean the kind "${near}"?`);
  const dump = parseTranslationDump(new TextDecoder().decode(bytes));
  const name = given === '-' ? '<stdin>' : given;
  if (dump.rows.length === 0) {
    const [first] = dump.damaged;
    if (first !== undefined) throw new UsageError(`${name}:${first.line}:1: not a row of the dump: ${first.problem}`);
    throw new UsageError(
      `${name}: no row of a domain_translation_struct dump, such as IOVA_PFN=0x10200 PML4E=141688003 PDPE=141689003 PDE=141a00083 PTE=0`,
    );
  }
  const walks = explainDump(dump.rows, unit);
  print({ file: name, rows: walks, damaged: dump.damaged }, options, terminal, () =>
    dumpText(name, dump, walks, paletteFor(terminal.stdout, terminal.env), terminal.stdout.columns),
  );
}

async function explainTableFile(
  kindName: string,
  files: readonly string[],
  options: ExplainOptions,
  unit: StructureCapabilities,
  terminal: Terminal,
): Promise<void> {
  const kind = kindOf(kindName);
  if (kind === undefined) throw new UsageError(`--table: ${noKind(kindName)}`);
  const [given = '-'] = files;
  if (files.length !== 1) throw new UsageError(`--table ${kindName}: expected one file, not ${files.length}`);
  const name = given === '-' ? '<stdin>' : given;
  const table = explainTable(kind, tableWords(name, await contentOf(given, terminal, '')), unit);
  print({ file: name, ...table }, options, terminal, () =>
    tableText(name, table, paletteFor(terminal.stdout, terminal.env), terminal.stdout.columns),
  );
}

/** A whole file or standard input. @throws UsageError, with the hint, if there is none */
async function contentOf(given: string, terminal: Terminal, hint: string): Promise<Uint8Array> {
  try {
    const chunks: Uint8Array[] = [];
    for await (const chunk of openTraceFile(given, terminal, () => undefined).source.chunks)
      chunks.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
    return Buffer.concat(chunks);
  } catch (error) {
    if (error instanceof UsageError && hint !== '') throw new UsageError(`${error.message}${hint}`);
    throw error;
  }
}

/** The document, with addresses and values in hex, or the text. */
function print(document: object, options: ExplainOptions, terminal: Terminal, text: () => string): void {
  const json = () =>
    `${JSON.stringify(document, (_, value) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value), 2)}\n`;
  terminal.stdout.write(options.json ? json() : text());
}
