import { beforeAll, describe, expect, it } from 'vitest';
import { bundleWorker, runThreads } from './threads/thread-run.ts';

let code: string;
beforeAll(async () => {
  code = await bundleWorker();
});

describe('walkers in other threads', () => {
  it('find only answers that were right at some moment of the walk, whatever the mapper does', async () => {
    const reports = await runThreads(code, { walkers: 1, milliseconds: 1000, defect: 'none', seed: 1 });
    expect(reports.flatMap(({ wrong }) => wrong)).toEqual([]);
    const [mapper, walker] = reports;
    expect(Object.keys(mapper?.kinds ?? {}).sort()).toEqual(['collapse', 'cut', 'map', 'protect', 'retry', 'unmap']);
    expect(mapper?.count).toBeGreaterThan(20);
    expect(walker?.count).toBeGreaterThan(1000);
  });
  // Each runs until a walker has found the defect.
  it.each([
    ['an entry is published by two 32-bit stores', 'torn-install'],
    ['a table page is freed without a wait for the walks that may be in it (I5)', 'no-wait-before-free'],
  ] as const)('find a wrong one if %s', async (_name, defect) => {
    const reports = await runThreads(code, { walkers: 2, milliseconds: 15_000, defect, seed: 2 });
    expect(reports.flatMap(({ wrong }) => wrong).length).toBeGreaterThan(0);
  });
});
