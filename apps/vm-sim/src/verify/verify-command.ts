import { VERSION } from '@faultline/machine';
import { aligned, counted, plural, wrapped } from '../columns.ts';
import { quoted } from '../command-line-text.ts';
import { EXIT, type ExitCode, UsageError } from '../exit-code.ts';
import { Interruption } from '../interruption.ts';
import { suggestion } from '../nearest.ts';
import { ProgressMeter } from '../progress-meter.ts';
import { jsonText } from '../run/run-directory.ts';
import { type Palette, paletteFor, type Terminal } from '../terminal.ts';
import type { ProtocolVerifier, Verification } from './protocol-verifier.ts';

/** Options of `vm-sim verify`. */
export interface VerifyOptions {
  readonly maxExecutions?: number;
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
  if (!names.includes(name)) throw new UsageError(`there is no protocol "${name}"${suggestion(name, names)}`);
  const say = (line: string): void => {
    if (!options.quiet) terminal.stderr.write(`${line}\n`);
  };
  say(`vm-sim ${VERSION}, Node ${process.versions.node}, verify ${name}`);
  const interruption = new Interruption(terminal);
  const meter = new ProgressMeter(terminal, options.quiet ?? false);
  try {
    const result = await explore(name, options, terminal, verifier, meter, interruption);
    meter.clear();
    terminal.stdout.write(
      options.json ? jsonText(result) : verificationText(result, options, paletteFor(terminal.stdout, terminal.env)),
    );
    say(againLine(name, options, terminal));
    if (interruption.requested && result.verdict !== 'violated') return EXIT.interrupted;
    return result.verdict === 'violated' ? EXIT.failed : EXIT.ok;
  } finally {
    meter.clear();
    interruption.end();
  }
}

function againLine(name: string, options: VerifyOptions, terminal: Terminal): string {
  const bound = options.maxExecutions === undefined ? '' : ` --max-executions ${options.maxExecutions}`;
  return `${terminal.startedAs} verify ${quoted(name)}${bound}${options.json ? ' --json' : ''}`;
}

async function explore(
  name: string,
  { maxExecutions }: VerifyOptions,
  terminal: Terminal,
  verifier: ProtocolVerifier,
  meter: ProgressMeter,
  interruption: Interruption,
): Promise<Verification> {
  const exploration = verifier.verify(name, {
    ...(maxExecutions === undefined ? {} : { maxExecutions }),
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

/** What `vm-sim verify` prints. */
export function verificationText(result: Verification, options: VerifyOptions, color: Palette): string {
  const { verdict, counterexample: found } = result;
  const paint = verdict === 'holds' ? color.green : verdict === 'violated' ? color.red : color.yellow;
  const word = { holds: 'HOLDS', violated: 'VIOLATED', interrupted: 'NOT FINISHED' }[verdict];
  const bound = options.maxExecutions === undefined ? 'interrupted' : 'stopped at --max-executions';
  const remark = {
    holds: 'in every interleaving explored',
    violated: found === null ? '' : `${found.invariant} in ${found.configuration}`,
    interrupted: `${bound}; no violation until then`,
  }[verdict];
  const lines = [
    `${paint(color.bold(word))}  ${result.protocol}: ${remark}`,
    ...(result.title === '' ? [] : [`  ${result.title}`]),
    `  ${plural(result.executions, 'execution')}, ${plural(result.steps, 'step')}, at most ${result.longest} in one`,
    ...configurationLines(result, options.verbose ?? false),
  ];
  if (found !== null) {
    lines.push(color.bold('Counterexample'), ...wrapped(found.message, 96).map((line) => `  ${line}`));
    const rows = found.schedule.map(({ agent, step, what }, index) => ({ number: index + 1, agent, step, what }));
    const agentWidth = Math.max(0, ...rows.map(({ agent }) => agent.length));
    const stepWidth = Math.max(0, ...rows.map(({ step }) => step.length));
    for (const { number, agent, step, what } of rows)
      lines.push(
        `  ${String(number).padStart(3)}  ${agent.padEnd(agentWidth)}  ${step.padEnd(stepWidth)}  ${what}`.trimEnd(),
      );
  }
  return `${lines.join('\n')}\n`;
}

function configurationLines({ configurations }: Verification, all: boolean): string[] {
  const shown = all ? configurations : configurations.filter(({ verdict }) => verdict !== 'holds');
  const holding = configurations.filter(({ verdict }) => verdict === 'holds').length;
  return [
    `  ${plural(configurations.length, 'configuration')} explored, ${counted(holding)} of them hold${all ? '' : ' (-v lists them)'}`,
    ...aligned(shown.map(({ name, executions, verdict }) => [name, plural(executions, 'execution'), verdict])).map(
      (line) => `    ${line}`,
    ),
  ];
}
