import { IommufdError } from '../errno.ts';
import type { AccountMode } from '../ioas/locked-memory.ts';
import type { IommuDevice, IommuGroup } from '../iommu-device.ts';
import type { Process } from '../process.ts';
import type { HwptObserver } from '../stage2/hwpt-seat.ts';
import type { Strategy } from '../stage2/strategy.ts';
import type { AccessObject } from './access-object.ts';
import { type DeviceObject, GroupState } from './device-object.ts';
import type { FaultObject } from './fault-object.ts';
import type { HwptNestedObject, HwptObject, IoasObject } from './hwpt-object.ts';
import { type IommufdObject, ObjectTable, type ObjectType } from './object-table.ts';
import type { VeventqObject } from './veventq-object.ts';
import type { VdeviceObject, ViommuObject } from './viommu-object.ts';

/** Whose iommufd it is. */
export type IommufdVersion = '6.12' | '7.3';

/** Options of an `Iommufd`. */
export interface IommufdOptions {
  /** The process that opens it, and calls where no other is named. */
  readonly process: Process;
  readonly version?: IommufdVersion;
  /** Stage-2 faults: how the host's changes are followed. Default null: today's iommufd, and unpinned maps are refused. */
  readonly strategy?: Strategy | null;
  /** Told what each paging HWPT does for stage-2 faults. */
  readonly observer?: HwptObserver;
}

/** The class of each type's objects. */
export interface ObjectOfType {
  readonly DEVICE: DeviceObject;
  readonly HWPT_PAGING: HwptObject;
  readonly HWPT_NESTED: HwptNestedObject;
  readonly IOAS: IoasObject;
  readonly ACCESS: AccessObject;
  readonly FAULT: FaultObject;
  readonly VIOMMU: ViommuObject;
  readonly VDEVICE: VdeviceObject;
  readonly VEVENTQ: VeventqObject;
}

/** What belongs to one open /dev/iommu (struct iommufd_ctx). */
export class IommufdContext {
  readonly table = new ObjectTable();
  readonly process: Process;
  readonly version: IommufdVersion;
  readonly strategy: Strategy | null;
  readonly observer: HwptObserver;
  readonly groups = new Map<IommuGroup, GroupState>();
  /** IOMMU_OPTION_RLIMIT_MODE 1: pins are counted against the mm. */
  countsByMm = false;
  /** The IOAS of VFIO compatibility. */
  vfioIoas: IoasObject | null = null;

  constructor(options: IommufdOptions) {
    this.process = options.process;
    this.version = options.version ?? '7.3';
    this.strategy = options.strategy ?? null;
    this.observer = options.observer ?? {};
  }

  /** An object of a type, held until `table.put`. @throws IommufdError ENOENT */
  get<T extends ObjectType>(id: number, ...types: T[]): ObjectOfType[T] {
    return this.table.get(id, ...types) as IommufdObject as ObjectOfType[T];
  }

  /** Against what a process's new pages are counted. */
  accountOf(process: Process): AccountMode {
    if (process.capabilities.has('CAP_IPC_LOCK')) return 'none';
    return this.countsByMm ? 'mm' : 'user';
  }

  /** @throws IommufdError EBUSY if another iommufd has the group */
  claimGroup(device: IommuDevice): GroupState {
    const known = this.groups.get(device.group);
    if (device.group.owner !== null && device.group.owner !== known)
      throw new IommufdError('EBUSY', `${device.name}: its group belongs to another iommufd`);
    const state = known ?? new GroupState(device.group);
    this.groups.set(device.group, state);
    return state;
  }

  /** @throws IommufdError ENOTTY for a command that came after 6.12 */
  since73(command: string): void {
    if (this.version === '6.12') throw new IommufdError('ENOTTY', `${command}: 6.12 has no such command`);
  }
}

/** @throws IommufdError EOPNOTSUPP for a flag that is none of `known` */
export function checkFlags(flags: number, known: number): void {
  if ((flags & ~known) !== 0)
    throw new IommufdError(
      'EOPNOTSUPP',
      `flags: 0x${(flags >>> 0).toString(16)} has bits outside 0x${(known >>> 0).toString(16)}`,
    );
}
