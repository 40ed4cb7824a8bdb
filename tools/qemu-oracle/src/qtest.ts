import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { UsageError } from './terminal.ts';

/** QEMU did something that it must not: it ended, it hangs, or it refused a command. */
export class QemuError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'QemuError';
  }
}

/** How to start one. */
export interface QtestOptions {
  /** Program name or path. */
  readonly program: string;
  /** Arguments beside those that this class adds: machine, firmware, qtest. */
  readonly arguments: readonly string[];
  /** Trace events to switch on; their lines go to `onTrace`. */
  readonly traceEvents: readonly string[];
  readonly onTrace: (line: string) => void;
  /** A command that is not answered for so long means that QEMU hangs. Default 30 s. */
  readonly hangSeconds?: number;
}

const FIRMWARE_BYTES = 0x10000;

/** Firmware of HLT alone: cli, hlt, and back to hlt at the reset vector. */
function haltFirmware(): Uint8Array {
  const image = new Uint8Array(FIRMWARE_BYTES).fill(0xf4);
  image.set([0xfa, 0xf4, 0xeb, 0xfc], FIRMWARE_BYTES - 16);
  return image;
}

const isProgram = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** The path of a program, searched as a shell does. @throws UsageError if there is none */
function findProgram(name: string): string {
  const directories = name.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter);
  const found = directories.map((directory) => join(directory, name)).find(isProgram);
  if (found !== undefined) return found;
  throw new UsageError(
    `${name} is not there or cannot be run; on Debian: apt-get install --no-install-recommends qemu-system-x86`,
  );
}

/** Lets the kernel end QEMU with us even if we are killed, where util-linux is installed. The process id stays the same. */
const tiedToUs = (): string[] => (isProgram('/usr/bin/setpriv') ? ['/usr/bin/setpriv', '--pdeathsig', 'KILL'] : []);

type Reply = (reply: string) => void;

/**
 * A QEMU that is driven through its qtest protocol: one line a command, one line a reply. Commands are collected and sent
 * together with {@link flush}. Debian's QEMU 7.2 has no qtest accelerator, so the processor is there (TCG) and halts; virtual
 * time jumps ahead while it does.
 */
export class Qtest {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #waiting: (Reply | null)[] = [];
  #answered = 0;
  #queued: string[] = [];
  #stdout = '';
  #trace = '';
  /** What QEMU said last that is no trace. */
  #complaint = '';
  #lastSign = performance.now();
  #failure: Error | null = null;
  #fail: (error: Error) => void = () => undefined;
  readonly #watch: NodeJS.Timeout;
  readonly #exited: Promise<void>;
  readonly #kill = (): void => this.#signal();
  /** Rejects once QEMU has failed; never resolves. */
  readonly failed: Promise<never>;

  private constructor(process_: ChildProcessWithoutNullStreams, options: QtestOptions) {
    this.#process = process_;
    this.failed = new Promise((_resolve, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => undefined);
    const hangMs = (options.hangSeconds ?? 30) * 1000;
    this.#watch = setInterval(() => this.#checkAlive(hangMs), 500);
    process_.stdout.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    process_.stderr.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.#trace + text).split('\n');
      this.#trace = lines.pop() ?? '';
      for (const line of lines)
        if (line.startsWith('vtd_')) options.onTrace(line);
        else if (line !== '') this.#complaint = `: ${line}`;
    });
    process_.stdin.on('error', () => undefined);
    process.on('exit', this.#kill);
    this.#exited = new Promise((resolve) => {
      process_.once('close', (code, signal) => {
        this.#abort(new QemuError(`QEMU ended (${signal ?? `status ${code}`})${this.#complaint}`));
        resolve();
      });
    });
  }

  /** Starts QEMU and waits for its first reply. @throws UsageError if there is no such program */
  static async start(options: QtestOptions): Promise<Qtest> {
    const directory = mkdtempSync(join(tmpdir(), 'faultline-oracle-'));
    try {
      const firmware = join(directory, 'halt.bin');
      writeFileSync(firmware, haltFirmware());
      const machine = ['-machine', 'q35,accel=tcg', '-icount', 'shift=0,sleep=off', '-bios', firmware];
      const plain = ['-display', 'none', '-nodefaults', '-qtest', 'stdio', '-qtest-log', 'none'];
      const traces = options.traceEvents.flatMap((event) => ['-trace', event]);
      const program = findProgram(options.program);
      const command = [...tiedToUs(), program, ...machine, ...plain, ...options.arguments, ...traces];
      // A process group of its own: Ctrl-C is for us, and we end QEMU.
      const child = spawn(command[0] as string, command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'], detached: true });
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve);
        child.once('error', reject);
      });
      const qtest = new Qtest(child, options);
      await qtest.ask('readb 0x0').catch(async (error: unknown) => {
        await qtest.close();
        throw error;
      });
      return qtest;
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  /** The process id, for messages. */
  get pid(): number {
    return this.#process.pid ?? -1;
  }

  /** Queues a command; `reply` gets what follows `OK`. */
  send(command: string, reply: Reply | null = null): void {
    if (this.#failure !== null) throw this.#failure;
    this.#queued.push(command);
    this.#waiting.push(reply);
  }

  /** Sends what is queued. */
  flush(): void {
    if (this.#queued.length === 0) return;
    this.#process.stdin.write(`${this.#queued.join('\n')}\n`);
    this.#queued = [];
  }

  /** Sends a command after those queued, and waits for its reply. */
  ask(command: string): Promise<string> {
    return Promise.race([
      new Promise<string>((resolve) => {
        this.send(command, resolve);
        this.flush();
      }),
      this.failed,
    ]);
  }

  /** Ends QEMU and waits until it is gone. */
  async close(): Promise<void> {
    clearInterval(this.#watch);
    this.#failure ??= new QemuError('QEMU was closed');
    this.#signal();
    await this.#exited;
    process.off('exit', this.#kill);
  }

  #signal(): void {
    if (this.#process.exitCode === null && this.#process.signalCode === null) this.#process.kill('SIGKILL');
  }

  #read(text: string): void {
    this.#lastSign = performance.now();
    const lines = (this.#stdout + text).split('\n');
    this.#stdout = lines.pop() ?? '';
    for (const line of lines) {
      if (this.#answered === this.#waiting.length) continue;
      const reply = this.#waiting[this.#answered++] ?? null;
      if (!line.startsWith('OK')) {
        this.#abort(new QemuError(`QEMU refused a command: ${line}`));
        return;
      }
      reply?.(line.slice(3));
    }
    if (this.#answered < this.#waiting.length) return;
    this.#waiting.length = 0;
    this.#answered = 0;
  }

  #checkAlive(hangMs: number): void {
    const isIdle = this.#queued.length === this.#waiting.length - this.#answered;
    const now = performance.now();
    if (isIdle) this.#lastSign = now;
    if (now - this.#lastSign < hangMs) return;
    this.#abort(new QemuError(`QEMU (process ${this.pid}) gave no answer for ${hangMs / 1000} s and was ended`));
    this.#signal();
  }

  #abort(error: Error): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#fail(error);
  }
}
