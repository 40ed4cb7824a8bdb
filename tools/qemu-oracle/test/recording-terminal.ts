import type { Terminal } from '../src/terminal.ts';

/** A terminal that keeps what it is told, and on which Ctrl-C can be pressed. */
export class RecordingTerminal implements Terminal {
  readonly cwd: string;
  readonly stderrIsTerminal: boolean;
  stdout = '';
  stderr = '';
  readonly #handlers = new Set<() => void>();

  constructor(options: { readonly cwd: string; readonly stderrIsTerminal?: boolean }) {
    this.cwd = options.cwd;
    this.stderrIsTerminal = options.stderrIsTerminal ?? false;
  }

  out(text: string): void {
    this.stdout += text;
  }

  err(text: string): void {
    this.stderr += text;
  }

  nowMs(): number {
    return performance.now();
  }

  onInterrupt(handler: () => void): () => void {
    this.#handlers.add(handler);
    return () => this.#handlers.delete(handler);
  }

  /** Whether somebody would notice Ctrl-C. */
  get listening(): boolean {
    return this.#handlers.size > 0;
  }

  pressCtrlC(): void {
    for (const handler of this.#handlers) handler();
  }
}
