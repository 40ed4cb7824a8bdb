import { STORM_FEATURE_KINDS, type StormFeatureKind, type StormFeatures } from '@faultline/machine';
import { aligned, counted } from '../columns.ts';

/** How many machines of a storm had each feature, or met it; and how often each failure on purpose struck. */
export class StormCoverage {
  readonly #machines = new Map<StormFeatureKind, Map<string, number>>(
    STORM_FEATURE_KINDS.map((kind) => [kind, new Map<string, number>()]),
  );
  readonly #injected = new Map<string, number>();

  /** Notes a machine. @param reached null if it ended in an exception */
  add(reached: StormFeatures | null, injected: Readonly<Record<string, number>>): void {
    for (const [kind, names] of this.#machines) for (const name of reached?.[kind] ?? []) count(names, name, 1);
    for (const [name, times] of Object.entries(injected)) count(this.#injected, name, times);
  }

  /** As the JSON report has it: machines by kind and name of feature, and failures by kind. */
  document(): { coverage: Record<string, Record<string, number>>; injected: Record<string, number> } {
    const coverage = [...this.#machines].map(([kind, names]) => [kind, sorted(names)] as const);
    return { coverage: Object.fromEntries(coverage), injected: sorted(this.#injected) };
  }

  /** Lines of the report: failures by kind, then a table of machines by feature. */
  lines(): string[] {
    const failures = [...this.#injected].filter(([, times]) => times > 0);
    const rows = [...this.#machines].flatMap(([kind, names]) =>
      inFours(Object.entries(sorted(names))).map((four, index) => [
        index === 0 ? kind : '',
        ...four.map(([name, machines]) => `${name} ${counted(machines)}`),
      ]),
    );
    return [
      ...(failures.length > 0
        ? ['failures on purpose', ...aligned(failures.map(([name, times]) => [`  ${name}`, counted(times), '']))]
        : []),
      'machines with each feature; of events and failures, those in which it happened',
      ...leftAligned(rows).map((line) => `  ${line}`),
    ];
  }
}

function count(names: Map<string, number>, name: string, by: number): void {
  names.set(name, (names.get(name) ?? 0) + by);
}

const sorted = (names: ReadonlyMap<string, number>): Record<string, number> =>
  Object.fromEntries([...names].sort(([a], [b]) => (a < b ? -1 : 1)));

const inFours = <T>(all: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(all.length / 4) }, (_, row) => all.slice(4 * row, 4 * row + 4));

function leftAligned(rows: readonly string[][]): string[] {
  const widths = [0, 1, 2, 3, 4].map((at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
