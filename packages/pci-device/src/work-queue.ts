import type { Agent, Task } from '@faultline/sim';
import type { DmaPath } from './dma-path.ts';
import { DmaStatus, type Endpoint } from './endpoint.ts';

/** Options of a {@link WorkQueue}. */
export interface WorkQueueOptions {
  readonly endpoint: Endpoint;
  /** Page that holds the descriptors (submission queue, ring). */
  readonly descriptorPage: number;
  /** Page that completions are written to. */
  readonly completionPage: number;
}

/** How a request ended: pages by {@link DmaStatus}. */
export interface RequestResult {
  completed: number;
  dropped: number;
  aborted: number;
}

/**
 * One queue pair of a device: a request is a descriptor fetch, its data, a completion write. NVMe submission and completion
 * queues, NIC rings and accelerator work queues are all this.
 */
export class WorkQueue {
  readonly endpoint: Endpoint;
  readonly #descriptorPage: number;
  readonly #completionPage: number;
  #completions = 0;

  constructor(options: WorkQueueOptions) {
    this.endpoint = options.endpoint;
    this.#descriptorPage = options.descriptorPage;
    this.#completionPage = options.completionPage;
  }

  /**
   * Runs one request. @param pages the data pages in order @param write whether data flows into memory @param tagLo low
   * half of the content tag of the first page of a write; the i-th page gets `tagLo + i` @param result filled anew
   */
  *request(
    agent: Agent,
    path: DmaPath,
    pages: readonly number[],
    write: boolean,
    tagLo: number,
    tagHi: number,
    result: RequestResult,
  ): Task<RequestResult> {
    result.completed = 0;
    result.dropped = 0;
    result.aborted = 0;
    const { endpoint } = this;
    const fetched = yield* endpoint.dmaPage(agent, 'descriptor', this.#descriptorPage, false, 0, 0);
    count(result, fetched);
    // Without its descriptor the device knows neither the buffers nor what to complete.
    if (fetched !== DmaStatus.completed) return result;
    for (let i = 0; i < pages.length && !endpoint.dead; i++) {
      const page = pages[i] as number;
      count(result, yield* endpoint.dmaPage(agent, path, page, write, (tagLo + i) | 0, tagHi));
    }
    this.#completions++;
    count(
      result,
      yield* endpoint.dmaPage(agent, 'completion', this.#completionPage, true, this.#completions, endpoint.sourceId),
    );
    return result;
  }
}

function count(result: RequestResult, status: number): void {
  if (status === DmaStatus.completed) result.completed++;
  else if (status === DmaStatus.dropped) result.dropped++;
  else result.aborted++;
}
