import { type AddressSpace, HostMemory } from '@faultline/host-mm';
import { Agent, runToEnd, type Task } from '@faultline/sim';
import { clockNs, type Outcome, outcome } from './benchmark.ts';
import { mix } from './working-set.ts';

const FIRST_PAGE = 0x40000;
const agent = new Agent('bench');
/** The last one made: what V8 has compiled for its classes stays while it lives. */
let last: AddressSpace | null = null;

/** An address space with `pages` of 4K memory; the first word of each is its number from 1 on once it is touched. */
function spaceOf(pages: number): AddressSpace {
  const host = new HostMemory({ frames: pages + 64, swapSlots: pages + 64, pageCluster: 0 });
  const mm = host.createAddressSpace('process');
  mm.mmap({ startPage: FIRST_PAGE, pages, backing: '4K' });
  last = mm;
  return mm;
}

function touch(mm: AddressSpace, pages: number): void {
  for (let i = 0; i < pages; i++)
    runToEnd(mm.cpuAccess(agent, FIRST_PAGE + i, { write: true, tagLo: i + 1, tagHi: 0 }));
}

/** What the pages hold, wherever they are. */
function hashOf(mm: AddressSpace, pages: number): number {
  let hash = 0;
  for (let i = 0; i < pages; i++) hash = mix(hash, mm.cpuRead(FIRST_PAGE + i).tagLo);
  return hash;
}

/** The first write to a 4K page: fault, allocation, zeros, entry. */
export function hostFault(operations: number): Outcome {
  const mm = spaceOf(operations);
  const start = clockNs();
  touch(mm, operations);
  const end = clockNs();
  return outcome(start, end, hashOf(mm, operations));
}

/** Does one thing to each of so many touched pages. */
function each(operations: number, act: (mm: AddressSpace, page: number) => Task<unknown>): Outcome {
  const mm = spaceOf(operations);
  touch(mm, operations);
  const start = clockNs();
  for (let i = 0; i < operations; i++) runToEnd(act(mm, FIRST_PAGE + i));
  const end = clockNs();
  return outcome(start, end, mix(hashOf(mm, operations), operations));
}

/** MADV_DONTNEED of one page: notifier range, entry, frame. */
export const hostDrop = (operations: number): Outcome =>
  each(operations, (mm, page) => mm.madvise(agent, page, 1, 'DONTNEED'));

/** MADV_PAGEOUT of one page: slot, notifier range, swap entry, write, frame. */
export const hostPageOut = (operations: number): Outcome => each(operations, (mm, page) => mm.pageOut(agent, page));

/** A notifier range of one page with one subscriber: start and end. */
export function hostNotifier(operations: number): Outcome {
  const mm = spaceOf(1);
  let heard = 0;
  mm.registerNotifier({
    // biome-ignore lint/correctness/useYield: a notifier that has nothing to wait for
    *invalidateRangeStart(_agent, range): Task<void> {
      heard = mix(heard, range.startPage);
    },
    invalidateRangeEnd(_agent, range): void {
      heard = mix(heard, range.pages);
    },
  });
  const start = clockNs();
  for (let i = 0; i < operations; i++) {
    const range = { startPage: FIRST_PAGE + (i & 1023), pages: 1, event: 1, blockable: true } as const;
    runToEnd(mm.invalidateRangeStart(agent, range));
    runToEnd(mm.invalidateRangeEnd(agent, range));
  }
  const end = clockNs();
  return outcome(start, end, heard);
}

/** Bytes that the model itself needs for each resident 4K page, content included; of `pages` of them, touched once. */
export function bytesPerResidentPage(pages: number): number {
  globalThis.gc?.();
  const before = process.memoryUsage();
  touch(spaceOf(pages), pages);
  globalThis.gc?.();
  const after = process.memoryUsage();
  const bytes = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
  return last === null ? 0 : bytes / pages;
}
