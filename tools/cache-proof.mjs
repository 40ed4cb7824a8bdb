// Shows that turbo’s cache does what the README says, on a copy of this checkout outside git that starts with the checkout’s own cache:
// a second run is all hits, a change in one package re-runs it and its dependents only, a change in a test only that package. The first two are
// run; what a change re-runs is asked of turbo, which decides it by the same hashes, and not run once more. Prints a table, and one `ok` or `not ok` line for each claim.
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { turbo } from './turbo.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const tasks = ['build', 'test', 'lint', 'types'];
const letters = { build: 'B', test: 'T', lint: 'L', types: 'Y' };
/** A package in the middle of the layers: it has packages below and above it. */
const probe = '@faultline/host-mm';
/** It reads all packages, so that a change in any of them is a change to it. */
const reader = '@faultline/style-test';
const unversioned = new Set(['node_modules', 'dist', 'reports', '.turbo', '.git']);

function filesOf(directory, prefix = '') {
  return readdirSync(join(directory, prefix), { withFileTypes: true }).flatMap((entry) => {
    if (unversioned.has(entry.name)) return [];
    const path = join(prefix, entry.name);
    return entry.isDirectory() ? filesOf(directory, path) : [path];
  });
}

function install(copy) {
  // The store that this checkout was installed from holds all that the copy needs.
  const { storeDir } = JSON.parse(readFileSync(join(root, 'node_modules', '.modules.yaml'), 'utf8'));
  const pnpm = join(root, 'node_modules', 'pnpm', 'bin', 'pnpm.cjs');
  const args = [pnpm, 'install', '--frozen-lockfile', '--offline', '--store-dir', dirname(storeDir)];
  const options = { cwd: copy, encoding: 'utf8', timeout: 600_000 };
  const offline = spawnSync(process.execPath, args, options);
  if (offline.status === 0) return;
  const { status, stdout, stderr } = spawnSync(process.execPath, [pnpm, 'install', '--frozen-lockfile'], options);
  if (status !== 0) throw new Error(`the installation of the copy failed:\n${offline.stdout}${stdout}${stderr}`);
}

/** Runs all tasks in the copy; gives what happened to each, by `package#task`. */
function runTasks(copy) {
  const runs = join(copy, '.turbo', 'runs');
  rmSync(runs, { recursive: true, force: true });
  const started = process.hrtime.bigint();
  const args = ['run', ...tasks, '--continue', '--summarize', '--output-logs=errors-only', '--cache-dir=.turbo/cache'];
  const { stdout, stderr } = turbo(args, { cwd: copy, stdio: 'pipe' });
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  const [summary] = existsSync(runs) ? readdirSync(runs) : [];
  if (summary === undefined) throw new Error(`turbo left no summary:\n${stdout}${stderr}`);
  const outcome = new Map();
  for (const task of JSON.parse(readFileSync(join(runs, summary), 'utf8')).tasks) {
    if (task.command === '<NONEXISTENT>') continue;
    const isHit = task.cache.status === 'HIT';
    outcome.set(task.taskId, isHit ? 'hit' : task.execution?.exitCode === 0 ? 'ran' : 'failed');
  }
  return { outcome, seconds };
}

/** What turbo would run and what it has in its cache, by `package#task`. */
function planTasks(copy) {
  const started = process.hrtime.bigint();
  const args = ['run', ...tasks, '--dry=json', '--cache-dir=.turbo/cache'];
  const { stdout, stderr } = turbo(args, { cwd: copy, stdio: 'pipe' });
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  if (!stdout.includes('{')) throw new Error(`turbo has no plan:\n${stdout}${stderr}`);
  const planned = JSON.parse(stdout.slice(stdout.indexOf('{'))).tasks.filter(
    ({ command }) => command !== '<NONEXISTENT>',
  );
  const outcome = new Map(planned.map(({ taskId, cache }) => [taskId, cache.status === 'HIT' ? 'hit' : 'ran']));
  return { outcome, seconds };
}

/** Appends a comment to a file while `body` looks. */
function withChange(path, body) {
  const before = readFileSync(path);
  appendFileSync(path, '// A change.\n');
  try {
    return body();
  } finally {
    writeFileSync(path, before);
  }
}

/** The packages that depend on `name`, directly or not, with it; from the manifests, not from turbo. */
function withDependents(copy, name) {
  const manifests = filesOf(copy)
    .filter((path) => /^[^/\\]+[/\\][^/\\]+[/\\]package\.json$/.test(path))
    .map((path) => JSON.parse(readFileSync(join(copy, path), 'utf8')));
  const found = new Set([name]);
  for (let before = 0; before !== found.size; ) {
    before = found.size;
    for (const manifest of manifests) {
      const used = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
      if (used.some((dependency) => found.has(dependency))) found.add(manifest.name);
    }
  }
  return found;
}

let failures = 0;
function claim(name, unexpected) {
  process.stdout.write(`${unexpected.length === 0 ? 'ok' : 'not ok'} - cache: ${name}\n`);
  if (unexpected.length === 0) return;
  failures += 1;
  process.stdout.write(`  ${unexpected.join('\n  ')}\n`);
}

/** Tasks whose outcome is not what `shouldRun` says; those that fail are never cached, and are another claim's matter. */
function surprises({ outcome }, shouldRun, failed) {
  return [...outcome]
    .filter(([task, is]) => !failed.has(task) && is !== (shouldRun(...task.split('#')) ? 'ran' : 'hit'))
    .map(([task, is]) => `${task}: ${is}`);
}

function printTable(columns) {
  const names = [...new Set([...columns[0].outcome.keys()].map((task) => task.split('#')[0]))].sort();
  const cell = ({ outcome }, name) =>
    tasks
      .map((task) => ({ hit: '.', ran: letters[task], failed: '!' })[outcome.get(`${name}#${task}`)] ?? ' ')
      .join('');
  const row = (cells) =>
    `${cells
      .map((text, index) => text.padEnd(index === 0 ? 28 : 14))
      .join('')
      .trimEnd()}\n`;
  process.stdout.write(row(['', 'first', 'again', 'host-mm src', 'host-mm test']));
  for (const name of names) process.stdout.write(row([name, ...columns.map((column) => cell(column, name))]));
  process.stdout.write(row(['seconds', ...columns.map(({ seconds }) => seconds.toFixed(1))]));
  process.stdout.write('B, T, L, Y: build, test, lint, types ran, or would; a dot is a hit; ! failed\n');
}

const copy = mkdtempSync(join(tmpdir(), 'faultline-cache-proof-'));
const cleanUp = () => rmSync(copy, { recursive: true, force: true });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    cleanUp();
    process.exit(130);
  });
}
try {
  for (const path of filesOf(root)) {
    mkdirSync(dirname(join(copy, path)), { recursive: true });
    cpSync(join(root, path), join(copy, path), { verbatimSymlinks: true });
  }
  // What this checkout has in its cache serves the copy too, as it serves the next machine of a CI; the rest runs.
  const cache = join('.turbo', 'cache');
  if (existsSync(join(root, cache))) cpSync(join(root, cache), join(copy, cache), { recursive: true });
  install(copy);
  const directory = join(copy, 'packages', probe.split('/')[1]);
  const testFile = filesOf(directory).find((path) => path.endsWith('.test.ts'));

  const first = runTasks(copy);
  const failed = new Set([...first.outcome].filter(([, is]) => is === 'failed').map(([task]) => task));
  const second = runTasks(copy);
  const above = withDependents(copy, probe);
  const third = withChange(join(directory, 'src', 'index.ts'), () => planTasks(copy));
  const fourth = withChange(join(directory, testFile), () => planTasks(copy));

  printTable([first, second, third, fourth]);
  claim('every task passes', [...failed]);
  claim(
    'a second run is all hits',
    surprises(second, () => false, failed),
  );
  claim(
    `a change in ${probe} re-runs it and its dependents only`,
    surprises(
      third,
      (name, task) => (task === 'lint' ? name === probe : above.has(name) || (task === 'test' && name === reader)),
      failed,
    ),
  );
  claim(
    `a change in a test of ${probe} re-runs no dependent`,
    surprises(
      fourth,
      (name, task) => (name === probe && task !== 'build') || (task === 'test' && name === reader),
      failed,
    ),
  );
} finally {
  cleanUp();
}
process.exit(failures === 0 ? 0 : 1);
