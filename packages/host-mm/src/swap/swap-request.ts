import { type Agent, ANY_LOCATION, assert, Cost, Location, type Step, type Task } from '@faultline/sim';
import type { PageContent } from '../frame/page-content.ts';
import { PAGE_BYTES } from './compression-model.ts';
import type { SwapArea } from './swap-area.ts';
import type { SwapCommand } from './swap-faults.ts';
import type { Zram } from './zram.ts';

/** One command for a device, with where its pages come from or go to. */
export interface SwapRequest extends SwapCommand {
  readonly area: SwapArea;
  /** First frame, or -1 for a page that comes from zswap. */
  readonly pfn: number;
  /** Without frames: the lock that guards the pages. */
  readonly lockId: number;
  /** For writes: the content of page `index` now. */
  readonly load: (index: number) => PageContent;
  /** For reads: puts the content of page `index` into place. */
  readonly save: (index: number, content: PageContent) => void;
  /** For writes: whether the slots still are to be written. */
  readonly valid: () => boolean;
  /** Called in the step that completes the command. */
  readonly onEnd: (failed: boolean) => void;
}

/** Performs a command as a device does, and ends it. */
export function* performRequest(agent: Agent, request: SwapRequest): Task<void> {
  const { area } = request;
  const injected = area.faults.fails(request);
  const { zram } = area;
  const failed = zram
    ? yield* performZram(agent, request, zram, injected)
    : yield* performBlock(agent, request, injected);
  request.onEnd(failed);
}

function* performBlock(agent: Agent, request: SwapRequest, failed: boolean): Task<boolean> {
  const slow = request.area.faults.slowFactor;
  const { write, pages } = request;
  const first = write
    ? announce(agent, request, 'write page to swap', Cost.swapWrite, slow)
    : announce(agent, request, 'read page from swap', Cost.swapRead, slow);
  yield pages === 1 ? completes(agent, request, first) : first;
  if (!failed) move(request, 0, 1);
  if (pages > 1) {
    const label = write ? 'write further pages to swap' : 'read further pages from swap';
    const step = announce(agent, request, label, Cost.swapPage, slow * (pages - 1));
    // A step names one location; this one touches many frames.
    step.location = ANY_LOCATION;
    yield completes(agent, request, step);
    if (!failed) move(request, 1, pages);
  }
  return failed;
}

/** zram compresses and decompresses on the CPU that swaps, page by page, and stops at the first that it finds no memory for. */
function* performZram(agent: Agent, request: SwapRequest, zram: Zram, injected: boolean): Task<boolean> {
  for (let index = 0; index < request.pages; index++) {
    const stored = request.write
      ? yield* compressOne(agent, request, zram, index, injected)
      : yield* decompressOne(agent, request, zram, index, injected);
    if (!stored) return true;
  }
  return false;
}

function* compressOne(agent: Agent, request: SwapRequest, zram: Zram, index: number, injected: boolean): Task<boolean> {
  const { area } = request;
  const slot = request.slot + index;
  const compress = announce(agent, request, 'compress page for zram', Cost.compressPage, area.faults.slowFactor);
  if (request.pfn >= 0) compress.location = request.pfn + index;
  yield compress;
  const content = request.load(index);
  yield completes(agent, request, agent.writes('store page in zram', Location.lock, zram.lockId, Cost.free));
  if (injected) return false;
  if (!request.valid()) return true;
  checkUsed(area, slot);
  const stored = zram.store(slot, content.tagLo, content.tagHi);
  if (stored) area.content.write(slot, content);
  else area.content.setTag(slot, 0, 0);
  return stored;
}

function* decompressOne(
  agent: Agent,
  request: SwapRequest,
  zram: Zram,
  index: number,
  injected: boolean,
): Task<boolean> {
  const { area } = request;
  const slot = request.slot + index;
  const bytes = zram.storedBytes(slot);
  const cost = bytes === 0 || bytes === PAGE_BYTES ? Cost.pageCopy : Cost.decompressPage;
  const step = announce(agent, request, 'decompress page from zram', cost, area.faults.slowFactor);
  step.location = request.pfn + index;
  yield completes(agent, request, step);
  if (injected) return false;
  move(request, index, index + 1);
  return true;
}

function announce(agent: Agent, request: SwapRequest, label: string, cost: Step['cost'], units: number): Step {
  if (request.pfn < 0) return agent.writes(label, Location.lock, request.lockId, cost, units);
  return request.write
    ? agent.reads(label, Location.frame, request.pfn, cost, units)
    : agent.writes(label, Location.frame, request.pfn, cost, units);
}

/** Who is told of the end changes the folio's flags. */
function completes(agent: Agent, request: SwapRequest, step: Step): Step {
  return request.pfn < 0 ? step : agent.alsoWrites(step, Location.folio, request.pfn);
}

function move(request: SwapRequest, from: number, to: number): void {
  const { area, slot } = request;
  if (request.write && !request.valid()) return;
  for (let index = from; index < to; index++) {
    checkUsed(area, slot + index);
    if (request.write) area.content.write(slot + index, request.load(index));
    else request.save(index, area.content.read(slot + index));
  }
}

function checkUsed(area: SwapArea, slot: number): void {
  if (!area.isUsed(slot)) assert(false, () => `swap slot ${slot} of ${area.name} became free during its I/O`);
}
