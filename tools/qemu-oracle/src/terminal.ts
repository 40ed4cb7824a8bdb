/** What the commands need from the process around them. */
export interface Terminal {
  /** Where the user is; npm runs scripts elsewhere. */
  readonly cwd: string;
  readonly stderrIsTerminal: boolean;
  out(text: string): void;
  err(text: string): void;
  nowMs(): number;
  /** Calls back at Ctrl-C. @returns how to undo it */
  onInterrupt(handler: () => void): () => void;
}

/** Exit codes, as scripts see them. */
export const EXIT = {
  ok: 0,
  /** A bug of this tool. */
  internal: 1,
  /** The command line or a file cannot be used, or QEMU is not there. */
  usage: 2,
  /** An answer differs. */
  differs: 3,
  /** Ctrl-C; what was compared until then was printed. */
  interrupted: 130,
} as const;

/** What the user gave, or the machine has, cannot be used: printed without a stack, exit 2. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}

const REDRAW_MS = 200;

/** One line on stderr, redrawn in place; only on a terminal. */
export class ProgressMeter {
  readonly #terminal: Terminal;
  readonly #startMs: number;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #visible = false;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    this.#startMs = terminal.nowMs();
  }

  /** @param total 0 if the end is not known */
  update(done: number, total: number, unit: string): void {
    const now = this.#terminal.nowMs();
    if (!this.#terminal.stderrIsTerminal || now - this.#drawnMs < REDRAW_MS) return;
    this.#drawnMs = now;
    this.#visible = true;
    this.#terminal.err(`\r\u001b[2K${meterText(done, total, unit, (now - this.#startMs) / 1000)}`);
  }

  clear(): void {
    if (this.#visible) this.#terminal.err('\r\u001b[2K');
    this.#visible = false;
  }
}

/** The meter's text: how much of what, the rate, and the time left where the end is known. */
export function meterText(done: number, total: number, unit: string, seconds: number): string {
  const rate = seconds > 0 ? done / seconds : 0;
  const count = total > 0 ? `${done.toLocaleString('en')} of ${total.toLocaleString('en')}` : done.toLocaleString('en');
  const left = total > done && rate > 0 ? `  ${Math.ceil((total - done) / rate)} s left` : '';
  return `${count} ${unit}  ${Math.round(rate).toLocaleString('en')} ${unit}/s${left}`;
}
