import { expect, it } from 'vitest';
import { runStormMachine, type ScenarioInput } from '../src/index.ts';

/** Machines that a storm ended with a violation or an exception, in their shortest form; each by the seed that found it. */
const FOUND: readonly (readonly [what: string, seed: number, scenario: ScenarioInput])[] = [
  [
    'what the host takes while a HWPT fills is not mapped in it',
    102239,
    {
      strategy: 'shared-ept',
      duration: '197us',
      reclaim: null,
      vm: { name: 'vm0', memory: '8M', backing: 'contiguous', devices: { accelerator: {}, disk: null, nic: null } },
      events: [
        { at: '1us', action: 'madvise-dontneed', gpa: '0x73f000', length: '0x25000' },
        { at: '2us', action: 'hwpt-replace' },
      ],
    },
  ],
  [
    'a device that is pulled out hears nothing of the unit',
    103622,
    {
      strategy: 'shared-ept',
      duration: '2us',
      reclaim: null,
      events: [{ at: '1us', action: 'unplug', device: 'accelerator' }],
    },
  ],
  [
    'a device is pulled out while it changes HWPTs',
    103829,
    {
      strategy: 'whole-leaf',
      duration: '279us',
      reclaim: null,
      events: [
        { at: '205us', action: 'unplug', device: 'accelerator' },
        { at: '1us', action: 'hwpt-replace' },
      ],
      inject: { invalidationTimeout: 0.5 },
    },
  ],
  [
    'a page that a pin mapped is there when the pin goes',
    106355,
    {
      strategy: 'break-before-make',
      duration: '1296us',
      reclaim: null,
      vm: {
        name: 'vm0',
        memory: '4M',
        backing: '4K',
        memoryMax: '2M',
        equalPages: { gpa: '1M', length: '256K' },
        devices: { accelerator: { refaults: 0.7 }, disk: null, nic: { receiveBuffers: 1 } },
      },
      iommu: { faultPolicy: { prefault: 'populate' } },
      events: [
        { at: '453us', every: '62us', action: 'ksm', gpa: '1M', length: '256K' },
        { at: '355us', action: 'unplug', vm: 'vm0', device: 'nic' },
        { at: '1275us', action: 'hwpt-replace', vm: 'vm0' },
      ],
    },
  ],
  [
    'pages that the guest gives up while another HWPT fills',
    108449,
    {
      strategy: 'cut',
      duration: '153us',
      reclaim: null,
      vm: { name: 'vm0', memory: '16M', backing: '4K', devices: { accelerator: {}, disk: null, nic: null } },
      events: [
        { at: '1us', action: 'madvise-dontneed', gpa: '0xa00000', length: '0x200000' },
        { at: '3us', action: 'hwpt-replace' },
      ],
    },
  ],
  [
    'a broken frame takes along all that share it',
    111043,
    {
      strategy: 'shared-ept',
      duration: '729us',
      reclaim: null,
      vm: {
        name: 'vm0',
        memory: '4M',
        backing: 'contiguous',
        equalPages: { gpa: '1M', length: '256K', distinct: 1 },
        devices: { accelerator: {}, disk: null, nic: null },
      },
      events: [
        { at: '1us', action: 'ksm', gpa: '1M', length: '256K' },
        { at: '101us', action: 'poison', vm: 'vm0', gpa: '0x0', length: '0x400000' },
        { at: '696us', action: 'unplug', vm: 'vm0', device: 'accelerator' },
      ],
      inject: { tableAllocation: 0.01 },
    },
  ],
  [
    'a page is merged into a frame that breaks',
    114122,
    {
      strategy: 'break-before-make',
      duration: '3us',
      reclaim: null,
      vm: {
        name: 'vm0',
        memory: '2M',
        backing: 'contiguous-4K',
        equalPages: { gpa: '1M', length: '256K', distinct: 1 },
        devices: { accelerator: null, disk: null, nic: null },
      },
      events: [
        { at: '1us', action: 'ksm', gpa: '1M', length: '256K' },
        { at: '2us', action: 'poison', vm: 'vm0', gpa: '0xd4000', length: '0x37000' },
      ],
    },
  ],
  [
    'a fault maps what is pinned while a notifier acts beside the pin',
    303774,
    {
      strategy: 'shared-ept',
      duration: '214us',
      reclaim: null,
      vm: {
        name: 'vm0',
        memory: '2M',
        backing: 'thp-2M',
        devices: { accelerator: { ats: false }, disk: null, nic: null },
      },
      iommu: { onUnfaultable: 'pin-all' },
      events: [
        { at: '35us', every: '64us', action: 'soft-dirty' },
        { at: '130us', action: 'hwpt-replace' },
      ],
    },
  ],
  [
    'what is pinned and given up comes into a shared table that takes the place of another',
    304992,
    {
      strategy: 'shared-ept',
      duration: '1318us',
      reclaim: null,
      vm: { name: 'vm1', memory: '8M', backing: '4K', devices: { accelerator: { ats: false }, disk: null, nic: null } },
      iommu: { onUnfaultable: 'pin-all' },
      events: [
        { at: '116us', every: '198us', action: 'madvise-dontneed', gpa: '0x609000', length: '0x17000' },
        { at: '479us', action: 'hwpt-replace' },
      ],
    },
  ],
  [
    'a HWPT goes while a block of it is about to collapse',
    309154,
    {
      strategy: 'cut+collapse',
      duration: '253us',
      reclaim: null,
      vm: {
        name: 'vm0',
        memory: '64M',
        backing: 'thp-2M',
        balloon: {},
        devices: { accelerator: null, disk: null, nic: null },
      },
      iommu: { faultPolicy: { prefault: 'none' }, collapse: { interval: '1us' } },
      events: [{ at: '201us', action: 'hwpt-replace' }],
    },
  ],
  [
    'a device is pulled out while the HWPT that it came from goes',
    404232,
    {
      strategy: 'whole-leaf',
      duration: '871us',
      reclaim: { batch: 8 },
      vm: {
        name: 'vm0',
        memory: '8M',
        backing: 'contiguous',
        cpuTouchInterval: '2us',
        cpuRefaults: 0.9,
        balloon: { size: '256K' },
        devices: { accelerator: null, disk: null, nic: { receiveBuffers: 29 } },
      },
      iommu: { faultPolicy: { prefault: 'populate' } },
      events: [
        { at: '734us', every: '189us', action: 'soft-dirty' },
        { at: '415us', action: 'unplug', device: 'nic' },
        { at: '114us', action: 'hwpt-replace' },
      ],
      inject: { slowSwap: 20, invalidationTimeout: 0.01, timeoutAfter: '50us' },
    },
  ],
  [
    'a device that is being pulled out is still on its HWPT when another takes the place of that',
    509010,
    {
      strategy: 'paired',
      duration: '1758us',
      vm: {
        name: 'vm0',
        memory: '64M',
        backing: 'contiguous',
        devices: { accelerator: {}, disk: null, nic: null },
      },
      iommu: { faultPolicy: { largest: '4K' } },
      events: [
        { at: '87us', action: 'migrate', gpa: '0x2e9000', length: '0x2f000' },
        { at: '1287us', action: 'soft-dirty' },
        { at: '1481us', action: 'unplug', device: 'accelerator' },
        { at: '83us', action: 'hwpt-replace' },
      ],
    },
  ],
  [
    'a device is pulled out where no table page is to be had',
    900060,
    {
      strategy: 'cut+collapse',
      duration: '74us',
      reclaim: null,
      events: [
        { at: '67us', action: 'hwpt-replace' },
        { at: '67us', action: 'unplug', device: 'nic' },
      ],
      inject: { tableAllocation: 0.5, slowSwap: 1 },
    },
  ],
];

it.each(FOUND)('%s (seed %i)', { timeout: 60_000 }, (_, seed, scenario) => {
  expect(runStormMachine(seed, scenario).failure).toBeNull();
});
