import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { bytesPerResidentPage } from './host-memory.ts';
import { measure, ResultsDiffer } from './measurement.ts';
import { CompilerMissing, compilerVersion, Native } from './native.ts';
import { parseOptions, Usage } from './options.ts';
import { toDocument, toTable, verificationTable } from './report.ts';
import { compareWithSpin } from './verification.ts';

/** Pages of the space measurement: 256 MiB. */
const PAGES = 65_536;

const note = (message: string): void => {
  process.stderr.write(`bench: ${message}\n`);
};

/** @returns the exit code: 0 measured, whatever the ratios; 1 the results of the two sides differ; 2 usage, or no compiler */
async function bench(args: readonly string[]): Promise<number> {
  const { benchmarks, protocols, effort, json } = parseOptions(args);
  note(`Node ${process.versions.node}, V8 ${process.versions.v8}; ${compilerVersion()}`);
  // So that no round pays for the garbage of the one before.
  setFlagsFromString('--expose-gc');
  globalThis.gc = runInNewContext('gc') as NonNullable<typeof globalThis.gc>;
  const native = Native.start();
  try {
    const rows = await measure(benchmarks, native, effort, note);
    const verified = (await compareWithSpin(protocols, note)) ?? [];
    const tables = [rows.length > 0 ? toTable(rows) : '', verified.length > 0 ? verificationTable(verified) : ''];
    process.stdout.write(json ? toDocument(rows, verified) : tables.filter((each) => each !== '').join('\n'));
    note(`host-mm: ${Math.round(bytesPerResidentPage(PAGES))} bytes for each resident 4K page, of ${PAGES}`);
    return 0;
  } finally {
    await native.stop();
  }
}

try {
  process.exitCode = await bench(process.argv.slice(2));
} catch (error) {
  if (error instanceof Usage) {
    (error.exitCode === 0 ? process.stdout : process.stderr).write(`${error.message}\n`);
    process.exitCode = error.exitCode;
  } else if (error instanceof CompilerMissing || error instanceof ResultsDiffer) {
    note(error.message);
    process.exitCode = error instanceof CompilerMissing ? 2 : 1;
  } else throw error;
}
