import type { Strategy } from '@faultline/iommufd-core';
import type { FaultPathDefect } from './worlds/fault-path.ts';

/** Parts of a protocol under test that a configuration does not decide. */
export interface SplitProtocol {
  readonly strategy: Strategy;
  /** Whether addresses outside the range may not notice (I4). */
  readonly hitless: boolean;
  /** Whether the guest keeps page-directory words at the start of its memory, for a protocol that reads guest data. */
  readonly guestWords?: boolean;
  /** What the world has beside the ordinary one. */
  readonly variant?: SplitVariant;
}

/** What a protocol needs of its world to show what it does. All optional. */
export interface SplitVariant {
  /** Table pages kept back; default as the domain's. */
  readonly reservePages?: number;
  /** Attribute bits of the large leaf that every innocent page has to keep. */
  readonly attributes?: bigint;
  /** Nothing is mapped until it is used. */
  readonly startsEmpty?: boolean;
  /** The host takes nothing away. */
  readonly hostRests?: boolean;
  /** Another device asks for the same page, and there is a second fault worker. */
  readonly secondDevice?: boolean;
  /** True: a fault looks at no notifier sequence before it maps. A defect. */
  readonly noSequenceCheck?: boolean;
  /** Another fault path in the place of the right one. A defect. */
  readonly faultPath?: FaultPathDefect;
  /** The OOM reaper takes everything away, where nobody may sleep, instead of a swap-out of one page. */
  readonly reaped?: boolean;
  /** The host discards so many pages from the victim on (MADV_DONTNEED), instead of swapping one out. */
  readonly discardedPages?: number;
}
