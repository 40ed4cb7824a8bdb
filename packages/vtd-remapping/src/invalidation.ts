import { type Agent, CachePart, Cost, Location, type Task, translationCacheLocation } from '@faultline/sim';
import {
  type ContextCacheDescriptor,
  type Descriptor,
  Granularity,
  type IotlbDescriptor,
  PasidIotlbGranularity,
} from './descriptor.ts';
import type { MessageOutcome } from './invalidation-queue.ts';
import type { RemappingUnit } from './remapping-unit.ts';

/** Executes one descriptor that concerns the unit's own caches (VT-d Rev 5.10, 6.5.2). */
export function* executeInvalidation(agent: Agent, unit: RemappingUnit, descriptor: Descriptor): Task<void> {
  if (descriptor.type === 'wait') return;
  if (
    descriptor.type === 'deviceTlb' ||
    descriptor.type === 'pasidDeviceTlb' ||
    descriptor.type === 'pageGroupResponse'
  ) {
    yield* sendToDevice(agent, unit, descriptor);
    return;
  }
  unit.invalidations++;
  const step = agent.writes(
    LABELS[descriptor.type],
    Location.translationCache,
    translationCacheLocation(unit.id, CachePart.all),
    Cost.invalidationExecute,
  );
  const concernsStructures = descriptor.type === 'contextCache' || descriptor.type === 'pasidCache';
  yield concernsStructures ? agent.alsoWrites(step, Location.contextCache, unit.id) : step;
  unit.epoch++;
  if (concernsStructures) unit.structureEpoch++;
  switch (descriptor.type) {
    case 'contextCache':
      invalidateContexts(unit, descriptor);
      return;
    case 'pasidCache':
      unit.pasidCache.invalidate(descriptor.granularity, descriptor.domainId, descriptor.pasid);
      return;
    case 'iotlb':
      unit.drainOwed ||= descriptor.drainReads || descriptor.drainWrites;
      invalidateIotlb(unit, descriptor);
      return;
    case 'pasidIotlb': {
      // Second-stage structure caches are not tagged by PASID and stay (table 24).
      const { granularity, domainId, pasid, page, addressMask } = descriptor;
      unit.drainOwed = true;
      if (granularity === PasidIotlbGranularity.pasid) unit.iotlb.invalidatePasid(domainId, pasid);
      else unit.iotlb.invalidatePasidPages(domainId, pasid, pageHi(page), pageLo(page), addressMask);
      return;
    }
    case 'interruptEntryCache':
      return; // no interrupt remapping, so there is nothing to drop
  }
}

const LABELS = {
  contextCache: 'invalidate context cache',
  pasidCache: 'invalidate PASID cache',
  iotlb: 'invalidate IOTLB',
  pasidIotlb: 'invalidate IOTLB by PASID',
  interruptEntryCache: 'invalidate interrupt entry cache',
} as const;

const pageHi = (page: number): number => Math.floor(page / 0x10_0000) | 0;
const pageLo = (page: number): number => ((page % 0x10_0000) << 12) | 0;

/** Context caches by a context-cache descriptor (6.5.2.1). */
export function invalidateContexts(unit: RemappingUnit, descriptor: ContextCacheDescriptor): void {
  const { granularity, domainId, sourceId, functionMask } = descriptor;
  for (const cache of [unit.contextCache, unit.scalableContextCache])
    if (granularity === Granularity.global) cache.invalidateGlobal();
    else if (granularity === Granularity.domain) cache.invalidateDomain(domainId);
    else cache.invalidateDevice(domainId, sourceId, functionMask);
}

/** IOTLB and paging-structure caches by an IOTLB descriptor (6.5.2.3, table 23). */
export function invalidateIotlb(unit: RemappingUnit, descriptor: IotlbDescriptor): void {
  const { granularity, domainId, page, addressMask, leafOnly } = descriptor;
  if (granularity === Granularity.global) {
    unit.iotlb.invalidateGlobal();
    unit.pagingCache.invalidateGlobal();
  } else if (granularity === Granularity.domain) {
    unit.iotlb.invalidateDomain(domainId);
    unit.pagingCache.invalidateDomain(domainId);
  } else {
    unit.iotlb.invalidatePages(domainId, pageHi(page), pageLo(page), addressMask);
    unit.pagingCache.invalidatePages(domainId, pageHi(page), pageLo(page), addressMask, leafOnly ? 1 : 0);
  }
}

/** What a recorded page request implies (6.5.3.1, table 27): its page goes from the IOTLB and the structure caches. */
export function invalidateForPageRequest(unit: RemappingUnit, domainId: number, page: number): void {
  unit.epoch++;
  unit.iotlb.invalidateForPageRequest(domainId, pageHi(page), pageLo(page));
  unit.pagingCache.invalidatePages(domainId, pageHi(page), pageLo(page), 0, 0);
}

/** Everything, as with ESRTPS or when translation is turned off in a unit with scalable mode. */
export function invalidateAll(unit: RemappingUnit): void {
  unit.epoch++;
  unit.structureEpoch++;
  unit.contextCache.invalidateGlobal();
  unit.scalableContextCache.invalidateGlobal();
  unit.pasidCache.invalidateGlobal();
  unit.iotlb.invalidateGlobal();
  unit.pagingCache.invalidateGlobal();
}

/**
 * A message to a device. A device that is not there never answers an invalidation; a page group response to it is lost.
 * @returns how an invalidation completed
 */
export function* sendToDevice(agent: Agent, unit: RemappingUnit, descriptor: Descriptor): Task<MessageOutcome> {
  switch (descriptor.type) {
    case 'deviceTlb':
    case 'pasidDeviceTlb': {
      unit.invalidations++;
      const endpoint = unit.endpoints.get(descriptor.sourceId);
      if (endpoint === undefined) return 'timed-out';
      const scope = descriptor.type === 'deviceTlb' ? {} : { pasid: descriptor.pasid, global: descriptor.global };
      return yield* endpoint.invalidateDeviceTlb(agent, descriptor.page, descriptor.sizeLog2, scope);
    }
    case 'pageGroupResponse':
      yield agent.writes('page group response', Location.device, descriptor.sourceId, Cost.pageResponse);
      unit.responders.get(descriptor.sourceId)?.pageGroupResponse(descriptor.groupIndex, descriptor.responseCode);
      return 'completed';
    default:
      return 'completed';
  }
}
