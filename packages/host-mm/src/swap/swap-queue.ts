import { type Agent, Condition, Cost, Location, type Task } from '@faultline/sim';
import type { SwapArea } from './swap-area.ts';
import { performRequest, type SwapRequest } from './swap-request.ts';

/** The commands of one area: in the caller's task, or in order of arrival by workers once there are some. */
export class SwapQueue {
  readonly area: SwapArea;
  /** Commands that wait or are being performed. */
  inFlight = 0;
  #workers = 0;
  #waiting: SwapRequest[] = [];
  #first = 0;
  readonly #work: Condition;

  readonly #onEnded: () => void;

  /** @param onEnded called when a command has ended */
  constructor(area: SwapArea, onEnded: () => void = () => undefined) {
    this.area = area;
    this.#onEnded = onEnded;
    this.#work = new Condition(`${area.name} queue`, () => this.#first < this.#waiting.length);
  }

  /** Performs a command, or queues it. */
  *submit(agent: Agent, request: SwapRequest): Task<'done' | 'queued'> {
    this.inFlight++;
    if (this.#workers === 0 || this.area.model.kind === 'zram') {
      yield* this.#perform(agent, request);
      return 'done';
    }
    yield agent.writes('queue swap I/O', Location.lock, this.#work.id, Cost.free);
    this.#waiting.push(request);
    this.#work.wake();
    return 'queued';
  }

  /** A daemon that performs queued commands. @throws TypeError for zram @throws RangeError beyond the queue's depth */
  worker(agent: Agent): Task<void> {
    const { model, name } = this.area;
    if (model.kind !== 'block') throw new TypeError(`area: ${name} is ${model.kind}, which has no queue`);
    if (this.#workers >= model.queueDepth)
      throw new RangeError(`area: ${name} has ${model.queueDepth} workers, as many as its queue is deep`);
    // From the call on: a command that comes before the worker's first step is for the worker.
    this.#workers++;
    return this.#serve(agent);
  }

  *#serve(agent: Agent): Task<void> {
    try {
      for (;;) {
        do yield agent.waits('wait for swap I/O', this.#work);
        while (!this.#work.ready());
        yield* this.#perform(agent, this.#take());
      }
    } finally {
      this.#workers--;
    }
  }

  *#perform(agent: Agent, request: SwapRequest): Task<void> {
    yield* performRequest(agent, {
      ...request,
      onEnd: (failed) => {
        this.inFlight--;
        request.onEnd(failed);
        this.#onEnded();
      },
    });
  }

  #take(): SwapRequest {
    const request = this.#waiting[this.#first++] as SwapRequest;
    // Amortised O(1): what was taken is cut off once it is half of the list.
    if (this.#first * 2 >= this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first);
      this.#first = 0;
    }
    return request;
  }
}
