import { type Agent, Cost, Location, type Task } from '@faultline/sim';
import { PageTableError } from '@faultline/vtd-pagetable';
import type { AtsEndpoint } from './ats-endpoint.ts';
import { checkWidth } from './bit-field.ts';
import { Register } from './register-offset.ts';
import { VtdDomain, type VtdDomainOptions } from './vtd-domain.ts';
import type { VtdDriver } from './vtd-driver.ts';
import { VtdNestedDomain } from './vtd-nested-domain.ts';

/** Functions that the hardware cannot tell apart (iommu_group). */
export interface VtdGroup {
  readonly devices: readonly VtdFunction[];
  /** Whose DMA they do; null: the host's own. */
  owner: object | null;
}

/** What to allocate a domain with. */
export interface VtdPagingRequest {
  readonly nestParent: boolean;
  readonly dirtyTracking: boolean;
}

/** A domain and its addresses. */
export interface VtdPagingDomain {
  readonly domain: VtdDomain;
  /** First and last IOVA. */
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  readonly minPageSize: number;
  /** Null if it was allocated without. */
  readonly dirty: {
    setTracking(agent: Agent, enabled: boolean): Task<void>;
    readAndClear(
      agent: Agent,
      page: number,
      pages: number,
      clear: boolean,
    ): Task<readonly { readonly page: number; readonly pages: number }[]>;
  } | null;
  /** Frees it; no function is attached any more. */
  destroy(): void;
}

/** Options of a {@link VtdFunction}. */
export interface VtdFunctionOptions {
  readonly driver: VtdDriver;
  /** Requester-id. */
  readonly sourceId: number;
  readonly name?: string;
  /** The function's device TLB, if it has ATS. Default null. */
  readonly endpoint?: AtsEndpoint | null;
  /** Whether it has page requests (PRI). Default: if it has an endpoint. */
  readonly pageRequests?: boolean;
  /** Default false. */
  readonly virtualFunction?: boolean;
  /** Bits of its PASIDs; default 0. */
  readonly maxPasidLog2?: number;
  /** Default: a group of its own. */
  readonly group?: FunctionGroup;
  /** Allow nest parents and first stages as objects, which cannot be attached: no hardware here walks them. Default false. */
  readonly nestedObjects?: boolean;
  /** How domains are made: what does not follow from the request. */
  readonly domain?: Omit<Partial<VtdDomainOptions>, 'driver' | 'domainId' | 'accessedDirty' | 'trackingOff' | 'levels'>;
  /** CAP and ECAP to report instead of the unit's, such as those of a recording. */
  readonly registers?: { readonly cap: bigint; readonly ecap: bigint };
}

/** Interrupt addresses, which no unit translates (3.15): Linux reserves them as `msi`. */
const INTERRUPT_RANGE = { start: 0xfee0_0000n, last: 0xfeef_ffffn, type: 'msi' } as const;

/** IOMMU_HW_INFO_TYPE_INTEL_VTD, and the size of its struct. */
const INTEL_VTD = 1;
const HW_INFO_BYTES = 24;

/** A group to put functions into. */
export class FunctionGroup implements VtdGroup {
  readonly devices: VtdFunction[] = [];
  owner: object | null = null;
}

/**
 * What the driver says of one function, and does with it: the other side of iommufd's `IommuDevice`. Nested translation is not modelled: a nest
 * parent is refused with EOPNOTSUPP, as on a unit without ECAP.NEST, unless `nestedObjects` asks for the objects alone.
 */
export class VtdFunction {
  readonly name: string;
  readonly group: FunctionGroup;
  readonly reservedRegions = [INTERRUPT_RANGE] as const;
  /** struct iommu_hw_info_vtd: flags, reserved, CAP, ECAP. */
  readonly hwInfo: { readonly type: number; readonly data: Uint8Array; readonly maxPasidLog2: number };
  readonly capabilities: {
    readonly dirtyTracking: boolean;
    readonly pageRequests: boolean;
    readonly ats: boolean;
    readonly virtualFunction: boolean;
  };
  readonly sourceId: number;
  readonly #driver: VtdDriver;
  readonly #endpoint: AtsEndpoint | null;
  readonly #domainOptions: VtdFunctionOptions['domain'];
  readonly #nestedObjects: boolean;
  #attached: VtdDomain | null = null;

  /** @throws RangeError for a source-id of more than 16 bits */
  constructor(options: VtdFunctionOptions) {
    const { driver, sourceId, endpoint = null } = options;
    checkWidth('sourceId', sourceId, 16);
    this.#driver = driver;
    this.sourceId = sourceId;
    this.#endpoint = endpoint;
    this.#domainOptions = options.domain;
    this.#nestedObjects = options.nestedObjects ?? false;
    this.name = options.name ?? bdf(sourceId);
    this.group = options.group ?? new FunctionGroup();
    this.group.devices.push(this);
    const { capabilities, registers } = driver.unit;
    const words = options.registers ?? {
      cap: registers.read64(Register.CAP),
      ecap: registers.read64(Register.ECAP),
    };
    const data = new Uint8Array(HW_INFO_BYTES);
    const view = new DataView(data.buffer);
    view.setBigUint64(8, words.cap, true);
    view.setBigUint64(16, words.ecap, true);
    this.hwInfo = { type: INTEL_VTD, data, maxPasidLog2: options.maxPasidLog2 ?? 0 };
    this.capabilities = {
      dirtyTracking: driver.mode === 'scalable' && capabilities.accessedDirty,
      pageRequests: driver.pageRequests !== null && (options.pageRequests ?? endpoint !== null),
      ats: capabilities.deviceTlb && endpoint !== null,
      virtualFunction: options.virtualFunction ?? false,
    };
  }

  /** The unit's identity. */
  get unit(): object {
    return this.#driver.unit;
  }

  /** The domain that it is attached to. */
  get domain(): VtdDomain | null {
    return this.#attached;
  }

  /** A second-stage domain with the most levels that the unit walks. @throws PageTableError EOPNOTSUPP, ENOMEM */
  allocatePaging(request: VtdPagingRequest): VtdPagingDomain {
    if (request.nestParent && !this.#nestedObjects)
      throw new PageTableError('EOPNOTSUPP', `${this.name}: its unit has no nested translation (ECAP.NEST)`);
    const { dirtyTracking } = request;
    if (dirtyTracking && !this.capabilities.dirtyTracking)
      throw new PageTableError('EOPNOTSUPP', `${this.name}: its unit sets no dirty bits (ECAP.SSADS)`);
    const driver = this.#driver;
    const { levels: supported, guestAddressWidth } = driver.unit.capabilities;
    const levels = Math.max(...supported) as 3 | 4 | 5;
    const domainId = driver.takeDomainId();
    const tracking = { accessedDirty: dirtyTracking, trackingOff: true };
    let domain: VtdDomain;
    try {
      domain = new VtdDomain({ ...this.#domainOptions, ...tracking, driver, domainId, levels });
    } catch (error) {
      driver.returnDomainId(domainId);
      throw error;
    }
    const bits = Math.min(guestAddressWidth, 12 + 9 * levels);
    return {
      domain,
      aperture: { start: 0n, last: (1n << BigInt(bits)) - 1n },
      minPageSize: 4096,
      dirty: dirtyTracking
        ? {
            setTracking: (agent, enabled) => domain.setDirtyTracking(agent, enabled),
            readAndClear: (agent, page, pages, clear) => domain.readAndClearDirty(agent, page, pages, clear),
          }
        : null,
      destroy: () => {
        domain.destroy();
        driver.returnDomainId(domainId);
      },
    };
  }

  /** A first stage over a nest parent, as an object. @throws PageTableError EOPNOTSUPP, EINVAL */
  allocateNested(parent: object, request: { readonly dataType: number; readonly data: Uint8Array }): VtdNestedDomain {
    if (!this.#nestedObjects)
      throw new PageTableError('EOPNOTSUPP', `${this.name}: its unit has no nested translation (ECAP.NEST)`);
    if (!(parent instanceof VtdDomain) || parent.driver !== this.#driver)
      throw new PageTableError('EINVAL', `${this.name}: the nest parent is not of its unit`);
    return new VtdNestedDomain(parent, request);
  }

  /**
   * Points the function to a domain, away from the one it had: as in Linux its translation is blocked in between.
   * @throws PageTableError EINVAL for a domain of another unit's driver, or none of VT-d; EOPNOTSUPP for a first stage; ENOMEM for lack
   * of a page for structures
   */
  *attach(agent: Agent, domain: object): Task<void> {
    if (domain instanceof VtdNestedDomain)
      throw new PageTableError('EOPNOTSUPP', `${this.name}: no hardware of this model walks a first stage`);
    if (!(domain instanceof VtdDomain) || domain.driver !== this.#driver)
      throw new PageTableError('EINVAL', `${this.name}: the domain is not of its unit`);
    const old = this.#attached;
    if (old) yield* this.detach(agent);
    yield agent.writes('attach function', Location.device, this.sourceId, Cost.entryWrite);
    try {
      domain.attach(this.sourceId, this.#endpoint);
      this.#attached = domain;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      if (old) old.attach(this.sourceId, this.#endpoint); // its pages were there a moment ago
      this.#attached = old;
      throw new PageTableError('ENOMEM', `${this.name}: ${error.message}`);
    }
  }

  /** Takes the function off its domain. */
  *detach(agent: Agent): Task<void> {
    const domain = this.#attached;
    if (!domain) return;
    this.#attached = null;
    yield* domain.detach(agent, this.sourceId);
  }
}

/** bus:device.function of a requester-id. */
function bdf(sourceId: number): string {
  const digits = (value: number): string => value.toString(16).padStart(2, '0');
  return `${digits(sourceId >> 8)}:${digits((sourceId >> 3) & 0x1f)}.${sourceId & 7}`;
}
