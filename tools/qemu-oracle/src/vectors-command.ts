import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { RuleId } from './rules.ts';
import { EXIT, ProgressMeter, type Terminal, UsageError } from './terminal.ts';
import { answerText, subjectOf } from './vectors.ts';
import { runVectors, type VectorDifference, type VectorsResult } from './vectors-run.ts';

function differenceText({ line, operation, recorded, model }: VectorDifference): string {
  return `line ${line}: ${subjectOf(operation)}\n  recorded ${answerText(recorded)}\n  model    ${answerText(model)}\n`;
}

function report(terminal: Terminal, file: string, result: VectorsResult, json: boolean): void {
  const { compared, agree, differences, damage, lines } = result;
  if (json) {
    const shown = differences.map(({ line, recorded, model }) => ({
      line,
      recorded: JSON.parse(answerText(recorded)) as unknown,
      model: JSON.parse(answerText(model)) as unknown,
    }));
    terminal.out(`${JSON.stringify({ file, lines, compared, agree, differences: shown, damage })}\n`);
  } else {
    for (const difference of differences) terminal.out(differenceText(difference));
    const more = compared - agree - differences.length;
    if (more > 0) terminal.out(`and ${more} more\n`);
    terminal.out(`${agree} of ${compared} agree\n`);
  }
  if (damage !== null) terminal.err(`${file}:${damage.line}: ${damage.message}\n`);
}

/** `--vectors FILE`. @returns the exit code */
export async function vectorsCommand(
  terminal: Terminal,
  file: string,
  options: { readonly json: boolean; readonly rules: ReadonlySet<RuleId> },
): Promise<number> {
  const path = resolve(terminal.cwd, file);
  const found = await stat(path).catch(() => null);
  if (found === null || !found.isFile()) throw new UsageError(`--vectors: ${file} is no file that can be read`);
  const meter = new ProgressMeter(terminal);
  let interrupted = false;
  const undo = terminal.onInterrupt(() => {
    interrupted = true;
  });
  const result = await runVectors(
    { name: file, chunks: createReadStream(path) },
    {
      rules: options.rules,
      stopped: (_lines, compared) => {
        meter.update(compared, 0, 'DMAs');
        return interrupted;
      },
    },
  ).finally(undo);
  meter.clear();
  report(terminal, file, result, options.json);
  if (interrupted) return EXIT.interrupted;
  // A difference is one whatever became of the rest of the file.
  if (result.agree < result.compared) return EXIT.differs;
  return result.damage === null ? EXIT.ok : EXIT.usage;
}
