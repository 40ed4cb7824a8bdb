/** A failure that the modelled driver reports, with the kernel's errno. */
export class PageTableError extends Error {
  /** The errno's name: `EADDRINUSE`, `EINVAL`, `ERANGE`, `ENOMEM`. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${code}: ${message}`);
    this.code = code;
  }
}
