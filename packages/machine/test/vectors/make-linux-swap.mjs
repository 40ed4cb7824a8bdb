/**
 * Writes linux-swap.json from two recordings of Linux swapping under a cgroup limit: the figures of each mark, and
 * what the function trace says about reclaim, condensed. The recordings are too large for the repository; they may lie
 * in a directory beside the checkout.
 *
 * Run: `node packages/machine/test/vectors/make-linux-swap.mjs`
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';

const DIRECTORY = resolve(import.meta.dirname, '../../../../../shared/traces');
const OUTPUT = join(import.meta.dirname, 'linux-swap.json');
const RECORDINGS = [
  { name: 'swap-thp', kernel: '6.12.95', pages: 'transparent huge pages' },
  { name: 'swap73-4k', kernel: '7.3.4', pages: '4 KiB pages' },
];

const PROVENANCE = [
  'Recorded on 22 November 2026 on emulated machines (QEMU 7.2.22, TCG, one CPU); the kernels were built from',
  "Debian's source packages. A 32 MiB process, its cgroup's memory.max lowered to 16 MiB by the process itself, swap",
  'on NVMe: ftrace of vmscan:*, huge_memory:* and probes on swap functions, smaps_rollup and vmstat at each mark.',
  'Phases end at their mark: start; filled; limited (memory.max written); touched (every page in address order);',
  'random touched. A mark is written to the trace before the figures are read, so what the reading itself swaps in is',
  'in the figures of a mark and, in the trace, in the phase after it. Counters are of the whole machine since boot.',
].join(' ');

const COLUMNS = {
  calls:
    '[times, nr_reclaimed, by priority: [priority, isolations, sum of nr_requested, nr_scanned, nr_reclaimed, folios written, nr_ref_keep, nr_activate_anon]]: one row per run of equal reclaim calls, in order',
  writeRuns:
    '[gap, length, times]: folios written in order, their pfn ascending by step (512 for huge pages, 1 for 4 KiB) for length folios; gap is from the last folio of the run before to the first of this one',
};

/** The text of a recording's file, or nothing after saying that it is absent. */
function recordingText(name) {
  const path = join(DIRECTORY, name);
  if (!existsSync(path)) {
    console.log(`linux-swap.json is left as it is: the recording ../shared/traces/${name} is not there`);
    return undefined;
  }
  const bytes = readFileSync(path);
  return (name.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8');
}

/** The marks of a log, in order, each with its figures (kB, and counters as they were), and the cgroup's events. */
function readLog(text) {
  const marks = new Map();
  const memoryEvents = {};
  let figures;
  for (const line of text.split('\n')) {
    const mark = /^-- (.+)$/.exec(line);
    if (mark !== null) {
      figures = {};
      marks.set(mark[1], figures);
    }
    const size = /^\s+(\w+):\s+(\d+) kB$/.exec(line);
    if (size !== null) figures[`${size[1]} kB`] = Number(size[2]);
    for (const [, counter, value] of line.matchAll(/(\w+) (\d+);/g)) figures[counter] = Number(value);
    const event = /^(\w+) (\d+)$/.exec(line);
    if (event !== null) memoryEvents[event[1]] = Number(event[2]);
  }
  return { marks, memoryEvents };
}

/** The figures of each mark less those of the first. */
function sinceStart(marks) {
  const [start] = marks.values();
  const less = (figures) =>
    Object.fromEntries(Object.entries(figures).map(([key, value]) => [key, value - start[key]]));
  return Object.fromEntries([...marks].slice(1).map(([mark, figures]) => [mark, less(figures)]));
}

/** The events of a function trace: name, phase (the last mark before it) and the fields of its text. */
function* traceEvents(text) {
  let after;
  for (const line of text.split('\n')) {
    const match = /^\s*\S+\s+\[\d+\]\s+\S+\s+[\d.]+: (\w+): (.*)$/.exec(line);
    if (match === null) continue;
    const [, name, rest] = match;
    if (name === 'tracing_mark_write') after = rest.trim();
    else
      yield {
        name,
        after,
        fields: Object.fromEntries([...rest.matchAll(/(\w+)=(\S+)/g)].map(([, key, value]) => [key, value])),
      };
  }
}

const COUNTED = ['do_swap_page', 'add_to_swap', 'try_to_unmap', 'mm_vmscan_write_folio', 'mm_vmscan_lru_isolate'];

/** Counts of one phase, with the rows of its reclaim calls. */
function newPhase() {
  const counts = Object.fromEntries(COUNTED.map((name) => [name, 0]));
  return { ...counts, reclaimCalls: 0, nr_scanned: 0, nr_reclaimed: 0, nr_ref_keep: 0, nr_activate_anon: 0, calls: [] };
}

/** Adds one isolation with its shrink_inactive to the row of its priority. */
function addIsolation(phase, priorities, requested, written, fields) {
  const priority = Number(fields.priority);
  if (priorities.at(-1)?.[0] !== priority) priorities.push([priority, 0, 0, 0, 0, 0, 0, 0]);
  const figures = ['nr_scanned', 'nr_reclaimed', 'nr_ref_keep', 'nr_activate_anon'].map((key) => Number(fields[key]));
  const [scanned, reclaimed, kept, activated] = figures;
  const row = priorities.at(-1);
  [1, requested, scanned, reclaimed, written, kept, activated].forEach((value, index) => {
    row[index + 1] += value;
  });
  phase.nr_scanned += scanned;
  phase.nr_reclaimed += reclaimed;
  phase.nr_ref_keep += kept;
  phase.nr_activate_anon += activated;
}

/** Adds a call to the rows of its phase: equal neighbours are one row. */
function addCall(calls, reclaimed, priorities) {
  const last = calls.at(-1);
  if (last !== undefined && JSON.stringify(last.slice(1)) === JSON.stringify([reclaimed, priorities])) last[0] += 1;
  else calls.push([1, reclaimed, priorities]);
}

/** The phases of a trace, named by the mark that ends them, and the page frame numbers written, in order. */
function readTrace(text, marks) {
  const names = [...marks.keys()];
  const phases = {};
  const written = [];
  let priorities = [];
  let requested = 0;
  let writes = 0;
  for (const { name, after, fields } of traceEvents(text)) {
    const key = names[names.indexOf(after) + 1] ?? 'after the last mark';
    phases[key] ??= newPhase();
    const phase = phases[key];
    if (COUNTED.includes(name)) phase[name] += 1;
    if (name === 'mm_vmscan_memcg_reclaim_begin') {
      phase.reclaimCalls += 1;
      priorities = [];
    } else if (name === 'mm_vmscan_lru_isolate') {
      if (fields.lru !== 'inactive_anon') throw new Error(`a scan of ${fields.lru}, where inactive_anon was expected`);
      requested = Number(fields.nr_requested);
      writes = 0;
    } else if (name === 'mm_vmscan_write_folio') {
      writes += 1;
      written.push(Number(fields.pfn));
    } else if (name === 'mm_vmscan_lru_shrink_inactive') addIsolation(phase, priorities, requested, writes, fields);
    else if (name === 'mm_vmscan_memcg_reclaim_end') addCall(phase.calls, Number(fields.nr_reclaimed), priorities);
  }
  return { phases, written };
}

/** Page frame numbers as runs that ascend by `step`; equal neighbours are one row. */
function writeRuns(pfns, step) {
  const runs = [];
  let last;
  for (const pfn of pfns) {
    const gap = last === undefined ? 0 : pfn - last;
    if (gap === step) runs.at(-1)[1] += 1;
    else runs.push([gap, 1]);
    last = pfn;
  }
  const rows = [];
  for (const [gap, length] of runs) {
    const row = rows.at(-1);
    if (row !== undefined && row[0] === gap && row[1] === length) row[2] += 1;
    else rows.push([gap, length, 1]);
  }
  return rows;
}

/** One recording, condensed, or nothing if one of its files is absent. */
function readRecording({ name, kernel, pages }) {
  const log = recordingText(`${name}.log`);
  const ftrace = recordingText(`${name}.ftrace.txt.gz`);
  if (log === undefined || ftrace === undefined) return undefined;
  const { marks, memoryEvents } = readLog(log);
  const { phases, written } = readTrace(ftrace, marks);
  const step = written.length < 100 ? 512 : 1;
  return {
    kernel,
    pages,
    memoryEvents,
    marks: Object.fromEntries(marks),
    sinceStart: sinceStart(marks),
    phases,
    foliosWritten: { events: written.length, distinct: new Set(written).size, firstPfn: written[0], step },
    writeRuns: writeRuns(written, step),
  };
}

/** JSON with one line for each thing that has no object in it. */
function format(value, indent = '') {
  const flat = JSON.stringify(value);
  if (typeof value !== 'object' || value === null || !flat.slice(1).includes('{')) {
    if (!Array.isArray(value) || flat.length < 2000 || !Array.isArray(value[0])) return flat;
    return `[\n${value.map((row) => `${indent} ${JSON.stringify(row)}`).join(',\n')}\n${indent}]`;
  }
  const rows = Object.entries(value).map(
    ([key, entry]) => `${indent} ${JSON.stringify(key)}: ${format(entry, `${indent} `)}`,
  );
  return `{\n${rows.join(',\n')}\n${indent}}`;
}

const recordings = Object.fromEntries(RECORDINGS.map((recording) => [recording.name, readRecording(recording)]));
if (Object.values(recordings).every((recording) => recording !== undefined)) {
  writeFileSync(OUTPUT, `${format({ provenance: PROVENANCE, columns: COLUMNS, recordings })}\n`);
  console.log(`written: ${OUTPUT}`);
}
