import type { Terminal } from '../../src/terminal.ts';

/** A terminal in memory, with a clock that moves by `stepMs` at each look. */
export interface FakeTerminal extends Terminal {
  out(): string;
  err(): string;
  readonly exits: number[];
  /** Presses Ctrl-C. */
  interrupt(): void;
  readonly handlers: Set<() => void>;
}

export interface FakeOptions {
  readonly cwd?: string;
  readonly isTerminal?: boolean;
  readonly env?: Record<string, string>;
  readonly stdin?: string | Uint8Array;
  readonly stepMs?: number;
}

export function fakeTerminal(options: FakeOptions = {}): FakeTerminal {
  const written = { out: '', err: '' };
  const handlers = new Set<() => void>();
  const exits: number[] = [];
  let ms = 0;
  const stream = (name: 'out' | 'err') => ({
    isTerminal: options.isTerminal ?? false,
    columns: 100,
    write: (text: string | Uint8Array) => {
      written[name] += typeof text === 'string' ? text : new TextDecoder().decode(text);
    },
  });
  return {
    stdout: stream('out'),
    stderr: stream('err'),
    stdin: async function* () {
      const { stdin = '' } = options;
      yield typeof stdin === 'string' ? new TextEncoder().encode(stdin) : stdin;
    },
    cwd: options.cwd ?? process.cwd(),
    env: options.env ?? {},
    startedAs: 'vm-sim',
    nowMs: () => {
      ms += options.stepMs ?? 1;
      return ms;
    },
    peakRssBytes: () => 64 << 20,
    breathe: async () => undefined,
    onInterrupt(handler) {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
    exitNow: (code) => exits.push(code),
    out: () => written.out,
    err: () => written.err,
    exits,
    interrupt: () => {
      for (const handler of handlers) handler();
    },
    handlers,
  };
}
