import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import {
  DEFAULT_STRUCTURE_CAPABILITIES,
  ENTRY_KINDS,
  explainEntry,
  explainTable,
  wordsOfKind,
} from '@faultline/vtd-pagetable';
import pc from 'picocolors';
import { describe, expect, it } from 'vitest';
import { entryText } from '../src/explain/entry-text.ts';
import { CAPABILITY_NAMES, unitOf } from '../src/explain/explain-unit.ts';
import { tableText } from '../src/explain/table-text.ts';
import { invoke } from './support/invocation.ts';
import { temporaryDirectory } from './support/temporary-directory.ts';

const explain = (...args: string[]) => invoke(['explain', ...args]);
const unit = DEFAULT_STRUCTURE_CAPABILITIES;
const plain = pc.createColors(false);

/** Writes files into a directory of the test's own. */
function directory(files: Readonly<Record<string, string | Uint8Array>>): string {
  const cwd = temporaryDirectory();
  for (const [name, content] of Object.entries(files)) writeFileSync(join(cwd, name), content);
  return cwd;
}

const ROWS = `
MAP 2M                                   -> 0
      pt IOVA_PFN=0x10000 PML4E=141688003 PDPE=141689003 PDE=14168a003 PTE=141800003
      pt IOVA_PFN=0x10200 PML4E=141688003 PDPE=141689003 PDE=141a00083 PTE=0
`;

describe('explain an entry', () => {
  it('field by field', async () => {
    const { code, out, err } = await explain('pde', '0x142a00083');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const lines = out.split('\n');
    expect(lines.slice(0, 2)).toEqual(['SS-PDE 0x142a00083', '2M leaf, host 0x142a00000-0x142bfffff, read/write']);
    expect(lines).toContain('  45:21  ADDR      0xa15  page frame: 2M page at 0x142a00000');
    expect(lines).toContain('      7  PS            1  page size: 2M leaf');
    expect(lines).toContain('reserved    no bit is set');
    expect(lines).toContain('faults      none: reads and writes pass here');
  });

  it('names reserved bits and the faults of both modes', async () => {
    const { out } = await explain('pde', '0x4000000142a01083');
    expect(out).toContain('reserved    bits 62, 12 set, must be 0\n');
    expect(out).toContain('read, legacy mode: reserved bit in paging entry (0xc), LSS.2\n');
    expect(out).toContain('write, scalable mode: reserved bit in second-stage entry (0x7a), SSS.3\n');
  });

  it('takes kinds by other names, in any case, and structures of several quadwords', async () => {
    const expected = (await explain('pdpte', '0x83')).out;
    for (const name of ['pdpe', 'PDPTE', 'SS-PDPTE', 'SS-PDPE'])
      expect((await explain(name, '0x83')).out).toBe(expected);
    const { out } = await explain('context', '0x141600005', '0x502');
    expect(out).toContain('second stage of 4 levels at 0x141600000, domain 5, ATS allowed\n');
    expect(out).toMatch(/^quadword 1 {2}0x502\n/m);
    expect((await explain('scalable-context', '0x1001', '0', '0', '0x0')).code).toBe(0);
  });

  it('for the unit that the options describe', async () => {
    const reserved = async (...args: string[]) => JSON.parse((await explain(...args, '--json')).out).reservedBits;
    expect(await reserved('pte', '0x801')).toEqual([11]);
    expect(await reserved('pte', '0x801', '--snoop-control')).toEqual([]);
    expect(await reserved('pte', '0x801', '--with', 'sc')).toEqual([]);
    expect(await reserved('pdpte', '0x83')).toEqual([]);
    expect(await reserved('pdpte', '0x83', '--no-1g')).toEqual([7]);
    expect(await reserved('pde', '0x83', '--no-2m')).toEqual([7]);
    expect(await reserved('pte', '0x4000000000000001')).toEqual([62]);
    expect(await reserved('pte', '0x4000000000000001', '--spec', '3.x')).toEqual([]);
    expect(await reserved('pte', '0x4000000000000001', '--spec', '3.x', '--no-device-tlb')).toEqual([62]);
    expect(await reserved('pte', '0x400000000001')).toEqual([46]);
    expect(await reserved('pte', '0x400000000001', '--haw', '47')).toEqual([]);
    expect(await reserved('context-scalable', '0x1011', '0', '0', '0', '--without', 'PRS,DT')).toEqual([4]);
    const levels = async (...args: string[]) =>
      JSON.parse((await explain('context', '0x1005', '0x3', ...args, '--json')).out);
    expect((await levels()).faults[0].reason).toBe(3);
    expect((await levels('--levels', '4,5')).faults).toEqual([]);
  });

  it('as JSON, with values in hex', async () => {
    const account = JSON.parse((await explain('pte', '0x1001', '--json')).out);
    expect(account).toMatchObject({
      kind: 'pte',
      words: ['0x1001'],
      address: '0x1000',
      bytes: '0x1000',
      faults: [
        { request: 'write', mode: 'legacy', reason: 5, condition: 'LGN.2', qualified: true },
        { request: 'write', mode: 'scalable', reason: 0x85, condition: 'SGN.6', qualified: true },
      ],
    });
    expect(account.fields.at(-1)).toMatchObject({ name: 'R', high: 0, low: 0, value: '0x1' });
  });

  it('fits the terminal, and colours what is wrong', () => {
    for (const columns of [80, 100, 120, 200])
      for (const kind of ENTRY_KINDS)
        for (const word of [0n, 1n, 0xffff_ffff_ffff_ffffn]) {
          const words = Array.from({ length: wordsOfKind(kind) }, () => word);
          const text = entryText(explainEntry(kind, words, unit), unit, plain, columns);
          const longest = text.split('\n').reduce((most, line) => Math.max(most, line.length), 0);
          expect(longest, `${kind} ${word} ${columns}\n${text}`).toBeLessThanOrEqual(Math.min(columns, 120));
        }
    const coloured = (word: bigint) => entryText(explainEntry('pte', [word], unit), unit, pc.createColors(true), 80);
    expect(coloured(0x1803n)).toContain('\u001b[31m     11  SNP ');
    expect(coloured(0x1003n)).not.toContain('\u001b[31m');
  });

  it('has no colour where nobody looks', async () => {
    expect((await explain('pte', '0x1803')).out).not.toContain('\u001b');
    const looked = await invoke(['explain', 'pte', '0x1803'], { isTerminal: true });
    expect(looked.out).toContain('\u001b[31m');
    expect(
      (await invoke(['explain', 'pte', '0x1803'], { isTerminal: true, env: { NO_COLOR: '1' } })).out,
    ).not.toContain('\u001b');
  });
});

describe('what cannot be explained', () => {
  it.each([
    [['pdee', '0x1'], '"pdee" is no kind of entry; did you mean "pde"?'],
    [['pdee'], 'pdee: no such file; did you mean the kind "pde"?'],
    [['some-dump.txt'], 'some-dump.txt: no such file\n'],
    [['0x142a00083'], '0x142a00083: a value needs its kind before it, as in: explain pde 0x142a00083'],
    [['pde'], 'pde: expected one value, not 0'],
    [['pde', '0x1', '0x2'], 'pde: expected one value, not 2'],
    [['context', '0x1'], 'context: expected 2 values, low quadword first, not 1'],
    [['context', '0x1', '502'], 'value 2: "502" is not hexadecimal; expected 0x..., such as 0x142a00083'],
    [['pde', '-1'], 'value: "-1" is not hexadecimal'],
    [['pde', '0x10000000000000000'], 'value: 0x10000000000000000 has more than 64 bits'],
    [['pde', '0x1', '--haw', '31'], '--haw 31: expected a width of 32 to 52 bits'],
    [['pde', '0x1', '--haw', 'many'], 'Expected a number of bits'],
    [['pde', '0x1', '--spec', '4.1'], '--spec 4.1: expected a revision of the specification, 3.x or 5.10'],
    [['pde', '0x1', '--levels', '2'], '--levels 2: expected levels'],
    [['pde', '0x1', '--with', 'HPTZ'], '--with HPTZ: no such capability; did you mean "HPTS"?'],
    [['--table', 'pdd', 'x'], '--table: "pdd" is no kind of entry; did you mean "pde"?'],
    [['--table', 'pde', 'x', 'y'], '--table pde: expected one file, not 2'],
    [[], "missing required argument 'what'"],
  ])('%j', async (args, message) => {
    const { code, out, err } = await explain(...args);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toContain(message);
  });

  it('knows every capability that can be on or off', () => {
    const all = Object.entries(unit).filter(([, value]) => typeof value === 'boolean');
    expect(CAPABILITY_NAMES).toHaveLength(all.length);
    const off = unitOf({ without: CAPABILITY_NAMES });
    const on = unitOf({ with: [CAPABILITY_NAMES.join(',')] });
    for (const [key] of all) expect([off[key as 'nested'], on[key as 'nested']]).toEqual([false, true]);
  });
});

describe('explain a dump', () => {
  it('row by row, from a file or from stdin', async () => {
    const cwd = directory({ 'rows.log': ROWS });
    const file = await invoke(['explain', 'rows.log'], { cwd });
    expect(file.code).toBe(0);
    expect(file.out.split('\n')).toEqual([
      'rows.log: 2 rows; 1 x 4K, 1 x 2M; nothing odd',
      '',
      'iova 0x10000000-0x10000fff 4K -> 0x141800000, read/write  (line 3)',
      '  SS-PML4E 0x141688003  leads to the SS-PDPTE table at 0x141688000, read/write',
      '  SS-PDPTE 0x141689003  leads to the SS-PDE table at 0x141689000, read/write',
      '  SS-PDE   0x14168a003  leads to the SS-PTE table at 0x14168a000, read/write',
      '  SS-PTE   0x141800003  4K leaf, host 0x141800000-0x141800fff, read/write',
      '',
      'iova 0x10200000-0x103fffff 2M -> 0x141a00000, read/write  (line 4)',
      '  SS-PML4E, SS-PDPTE as above',
      '  SS-PDE   0x141a00083  2M leaf, host 0x141a00000-0x141bfffff, read/write',
      '',
    ]);
    const piped = await invoke(['explain', '-'], { stdin: ROWS });
    expect(piped.out).toBe(file.out.replace('rows.log:', '<stdin>:'));
    const json = JSON.parse((await invoke(['explain', 'rows.log', '--json'], { cwd })).out);
    expect(json.rows[1]).toMatchObject({
      page: { iova: '0x10200000', host: '0x141a00000', bytes: '0x200000', rights: 3 },
    });
  });

  it('says what faults, what is odd, and what is damaged', async () => {
    const stdin = [
      'IOVA_PFN=0x10 PML4E=1003 PDPE=2003 PDE=3003 PTE=3001',
      'IOVA_PFN=0x11 PML4E=1003 PDPE=2003 PDE=3803 PTE=0',
      'IOVA_PFN=0x12 PML4E=1003',
    ].join('\n');
    const { code, out } = await invoke(['explain', '-'], { stdin });
    expect(code).toBe(0);
    expect(out).toContain('2 rows; 1 x 4K; 1 without a page; 2 with something odd; 1 damaged row\n');
    expect(out).toContain('write faults: write not allowed (not present or W=0) (0x5); in scalable mode 0x85\n');
    expect(out).toContain('odd: maps the page-table page at 0x3000 that line 1 walks through\n');
    expect(out).toContain('iova 0x11000: no translation  (line 2)\n');
    expect(out).toContain('odd: SS-PDE has reserved bits set: 11\n');
    expect(out).toContain('<stdin>:3: not a row: expected the entries of three, four or five levels, down to PTE\n');
  });

  it('refuses a file without rows, and names a row that is damaged', async () => {
    const nothing = await invoke(['explain', '-'], { stdin: 'hello\n' });
    expect(nothing).toMatchObject({ code: 2, out: '' });
    expect(nothing.err).toContain('<stdin>: no row of a domain_translation_struct dump, such as IOVA_PFN=');
    const damaged = await invoke(['explain', '-'], { stdin: '\n0x0000000000010 |\t0x1\n' });
    expect(damaged.err).toBe('<stdin>:2:1: not a row of the dump: expected five columns, PML5E to PTE, not 1\n');
  });

  it.for(['6.12.95', '7.3.4'])('of Linux %s, as recorded, has nothing odd', async (version, context) => {
    const path = resolve(import.meta.dirname, `../../../../shared/traces/iofd-${version}.log`);
    if (!existsSync(path)) context.skip(`not tested: the recording ../shared/traces/iofd-${version}.log is not there`);
    const { out } = await invoke(['explain', '-'], { stdin: readFileSync(path) });
    expect(out).toContain('<stdin>: 33 rows; ');
    expect(out.split('\n')[0]).toMatch(/; nothing odd$/);
  });
});

describe('explain a table', () => {
  const words = Array.from({ length: 512 }, (_, index) => (index < 256 ? (BigInt(index) << 21n) | 0x83n : 0n));
  words[300] = 0x55803n;
  const bytes = new Uint8Array(4096);
  for (const [index, word] of words.entries()) new DataView(bytes.buffer).setBigUint64(index * 8, word, true);

  it('from raw bytes, or from text with any blanks, with or without 0x', async () => {
    const cwd = directory({
      'page.bin': bytes,
      'page.txt': words.map((word) => `0x${word.toString(16)}`).join('\n'),
      'page.hex': words.map((word) => word.toString(16).padStart(16, '0')).join(' '),
    });
    const raw = await invoke(['explain', '--table', 'pde', 'page.bin'], { cwd });
    expect(raw.out.split('\n')).toEqual([
      'page.bin: 512 entries of 2M (SS-PDE): 256 leaves, 1 pointer, 255 absent, 1 with reserved bits',
      '',
      '  0-255  +0x0         256 2M leaves in a row, host 0x0-0x1fffffff, read/write',
      '256-299  +0x20000000  empty: nothing is mapped',
      '    300  +0x25800000  leads to the SS-PTE table at 0x55000, read/write; reserved bit 11 set: fault',
      '                      0xc legacy, 0x7a scalable',
      '301-511  +0x25a00000  empty: nothing is mapped',
      '',
    ]);
    for (const name of ['page.txt', 'page.hex'])
      expect((await invoke(['explain', '--table', 'pde', name], { cwd })).out).toBe(raw.out.replace('page.bin', name));
    const json = JSON.parse((await invoke(['explain', '--table', 'pde', 'page.bin', '--json'], { cwd })).out);
    expect(json).toMatchObject({ file: 'page.bin', leaves: 256, reserved: [300], runs: { length: 4 } });
  });

  it('fits the terminal', () => {
    for (const kind of ENTRY_KINDS) {
      const text = tableText('some/file', explainTable(kind, words, unit), plain, 80);
      for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
    }
  });

  it('refuses what is no page', async () => {
    const cwd = directory({ short: bytes.subarray(8), few: '0x1 0x2', bad: '1 2\n3 xyz' });
    const errors = async (name: string) => (await invoke(['explain', '--table', 'pde', name], { cwd })).err;
    expect(await errors('short')).toContain('short: 4088 raw bytes; expected a page of 4096');
    expect(await errors('few')).toContain('few: 2 words; expected the 512 of a table page');
    expect(await errors('bad')).toBe('bad:2:3: "xyz" is not a 64-bit word in hexadecimal\n');
    expect(await errors('none')).toBe('error: none: no such file\n');
  });
});
