import { z } from 'zod';
import { count, duration, fraction, size } from './quantity.ts';

const action = (path: string) =>
  z
    .enum(['stall', 'drop', 'fatal'])
    .describe(
      `What the device does when a page of its ${path} DMA is missing: ask for it and wait, give up the data, die`,
    )
    .optional();

/** What a missing page means, by DMA path; what is left out is as the kind of device has it. */
const paths = z
  .strictObject({
    descriptor: action('descriptor'),
    read: action('read (out of memory)'),
    write: action('write (into memory)'),
    completion: action('completion'),
  })
  .describe(
    'What a missing page means to each DMA path, where it is not as usual: an accelerator stalls on all, a disk dies on descriptor and completion, a NIC besides drops on write; without ATS all are fatal',
  )
  .prefault({});

/** What every device has. */
const everyDevice = {
  paths,
  claims: paths.describe('What its driver tells vfio of a path instead of the truth: a device that lies').prefault({}),
  declares: z
    .union([z.boolean(), z.array(z.enum(['descriptor', 'read', 'write', 'completion']))])
    .describe(
      'Of which paths the driver declares the ranges, so that just these are pinned where a path cannot fault; true: of all',
    )
    .default(true),
  ats: z.boolean().describe('Whether it has ATS and PRI: without, no path can wait for a page').default(true),
  credits: count('Page requests that it may have without an answer (PRI allocation)', 1, 512).default(32),
};

const accelerator = z.strictObject({
  queues: count('Queues, each with one request at a time', 1, 1024).default(4),
  request: size('Bytes per request').default('16K'),
  workingSet: size('Guest memory over which requests are spread at random').default('16G'),
  thinkTime: duration('Pause between two requests of a queue').default('5us'),
  writeFraction: fraction('Share of requests that write guest memory').default(0.5),
  refaults: fraction(
    'Share of its pages that are picked from those the host has taken away: uniform accesses to 16 GiB almost never meet one',
  ).default(0.005),
  ...everyDevice,
});

const disk = z.strictObject({
  queueDepth: count('Commands at a time', 1, 1024).default(2),
  request: size('Bytes per sequential read').default('128K'),
  buffers: size('Guest memory that reads go to, used in turn').default('256M'),
  mediaTime: duration('Time of the medium per command').default('80us'),
  ...everyDevice,
});

const nic = z.strictObject({
  queues: count('Receive queues', 1, 1024).default(2),
  interval: duration('Time between two packets of a queue').default('20us'),
  receiveBuffers: count('Receive buffers of 4K per queue', 1).default(256),
  ...everyDevice,
});

/** The devices of a VM. */
export const devices = z
  .strictObject({
    accelerator: accelerator.nullable().prefault({}),
    disk: disk.nullable().prefault({}),
    nic: nic.nullable().prefault({}),
  })
  .describe('null removes a device');

/** Names of the devices that a VM can have. */
export const DEVICE_NAMES = ['accelerator', 'disk', 'nic'] as const;
/** One of {@link DEVICE_NAMES}. */
export type DeviceName = (typeof DEVICE_NAMES)[number];
/** Settings that every kind of device has. */
export type DeviceSettings = Pick<z.output<typeof accelerator>, 'paths' | 'claims' | 'declares' | 'ats' | 'credits'>;
