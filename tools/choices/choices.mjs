// Which branches of the protocol files `verify` and `fuzz` reach: the explorations, cut off where they are long, and random machines,
// with the coverage of the files in which the protocols are. What is not reached is listed; what `unreached.json` gives a reason for
// is expected, anything else is a failure, and so is a reason for something that is reached.
//
//   npm run choices                                          # some minutes
//   npm run choices -- --machines 2000 --executions 1000    # further
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { defaultServerConditions } from 'vite';
import { startVitest } from 'vitest/node';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = fileURLToPath(new URL('.', import.meta.url));
const read = (path) => JSON.parse(readFileSync(join(here, path), 'utf8'));

/** The files in which the protocols are, by package: those that are mutated too, but for the caches, which are no protocol. */
const { iotlb: _, ...PROTOCOL_FILES } = read('../mutation/protocol-files.json');
/** What neither reaches: `{ file, source, reason }`, the source as it stands in the list. */
const EXPLAINED = read('unreached.json');

const number = (name, value) => {
  if (/^[1-9]\d*$/.test(value)) return value;
  process.stderr.write(`choices: --${name}: "${value}" is no number above 0\n`);
  process.exit(2);
};

function options() {
  try {
    return parseArgs({ options: { machines: { type: 'string' }, executions: { type: 'string' } } }).values;
  } catch (error) {
    process.stderr.write(`choices: ${error.message}\n`);
    process.exit(2);
  }
}

/** Runs both, and gives the coverage by file, in Istanbul's form. */
async function coverage() {
  const { machines = '300', executions = '40' } = options();
  process.env.CHOICES_MACHINES = number('machines', machines);
  process.env.CHOICES_EXECUTIONS = number('executions', executions);
  const directory = mkdtempSync(join(tmpdir(), 'faultline-choices-'));
  const conditions = ['@faultline/source', ...defaultServerConditions];
  try {
    const vitest = await startVitest(
      'test',
      [],
      {
        root,
        watch: false,
        config: false,
        include: ['tools/choices/reached.*.ts'],
        reporters: ['default'],
        coverage: {
          enabled: true,
          provider: 'v8',
          include: Object.entries(PROTOCOL_FILES).flatMap(([name, files]) =>
            files.map((file) => `packages/${name}/src/${file}`),
          ),
          reporter: ['json'],
          reportsDirectory: directory,
        },
      },
      { resolve: { conditions }, ssr: { resolve: { conditions, externalConditions: conditions } } },
    );
    await vitest.close();
    if (process.exitCode) throw new Error('an exploration failed');
    return JSON.parse(readFileSync(join(directory, 'coverage-final.json'), 'utf8'));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The end of a line is no number in JSON. */
const columnOf = ({ column }) => column ?? Number.POSITIVE_INFINITY;
const before = (a, b) => a.line < b.line || (a.line === b.line && columnOf(a) <= columnOf(b));
const within = (inner, outer) => before(outer.start, inner.start) && before(inner.end, outer.end);

/** The places of a file that nothing reached, none inside another. */
function unreached({ path, statementMap, s, fnMap, f, branchMap, b }) {
  const places = [
    ...Object.entries(fnMap).map(([key, { loc }]) => ({ loc, count: f[key] })),
    ...Object.entries(branchMap).flatMap(([key, { locations }]) =>
      locations.map((loc, nth) => ({ loc, count: b[key][nth] })),
    ),
    ...Object.entries(statementMap).map(([key, loc]) => ({ loc, count: s[key] })),
  ].filter(({ loc }) => loc.start?.line !== undefined && loc.end?.line !== undefined);
  const missed = places.filter(({ count }) => count === 0).map(({ loc }) => loc);
  const outer = missed.filter(
    (loc, nth) => !missed.some((other, at) => at !== nth && within(loc, other) && !(within(other, loc) && at > nth)),
  );
  const lines = readFileSync(path, 'utf8').split('\n');
  const file = relative(join(root, 'packages'), path).replace('/src/', '/');
  // A line at a time: two places of one line have one reason.
  const found = [...new Set(outer.map(({ start }) => start.line))]
    .sort((one, other) => one - other)
    .map((line) => ({ file, line, source: lines[line - 1].trim() }));
  return {
    all: places.length,
    missed: missed.length,
    // What is refused or cannot be is no choice of a protocol: the tests of the package hold it.
    refusals: found.filter(({ source }) => /\bthrow\b/.test(source)).length,
    found: found.filter(({ source }) => !/\bthrow\b/.test(source)),
  };
}

const byFile = Object.values(await coverage()).map(unreached);
const found = byFile.flatMap((of) => of.found);
const isSame = (a, b) => a.file === b.file && a.source === b.source;
const unexplained = found.filter((place) => !EXPLAINED.some((of) => isSame(of, place)));
const stale = EXPLAINED.filter((of) => !found.some((place) => isSame(of, place)));
for (const { file, line, source } of unexplained) process.stdout.write(`${file}:${line}: not reached: ${source}\n`);
for (const { file, source } of stale)
  process.stdout.write(`${file}: reached, though unreached.json says why not: ${source}\n`);
const all = byFile.reduce((sum, of) => sum + of.all, 0);
const missed = byFile.reduce((sum, of) => sum + of.missed, 0);
const refusals = byFile.reduce((sum, of) => sum + of.refusals, 0);
const explained = found.length - unexplained.length;
const summary = {
  files: byFile.length,
  branches: all,
  reached: all - missed,
  refusals,
  explained,
  unexplained: unexplained.length,
};
process.stdout.write(`${JSON.stringify(summary)}\n`);
process.exitCode = unexplained.length + stale.length > 0 ? 1 : 0;
