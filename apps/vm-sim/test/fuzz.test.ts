import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { featuresOf, type StormFigures, scenarioSchema } from '@faultline/machine';
import { describe, expect, it } from 'vitest';
import { fuzzCommand } from '../src/fuzz/fuzz-command.ts';
import type { StormResult } from '../src/fuzz/storm-machine.ts';
import type { StormPool } from '../src/fuzz/storm-pool.ts';
import { type FakeOptions, fakeTerminal } from './support/fake-terminal.ts';
import { invoke } from './support/invocation.ts';
import { temporaryDirectory } from './support/temporary-directory.ts';

const FIGURES: StormFigures = {
  dmaPages: 100,
  swapOut: 10,
  pageRequests: 5,
  notifierRanges: 20,
  events: 3,
  injected: 2,
  checks: 1000,
};

/** A machine that fails if its seed is one of these. */
const machine =
  (failing: readonly number[], seen: number[]) =>
  (seed: number): StormResult => {
    seen.push(seed);
    const scenario = { name: `storm-${seed}`, strategy: 'cut' } as const;
    const failure = failing.includes(seed) ? { kind: 'I1', message: 'a stale DMA' } : null;
    const reached = featuresOf(scenarioSchema.parse(scenario));
    const injected = { swapRead: 2, swapWrite: 0 };
    const signature = `combination ${seed % 3}`;
    return { seed, scenario, shrunk: scenario, failure, figures: FIGURES, reached, injected, signature };
  };

/** One machine at a time, in this thread. */
function inlinePool(run: (seed: number) => StormResult): StormPool {
  const waiting: number[] = [];
  return {
    get hasRoom() {
      return waiting.length === 0;
    },
    begin: (seed) => {
      waiting.push(seed);
    },
    next: async () => {
      const seed = waiting.shift();
      return seed === undefined ? null : run(seed);
    },
    close: async () => undefined,
  };
}

async function fuzz(
  options: Parameters<typeof fuzzCommand>[0],
  failing: readonly number[] = [],
  fake: FakeOptions = {},
) {
  const seen: number[] = [];
  const terminal = fakeTerminal(fake);
  const code = await fuzzCommand(options, terminal, () => inlinePool(machine(failing, seen)));
  return { code, seen, out: terminal.out(), err: terminal.err() };
}

describe('fuzz', () => {
  it('runs so many machines, each with the next seed, and adds up', async () => {
    const { code, seen, out } = await fuzz({ runs: 4, seed: 7, quiet: true });
    expect(code).toBe(0);
    expect(seen).toEqual([7, 8, 9, 10]);
    expect(out).toMatch(/^NO VIOLATION in 4 machines, /);
    expect(out).toMatch(/pages of DMA +400 /);
    const json = JSON.parse((await fuzz({ runs: 2, seed: 7, quiet: true, json: true })).out);
    expect(json).toMatchObject({ schema: 'faultline.fuzz/1', firstSeed: 7, machines: 2, failures: [] });
    expect(json).toMatchObject({ coverage: { strategy: { cut: 2 } }, injected: { swapRead: 4, swapWrite: 0 } });
  });

  it('says how often each failure struck, and how many machines had each feature', async () => {
    const { out } = await fuzz({ runs: 3, seed: 1, quiet: true });
    expect(out).toMatch(/^failures on purpose\n {2}swapRead +6\nmachines with each feature/m);
    expect(out).not.toContain('swapWrite');
    expect(out).toMatch(/^ {2}strategy +cut 3$/m);
    expect(out).toMatch(/^ {2}backing +pud-thp 3$/m);
    expect(out).toMatch(/^ {2}policy .*prefault resident 3/m);
  });

  it('writes the scenario of a failure, prints how to run it, and exits 3', async () => {
    const output = temporaryDirectory();
    const { code, out, err } = await fuzz({ runs: 3, seed: 1, output }, [2]);
    expect(code).toBe(3);
    expect(out).toMatch(/^1 of 3 machines FAILED/);
    expect(err).toContain('FAILED  seed 2: I1: a stale DMA');
    expect(out).toMatch(/run .*storm-2\.yaml --seed 2\n/);
    expect(readFileSync(join(output, 'storm-2.yaml'), 'utf8')).toMatch(
      /^# Fails with --seed 2 at .*: I1: a stale DMA\nname: storm-2\nstrategy: cut\n$/,
    );
  });

  it('remembers in the corpus where to go on and what failed, and tries that again first', async () => {
    const directory = temporaryDirectory();
    const corpus = join(directory, 'corpus.json');
    const options = { runs: 3, corpus, output: directory, quiet: true };
    expect((await fuzz(options, [2])).seen).toEqual([1, 2, 3]);
    expect(JSON.parse(readFileSync(corpus, 'utf8'))).toMatchObject({ nextSeed: 4, failed: [2] });
    expect((await fuzz(options)).seen).toEqual([2, 4, 5]);
    expect(JSON.parse(readFileSync(corpus, 'utf8'))).toMatchObject({ nextSeed: 6, failed: [] });
    expect(existsSync(`${corpus}.new`)).toBe(false);
  });

  it('ends on Ctrl-C with what was found, and keeps the corpus', async () => {
    const corpus = join(temporaryDirectory(), 'corpus.json');
    const terminal = fakeTerminal({});
    const seen: number[] = [];
    const run = machine([], seen);
    const code = await fuzzCommand({ corpus, runs: 1000, quiet: true }, terminal, () =>
      inlinePool((seed) => {
        if (seed === 5) terminal.interrupt();
        return run(seed);
      }),
    );
    expect(code).toBe(130);
    expect(seen).toEqual([1, 2, 3, 4, 5]);
    expect(terminal.out()).toContain('in 5 machines');
    expect(JSON.parse(readFileSync(corpus, 'utf8'))).toMatchObject({ nextSeed: 6 });
  });

  it('gives up on Ctrl-C what is under way, and goes on with it next time', async () => {
    const corpus = join(temporaryDirectory(), 'corpus.json');
    const terminal = fakeTerminal({});
    const run = machine([], []);
    const begun: number[] = [];
    // Of two machines at a time the one of seed 3 never ends.
    const pool = (): StormPool => ({
      get hasRoom() {
        return begun.length < (begun.includes(3) ? 5 : 2);
      },
      begin: (seed) => {
        begun.push(seed);
      },
      next: async () => {
        const seed = begun.find((of) => of !== 3);
        if (seed === undefined || seed > 4) {
          terminal.interrupt();
          return new Promise(() => undefined);
        }
        begun.splice(begun.indexOf(seed), 1);
        return run(seed);
      },
      close: async () => undefined,
    });
    expect(await fuzzCommand({ corpus, runs: 1000, quiet: true }, terminal, pool)).toBe(130);
    expect(terminal.out()).toContain('in 3 machines');
    expect(JSON.parse(readFileSync(corpus, 'utf8'))).toMatchObject({ nextSeed: 3 });
  });

  it('writes a line each minute where there is no terminal to draw a bar on', async () => {
    const err = async (fake: FakeOptions) => (await fuzz({ runs: 30, seed: 1 }, [], fake)).err.split('\n').slice(1);
    expect(await err({ stepMs: 10_000 })).toContainEqual(expect.stringMatching(/^\[#.* machines\/s/));
    expect(await err({ stepMs: 1 })).toEqual(['']);
  });

  it('says what is wrong with an option', async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'other.json'), '{}');
    expect((await invoke(['fuzz', '--corpus', join(directory, 'other.json'), '--runs', '1'])).err).toContain(
      'expected a file that `vm-sim fuzz --corpus` wrote',
    );
    expect((await invoke(['fuzz', '--time', 'soon'])).err).toContain('--time soon: expected a duration such as 90s');
    expect((await invoke(['fuzz', '--runs', '0'])).code).toBe(2);
  });
});
