import type { HostState } from '../host-state.ts';
import type { MmState } from '../mm/mm-state.ts';

/** A KSM page is mapped at one place more (its rmap items): rmap finds it there. */
export function addKsmPlace(host: HostState, folio: number, mm: MmState, page: number): void {
  const places = host.ksm.get(folio);
  if (places) places.push({ mm, page });
  else host.ksm.set(folio, [{ mm, page }]);
}

/** A KSM page is not mapped there any more. */
export function forgetKsmPlace(host: HostState, folio: number, mm: MmState, page: number): void {
  const places = host.ksm.get(folio);
  const at = places?.findIndex((place) => place.mm === mm && place.page === page) ?? -1;
  if (at >= 0) places?.splice(at, 1);
}
