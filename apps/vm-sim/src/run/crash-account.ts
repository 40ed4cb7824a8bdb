import { formatDurationNs } from '@faultline/address';
import type { CrashStats } from '@faultline/machine';

/** A paragraph of the account: a sentence, and the words of memory that it is about. */
export interface CrashParagraph {
  readonly sentence: string;
  /** The last first: that one was fatal. */
  readonly items: readonly string[];
  /** How many more items the stats document has. */
  readonly more: number;
}

const TABLE_NAMES: Readonly<Record<number, string>> = {
  1: 'page table',
  2: 'page directory',
  3: 'directory-pointer table',
};

/** Tells how the host died, in the order in which it happened; `limit` bounds the words listed in each paragraph. */
export function crashAccount(crash: CrashStats, limit: number): CrashParagraph[] {
  const { mistaken, corrupted, freed } = crash;
  const listed = (sentence: string, items: readonly string[]): CrashParagraph[] =>
    items.length === 0
      ? []
      : [{ sentence, items: items.toReversed().slice(0, limit), more: Math.max(0, items.length - limit) }];
  const begin = `At ${formatDurationNs(crash.atNs)} the host takes away IOVA ${crash.iova}.`;
  return [
    ...(mistaken.length === 0
      ? [{ sentence: begin, items: [], more: 0 }]
      : listed(
          `${begin} The clear meets the large leaf, does not look at PS, and takes the leaf's address for that of a table. Guest data that it read there as entries:`,
          mistaken.map(
            ({ level, hpa, word, owner }) =>
              `level ${level}, entry ${entryOf(hpa)} of the "${TABLE_NAMES[level] ?? 'table'}", HPA ${hpa} = ${word}  (${owner})`,
          ),
        )),
    ...listed(
      'It set to zero, as if they were its own entries:',
      corrupted.map(({ hpa, word, owner }) => `HPA ${hpa}, was ${word}  (${owner})`),
    ),
    ...listed(
      'It gave to the page allocator, as table pages:',
      freed.map(({ hpa, owner }) => `HPA ${hpa}  (${owner})`),
    ),
    ...(crash.totals.unmaps > 1 ? [{ sentence: before(crash), items: [], more: 0 }] : []),
    { sentence: `${sentenceOf(crash)}`, items: [], more: 0 },
  ];
}

const before = ({ totals }: CrashStats): string =>
  `It was not the first: ${totals.unmaps} unmaps read ${totals.mistaken} words of memory as entries and set ${totals.corrupted} of them to zero.`;

function sentenceOf({ reason, faultReason, mistaken }: CrashStats): string {
  const fault = faultReason === null ? '' : ` The hardware reported fault reason 0x${faultReason.toString(16)}.`;
  const after =
    mistaken.length === 0
      ? ''
      : ' The hardware still has the large leaf: DMA goes on into frames that the host takes for free.';
  return `The end: ${reason}.${fault}${after}`;
}

const entryOf = (hpa: string): number => Number((BigInt(hpa) & 0xfffn) >> 3n);
