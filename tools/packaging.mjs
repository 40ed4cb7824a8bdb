// What a user of a published package would meet: packs every package as `pnpm publish` would, and shows the archive to publint
// (is the manifest right for its files?) and attw (do the types resolve under every module resolution?); then knip
// (is anything declared, exported or kept that nothing uses?). Prints one `ok` or `not ok` line for each check.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { turbo } from './turbo.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
let failures = 0;

function report(name, complaint) {
  process.stdout.write(`${complaint === '' ? 'ok' : 'not ok'} - ${name}\n`);
  if (complaint === '') return;
  failures += 1;
  process.stdout.write(`${complaint.trimEnd().replace(/^/gm, '  ')}\n`);
}

/** Runs a script of node_modules; returns its output if it failed, the empty string if not. */
function complaintOf(script, args, cwd = root) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'node_modules', script), ...args], {
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
  });
  return status === 0 ? '' : `${stdout}${stderr}` || `exit ${status}`;
}

async function publintComplaint(archive, manifest) {
  const bytes = readFileSync(archive);
  const tarball = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const { messages, pkg } = await publint({ pack: { tarball }, strict: true });
  const relevant = messages.filter(({ type }) => type !== 'suggestion');
  return relevant.map((message) => formatMessage(message, pkg ?? manifest) ?? message.code).join('\n');
}

function attwComplaint(archive) {
  const args = ['--no-color', '--no-emoji', '--no-definitely-typed', archive];
  const complaint = complaintOf('@arethetypeswrong/cli/dist/index.js', args);
  if (complaint !== '') return complaint;
  // To attw a package with no types at all has none that are wrong.
  const listed = spawnSync('tar', ['-tzf', archive], { encoding: 'utf8' }).stdout.split('\n');
  const missing = ['dist/index.d.ts', 'dist/index.d.cts'].filter((file) => !listed.includes(`package/${file}`));
  return missing.map((file) => `${file} is missing`).join('\n');
}

async function checkPackage(directory, isLibrary, archives) {
  const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
  const packed = complaintOf('pnpm/bin/pnpm.cjs', ['pack', '--pack-destination', archives], directory);
  if (packed !== '') return report(`pack ${manifest.name}`, packed);
  const archive = join(archives, `${manifest.name.replace('@', '').replace('/', '-')}-${manifest.version}.tgz`);
  report(`publint ${manifest.name}`, await publintComplaint(archive, manifest));
  if (!isLibrary) return;
  report(`attw ${manifest.name}`, attwComplaint(archive));
}

function membersOf(group) {
  return readdirSync(join(root, group))
    .sort()
    .map((name) => join(root, group, name))
    .filter((directory) => existsSync(join(directory, 'package.json')));
}

const built = turbo(['run', 'build', '--continue', '--output-logs=errors-only'], { stdio: ['ignore', 2, 2] });
report('build', built.status === 0 ? '' : 'see the output of the build');
const archives = mkdtempSync(join(tmpdir(), 'faultline-archives-'));
try {
  for (const directory of membersOf('packages')) await checkPackage(directory, true, archives);
  for (const directory of membersOf('apps')) await checkPackage(directory, false, archives);
} finally {
  rmSync(archives, { recursive: true, force: true });
}
report('knip', complaintOf('knip/bin/knip.js', ['--no-progress']));
process.exit(failures === 0 ? 0 : 1);
