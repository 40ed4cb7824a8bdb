import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { Iommufd } from '../object/iommufd.ts';
import type { Process } from '../process.ts';
import { ERRNO } from './errno-number.ts';
import { FileTable } from './file-table.ts';
import { HWPT_IOCTLS } from './hwpt-ioctls.ts';
import { IOAS_IOCTLS } from './ioas-ioctls.ts';
import type { IoctlCall, IoctlEntry } from './ioctl-call.ts';
import { OBJECT_IOCTLS } from './object-ioctls.ts';
import { StructView } from './struct-layout.ts';
import { errnoOf } from './system-call.ts';
import type { UserMemory } from './user-memory.ts';
import { type IoctlArgument, vfioIoctl } from './vfio-compat.ts';

/** IOMMUFD_TYPE, the second byte of every command. */
const IOMMUFD_TYPE = 0x3b;
const FIRST_NR = 0x80;

/** All ioctls by number; numbers from the first to the last that are missing are holes. */
const ENTRIES: ReadonlyMap<number, IoctlEntry> = new Map(
  [...OBJECT_IOCTLS, ...IOAS_IOCTLS, ...HWPT_IOCTLS].map((entry) => [entry.nr, entry]),
);

/** The ioctls that there are, by number: name, struct, least size, and the kernel that has it first. */
export const IOCTL_TABLE: readonly Omit<IoctlEntry, 'execute'>[] = [...ENTRIES.values()].sort((a, b) => a.nr - b.nr);

/** The command of an ioctl: _IO(';', nr). */
export const ioctlCommand = (nr: number): number => (IOMMUFD_TYPE << 8) | nr;

/** Options of {@link IommufdFile.ioctl}. */
export interface IoctlOptions {
  /** Where addresses in the struct lead. */
  readonly memory: UserMemory;
  /** Who calls, if it is not the opener. */
  readonly process?: Process;
}

/** A mmap of the file. */
export interface IommufdMmapRequest {
  readonly length: bigint;
  /** PROT_EXEC is asked for. */
  readonly exec: boolean;
  /** MAP_SHARED. */
  readonly shared: boolean;
}

/**
 * The file of an open /dev/iommu as system calls see it: numbers and bytes in, errnos out. It decodes, and leaves the rest to an
 * {@link Iommufd}.
 *
 * ```ts
 * const file = new IommufdFile(new Iommufd({ process }));
 * const bytes = new Uint8Array([12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // struct iommu_ioas_alloc
 * const result = runToEnd(file.ioctl(agent, ioctlCommand(0x81), bytes, { memory })); // 0; bytes[8] is the id
 * ```
 */
export class IommufdFile {
  readonly iommufd: Iommufd;
  /** The descriptors of the process that opened it: fault and event queues appear here. */
  readonly files: FileTable;

  constructor(iommufd: Iommufd, files: FileTable = new FileTable()) {
    this.iommufd = iommufd;
    this.files = files;
  }

  /**
   * ioctl(2). @param command the whole 32 bits @param argument the struct that the argument points to, written back in place; or the
   * argument itself, where it is a number. What the array is too short for cannot be read: EFAULT.
   * @returns 0 or more, or a negative errno number
   */
  *ioctl(agent: Agent, command: number, argument: IoctlArgument, options: IoctlOptions): Task<number> {
    const { iommufd, files } = this;
    const call = { agent, iommufd, files, memory: options.memory, process: options.process ?? iommufd.process };
    try {
      const entry = this.#entry(command & 0xff);
      if (entry === null) return yield* vfioIoctl({ ...call, respond: () => undefined }, command >>> 0, argument);
      yield* runIoctl(call, entry, command >>> 0, argument);
      return 0;
    } catch (error) {
      return errnoOf(error);
    }
  }

  /** mmap(2): nothing that can be mapped is modelled, so that a good request ends with ENXIO. @returns a negative errno number */
  mmap(request: IommufdMmapRequest): number {
    const code = (request.length & 0xfffn) !== 0n || !request.shared ? 'EINVAL' : request.exec ? 'EPERM' : 'ENXIO';
    return -ERRNO[code];
  }

  /** The row of a number; `hole` within the table; null for the VFIO decoder. */
  #entry(nr: number): IoctlEntry | 'hole' | null {
    const last = this.iommufd.context.version === '6.12' ? LAST_NR_6_12 : LAST_NR_7_3;
    return nr < FIRST_NR || nr > last ? null : (ENTRIES.get(nr) ?? 'hole');
  }
}

/** FAULT_QUEUE_ALLOC, and IOAS_NOIOMMU_GET_PA. */
const LAST_NR_6_12 = 0x8e;
const LAST_NR_7_3 = 0x95;

/** The rules that all ioctls share (iommufd_fops_ioctl), then the ioctl. */
function* runIoctl(
  call: Omit<IoctlCall, 'respond'>,
  entry: IoctlEntry | 'hole',
  command: number,
  argument: IoctlArgument,
): Task<void> {
  if (typeof argument === 'number' || argument.length < 4)
    throw new IommufdError('EFAULT', 'argument: no size can be read there');
  const userSize = new DataView(argument.buffer, argument.byteOffset).getUint32(0, true);
  if (entry === 'hole' || ioctlCommand(entry.nr) !== command)
    throw new IommufdError('ENOTTY', `command 0x${command.toString(16)}`);
  const { layout, minSize } = entry;
  if (userSize < minSize) throw new IommufdError('EINVAL', `size: ${userSize} is less than ${minSize}`);
  if (argument.subarray(layout.size, userSize).some((byte) => byte !== 0))
    throw new IommufdError('E2BIG', `size: ${userSize}, and not zero behind the ${layout.size} bytes that are known`);
  if (userSize > argument.length)
    throw new IommufdError('EFAULT', `size: ${userSize} bytes, but there are ${argument.length}`);
  const bytes = new Uint8Array(layout.size);
  bytes.set(argument.subarray(0, Math.min(userSize, layout.size)));
  const respond = (): void => argument.set(bytes.subarray(0, Math.min(userSize, layout.size)));
  yield* entry.execute({ ...call, respond }, new StructView(layout, bytes));
}
