import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { build } from 'vite';
import { SharedHistory } from './shared-history.ts';
import { type Defect, type ThreadReport, type ThreadTask, watchedPages } from './thread-plan.ts';

/** The worker's code in one CommonJS string: Node 20 cannot run TypeScript sources in a worker. */
export async function bundleWorker(): Promise<string> {
  const built = await build({
    configFile: false,
    logLevel: 'silent',
    resolve: { conditions: ['@faultline/source'] },
    build: {
      write: false,
      target: 'node20',
      minify: false,
      lib: {
        entry: fileURLToPath(new URL('thread-worker.ts', import.meta.url)),
        formats: ['cjs'],
        fileName: 'thread-worker',
      },
      rollupOptions: { external: [/^node:/] },
    },
  });
  const [first] = Array.isArray(built) ? built : [built];
  const chunk = first !== undefined && 'output' in first ? first.output[0] : undefined;
  if (chunk?.type !== 'chunk') throw new Error('the worker was not bundled');
  return chunk.code;
}

/** A run of one mapper and some walkers over one table. */
export interface ThreadRun {
  readonly walkers: number;
  readonly milliseconds: number;
  readonly defect: Defect;
  readonly seed: number;
}

/** Starts the threads, stops them after the time or at the first wrong answer, and collects their reports. */
export async function runThreads(code: string, run: ThreadRun): Promise<ThreadReport[]> {
  const tablePages = 64;
  const control = new SharedArrayBuffer(4096);
  const shared = {
    ...run,
    tablePages,
    // The first page of the default region: the mapper's first allocation is the root.
    rootPfn: 0x1000,
    memory: new SharedArrayBuffer(tablePages * 4096),
    history: new SharedHistory(watchedPages).buffer,
    control,
  };
  const tasks: ThreadTask[] = [{ ...shared, role: 'mapper', nth: 0 }];
  for (let nth = 0; nth < run.walkers; nth++)
    tasks.push({ ...shared, role: 'walker', nth, seed: run.seed + 7919 * (nth + 1) });
  const reports = tasks.map(
    (workerData) =>
      new Promise<ThreadReport>((resolve, reject) => {
        const worker = new Worker(code, { eval: true, workerData });
        worker.once('message', resolve);
        worker.once('error', reject);
      }),
  );
  const timer = setTimeout(() => Atomics.store(new Int32Array(control), 0, 1), run.milliseconds);
  try {
    return await Promise.all(reports);
  } finally {
    Atomics.store(new Int32Array(control), 0, 1);
    clearTimeout(timer);
  }
}
