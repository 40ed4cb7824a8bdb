import pc from 'picocolors';

/** Where text goes. Writes are in order and never throw, also when the reader has gone away. */
export interface OutputStream {
  readonly isTerminal: boolean;
  readonly columns: number;
  write(text: string | Uint8Array): void;
}

/** All that the application takes from its process, so that tests can give it something else. */
export interface Terminal {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  /** Standard input, to be read once. */
  readonly stdin: () => AsyncIterable<Uint8Array>;
  /** Directory that the user's paths are relative to. */
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The words that started the application, without its arguments, such as `npm start --silent --`. */
  readonly startedAs: string;
  /** Wall clock, in ms since the process started. */
  nowMs(): number;
  peakRssBytes(): number;
  /** Lets signals and timers of the process run. */
  breathe(): Promise<void>;
  /** Calls the handler on Ctrl-C instead of ending the process; the result undoes that. */
  onInterrupt(handler: () => void): () => void;
  /** Ends the process without waiting for anything. */
  exitNow(code: number): void;
}

/** Colours for one stream; each function gives its text back unchanged where colour is not wanted. */
export type Palette = ReturnType<typeof pc.createColors>;

/** Colour on terminals only, and not with `NO_COLOR` or `TERM=dumb`. */
export function paletteFor(stream: OutputStream, env: Terminal['env']): Palette {
  const refused = (env.NO_COLOR ?? '') !== '' || env.TERM === 'dumb';
  return pc.createColors(stream.isTerminal && !refused);
}
