import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { afterAll, expect, type TestContext, test, vi } from 'vitest';
import { runOracle } from '../src/command-line.ts';
import { type Answer, type Configuration, type Operation, perform } from '../src/program.ts';
import { QemuSubject } from '../src/qemu-subject.ts';
import { Qtest } from '../src/qtest.ts';
import { answerText, readVectorLine } from '../src/vectors.ts';
import { RecordingTerminal } from './recording-terminal.ts';

/** Other tests may keep the processors busy meanwhile. */
vi.setConfig({ testTimeout: 180_000 });

const PROGRAM = 'qemu-system-x86_64';
const FIXTURES = join(import.meta.dirname, 'fixtures');
const directory = mkdtempSync(join(tmpdir(), 'oracle-live-'));
afterAll(() => rmSync(directory, { recursive: true }));

function needsQemu(context: TestContext): void {
  if (spawnSync(PROGRAM, ['--version']).status !== 0)
    context.skip('not tested: no qemu-system-x86_64 (Debian package qemu-system-x86)');
}

async function oracle(...args: string[]) {
  const terminal = new RecordingTerminal({ cwd: directory });
  const code = await runOracle(terminal, args);
  return { code, stdout: terminal.stdout, stderr: terminal.stderr, terminal };
}

/** Ids of the processes that a process has started and that run QEMU. */
function qemuChildren(parent: number | undefined = process.pid): string[] {
  return readdirSync('/proc').filter((id) => {
    if (!/^\d+$/.test(id)) return false;
    try {
      const [, name = '', owner] = /\((.*)\) \S (\d+)/.exec(readFileSync(`/proc/${id}/stat`, 'utf8')) ?? [];
      return name.startsWith('qemu') && Number(owner) === parent;
    } catch {
      return false; // it has ended meanwhile
    }
  });
}

const firmwareDirectories = (): string[] =>
  readdirSync(tmpdir()).filter((name) => name.startsWith('faultline-oracle-'));

test('QEMU and the model agree on random programs, at 3 and 4 levels', async (context) => {
  needsQemu(context);
  const before = firmwareDirectories();
  const { code, stdout, stderr } = await oracle('--seed', '11', '--ops', '6000', '--json');
  expect([code, stderr]).toEqual([0, '']);
  const summary = JSON.parse(stdout) as Record<string, unknown> & { answers: Record<string, number> };
  expect(summary).toMatchObject({ seed: 11, levels: [4, 3], operations: 6000, difference: null });
  expect(summary.agree).toBe(summary.compared);
  for (const kind of ['hit', 'walk', 'fault 5', 'fault 6', 'fault 12'])
    expect(summary.answers[kind]).toBeGreaterThan(0);
  expect(qemuChildren()).toEqual([]);
  expect(firmwareDirectories()).toEqual(before);
});

test('a difference is found, shrunk, and shown again by the file', async (context) => {
  needsQemu(context);
  const args = ['--seed', '7', '--ops', '60000', '--levels', '4', '--without-rule', 'context-reserved-recorded'];
  const { code, stdout } = await oracle(...args, '--shrunk', 'shrunk.jsonl');
  expect(code).toBe(3);
  expect(stdout).toMatch(/^seed 7, 4 levels, program \d+, operation \d+: (read|write) 0x/);
  expect(stdout).toMatch(/ {2}QEMU {2}{"fault":11.*\n {2}model {"blocked":true}\n/);
  const lines = readFileSync(join(directory, 'shrunk.jsonl'), 'utf8').trimEnd().split('\n');
  // A root entry, a context entry and the DMA; the program was 2,000 operations.
  expect(lines.length).toBeLessThanOrEqual(5);
  const again = await oracle('--vectors', 'shrunk.jsonl', '--without-rule', 'context-reserved-recorded');
  expect(again.code).toBe(3);
  expect((await oracle('--vectors', 'shrunk.jsonl')).code).toBe(0);
});

test('a recording of several programs agrees when it is run from the file', async (context) => {
  needsQemu(context);
  const live = await oracle('--seed', '12', '--ops', '5000', '--levels', '3', '--record', 'recorded.jsonl');
  expect(live.code).toBe(0);
  const counted = /(\d+) of \d+ agree\n$/.exec(live.stdout)?.[1];
  const { code, stdout } = await oracle('--vectors', 'recorded.jsonl');
  expect([code, stdout]).toEqual([0, `${counted} of ${counted} agree\n`]);
});

test('the recorded programs of the rules get the same answers again', async (context) => {
  needsQemu(context);
  const start = { program: PROGRAM, levels: 4, root: 0x10_0000n, contextTable: 0x10_2000n, seed: '' } as const;
  const qemu = await QemuSubject.start(start);
  try {
    for (const kind of ['rules', 'avoided'])
      for (const file of readdirSync(join(FIXTURES, kind))) {
        const { operations, answers } = readProgram(join(FIXTURES, kind, file));
        await qemu.reset();
        const given = await Promise.all(operations.map((operation) => perform(qemu, operation)));
        expect(given.map(textOf), file).toEqual(answers.map(textOf));
      }
  } finally {
    await qemu.close();
  }
});

const textOf = (answer: Answer | null): string => (answer === null ? '' : answerText(answer));

function readProgram(path: string): { operations: Operation[]; answers: (Answer | null)[] } {
  const raw = readFileSync(path);
  const lines = (path.endsWith('.gz') ? gunzipSync(raw) : raw).toString().trimEnd().split('\n');
  let configuration: Configuration | null = null;
  const operations: Operation[] = [];
  const answers: (Answer | null)[] = [];
  for (const [index, text] of lines.entries()) {
    const line = readVectorLine(text, index + 1, configuration);
    if (line.kind === 'configuration') configuration = line.configuration;
    else if (line.kind === 'operation') {
      operations.push(line.operation);
      answers.push(line.answer);
    }
  }
  return { operations, answers };
}

test('Ctrl-C: what was compared so far, exit 130, no QEMU left', async (context) => {
  needsQemu(context);
  const terminal = new RecordingTerminal({ cwd: directory, stderrIsTerminal: true });
  const running = runOracle(terminal, ['--seed', '1', '--ops', '1000000']);
  while (!terminal.stderr.includes('operations/s')) await sleep(20);
  terminal.pressCtrlC();
  expect(await running).toBe(130);
  expect(terminal.stdout).toMatch(/\n[1-9]\d* of [1-9]\d* agree\n$/);
  expect(terminal.listening).toBe(false);
  expect(qemuChildren()).toEqual([]);
});

test('if the oracle itself is killed, QEMU ends too', async (context) => {
  needsQemu(context);
  if (!existsSync('/usr/bin/setpriv')) context.skip('not tested: no setpriv (Debian package util-linux)');
  // The test runs its sources through vitest; a process to kill needs them bundled.
  const tool = join(import.meta.dirname, '..');
  const tsup = join(tool, '..', '..', 'node_modules', 'tsup', 'dist', 'cli-default.js');
  const built = spawnSync(process.execPath, [tsup, '--out-dir', join(directory, 'dist')], { cwd: tool });
  expect(built.status).toBe(0);
  const main = join(directory, 'dist', 'main.js');
  // Whoever is killed cannot remove its temporary files.
  const env = { ...process.env, TMPDIR: directory };
  const killed = spawn(process.execPath, [main, '--seed', '1', '--ops', '1000000'], { stdio: 'ignore', env });
  let qemu: string | undefined;
  for (; qemu === undefined; [qemu] = qemuChildren(killed.pid)) await sleep(50);
  killed.kill('SIGKILL');
  for (let tries = 0; existsSync(`/proc/${qemu}`) && tries < 100; tries++) await sleep(50);
  expect(existsSync(`/proc/${qemu}`)).toBe(false);
});

test('a QEMU that hangs is ended, and the error says so', async () => {
  // Answers once, as QEMU does when it is ready, and never again.
  const program = join(directory, 'hanging-qemu');
  writeFileSync(program, '#!/bin/sh\nread line\necho OK 0x00\nexec sleep 1000\n');
  chmodSync(program, 0o755);
  const qtest = await Qtest.start({
    program,
    arguments: [],
    traceEvents: [],
    onTrace: () => undefined,
    hangSeconds: 1,
  });
  const { pid } = qtest;
  await expect(qtest.ask('readb 0x0')).rejects.toThrow(`QEMU (process ${pid}) gave no answer for 1 s and was ended`);
  await qtest.close();
  expect(existsSync(`/proc/${pid}`)).toBe(false);
});

test('a QEMU that ends, or says no, is an error with its words', async () => {
  const program = join(directory, 'failing-qemu');
  writeFileSync(program, '#!/bin/sh\necho "no such machine" >&2\nexit 1\n');
  chmodSync(program, 0o755);
  const { code, stderr } = await oracle('--seed', '1', '--ops', '10', '--qemu', program);
  expect(code).toBe(2);
  expect(stderr).toBe('oracle: QEMU ended (status 1): no such machine\n');
});
