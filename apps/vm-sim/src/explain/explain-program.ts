import { ENTRY_KINDS } from '@faultline/vtd-pagetable';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { wrapped } from '../columns.ts';
import type { ExitCode } from '../exit-code.ts';
import type { Terminal } from '../terminal.ts';
import { explainCommand } from './explain-command.ts';
import { CAPABILITY_NAMES } from './explain-unit.ts';

const EXAMPLES = `Examples:
  vm-sim explain pde 0x142a00083
  vm-sim explain context 0x141600005 0x502
  vm-sim explain domain_translation_struct.txt
  vm-sim explain --table pde page.bin
`;

function bits(text: string): number {
  if (!/^\d{1,3}$/.test(text)) throw new InvalidArgumentError('Expected a number of bits, such as 46.');
  return Number(text);
}
const repeated = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

/** Adds `vm-sim explain`. */
export function addExplain(program: Command, terminal: Terminal, setCode: (code: ExitCode) => void): void {
  const indented = (text: string): string =>
    wrapped(text, 76)
      .map((line) => `  ${line}`)
      .join('\n');
  program
    .command('explain')
    .description('explain an entry of a page table bit by bit, a whole table, or the rows of the kernel’s dump')
    .argument('<what>', 'a kind of entry, or a file with rows of domain_translation_struct; - for stdin')
    .argument('[value...]', 'its quadwords in hexadecimal, the low one first')
    .option('--table <kind>', 'the file is a table page of such entries: 512 words of hex text, or 4096 raw bytes')
    .addOption(new Option('--haw <bits>', 'host address width (default: 46)').argParser(bits))
    .addOption(new Option('--mgaw <bits>', 'width of input addresses (default: 48)').argParser(bits))
    .option('--levels <list>', 'levels that the unit walks (default: 3,4)')
    .option('--spec <revision>', 'revision of the specification: 3.x or 5.10 (default: 5.10)')
    .option('--snoop-control', 'the unit has snoop control: bit 11 of a leaf is SNP')
    .option('--no-2m', 'the unit has no 2M leaves')
    .option('--no-1g', 'the unit has no 1G leaves')
    .option('--no-device-tlb', 'the unit serves no device TLBs')
    .addOption(new Option('--with <names>', 'further capabilities, comma separated').argParser(repeated))
    .addOption(new Option('--without <names>', 'capabilities to take away').argParser(repeated))
    .option('--json', 'print the result as one JSON document')
    .option('-q, --quiet', 'nothing on stderr but errors')
    .option('-v, --verbose', 'the stack of an error')
    .addHelpText('before', EXAMPLES)
    .addHelpText(
      'after',
      `\nKinds:\n${indented(ENTRY_KINDS.join(', '))}\n\nCapabilities, as CAP and ECAP name them:\n${indented(CAPABILITY_NAMES.join(', '))}`,
    )
    .action(async (what, values, options) => setCode(await explainCommand(what, values, options, terminal)));
}
