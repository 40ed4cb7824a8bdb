/** The kinds of DMA that a device makes. Whether one can take an I/O page fault is a property of each, not of the device. */
export const DMA_PATHS = ['descriptor', 'read', 'write', 'completion', 'msi'] as const;
/**
 * `descriptor`: fetching work; `read`: data out of memory (transmit); `write`: data into memory (receive); `completion`:
 * reporting work done; `msi`: interrupts, which the unit never translates.
 */
export type DmaPath = (typeof DMA_PATHS)[number];

/** What a device does when the page of a DMA is missing. */
export type MissingPageAction =
  /** Asks for the page (PRI) and retries after the answer. */
  | 'stall'
  /** Gives the data up and goes on: a receive path that cannot wait. */
  | 'drop'
  /** The queue or the device is dead. */
  | 'fatal';

/** For one path: what a missing page means. Only `stall` is a path that can fault. */
export interface PathFaultBehaviour {
  readonly whenMissing: MissingPageAction;
}

/** What a device's driver reports of all its paths: more than PCI PRI promises, which speaks of none in particular. */
export type DmaFaultReport = Readonly<Record<DmaPath, PathFaultBehaviour>>;

/** Whether DMA of this path may be pointed at memory that is not pinned. */
export const canFault = (report: DmaFaultReport, path: DmaPath): boolean =>
  path === 'msi' || report[path].whenMissing === 'stall';

/** The paths that must find their memory pinned, in the order of {@link DMA_PATHS}. */
export const unfaultablePaths = (report: DmaFaultReport): readonly DmaPath[] =>
  DMA_PATHS.filter((path) => !canFault(report, path));

const stall: PathFaultBehaviour = { whenMissing: 'stall' };
const drop: PathFaultBehaviour = { whenMissing: 'drop' };
const fatal: PathFaultBehaviour = { whenMissing: 'fatal' };

/** An accelerator built for shared virtual memory: every path waits. */
export const ACCELERATOR_FAULTS: DmaFaultReport = {
  descriptor: stall,
  read: stall,
  write: stall,
  completion: stall,
  msi: stall,
};

/** An NVMe-like controller with PRI on its data path; its queues must be there. */
export const NVME_FAULTS: DmaFaultReport = {
  descriptor: fatal,
  read: stall,
  write: stall,
  completion: fatal,
  msi: stall,
};

/** A NIC: transmit can wait, receive cannot (the wire does not), its rings must be there. */
export const NIC_FAULTS: DmaFaultReport = {
  descriptor: fatal,
  read: stall,
  write: drop,
  completion: fatal,
  msi: stall,
};

/** A device with no PRI at all: nothing may be missing. */
export const LEGACY_FAULTS: DmaFaultReport = {
  descriptor: fatal,
  read: fatal,
  write: fatal,
  completion: fatal,
  msi: stall,
};
