import { type Counterexample, textSequence, type VerifyResult } from '@faultline/interleave';
import { aligned, counted, plural, wrapped } from '../columns.ts';
import type { Palette } from '../terminal.ts';

/** How the text is drawn. */
export interface VerificationTextOptions {
  /** Lists every configuration. */
  readonly verbose?: boolean;
  readonly maxExecutions?: number;
  /** Columns of the terminal. */
  readonly width: number;
  /** Wall time that it took. */
  readonly seconds: number;
}

const MODES: Readonly<Record<VerifyResult['mode'], string>> = {
  exhaustive: 'in every interleaving',
  preemptions: 'in every interleaving with so few preemptions',
  random: 'in every random schedule tried',
};

/** What `vm-sim verify` prints. */
export function verificationText(result: VerifyResult, options: VerificationTextOptions, color: Palette): string {
  const { verdict, counterexample: found } = result;
  const paint = verdict === 'holds' ? color.green : verdict === 'violated' ? color.red : color.yellow;
  const word = { holds: 'HOLDS', violated: 'VIOLATED', interrupted: 'NOT FINISHED' }[verdict];
  const bound = options.maxExecutions === undefined ? 'interrupted' : 'stopped at --max-executions';
  const remark = {
    holds: MODES[result.mode],
    violated: found === null ? '' : `${found.invariant} in ${found.configuration}`,
    interrupted: `${bound}; no violation until then`,
  }[verdict];
  const lines = [
    `${paint(color.bold(word))}  ${result.protocol}: ${remark}`,
    ...(result.title === '' ? [] : [`  ${result.title}`]),
    `  ${plural(result.executions, 'execution')} of ${estimate(result.ordersLog10)} orders; ${counted(result.states)} states, ${plural(result.steps, 'step')}, at most ${result.longest} in one; ${options.seconds.toFixed(1)} s`,
    ...configurationLines(result, options.verbose ?? false),
  ];
  if (found !== null) lines.push(...counterexampleLines(found, options.width, color));
  return `${lines.join('\n')}\n`;
}

/** A counterexample as a picture, its message first. */
export function counterexampleLines(
  found: Counterexample & { readonly stepsWhenFound?: number },
  width: number,
  color: Palette,
): string[] {
  const shrunk =
    found.stepsWhenFound !== undefined && found.stepsWhenFound > found.schedule.length
      ? ` (found with ${found.stepsWhenFound})`
      : '';
  return [
    color.bold(`Counterexample, ${plural(found.schedule.length, 'step')}${shrunk}`),
    ...wrapped(found.message, Math.min(width, 98) - 2).map((line) => `  ${line}`),
    '',
    ...textSequence(found, Math.min(width, 140) - 2).map((line) => `  ${line}`.trimEnd()),
  ];
}

const estimate = (log10: number): string =>
  log10 < 6 ? `about ${counted(Math.round(10 ** log10))}` : `about 10^${Math.round(log10)}`;

function configurationLines({ configurations }: VerifyResult, all: boolean): string[] {
  const shown = all ? configurations : configurations.filter(({ verdict }) => verdict !== 'holds');
  const holding = configurations.filter(({ verdict }) => verdict === 'holds').length;
  return [
    `  ${plural(configurations.length, 'configuration')} explored, ${counted(holding)} of them hold${all ? '' : ' (-v lists them)'}`,
    ...aligned(
      shown.map(({ name, executions, ordersLog10, verdict }) => [
        name,
        plural(executions, 'execution'),
        `of ${estimate(ordersLog10)}`,
        verdict,
      ]),
    ).map((line) => `    ${line}`),
  ];
}
