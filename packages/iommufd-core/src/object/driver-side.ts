import { type Agent, Cost, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { Ioas } from '../ioas/ioas.ts';
import type { IommuDevice } from '../iommu-device.ts';
import type { HwptPaging } from '../stage2/hwpt-paging.ts';
import { AccessObject, type AccessOps } from './access-object.ts';
import { DeviceObject } from './device-object.ts';
import { FaultObject } from './fault-object.ts';
import { attachAutomatic, putHwpt } from './hwpt-alloc.ts';
import { type AnyHwpt, type IoasObject, pagingOf } from './hwpt-object.ts';
import { IommufdContext, type IommufdOptions, type ObjectOfType } from './iommufd-context.ts';
import type { ObjectType } from './object-table.ts';
import { reported } from './reported.ts';
import { VeventqObject } from './veventq-object.ts';

/** Where the page requests of a device go. */
export type PageFaultHandler =
  | { readonly kind: 'kernel'; readonly hwpt: HwptPaging }
  | { readonly kind: 'user'; readonly fault: FaultObject; readonly devId: number; readonly handle: object };

/** What kernel drivers call of an iommufd: vfio for its devices, mediated devices for accesses. */
export abstract class IommufdDriverSide {
  /** What belongs to it. @internal */
  readonly context: IommufdContext;

  constructor(options: IommufdOptions) {
    this.context = new IommufdContext(options);
  }

  /** VFIO_DEVICE_BIND_IOMMUFD: @returns the device's id @throws IommufdError EINVAL (bound already), EBUSY (its group is another's) */
  *bind(agent: Agent, device: IommuDevice): Task<number> {
    yield agent.spends('bind', Cost.lock);
    const { context } = this;
    const isBound = context.table.objects().some((each) => each instanceof DeviceObject && each.device === device);
    if (isBound) throw new IommufdError('EINVAL', `${device.name} is bound already`);
    const object = new DeviceObject(device, context.claimGroup(device));
    return context.table.finalize(context.table.add(object)).id;
  }

  /** The end of a binding: detaches, and waits until nobody uses the device. A VDEVICE of it leaves a tombstone. @throws IommufdError EINVAL (not bound) */
  *unbind(agent: Agent, devId: number): Task<void> {
    const device = yield* this.#lock(agent, devId);
    const { table } = this.context;
    try {
      device.isGoing = true;
      yield* this.#detach(agent, device);
    } finally {
      device.vfioLock.release(agent);
    }
    const { vdevice } = device;
    if (vdevice) yield* table.destroyInKernel(agent, vdevice, true);
    device.users--; // the binder's
    yield* table.destroyInKernel(agent, device);
    if (device.group.bound === 0) this.context.groups.delete(device.group.group);
  }

  /**
   * VFIO_DEVICE_ATTACH_IOMMUFD_PT to an IOAS or HWPT, or from the one it has to another. @returns the HWPT's id
   * @throws IommufdError EINVAL (not bound; another HWPT than its group's; of a type that takes no device), ENOENT, EADDRINUSE, ENODEV, EOPNOTSUPP
   */
  *attach(agent: Agent, devId: number, ptId: number): Task<number> {
    const device = yield* this.#lock(agent, devId);
    try {
      return yield* this.#attach(agent, device, ptId);
    } finally {
      device.vfioLock.release(agent);
    }
  }

  /** VFIO_DEVICE_DETACH_IOMMUFD_PT; of a device that is not attached: nothing. @throws IommufdError EINVAL (not bound) */
  *detach(agent: Agent, devId: number): Task<void> {
    const device = yield* this.#lock(agent, devId);
    try {
      yield* this.#detach(agent, device);
    } finally {
      device.vfioLock.release(agent);
    }
  }

  /** iommufd_access_create. @throws IommufdError EINVAL (pins, and no `unmap`) */
  *accessCreate(agent: Agent, ops: AccessOps): Task<AccessObject> {
    yield agent.spends('create access', Cost.lock);
    if (ops.needsPinPages && !ops.unmap) throw new IommufdError('EINVAL', 'ops: an access that pins needs `unmap`');
    return this.context.table.finalize(this.context.table.add(new AccessObject(ops)));
  }

  /** Attaches an access to an IOAS. @throws IommufdError ENOENT, EINVAL, EADDRINUSE */
  *accessAttach(agent: Agent, access: AccessObject, ioasId: number): Task<void> {
    yield* this.with(ioasId, 'IOAS', (ioas) => access.attach(agent, ioas));
  }

  /** iommufd_access_destroy. */
  *accessDestroy(agent: Agent, access: AccessObject): Task<void> {
    access.users--; // its owner's
    yield* this.context.table.destroyInKernel(agent, access);
  }

  /** Where a device's page requests go: to user space if its HWPT has a FAULT object, else to the stage-2 handler; null if it is not attached. */
  pageFaultHandler(device: IommuDevice): PageFaultHandler | null {
    for (const object of this.context.table.objects()) {
      if (!(object instanceof DeviceObject) || object.device !== device) continue;
      const { hwpt, group, id } = object;
      if (!hwpt) return null;
      if (hwpt.fault) return { kind: 'user', fault: hwpt.fault, devId: id, handle: group };
      const paging = pagingOf(hwpt).hwpt;
      return paging ? { kind: 'kernel', hwpt: paging } : null;
    }
    return null;
  }

  /**
   * close() by the last who has it open: devices are unbound, accesses and files of queues closed, then every object goes, in any order that
   * the counts allow.
   */
  *close(agent: Agent): Task<void> {
    const { table } = this.context;
    this.context.vfioIoas = null;
    for (const object of table.objects()) {
      if (object instanceof DeviceObject) yield* this.unbind(agent, object.id);
      else if (object instanceof AccessObject) yield* this.accessDestroy(agent, object);
      else if (object instanceof FaultObject || object instanceof VeventqObject) object.close();
    }
    yield* table.close(agent);
  }

  /** Runs a task on an object, which cannot go meanwhile. @throws IommufdError ENOENT */
  protected *with<T extends ObjectType, R>(id: number, type: T, use: (object: ObjectOfType[T]) => Task<R>): Task<R> {
    const object = this.context.get(id, type);
    try {
      return yield* reported(use(object));
    } finally {
      this.context.table.put(object);
    }
  }

  /** The same for an IOAS. */
  protected withIoas<R>(id: number, use: (ioas: Ioas) => Task<R>): Task<R> {
    return this.with(id, 'IOAS', ({ ioas }) => use(ioas));
  }

  *#attach(agent: Agent, device: DeviceObject, ptId: number): Task<number> {
    const { context } = this;
    const target = context.get(ptId);
    try {
      const isMove = device.hwpt !== null;
      const attachTo = isMove
        ? (hwpt: AnyHwpt) => device.replace(agent, hwpt)
        : function* (hwpt: AnyHwpt): Task<null> {
            yield* device.attach(agent, hwpt);
            return null;
          };
      let attached: { readonly hwpt: AnyHwpt; readonly old: AnyHwpt | null };
      if (target.type === 'IOAS')
        attached = yield* attachAutomatic(context, agent, { ioas: target as IoasObject, device, attachTo, isMove });
      else if (target.type === 'HWPT_PAGING' || target.type === 'HWPT_NESTED')
        attached = { hwpt: target as AnyHwpt, old: yield* attachTo(target as AnyHwpt) };
      else throw new IommufdError('EINVAL', `pt_id: a ${target.type} takes no device`);
      if (attached.old) yield* putHwpt(context, agent, attached.old);
      return attached.hwpt.id;
    } finally {
      context.table.put(target);
    }
  }

  *#detach(agent: Agent, device: DeviceObject): Task<void> {
    const hwpt = yield* device.detach(agent);
    if (hwpt) yield* putHwpt(this.context, agent, hwpt);
  }

  /** Takes the lock of a bound device. @throws IommufdError EINVAL, as vfio for a device that is not bound */
  *#lock(agent: Agent, devId: number): Task<DeviceObject> {
    const object = this.context.table.objects().find((each) => each.id === devId);
    if (!(object instanceof DeviceObject)) throw new IommufdError('EINVAL', `dev_id: no device is bound as ${devId}`);
    yield* object.vfioLock.acquire(agent);
    if (!object.isGoing) return object;
    object.vfioLock.release(agent);
    throw new IommufdError('EINVAL', `dev_id: device ${devId} is being unbound`);
  }
}
