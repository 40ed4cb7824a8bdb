import { checkInteger } from '../argument.ts';

/** A read or write of adjoining slots by one area's device. */
export interface SwapCommand {
  readonly write: boolean;
  /** First slot, within the area. */
  readonly slot: number;
  readonly pages: number;
}

/** Which commands fail: the n-th from now (1 is the next one), only that one; or each for which the function says so; or none. */
export type SwapFailure = number | ((command: SwapCommand) => boolean) | null;

/** Errors and slowness of one area's device, on purpose. All may be changed while the run goes on. */
export class SwapFaults {
  #slowFactor = 1;
  #failReads: SwapFailure = null;
  #failWrites: SwapFailure = null;
  /** Reads that failed on purpose. */
  injectedReadErrors = 0;
  /** Writes that failed on purpose. */
  injectedWriteErrors = 0;

  /** How many times as long the device's commands take. */
  get slowFactor(): number {
    return this.#slowFactor;
  }

  /** @throws RangeError unless it is an integer in 1..2^20 */
  set slowFactor(factor: number) {
    checkInteger('slowFactor', factor, 1, 2 ** 20);
    this.#slowFactor = factor;
  }

  get failReads(): SwapFailure {
    return this.#failReads;
  }

  /** @throws RangeError for a count that is no positive integer */
  set failReads(failure: SwapFailure) {
    this.#failReads = checked('failReads', failure);
  }

  get failWrites(): SwapFailure {
    return this.#failWrites;
  }

  /** @throws RangeError for a count that is no positive integer */
  set failWrites(failure: SwapFailure) {
    this.#failWrites = checked('failWrites', failure);
  }

  /** Whether this command is to fail. Counts down; to be asked once for each command. */
  fails(command: SwapCommand): boolean {
    const failure = command.write ? this.#failWrites : this.#failReads;
    if (failure === null) return false;
    const fails = typeof failure === 'function' ? failure(command) : failure === 1;
    if (typeof failure === 'number') {
      const left = failure === 1 ? null : failure - 1;
      if (command.write) this.#failWrites = left;
      else this.#failReads = left;
    }
    if (fails && command.write) this.injectedWriteErrors++;
    else if (fails) this.injectedReadErrors++;
    return fails;
  }
}

function checked(name: string, failure: SwapFailure): SwapFailure {
  if (typeof failure === 'number') checkInteger(name, failure, 1, Number.MAX_SAFE_INTEGER);
  return failure;
}
