/** One step of a counterexample: a line of a model at which a process does something that others can see. */
export interface TrailStep {
  /** The process, with its number where several run the same code. */
  readonly process: string;
  /** Model file, without directories, and line. */
  readonly place: string;
  /** The line as it is written, or the statement as spin prints it, with macros and inlines expanded. */
  readonly text: string;
}

/** The lines of every model file, by its path. */
export type Sources = ReadonlyMap<string, readonly string[]>;

const LINE = /^\s*\d+:\s+proc\s+(\d+) \((\S+?):\d+\) (\S+):(\d+) \(state \d+\)\s+\[(.*)\]$/;
const ASSIGNMENT = /^(\w+)(?:\[.*?\])?(?:\.\w+)? = (.*)$/;
const MESSAGE = /^\w+(\[.*\])?[!?]/;
/** What belongs to one process is declared inside it, so indented; what is shared is not. */
const OWN = /^ +(?:byte|short|bit|int) ([\w, ]+);/;
/** A device's choice is its own, but without it nobody understands what follows. */
const CHOICE = /^page = \d+$/;

/**
 * Reads `spin -k trail -p`: what the processes do after the world is set up, as far as it touches what they share. Statements of one
 * process that follow each other on one line are one step.
 */
export function parseTrail(output: string, sources: Sources): TrailStep[] {
  const lines = output.split('\n').flatMap((line) => {
    const [, number = '', name = '', path = '', row = '', statement] = LINE.exec(line) ?? [];
    return statement === undefined ? [] : [{ number, name, path, row: Number(row), statement }];
  });
  const own = new Set([...sources.values()].flatMap(ownNames));
  const setUp = lines.findLastIndex(({ name }) => name === ':init:');
  const steps: (TrailStep & { readonly number: string })[] = [];
  for (const { number, name, path, row, statement } of lines.slice(setUp + 1)) {
    const isChoice = name === 'device' && CHOICE.test(statement);
    if (!isChoice && !isShared(statement, own)) continue;
    const written = isChoice ? null : findWritten(sources.get(path) ?? [], row, statement);
    const place = `${path.slice(path.lastIndexOf('/') + 1)}:${written?.row ?? row}`;
    const before = steps.at(-1);
    if (before?.number === number && before.place === place) continue;
    steps.push({ number, process: name, place, text: written?.text ?? statement });
    if (statement.startsWith('broken = ')) break;
  }
  return steps.map(({ number, process, place, text }) => {
    const isOneOfSeveral = steps.some((step) => step.process === process && step.number !== number);
    return { process: isOneOfSeveral ? `${process} ${number}` : process, place, text };
  });
}

/** How far spin's line may be before the true one: in an inline it does not count lines that the preprocessor has left out. */
const LINES_LEFT_OUT = 20;

/** The line that a statement was written in: it has the same target, message or macro. */
function findWritten(
  lines: readonly string[],
  row: number,
  statement: string,
): { readonly row: number; readonly text: string } | null {
  const [name = ''] = /^\w+/.exec(statement) ?? [];
  const same = new RegExp(
    name === 'broken' ? 'HOLDS' : `\\b${name === 'ram' ? '(ram|cpu|FLUSH)' : name}\\b.*(=[^=]|[!?+)]|--)`,
  );
  const found = lines.slice(row - 1, row - 1 + LINES_LEFT_OUT).findIndex((line) => same.test(line));
  return found < 0 ? null : { row: row + found, text: (lines[row - 1 + found] ?? '').trim().replace(/^:: /, '') };
}

const ownNames = (lines: readonly string[]): string[] =>
  lines.flatMap(
    (line) =>
      OWN.exec(line)?.[1]
        ?.split(',')
        .map((name) => name.trim()) ?? [],
  );

/** Messages, stores to shared variables, and reads of table entries. */
function isShared(statement: string, own: ReadonlySet<string>): boolean {
  if (MESSAGE.test(statement)) return true;
  const [, target, value] = ASSIGNMENT.exec(statement) ?? [];
  if (target === undefined || value === undefined) return false;
  return !own.has(target) || /\b(ram|cpu)\[/.test(value);
}
