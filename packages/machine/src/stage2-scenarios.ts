import type { ScenarioInput } from './scenario.ts';

/** A scenario that comes with the package. */
export interface BuiltInScenario {
  readonly name: string;
  /** One line for `vm-sim list`. */
  readonly title: string;
  readonly scenario: ScenarioInput;
}

/** A VM and a host small enough for a second or two. */
const small = {
  strategy: 'cut',
  duration: '20ms',
  host: { memory: '6G', swap: '2G' },
  vm: { memory: '4G', backing: 'pud-thp', devices: { accelerator: { workingSet: '4G' } } },
} as const satisfies ScenarioInput;
const { accelerator } = small.vm.devices;

/** What iommufd's faults in the second stage are for, and what goes wrong around them. */
export const STAGE2_SCENARIOS: readonly BuiltInScenario[] = [
  {
    name: 'partial-iopf',
    title: 'a NIC whose receive path cannot fault and whose driver does not say where it goes: refused',
    scenario: {
      ...small,
      name: 'partial-iopf',
      description:
        'The NIC drops a packet whose buffer is missing, and its driver declares where its rings are, but not its receive buffers: an unpinned IOAS cannot take it in. With vm.devices.nic.declares=true it can (partial-iopf-declared), and with iommu.onUnfaultable=pin-all everything is pinned.',
      expect: 'refused',
      vm: { ...small.vm, devices: { accelerator, nic: { declares: ['descriptor', 'completion'] } } },
    },
  },
  {
    name: 'partial-iopf-declared',
    title: 'the same NIC with declared ranges: rings and receive buffers are pinned, and nothing else',
    scenario: {
      ...small,
      name: 'partial-iopf-declared',
      description:
        'Rings and receive buffers of the NIC are pinned when it is attached; the rest of the VM is swapped.',
      thresholds: ['dma.dropped == 0', 'hostMm.swapOut > 100', 'hostMm.pinnedBytes < 2G'],
    },
  },
  {
    name: 'prq-overflow',
    title: 'a page request queue of 4 entries under devices that fault all the time: it overflows, and all is answered',
    scenario: {
      ...small,
      name: 'prq-overflow',
      description:
        'Every 4 ms the whole working set of the accelerator is given back at once, so that it has more page requests under way than the queue has entries. What finds no room is answered by the hardware (Rev 5.10, 7.4.1), and the device asks again.',
      host: { memory: '2G', swap: '1G' },
      vm: {
        memory: '1G',
        backing: '4K',
        devices: { accelerator: { workingSet: '64M', queues: 256, credits: 512 }, disk: null, nic: null },
      },
      iommu: { pageRequestEntries: 4, faultWorkers: 1 },
      events: [{ at: '1ms', every: '4ms', action: 'madvise-dontneed', gpa: '0x3c000000', length: '64M' }],
      thresholds: ['faults.overflows > 0'],
    },
  },
  {
    name: 'unplug-in-flight',
    title: 'an accelerator is pulled out while its page requests are under way: each is answered once, nothing leaks',
    scenario: {
      ...small,
      name: 'unplug-in-flight',
      description:
        'The whole working set is given back, so that all queues of the accelerator wait for pages, and then it is pulled out. The kernel answers what it had asked, detaches it, and the other devices go on.',
      vm: {
        ...small.vm,
        backing: 'thp-2M',
        devices: { accelerator: { ...accelerator, workingSet: '256M', queues: 32, refaults: 0.2 } },
      },
      events: [
        { at: '9990us', action: 'madvise-dontneed', gpa: '0x170000000', length: '256M' },
        { at: '10090us', action: 'unplug', device: 'accelerator' },
      ],
    },
  },
  {
    name: 'hwpt-replace',
    title: 'the devices of an IOAS move to a new HWPT, again and again, while they work and fault',
    scenario: {
      ...small,
      name: 'hwpt-replace',
      description:
        'Every 3 ms a new HWPT is filled from the IOAS and the devices move to it. Bus master enable is off for the time that the driver blocks a function; who waits for a page is told INVALID.',
      vm: { ...small.vm, devices: { accelerator: { ...accelerator, queues: 16, refaults: 0.2 } } },
      events: [{ at: '3ms', every: '3ms', action: 'hwpt-replace' }],
    },
  },
  {
    name: 'mixed-devices',
    title: 'one HWPT, three kinds of device: one that faults on all paths, one in part, one without ATS',
    scenario: {
      ...small,
      name: 'mixed-devices',
      description:
        'The accelerator faults, the NIC has its receive path pinned, the disk has no ATS at all and everything that it uses is pinned.',
      vm: { ...small.vm, devices: { accelerator, disk: { ats: false, buffers: '16M' }, nic: {} } },
      thresholds: ['dma.dropped == 0', 'dma.aborted == 0'],
    },
  },
  {
    name: 'migration',
    title: 'the host moves guest memory to other frames, and compacts, while devices write to it',
    scenario: {
      ...small,
      name: 'migration',
      description:
        'Again and again the folios of 8 MiB move, in the middle of the working set of the accelerator, and the host compacts its memory. The devices follow by faults.',
      vm: {
        ...small.vm,
        backing: 'thp-2M',
        devices: { accelerator: { ...accelerator, workingSet: '256M', refaults: 0.02 } },
      },
      events: [
        { at: '1ms', every: '1ms', action: 'migrate', gpa: '0x17c000000', length: '8M' },
        { at: '2ms', every: '5ms', action: 'compact' },
      ],
    },
  },
  {
    name: 'ksm',
    title: 'pages of equal content become one, write-protected, while devices write to them',
    scenario: {
      ...small,
      name: 'ksm',
      description:
        'The guest fills 2 MiB with 64 contents, in turn. KSM merges them over and over, and the devices break the merges by writing: the fault makes a copy first.',
      reclaim: { pages: 200 },
      vm: {
        ...small.vm,
        equalPages: { gpa: '0x178000000', length: '2M', distinct: 64 },
        devices: { accelerator: { ...accelerator, workingSet: '256M', refaults: 0.05 } },
      },
      events: [{ at: '1ms', every: '2ms', action: 'ksm', gpa: '0x178000000', length: '2M' }],
    },
  },
  {
    name: 'balloon',
    title: 'the guest gives memory back, 4K at a time, and takes them again, as devices work beside',
    scenario: {
      ...small,
      name: 'balloon',
      description:
        'A virtio-balloon inflates and deflates, and the VMM gives each page back with MADV_DONTNEED. With pinned memory that is why VMMs inhibit ballooning for assigned devices.',
      reclaim: null,
      vm: { ...small.vm, balloon: { size: '512K', batch: 32, interval: '50us', hold: '500us' } },
      thresholds: ['hostMm.balloonedPages > 200'],
    },
  },
  {
    name: 'two-vms-one-host',
    title: 'two VMs of 2 GiB on a host of 3 GiB: what one of them needs, the other has to give',
    scenario: {
      name: 'two-vms-one-host',
      description:
        'Two VMs with devices on one unit: each its own domain, requester ids and IOAS. Their memory is more than the host has, so that kswapd and direct reclaim take it from both.',
      strategy: 'cut',
      duration: '20ms',
      host: { memory: '3G', swap: '4G' },
      reclaim: { by: 'lru', pages: 4096, batch: 32 },
      vms: [
        {
          name: 'alpha',
          memory: '2G',
          backing: 'thp-2M',
          devices: { accelerator: { workingSet: '2G', refaults: 0.02 }, disk: null, nic: {} },
        },
        {
          name: 'beta',
          memory: '2G',
          backing: 'thp-2M',
          devices: { accelerator: { workingSet: '2G', refaults: 0.02 }, disk: { buffers: '64M' }, nic: null },
        },
      ],
    },
  },
];
