import { BUILT_IN_SCENARIOS, type StatsDocument, scenarioSchema } from '@faultline/machine';
import pc from 'picocolors';
import { describe, expect, it } from 'vitest';
import { reportPage } from '../src/run/report-page.ts';
import { runSummary } from '../src/run/run-summary.ts';
import { SAMPLE_STATS, statsJsonSchema } from '../src/run/stats-sample.ts';
import { CRASH } from './support/fake-machine.ts';

const scenario = scenarioSchema.parse(BUILT_IN_SCENARIOS[0]?.scenario);
const plain = pc.createColors(false);
const big = { mean: 1e9, p50: 999_999_999, p90: 9e8, p99: 3.6e12, p999: 3.6e12, max: 3.6e12 };

/** A run in which every number is as wide as it gets and everything is broken. */
function worst(crash: StatsDocument['crash']): StatsDocument {
  const dma = {
    ...SAMPLE_STATS.dma,
    requests: 1e8,
    faulted: 1e6,
    dropped: 1e6,
    aborted: 1e6,
    bytesPerSecond: 1.2e11,
    latencyNs: big,
  };
  const iopt = {
    ...SAMPLE_STATS.iopt,
    leaves: { '4K': 268_435_455, '2M': 524_287, '1G': 1023 },
    leavesBefore: { '4K': 1, '2M': 1, '1G': 1023 },
    mappedBytes: 2 ** 40 - 4096,
    mappedBytesBefore: 2 ** 40,
    tablePages: 1e6,
  };
  const devices = ['accelerator', 'disk', 'nic'].map((name) => ({ name, dma }));
  return {
    ...SAMPLE_STATS,
    verdict: crash === null ? 'invariant-violated' : 'host-crashed',
    crash,
    refusal: null,
    dma,
    iopt,
    scenario: '1g-swap-storm',
    strategy: 'whole-leaf',
    invariants: Array.from({ length: 13 }, (_, index) => ({
      id: `I${index + 1}`,
      checks: 1e9,
      violations: index < 6 ? 1e6 : 0,
      first: 'vm0 accelerator read iova 0x425c3000 at frame 0x825c3; the page is not resident (at 14805040 ns)',
    })),
    thresholds: [{ expression: 'dma.latencyNs.p99 < 500us', value: 132_863, ok: false }],
    vms: [{ ...SAMPLE_STATS, dma, iopt, name: 'vm0', devices }],
  };
}

describe('the summary', () => {
  it.each([
    ['of a run', null],
    ['of a crash', CRASH],
  ])('%s fits a screen even when all is broken', (_, crash) => {
    const text = runSummary({ stats: worst(crash), scenario, again: 'again' }, plain);
    const lines = text.trimEnd().split('\n');
    expect(lines.length).toBeLessThanOrEqual(32);
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(100);
    expect(text).not.toMatch(/NaN|undefined|Infinity/);
  });

  it('of an ordinary run answers in order', () => {
    const text = runSummary(
      { stats: { ...SAMPLE_STATS, crash: null, refusal: null, events: [] }, scenario, again: 'npm start' },
      plain,
    );
    const order = [
      'HELD',
      'What the DMA felt',
      'innocent',
      'before',
      'after',
      'gained',
      'cost',
      'Run it again',
      'npm start',
    ];
    const places = order.map((word) => text.indexOf(word));
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(places[0]).toBe(0);
    expect(text.split('\n').length).toBeLessThanOrEqual(30);
  });

  it('of a crash says what was taken for a table, what was corrupted and what was freed', () => {
    const stats: StatsDocument = { ...SAMPLE_STATS, verdict: 'host-crashed', expect: 'host-crashed', crash: CRASH };
    const text = runSummary({ stats, scenario, again: '' }, plain).replace(/\s+/g, ' ');
    expect(text).toContain('At 20.1 ms the host takes away IOVA 0x180800000.');
    expect(text).toContain(
      'level 2, entry 4 of the "page directory", HPA 0x140000020 = 0x180800063 (vm0, guest page 0x180000000)',
    );
    expect(text).toContain('It set to zero, as if they were its own entries: HPA 0x140000020, was 0x180800063 (vm0');
    expect(text).toContain('as table pages: HPA 0x180800000 (vm0, guest page 0x1c0800000)');
    expect(text).toContain('The end: bad page state: frame 0x180800');
  });
});

describe('the report page', () => {
  it.each([
    ['of a run', null],
    ['of a crash', CRASH],
  ])('%s needs nothing but itself', (_, crash) => {
    const page = reportPage({ stats: worst(crash), scenario, again: "a 'b' <c> & d" }, ['a note']);
    expect(page).not.toMatch(/https?:|<script|<link|<img|url\(|NaN|undefined/);
    expect(page).toContain('a &#39;b&#39; &lt;c&gt; &amp; d'.replaceAll('&#39;', "'"));
    expect(page).toContain('<svg');
    expect(page).toContain('a note');
    const open = [...page.matchAll(/<(table|tr|td|th|p|div|h2|svg|text|pre|span)\b/g)].length;
    const closed = [...page.matchAll(/<\/(table|tr|td|th|p|div|h2|svg|text|pre|span)>/g)].length;
    expect(open).toBe(closed);
  });
});

describe('the schema of the stats document', () => {
  it('has every group', () => {
    const schema = statsJsonSchema() as { properties: Record<string, unknown>; required: string[] };
    expect(schema.required).toEqual(Object.keys(SAMPLE_STATS));
    expect(schema.properties).toMatchObject({ verdict: { enum: expect.any(Array) }, dma: { type: 'object' } });
  });
});
