import type { Agent, Task } from '@faultline/sim';
import type { Descriptor } from './descriptor.ts';
import { InvalidationError, type QueuedInvalidation, type SubmitOptions } from './queued-invalidation.ts';

/**
 * Submits descriptors, without the device-TLB invalidations to functions that have been removed from their slot: those have no translation any
 * more. A removal in the middle shows as a time-out, and what is left is submitted again, as Linux gives up on a device that
 * pci_dev_is_disconnected says is not there.
 * @throws InvalidationError as `QueuedInvalidation.submit` does, for functions that are there
 */
export function* submitToDevices(
  agent: Agent,
  invalidations: QueuedInvalidation,
  request: {
    readonly descriptors: readonly Descriptor[];
    readonly isRemoved: (sourceId: number) => boolean;
    readonly options?: SubmitOptions;
  },
): Task<void> {
  const { descriptors, isRemoved, options = {} } = request;
  for (;;) {
    const present = descriptors.filter((each) => each.type !== 'deviceTlb' || !isRemoved(each.sourceId));
    try {
      yield* invalidations.submit(agent, present, options);
      return;
    } catch (error) {
      const isTimeout = error instanceof InvalidationError && error.code === 'ETIMEDOUT';
      if (!isTimeout || !present.some((each) => each.type === 'deviceTlb' && isRemoved(each.sourceId))) throw error;
    }
  }
}
