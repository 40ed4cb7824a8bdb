import { hex } from '@faultline/address';
import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import type { FileMapping } from '../folio/mapping.ts';
import { HostMemoryError } from '../host-memory-error.ts';
import type { HostState } from '../host-state.ts';
import type { PageRun } from '../mm/contiguous-run.ts';
import { faultError, unpinPart } from './pin.ts';
import { pageOfFile } from './shmem.ts';

/** Pages of a file by their offset in it. */
export interface FilePages {
  readonly startIndex: number;
  readonly pages: number;
}

/**
 * Long-term pins of pages of a memfd, whoever maps them (memfd_pin_folios): from the page cache, from swap, or new ones of zeros, which the root
 * cgroup pays for. One step a page. @returns the frames, one run a page; `startPage` is the offset in the file
 * @throws HostMemoryError EINVAL (beyond the end of the file), ENOMEM, EFAULT, EHWPOISON, with nothing pinned
 */
export function* pinFilePages(
  host: HostState,
  agent: Agent,
  file: FileMapping,
  { startIndex, pages }: FilePages,
): Task<PageRun[]> {
  if (startIndex + pages > file.pages)
    throw new HostMemoryError(
      'EINVAL',
      startIndex,
      `pin: page ${hex(startIndex + pages - 1)} is beyond the end of ${file.name}`,
    );
  const reader = { host, agent, mm: { memcg: host.rootMemcg }, io: { isMajor: false } };
  const runs: PageRun[] = [];
  for (let index = startIndex; index < startIndex + pages; ) {
    const folio = yield* pageOfFile(reader, file, index);
    if (folio < 0) {
      yield* unpinFilePages(host, agent, runs);
      throw faultError(-folio, index, `pin of ${file.name}`);
    }
    if (folio === 0) continue; // look again
    const { folios } = host;
    const pfn = folios.pfn(folio);
    yield agent.writes('pin page of file', Location.folio, pfn, Cost.pinPage);
    const isThere = file.cache.pfn(index) === pfn; // a hole may have been punched in between
    if (isThere) {
      folios.changePins(folio, 1);
      runs.push({ startPage: index, pages: 1, pfn });
      index++;
    }
    host.put(folio);
  }
  return runs;
}

/** Gives pins of {@link pinFilePages} back; one step a run. */
export function* unpinFilePages(host: HostState, agent: Agent, runs: readonly PageRun[]): Task<void> {
  for (const { startPage, pages, pfn } of runs)
    for (let page = 0; page < pages; page++) {
      yield agent.writes('unpin page of file', Location.folio, pfn + page, Cost.lock);
      unpinPart(host, { folio: host.folios.at(pfn + page), pfn: pfn + page, startPage: startPage + page, pages: 1 });
    }
}
