/** Something that happened in a run, for a timeline. */
export interface SimEvent {
  /** Virtual time of its start, in ns. */
  readonly atNs: number;
  /** 0 for an instant. */
  readonly durationNs: number;
  /** Who: the agent's name; one track of a timeline each. */
  readonly track: string;
  /** What: `page fault`, `cut`, `swap out`. */
  readonly name: string;
  /** Details; addresses as hexadecimal strings. */
  readonly args: Readonly<Record<string, string | number>>;
}

/** Takes events. Producers ask `enabled` first, so that a run without a sink builds none. */
export interface EventSink {
  readonly enabled: boolean;
  record(event: SimEvent): void;
}

/** Drops everything. */
export const NULL_SINK: EventSink = { enabled: false, record: () => undefined };

/** Keeps up to `limit` events and counts the rest. */
export class EventLog implements EventSink {
  readonly enabled = true;
  readonly events: SimEvent[] = [];
  readonly #limit: number;
  #dropped = 0;

  constructor(limit = Number.POSITIVE_INFINITY) {
    this.#limit = limit;
  }

  /** How many events came after the log was full. */
  get dropped(): number {
    return this.#dropped;
  }

  record(event: SimEvent): void {
    if (this.events.length < this.#limit) this.events.push(event);
    else this.#dropped++;
  }
}
