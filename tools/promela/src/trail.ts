/** One statement of a counterexample. */
export interface TrailStep {
  /** The process, with its number where several run the same code. */
  readonly process: string;
  /** Model file, without directories, and line. */
  readonly place: string;
  readonly statement: string;
}

const LINE = /^\s*\d+:\s+proc\s+(\d+) \((\S+?):\d+\) (\S+):(\d+) \(state \d+\)\s+\[(.*)\]$/;
/** Spin's own bookkeeping, and the branches that nothing happens in. */
const NOISE = /^(else|break|IF|DO|ATOMIC|D_STEP\d*|\.\(goto\)|goto .*|-end-|\(1\)|\(run .*|.*\(run .*)$/;

/**
 * Reads `spin -k trail -p`: what the processes do after the world is set up, without spin's bookkeeping. Statements of one process
 * that follow each other at one place are one step.
 */
export function parseTrail(output: string): TrailStep[] {
  const lines = output.split('\n').flatMap((line) => {
    const [, number, name, path, row, statement] = LINE.exec(line) ?? [];
    if (number === undefined || name === undefined || path === undefined || statement === undefined) return [];
    return [{ number, name, place: `${path.slice(path.lastIndexOf('/') + 1)}:${row}`, statement }];
  });
  const setUp = lines.findLastIndex(({ name }) => name === ':init:');
  const steps: (TrailStep & { readonly number: string })[] = [];
  for (const { number, name, place, statement } of lines.slice(setUp + 1)) {
    if (NOISE.test(statement)) continue;
    const before = steps.at(-1);
    if (before?.number === number && before.place === place)
      steps[steps.length - 1] = { ...before, statement: `${before.statement}; ${statement}` };
    else steps.push({ number, process: name, place, statement });
  }
  const numbers = (name: string): Set<string> =>
    new Set(steps.filter(({ process }) => process === name).map(({ number }) => number));
  const numbered = new Set(steps.map(({ process }) => process).filter((name) => numbers(name).size > 1));
  return steps.map(({ number, process, place, statement }) => ({
    process: numbered.has(process) ? `${process} ${number}` : process,
    place,
    statement,
  }));
}
