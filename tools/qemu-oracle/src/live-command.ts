import type { RuleId } from './rules.ts';
import { type Terminal, UsageError } from './terminal.ts';

/** A live comparison. */
export interface LiveOptions {
  readonly seed: number;
  readonly operations: number;
  readonly levels: readonly (3 | 4)[];
  readonly record: string | null;
  readonly shrunk: string | null;
  readonly seconds: number | null;
  readonly qemu: string;
  readonly json: boolean;
  readonly rules: ReadonlySet<RuleId>;
}

/** `--seed S --ops N`. @returns the exit code */
export async function liveCommand(_terminal: Terminal, _options: LiveOptions): Promise<number> {
  throw new UsageError('--seed: the live comparison is not built yet');
}
