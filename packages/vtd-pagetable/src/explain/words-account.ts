import { type BitField, fieldValue, type Layout } from '../format/bit-field.ts';

/** One field of a structure with the value that it has. */
export interface FieldAccount {
  /** The specification's short name; `reserved` or `ignored` for bits without one. */
  readonly name: string;
  /** What the name stands for. */
  readonly title: string;
  /** Highest bit, counted over all quadwords. */
  readonly high: number;
  /** Lowest bit. */
  readonly low: number;
  readonly value: bigint;
  /** What hardware does with the field. */
  readonly use: BitField['use'];
  /** What the value means; empty where the value speaks for itself. */
  readonly meaning: string;
  /** What the use depends on; empty if on nothing. */
  readonly condition: string;
}

/** A structure field by field. */
export interface WordsAccount {
  /** Name of the structure, such as `SS-PDE`. */
  readonly name: string;
  /** Section of the specification that lays it out. */
  readonly source: string;
  readonly words: readonly bigint[];
  /** From the highest bit down, without a gap. */
  readonly fields: readonly FieldAccount[];
  /** Reserved bits that are set, highest first. */
  readonly reservedBits: readonly number[];
}

const MAX_WORD = (1n << 64n) - 1n;

/**
 * Explains the quadwords of any structure by its layout: an entry, a register, a descriptor.
 * @throws RangeError if there are too many or too few words, or one is not of 64 bits
 */
export function explainWords(layout: Layout, words: readonly bigint[]): WordsAccount {
  checkWords(layout, words);
  const fields = layout.fields.map((field): FieldAccount => {
    const { name, title, high, low, use, condition = '' } = field;
    const value = fieldValue(field, words);
    return { name, title, high, low, value, use, meaning: meaningOf(field, value), condition };
  });
  const reservedBits = fields.flatMap(({ use, value, low }) => (use === 'reserved' ? bitNumbers(value, low) : []));
  return { name: layout.name, source: layout.source, words: [...words], fields, reservedBits };
}

/** @throws RangeError if there are too many or too few words, or one is not of 64 bits; TypeError if one is no bigint */
export function checkWords(layout: Layout, words: readonly bigint[]): void {
  if (words.length !== layout.words)
    throw new RangeError(`words: a ${layout.name} has ${layout.words}, not ${words.length}`);
  words.forEach((word, index) => {
    if (typeof word !== 'bigint')
      throw new TypeError(`words[${index}]: ${String(word)} (${typeof word}) is not a bigint`);
    if (word < 0n || word > MAX_WORD)
      throw new RangeError(`words[${index}]: ${word < 0n ? word : `0x${word.toString(16)}`} does not fit in 64 bits`);
  });
}

function meaningOf(field: BitField, value: bigint): string {
  if (field.use === 'field') return field.meaning?.(value) ?? '';
  if (value === 0n) return '';
  return field.use === 'reserved' ? 'must be 0' : 'ignored by hardware';
}

/** Numbers of the bits of a field that are set, highest first; its lowest bit has the number `low`. */
export function bitNumbers(value: bigint, low: number): number[] {
  const bits: number[] = [];
  for (let rest = value, bit = low; rest !== 0n; rest >>= 1n, bit++) if ((rest & 1n) !== 0n) bits.unshift(bit);
  return bits;
}
