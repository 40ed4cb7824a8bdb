import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { NestedDomain, PagingDomain } from '../iommu-device.ts';
import type { DeviceObject } from './device-object.ts';
import { type AnyHwpt, HwptNestedObject, HwptObject, IoasObject } from './hwpt-object.ts';
import { HwptAllocFlag, HwptDataType } from './ioctl-flags.ts';
import type { HwptAllocRequest } from './ioctl-request.ts';
import { checkFlags, type IommufdContext } from './iommufd-context.ts';
import { asIommufdError, reported } from './reported.ts';
import { ViommuObject } from './viommu-object.ts';

/** IOMMU_HWPT_ALLOC, up to the id; the caller finalizes the object. */
export function* allocateHwpt(context: IommufdContext, agent: Agent, request: HwptAllocRequest): Task<AnyHwpt> {
  const { table } = context;
  const { flags, dataType, data, faultId } = request;
  if ((dataType === HwptDataType.NONE) !== (data.length === 0))
    throw new IommufdError('EINVAL', `data_len: ${data.length} does not go with data_type ${dataType}`);
  const device = context.get(request.devId, 'DEVICE');
  try {
    const parent = parentOf(context, request.ptId);
    try {
      const hwpt = yield* allocateOn(context, agent, { parent, device, request });
      if ((flags & HwptAllocFlag.FAULT_ID_VALID) !== 0) {
        try {
          const fault = table.peek(context.get(faultId, 'FAULT'));
          hwpt.fault = fault;
          fault.users++;
        } catch (error) {
          table.abort(hwpt);
          yield* hwpt.destroy(agent);
          throw error;
        }
      }
      return hwpt;
    } finally {
      table.put(parent);
    }
  } finally {
    table.put(device);
  }
}

/** @throws IommufdError EINVAL for an id that is absent, or of a type that holds no HWPT */
function parentOf(context: IommufdContext, ptId: number): IoasObject | HwptObject | ViommuObject {
  try {
    return context.get(ptId, 'IOAS', 'HWPT_PAGING', 'VIOMMU');
  } catch {
    throw new IommufdError('EINVAL', `pt_id: ${ptId} is no IOAS, paging HWPT or VIOMMU`);
  }
}

function* allocateOn(
  context: IommufdContext,
  agent: Agent,
  options: {
    readonly parent: IoasObject | HwptObject | ViommuObject;
    readonly device: DeviceObject;
    readonly request: HwptAllocRequest;
  },
): Task<AnyHwpt> {
  const { parent, device, request } = options;
  if (parent instanceof IoasObject) {
    yield* parent.mutex.acquire(agent);
    try {
      const hwpt = newPaging(context, parent, device, request);
      yield* fillHwpt(context, agent, hwpt);
      return hwpt;
    } finally {
      parent.mutex.release(agent);
    }
  }
  return context.table.add(newNested(parent, device, request));
}

/** @throws IommufdError EOPNOTSUPP; what the driver refuses */
function newPaging(
  context: IommufdContext,
  ioas: IoasObject,
  device: DeviceObject,
  { flags, data }: { readonly flags: number; readonly data: Uint8Array },
): HwptObject {
  const { NEST_PARENT, DIRTY_TRACKING, FAULT_ID_VALID, PASID } = HwptAllocFlag;
  const since73 = context.version === '6.12' ? 0 : FAULT_ID_VALID | PASID;
  checkFlags(flags, NEST_PARENT | DIRTY_TRACKING | since73);
  if ((flags & DIRTY_TRACKING) !== 0 && !device.device.capabilities.dirtyTracking)
    throw new IommufdError('EOPNOTSUPP', `flags: ${device.device.name} has no dirty tracking`);
  if ((flags & FAULT_ID_VALID) !== 0 && (flags & NEST_PARENT) !== 0)
    throw new IommufdError('EOPNOTSUPP', 'flags: a nest parent has no fault queue');
  if (data.length > 0) throw new IommufdError('EOPNOTSUPP', 'data_type: a paging HWPT takes no data');
  const nestParent = (flags & NEST_PARENT) !== 0;
  const dirtyTracking = (flags & DIRTY_TRACKING) !== 0;
  let paging: PagingDomain;
  try {
    paging = device.device.allocatePaging({ nestParent, dirtyTracking, pasid: (flags & PASID) !== 0 });
  } catch (error) {
    throw asIommufdError(error);
  }
  return context.table.add(new HwptObject({ ioas, paging, nestParent }));
}

/** Has the domain map what the IOAS has. On failure the HWPT is gone. */
function* fillHwpt(context: IommufdContext, agent: Agent, hwpt: HwptObject): Task<void> {
  const { domain, aperture, minPageSize } = hwpt.paging;
  const { ioas } = hwpt.ioas;
  try {
    hwpt.hwpt = yield* reported(ioas.addDomain(agent, domain, context.observer, { aperture, minPageSize }));
  } catch (error) {
    context.table.abort(hwpt);
    yield* hwpt.destroy(agent);
    throw error;
  }
}

function newNested(
  parent: HwptObject | ViommuObject,
  device: DeviceObject,
  request: HwptAllocRequest,
): HwptNestedObject {
  const { FAULT_ID_VALID, PASID } = HwptAllocFlag;
  checkFlags(request.flags, FAULT_ID_VALID | PASID);
  if (request.data.length === 0) throw new IommufdError('EOPNOTSUPP', 'data_type: a nested HWPT needs data');
  const viommu = parent instanceof ViommuObject ? parent : null;
  if (viommu && viommu.unit !== device.device.unit)
    throw new IommufdError('EINVAL', `pt_id: VIOMMU ${viommu.id} is of another IOMMU than ${device.device.name}`);
  const paging = parent instanceof ViommuObject ? parent.hwpt : parent;
  if (paging.autoDomain || !paging.nestParent)
    throw new IommufdError('EINVAL', `pt_id: HWPT ${paging.id} is not a nest parent`);
  if (!device.device.allocateNested)
    throw new IommufdError('EOPNOTSUPP', `data_type: ${device.device.name}'s driver has no nested domains`);
  let nested: NestedDomain;
  try {
    nested = device.device.allocateNested(paging.domain, { dataType: request.dataType, data: request.data });
  } catch (error) {
    throw asIommufdError(error);
  }
  return new HwptNestedObject({ parent: paging, nested, viommu });
}

/** Attaches a device to a HWPT, or moves it there from the one it has. @returns the old one, whose user is to be given back */
export type AttachTo = (hwpt: AnyHwpt) => Task<AnyHwpt | null>;

/**
 * Attaches to an IOAS: to its first automatic HWPT that fits the device, else to a new one (iommufd_device_auto_get_domain). A device that has
 * nothing is attached before the areas are mapped; one that is moved, after.
 */
export function* attachAutomatic(
  context: IommufdContext,
  agent: Agent,
  options: {
    readonly ioas: IoasObject;
    readonly device: DeviceObject;
    readonly attachTo: AttachTo;
    readonly isMove: boolean;
  },
): Task<{ readonly hwpt: HwptObject; readonly old: AnyHwpt | null }> {
  const { ioas, device, attachTo, isMove } = options;
  yield* ioas.mutex.acquire(agent);
  try {
    for (const hwpt of ioas.hwpts.filter((each) => each.autoDomain)) {
      hwpt.users++; // its last device may go while this one comes
      try {
        return { hwpt, old: yield* attachTo(hwpt) };
      } catch (error) {
        if (!(error instanceof IommufdError) || error.code !== 'EINVAL') throw error;
      } finally {
        yield* putHwpt(context, agent, hwpt);
      }
    }
    const hwpt = newPaging(context, ioas, device, { flags: 0, data: new Uint8Array(0) });
    let old: AnyHwpt | null = null;
    if (isMove) {
      yield* fillHwpt(context, agent, hwpt);
      try {
        old = yield* attachTo(hwpt);
      } catch (error) {
        context.table.abort(hwpt);
        yield* hwpt.destroy(agent);
        throw error;
      }
    } else yield* attachThenFill(context, agent, hwpt, options);
    hwpt.autoDomain = true;
    context.table.finalize(hwpt);
    return { hwpt, old };
  } finally {
    ioas.mutex.release(agent);
  }
}

function* attachThenFill(
  context: IommufdContext,
  agent: Agent,
  hwpt: HwptObject,
  { device, attachTo }: { readonly device: DeviceObject; readonly attachTo: AttachTo },
): Task<void> {
  try {
    yield* attachTo(hwpt);
  } catch (error) {
    context.table.abort(hwpt);
    yield* hwpt.destroy(agent);
    throw error;
  }
  const { domain, aperture, minPageSize } = hwpt.paging;
  try {
    const { ioas } = hwpt.ioas;
    hwpt.hwpt = yield* reported(ioas.addDomain(agent, domain, context.observer, { aperture, minPageSize }));
  } catch (error) {
    yield* device.detach(agent);
    hwpt.users--;
    context.table.abort(hwpt);
    yield* hwpt.destroy(agent);
    throw error;
  }
}

/** Gives back the user of a HWPT that a device held; an automatic one goes with the last (iommufd_hw_pagetable_put). */
export function* putHwpt(context: IommufdContext, agent: Agent, hwpt: AnyHwpt): Task<void> {
  hwpt.users--;
  if (hwpt.type === 'HWPT_PAGING' && hwpt.autoDomain) yield* context.table.tryDestroy(agent, hwpt);
}
