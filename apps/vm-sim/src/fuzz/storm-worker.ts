// A worker of `vm-sim fuzz`: is sent seeds, and sends back what became of the machine of each.
import { parentPort } from 'node:worker_threads';
import { stormOf } from './storm-machine.ts';

parentPort?.on('message', (seed: number) => parentPort?.postMessage(stormOf(seed)));
