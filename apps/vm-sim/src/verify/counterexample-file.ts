import { readFileSync, writeFileSync } from 'node:fs';
import { type Counterexample, mermaidSequence, type Protocol, replaySchedule } from '@faultline/interleave';
import { z } from 'zod';
import { UsageError } from '../exit-code.ts';
import { suggestion } from '../nearest.ts';

/** What a replay needs of the document that `verify --json` prints. */
const documentSchema = z.object({
  protocol: z.string(),
  counterexample: z.object({
    configuration: z.string(),
    invariant: z.string(),
    schedule: z.array(z.object({ task: z.number().int().min(0), chosen: z.number().int().min(0) })).min(1),
  }),
});

/** What replaying a recorded counterexample came to. */
export interface CounterexampleReplay {
  readonly protocol: string;
  readonly configuration: string;
  /** The invariant that was recorded as broken. */
  readonly recorded: string;
  /** What broke now; null if nothing did. */
  readonly counterexample: Counterexample | null;
}

/** Takes the steps of a recorded counterexample again. @throws UsageError naming the file and what is wrong with it */
export function replayCounterexample(file: string, protocols: readonly Protocol[]): CounterexampleReplay {
  const { protocol: name, counterexample } = readDocument(file);
  const protocol = protocols.find((of) => of.name === name);
  if (!protocol)
    throw new UsageError(
      `${file}: there is no protocol "${name}"${suggestion(
        name,
        protocols.map((of) => of.name),
      )}`,
    );
  const configuration = protocol.configurations.find((of) => of.name === counterexample.configuration);
  if (!configuration) throw new UsageError(`${file}: ${name} has no configuration "${counterexample.configuration}"`);
  try {
    const { violation } = replaySchedule(configuration.build, counterexample.schedule);
    return {
      protocol: name,
      configuration: configuration.name,
      recorded: counterexample.invariant,
      counterexample: violation,
    };
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(`${file}: ${error.message}`, { cause: error });
    throw error;
  }
}

function readDocument(file: string): z.output<typeof documentSchema> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${file}: cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`, {
      cause: error,
    });
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${file}: is not JSON: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  const result = documentSchema.safeParse(parsed);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new UsageError(
    `${file}: expected what \`verify --json\` prints of a violation; at ${issue?.path.join('.') || 'the top'}: ${issue?.message ?? 'unknown'}`,
  );
}

/** Writes a counterexample as a Mermaid diagram. @throws UsageError naming the file if it cannot be written */
export function writeMermaid(file: string, counterexample: Counterexample): void {
  try {
    writeFileSync(file, mermaidSequence(counterexample));
  } catch (error) {
    throw new UsageError(`${file}: cannot be written (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`, {
      cause: error,
    });
  }
}
