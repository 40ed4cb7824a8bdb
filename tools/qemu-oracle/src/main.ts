import { runOracle } from './command-line.ts';
import type { Terminal } from './terminal.ts';

const terminal: Terminal = {
  cwd: process.env.INIT_CWD ?? process.cwd(),
  stderrIsTerminal: process.stderr.isTTY === true,
  out: (text) => process.stdout.write(text),
  err: (text) => process.stderr.write(text),
  nowMs: () => performance.now(),
  onInterrupt(handler) {
    process.on('SIGINT', handler);
    process.on('SIGTERM', handler);
    return () => {
      process.off('SIGINT', handler);
      process.off('SIGTERM', handler);
    };
  },
};

// `oracle ... | head`: the reader has seen enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});
// Set, not called with, so that what is still on its way to a pipe gets there.
process.exitCode = await runOracle(terminal, process.argv.slice(2));
