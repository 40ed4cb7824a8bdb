import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { STRATEGIES, type StatsDocument } from '@faultline/machine';
import { describe, expect, it } from 'vitest';
import { runApplication } from '../src/application.ts';
import type { MachineFactory } from '../src/run/driven-machine.ts';
import { SAMPLE_STATS } from '../src/run/stats-sample.ts';
import { CRASH, fakeMachine } from './support/fake-machine.ts';
import { fakeTerminal } from './support/fake-terminal.ts';
import { invoke, NO_PROTOCOLS } from './support/invocation.ts';
import { temporaryDirectory } from './support/temporary-directory.ts';

/** A machine whose figures depend on the strategy. */
const byStrategy =
  (stats: Readonly<Record<string, Partial<StatsDocument>>>): MachineFactory =>
  (scenario, options) =>
    fakeMachine({ stats: stats[scenario.strategy] ?? {} })(scenario, options);

const rowsOf = (out: string) => (JSON.parse(out) as { rows: Record<string, unknown>[] }).rows;

describe('compare', () => {
  it('runs one scenario with every strategy, in their order, and prints a row for each', async () => {
    const { code, out, err } = await invoke(['compare', '1g-swap-storm', '--seed', '5']);
    const lines = out.split('\n');
    expect(lines[0]).toMatch(/^strategy +verdict +innocents +stalled +faults/);
    expect(lines.slice(1, STRATEGIES.length + 1).map((line) => line.split(/\s+/)[0])).toEqual([...STRATEGIES]);
    expect(err).toContain(`1 of ${STRATEGIES.length}: 1g-swap-storm, pinned: ok (`);
    expect(err.trimEnd().split('\n').at(-1)).toBe('vm-sim compare 1g-swap-storm --seed 5');
    expect(code).toBe(0);
  });

  it('runs several scenarios with their own strategies, or all of them with those that are named', async () => {
    const own = await invoke(['compare', '1g-swap-storm', 'whole-leaf', '--json', '-q']);
    expect(rowsOf(own.out)).toMatchObject([
      { scenario: '1g-swap-storm', strategy: 'cut' },
      { scenario: 'whole-leaf', strategy: 'whole-leaf' },
    ]);
    const named = await invoke(['compare', '1g-swap-storm', 'balloon', '--strategies', 'cut,pinned', '--json', '-q']);
    expect(rowsOf(named.out).map(({ scenario, strategy }) => `${scenario} ${strategy}`)).toEqual([
      '1g-swap-storm pinned',
      '1g-swap-storm cut',
      'balloon pinned',
      'balloon cut',
    ]);
    expect(named.err).toBe('');
    expect((await invoke(['compare', 'balloon', 'ksm', '--set', 'duration=1ms'])).out).toMatch(/^scenario +strategy/);
  });

  it('shows what was measured', async () => {
    const stats: Partial<StatsDocument> = {
      innocent: { faulted: 1234, stalled: 1200, stalledNs: 5_000_000 },
      iotlb: { ...SAMPLE_STATS.iotlb, invalidations: 77 },
      iopt: { ...SAMPLE_STATS.iopt, tablePagesPeak: 42, splits: { '1G->2M': 2, '2M->4K': 3 }, collapses: 9 },
      dirty: { writtenPages: 10, reportedPages: 5120 },
      dma: { ...SAMPLE_STATS.dma, bytesPerSecond: 2 ** 30, latencyNs: { ...SAMPLE_STATS.dma.latencyNs, p99: 93_400 } },
    };
    const { out } = await invoke(['compare', 'whole-leaf', '--strategies', 'whole-leaf'], {
      buildMachine: fakeMachine({ stats }),
    });
    const [, row = ''] = out.split('\n');
    expect(row.split(/\s{2,}/)).toEqual([
      'whole-leaf',
      'held',
      '1,234',
      '5 ms',
      '0',
      '77',
      '42',
      '5',
      '9',
      '512x',
      '1 GiB/s',
      '93.4 us',
      '-',
    ]);
  });

  const violated: Partial<StatsDocument> = {
    verdict: 'invariant-violated',
    invariants: [{ id: 'I1', checks: 9, violations: 2, first: 'a page went' }],
  };
  const dead: Partial<StatsDocument> = {
    verdict: 'invariant-violated',
    invariants: [{ id: 'I13', checks: 9, violations: 1, first: 'the disk is dead' }],
  };
  const crashed: Partial<StatsDocument> = { verdict: 'host-crashed', crash: CRASH };

  it.each<[number, string, Partial<StatsDocument>, string]>([
    [0, 'naive', crashed, 'naive: the host crashed: bad page state'],
    [0, 'patch-2023', violated, 'patch-2023: I1: a page went'],
    [3, 'cut', violated, 'cut: I1: a page went NOT AS CLAIMED'],
    [3, 'shared-ept', crashed, 'NOT AS CLAIMED'],
    [0, 'whole-leaf', dead, 'whole-leaf: I13: the disk is dead'],
    [3, 'cut+collapse', dead, 'NOT AS CLAIMED'],
  ])('exits %i when %s ends so: %j', async (code, strategy, stats, text) => {
    const result = await invoke(['compare', '1g-swap-storm'], { buildMachine: byStrategy({ [strategy]: stats }) });
    expect(result.code).toBe(code);
    expect(result.out.replaceAll('\n', ' ')).toContain(text);
  });

  it('expects of the scenario’s own strategy what the scenario expects', async () => {
    const refused: Partial<StatsDocument> = {
      verdict: 'refused',
      refusal: { vm: 'vm0', device: 'nic', code: 'EOPNOTSUPP', reason: 'its write DMA cannot fault' },
    };
    const buildMachine = fakeMachine({ stats: refused });
    expect((await invoke(['compare', 'partial-iopf', '1g-swap-storm'], { buildMachine })).code).toBe(3);
    const one = await invoke(['compare', 'partial-iopf'], { buildMachine });
    expect(one).toMatchObject({ code: 0, out: expect.stringContaining('refused: its write DMA cannot fault') });
    expect((await invoke(['compare', 'partial-iopf'])).code).toBe(3);
  });

  it('leaves out a strategy that does not go with the scenario, and says why', async () => {
    const buildMachine: MachineFactory = (scenario, options) => {
      if (scenario.strategy === 'pinned') throw new RangeError('vms: 4096M of pinned memory is more than host.memory');
      return fakeMachine()(scenario, options);
    };
    const { code, out } = await invoke(['compare', 'two-vms-one-host'], { buildMachine });
    expect(code).toBe(0);
    expect(out).toContain('two-vms-one-host, pinned: cannot be run:');
    expect(out.split('\n')[1]).toMatch(/^naive/);
    expect((await invoke(['compare', 'pinned-baseline'], { buildMachine })).code).toBe(2);
  });

  it('does not blame pinning for memory that its owner gives up', async () => {
    const buildMachine = byStrategy({ pinned: violated });
    expect((await invoke(['compare', 'balloon', '--strategies', 'pinned'], { buildMachine })).code).toBe(0);
    expect((await invoke(['compare', '1g-swap-storm', '--strategies', 'pinned'], { buildMachine })).code).toBe(3);
  });

  it('keeps the rows that are finished when it is interrupted', async () => {
    let machines = 0;
    const terminal = fakeTerminal();
    const buildMachine: MachineFactory = (scenario, options) => {
      const index = machines++;
      // Each is built twice: to be checked, and to be run.
      return fakeMachine({
        onSlice: () => {
          if (index === STRATEGIES.length + 2) terminal.interrupt();
        },
        endNs: 1e9,
      })(scenario, options);
    };
    const engines = { buildMachine, verifier: NO_PROTOCOLS };
    const code = await runApplication(['compare', '1g-swap-storm', '--json'], terminal, engines);
    expect(code).toBe(130);
    expect(JSON.parse(terminal.out())).toMatchObject({
      schema: 'faultline.comparison/1',
      interrupted: true,
      rows: [{ strategy: STRATEGIES[0] }, { strategy: STRATEGIES[1] }],
    });
    expect(terminal.handlers.size).toBe(0);
  });

  it.each([
    [['compare'], "missing required argument 'scenario'"],
    [['compare', 'nothing'], '"nothing" is neither a built-in scenario'],
    [['compare', 'balloon', '--strategies', 'cut,naiv'], 'there is no strategy "naiv"; did you mean "naive"?'],
    [['compare', 'balloon', '--strategies', ''], 'there is no strategy ""'],
    [['compare', 'balloon', '--set', 'vm.memroy=1G'], 'did you mean "vm.memory"?'],
  ])('%j is refused before anything runs', async (args, message) => {
    const buildMachine = fakeMachine();
    const { code, err } = await invoke(args, { buildMachine });
    expect(code).toBe(2);
    expect(err).toContain(message);
    expect(buildMachine.slices).toBe(0);
  });
});

describe('the directory of a comparison', () => {
  it('holds the document and a page that needs nothing else, and is written again in place', async () => {
    const cwd = temporaryDirectory();
    const args = ['compare', '1g-swap-storm', '--strategies', 'cut,naive', '--output', 'out'];
    const buildMachine = byStrategy({ naive: { verdict: 'host-crashed', crash: CRASH } });
    expect((await invoke(args, { cwd, buildMachine })).code).toBe(0);
    expect(readdirSync(join(cwd, 'out')).sort()).toEqual(['comparison.html', 'comparison.json']);
    const page = readFileSync(join(cwd, 'out/comparison.html'), 'utf8');
    expect(page).not.toMatch(/https?:|<script|<link|<img|url\(|NaN|undefined/);
    expect(page).toContain('<svg');
    expect(page).toContain('the host crashed: bad page state');
    const first = readFileSync(join(cwd, 'out/comparison.json'), 'utf8');
    expect((await invoke(args, { cwd, buildMachine })).code).toBe(0);
    expect(readFileSync(join(cwd, 'out/comparison.json'), 'utf8')).toBe(first);
  });

  it('is not that of a run, nor of anything else', async () => {
    const cwd = temporaryDirectory();
    await invoke(['run', '--output', 'run'], { cwd });
    expect(await invoke(['compare', 'balloon', '--output', 'run'], { cwd })).toMatchObject({
      code: 2,
      err: expect.stringContaining("holds other files than a comparison's"),
    });
    writeFileSync(join(cwd, 'run', 'comparison.json'), '{"schema":"other"}');
    expect((await invoke(['compare', 'balloon', '--output', 'run'], { cwd })).code).toBe(2);
  });
});
