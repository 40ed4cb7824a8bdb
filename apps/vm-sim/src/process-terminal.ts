import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import type { WriteStream } from 'node:tty';
import { quoted } from './command-line-text.ts';
import { EXIT } from './exit-code.ts';
import type { OutputStream, Terminal } from './terminal.ts';

/** The terminal of this process. `close` lets go of stdin, which may be waiting for more. */
export function processTerminal(): Terminal & { close(): void } {
  let readsStdin = false;
  // npm runs scripts from the root of the repository; the user's paths are relative to where the user is.
  const cwd = process.env.INIT_CWD ?? process.cwd();
  return {
    stdout: outputStream(process.stdout),
    stderr: outputStream(process.stderr),
    stdin: () => {
      readsStdin = true;
      return process.stdin;
    },
    close: () => {
      if (readsStdin) process.stdin.destroy();
    },
    cwd,
    env: process.env,
    startedAs: startedAs(cwd),
    nowMs: () => performance.now(),
    peakRssBytes: () => process.resourceUsage().maxRSS * 1024,
    breathe: () => new Promise((resolve) => setImmediate(resolve)),
    onInterrupt(handler) {
      process.on('SIGINT', handler);
      return () => process.off('SIGINT', handler);
    },
    exitNow: (code) => process.exit(code),
  };
}

function outputStream(stream: WriteStream): OutputStream {
  let closed = false;
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // `vm-sim ... | head`: the reader has seen enough.
    closed = true;
    if (error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED') return;
    if (stream !== process.stderr) process.stderr.write(`error: the output cannot be written (${error.code})\n`);
    process.exit(EXIT.internal);
  });
  return {
    isTerminal: stream.isTTY === true,
    // A terminal may say that it has no columns at all.
    columns: stream.columns || 100,
    write(text) {
      if (!closed) stream.write(text);
    },
  };
}

/** The words that start this program again from the user's directory. */
function startedAs(cwd: string): string {
  const script = process.argv[1] ?? '';
  const root = repositoryRoot(dirname(script));
  if (root === undefined) return script.endsWith('.js') ? `node ${quoted(near(cwd, script))}` : 'vm-sim';
  return near(root, cwd).startsWith('..') || near(root, cwd).startsWith(sep)
    ? `npm start --silent --prefix ${quoted(root)} --`
    : 'npm start --silent --';
}

const near = (from: string, to: string): string => relative(from, to) || '.';

/** The checkout that the program is part of; undefined if it was installed as a package. */
function repositoryRoot(start: string): string | undefined {
  for (let at = start; ; at = dirname(at)) {
    const manifest = join(at, 'package.json');
    if (existsSync(manifest) && existsSync(join(at, 'pnpm-workspace.yaml'))) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string };
      return name === 'faultline' ? at : undefined;
    }
    if (dirname(at) === at) return undefined;
  }
}
