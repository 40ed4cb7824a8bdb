import { createReadStream, statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { TraceSource } from '@faultline/trace-formats';
import { UsageError } from '../exit-code.ts';
import type { Terminal } from '../terminal.ts';

/** Thrown out of a read when the user pressed Ctrl-C. */
export class ReadInterrupted extends Error {}

/** Called with each chunk's length in bytes. @throws to end the read */
export type ReadWatch = (bytes: number) => void;

/** A trace of the user's: a path, or `-` for standard input. */
export interface TraceFile {
  readonly source: TraceSource;
  /** Its size, or undefined where that is not known before its end. */
  readonly bytes: number | undefined;
}

/** Opens a trace. @throws UsageError if there is none */
export function openTraceFile(given: string, terminal: Terminal, watch: ReadWatch): TraceFile {
  if (given === '-')
    return { source: { name: '<stdin>', chunks: watched(given, terminal.stdin, watch) }, bytes: undefined };
  const path = resolve(terminal.cwd, given);
  try {
    const stats = statSync(path);
    if (stats.isDirectory()) throw new UsageError(`${given}: is a directory, not a file`);
    const bytes = stats.isFile() ? stats.size : undefined;
    return { source: { name: given, chunks: watched(given, () => createReadStream(path), watch) }, bytes };
  } catch (error) {
    throw readError(given, error);
  }
}

/** What the user is told of an error of the file system. */
function readError(given: string, error: unknown): unknown {
  const code = error instanceof Error && 'code' in error && 'syscall' in error ? String(error.code) : undefined;
  if (code === undefined) return error;
  return new UsageError(code === 'ENOENT' ? `${given}: no such file` : `${given}: cannot be read (${code})`);
}

/** Opens only when read: a file that is opened and then not wanted would fail where nobody listens. */
async function* watched(
  given: string,
  open: () => AsyncIterable<Uint8Array>,
  watch: ReadWatch,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of open()) {
      watch(chunk.length);
      yield chunk;
    }
  } catch (error) {
    throw readError(given, error);
  }
}
