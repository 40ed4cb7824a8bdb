import { expect, it } from 'vitest';
import { bundleWorker, runThreads } from './threads/thread-run.ts';

it('two walkers judge millions of walks against one mapper, with several seeds', async () => {
  const code = await bundleWorker();
  let walks = 0;
  let changes = 0;
  let retries = 0;
  for (let seed = 1; seed <= 6; seed++) {
    const reports = await runThreads(code, { walkers: 2, milliseconds: 15_000, defect: 'none', seed });
    expect(reports.flatMap(({ wrong }) => wrong)).toEqual([]);
    for (const { role, count, kinds } of reports) {
      retries += kinds.retry ?? 0;
      if (role === 'walker') walks += count;
      else changes += count;
    }
  }
  expect(walks).toBeGreaterThan(5_000_000);
  expect(changes).toBeGreaterThan(1000);
  // Hardware's A and D do come between a cut's look and its install.
  expect(retries).toBeGreaterThan(0);
});
