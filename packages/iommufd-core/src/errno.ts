/** A failure that the modelled kernel reports. */
export class IommufdError extends Error {
  /** The errno's name, such as `EEXIST`. */
  readonly code: string;
  /** What the kernel writes back in spite of the error: IOVA_RANGES with EMSGSIZE, HWPT_INVALIDATE. */
  readonly reply: unknown;

  constructor(code: string, message: string, reply?: unknown) {
    super(`${code}: ${message}`);
    this.code = code;
    this.reply = reply;
  }
}
