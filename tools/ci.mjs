// All that a change must pass, in one run: every step runs whatever became of those before it, and the last line is
// `N passed, N failed`, counted over all tests and all other checks. Tests are counted from the reports that vitest writes and
// turbo keeps with its cache, so that a hit counts the same as a run.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { turbo } from './turbo.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const started = process.hrtime.bigint();
const total = { passed: 0, failed: 0, skipped: 0 };
const failures = [];

/** The whole run is bounded: near its end, what is still to come gets less time than it could otherwise have. */
const runSeconds = 1150;
const elapsedSeconds = () => Number(process.hrtime.bigint() - started) / 1e9;
const elapsed = () => `${elapsedSeconds().toFixed(0)} s`;
const bounded = (timeoutSeconds) => Math.floor(Math.max(5, Math.min(timeoutSeconds, runSeconds - elapsedSeconds())));
const print = (line) => process.stdout.write(`${line}\n`);

function count(name, passed, failed, skipped = 0) {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
  if (failed > 0) failures.push(`${name}: ${failed} failed`);
}

function check(name, ok, output = '') {
  if (!ok && output !== '') print(output.trimEnd());
  print(`${ok ? 'ok' : 'not ok'} - ${name}`);
  count(name, ok ? 1 : 0, ok ? 0 : 1);
}

/** A step that throws is a failure, and the next one still runs. */
async function step(name, body) {
  print(`\n== ${name} (${elapsed()})`);
  try {
    await body();
  } catch (error) {
    check(name, false, String(error?.stack ?? error));
  }
}

function run(command, args, { timeoutSeconds = 300, cwd = root } = {}) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: bounded(timeoutSeconds) * 1000,
    killSignal: 'SIGKILL',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, INIT_CWD: cwd, NO_COLOR: '1', FORCE_COLOR: '0' },
  });
  const why = error || signal ? `\n${error?.message ?? ''} ${signal ?? ''} after at most ${timeoutSeconds} s` : '';
  return { ok: status === 0, stdout: stdout ?? '', all: `${stdout ?? ''}${stderr ?? ''}${why}` };
}

/** A tool that prints one `ok - ...` or `not ok - ...` line for each of its checks. */
function tool(script, timeoutSeconds) {
  const { ok, stdout, all } = run(process.execPath, [join(root, 'tools', script)], { timeoutSeconds });
  print((ok ? stdout : all).trimEnd());
  const lines = stdout.split('\n');
  const passed = lines.filter((line) => line.startsWith('ok - ')).length;
  const failed = lines.filter((line) => line.startsWith('not ok - ')).length;
  count(script, passed, ok ? failed : Math.max(failed, 1));
}

/** Runs a task in all packages; gives the outcome of each, as turbo's own summary has it. */
function runTask(task, filters = []) {
  const runs = join(root, '.turbo', 'runs');
  rmSync(runs, { recursive: true, force: true });
  turbo(['run', task, ...filters, '--continue', '--summarize', '--output-logs=errors-only'], {
    stdio: ['ignore', 1, 1],
    timeoutSeconds: bounded(400),
  });
  const [summary] = existsSync(runs) ? readdirSync(runs) : [];
  if (summary === undefined) throw new Error('turbo left no summary');
  return JSON.parse(readFileSync(join(runs, summary), 'utf8'))
    .tasks.filter(({ command, task: name }) => command !== '<NONEXISTENT>' && name === task)
    .map(({ package: name, directory, cache, execution }) => ({
      name,
      directory: join(root, directory),
      isHit: cache.status === 'HIT',
      ok: cache.status === 'HIT' || execution?.exitCode === 0,
    }));
}

function checkTask(task) {
  for (const { name, ok, isHit } of runTask(task)) check(`${task} ${name}${isHit ? ' (cached)' : ''}`, ok);
}

function readReport(path) {
  if (!existsSync(path)) return undefined;
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(readFileSync(path, 'utf8'));
  const failures = testResults.flatMap(({ name, message, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status === 'failed')
      .map(({ fullName, failureMessages }) => `${name}: ${fullName}\n${failureMessages.join('\n')}`)
      .concat(message ? `${name}: ${message}` : []),
  );
  // A file that fails before its first test has no failed test, only a failed status.
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
  );
  return { passed: numPassedTests, failed: numFailedTests + broken.length, skipped: numPendingTests, failures };
}

/** Runs a vitest task and counts its tests, from the report in each package. */
function countTests(task, report, filters) {
  for (const group of ['packages', 'apps', 'tools']) {
    for (const entry of readdirSync(join(root, group), { withFileTypes: true })) {
      if (entry.isDirectory()) rmSync(join(root, group, entry.name, report), { force: true });
    }
  }
  for (const { name, directory, isHit, ok } of runTask(task, filters)) {
    const counted = readReport(join(directory, report)) ?? { passed: 0, failed: ok ? 0 : 1, skipped: 0, failures: [] };
    const failed = ok ? counted.failed : Math.max(counted.failed, 1);
    if (counted.passed + failed + counted.skipped === 0) continue;
    const numbers = `${counted.passed} passed, ${failed} failed${counted.skipped > 0 ? `, ${counted.skipped} skipped` : ''}`;
    print(`${failed === 0 ? 'ok' : 'not ok'} - ${task} ${name}: ${numbers}${isHit ? ' (cached)' : ''}`);
    count(`${task} ${name}`, counted.passed, failed, counted.skipped);
    // Again at the end: what the suite printed is far above.
    for (const failure of counted.failures) failures.push(failure.slice(0, 2500));
  }
}

function vmSim(args) {
  return run(process.execPath, [join(root, 'apps', 'vm-sim', 'bin', 'vm-sim.js'), ...args]);
}

function scenarioNames() {
  const listed = vmSim(['list', '--json']);
  const parsed = listed.ok && listed.stdout !== '' ? JSON.parse(listed.stdout) : [];
  const entries = Array.isArray(parsed) ? parsed : (parsed.scenarios ?? []);
  const names = entries.map((entry) => (typeof entry === 'string' ? entry : entry.name));
  check('vm-sim list', listed.ok && names.length > 0, listed.all);
  return names;
}

function runScenarios() {
  for (const name of scenarioNames()) {
    const { ok, stdout, all } = vmSim(['run', name, '--seed', '1', '--json']);
    check(`scenario ${name}`, ok && isJson(stdout), all.slice(-4000));
    const again = vmSim(['run', name, '--seed', '1', '--json']);
    check(`scenario ${name}: same seed, same bytes`, ok && again.stdout === stdout);
  }
}

/** Machines at random, the same every time. */
function runStorm() {
  const { ok, stdout, all } = vmSim(['fuzz', '--runs', '300', '--seed', '1', '--jobs', '2', '--json', '-q']);
  const { machines = 0, failures = [] } = isJson(stdout) ? JSON.parse(stdout) : {};
  check(`storm: ${machines} machines, ${failures.length} failed`, ok && machines === 300, all.slice(-4000));
}

/** The model against QEMU: recorded answers, and random programs on the installed one for about a minute. */
function runOracle() {
  const { ok, all } = run(process.execPath, [join(root, 'tools', 'bootstrap.mjs'), '--oracle']);
  check('qemu-oracle is built', ok, all);
  const tool = join(root, 'tools', 'qemu-oracle');
  const oracle = (args, timeoutSeconds) =>
    run(process.execPath, [join(tool, 'bin', 'qemu-oracle.js'), ...args], { timeoutSeconds });
  const recorded = oracle(['--vectors', join(tool, 'test', 'fixtures', 'qemu11-4level-head.jsonl.gz')], 60);
  check(`oracle, recorded: ${recorded.stdout.trim()}`, recorded.ok, recorded.all);
  for (const levels of ['4', '3']) {
    const live = oracle(['--seed', '1', '--ops', '60000', '--time', '30', '--levels', levels, '--json'], 120);
    const { compared = 0, agree = 0, seconds = 0 } = isJson(live.stdout) ? JSON.parse(live.stdout) : {};
    // A machine that is too slow to compare this many has not compared anything that counts.
    check(
      `oracle, live, ${levels} levels: ${agree} of ${compared} agree, in ${seconds} s`,
      live.ok && compared > 1000,
      live.all,
    );
  }
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** `examples/*` and `examples/<name>/run.*`: a script is run, a scenario is given to `vm-sim run`. */
function runExamples() {
  const directory = join(root, 'examples');
  const entries = existsSync(directory) ? readdirSync(directory, { withFileTypes: true }) : [];
  const files = entries.flatMap((entry) => {
    if (!entry.isDirectory()) return [entry.name];
    if (entry.name === 'node_modules') return [];
    const inside = readdirSync(join(directory, entry.name)).filter((name) => name.startsWith('run.'));
    return inside.map((name) => join(entry.name, name));
  });
  for (const file of files.sort()) {
    const path = join(directory, file);
    const kind = file.split('.').at(-1);
    const result = ['mjs', 'js'].includes(kind)
      ? run(process.execPath, [path])
      : kind === 'sh'
        ? run('bash', [path])
        : ['yaml', 'yml'].includes(kind)
          ? vmSim(['run', path, '--json'])
          : undefined;
    if (result !== undefined) check(`example ${file}`, result.ok, result.all.slice(-4000));
  }
}

/** That every benchmark runs, in both languages, and gives numbers: nothing about how fast, since machines differ. */
function runBenchmarks() {
  const built = run(process.execPath, [join(root, 'tools', 'bootstrap.mjs'), '--bench']);
  check('the benchmarks are built', built.ok, built.all);
  const { ok, stdout, all } = run(process.execPath, [
    join(root, 'tools', 'bench', 'dist', 'main.js'),
    '--quick',
    '--json',
  ]);
  const rows = ok && isJson(stdout) ? JSON.parse(stdout) : [];
  const isPositive = (value) => typeof value === 'number' && Number.isFinite(value) && value > 0;
  const complete = rows.filter(
    ({ name, nsPerOp, nativeNsPerOp, ratio }) => name && [nsPerOp, nativeNsPerOp, ratio].every(isPositive),
  );
  check('benchmarks: same results in TypeScript and C', ok, all.slice(-4000));
  check(
    `benchmarks: ${complete.length} rows of positive numbers`,
    ok && rows.length > 0 && complete.length === rows.length,
    stdout,
  );
}

await step('set up', () => {
  const { ok, all } = run(process.execPath, [join(root, 'tools', 'bootstrap.mjs')], { timeoutSeconds: 300 });
  check('bootstrap', ok, all);
});
await step('lint', () => {
  checkTask('lint');
  const { ok, all } = run(process.execPath, [
    join(root, 'node_modules', '@biomejs', 'biome', 'bin', 'biome'),
    'check',
    'tools',
    '.changeset',
    ...readdirSync(root).filter((name) => /\.(json|ts)$/.test(name)),
  ]);
  check('lint of the root and the tools', ok, all);
});
await step('types', () => checkTask('types'));
await step('build', () => checkTask('build'));
await step('test', () => countTests('test', join('reports', 'vitest.json')));
// The other slow suites explore for an hour: `npm run test:slow`.
await step('slow tests', () =>
  countTests('test:slow', join('reports', 'vitest-slow.json'), ['--filter=@faultline/vtd-pagetable']),
);
await step('packaging', () => tool('packaging.mjs', 240));
await step('scenarios', () => {
  const { ok, all } = run(process.execPath, [join(root, 'tools', 'bootstrap.mjs'), '--application']);
  check('vm-sim is built', ok, all);
  runScenarios();
});
await step('storm', runStorm);
await step('examples', runExamples);
await step('benchmarks', runBenchmarks);
await step('oracle', runOracle);
await step('cache', () => tool('cache-proof.mjs', 900));

print(`\n== result (${elapsed()}${total.skipped > 0 ? `, ${total.skipped} tests skipped` : ''})`);
for (const failure of failures) print(failure);
print(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed === 0 ? 0 : 1;
