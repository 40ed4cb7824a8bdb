/** A failure that the modelled kernel reports. */
export class IommufdError extends Error {
  /** The errno's name, such as `EEXIST`. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${code}: ${message}`);
    this.code = code;
  }
}
