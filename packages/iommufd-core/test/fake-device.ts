import { type Agent, Cost, type Task } from '@faultline/sim';
import type { VtdFunction } from '@faultline/vtd-remapping';
import type {
  InvalidateRequest,
  IommuDevice,
  IommuDomain,
  IommuGroup,
  NestedDomain,
  PagingDomain,
  PagingDomainRequest,
  ReservedRegion,
  ViommuDriver,
} from '../src/index.ts';

/** An errno as a driver throws it. */
export class DriverError extends Error {
  readonly code: string;

  constructor(code: string) {
    super(`${code}: refused by the fake driver`);
    this.code = code;
  }
}

/** A first stage that takes entries of 16 bytes; one that starts with 0xff is refused with EIO. */
export class FakeNested implements NestedDomain {
  destroyed = false;
  readonly taken: number[] = [];

  *invalidate(
    agent: Agent,
    { entryLen, entryNum, data }: InvalidateRequest,
  ): Task<{ done: number; error: string | null }> {
    yield agent.spends('invalidate', Cost.free);
    if (entryLen !== 16) return { done: 0, error: 'EINVAL' };
    for (let done = 0; done < entryNum; done++) {
      const first = data[done * entryLen] as number;
      if (first === 0xff) return { done, error: 'EIO' };
      this.taken.push(first);
    }
    return { done: entryNum, error: null };
  }

  destroy(): void {
    this.destroyed = true;
  }
}

/**
 * A device of a driver that has what VT-d's model has not: nest parents, first stages, virtual IOMMUs; and one that fails where a test asks it to.
 * Paging domains are the real ones of a VT-d function behind it.
 */
export class FakeDevice implements IommuDevice {
  readonly name: string;
  readonly group: { devices: IommuDevice[]; owner: object | null };
  readonly unit: object;
  readonly reservedRegions: readonly ReservedRegion[];
  readonly hwInfo = { type: 2, data: new Uint8Array(40), maxPasidLog2: 5 };
  readonly capabilities;
  readonly viommu: ViommuDriver = { type: 1 };
  /** What it is attached to, and every attach and detach, in order. */
  attached: object | null = null;
  readonly log: string[] = [];
  /** Errnos that the next attaches give; empty: none. */
  readonly attachFails: string[] = [];
  readonly nested: FakeNested[] = [];
  readonly #vtd: VtdFunction;

  constructor(
    vtd: VtdFunction,
    options: {
      readonly unit?: object;
      readonly group?: IommuGroup;
      readonly reserved?: readonly ReservedRegion[];
      readonly capabilities?: Partial<IommuDevice['capabilities']>;
    } = {},
  ) {
    this.#vtd = vtd;
    this.name = `fake ${vtd.name}`;
    this.unit = options.unit ?? vtd.unit;
    this.group = (options.group as FakeDevice['group'] | undefined) ?? { devices: [], owner: null };
    this.group.devices.push(this);
    this.reservedRegions = options.reserved ?? [];
    this.capabilities = {
      dirtyTracking: false,
      pageRequests: true,
      ats: true,
      virtualFunction: false,
      ...options.capabilities,
    };
  }

  allocatePaging(request: PagingDomainRequest): PagingDomain {
    return this.#vtd.allocatePaging({ ...request, nestParent: false });
  }

  allocateNested(_parent: IommuDomain, { data }: { readonly data: Uint8Array }): NestedDomain {
    if (data[0] === 0xff) throw new DriverError('EINVAL');
    const nested = new FakeNested();
    this.nested.push(nested);
    return nested;
  }

  *attach(agent: Agent, domain: IommuDomain | NestedDomain): Task<void> {
    yield agent.spends('attach', Cost.lock);
    const errno = this.attachFails.shift();
    if (errno) throw new DriverError(errno);
    this.attached = domain;
    this.log.push('attach');
  }

  *detach(agent: Agent): Task<void> {
    yield agent.spends('detach', Cost.lock);
    this.attached = null;
    this.log.push('detach');
  }
}
