// Runs turbo from this workspace with no telemetry and no update check, so that it never needs a network.
// `import { turbo }` for other tools; as a script, `node tools/turbo.mjs run test`.
import { spawnSync } from 'node:child_process';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * @param {string[]} args
 * @param {{ cwd?: string, stdio?: import('node:child_process').StdioOptions, timeoutSeconds?: number }} [options]
 */
export function turbo(args, { cwd = root, stdio = 'inherit', timeoutSeconds } = {}) {
  const bin = join(cwd, 'node_modules', '.bin');
  return spawnSync(process.execPath, [join(cwd, 'node_modules', 'turbo', 'bin', 'turbo'), ...args], {
    cwd,
    stdio,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: timeoutSeconds === undefined ? undefined : timeoutSeconds * 1000,
    env: {
      ...process.env,
      // turbo runs the packages' scripts with the pnpm of the workspace, not with one that happens to be installed.
      PATH: `${bin}${delimiter}${process.env.PATH ?? ''}`,
      TURBO_TELEMETRY_DISABLED: '1',
      TURBO_NO_UPDATE_NOTIFIER: '1',
      DO_NOT_TRACK: '1',
    },
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { status, error } = turbo(process.argv.slice(2));
  if (error) throw error;
  process.exit(status ?? 1);
}
