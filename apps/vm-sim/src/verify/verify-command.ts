import type { Protocol, VerifyResult } from '@faultline/interleave';
import { VERSION } from '@faultline/machine';
import { quoted } from '../command-line-text.ts';
import { EXIT, type ExitCode, UsageError } from '../exit-code.ts';
import { Interruption } from '../interruption.ts';
import { suggestion } from '../nearest.ts';
import { ProgressMeter } from '../progress-meter.ts';
import { jsonText } from '../run/run-directory.ts';
import { paletteFor, type Terminal } from '../terminal.ts';
import { replayCounterexample, writeMermaid } from './counterexample-file.ts';
import type { ProtocolVerifier } from './protocol-verifier.ts';
import { counterexampleLines, verificationText } from './verification-text.ts';

/** Options of `vm-sim verify`. */
export interface VerifyOptions {
  readonly maxExecutions?: number;
  /** Only executions with at most so many preemptions. */
  readonly preemptions?: number;
  /** So many random schedules in each configuration, instead of all. */
  readonly random?: number;
  readonly seed?: number;
  /** File for the counterexample as a Mermaid diagram. */
  readonly mermaid?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  /** Lists every configuration. */
  readonly verbose?: boolean;
}

/** Explores every order of a protocol's steps and prints that it holds, or the schedule that breaks it. */
export async function verifyCommand(
  name: string,
  options: VerifyOptions,
  terminal: Terminal,
  verifier: ProtocolVerifier,
): Promise<ExitCode> {
  const names = verifier.protocols.map((protocol) => protocol.name);
  const protocol = verifier.protocols.find((of) => of.name === name);
  if (!protocol) throw new UsageError(`there is no protocol "${name}"${suggestion(name, names)}`);
  if (options.random !== undefined && options.preemptions !== undefined)
    throw new UsageError('verify: --random and --preemptions are two ways to explore; give one of them');
  if (options.seed !== undefined && options.random === undefined)
    throw new UsageError('verify: --seed is for random schedules; give --random too');
  const say = (line: string): void => {
    if (!options.quiet) terminal.stderr.write(`${line}\n`);
  };
  say(`vm-sim ${VERSION}, Node ${process.versions.node}, verify ${name}`);
  const interruption = new Interruption(terminal);
  const meter = new ProgressMeter(terminal, options.quiet ?? false);
  const startMs = terminal.nowMs();
  try {
    const result = await explore(protocol, options, terminal, verifier, meter, interruption);
    meter.clear();
    if (result.counterexample && options.mermaid) writeMermaid(options.mermaid, result.counterexample);
    const { maxExecutions, verbose } = options;
    const drawn = {
      ...(maxExecutions === undefined ? {} : { maxExecutions }),
      ...(verbose === undefined ? {} : { verbose }),
      width: terminal.stdout.columns,
      seconds: (terminal.nowMs() - startMs) / 1000,
    };
    terminal.stdout.write(
      options.json ? jsonText(result) : verificationText(result, drawn, paletteFor(terminal.stdout, terminal.env)),
    );
    say(againLine(name, options, terminal));
    if (interruption.requested && result.verdict !== 'violated') return EXIT.interrupted;
    return result.verdict === 'violated' ? EXIT.failed : EXIT.ok;
  } finally {
    meter.clear();
    interruption.end();
  }
}

/** Takes the steps of a recorded counterexample again, and prints what broke. Exit 3 if something did. */
export function verifyReplayCommand(
  file: string,
  options: Pick<VerifyOptions, 'json' | 'mermaid'>,
  terminal: Terminal,
  verifier: ProtocolVerifier,
): ExitCode {
  const result = replayCounterexample(file, verifier.protocols);
  const { counterexample: found } = result;
  if (found && options.mermaid) writeMermaid(options.mermaid, found);
  const color = paletteFor(terminal.stdout, terminal.env);
  const heading = found
    ? `${color.red(color.bold('VIOLATED'))}  ${result.protocol}: ${found.invariant} in ${result.configuration}`
    : `${color.green(color.bold('HOLDS'))}  ${result.protocol}: these steps break nothing any more (${result.recorded} was recorded)`;
  const lines = [heading, ...(found ? counterexampleLines(found, terminal.stdout.columns, color) : [])];
  terminal.stdout.write(options.json ? jsonText(result) : `${lines.join('\n')}\n`);
  return found ? EXIT.failed : EXIT.ok;
}

function againLine(name: string, options: VerifyOptions, terminal: Terminal): string {
  const { maxExecutions, preemptions, random, seed, json } = options;
  const words = [
    ...(maxExecutions === undefined ? [] : [`--max-executions ${maxExecutions}`]),
    ...(preemptions === undefined ? [] : [`--preemptions ${preemptions}`]),
    ...(random === undefined ? [] : [`--random ${random} --seed ${seed ?? 1}`]),
    ...(json ? ['--json'] : []),
  ];
  return [terminal.startedAs, 'verify', quoted(name), ...words].join(' ');
}

async function explore(
  protocol: Protocol,
  { maxExecutions, preemptions, random, seed }: VerifyOptions,
  terminal: Terminal,
  verifier: ProtocolVerifier,
  meter: ProgressMeter,
  interruption: Interruption,
): Promise<VerifyResult> {
  const exploration = verifier.verify(protocol, {
    ...(maxExecutions === undefined ? {} : { maxExecutions }),
    ...(preemptions === undefined ? {} : { preemptions }),
    ...(random === undefined ? {} : { random: { executions: random, seed: seed ?? 1 } }),
    shouldStop: () => interruption.requested,
  });
  let breathedMs = terminal.nowMs();
  for (;;) {
    const next = exploration.next();
    if (next.done) return next.value;
    const { executions } = next.value;
    meter.update({
      fraction: maxExecutions === undefined ? undefined : executions / maxExecutions,
      done: executions,
      unit: 'executions',
    });
    if (terminal.nowMs() - breathedMs > 30) {
      await terminal.breathe();
      breathedMs = terminal.nowMs();
    }
  }
}
