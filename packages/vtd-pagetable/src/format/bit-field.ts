/** One field of a register-like structure, as data. Bits are counted over all its quadwords, as the specification does: 64 is bit 0 of the second. */
export interface BitField {
  /** The specification's short name, such as `SSPTPTR`; `reserved` and `ignored` for bits without one. */
  readonly name: string;
  /** What the name stands for, in our words. */
  readonly title: string;
  /** Highest bit. */
  readonly high: number;
  /** Lowest bit. */
  readonly low: number;
  /** Whether hardware uses the field, ignores it, or wants it to be 0. */
  readonly use: 'field' | 'ignored' | 'reserved';
  /** Property of the decoded structure that holds the value: a boolean for one bit, else a number. */
  readonly key?: string;
  /** What a value means; without it the value speaks for itself. */
  readonly meaning?: (value: bigint) => string;
  /** What the use depends on, such as `reserved: ECAP.SC=0`. */
  readonly condition?: string;
}

/** A structure as the list of all its fields, without a gap: what no field covers is reserved. */
export interface Layout {
  /** Short name, such as `SS-PDE`. */
  readonly name: string;
  /** Section of the specification. */
  readonly source: string;
  /** Size in quadwords. */
  readonly words: number;
  /** From the highest bit down. */
  readonly fields: readonly BitField[];
  /** Reserved bits of each quadword. */
  readonly reserved: readonly bigint[];
}

const bitsOf = (high: number, low: number): bigint => (1n << BigInt(high - low + 1)) - 1n;

/** Values of a field by name; an index that is missing or empty is a reserved value. */
export const namedValues =
  (names: readonly string[]) =>
  (value: bigint): string =>
    names[Number(value)] || 'reserved value';

/** The usual meaning of one bit. */
export const yesNo =
  (yes: string, no: string) =>
  (value: bigint): string =>
    value === 0n ? no : yes;

/** A field that hardware uses only if a capability is there, else a reserved one that keeps its name. */
export const conditional = (supported: boolean, condition: string, field: Omit<BitField, 'use'>): BitField => ({
  ...field,
  use: supported ? 'field' : 'reserved',
  condition: `reserved if ${condition}`,
});

/** A bit or a range that hardware always uses. */
export const used = (field: Omit<BitField, 'use'>): BitField => ({ ...field, use: 'field' });

/**
 * A pointer to 4K pages whose bit 12 is at `low`: it ends at the host address width, and the bits from there to the end of its quadword
 * are left to be reserved.
 */
export const pointer = (field: Omit<BitField, 'use' | 'high'>, hostAddressWidth: number): BitField => ({
  ...field,
  high: field.low - 12 + hostAddressWidth - 1,
  use: 'field',
});

/** Meaning of a frame number: the address of what is there. */
export const at =
  (what: string) =>
  (pfn: bigint): string =>
    `${what} at 0x${(pfn << 12n).toString(16)}`;

/**
 * Builds a layout: sorts the fields and fills the gaps with reserved ones.
 * @throws RangeError if two fields share a bit or one is outside the structure
 */
export function layout(description: {
  name: string;
  source: string;
  words: number;
  fields: readonly BitField[];
}): Layout {
  const { name, source, words } = description;
  const fields: BitField[] = [];
  let next = words * 64 - 1;
  for (const field of [...description.fields].sort((a, b) => b.high - a.high)) {
    if (field.high > next || field.low > field.high || field.low < 0)
      throw new RangeError(`${name}.${field.name}: bits ${field.high}:${field.low} overlap another field or the end`);
    fields.push(...gap(next, field.high + 1), field);
    next = field.low - 1;
  }
  fields.push(...gap(next, 0));
  const reserved = Array.from({ length: words }, () => 0n);
  for (const { use, high, low } of fields)
    for (let bit = low; use === 'reserved' && bit <= high; bit++)
      reserved[bit >> 6] = (reserved[bit >> 6] ?? 0n) | (1n << BigInt(bit & 63));
  return { name, source, words, fields, reserved };
}

/** Reserved fields from `high` down to `low`, cut at the quadwords. */
function gap(high: number, low: number): BitField[] {
  const fields: BitField[] = [];
  for (let top = high; top >= low; ) {
    const bottom = Math.max(low, top & ~63);
    fields.push({ name: 'reserved', title: 'must be 0', high: top, low: bottom, use: 'reserved' });
    top = bottom - 1;
  }
  return fields;
}

/** The value of a field. */
export function fieldValue(field: BitField, words: readonly bigint[]): bigint {
  let value = 0n;
  for (let word = field.high >> 6; word >= field.low >> 6; word--)
    value = (value << 64n) | BigInt.asUintN(64, words[word] ?? 0n);
  return (value >> BigInt(field.low & 63)) & bitsOf(field.high, field.low);
}

/** Reserved bits that are set, by quadword: the caller asks whether any is not 0. */
export const reservedBitsSet = (structure: Layout, words: readonly bigint[]): readonly bigint[] =>
  structure.reserved.map((mask, word) => mask & BigInt.asUintN(64, words[word] ?? 0n));

/**
 * Puts the properties of `entry` where the fields' keys say, in as many quadwords as the layout has. A property that is missing is 0.
 * @throws RangeError naming the property whose value does not fit
 */
export function encodeFields(structure: Layout, entry: object): bigint[] {
  const words = Array.from({ length: structure.words }, () => 0n);
  for (const { key, high, low } of structure.fields) {
    if (key === undefined) continue;
    const value: unknown = (entry as Readonly<Record<string, unknown>>)[key];
    words[low >> 6] = (words[low >> 6] ?? 0n) | (fieldBits(key, value, bitsOf(high, low)) << BigInt(low & 63));
  }
  return words;
}

function fieldBits(key: string, value: unknown, max: bigint): bigint {
  if (value === undefined) return 0n;
  if (typeof value === 'boolean' && max === 1n) return value ? 1n : 0n;
  if (typeof value !== 'number' || typeof value === 'boolean')
    throw new RangeError(`${key}: ${String(value)} is not ${max === 1n ? 'a boolean' : 'a number'}`);
  if (!Number.isInteger(value) || value < 0 || BigInt(value) > max)
    throw new RangeError(`${key}: ${value} is not in 0..0x${max.toString(16)}`);
  return BigInt(value);
}

/** The properties of a structure: the inverse of {@link encodeFields}. */
export function decodeFields(structure: Layout, words: readonly bigint[]): Readonly<Record<string, number | boolean>> {
  const entry: Record<string, number | boolean> = {};
  for (const field of structure.fields) {
    if (field.key === undefined) continue;
    const value = fieldValue(field, words);
    entry[field.key] = field.high === field.low ? value === 1n : Number(value);
  }
  return entry;
}

/** A layout built once for each set of capabilities. */
export function perCapabilities<C extends object>(build: (capabilities: C) => Layout): (capabilities: C) => Layout {
  const built = new WeakMap<C, Layout>();
  return (capabilities) => {
    let found = built.get(capabilities);
    if (found === undefined) {
      found = build(capabilities);
      built.set(capabilities, found);
    }
    return found;
  };
}
