export type { DmaFaultReport, DmaPath, MissingPageAction, PathFaultBehaviour } from './dma-path.ts';
export {
  ACCELERATOR_FAULTS,
  canFault,
  DMA_PATHS,
  LEGACY_FAULTS,
  NIC_FAULTS,
  NVME_FAULTS,
  unfaultablePaths,
} from './dma-path.ts';
export type { DmaStatusCode, DmaTarget, EndpointCounters, EndpointOptions } from './endpoint.ts';
export { DEFAULT_DEVICE_TLB, DmaStatus, Endpoint } from './endpoint.ts';
export type { RequestResult, WorkQueueOptions } from './work-queue.ts';
export { WorkQueue } from './work-queue.ts';
