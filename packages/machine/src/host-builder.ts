import { parseSize } from '@faultline/address';
import { type FaultInjection, HostMemory, linuxWatermarks, NO_WATERMARKS } from '@faultline/host-mm';
import { type Scenario, vmsOf } from './scenario.ts';

/** Host frames begin at 1 GiB. */
export const FIRST_HOST_PFN = 0x4_0000;

const pagesOf = (size: string): number => Number(parseSize(size) / 4096n);

/** The host that a scenario describes, with huge page pools as large as its VMs need. */
export function buildHost(scenario: Scenario, injection: FaultInjection = {}): HostMemory {
  const { host } = scenario;
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
    injection,
  });
  for (const size of ['2M', '1G'] as const) {
    const users = vmsOf(scenario).filter(({ backing }) => backing === `hugetlb-${size}`);
    const pages = users.reduce((sum, vm) => sum + pagesOf(vm.memory), 0);
    if (pages > 0) memory.setHugePages(size, pages / (size === '1G' ? 2 ** 18 : 2 ** 9));
  }
  return memory;
}
