import { type Agent, Cost, type Task } from '@faultline/sim';
import type { ViommuDriver } from '../iommu-device.ts';
import type { DeviceObject } from './device-object.ts';
import type { HwptObject } from './hwpt-object.ts';
import { IommufdObject } from './object-table.ts';
import type { VeventqObject } from './veventq-object.ts';

/** A VIOMMU object: a slice of one unit for a virtual machine, over a nest parent. */
export class ViommuObject extends IommufdObject {
  readonly type = 'VIOMMU';
  readonly hwpt: HwptObject;
  readonly unit: object;
  readonly driver: ViommuDriver;
  /** Devices by their id in the guest. */
  readonly vdevices = new Map<bigint, VdeviceObject>();
  /** Event queues by type. */
  readonly queues = new Map<number, VeventqObject>();

  constructor(options: { readonly hwpt: HwptObject; readonly unit: object; readonly driver: ViommuDriver }) {
    super();
    this.hwpt = options.hwpt;
    this.unit = options.unit;
    this.driver = options.driver;
    this.hwpt.users++;
  }

  *destroy(agent: Agent): Task<void> {
    yield agent.spends('destroy viommu', Cost.free);
    this.hwpt.users--;
  }
}

/** A VDEVICE object: a device as a VIOMMU's guest knows it. */
export class VdeviceObject extends IommufdObject {
  readonly type = 'VDEVICE';
  readonly viommu: ViommuObject;
  readonly device: DeviceObject;
  readonly virtId: bigint;

  constructor(options: { readonly viommu: ViommuObject; readonly device: DeviceObject; readonly virtId: bigint }) {
    super();
    this.viommu = options.viommu;
    this.device = options.device;
    this.virtId = options.virtId;
    this.viommu.users++;
    this.viommu.vdevices.set(this.virtId, this);
    this.device.vdevice = this;
  }

  *destroy(agent: Agent): Task<void> {
    yield agent.spends('destroy vdevice', Cost.free);
    this.viommu.vdevices.delete(this.virtId);
    this.viommu.users--;
    this.device.vdevice = null;
  }
}
