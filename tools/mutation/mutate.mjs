// Mutates the files in which the protocols are, one change at a time, and runs the tests of their package: a mutant that survives is
// a rule that no test holds. Survivors are listed; those that `explained.json` gives a reason for are expected, any other is a failure.
//
//   npm run mutation                              # all protocol files; an hour or two
//   npm run mutation -- vtd-pagetable/cut.ts      # some of them
//   npm run mutation -- --concurrency 1           # at a time; 2 by default
//   npm run mutation -- --near vtd-pagetable/cut.ts # only the file's own tests, while one writes them
//
// The mutants are made in a copy, so that a run that is stopped leaves the checkout as it was.
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Stryker } from '@stryker-mutator/core';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = fileURLToPath(new URL('.', import.meta.url));

/** The files in which the protocols are, by package. */
const PROTOCOL_FILES = JSON.parse(readFileSync(join(here, 'protocol-files.json'), 'utf8'));
/** Survivors that are equivalent to the original, or whose difference nobody can see, each with its reason; `line` if the text is in more places than one. */
const EXPLAINED = JSON.parse(readFileSync(join(here, 'explained.json'), 'utf8'));

const { values: options, positionals } = parseArgs({
  options: { concurrency: { type: 'string', default: '2' }, near: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const concurrency = Number(options.concurrency);
if (!(Number.isInteger(concurrency) && concurrency > 0))
  fail(`--concurrency ${options.concurrency}: expected a positive integer`);

function fail(message) {
  process.stderr.write(`mutation: ${message}\n`);
  process.exit(2);
}

/** `vtd-pagetable`, `vtd-pagetable/cut.ts`: what is asked for, as files by package. */
function chosen(words) {
  if (words.length === 0) return PROTOCOL_FILES;
  const files = {};
  for (const word of words) {
    const [name, ...rest] = word.split('/');
    const known = PROTOCOL_FILES[name];
    if (!known) fail(`${word}: expected one of ${Object.keys(PROTOCOL_FILES).join(', ')}, or one of their files`);
    const file = rest.join('/');
    if (file !== '' && !existsSync(join(root, 'packages', name, 'src', file))) fail(`${word}: there is no such file`);
    files[name] = [...(files[name] ?? []), ...(file === '' ? known : [file])];
  }
  return files;
}

/** As the package's own, with properties whose cases are the same in every run, and which stop at the first that fails. */
const vitestConfig = (include) => `import { packageTests } from '../../vitest.shared.ts';

export default (env) => {
  const config = packageTests()(env);
  const include = ${JSON.stringify(include)} ?? config.test.include;
  return { ...config, test: { ...config.test, include, setupFiles: ['vitest.mutation.setup.ts'] } };
};
`;
const VITEST_SETUP = `import fc from 'fast-check';

fc.configureGlobal({ seed: 1, endOnFailure: true });
`;

/** The tests of one file: those that have its name, and the laws of what steps announce. Null: it has none of its own. */
function testsOf(name, file) {
  const own = `${basename(file, '.ts')}.test.ts`;
  const here = readdirSync(join(root, 'packages', name, 'test'));
  return here.includes(own)
    ? here.filter((of) => of === own || of === 'footprint.test.ts').map((of) => `test/${of}`)
    : null;
}

/** A copy of one package, with the checkout's dependencies. */
function copyOf(name) {
  const copy = mkdtempSync(join(tmpdir(), 'faultline-mutation-'));
  for (const file of ['vitest.shared.ts', 'tsconfig.base.json']) cpSync(join(root, file), join(copy, file));
  const target = join(copy, 'packages', name);
  cpSync(join(root, 'packages', name), target, {
    recursive: true,
    // Real threads load the sources by themselves, where no mutant is switched on. Accounts of tables are tests of other files.
    filter: (path) =>
      !/\/(node_modules|dist|reports|\.turbo|test\/(threads(\.test\.ts)?|explain-.*\.test\.ts))(\/|$)/.test(path),
  });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  symlinkSync(join(root, 'packages', name, 'node_modules'), join(target, 'node_modules'));
  writeFileSync(join(target, 'vitest.mutation.setup.ts'), VITEST_SETUP);
  return { copy, target };
}

/** One run of Stryker over some mutants, in the copy in which it is, with some of the tests. */
function run(mutate, tests) {
  writeFileSync('vitest.mutation.config.ts', vitestConfig(tests));
  const stryker = new Stryker({
    inPlace: true,
    testRunner: 'vitest',
    vitest: { configFile: 'vitest.mutation.config.ts' },
    plugins: [fileURLToPath(import.meta.resolve('@stryker-mutator/vitest-runner'))],
    mutate,
    reporters: ['progress-append-only'],
    coverageAnalysis: 'perTest',
    concurrency,
    // On top of one and a half times what the tests took; that is little where they are those of one file.
    timeoutMS: tests === null ? 20_000 : 7_000,
    // Labels of steps and texts of errors are no rules.
    mutator: { excludedMutations: ['StringLiteral'] },
    cleanTempDir: 'always',
  });
  return stryker.runMutationTest();
}

/** A mutant in Stryker's notation for a place, whose columns count from 0. */
const rangeOf = ({ location: { start, end } }) => `${start.line}:${start.column - 1}-${end.line}:${end.column - 1}`;

const keyOf = (mutant) => `${rangeOf(mutant)} ${mutant.replacement}`;

/** First with the file's own tests, which are quick and kill most; then what has survived these with all tests of the package. */
async function mutateFile(file, tests) {
  const path = `src/${file}`;
  const results = await run([path], tests);
  if (tests === null || options.near) return results;
  const left = new Set(results.filter(isLeft).map(keyOf));
  if (left.size === 0) return results;
  const ranges = [...new Set(results.filter(isLeft).map((mutant) => `${path}:${rangeOf(mutant)}`))];
  const again = new Map((await run(ranges, null)).map((mutant) => [keyOf(mutant), mutant]));
  return results.map((mutant) => (left.has(keyOf(mutant)) ? (again.get(keyOf(mutant)) ?? mutant) : mutant));
}

async function mutate(name, files) {
  const { copy, target } = copyOf(name);
  const before = process.cwd();
  process.chdir(target);
  try {
    const results = [];
    for (const file of files) results.push(...(await mutateFile(file, testsOf(name, file))));
    return results;
  } finally {
    process.chdir(before);
    rmSync(copy, { recursive: true, force: true });
  }
}

/** A mutant's file below `src`. */
const fileOf = ({ fileName }) => fileName.split(/(?:^|\/)src\//).pop();

const placeOf = (name, mutant) =>
  `packages/${name}/src/${fileOf(mutant)}:${mutant.location.start.line}:${mutant.location.start.column}`;

/** The lines of a mutant's file. */
const sourceOf = (name, mutant) =>
  readFileSync(join(root, 'packages', name, 'src', fileOf(mutant)), 'utf8').split('\n');

/** The text that a mutant replaces. */
function originalOf(name, mutant) {
  const { start, end } = mutant.location;
  const lines = sourceOf(name, mutant).slice(start.line - 1, end.line);
  if (lines.length === 0) return '';
  const last = lines.length - 1;
  lines[last] = lines[last].slice(0, end.column - 1);
  lines[0] = lines[0].slice(start.column - 1);
  return lines.join('\n');
}

/** Why a survivor is no gap. An original that is in many places is told from the others by its `line`. */
const reasonOf = (name, original, mutant) =>
  EXPLAINED.find(
    (of) =>
      of.file === `${name}/${fileOf(mutant)}` &&
      of.original === original &&
      of.replacement === mutant.replacement &&
      (of.line === undefined || of.line === sourceOf(name, mutant)[mutant.location.start.line - 1].trim()),
  )?.reason;

const print = (name, mutant, original) =>
  process.stdout.write(
    `${placeOf(name, mutant)}: ${mutant.status}: ${mutant.mutatorName}\n- ${original}\n+ ${mutant.replacement}\n`,
  );

const isKilled = ({ status }) => status === 'Killed' || status === 'Timeout';
const isLeft = ({ status }) => status === 'Survived' || status === 'NoCoverage';

/** Prints what has survived of one file without a reason, and what ended by time-out: that is to be an endless loop, not a busy machine. */
function rowOf(name, file, mutants) {
  let explained = 0;
  for (const mutant of mutants) {
    const original = originalOf(name, mutant);
    if (mutant.status === 'Timeout') print(name, mutant, original);
    if (isKilled(mutant)) continue;
    if (reasonOf(name, original, mutant) !== undefined) explained++;
    else print(name, mutant, original);
  }
  const killed = mutants.filter(isKilled).length;
  const survived = mutants.length - killed - explained;
  return { file: `${name}/${file}`, mutants: mutants.length, killed, explained, survived };
}

const rows = [];
for (const [name, files] of Object.entries(chosen(positionals))) {
  const results = await mutate(name, files);
  const counted = results.filter(({ status }) => status !== 'Ignored' && status !== 'CompileError');
  for (const file of files)
    rows.push(
      rowOf(
        name,
        file,
        counted.filter((mutant) => fileOf(mutant) === file),
      ),
    );
}
process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
process.exitCode = rows.some(({ survived }) => survived > 0) ? 1 : 0;
