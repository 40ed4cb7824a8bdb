import { assert } from '@faultline/sim';

/** A C type of a field; `u8[n]` is an array, and `=name` another name for the place of an earlier field (a union). */
export type FieldType = 'u8' | 'u16' | 'u32' | 's32' | 'u64' | `u8[${number}]` | `=${string}`;

/** Where a field is within its struct, in bytes. */
export interface FieldPlace {
  readonly offset: number;
  readonly bytes: number;
  readonly signed: boolean;
}

/** A struct of the uAPI: fields with natural alignment, little endian. */
export interface StructLayout<Field extends string = string> {
  readonly name: string;
  /** sizeof, in bytes. */
  readonly size: number;
  readonly fields: Readonly<Record<Field, FieldPlace>>;
}

const BYTES: Readonly<Record<string, number>> = { u8: 1, u16: 2, u32: 4, s32: 4, u64: 8 };

/** Lays a struct out as a C compiler for x86-64 does: each field at the next multiple of its own size. */
export function structLayout<Field extends string>(
  name: string,
  types: Readonly<Record<Field, FieldType>>,
): StructLayout<Field> {
  const fields: Record<string, FieldPlace> = {};
  let end = 0;
  let alignment = 1;
  for (const [field, type] of Object.entries<FieldType>(types)) {
    if (type.startsWith('=')) {
      const place = fields[type.slice(1)];
      assert(place !== undefined, () => `${name}.${field}: no field ${type.slice(1)} before it`);
      fields[field] = place;
      continue;
    }
    const array = /^u8\[(\d+)\]$/.exec(type);
    const unit = array ? 1 : BYTES[type];
    assert(unit !== undefined, () => `${name}.${field}: no type ${type}`);
    const bytes = array ? Number(array[1]) : unit;
    const offset = Math.ceil(end / unit) * unit;
    fields[field] = { offset, bytes, signed: type === 's32' };
    end = offset + bytes;
    alignment = Math.max(alignment, unit);
  }
  return { name, size: Math.ceil(end / alignment) * alignment, fields: fields as Record<Field, FieldPlace> };
}

/** Reads and writes the fields of a struct in memory. */
export class StructView<Field extends string = string> {
  readonly layout: StructLayout<Field>;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** @param bytes at least the struct's size; not copied. Zeros if left out */
  constructor(layout: StructLayout<Field>, bytes: Uint8Array = new Uint8Array(layout.size)) {
    assert(bytes.length >= layout.size, () => `${layout.name}: ${bytes.length} bytes, not ${layout.size}`);
    this.layout = layout;
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** A field of at most 32 bits. */
  number(field: Field): number {
    const { offset, bytes, signed } = this.layout.fields[field];
    if (bytes === 4) return signed ? this.#view.getInt32(offset, true) : this.#view.getUint32(offset, true);
    if (bytes === 2) return this.#view.getUint16(offset, true);
    assert(bytes === 1, () => `${this.layout.name}.${field}: ${bytes} bytes are no number`);
    return this.#view.getUint8(offset);
  }

  /** A u64 field. */
  bigint(field: Field): bigint {
    const { offset, bytes } = this.layout.fields[field];
    assert(bytes === 8, () => `${this.layout.name}.${field}: ${bytes} bytes are no u64`);
    return this.#view.getBigUint64(offset, true);
  }

  /** Whether all bytes of a field are zero: what reserved fields must be. */
  isZero(field: Field): boolean {
    const { offset, bytes } = this.layout.fields[field];
    return this.bytes.subarray(offset, offset + bytes).every((byte) => byte === 0);
  }

  /** Writes a field: a bigint for a u64, a number for others; taken modulo the field's size. */
  set(field: Field, value: number | bigint): void {
    const { offset, bytes } = this.layout.fields[field];
    assert((typeof value === 'bigint') === (bytes === 8), () => `${this.layout.name}.${field}: ${value}`);
    if (typeof value === 'bigint') this.#view.setBigUint64(offset, value, true);
    else if (bytes === 4) this.#view.setUint32(offset, value, true);
    else if (bytes === 2) this.#view.setUint16(offset, value, true);
    else this.#view.setUint8(offset, value);
  }
}
