import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { errnoOf } from './system-call.ts';

/** What a file descriptor stands for. A file without `read`, `write` or `poll` refuses them as a kernel without the method does. */
export interface OpenFile {
  readonly name: string;
  /** Fills `into` from the start. @returns bytes @throws Error with an errno as its `code` */
  read?(agent: Agent, into: Uint8Array): Task<number>;
  write?(agent: Agent, from: Uint8Array): Task<number>;
  /** EPOLL bits. */
  poll?(): number;
  /** The last descriptor is closed. */
  close?(): void;
}

/** What poll gives for a file that has no poll of its own (DEFAULT_POLLMASK): IN, OUT, RDNORM and WRNORM. */
const ALWAYS_READY = 0x1 | 0x4 | 0x40 | 0x100;

/** The file descriptors of a process: the lowest free number is taken first. */
export class FileTable {
  readonly #files: (OpenFile | undefined)[] = [];
  readonly #limit: number;

  /** @param limit RLIMIT_NOFILE; 1024 if left out */
  constructor(limit = 1024) {
    this.#limit = limit;
  }

  /** Whether a file can be opened. */
  get hasRoom(): boolean {
    return this.#lowest() < this.#limit;
  }

  /** Opens. @returns the descriptor @throws IommufdError EMFILE */
  open(file: OpenFile): number {
    const fd = this.#lowest();
    if (fd >= this.#limit) throw new IommufdError('EMFILE', `fd: all ${this.#limit} are open`);
    this.#files[fd] = file;
    return fd;
  }

  /** The file of a descriptor, or undefined. */
  get(fd: number): OpenFile | undefined {
    return this.#files[fd];
  }

  /** close(2). @returns 0 or -EBADF */
  close(fd: number): number {
    return plainCall(() => {
      const file = this.#file(fd);
      this.#files[fd] = undefined;
      file.close?.();
      return 0;
    });
  }

  /** read(2) of at most `into.length` bytes. @returns how many, or a negative errno */
  *read(agent: Agent, fd: number, into: Uint8Array): Task<number> {
    try {
      const file = this.#file(fd);
      if (!file.read) throw new IommufdError('EINVAL', `fd ${fd}: ${file.name} cannot be read`);
      return yield* file.read(agent, into);
    } catch (error) {
      return errnoOf(error);
    }
  }

  /** write(2). @returns bytes taken, or a negative errno */
  *write(agent: Agent, fd: number, from: Uint8Array): Task<number> {
    try {
      const file = this.#file(fd);
      if (!file.write) throw new IommufdError('EINVAL', `fd ${fd}: ${file.name} cannot be written`);
      return yield* file.write(agent, from);
    } catch (error) {
      return errnoOf(error);
    }
  }

  /** What poll(2) reports now. @returns EPOLL bits, or a negative errno */
  poll(fd: number): number {
    return plainCall(() => {
      const file = this.#file(fd);
      return file.poll ? file.poll() : ALWAYS_READY;
    });
  }

  #file(fd: number): OpenFile {
    const file = this.#files[fd];
    if (file === undefined) throw new IommufdError('EBADF', `fd: ${fd} is not open`);
    return file;
  }

  #lowest(): number {
    let fd = 0;
    while (this.#files[fd] !== undefined) fd++;
    return fd;
  }
}

function plainCall(call: () => number): number {
  try {
    return call();
  } catch (error) {
    return errnoOf(error);
  }
}
