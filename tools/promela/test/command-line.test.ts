import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, type TestContext, vi } from 'vitest';
import { runPromela } from '../src/command-line.ts';
import { toolVersions } from '../src/spin.ts';
import { RecordingTerminal } from './recording-terminal.ts';

/** Other tests may keep the processors busy, and the compiler slow. */
vi.setConfig({ testTimeout: 180_000 });

async function promela(...args: string[]) {
  const terminal = new RecordingTerminal();
  const code = await runPromela(terminal, args);
  return { code, stdout: terminal.stdout, stderr: terminal.stderr };
}

async function needsSpin(context: TestContext): Promise<void> {
  try {
    await toolVersions();
  } catch (error) {
    context.skip(`not tested: ${(error as Error).message}`);
  }
}

// A temporary directory of their own: in the common one other runs come and go.
const temporary = mkdtempSync(join(tmpdir(), 'promela-test-'));
vi.stubEnv('TMPDIR', temporary);
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(temporary, { recursive: true });
});

describe('a command line that cannot be followed ends with 2 and says what was expected', () => {
  const wrong: readonly (readonly [string, ...string[]])[] = [
    ["Unknown option '--fast'", '--fast'],
    ['protocol: expected one of cut, collapse, map', 'magic'],
    ['defect: expected one of D1, D3, D4', '--zoo', 'D2'],
    ['--memory: expected an integer from 1 to 1000000, got 1G', '--memory', '1G'],
    ['--time: expected an integer from 1 to 1000000, got 0', '--time', '0'],
    ['--define: expected NAME or NAME=number in capitals, got -O3', 'cut', '--define=-O3'],
    ['--define: expected the name of one protocol with it', '--define', 'ATS'],
    ['expected at most one of --zoo, --compare, --define', '--zoo', '--compare'],
  ];
  for (const [message, ...args] of wrong)
    it(args.join(' '), async () => {
      const { code, stdout, stderr } = await promela(...args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toContain(message);
      expect(stderr).not.toContain('    at ');
    });
});

it('helps and lists without spin', async () => {
  expect((await promela('--help')).stdout).toContain('usage: npm run --silent promela');
  const { code, stdout } = await promela('--list');
  expect(code).toBe(0);
  expect(stdout).toContain('patch-2023 (violated)\n');
  expect(stdout).toContain('  cut ADE D5: I8\n');
});

describe('without spin', () => {
  const path = process.env.PATH;
  afterEach(() => {
    process.env.PATH = path;
  });

  it('says which package has it, and ends with 2', async () => {
    process.env.PATH = '';
    const { code, stdout, stderr } = await promela();
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toBe('promela: needs spin: apt-get install spin (Debian)\n');
  });
});

describe('with spin', () => {
  it('finds naive violated as expected, and shows nothing else on stdout with --json', async (context) => {
    await needsSpin(context);
    const { code, stdout, stderr } = await promela('naive', '--define', 'LEAF_LEVEL=3', '--json');
    expect(code).toBe(3);
    expect(stderr).toMatch(/^promela: Spin Version/);
    const [row] = JSON.parse(stdout);
    expect(row).toMatchObject({
      protocol: 'naive',
      configuration: 'LEAF_LEVEL=3',
      verdict: 'violated',
      invariant: 'I3',
    });
    expect(row.counterexample.at(-1).text).toMatch(/^HOLDS\(3, /);
    expect(readdirSync(temporary)).toEqual([]);
  });

  it('gives a search that is not completed no verdict', async (context) => {
    await needsSpin(context);
    const { code, stdout } = await promela('cut', '--define', 'ATS', '--memory', '45');
    expect(code).toBe(3);
    expect(stdout).toContain('interrupted: out of memory');
  });

  it('ends with 130 when interrupted, and leaves nothing behind', async (context) => {
    await needsSpin(context);
    const interruption = new AbortController();
    const terminal = new RecordingTerminal(interruption.signal);
    const running = runPromela(terminal, ['map', '--json']);
    await new Promise((resolve) => setTimeout(resolve, 500));
    interruption.abort();
    expect(await running).toBe(130);
    expect(JSON.parse(terminal.stdout)).toEqual([]);
    expect(readdirSync(temporary)).toEqual([]);
  });
});
