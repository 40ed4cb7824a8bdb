import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StatsDocument } from '@faultline/machine';
import { describe, expect, it } from 'vitest';
import { runApplication } from '../src/application.ts';
import { CRASH, fakeMachine } from './support/fake-machine.ts';
import { fakeTerminal } from './support/fake-terminal.ts';
import { invoke, NO_PROTOCOLS } from './support/invocation.ts';
import { temporaryDirectory } from './support/temporary-directory.ts';

const FILES = ['config.json', 'events.parquet', 'report.html', 'stats.json', 'trace.pftrace'];

describe('run', () => {
  it('says who runs what first, and how to repeat it last', async () => {
    const { code, out, err } = await invoke(['run', 'whole-leaf', '--seed', '-4', '--set', 'vm.name=a']);
    const lines = err.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^vm-sim \d+\.\d+\.\d+, Node \d+\.\d+\.\d+, seed -4, scenario whole-leaf [0-9a-f]{12}$/);
    expect(lines.at(-1)).toBe('vm-sim run whole-leaf --set vm.name=a --seed -4');
    expect(out).toMatch(/^HELD /);
    expect(code).toBe(0);
  });

  it('runs 1g-swap-storm with seed 1 if nothing is said', async () => {
    expect((await invoke([])).err).toContain('run 1g-swap-storm --seed 1');
    expect((await invoke(['--seed', '3'])).err).toContain('run 1g-swap-storm --seed 3');
    expect((await invoke(['pinned-baseline'])).err).toContain('run pinned-baseline --seed 1');
  });

  it('hashes the resolved scenario', async () => {
    const hashOf = async (...args: string[]) => /scenario \S+ (\w+)/.exec((await invoke(args)).err)?.[1];
    const own = await hashOf();
    expect(await hashOf('--set', 'vm.memory=16G', '--seed', '2')).toBe(own);
    expect(await hashOf('--set', 'vm.memory=8G')).not.toBe(own);
  });

  it('prints nothing but the document with --json, and nothing to stderr with -q', async () => {
    const { out, err } = await invoke(['run', '--json', '-q']);
    expect(JSON.parse(out)).toMatchObject({ schema: 'faultline.stats/1', scenario: '1g-swap-storm', seed: 1 });
    expect(err).toBe('');
  });

  const violated: Partial<StatsDocument> = {
    verdict: 'invariant-violated',
    invariants: [{ id: 'I1', checks: 9, violations: 2, first: 'here' }],
  };
  const crashed: Partial<StatsDocument> = { verdict: 'host-crashed', crash: CRASH };
  it.each<[number, string, Partial<StatsDocument>, string[]]>([
    [0, 'HELD', {}, []],
    [3, 'VIOLATED', violated, []],
    [3, 'I1 no stale DMA: violated 2 times, first: here', violated, []],
    [3, 'HOST CRASHED, which this scenario does not expect', crashed, []],
    [0, 'HOST CRASHED, as this scenario expects', crashed, ['--set', 'expect=host-crashed']],
    [3, 'NO CRASH, this scenario expects the host to crash, and it did not', {}, ['--set', 'expect=host-crashed']],
    [99, 'HELD, but 1 threshold failed', {}, ['--fail-on', 'dma.requests > 1', '--fail-on', 'dma.requests < 1']],
    [99, 'failed  dma.latencyNs.p99 > 500us: 0 (0 ns)', {}, ['--fail-on', 'dma.latencyNs.p99 > 500us']],
    [0, 'ok      dma.latencyNs.p99 < 500us: 0', {}, ['--fail-on', 'dma.latencyNs.p99 < 500us']],
    [3, 'VIOLATED', violated, ['--fail-on', 'dma.requests > 1']],
    [99, 'HOST CRASHED, but 1 threshold', crashed, ['--set', 'expect=host-crashed', '--fail-on', 'dma.requests > 1']],
  ])('exits %i and says %s', async (code, text, stats, args) => {
    const result = await invoke(['run', ...args], { buildMachine: fakeMachine({ stats }) });
    expect(result.out).toContain(text);
    expect(result.code).toBe(code);
    const json = await invoke(['run', '--json', ...args], { buildMachine: fakeMachine({ stats }) });
    expect(json.code).toBe(code);
    if (code === 99 && stats === violated) expect(JSON.parse(json.out).verdict).toBe('threshold-failed');
  });

  it('refuses thresholds on what does not exist before it runs anything', async () => {
    const buildMachine = fakeMachine();
    const refused = await invoke(['--fail-on', 'dma.p99 < 1us'], { buildMachine });
    expect(refused).toMatchObject({ code: 2, err: expect.stringContaining('did you mean "dma.latencyNs.p99"?') });
    expect((await invoke(['--fail-on', 'dma < 1'], { buildMachine })).code).toBe(2);
    expect((await invoke(['--fail-on', 'strategy == 1'], { buildMachine })).code).toBe(2);
    expect((await invoke(['--fail-on', 'dma.requests ~ 1'], { buildMachine })).code).toBe(2);
    expect(buildMachine.slices).toBe(0);
    expect((await invoke(['--fail-on', 'vms.0.devices.2.dma.requests >= 0'], { buildMachine })).code).toBe(1);
  });

  it.each(['1.5', 'x', '', '1e3', '0x10', '9007199254740993', ' '])('refuses the seed %j', async (seed) => {
    const { code, err } = await invoke(['run', '--seed', seed]);
    expect(code).toBe(2);
    expect(err).toContain('Expected a whole number');
  });

  it('reports a failure of the simulator briefly, and with its stack on demand', async () => {
    const buildMachine = fakeMachine({ fail: new Error('assertion: I9') });
    const brief = await invoke(['run'], { buildMachine });
    expect(brief.code).toBe(1);
    expect(brief.err).toContain('internal error: assertion: I9; -v shows the stack');
    expect(brief.err).not.toContain('    at ');
    expect((await invoke(['run', '-v'], { buildMachine })).err).toContain('    at ');
  });
});

describe('the run directory', () => {
  it('reproduces itself, also in place', async () => {
    const cwd = temporaryDirectory();
    await invoke(
      [
        'run',
        'whole-leaf',
        '--seed',
        '7',
        '--set',
        'vm.memory=2G',
        '--fail-on',
        'dma.requests >= 0',
        '--output',
        'a/b',
      ],
      { cwd },
    );
    expect(readdirSync(join(cwd, 'a/b')).sort()).toEqual(FILES);
    const { code, err } = await invoke(['run', 'a/b/config.json', '--output', 'c'], { cwd });
    expect(code).toBe(0);
    expect(err).toContain('run a/b/config.json --seed 7 --output c');
    for (const file of ['stats.json', 'config.json', 'events.parquet', 'trace.pftrace'])
      expect(readFileSync(join(cwd, 'c', file))).toEqual(readFileSync(join(cwd, 'a/b', file)));
    expect(JSON.parse(readFileSync(join(cwd, 'c/config.json'), 'utf8'))).toMatchObject({
      seed: 7,
      scenario: { vm: { memory: '2G' }, thresholds: ['dma.requests >= 0'] },
    });
    expect((await invoke(['run', 'c/config.json', '--output', 'c', '--seed', '8'], { cwd })).code).toBe(0);
    expect(JSON.parse(readFileSync(join(cwd, 'c/stats.json'), 'utf8')).seed).toBe(8);
    expect((await invoke(['run', 'c'], { cwd })).err).toContain('give c/config.json');
  });

  it('holds the document that --json prints', async () => {
    const cwd = temporaryDirectory();
    const { out } = await invoke(['run', '--json', '--output', 'o'], { cwd });
    expect(readFileSync(join(cwd, 'o/stats.json'), 'utf8')).toBe(out);
  });

  it('is never somebody else’s', async () => {
    const cwd = temporaryDirectory();
    const buildMachine = fakeMachine();
    mkdirSync(join(cwd, 'mine'));
    writeFileSync(join(cwd, 'mine/config.json'), '{"my": "config"}');
    writeFileSync(join(cwd, 'file'), '');
    mkdirSync(join(cwd, 'empty'));
    for (const output of ['mine', 'file', 'file/below', '/proc/faultline', '-', ''])
      expect((await invoke(['run', '--output', output], { cwd, buildMachine })).code).toBe(2);
    expect(buildMachine.slices).toBe(0);
    expect(readFileSync(join(cwd, 'mine/config.json'), 'utf8')).toBe('{"my": "config"}');
    expect((await invoke(['run', '--output', 'empty'], { cwd })).code).toBe(0);
  });

  it('says how many events were left out', async () => {
    const cwd = temporaryDirectory();
    const buildMachine = fakeMachine({ events: 500_007 });
    const { err } = await invoke(['run', '--output', 'o'], { cwd, buildMachine });
    expect(err).toContain('warning: 7 events after the first 500,000 were left out');
    expect(readFileSync(join(cwd, 'o/report.html'), 'utf8')).toContain('7 events after the first');
  });

  it('has the wall time in a file of its own', async () => {
    const cwd = temporaryDirectory();
    const { err } = await invoke(['run', '--output', 'o', '--timings'], { cwd });
    expect(err).toMatch(/^wall time \d+\.\d\d s, peak memory 64 MiB, /m);
    expect(JSON.parse(readFileSync(join(cwd, 'o/timings.json'), 'utf8'))).toMatchObject({
      schema: 'faultline.timings/1',
      peakRssBytes: 64 << 20,
    });
  });
});

describe('Ctrl-C', () => {
  it('ends the run at the next slice, with what there is', async () => {
    const cwd = temporaryDirectory();
    const terminal = fakeTerminal({ cwd });
    let slices = 0;
    const buildMachine = fakeMachine({
      endNs: 1e12,
      onSlice: () => {
        if (++slices === 3) terminal.interrupt();
      },
    });
    const code = await runApplication(['run', '--output', 'o'], terminal, { buildMachine, verifier: NO_PROTOCOLS });
    expect(code).toBe(130);
    expect(slices).toBe(3);
    expect(terminal.out()).toMatch(/^INTERRUPTED, the numbers are of what ran until then/);
    expect(JSON.parse(readFileSync(join(cwd, 'o/stats.json'), 'utf8'))).toMatchObject({ interrupted: true });
    expect(readdirSync(join(cwd, 'o')).sort()).toEqual(FILES);
    expect(terminal.handlers.size).toBe(0);
  });

  it('pressed twice ends at once, but one press that arrives twice does not', async () => {
    for (const [stepMs, exits] of [
      [1, []],
      [500, [130]],
    ] as const) {
      const terminal = fakeTerminal({ stepMs });
      const buildMachine = fakeMachine({
        onSlice: () => {
          terminal.interrupt();
          terminal.interrupt();
        },
      });
      await runApplication(['run'], terminal, { buildMachine, verifier: NO_PROTOCOLS });
      expect(terminal.exits).toEqual(exits);
    }
  });
});

describe('a terminal', () => {
  it('shows a meter after a second and takes it away', async () => {
    const buildMachine = fakeMachine({ endNs: 1e8 });
    const { out, err } = await invoke(['run'], { isTerminal: true, stepMs: 30, buildMachine });
    expect(err).toContain('\r\u001b[2K[');
    expect(err).toMatch(/\[[#.]{24}\] +\d+% {2}[\d,]+ DMA pages\/s {2}running {2}\d+ s left/);
    expect(err).toContain('\r\u001b[2Kvm-sim run');
    expect(out).toContain('\u001b[');
  });

  it('is not coloured with NO_COLOR, not metered with -q, and neither without a terminal', async () => {
    const buildMachine = fakeMachine();
    const plain = await invoke(['run', '-q'], { isTerminal: true, stepMs: 30, env: { NO_COLOR: '1' }, buildMachine });
    expect(plain.out + plain.err).not.toContain('\u001b');
    const piped = await invoke(['run'], { stepMs: 30, buildMachine });
    expect(piped.out + piped.err).not.toContain('\u001b');
  });
});
