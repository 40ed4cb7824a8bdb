/**
 * Why a trace cannot be read at all.
 * - `EMPTY_INPUT`: no byte, or nothing after decompression
 * - `GZIP_TRUNCATED`: the compressed stream ends too early
 * - `GZIP_CORRUPT`: the compressed stream is damaged, or fails its checksum
 * - `GZIP_UNSUPPORTED`: the platform has no DecompressionStream
 * - `UNKNOWN_FORMAT`: the first lines are of no format that is read here, or of another one than asked for
 */
export type TraceFormatErrorCode =
  | 'EMPTY_INPUT'
  | 'GZIP_TRUNCATED'
  | 'GZIP_CORRUPT'
  | 'GZIP_UNSUPPORTED'
  | 'UNKNOWN_FORMAT';

/** A trace that cannot be read. The message starts with the file's name. Single damaged lines are counted instead. */
export class TraceFormatError extends Error {
  readonly code: TraceFormatErrorCode;
  /** Name of the source as the caller gave it. */
  readonly file: string;

  constructor(code: TraceFormatErrorCode, file: string, message: string) {
    super(`${file}: ${message}`);
    this.name = 'TraceFormatError';
    this.code = code;
    this.file = file;
  }
}
