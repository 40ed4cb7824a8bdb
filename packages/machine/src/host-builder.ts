import { parseSize } from '@faultline/address';
import { HostMemory, linuxWatermarks, NO_WATERMARKS } from '@faultline/host-mm';
import type { Scenario } from './scenario.ts';

/** Host frames begin at 1 GiB. */
export const FIRST_HOST_PFN = 0x4_0000;

const pagesOf = (size: string): number => Number(parseSize(size) / 4096n);

/** The host that a scenario describes, with a huge page pool as large as its VM needs. */
export function buildHost({ host, vm }: Scenario): HostMemory {
  const frames = pagesOf(host.memory);
  const slots = pagesOf(host.swap);
  const { swapKind: kind, swapHeader: header } = host;
  const memory = new HostMemory({
    frames,
    firstPfn: FIRST_HOST_PFN,
    swap: slots > 0 ? [{ slots, kind, header, queueDepth: Math.max(1, host.swapQueueDepth) }] : [],
    ...(host.zswap ? { zswap: {} } : {}),
    splitNotify: host.splitNotify,
    lru: host.lru,
    watermarks: host.watermarks === 'linux' ? linuxWatermarks(frames) : NO_WATERMARKS,
    thpSwap: host.thpSwap,
    pageCluster: host.pageCluster,
  });
  if (vm.backing === 'hugetlb-1G') memory.setHugePages('1G', pagesOf(vm.memory) / 2 ** 18);
  if (vm.backing === 'hugetlb-2M') memory.setHugePages('2M', pagesOf(vm.memory) / 2 ** 9);
  return memory;
}
