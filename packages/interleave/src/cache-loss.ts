import type { Endpoint } from '@faultline/pci-device';
import { Agent, CachePart, Cost, Location, type Task, translationCacheLocation } from '@faultline/sim';
import type { RemappingUnit } from '@faultline/vtd-remapping';
import type { ExploredTask } from './system.ts';

const IOTLB = new Agent('IOTLB');
const PAGING_STRUCTURES = new Agent('paging-structure caches');
const DEVICE_TLB = new Agent('device TLB');

/**
 * Hardware that lets cached translations go of its own (Rev 5.10, 6.2.4): one task for each cache of a unit and a device, which
 * empties it at any one moment, so that any of them, some or all are empty whenever that can matter.
 */
export function cacheLosses(unit: RemappingUnit, endpoint: Endpoint): ExploredTask[] {
  const location = translationCacheLocation(unit.id, CachePart.all);
  const inUnit = function* (agent: Agent, cache: { invalidateGlobal(): unknown }): Task<void> {
    yield agent.writes('lose all entries', Location.translationCache, location, Cost.free);
    cache.invalidateGlobal();
  };
  return [
    { agent: IOTLB, task: inUnit(IOTLB, unit.iotlb) },
    { agent: PAGING_STRUCTURES, task: inUnit(PAGING_STRUCTURES, unit.pagingCache) },
    ...(endpoint.deviceTlb ? [{ agent: DEVICE_TLB, task: endpoint.loseTranslations(DEVICE_TLB) }] : []),
  ];
}
