import { parentPort, workerData } from 'node:worker_threads';
import { runMapper } from './mapper-thread.ts';
import type { ThreadTask } from './thread-plan.ts';
import { runWalker } from './walker-thread.ts';

const task = workerData as ThreadTask;
parentPort?.postMessage(task.role === 'mapper' ? runMapper(task) : runWalker(task));
