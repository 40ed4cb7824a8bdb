import { parseDurationNs, parseSize } from '@faultline/address';
import { checkEvents } from './event-check.ts';
import { defaultVm, type Scenario, type VmSettings, vmsOf } from './scenario.ts';
import { checkVm, type Refuse } from './vm-check.ts';

/** Frame numbers are below 2^31. */
const MOST_BYTES = 4n << 40n;
/** Swap entries are below 2^30, the first 512 of them unused. */
const MOST_SWAP_BYTES = (2n ** 30n - 1024n) * 4096n;
/** Each VM has a bus of its own. */
const MOST_VMS = 256;

const refuse: Refuse = (field, what) => {
  throw new RangeError(`${field}: ${what}`);
};

/** What the schema cannot say, because it takes several fields. @throws RangeError naming the field */
export function checkScenario(scenario: Scenario): void {
  if (parseDurationNs(scenario.duration) < 1) refuse('duration', `expected at least 1ns, got ${scenario.duration}`);
  checkHost(scenario);
  checkVms(scenario);
  const { iotlb, pageRequestEntries, faultPolicy, collapse } = scenario.iommu;
  if (!isPowerOfTwo(pageRequestEntries))
    refuse('iommu.pageRequestEntries', `expected a power of two, got ${pageRequestEntries}`);
  if (!isPowerOfTwo(faultPolicy.around))
    refuse('iommu.faultPolicy.around', `expected a power of two, got ${faultPolicy.around}`);
  if (parseDurationNs(collapse.interval) < 1)
    refuse('iommu.collapse.interval', `expected at least 1ns, got ${collapse.interval}`);
  for (const [page, { sets }] of Object.entries(iotlb ?? {}))
    if (!isPowerOfTwo(sets)) refuse(`iommu.iotlb.${page}.sets`, `expected a power of two, got ${sets}`);
  checkEvents(scenario, refuse);
}

/** The field of a VM's settings. */
const fieldOfVm = ({ vms }: Scenario, index: number): string => (vms.length > 0 ? `vms[${index}]` : 'vm');

function checkVms(scenario: Scenario): void {
  const { vm, vms, host, strategy, reclaim } = scenario;
  if (vms.length > 0 && JSON.stringify(vm) !== JSON.stringify(defaultVm()))
    refuse('vm', 'is for a scenario with one VM, and this one has vms; expected one of the two');
  if (vms.length > MOST_VMS) refuse('vms', `expected at most ${MOST_VMS}, got ${vms.length}`);
  const names = new Set<string>();
  for (const [index, each] of vmsOf(scenario).entries()) {
    const field = fieldOfVm(scenario, index);
    if (names.has(each.name)) refuse(`${field}.name`, `${each.name} is the name of another VM`);
    names.add(each.name);
    if (parseSize(each.memory) > parseSize(host.memory))
      refuse(`${field}.memory`, `${each.memory} is more than host.memory, ${host.memory}`);
    checkVm(field, each, refuse);
    if (each.program && reclaim)
      refuse('reclaim', 'a process with a program is reclaimed from by its limit; expected null');
  }
  const staysInMemory = (each: VmSettings): boolean => strategy === 'pinned' || each.backing.startsWith('hugetlb');
  const bytesOf = (list: readonly VmSettings[]): bigint => list.reduce((sum, each) => sum + parseSize(each.memory), 0n);
  const resident = bytesOf(vms.filter(staysInMemory));
  if (resident > parseSize(host.memory))
    refuse('vms', `${resident >> 20n}M of pinned or hugetlb memory is more than host.memory, ${host.memory}`);
  if (bytesOf(vms) > parseSize(host.memory) + parseSize(host.swap))
    refuse(
      'vms',
      `${bytesOf(vms) >> 20n}M in all is more than host.memory, ${host.memory}, and host.swap, ${host.swap}`,
    );
}

/** What goes together of a host. */
function checkHost({ host }: Scenario): void {
  if (parseSize(host.memory) > MOST_BYTES) refuse('host.memory', `expected at most 4T, got ${host.memory}`);
  if (parseSize(host.swap) > MOST_SWAP_BYTES) refuse('host.swap', `expected less than 4T, got ${host.swap}`);
  if (host.swapKind === 'zram' && host.swapQueueDepth > 0)
    refuse('host.swapQueueDepth', 'zram has no queue: it compresses on the CPU that swaps; expected 0');
  if (host.zswap && parseSize(host.swap) === 0n) refuse('host.zswap', 'needs swap behind it, and host.swap is 0');
}

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));
