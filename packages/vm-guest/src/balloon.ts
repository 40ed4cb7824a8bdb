import { type Agent, Cost, type Task } from '@faultline/sim';
import type { GuestPageAllocator } from './page-allocator.ts';
import type { WorkloadContext } from './workload.ts';

/** Options of {@link runBalloon}. */
export interface BalloonOptions {
  readonly allocator: GuestPageAllocator;
  /** 4K pages that it takes before it gives all back. */
  readonly pages: number;
  /** Pages that one request to the VMM names; virtio-balloon's array holds 256. */
  readonly batch: number;
  /** Time between two requests, in ns. */
  readonly intervalNs: number;
  /** Time that it stays inflated, and then deflated, in ns. */
  readonly holdNs: number;
  /** RAM to pick pages from, in pages. */
  readonly ramPages: number;
  /** The VMM gives one page back to the host. */
  readonly discard: (agent: Agent, page: number) => Task<void>;
  readonly inflated: (pages: number) => void;
}

/** Picks before a batch is sent with fewer pages than it could hold. */
const PICKS_PER_PAGE = 4;

/**
 * A virtio-balloon driver: takes random free pages from the guest, a batch at a time, and names them to the VMM, which gives each back
 * to the host by itself; then hands them to the guest again. A page that DMA is using is left alone, and one in the balloon gets none.
 */
export function* runBalloon(context: WorkloadContext, options: BalloonOptions): Task<void> {
  const held: number[] = [];
  while (!context.stopped()) {
    while (!context.stopped() && held.length < options.pages) {
      yield* pause(context, options.intervalNs, 'balloon inflates');
      if (context.stopped()) return;
      const batch = takeBatch(context, options, options.pages - held.length);
      for (const page of batch) yield* options.discard(context.agent, page);
      held.push(...batch);
      options.inflated(batch.length);
      if (batch.length === 0) break;
    }
    yield* pause(context, options.holdNs, 'balloon holds');
    while (!context.stopped() && held.length > 0) {
      yield* pause(context, options.intervalNs, 'balloon deflates');
      for (const page of held.splice(-options.batch)) options.allocator.deflate(page);
    }
    yield* pause(context, options.holdNs, 'balloon rests');
  }
}

function takeBatch(context: WorkloadContext, options: BalloonOptions, most: number): number[] {
  const { allocator, batch, ramPages } = options;
  const wanted = Math.min(batch, most);
  const pages: number[] = [];
  for (let pick = 0; pick < wanted * PICKS_PER_PAGE && pages.length < wanted; pick++) {
    const page = allocator.pickFree(context.random, 0, ramPages);
    if (page >= 0 && allocator.inflate(page)) pages.push(page);
  }
  return pages;
}

function* pause(context: WorkloadContext, ns: number, label: string): Task<void> {
  yield context.agent.spends(label, Cost.nanosecond, Math.min(ns, context.remainingNs()));
}
