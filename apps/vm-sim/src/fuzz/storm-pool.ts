import { Worker } from 'node:worker_threads';
import type { StormResult } from './storm-machine.ts';

/** Runs the machines of seeds, some at a time. */
export interface StormPool {
  /** What became of the next seed that is through, in no order; null when none is under way. */
  next(): Promise<StormResult | null>;
  /** Whether another seed can begin now. */
  readonly hasRoom: boolean;
  begin(seed: number): void;
  close(): Promise<void>;
}

/** So many machines at a time, each in a thread of its own. */
export function workerPool(jobs: number, script: URL): StormPool {
  const idle = Array.from({ length: jobs }, () => new Worker(script));
  const all = [...idle];
  const done: StormResult[] = [];
  let underWay = 0;
  let failure: Error | null = null;
  let wake: () => void = () => undefined;
  for (const worker of all) {
    worker.on('message', (result: StormResult) => {
      done.push(result);
      underWay--;
      idle.push(worker);
      wake();
    });
    worker.on('error', (error: Error) => {
      failure = error;
      wake();
    });
  }
  return {
    get hasRoom() {
      return idle.length > 0;
    },
    begin: (seed) => {
      underWay++;
      idle.pop()?.postMessage(seed);
    },
    next: async () => {
      while (done.length === 0 && underWay > 0 && failure === null)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      if (failure) throw failure;
      return done.shift() ?? null;
    },
    close: async () => {
      await Promise.all(all.map((worker) => worker.terminate()));
    },
  };
}
