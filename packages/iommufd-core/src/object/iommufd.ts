import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { IommuDevice } from '../iommu-device.ts';
import type { Process } from '../process.ts';
import type { Strategy } from '../stage2/strategy.ts';
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

/** Whose iommufd it is. */
export type IommufdVersion = '6.12' | '7.3';

/** Options of an {@link Iommufd}. */
export interface IommufdOptions {
  /** The process that opens it, and calls where no other is named. */
  readonly process: Process;
  readonly version?: IommufdVersion;
  /** Stage-2 faults: how the host's changes are followed. Default null: today's iommufd, and unpinned maps are refused. */
  readonly strategy?: Strategy | null;
}

/**
 * One open /dev/iommu: a method for each ioctl, named after the command, with the uAPI's fields. Each is a task; what the kernel refuses is an
 * {@link IommufdError} with the errno as its `code`. `process` is who calls, if it is not the opener.
 */
export class Iommufd {
  readonly process: Process;
  readonly version: IommufdVersion;

  constructor(options: IommufdOptions) {
    this.process = options.process;
    this.version = options.version ?? '7.3';
  }

  /** IOMMU_DESTROY. @throws IommufdError ENOENT, EBUSY */
  *destroy(_agent: Agent, _request: DestroyRequest, _process: Process = this.process): Task<void> {
    throw missing('destroy');
  }

  /** IOMMU_IOAS_ALLOC. @throws IommufdError EOPNOTSUPP */
  *ioasAlloc(_agent: Agent, _request: IoasAllocRequest, _process: Process = this.process): Task<IoasAllocReply> {
    throw missing('ioasAlloc');
  }

  /** IOMMU_IOAS_ALLOW_IOVAS. @throws IommufdError ENOENT, EINVAL, EADDRINUSE */
  *ioasAllowIovas(_agent: Agent, _request: IoasAllowIovasRequest, _process: Process = this.process): Task<void> {
    throw missing('ioasAllowIovas');
  }

  /** IOMMU_IOAS_IOVA_RANGES. @throws IommufdError ENOENT, EMSGSIZE with `reply` */
  *ioasIovaRanges(
    _agent: Agent,
    _request: IoasIovaRangesRequest,
    _process: Process = this.process,
  ): Task<IoasIovaRangesReply> {
    throw missing('ioasIovaRanges');
  }

  /** IOMMU_IOAS_MAP. */
  *ioasMap(_agent: Agent, _request: IoasMapRequestFields, _process: Process = this.process): Task<IoasMapReply> {
    throw missing('ioasMap');
  }

  /** IOMMU_IOAS_MAP_FILE. */
  *ioasMapFile(_agent: Agent, _request: IoasMapFileRequest, _process: Process = this.process): Task<IoasMapReply> {
    throw missing('ioasMapFile');
  }

  /** IOMMU_IOAS_COPY. */
  *ioasCopy(_agent: Agent, _request: IoasCopyRequest, _process: Process = this.process): Task<IoasCopyReply> {
    throw missing('ioasCopy');
  }

  /** IOMMU_IOAS_UNMAP. */
  *ioasUnmap(_agent: Agent, _request: IoasUnmapRequest, _process: Process = this.process): Task<IoasUnmapReply> {
    throw missing('ioasUnmap');
  }

  /** IOMMU_IOAS_CHANGE_PROCESS: from here on `process` pays. */
  *ioasChangeProcess(_agent: Agent, _request: Record<never, never>, _process: Process = this.process): Task<void> {
    throw missing('ioasChangeProcess');
  }

  /** IOMMU_OPTION. */
  *option(_agent: Agent, _request: OptionRequest, _process: Process = this.process): Task<OptionReply> {
    throw missing('option');
  }

  /** IOMMU_VFIO_IOAS. */
  *vfioIoas(_agent: Agent, _request: VfioIoasRequest, _process: Process = this.process): Task<VfioIoasReply> {
    throw missing('vfioIoas');
  }

  /** IOMMU_HWPT_ALLOC. */
  *hwptAlloc(_agent: Agent, _request: HwptAllocRequest, _process: Process = this.process): Task<HwptAllocReply> {
    throw missing('hwptAlloc');
  }

  /** IOMMU_GET_HW_INFO. */
  *getHwInfo(_agent: Agent, _request: GetHwInfoRequest, _process: Process = this.process): Task<GetHwInfoReply> {
    throw missing('getHwInfo');
  }

  /** IOMMU_HWPT_SET_DIRTY_TRACKING. */
  *hwptSetDirtyTracking(
    _agent: Agent,
    _request: HwptSetDirtyTrackingRequest,
    _process: Process = this.process,
  ): Task<void> {
    throw missing('hwptSetDirtyTracking');
  }

  /** IOMMU_HWPT_GET_DIRTY_BITMAP. */
  *hwptGetDirtyBitmap(
    _agent: Agent,
    _request: HwptGetDirtyBitmapRequest,
    _process: Process = this.process,
  ): Task<void> {
    throw missing('hwptGetDirtyBitmap');
  }

  /** IOMMU_HWPT_INVALIDATE. Errors have a `reply` with the entries handled. */
  *hwptInvalidate(
    _agent: Agent,
    _request: HwptInvalidateRequest,
    _process: Process = this.process,
  ): Task<HwptInvalidateReply> {
    throw missing('hwptInvalidate');
  }

  /** IOMMU_FAULT_QUEUE_ALLOC. */
  *faultQueueAlloc(
    _agent: Agent,
    _request: FaultQueueAllocRequest,
    _process: Process = this.process,
  ): Task<FaultQueueAllocReply> {
    throw missing('faultQueueAlloc');
  }

  /** IOMMU_VIOMMU_ALLOC. */
  *viommuAlloc(_agent: Agent, _request: ViommuAllocRequest, _process: Process = this.process): Task<ViommuAllocReply> {
    throw missing('viommuAlloc');
  }

  /** IOMMU_VDEVICE_ALLOC. */
  *vdeviceAlloc(
    _agent: Agent,
    _request: VdeviceAllocRequest,
    _process: Process = this.process,
  ): Task<VdeviceAllocReply> {
    throw missing('vdeviceAlloc');
  }

  /** IOMMU_VEVENTQ_ALLOC. */
  *veventqAlloc(
    _agent: Agent,
    _request: VeventqAllocRequest,
    _process: Process = this.process,
  ): Task<VeventqAllocReply> {
    throw missing('veventqAlloc');
  }

  /** IOMMU_HW_QUEUE_ALLOC. */
  *hwQueueAlloc(_agent: Agent, _request: HwQueueAllocRequest, _process: Process = this.process): Task<never> {
    throw missing('hwQueueAlloc');
  }

  /** IOMMU_IOAS_NOIOMMU_GET_PA. */
  *ioasNoiommuGetPa(_agent: Agent, _request: IoasNoiommuGetPaRequest, _process: Process = this.process): Task<never> {
    throw missing('ioasNoiommuGetPa');
  }

  /** VFIO_DEVICE_BIND_IOMMUFD: the device's id. @throws IommufdError EINVAL (bound already) */
  *bind(_agent: Agent, _device: IommuDevice): Task<number> {
    throw missing('bind');
  }

  /** The end of a binding: detaches, and waits until nobody uses the device. */
  *unbind(_agent: Agent, _devId: number): Task<void> {
    throw missing('unbind');
  }

  /** VFIO_DEVICE_ATTACH_IOMMUFD_PT to an IOAS or HWPT, or from the one it has to another. @returns the HWPT's id */
  *attach(_agent: Agent, _devId: number, _ptId: number): Task<number> {
    throw missing('attach');
  }

  /** VFIO_DEVICE_DETACH_IOMMUFD_PT; of a device that is not attached: nothing. */
  *detach(_agent: Agent, _devId: number): Task<void> {
    throw missing('detach');
  }

  /** close(): every object goes, in any order that the counts allow. Devices are unbound first. */
  *close(_agent: Agent): Task<void> {
    throw missing('close');
  }
}

const missing = (what: string): IommufdError => new IommufdError('ENOTTY', what);
