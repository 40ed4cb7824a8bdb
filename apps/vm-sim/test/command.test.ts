import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporaryDirectory } from './support/temporary-directory.ts';

// The program as a user has it: built, and in a process of its own. Built beside `node_modules`, where its imports resolve.
const application = fileURLToPath(new URL('..', import.meta.url));
const built = join(application, 'node_modules', '.cache', `command-test-${process.pid}`);
const program = join(built, 'bin', 'vm-sim.js');

beforeAll(() => {
  const tsup = join(application, '..', '..', 'node_modules', 'tsup', 'dist', 'cli-default.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [tsup, '--out-dir', join(built, 'dist')], {
    cwd: application,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${stdout}${stderr}`);
  mkdirSync(join(built, 'bin'));
  writeFileSync(program, readFileSync(join(application, 'bin', 'vm-sim.js')));
}, 60_000);
afterAll(() => rmSync(built, { recursive: true, force: true }));

const SMALL = ['--set', 'vm.memory=1G', '--set', 'host.memory=2G', '--set', 'duration=5ms'];

function run(args: readonly string[], options: { cwd?: string; input?: string | Uint8Array } = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    cwd: options.cwd ?? application,
    env: { ...process.env, INIT_CWD: options.cwd ?? application },
    encoding: 'utf8',
    ...(options.input === undefined ? {} : { input: options.input }),
  });
  return { code: status, out: stdout, err: stderr };
}

const ended = (child: ChildProcess): Promise<{ code: number | null; signal: string | null }> =>
  new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));

describe('the program', () => {
  it('gives the same bytes for the same seed, and others for another', () => {
    const documents = ['1', '1', '2'].map((seed) => run(['run', '--json', '-q', '--seed', seed, ...SMALL]));
    for (const { code, err } of documents) expect({ code, err }).toEqual({ code: 0, err: '' });
    const [first, again, other] = documents.map(({ out }) => out);
    expect(again).toBe(first);
    expect(other).not.toBe(first);
    const { dma, verdict, invariants } = JSON.parse(first ?? '');
    expect(verdict).toBe('ok');
    expect(dma.requests).toBeGreaterThan(1000);
    expect(invariants.length).toBeGreaterThan(5);
  });

  it('writes a directory that repeats itself, from its last line on stderr too', () => {
    const cwd = temporaryDirectory();
    const first = run(['run', ...SMALL, '--seed', '5', '--output', 'out', '--fail-on', 'dma.requests > 10'], { cwd });
    expect(first).toMatchObject({ code: 0, out: expect.stringMatching(/^HELD /) });
    const stats = readFileSync(join(cwd, 'out/stats.json'));
    expect(run(['run', 'out/config.json', '--output', 'again', '-q'], { cwd }).code).toBe(0);
    expect(readFileSync(join(cwd, 'again/stats.json'))).toEqual(stats);
    const line = first.err.trimEnd().split('\n').at(-1) ?? '';
    expect(line).toMatch(/ run 1g-swap-storm .*--fail-on 'dma.requests > 10' --seed 5 --output out$/);
  });

  it('explains how the naive unmap kills the host', () => {
    const { code, out } = run(['naive-unmap']);
    expect(code).toBe(0);
    expect(out).toMatch(/^HOST CRASHED, as this scenario expects/);
    for (const text of ['How it died', 'HPA 0x', 'It set to zero', 'to the page allocator'])
      expect(out).toContain(text);
    expect(out.split('\n').length).toBeLessThanOrEqual(31);
  });

  it('finds the counterexample of naive', () => {
    const { code, out } = run(['verify', 'naive', '--json', '-q']);
    expect(code).toBe(3);
    expect(JSON.parse(out)).toMatchObject({ verdict: 'violated', counterexample: { schedule: expect.any(Array) } });
  });

  it('reads a scenario from stdin', () => {
    const input =
      'vm: { memory: 64M, backing: thp-2M }\nhost: { memory: 256M, swap: 64M }\nduration: 1ms\nname: piped\nvm2: 1\n';
    expect(run(['run', '-'], { input })).toMatchObject({ code: 2, err: expect.stringMatching(/^<stdin>:5:1: /) });
  });

  it('stops on SIGINT with a document and 130', async () => {
    const child = spawn(process.execPath, [program, 'run', '--json', '--set', 'duration=1000s'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      if (err === '') setTimeout(() => child.kill('SIGINT'), 500);
      err += chunk.toString();
    });
    expect(await ended(child)).toEqual({ code: 130, signal: null });
    expect(JSON.parse(out)).toMatchObject({ interrupted: true });
    expect(err).not.toContain('    at ');
  });

  it('is silent when the reader goes away', async () => {
    const child = spawn('/bin/sh', ['-c', '"$0" "$1" schema stats | head -n 1', process.execPath, program], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let err = '';
    child.stderr.on('data', (chunk: Buffer) => {
      err += chunk.toString();
    });
    child.stdout.resume();
    expect(await ended(child)).toMatchObject({ code: 0 });
    expect(err).toBe('');
  });
});
