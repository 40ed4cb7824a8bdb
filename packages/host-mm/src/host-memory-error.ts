/** The errno codes that this package's tasks fail with. */
export type HostMemoryErrno =
  | 'ENOMEM'
  | 'EFAULT'
  | 'EHWPOISON'
  | 'EBUSY'
  | 'EPERM'
  | 'EINVAL'
  | 'EEXIST'
  | 'ENOENT'
  | 'EAGAIN';

/** A failure that the modelled kernel reports to its caller. */
export class HostMemoryError extends Error {
  /** `ENOMEM`: no frame, and reclaim freed none. `EFAULT`: no VMA. */
  readonly code: HostMemoryErrno;
  /** The page (Hva >> 12) at which it happened. */
  readonly page: number;

  constructor(code: HostMemoryErrno, page: number, message: string) {
    super(`${code}: ${message}`);
    this.name = 'HostMemoryError';
    this.code = code;
    this.page = page;
  }
}
