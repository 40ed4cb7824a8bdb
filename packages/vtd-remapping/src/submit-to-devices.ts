import type { Agent, Task } from '@faultline/sim';
import type { Descriptor } from './descriptor.ts';
import { InvalidationError, type QueuedInvalidation, type SubmitOptions } from './queued-invalidation.ts';

/** What {@link submitToDevices} submits, and what it knows of the devices. */
export interface DeviceSubmission {
  readonly descriptors: readonly Descriptor[];
  /** Whether a function has no translation any more: it was removed from its slot, or is isolated. Default never. */
  readonly isGone?: (sourceId: number) => boolean;
  /**
   * Called for a function that does not answer; when it returns, no DMA of it reaches memory by what it has cached. Absent: ETIMEDOUT is
   * the caller's.
   */
  readonly isolate?: (agent: Agent, sourceId: number) => Task<void>;
  readonly options?: SubmitOptions;
}

/**
 * Submits descriptors, without the device-TLB invalidations to functions that have no translation any more. Who does not answer is isolated, and
 * what is left is submitted again: the time-out may be somebody else's, since it aborts every wait that was fetched. Linux asks for ever as long as
 * pci_device_is_present says that the device is there.
 * @throws InvalidationError as `QueuedInvalidation.submit` does, ETIMEDOUT only without `isolate`
 */
export function* submitToDevices(
  agent: Agent,
  invalidations: QueuedInvalidation,
  { descriptors, isGone = () => false, isolate, options = {} }: DeviceSubmission,
): Task<void> {
  for (;;) {
    const present = descriptors.filter((each) => each.type !== 'deviceTlb' || !isGone(each.sourceId));
    try {
      yield* invalidations.submit(agent, present, options);
      return;
    } catch (error) {
      if (!isolate || !(error instanceof InvalidationError) || error.silent === null) throw error;
      if (!isGone(error.silent)) yield* isolate(agent, error.silent);
    }
  }
}
