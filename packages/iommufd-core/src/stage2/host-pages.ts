import type { ContiguousRun, HostAddressSpace } from '../host-address-space.ts';
import type { Area } from '../ioas/area.ts';

/** What may be mapped of an area's memory, and with which right: at most what the area gives and the owner itself has without a fault. */
export interface PresentRun extends ContiguousRun {
  write: boolean;
}

/** Whether the owner's page is there for the access, without a fault. */
export const isThere = (mm: HostAddressSpace, userPage: number, write: boolean): boolean =>
  write ? mm.isWriteable(userPage) : mm.isReadable(userPage);

/**
 * Fills `out` with the run of pages around one of an area that are contiguous on the host and may be mapped with one right: writeable
 * if the area is and the owner may write (as KVM maps), else readable. @returns false if the page is not there, or no right is left
 */
export function presentRun(
  mm: HostAddressSpace,
  area: Area,
  userPage: number,
  bounds: { readonly first: number; readonly last: number },
  out: PresentRun,
): boolean {
  out.write = area.writeable && mm.isWriteable(userPage);
  if (!out.write && !area.readable) return false;
  mm.contiguousRun(userPage, bounds.first, bounds.last, out, out.write);
  if (out.pfn < 0) return false;
  if (area.writeable && !out.write) clipToReadOnly(mm, userPage, out);
  return true;
}

/** Leaves of a run only the pages around one that the owner may not write to: they are mapped read-only. */
function clipToReadOnly(mm: HostAddressSpace, userPage: number, run: PresentRun): void {
  const end = run.startPage + run.pages;
  let first = userPage;
  let last = userPage;
  while (first > run.startPage && !mm.isWriteable(first - 1)) first--;
  while (last + 1 < end && !mm.isWriteable(last + 1)) last++;
  run.pfn += first - run.startPage;
  run.startPage = first;
  run.pages = last - first + 1;
}
