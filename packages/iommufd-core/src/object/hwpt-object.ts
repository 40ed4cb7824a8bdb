import { type Agent, Cost, Mutex, type Task } from '@faultline/sim';
import type { Ioas } from '../ioas/ioas.ts';
import type { NestedDomain, PagingDomain } from '../iommu-device.ts';
import type { IommuDomain } from '../iommu-domain.ts';
import type { HwptPaging } from '../stage2/hwpt-paging.ts';
import type { FaultObject } from './fault-object.ts';
import { IommufdObject } from './object-table.ts';
import type { ViommuObject } from './viommu-object.ts';

/** An IOAS object. */
export class IoasObject extends IommufdObject {
  readonly type = 'IOAS';
  readonly ioas: Ioas;
  /** ioas->mutex: one HWPT is made, or chosen for a device, at a time. */
  readonly mutex = new Mutex('ioas mutex');
  /** hwpt_list, in the order in which they were made. */
  readonly hwpts: HwptObject[] = [];

  constructor(ioas: Ioas) {
    super();
    this.ioas = ioas;
  }

  destroy(agent: Agent): Task<void> {
    return this.ioas.destroy(agent);
  }
}

/** A HWPT_PAGING object: a domain with all areas of an IOAS in it. */
export class HwptObject extends IommufdObject {
  readonly type = 'HWPT_PAGING';
  readonly ioas: IoasObject;
  readonly paging: PagingDomain;
  readonly nestParent: boolean;
  /** Made because a device was attached to an IOAS id: goes with its last device. */
  autoDomain = false;
  /** Where page requests go, if user space answers them. */
  fault: FaultObject | null = null;
  /** Once the IOAS's areas are in the domain. */
  hwpt: HwptPaging | null = null;

  constructor(options: { readonly ioas: IoasObject; readonly paging: PagingDomain; readonly nestParent: boolean }) {
    super();
    this.ioas = options.ioas;
    this.paging = options.paging;
    this.nestParent = options.nestParent;
    this.ioas.users++;
    this.ioas.hwpts.push(this);
  }

  /** What a driver attaches a device to. */
  get domain(): IommuDomain {
    return this.paging.domain;
  }

  *destroy(agent: Agent): Task<void> {
    const { hwpts, ioas } = this.ioas;
    hwpts.splice(hwpts.indexOf(this), 1);
    if (this.hwpt) yield* ioas.iopt.removeDomain(agent, this.hwpt);
    this.paging.destroy();
    if (this.fault) this.fault.users--;
    this.ioas.users--;
  }
}

/** A HWPT_NESTED object: a driver's first stage over a nest parent, or through a VIOMMU. */
export class HwptNestedObject extends IommufdObject {
  readonly type = 'HWPT_NESTED';
  readonly parent: HwptObject;
  readonly nested: NestedDomain;
  fault: FaultObject | null = null;
  readonly #holds: IommufdObject;

  constructor(options: {
    readonly parent: HwptObject;
    readonly nested: NestedDomain;
    readonly viommu: ViommuObject | null;
  }) {
    super();
    this.parent = options.parent;
    this.nested = options.nested;
    this.#holds = options.viommu ?? options.parent;
    this.#holds.users++;
  }

  /** What a driver attaches a device to. */
  get domain(): NestedDomain {
    return this.nested;
  }

  *destroy(agent: Agent): Task<void> {
    yield agent.spends('destroy nested hwpt', Cost.free);
    this.nested.destroy();
    if (this.fault) this.fault.users--;
    this.#holds.users--;
  }
}

/** What a device can be attached to. */
export type AnyHwpt = HwptObject | HwptNestedObject;

/** The paging HWPT that holds the IOVAs of one: itself, or its parent. */
export const pagingOf = (hwpt: AnyHwpt): HwptObject => (hwpt.type === 'HWPT_PAGING' ? hwpt : hwpt.parent);
