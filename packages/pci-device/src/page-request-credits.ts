import { Condition } from '@faultline/sim';

/** Outstanding page request allocation if nothing is said. */
const DEFAULT_CREDITS = 32;
/** As many as there are group indices. */
const MOST_CREDITS = 512;

/** The outstanding page request allocation of a PRI: a function's own, or a physical function's and its virtual ones' together. */
export class PageRequestCredits {
  /** Ready while another page request may be sent. */
  readonly free: Condition;
  /** Where steps that take one are, within `Location.device`. */
  readonly location: number;
  readonly #limit: number;
  #used = 0;

  /** @throws RangeError for a limit outside 1..512 */
  constructor(name: string, location: number, limit = DEFAULT_CREDITS) {
    if (!Number.isInteger(limit) || limit < 1 || limit > MOST_CREDITS)
      throw new RangeError(`pageRequestCredits: ${limit} is not in 1..${MOST_CREDITS}`);
    this.location = location;
    this.#limit = limit;
    this.free = new Condition(`${name}: page request credit`, () => this.#used < this.#limit);
  }

  take(): void {
    this.#used++;
  }

  put(): void {
    this.#used--;
    this.free.wake();
  }
}
