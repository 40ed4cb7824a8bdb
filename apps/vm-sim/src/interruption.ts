import { EXIT } from './exit-code.ts';
import type { Terminal } from './terminal.ts';

/** The shell sends Ctrl-C to npm and to us, and npm sends it on: one key press may arrive twice. */
const SAME_PRESS_MS = 300;

/** Remembers that the user pressed Ctrl-C; a second press ends the process at once. */
export class Interruption {
  #firstMs: number | undefined;
  readonly #undo: () => void;
  #tell: () => void = () => undefined;
  /** Resolves at the first press. */
  readonly pressed = new Promise<void>((resolve) => {
    this.#tell = resolve;
  });

  constructor(terminal: Terminal) {
    this.#undo = terminal.onInterrupt(() => {
      const now = terminal.nowMs();
      if (this.#firstMs === undefined) {
        this.#firstMs = now;
        this.#tell();
      } else if (now - this.#firstMs > SAME_PRESS_MS) terminal.exitNow(EXIT.interrupted);
    });
  }

  get requested(): boolean {
    return this.#firstMs !== undefined;
  }

  /** Gives Ctrl-C back to the process. */
  end(): void {
    this.#undo();
  }
}
