import { utf8Encoder } from './platform.ts';

const encoder = utf8Encoder();
const LOW_32 = 2 ** 32;

/** Writes protobuf's wire format: varints and length-delimited fields, which is all that a Perfetto trace needs. */
export class ProtobufWriter {
  #bytes = new Uint8Array(1024);
  #length = 0;

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** Field of type varint: uint32, uint64, int64, bool, enum. @throws RangeError unless 0 .. 2^53-1 */
  unsigned(field: number, value: number): this {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new RangeError(`field ${field}: ${value} is not an integer in 0..2^53-1`);
    this.#varint(field * 8);
    this.#varint(value);
    return this;
  }

  /** Field of type int64, negative values too. @throws RangeError unless a 64-bit integer */
  signed(field: number, value: bigint): this {
    if (BigInt.asIntN(64, value) !== value) throw new RangeError(`field ${field}: ${value} does not fit 64 bits`);
    this.#varint(field * 8);
    let rest = BigInt.asUintN(64, value);
    for (; rest >= 0x80n; rest >>= 7n) this.#byte(Number(rest & 0x7fn) | 0x80);
    this.#byte(Number(rest));
    return this;
  }

  /** Field of type double. */
  double(field: number, value: number): this {
    this.#varint(field * 8 + 1);
    const bytes = new Uint8Array(new Float64Array([value]).buffer);
    for (const byte of bytes) this.#byte(byte);
    return this;
  }

  /** Field of type string. */
  text(field: number, value: string): this {
    return this.bytes(field, encoder.encode(value));
  }

  /** Field of type bytes. */
  bytes(field: number, value: Uint8Array): this {
    this.#varint(field * 8 + 2);
    this.#varint(value.length);
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  /** Field that is a message, written by `fill`. */
  message(field: number, fill: (writer: ProtobufWriter) => void): this {
    const inner = new ProtobufWriter();
    fill(inner);
    return this.bytes(field, inner.finish());
  }

  /** The message: a view, valid until the next write. */
  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #varint(value: number): void {
    let rest = value;
    while (rest >= LOW_32) {
      this.#byte((rest % 128) | 0x80);
      rest = Math.floor(rest / 128);
    }
    while (rest >= 0x80) {
      this.#byte((rest & 0x7f) | 0x80);
      rest = Math.floor(rest / 128);
    }
    this.#byte(rest);
  }

  #byte(value: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = value;
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + bytes));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}
