export type { AtsEndpoint, DeviceTlbScope } from './ats-endpoint.ts';
export type { UnitCapabilities } from './capability.ts';
export {
  capabilityRegister,
  DEFAULT_CAPABILITIES,
  extendedCapabilityRegister,
  FAULT_REGISTERS,
  IOTLB_REGISTERS,
  structureCapabilities,
  unitCapabilities,
  versionRegister,
} from './capability.ts';
export type {
  ContextCacheDescriptor,
  Descriptor,
  DeviceTlbDescriptor,
  GranularityCode,
  InterruptEntryCacheDescriptor,
  IotlbDescriptor,
  PageGroupResponseDescriptor,
  PasidCacheDescriptor,
  PasidDeviceTlbDescriptor,
  PasidIotlbDescriptor,
  PasidIotlbGranularityCode,
  ResponseCodeValue,
  WaitDescriptor,
} from './descriptor.ts';
export {
  DescriptorType,
  Granularity,
  PasidIotlbGranularity,
  ResponseCode,
  WHOLE_ADDRESS_SPACE,
} from './descriptor.ts';
export type { DescriptorRules, QueueErrorInfoCode } from './descriptor-encoding.ts';
export { decodeDescriptor, encodeDescriptor, QueueErrorInfo } from './descriptor-encoding.ts';
export type { InterruptSink } from './event-interrupt.ts';
export { EventInterrupt } from './event-interrupt.ts';
export type { CompletionStatusCode } from './fault-completion.ts';
export { CompletionStatus, translationCompletion } from './fault-completion.ts';
export type { AddressTypeCode, FaultRecord } from './fault-recording.ts';
export { AddressType, encodeFaultRecord, FaultRecording, FaultStatus } from './fault-recording.ts';
export { InFlightDma } from './in-flight-dma.ts';
export type { InvalidationExecutor, InvalidationQueueOptions, MessageOutcome } from './invalidation-queue.ts';
export { InvalidationQueue } from './invalidation-queue.ts';
export type { PageRequest } from './page-request.ts';
export { decodePageRequest, encodePageRequest, isStopMarker } from './page-request.ts';
export type { DrainTarget, PageRequestPortOptions } from './page-request-port.ts';
export { PageRequestPort } from './page-request-port.ts';
export type { PageRequestOutcome } from './page-request-queue.ts';
export { PageRequestQueue, PageRequestStatus } from './page-request-queue.ts';
export type { QueuedInvalidationOptions, SubmitOptions } from './queued-invalidation.ts';
export { InvalidationError, QueuedInvalidation } from './queued-invalidation.ts';
export { GlobalCommand, Register } from './register-offset.ts';
export type { RegisterTarget } from './registers.ts';
export { RegisterFile } from './registers.ts';
export type { RemappingUnitOptions } from './remapping-unit.ts';
export { MISS, RemappingUnit } from './remapping-unit.ts';
export type { CachedScalableContext, RequesterContext } from './requester-lookup.ts';
export type { TranslationModeCode } from './translation-mode.ts';
export { TranslationMode } from './translation-mode.ts';
export type { TranslationCompletion } from './translation-request.ts';
export type { VtdDomainOptions } from './vtd-domain.ts';
export { coverLog2, VtdDomain } from './vtd-domain.ts';
export type { AttachTarget, VtdDriverOptions } from './vtd-driver.ts';
export { VtdDriver } from './vtd-driver.ts';
export type { VtdFunctionOptions, VtdGroup, VtdPagingDomain, VtdPagingRequest } from './vtd-function.ts';
export { FunctionGroup, VtdFunction } from './vtd-function.ts';
export type { StageOneInvalidation } from './vtd-nested-domain.ts';
export { VtdNestedDomain } from './vtd-nested-domain.ts';
export type { DmaRequest, TranslationRequest } from './walker.ts';
