import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { NestedDomain } from '../iommu-device.ts';
import type { HwptInvalidateReply, HwptInvalidateRequest } from './ioctl-request.ts';
import type { IommufdContext } from './iommufd-context.ts';
import { reported } from './reported.ts';

const PAGE_BYTES = 4096;
/** IOMMU_HWPT_INVALIDATE_ENTRY_NUM_MAX. */
const MOST_ENTRIES = 2 ** 19;

/**
 * IOMMU_HWPT_INVALIDATE on a nested HWPT or a VIOMMU.
 * @throws IommufdError EINVAL, ENOENT, EOPNOTSUPP, and the driver's; `reply` has the entries done
 */
export function* invalidateHwpt(
  context: IommufdContext,
  agent: Agent,
  request: HwptInvalidateRequest,
): Task<HwptInvalidateReply> {
  const { hwptId, dataType, entryLen, entryNum, data } = request;
  const none: HwptInvalidateReply = { entryNum: 0 };
  if (entryNum !== 0 && (data === null || entryLen === 0 || entryLen > PAGE_BYTES))
    throw new IommufdError('EINVAL', `entry_len: ${entryLen} with ${data === null ? 'no' : 'some'} data`, none);
  if (entryNum > MOST_ENTRIES)
    throw new IommufdError('EINVAL', `entry_num: ${entryNum} is more than ${MOST_ENTRIES}`, none);
  const object = held(context, hwptId, none);
  try {
    let invalidate: NestedDomain['invalidate'];
    if (object.type === 'HWPT_NESTED') invalidate = object.nested.invalidate?.bind(object.nested);
    else if (object.type === 'VIOMMU') invalidate = object.driver.invalidate?.bind(object.driver);
    else throw new IommufdError('EINVAL', `hwpt_id: a ${object.type} has no caches of its own`, none);
    if (!invalidate)
      throw new IommufdError('EOPNOTSUPP', `hwpt_id: the driver of ${hwptId} takes no invalidations`, none);
    const entries = { dataType, entryLen, entryNum, data: data ?? new Uint8Array(0) };
    const { done, error } = yield* reported(invalidate(agent, entries));
    if (error !== null) throw new IommufdError(error, `entry ${done} of ${entryNum} is refused`, { entryNum: done });
    return { entryNum: done };
  } finally {
    context.table.put(object);
  }
}

function held(context: IommufdContext, id: number, reply: HwptInvalidateReply) {
  try {
    return context.get(
      id,
      'HWPT_NESTED',
      'VIOMMU',
      'HWPT_PAGING',
      'IOAS',
      'DEVICE',
      'ACCESS',
      'FAULT',
      'VDEVICE',
      'VEVENTQ',
    );
  } catch {
    throw new IommufdError('ENOENT', `hwpt_id: there is no object ${id}`, reply);
  }
}
