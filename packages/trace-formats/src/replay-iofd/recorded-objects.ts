/** Id that no object has. */
const BOGUS_ID = 9999;

/** The objects that the recording program has made, by the names that it gives them. */
export class RecordedObjects {
  /** Id of the bound device; 0 before. */
  deviceId = 0;
  /** Id of the HWPT allocated last; 0 before. */
  hwptId = 0;
  /** Id of the IOAS that last was given a list of allowed IOVAs. */
  allowedIoasId: number | null = null;
  /** `ioas`, `ioas2`, … in the order in which they were allocated. */
  readonly #ioasIds: number[] = [];

  /** A new IOAS; the text may say which (`IOAS_ALLOC #3`). */
  addIoas(id: number, text: string): void {
    const number = Number(/#(\d+)/.exec(text)?.[1] ?? this.#ioasIds.length + 1);
    this.#ioasIds[number - 1] = id;
  }

  /** The first. */
  get mainIoas(): number {
    return this.#ioasIds[0] ?? BOGUS_ID;
  }

  get newestIoas(): number {
    return this.#ioasIds.at(-1) ?? BOGUS_ID;
  }

  get ioasIds(): readonly number[] {
    return this.#ioasIds.filter((id) => id !== undefined);
  }

  /** The IOAS, or what stands in its place, that a text names; null if it names none. */
  namedIoas(text: string): number | null {
    if (/\bbad ioas\b/.test(text)) return BOGUS_ID;
    if (/\bioas id = dev id\b/.test(text)) return this.deviceId;
    const number = /\bioas(\d+)\b/.exec(text);
    return number ? (this.#ioasIds[Number(number[1]) - 1] ?? BOGUS_ID) : null;
  }

  /** The object that a DESTROY or ATTACH names. */
  named(text: string): number {
    const bogus = /\bbogus id (\d+)\b/.exec(text);
    if (bogus) return Number(bogus[1]);
    if (/\bdevice id\b/.test(text)) return this.deviceId;
    if (/\bhwpt\b/.test(text) && !/\bauto hwpt\b/.test(text)) return this.hwptId;
    return this.namedIoas(text) ?? this.mainIoas;
  }
}
