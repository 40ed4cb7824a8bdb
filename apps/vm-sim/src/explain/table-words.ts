import { UsageError } from '../exit-code.ts';

const PAGE_BYTES = 4096;
const WORDS = 512;

/**
 * The 512 quadwords of a table page: 4096 raw bytes, little-endian, or 512 words of hexadecimal text, with or without 0x.
 * @throws UsageError naming the file and what was expected
 */
export function tableWords(name: string, bytes: Uint8Array): bigint[] {
  const isText = bytes.every((byte) => (byte >= 0x20 && byte < 0x7f) || byte === 9 || byte === 10 || byte === 13);
  if (!isText) {
    if (bytes.length !== PAGE_BYTES)
      throw new UsageError(
        `${name}: ${bytes.length} raw bytes; expected a page of ${PAGE_BYTES}, or 512 words of hex text`,
      );
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Array.from({ length: WORDS }, (_, index) => view.getBigUint64(index * 8, true));
  }
  const words: bigint[] = [];
  new TextDecoder()
    .decode(bytes)
    .split(/\r?\n/)
    .forEach((line, index) => {
      for (const match of line.matchAll(/\S+/g)) {
        const digits = /^(?:0x)?([0-9a-f]{1,16})$/i.exec(match[0])?.[1];
        if (digits === undefined)
          throw new UsageError(
            `${name}:${index + 1}:${match.index + 1}: "${match[0].slice(0, 40)}" is not a 64-bit word in hexadecimal`,
          );
        words.push(BigInt(`0x${digits}`));
      }
    });
  if (words.length !== WORDS)
    throw new UsageError(
      `${name}: ${words.length} words; expected the ${WORDS} of a table page, or its ${PAGE_BYTES} raw bytes`,
    );
  return words;
}
