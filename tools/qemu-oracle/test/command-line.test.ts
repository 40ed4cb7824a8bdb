import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { runOracle } from '../src/command-line.ts';
import { RULES } from '../src/rules.ts';
import { meterText } from '../src/terminal.ts';
import { RecordingTerminal } from './recording-terminal.ts';

const FIXTURES = join(import.meta.dirname, 'fixtures');
const directory = mkdtempSync(join(tmpdir(), 'oracle-test-'));
afterAll(() => rmSync(directory, { recursive: true }));

async function oracle(...args: string[]) {
  const terminal = new RecordingTerminal({ cwd: FIXTURES });
  const code = await runOracle(terminal, args);
  return { code, stdout: terminal.stdout, stderr: terminal.stderr };
}

test("--vectors: all agree, exit 0; the path is the user's", async () => {
  const { code, stdout, stderr } = await oracle('--vectors', 'qemu11-4level-head.jsonl.gz');
  expect([code, stdout, stderr]).toEqual([0, '4927 of 4927 agree\n', '']);
});

test('--vectors: a difference is shown with both answers, exit 3', async () => {
  const { code, stdout } = await oracle('--vectors', 'rules/silent-denial.jsonl', '--without-rule', 'silent-denial');
  expect(code).toBe(3);
  expect(stdout).toMatch(/^line 10: read 0x18040204968 by 0x20\n {2}recorded {"gpa".*\n {2}model {4}{"fault":6/);
  expect(stdout).toMatch(/\n1 of 2 agree\n$/);
});

test('--vectors: damage is exit 2, with what was compared before; 3 if an answer there differs', async () => {
  const path = join(directory, 'damaged.jsonl');
  const configuration = '{"cfg":{"levels":4,"cap":"0xd2008c222f0606","ecap":"0xf00f4a","root":"0x1000","sid":"0x20"}}';
  const answered = (reason: number) => `{"dma":["0x0","r"],"res":{"fault":${reason},"type":"r","addr":"0x0"}}`;
  writeFileSync(path, `${configuration}\n${answered(1)}\n{"w":[]}\n`);
  const { code, stdout, stderr } = await oracle('--vectors', path);
  expect([code, stdout]).toEqual([2, '1 of 1 agree\n']);
  expect(stderr).toBe(`${path}:3: expected "w" as [address, value], got []\n`);
  writeFileSync(path, `${configuration}\n${answered(2)}\n{"w":[]}\n`);
  const differing = await oracle('--vectors', path);
  expect(differing.code).toBe(3);
  expect(differing.stdout).toMatch(/\n0 of 1 agree\n$/);
  expect(differing.stderr).toBe(stderr);
});

test('--vectors --json', async () => {
  const { code, stdout } = await oracle('--vectors', 'rules/silent-denial.jsonl', '--json');
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({
    file: 'rules/silent-denial.jsonl',
    lines: 10,
    compared: 2,
    agree: 2,
    differences: [],
    damage: null,
  });
});

test('--rules prints each, also as JSON', async () => {
  const { code, stdout } = await oracle('--rules');
  expect(code).toBe(0);
  for (const { id, qemu } of RULES) {
    expect(stdout).toContain(`${id} (`);
    expect(stdout).toContain(qemu);
  }
  expect(JSON.parse((await oracle('--rules', '--json')).stdout)).toEqual(RULES);
});

test.each([
  [['--vectors', 'missing.jsonl'], '--vectors: missing.jsonl is no file that can be read'],
  [[], 'expected exactly one of'],
  [['--rules', '--vectors', 'x'], 'expected exactly one of'],
  [['--seed', '1'], '--ops: needed with --seed'],
  [['--ops', '1'], '--seed: needed with --ops'],
  [['--seed', '-1', '--ops', '5'], '--seed'],
  [['--seed', 'x', '--ops', '5'], '--seed: expected an integer from 0 to 9007199254740991, got x'],
  [['--seed', '1', '--ops', '0'], '--ops: expected an integer from 1 to 1000000000, got 0'],
  [['--seed', '1', '--ops', '5', '--levels', '5'], '--levels: expected an integer from 3 to 4, got 5'],
  [['--seed', '1', '--ops', '5', '--record', 'x'], '--record: needs --levels 3 or --levels 4'],
  [['--vectors', 'x', '--without-rule', 'x'], '--without-rule: expected one of page-mask-8-bits'],
  [['--frobnicate'], "Unknown option '--frobnicate'"],
  [['stray'], 'stray'],
])('%j cannot be used: exit 2', async (args, message) => {
  const { code, stderr } = await oracle(...args);
  expect(code).toBe(2);
  expect(stderr).toContain(message);
});

test('QEMU is missing: the package, exit 2', async () => {
  const { code, stdout, stderr } = await oracle('--seed', '1', '--ops', '10', '--qemu', 'no-such-qemu');
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).toBe(
    'oracle: no-such-qemu is not there or cannot be run; on Debian: apt-get install --no-install-recommends qemu-system-x86\n',
  );
});

test('--help, exit 0', async () => {
  const { code, stdout } = await oracle('--help');
  expect(code).toBe(0);
  expect(stdout).toContain('--without-rule ID');
});

test('the meter says rate and time left', () => {
  expect(meterText(500, 2000, 'operations', 1)).toBe('500 of 2,000 operations  500 operations/s  3 s left');
  expect(meterText(500, 0, 'DMAs', 2)).toBe('500 DMAs  250 DMAs/s');
  expect(meterText(0, 10, 'operations', 0)).toBe('0 of 10 operations  0 operations/s');
});
