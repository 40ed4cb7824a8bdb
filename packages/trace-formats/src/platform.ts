/**
 * The web-standard streams that Node 20 and browsers have as globals. The library's type settings know neither platform,
 * so the few members that are used are declared here.
 */
interface ByteReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array }>;
}
interface ByteWriter {
  write(chunk: Uint8Array): Promise<void>;
  close(): Promise<void>;
  abort(reason?: unknown): Promise<void>;
}
interface Decompressor {
  readonly readable: { getReader(): ByteReader };
  readonly writable: { getWriter(): ByteWriter };
}
interface Decoder {
  decode(chunk?: Uint8Array, options?: { readonly stream?: boolean }): string;
}
interface Encoder {
  encode(text: string): Uint8Array;
}
interface Platform {
  readonly DecompressionStream?: new (format: 'gzip') => Decompressor;
  readonly TextDecoder: new (label: 'utf-8') => Decoder;
  readonly TextEncoder: new () => Encoder;
}

const platform = globalThis as unknown as Platform;

/** A gzip decompressor, or null where the platform has none. */
export const gunzipStream = (): Decompressor | null =>
  platform.DecompressionStream === undefined ? null : new platform.DecompressionStream('gzip');

/** A UTF-8 decoder that replaces what is no UTF-8, so that a damaged line stays one line. */
export const utf8Decoder = (): Decoder => new platform.TextDecoder('utf-8');

/** A UTF-8 encoder. */
export const utf8Encoder = (): Encoder => new platform.TextEncoder();
