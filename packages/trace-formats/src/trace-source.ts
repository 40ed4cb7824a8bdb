import { gunzipStream, utf8Decoder } from './platform.ts';
import { TraceFormatError } from './trace-format-error.ts';

/** A trace to read: a name for messages, and its content as text or bytes, plain or gzip. */
export interface TraceSource {
  /** File name, or `-`. */
  readonly name: string;
  /** The content, once. A file stream of Node, a fetched body or an array of strings will do. */
  readonly chunks: AsyncIterable<string | Uint8Array> | Iterable<string | Uint8Array>;
}

/**
 * The lines of a source in batches, one batch a chunk, without line ends (LF or CRLF); a last line without one counts.
 * Gzip is recognised by its first two bytes.
 * @throws TraceFormatError for empty input and for truncated or damaged gzip
 */
export async function* lineBatches(source: TraceSource): AsyncGenerator<string[], void, undefined> {
  let rest = '';
  let any = false;
  for await (const text of decodedText(source)) {
    if (text.length === 0) continue;
    any = true;
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    if (lines.length > 0) yield lines.map(withoutCarriageReturn);
  }
  if (!any) throw new TraceFormatError('EMPTY_INPUT', source.name, 'the input is empty');
  if (rest.length > 0) yield [withoutCarriageReturn(rest)];
}

const withoutCarriageReturn = (line: string): string => (line.endsWith('\r') ? line.slice(0, -1) : line);

async function* decodedText(source: TraceSource): AsyncGenerator<string, void, undefined> {
  const decoder = utf8Decoder();
  for await (const chunk of plainChunks(source)) {
    yield typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true });
  }
  yield decoder.decode();
}

/** Chunks after decompression, if the first two bytes ask for it. */
async function* plainChunks(source: TraceSource): AsyncGenerator<string | Uint8Array, void, undefined> {
  const iterator = iterate(source.chunks);
  let head = new Uint8Array(0);
  let sawBytes = false;
  for (;;) {
    const next = await iterator.next();
    if (next.done) break;
    if (typeof next.value === 'string') {
      if (head.length > 0) yield head;
      yield next.value;
      yield* { [Symbol.asyncIterator]: () => iterator };
      return;
    }
    sawBytes = true;
    head = joined(head, next.value);
    if (head.length >= 2) break;
  }
  if (sawBytes && head.length >= 2 && head[0] === 0x1f && head[1] === 0x8b) {
    yield* gunzipped(source.name, head, iterator);
    return;
  }
  if (head.length > 0) yield head;
  yield* { [Symbol.asyncIterator]: () => iterator };
}

type ChunkIterator = AsyncIterator<string | Uint8Array, unknown, undefined>;

async function* iterate(chunks: TraceSource['chunks']): AsyncGenerator<string | Uint8Array, void, undefined> {
  yield* chunks;
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

async function* gunzipped(
  name: string,
  head: Uint8Array,
  iterator: ChunkIterator,
): AsyncGenerator<Uint8Array, void, undefined> {
  const stream = gunzipStream();
  if (stream === null) throw new TraceFormatError('GZIP_UNSUPPORTED', name, 'this platform cannot decompress gzip');
  const writer = stream.writable.getWriter();
  let inputError: unknown = null;
  const pump = (async () => {
    await writer.write(head);
    for (let next = await readInput(); next !== null; next = await readInput()) await writer.write(next);
    await writer.close();
  })();
  // The reader sees the same failure; without this a rejected pump would count as unhandled.
  pump.catch(() => undefined);

  async function readInput(): Promise<Uint8Array | null> {
    try {
      const next = await iterator.next();
      if (next.done) return null;
      if (typeof next.value === 'string') throw new TypeError(`${name}: text in the middle of a compressed stream`);
      return next.value;
    } catch (error) {
      inputError = error;
      await writer.abort(error);
      throw error;
    }
  }

  const reader = stream.readable.getReader();
  for (;;) {
    let result: Awaited<ReturnType<typeof reader.read>>;
    try {
      result = await reader.read();
    } catch (error) {
      if (inputError !== null) throw inputError;
      throw gzipError(name, error);
    }
    if (result.done || result.value === undefined) break;
    yield result.value;
  }
}

function gzipError(name: string, error: unknown): TraceFormatError {
  const text = error instanceof Error ? error.message : String(error);
  const truncated = /unexpected end|end of file|incomplete|truncated|terminated/i.test(text);
  return truncated
    ? new TraceFormatError('GZIP_TRUNCATED', name, `the gzip stream ends too early (${text})`)
    : new TraceFormatError('GZIP_CORRUPT', name, `the gzip stream is damaged (${text})`);
}
