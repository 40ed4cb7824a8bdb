import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const MACHINES = 20_000;

/** In threads, as a user runs it; the command line is built first if its sources changed. Two idle cores take about 25 minutes. */
it('20,000 machines at random: no violation, in an hour', { timeout: 3_900_000 }, () => {
  const run = (args: readonly string[]) =>
    spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });
  expect(run(['tools/bootstrap.mjs', '--application']).status).toBe(0);
  const options = ['--runs', `${MACHINES}`, '--time', '3600s', '--seed', '100000', '--json', '--quiet'];
  const { stdout, stderr } = run(['apps/vm-sim/bin/vm-sim.js', 'fuzz', ...options, '--output', tmpdir()]);
  const { machines, failures } = JSON.parse(stdout || `{ "failures": ${JSON.stringify(stderr)} }`);
  expect(failures).toEqual([]);
  expect(machines).toBe(MACHINES);
});
