import type { Counterexample, ScheduledStep } from './schedule.ts';

/** The agents of a schedule, in the order in which they first act. */
const agentsOf = (schedule: readonly ScheduledStep[]): string[] => [...new Set(schedule.map(({ agent }) => agent))];

const textOf = ({ step, what }: ScheduledStep): string => (what === '' ? step : `${step}: ${what}`);

/**
 * A schedule as a Mermaid sequence diagram: a participant for each agent and one for each kind of thing that is shared; reads and
 * writes are arrows, what touches nothing is a note.
 */
export function mermaidSequence({ schedule, invariant, message }: Counterexample): string {
  const agents = agentsOf(schedule);
  const kinds = [...new Set(schedule.map(({ kind }) => kind))].filter((kind) => kind !== '');
  const clean = (text: string): string => text.replaceAll(';', ',').replaceAll('#', '').replaceAll('\n', ' ');
  const lines = [
    'sequenceDiagram',
    ...agents.map((agent, index) => `  participant A${index} as ${clean(agent)}`),
    ...kinds.map((kind, index) => `  participant K${index} as ${clean(kind)}`),
    ...schedule.map((step) => {
      const from = `A${agents.indexOf(step.agent)}`;
      if (step.kind === '') return `  Note over ${from}: ${clean(textOf(step))}`;
      const to = `K${kinds.indexOf(step.kind)}`;
      return `  ${from}${step.access === 'write' ? '->>' : '-->>'}${to}: ${clean(textOf(step))}`;
    }),
    `  Note over A0,A${agents.length - 1}: ${clean(`${invariant} broken: ${message}`)}`,
  ];
  return `${lines.join('\n')}\n`;
}

/**
 * A schedule for a terminal: a column for each agent, time downwards, a step in the column of who takes it; a row for each run of
 * steps of one agent is set apart from the next by a blank lifeline.
 * @param width columns of the terminal
 */
export function textSequence({ schedule, invariant, message }: Counterexample, width: number): string[] {
  const agents = agentsOf(schedule);
  const gap = 3;
  const column = Math.max(16, Math.floor((width - gap * (agents.length - 1)) / Math.max(1, agents.length)));
  const cell = (text: string, fill = ' '): string => text.padEnd(column, fill);
  const row = (cells: readonly string[]): string =>
    cells
      .map((text) => cell(text))
      .join(' '.repeat(gap))
      .trimEnd();
  const lines = [
    row(agents.map((agent) => clip(agent, column))),
    row(agents.map(() => '─'.repeat(Math.min(column, 12)))),
  ];
  for (const [at, step] of schedule.entries()) {
    const own = agents.indexOf(step.agent);
    if (at > 0 && schedule[at - 1]?.agent !== step.agent) lines.push(row(agents.map(() => '│')));
    const mark = step.access === 'write' ? '●' : step.access === 'read' ? '○' : '·';
    for (const [part, text] of wrap(textOf(step), column - 2).entries())
      lines.push(row(agents.map((_, index) => (index !== own ? '│' : part === 0 ? `${mark} ${text}` : `│ ${text}`))));
  }
  lines.push('', ...wrap(`${invariant} broken: ${message}`, width));
  return lines;
}

const clip = (text: string, width: number): string => (text.length <= width ? text : `${text.slice(0, width - 1)}…`);

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else for (let at = 0; at < Math.max(1, word.length); at += width) lines.push(word.slice(at, at + width));
  }
  return lines;
}
