import { hex } from '@faultline/address';
import { type Agent, Cost, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import { Ioas } from '../ioas/ioas.ts';
import type { IoasPlacement } from '../ioas/ioas-layout.ts';
import { LAST_IOVA } from '../ioas/reserved-iovas.ts';
import type { Process } from '../process.ts';
import { getDirtyBitmap } from './dirty-bitmap.ts';
import { IommufdDriverSide } from './driver-side.ts';
import { FaultObject } from './fault-object.ts';
import { allocateHwpt } from './hwpt-alloc.ts';
import { invalidateHwpt } from './hwpt-invalidate.ts';
import { IoasObject } from './hwpt-object.ts';
import {
  DirtyBitmapFlag,
  DirtyTrackingFlag,
  HwCapability,
  HwInfoFlag,
  IOMMU_IOAS_MAP_UNPINNED,
  IoasMapFlag,
} from './ioctl-flags.ts';
import type {
  DestroyRequest,
  FaultQueueAllocReply,
  FaultQueueAllocRequest,
  GetHwInfoReply,
  GetHwInfoRequest,
  HwptAllocReply,
  HwptAllocRequest,
  HwptGetDirtyBitmapRequest,
  HwptInvalidateReply,
  HwptInvalidateRequest,
  HwptSetDirtyTrackingRequest,
  HwQueueAllocRequest,
  IoasAllocReply,
  IoasAllocRequest,
  IoasAllowIovasRequest,
  IoasCopyReply,
  IoasCopyRequest,
  IoasIovaRangesReply,
  IoasIovaRangesRequest,
  IoasMapFileRequest,
  IoasMapReply,
  IoasMapRequestFields,
  IoasNoiommuGetPaRequest,
  IoasUnmapReply,
  IoasUnmapRequest,
  OptionReply,
  OptionRequest,
  VdeviceAllocReply,
  VdeviceAllocRequest,
  VeventqAllocReply,
  VeventqAllocRequest,
  VfioIoasReply,
  VfioIoasRequest,
  ViommuAllocReply,
  ViommuAllocRequest,
} from './ioctl-request.ts';
import { changeProcess, option } from './iommu-option.ts';
import { checkFlags } from './iommufd-context.ts';
import { reported } from './reported.ts';
import { allocateVdevice, allocateVeventq, allocateViommu } from './viommu-alloc.ts';

/**
 * One open /dev/iommu: a method for each ioctl, named after the command, with the uAPI's fields. Each is a task; what the kernel refuses is an
 * {@link IommufdError} with the errno as its `code`. `process` is who calls, if it is not the opener. Below them is what drivers call:
 * bind, attach, accesses.
 */
export class Iommufd extends IommufdDriverSide {
  /** The process that opened it. */
  get process(): Process {
    return this.context.process;
  }

  /** IOMMU_DESTROY. @throws IommufdError ENOENT, EBUSY */
  *destroy(agent: Agent, request: DestroyRequest): Task<void> {
    const object = yield* reported(this.context.table.destroy(agent, request.id));
    if (this.context.vfioIoas === object) this.context.vfioIoas = null;
  }

  /** IOMMU_IOAS_ALLOC. @throws IommufdError EOPNOTSUPP */
  *ioasAlloc(agent: Agent, request: IoasAllocRequest, process: Process = this.process): Task<IoasAllocReply> {
    checkFlags(request.flags, 0);
    yield agent.spends('allocate ioas', Cost.lock);
    const { strategy, table } = this.context;
    const object = table.finalize(table.add(new IoasObject(new Ioas({ process, strategy }))));
    return { outIoasId: object.id };
  }

  /** IOMMU_IOAS_ALLOW_IOVAS. @throws IommufdError ENOENT, EINVAL, EADDRINUSE */
  *ioasAllowIovas(agent: Agent, request: IoasAllowIovasRequest): Task<void> {
    yield* this.withIoas(request.ioasId, (ioas) =>
      ioas.iopt.write(agent, (layout) => layout.allow(request.allowedIovas)),
    );
  }

  /** IOMMU_IOAS_IOVA_RANGES. @throws IommufdError ENOENT, EMSGSIZE with `reply` */
  *ioasIovaRanges(agent: Agent, request: IoasIovaRangesRequest): Task<IoasIovaRangesReply> {
    return yield* this.withIoas(request.ioasId, function* ({ iopt }) {
      const reply = yield* iopt.read(agent, () => {
        const ranges = iopt.layout.reserved.holes();
        const allowedIovas = ranges.slice(0, request.numIovas);
        return { numIovas: ranges.length, allowedIovas, outIovaAlignment: iopt.layout.alignment };
      });
      if (reply.numIovas > request.numIovas)
        throw new IommufdError('EMSGSIZE', `num_iovas: ${request.numIovas} is less than ${reply.numIovas}`, reply);
      return reply;
    });
  }

  /** IOMMU_IOAS_MAP. @throws IommufdError EOPNOTSUPP, EOVERFLOW, EINVAL, ENOENT, EEXIST, ENOSPC, ENOMEM, EFAULT */
  *ioasMap(agent: Agent, request: IoasMapRequestFields, process: Process = this.process): Task<IoasMapReply> {
    const { iova, userVa, length } = request;
    const placement = placementOf(request.flags, iova, IOMMU_IOAS_MAP_UNPINNED);
    checkBelowMax({ iova, length });
    checkRights(request.flags);
    const unpinned = (request.flags & IOMMU_IOAS_MAP_UNPINNED) !== 0;
    if (unpinned && this.context.strategy === null)
      throw new IommufdError('EOPNOTSUPP', 'flags: UNPINNED needs an iommufd with stage-2 faults');
    const account = this.context.accountOf(process);
    const policy = request.policy ? { policy: request.policy } : {};
    const map = { ...placement, userVa, length, unpinned, process, account, ...policy };
    const area = yield* this.withIoas(request.ioasId, (ioas) => ioas.map(agent, map));
    return { iova: area.iova };
  }

  /** IOMMU_IOAS_MAP_FILE. @throws IommufdError as {@link ioasMap} */
  *ioasMapFile(agent: Agent, request: IoasMapFileRequest, process: Process = this.process): Task<IoasMapReply> {
    this.context.since73('IOMMU_IOAS_MAP_FILE');
    const { iova, file, start, length } = request;
    const placement = placementOf(request.flags, iova);
    checkBelowMax({ iova, length });
    checkRights(request.flags);
    const map = { ...placement, file, start, length, process, account: this.context.accountOf(process) };
    const area = yield* this.withIoas(request.ioasId, (ioas) => ioas.mapFile(agent, map));
    return { iova: area.iova };
  }

  /** IOMMU_IOAS_COPY. @throws IommufdError EOPNOTSUPP, EOVERFLOW, EINVAL, ENOENT, EPERM; as {@link ioasMap} */
  *ioasCopy(agent: Agent, request: IoasCopyRequest): Task<IoasCopyReply> {
    const { srcIova, dstIova, length, srcIoasId, dstIoasId } = request;
    const placement = placementOf(request.flags, dstIova);
    checkBelowMax({ length, src_iova: srcIova, dst_iova: dstIova });
    checkRights(request.flags);
    const iova = yield* this.withIoas(srcIoasId, (source) =>
      this.withIoas(dstIoasId, (ioas) => ioas.copy(agent, source, { iova: srcIova, length }, placement)),
    );
    return { dstIova: iova };
  }

  /** IOMMU_IOAS_UNMAP. @throws IommufdError ENOENT, EINVAL, EOVERFLOW, EBUSY, EDEADLOCK */
  *ioasUnmap(agent: Agent, request: IoasUnmapRequest): Task<IoasUnmapReply> {
    const { iova, length } = request;
    return yield* this.withIoas(request.ioasId, function* (ioas) {
      if (iova !== 0n || length !== LAST_IOVA) checkBelowMax({ iova, length });
      return { length: yield* ioas.unmap(agent, iova, length) };
    });
  }

  /** IOMMU_IOAS_CHANGE_PROCESS: from here on `process` pays. @throws IommufdError EINVAL (an area that is no file), ENOMEM */
  *ioasChangeProcess(agent: Agent, process: Process = this.process): Task<void> {
    this.context.since73('IOMMU_IOAS_CHANGE_PROCESS');
    yield* changeProcess(this.context, agent, process);
  }

  /** IOMMU_OPTION. @throws IommufdError EOPNOTSUPP, EPERM, EBUSY, EINVAL, ENOENT, EADDRINUSE */
  option(agent: Agent, request: OptionRequest, process: Process = this.process): Task<OptionReply> {
    return option(this.context, agent, request, process);
  }

  /** IOMMU_VFIO_IOAS. @throws IommufdError ENODEV, ENOENT, EOPNOTSUPP */
  *vfioIoas(agent: Agent, request: VfioIoasRequest): Task<VfioIoasReply> {
    yield agent.spends('vfio ioas', Cost.lock);
    const { context } = this;
    if (request.op < 0 || request.op > 2)
      throw new IommufdError('EOPNOTSUPP', `op: ${request.op} is not one of 0, 1, 2`);
    if (request.op === 1) {
      const ioas = context.get(request.ioasId, 'IOAS');
      context.table.put(ioas);
      context.vfioIoas = ioas;
    } else if (request.op === 2) context.vfioIoas = null;
    else if (!context.vfioIoas) throw new IommufdError('ENODEV', 'no IOAS is set for VFIO compatibility');
    return { ioasId: context.vfioIoas?.id ?? request.ioasId };
  }

  /** IOMMU_HWPT_ALLOC. @throws IommufdError EOPNOTSUPP, EINVAL, ENOENT, EADDRINUSE; what the driver refuses */
  *hwptAlloc(agent: Agent, request: HwptAllocRequest): Task<HwptAllocReply> {
    const hwpt = yield* allocateHwpt(this.context, agent, request);
    return { outHwptId: this.context.table.finalize(hwpt).id };
  }

  /** IOMMU_GET_HW_INFO. @throws IommufdError EOPNOTSUPP, ENOENT */
  *getHwInfo(agent: Agent, request: GetHwInfoRequest): Task<GetHwInfoReply> {
    const is73 = this.context.version !== '6.12';
    checkFlags(request.flags, is73 ? HwInfoFlag.INPUT_TYPE : 0);
    return yield* this.with(request.devId, 'DEVICE', function* ({ device }) {
      yield agent.spends('get hardware info', Cost.lock);
      const { type, data, maxPasidLog2 } = device.hwInfo;
      const wanted = (request.flags & HwInfoFlag.INPUT_TYPE) !== 0 ? request.inDataType : 0;
      if (wanted !== 0 && wanted !== type)
        throw new IommufdError('EOPNOTSUPP', `in_data_type: ${wanted} is not the ${type} of ${device.name}`);
      const { dirtyTracking, ats } = device.capabilities;
      const outCapabilities =
        (dirtyTracking ? HwCapability.DIRTY_TRACKING : 0n) | (is73 && !ats ? HwCapability.ATS_NOT_SUPPORTED : 0n);
      return { outDataType: type, outMaxPasidLog2: is73 ? maxPasidLog2 : 0, outCapabilities, data };
    });
  }

  /** IOMMU_HWPT_SET_DIRTY_TRACKING: enabling clears all D bits first. @throws IommufdError EOPNOTSUPP, ENOENT */
  *hwptSetDirtyTracking(agent: Agent, request: HwptSetDirtyTrackingRequest): Task<void> {
    checkFlags(request.flags, DirtyTrackingFlag.ENABLE);
    yield* this.with(request.hwptId, 'HWPT_PAGING', function* (hwpt) {
      const { dirty } = hwpt.paging;
      if (dirty === null)
        throw new IommufdError('EOPNOTSUPP', `hwpt_id: ${hwpt.id} was allocated without dirty tracking`);
      const enable = (request.flags & DirtyTrackingFlag.ENABLE) !== 0;
      for (const { page, pages } of enable ? hwpt.ioas.ioas.areas.areas() : [])
        yield* reported(dirty.readAndClear(agent, page, pages, true));
      yield* reported(dirty.setTracking(agent, enable));
    });
  }

  /** IOMMU_HWPT_GET_DIRTY_BITMAP. @throws IommufdError EOPNOTSUPP, ENOENT, EINVAL, EOVERFLOW, EFAULT */
  *hwptGetDirtyBitmap(agent: Agent, request: HwptGetDirtyBitmapRequest): Task<void> {
    checkFlags(request.flags, DirtyBitmapFlag.NO_CLEAR);
    yield* this.with(request.hwptId, 'HWPT_PAGING', (hwpt) => getDirtyBitmap(agent, hwpt, request));
  }

  /** IOMMU_HWPT_INVALIDATE. @throws IommufdError EINVAL, ENOENT, EOPNOTSUPP and the driver's; with the entries done in `reply` */
  hwptInvalidate(agent: Agent, request: HwptInvalidateRequest): Task<HwptInvalidateReply> {
    return invalidateHwpt(this.context, agent, request);
  }

  /** IOMMU_FAULT_QUEUE_ALLOC. @throws IommufdError EOPNOTSUPP */
  *faultQueueAlloc(agent: Agent, request: FaultQueueAllocRequest): Task<FaultQueueAllocReply> {
    checkFlags(request.flags, 0);
    yield agent.spends('allocate fault queue', Cost.lock);
    const { table } = this.context;
    const fault = table.finalize(table.add(new FaultObject()));
    return { outFaultId: fault.id, outFaultFile: fault };
  }

  /** IOMMU_VIOMMU_ALLOC. @throws IommufdError EOPNOTSUPP, ENOENT, EINVAL */
  viommuAlloc(agent: Agent, request: ViommuAllocRequest): Task<ViommuAllocReply> {
    return allocateViommu(this.context, agent, request);
  }

  /** IOMMU_VDEVICE_ALLOC. @throws IommufdError ENOENT, EINVAL, EEXIST */
  vdeviceAlloc(agent: Agent, request: VdeviceAllocRequest): Task<VdeviceAllocReply> {
    return allocateVdevice(this.context, agent, request);
  }

  /** IOMMU_VEVENTQ_ALLOC. @throws IommufdError EOPNOTSUPP, EINVAL, ENOENT, EEXIST */
  veventqAlloc(agent: Agent, request: VeventqAllocRequest): Task<VeventqAllocReply> {
    return allocateVeventq(this.context, agent, request);
  }

  /** IOMMU_HW_QUEUE_ALLOC: no driver of this model has hardware queues. @throws IommufdError EOPNOTSUPP, EINVAL, EOVERFLOW, ENOENT */
  *hwQueueAlloc(agent: Agent, request: HwQueueAllocRequest): Task<never> {
    this.context.since73('IOMMU_HW_QUEUE_ALLOC');
    checkFlags(request.flags, 0);
    if (request.type === 0) throw new IommufdError('EOPNOTSUPP', 'type: 0 is no type of a hardware queue');
    if (request.length === 0n) throw new IommufdError('EINVAL', 'length: 0x0 is not positive');
    if (request.nestingParentIova + request.length - 1n > LAST_IOVA)
      throw new IommufdError('EOVERFLOW', `nesting_parent_iova: ${hex(request.nestingParentIova)} wraps`);
    return yield* this.with(request.viommuId, 'VIOMMU', function* () {
      yield agent.spends('allocate hardware queue', Cost.lock);
      throw new IommufdError('EOPNOTSUPP', 'type: the driver has no hardware queues');
    });
  }

  /** IOMMU_IOAS_NOIOMMU_GET_PA, as a kernel without no-iommu mode. @throws IommufdError EOPNOTSUPP, always */
  *ioasNoiommuGetPa(agent: Agent, _request: IoasNoiommuGetPaRequest): Task<never> {
    this.context.since73('IOMMU_IOAS_NOIOMMU_GET_PA');
    yield agent.spends('noiommu get pa', Cost.lock);
    throw new IommufdError('EOPNOTSUPP', 'no-iommu mode is not built');
  }
}

/** @throws IommufdError EOPNOTSUPP for flags that are not known */
function placementOf(flags: number, iova: bigint, further = 0): IoasPlacement {
  const { FIXED_IOVA, WRITEABLE, READABLE } = IoasMapFlag;
  checkFlags(flags, FIXED_IOVA | WRITEABLE | READABLE | further);
  return {
    iova: (flags & FIXED_IOVA) !== 0 ? iova : null,
    writeable: (flags & WRITEABLE) !== 0,
    readable: (flags & READABLE) !== 0,
  };
}

function checkRights(flags: number): void {
  if ((flags & (IoasMapFlag.WRITEABLE | IoasMapFlag.READABLE)) === 0)
    throw new IommufdError('EINVAL', 'flags: neither READABLE nor WRITEABLE');
}

function checkBelowMax(fields: Readonly<Record<string, bigint>>): void {
  for (const [name, value] of Object.entries(fields))
    if (value >= LAST_IOVA)
      throw new IommufdError('EOVERFLOW', `${name}: ${hex(value)} is not below ${hex(LAST_IOVA)}`);
}
