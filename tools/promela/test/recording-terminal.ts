import type { Terminal } from '../src/terminal.ts';

/** A terminal that keeps what is printed. */
export class RecordingTerminal implements Terminal {
  stdout = '';
  stderr = '';
  readonly interruption: AbortSignal;

  constructor(interruption: AbortSignal = new AbortController().signal) {
    this.interruption = interruption;
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
}
