import { NO_PASID } from '@faultline/iotlb';
import { type Agent, CachePart, Cost, Location, type Task, translationCacheLocation } from '@faultline/sim';
import { ResponseCode } from './descriptor.ts';
import { invalidateForPageRequest } from './invalidation.ts';
import { encodePageRequest, isStopMarker, type PageRequest } from './page-request.ts';
import type { RemappingUnit } from './remapping-unit.ts';
import { lookupRequester } from './requester-lookup.ts';
import { recordFault } from './translation.ts';

/**
 * Takes a page request from a device, in the order of VT-d Rev 5.10, 7.4.1: the structures (a fault is recorded, and the last
 * request of a group answered Invalid Request), PRO, queue full, implicit invalidation, write, tail.
 * @throws RangeError naming a field whose value no message can carry; then nothing has happened
 */
export function* receivePageRequest(agent: Agent, unit: RemappingUnit, request: PageRequest): Task<void> {
  encodePageRequest(request);
  // From here on a wait with PD is ordered behind this request (7.7).
  const received = unit.receivedRequests.begin();
  yield* acceptPageRequest(agent, unit, request);
  unit.receivedRequests.end(received);
}

function* acceptPageRequest(agent: Agent, unit: RemappingUnit, request: PageRequest): Task<void> {
  const { sourceId, page, pasid = NO_PASID, groupIndex } = request;
  let found = yield* lookupRequester(agent, unit, sourceId, pasid, 'page request');
  for (;;) {
    const { structureEpoch } = unit;
    const step = agent.writes('send page request', Location.pageRequestQueue, unit.id, Cost.pageRequest);
    yield agent.alsoWrites(step, Location.translationCache, translationCacheLocation(unit.id, CachePart.all));
    if (structureEpoch === unit.structureEpoch) break;
    found = yield* lookupRequester(agent, unit, sourceId, pasid, 'page request');
  }
  const respond = (code: number): void => unit.responders.get(sourceId)?.pageGroupResponse(groupIndex, code);
  if ('reason' in found) {
    recordFault(
      unit,
      { sourceId, page, reason: found.reason, write: false, pageRequest: true },
      pasid,
      found.faultDisable,
    );
    if (request.last && !isStopMarker(request)) respond(ResponseCode.invalid);
    return;
  }
  if (!unit.pageRequestQueue.blocked) invalidateForPageRequest(unit, found.domainId, page);
  if (unit.pageRequestQueue.write(request) === 'answered-success') respond(ResponseCode.success);
}
