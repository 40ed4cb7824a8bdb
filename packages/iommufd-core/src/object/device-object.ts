import { type Agent, Cost, Mutex, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { IommuDevice, IommuGroup } from '../iommu-device.ts';
import { type AnyHwpt, pagingOf } from './hwpt-object.ts';
import { IommufdObject } from './object-table.ts';
import { reported } from './reported.ts';
import type { VdeviceObject } from './viommu-object.ts';

/** What an iommufd keeps of an IOMMU group: its devices share one HWPT (struct iommufd_group). */
export class GroupState {
  readonly group: IommuGroup;
  readonly lock = new Mutex('igroup lock');
  /** What the group is attached to. */
  hwpt: AnyHwpt | null = null;
  /** Those of its devices that are attached, in order. */
  readonly attached: DeviceObject[] = [];
  /** Devices of the group that are bound. */
  bound = 0;

  constructor(group: IommuGroup) {
    this.group = group;
  }
}

/** A DEVICE object: a device bound by its vfio driver. */
export class DeviceObject extends IommufdObject {
  readonly type = 'DEVICE';
  readonly device: IommuDevice;
  readonly group: GroupState;
  /** vfio's dev_set lock: attach, detach and unbind of a device are one at a time. */
  readonly vfioLock = new Mutex('dev_set lock');
  vdevice: VdeviceObject | null = null;
  /** Its unbind has begun. */
  isGoing = false;

  constructor(device: IommuDevice, group: GroupState) {
    super();
    this.device = device;
    this.group = group;
    this.users++; // the binder's
    group.bound++;
    group.group.owner = group;
  }

  /** The HWPT that it is attached to. */
  get hwpt(): AnyHwpt | null {
    return this.group.attached.includes(this) ? this.group.hwpt : null;
  }

  *destroy(agent: Agent): Task<void> {
    yield agent.spends('release device', Cost.free);
    this.group.bound--;
    if (this.group.bound === 0) this.group.group.owner = null;
  }

  /**
   * Attaches a device that has none (iommufd_hw_pagetable_attach): the group goes there with its first device, the others follow.
   * @throws IommufdError EINVAL (attached already, or its group elsewhere; or the driver's), EADDRINUSE, ENODEV, EOPNOTSUPP
   */
  *attach(agent: Agent, hwpt: AnyHwpt): Task<void> {
    const { group } = this;
    yield* group.lock.acquire(agent);
    try {
      if (this.hwpt) throw new IommufdError('EINVAL', `${this.device.name} is attached already`);
      if (group.hwpt && group.hwpt !== hwpt)
        throw new IommufdError('EINVAL', `${this.device.name}: its group is attached to ${group.hwpt.id}`);
      yield* this.#enter(agent, hwpt);
      try {
        if (group.attached.length === 0) yield* this.#attachGroup(agent, hwpt, null);
      } catch (error) {
        yield* this.#leave(agent, hwpt);
        throw error;
      }
      group.hwpt = hwpt;
      group.attached.push(this);
      hwpt.users++;
    } finally {
      group.lock.release(agent);
    }
  }

  /**
   * Moves the whole group to another HWPT.
   * @returns the old one, one of whose users is the caller's to give back; null if it is the same
   * @throws IommufdError EINVAL (not attached), EADDRINUSE, ENODEV, EOPNOTSUPP; the group stays where it was then
   */
  *replace(agent: Agent, hwpt: AnyHwpt): Task<AnyHwpt | null> {
    const { group } = this;
    yield* group.lock.acquire(agent);
    try {
      const old = this.hwpt;
      if (!old) throw new IommufdError('EINVAL', `${this.device.name} is not attached`);
      if (old === hwpt) return null;
      const moved = pagingOf(old).ioas !== pagingOf(hwpt).ioas;
      const entered: DeviceObject[] = [];
      try {
        for (const device of moved ? group.attached : []) {
          yield* device.#enter(agent, hwpt);
          entered.push(device);
        }
        yield* this.#attachGroup(agent, hwpt, old);
      } catch (error) {
        for (const device of entered) yield* device.#leave(agent, hwpt);
        throw error;
      }
      for (const device of moved ? group.attached : []) yield* device.#leave(agent, old);
      group.hwpt = hwpt;
      for (const { device } of group.attached) yield* answerPageGroups(agent, device, old);
      if (old.fault) yield* old.fault.dropHandle(agent, group);
      hwpt.users += group.attached.length;
      old.users -= group.attached.length - 1;
      return old;
    } finally {
      group.lock.release(agent);
    }
  }

  /** Detaches the device, and the group with its last one. @returns the HWPT, one of whose users is the caller's to give back; null if there was none */
  *detach(agent: Agent): Task<AnyHwpt | null> {
    const { group } = this;
    yield* group.lock.acquire(agent);
    try {
      const { hwpt } = this;
      if (!hwpt) return null;
      group.attached.splice(group.attached.indexOf(this), 1);
      yield* answerPageGroups(agent, this.device, hwpt);
      if (group.attached.length === 0) {
        for (const device of group.group.devices) yield* reported(device.detach(agent));
        if (hwpt.fault) yield* hwpt.fault.dropHandle(agent, group);
        group.hwpt = null;
      }
      yield* this.#leave(agent, hwpt);
      return hwpt;
    } finally {
      group.lock.release(agent);
    }
  }

  /** Reserves the device's regions in the IOAS, and pins what its paths need of unpinned areas. */
  *#enter(agent: Agent, hwpt: AnyHwpt): Task<void> {
    const { device } = this;
    const { ioas } = pagingOf(hwpt).ioas;
    const regions = device.reservedRegions.filter((region) => region.type !== 'direct-relaxable');
    yield* ioas.iopt.write(agent, (layout) => layout.reserve(regions, this));
    if (!ioas.followsHost) return;
    const report = device.report ?? { name: device.name, paths: [{ path: 'any', canFault: false }] };
    try {
      yield* reported(ioas.attach(agent, report, device.onLie ? { onLie: device.onLie } : {}));
      if (device.pageFaults) ioas.devices.watchRequests(report.name, device.pageFaults);
    } catch (error) {
      yield* ioas.iopt.write(agent, (layout) => layout.reserved.release(this));
      throw error;
    }
  }

  *#leave(agent: Agent, hwpt: AnyHwpt): Task<void> {
    const { device } = this;
    const { ioas } = pagingOf(hwpt).ioas;
    if (ioas.followsHost) yield* ioas.detach(agent, device.report?.name ?? device.name);
    yield* ioas.iopt.write(agent, (layout) => layout.reserved.release(this));
  }

  /** Attaches every device of the group; those that went there come back to `old`, or to nothing, if one fails. */
  *#attachGroup(agent: Agent, hwpt: AnyHwpt, old: AnyHwpt | null): Task<void> {
    const { devices } = this.group.group;
    if (hwpt.fault) for (const device of devices) checkPageRequests(device);
    const attached: IommuDevice[] = [];
    try {
      for (const device of devices) {
        yield* reported(device.attach(agent, hwpt.domain));
        attached.push(device);
      }
    } catch (error) {
      for (const device of attached) {
        if (old) yield* reported(device.attach(agent, old.domain));
        else yield* reported(device.detach(agent));
      }
      throw error;
    }
  }
}

/**
 * Answers the page groups of a device that came through an attachment that ends, wherever they are; before its driver detaches it, since answers do
 * not reach it afterwards.
 */
function* answerPageGroups(agent: Agent, { pageFaults }: IommuDevice, hwpt: AnyHwpt): Task<void> {
  if (!pageFaults) return;
  const handledBy = hwpt.fault ?? pagingOf(hwpt).hwpt ?? undefined;
  yield* pageFaults.queue.detach(agent, pageFaults.sourceId, handledBy);
}

/** @throws IommufdError EINVAL (a VF with PRI: its PF's), ENODEV (no PRI) */
function checkPageRequests(device: IommuDevice): void {
  const { pageRequests, virtualFunction } = device.capabilities;
  if (pageRequests && virtualFunction)
    throw new IommufdError(
      'EINVAL',
      `${device.name}: a virtual function's page requests are its physical function's; attach it to a HWPT without a fault queue`,
    );
  if (!pageRequests)
    throw new IommufdError(
      'ENODEV',
      `${device.name} has no page requests (PRI); attach it to a HWPT without a fault queue`,
    );
}
