import { runPromela } from './command-line.ts';

const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interruption.abort());

// `promela ... | head`: the reader has seen enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});
// Set, not called with, so that what is still on its way to a pipe gets there.
process.exitCode = await runPromela(
  {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
    nowMs: () => performance.now(),
    interruption: interruption.signal,
  },
  process.argv.slice(2),
);
