import type { Terminal } from './terminal.ts';

/** How far some work is. */
export interface Progress {
  /** 0 to 1, or undefined if the end is not known. */
  readonly fraction?: number | undefined;
  /** Done per second and what, such as `12,345 DMA pages`. */
  readonly done: number;
  readonly unit: string;
  readonly phase?: string;
}

const SHOW_AFTER_MS = 1000;
const REDRAW_MS = 100;
/** In a log. */
const LINE_MS = 60_000;
const BAR = 24;

const minutes = (seconds: number): string =>
  seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.ceil(seconds % 60)} s`;

/** One line on stderr, redrawn in place, for what takes longer than a second; where that is no terminal, a line each minute. */
export class ProgressMeter {
  readonly #terminal: Terminal;
  readonly #enabled: boolean;
  readonly #startMs: number;
  #drawnMs: number;
  #visible = false;

  constructor(terminal: Terminal, quiet: boolean) {
    this.#terminal = terminal;
    this.#enabled = !quiet;
    this.#startMs = terminal.nowMs();
    // The first line of a log comes after a minute.
    this.#drawnMs = terminal.stderr.isTerminal ? this.#startMs + SHOW_AFTER_MS - REDRAW_MS : this.#startMs;
  }

  update(progress: Progress): void {
    if (!this.#enabled) return;
    const now = this.#terminal.nowMs();
    const { isTerminal } = this.#terminal.stderr;
    if (now - this.#drawnMs < (isTerminal ? REDRAW_MS : LINE_MS)) return;
    this.#drawnMs = now;
    const line = meterLine(progress, (now - this.#startMs) / 1000);
    if (!isTerminal) {
      this.#terminal.stderr.write(`${line}\n`);
      return;
    }
    this.#visible = true;
    this.#terminal.stderr.write(`\r\u001b[2K${line.slice(0, Math.max(20, this.#terminal.stderr.columns - 1))}`);
  }

  /** Takes the line away. */
  clear(): void {
    if (this.#visible) this.#terminal.stderr.write('\r\u001b[2K');
    this.#visible = false;
  }
}

/** The meter's text: a bar where the end is known, the rate, and the time left. */
export function meterLine(progress: Progress, seconds: number): string {
  const { fraction, done, unit, phase } = progress;
  const rate = seconds > 0 ? Math.round(done / seconds) : 0;
  const parts = [`${rate.toLocaleString('en')} ${unit}/s`];
  if (phase !== undefined && phase !== '') parts.push(phase);
  if (fraction === undefined) return [`${done.toLocaleString('en')} ${unit}`, ...parts].join('  ');
  const clamped = Math.min(1, Math.max(0, fraction));
  const filled = Math.round(clamped * BAR);
  const bar = `[${'#'.repeat(filled)}${'.'.repeat(BAR - filled)}] ${String(Math.floor(clamped * 100)).padStart(3)}%`;
  if (clamped > 0.01) parts.push(`${minutes((seconds / clamped) * (1 - clamped))} left`);
  return [bar, ...parts].join('  ');
}
