/** A line that was not understood. */
export interface UnknownLine {
  readonly file: string;
  /** 1-based. */
  readonly line: number;
  /** Its text, cut after 200 characters. */
  readonly text: string;
}

/** Where every line of a trace went: the four counts add up to `lines`. */
export interface LineCounts {
  readonly lines: number;
  /** Carried an event that is used. */
  readonly parsed: number;
  /** A known event, or an event of another subsystem, that says nothing here. */
  readonly irrelevant: number;
  /** Comments, headers and blank lines. */
  readonly comments: number;
  /** Unknown or damaged: never silently dropped. */
  readonly unknown: number;
  /** The first of the unknown ones. */
  readonly firstUnknown: readonly UnknownLine[];
}

const KEPT = 10;
const TEXT_LENGTH = 200;

/** Counts lines as a reader goes through them. */
export class LineAccount {
  /** Name of the trace. */
  readonly file: string;
  /** Number of the line being read, 1-based. */
  line = 0;
  parsed = 0;
  irrelevant = 0;
  comments = 0;
  unknown = 0;
  readonly #firstUnknown: UnknownLine[] = [];

  constructor(file: string) {
    this.file = file;
  }

  /** Counts a line that was not understood and keeps it if it is one of the first. */
  addUnknown(text: string): void {
    this.unknown++;
    if (this.#firstUnknown.length < KEPT)
      this.#firstUnknown.push({ file: this.file, line: this.line, text: text.slice(0, TEXT_LENGTH) });
  }

  /** The counts so far. */
  snapshot(): LineCounts {
    const { line, parsed, irrelevant, comments, unknown } = this;
    return { lines: line, parsed, irrelevant, comments, unknown, firstUnknown: [...this.#firstUnknown] };
  }
}
