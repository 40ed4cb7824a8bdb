import { WalkState } from '@faultline/vtd-pagetable';
import type { RequesterContext } from './requester-lookup.ts';

/** One walker of a unit: the walk's registers, and whose walk it is. Reused from request to request. */
export class Walker extends WalkState {
  /** Known once the structures were read, and the walk may begin. */
  context: RequesterContext | null = null;
  /** An FPD bit met on the way. */
  faultDisable = false;
}

/** A DMA that the IOTLB did not answer. */
export interface DmaRequest {
  readonly sourceId: number;
  /** Address as two signed 32-bit halves. */
  readonly iovaHi: number;
  readonly iovaLo: number;
  /** 0 read, 1 write, 2 atomic, 3 zero-length read: a `WalkAccess` of vtd-pagetable, but `anything`, which no DMA asks for. */
  readonly access: number;
  /** PASID, 20 bits; absent for a request without one. */
  readonly pasid?: number;
}

/** An ATS translation request. */
export interface TranslationRequest {
  readonly sourceId: number;
  readonly iovaHi: number;
  readonly iovaLo: number;
  /** NW: the device promises not to write. */
  readonly noWrite: boolean;
  readonly pasid?: number;
}
