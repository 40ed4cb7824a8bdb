// Makes a checkout ready: checks Node, installs the dependencies if they are not those of this checkout, and, with
// `--application`, `--oracle`, `--bench` or `--promela`, builds that command line if its sources changed. It writes nothing to
// stdout, so that `npm start --silent -- <command>` can be piped, and it needs nothing but Node and npm.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const oldestNode = [20, 19];

function fail(message) {
  process.stderr.write(`faultline: ${message}\n`);
  process.exit(1);
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < oldestNode[0] || (major === oldestNode[0] && minor < oldestNode[1])) {
    fail(`needs Node ${oldestNode.join('.')} or newer, this is Node ${process.versions.node} (https://nodejs.org/)`);
  }
}

/** Every file below `directory`, sorted, so that the hash does not depend on the file system's order. */
function filesBelow(directory) {
  if (!existsSync(directory)) return [];
  if (statSync(directory).isFile()) return [directory];
  return readdirSync(directory, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      if (entry.name === 'node_modules') return [];
      const path = join(directory, entry.name);
      return entry.isDirectory() ? filesBelow(path) : entry.isFile() ? [path] : [];
    });
}

function workspaceDirectories() {
  return ['packages', 'apps', 'tools'].flatMap((group) =>
    existsSync(join(root, group))
      ? readdirSync(join(root, group))
          .sort()
          .map((name) => join(root, group, name))
          .filter((directory) => existsSync(join(directory, 'package.json')))
      : [],
  );
}

function hashOf(paths) {
  const hash = createHash('sha256').update(process.version).update(process.platform).update(process.arch);
  for (const path of paths.flatMap(filesBelow)) {
    hash.update(`\0${relative(root, path)}\0`).update(readFileSync(path));
  }
  return hash.digest('hex');
}

function isStamped(stamp, hash) {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === hash;
}

/** Runs a command with both its streams on our stderr; nothing is shown unless it fails when `quiet`. */
function run(command, args, quiet = false) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : ['ignore', 2, 2],
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    shell: process.platform === 'win32',
  });
  if (result.status === 0) return true;
  if (quiet) process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`);
  return false;
}

function installDependencies() {
  const manifest = join(root, 'package.json');
  const stamp = join(root, 'node_modules', '.faultline-installed');
  const inputs = [manifest, 'pnpm-lock.yaml', 'pnpm-workspace.yaml'].map((path) =>
    path === manifest ? path : join(root, path),
  );
  const hash = hashOf([...inputs, ...workspaceDirectories().map((directory) => join(directory, 'package.json'))]);
  if (isStamped(stamp, hash)) return;
  const { packageManager } = JSON.parse(readFileSync(manifest, 'utf8'));
  process.stderr.write('faultline: installing dependencies (once)\n');
  const args = ['--yes', packageManager, 'install', '--frozen-lockfile', '--config.confirmModulesPurge=false'];
  if (!run('npx', args)) fail('the installation of the dependencies failed, see above');
  writeFileSync(stamp, hash);
}

function buildCommand(path) {
  const name = path.at(-1);
  const application = join(root, ...path);
  const output = join(application, 'dist');
  const stamp = join(output, '.faultline-built');
  const hash = hashOf([
    ...workspaceDirectories().flatMap((directory) => [join(directory, 'src'), join(directory, 'package.json')]),
    ...['tsup.shared.ts', 'tsconfig.base.json', 'pnpm-lock.yaml'].map((path) => join(root, path)),
    ...['tsup.config.ts', 'tsconfig.json', 'tsconfig.src.json'].map((path) => join(application, path)),
  ]);
  if (isStamped(stamp, hash)) return;
  process.stderr.write(`faultline: building ${name}\n`);
  const turbo = [
    join(root, 'tools', 'turbo.mjs'),
    'run',
    'build',
    `--filter=@faultline/${name}`,
    '--output-logs=errors-only',
  ];
  // A stale stamp would let the next run start what a failed build left behind.
  rmSync(stamp, { force: true });
  if (!run(process.execPath, turbo, true)) fail(`the build of ${name} failed, see above`);
  mkdirSync(output, { recursive: true });
  writeFileSync(stamp, hash);
}

checkNode();
installDependencies();
if (process.argv.includes('--application')) buildCommand(['apps', 'vm-sim']);
if (process.argv.includes('--oracle')) buildCommand(['tools', 'qemu-oracle']);
if (process.argv.includes('--bench')) buildCommand(['tools', 'bench']);
if (process.argv.includes('--promela')) buildCommand(['tools', 'promela']);
