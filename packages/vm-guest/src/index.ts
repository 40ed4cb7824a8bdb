export type { BalloonOptions } from './balloon.ts';
export { runBalloon } from './balloon.ts';
export type { GuestCpuPort } from './boot.ts';
export { bootGuest } from './boot.ts';
export type { GuestRegion } from './guest-layout.ts';
export { GuestLayout } from './guest-layout.ts';
export { GuestPageAllocator } from './page-allocator.ts';
export type {
  AcceleratorOptions,
  CpuTouchOptions,
  DiskReadOptions,
  NetworkReceiveOptions,
  WorkloadContext,
} from './workload.ts';
export { cpuTouches, networkReceive, randomAcceleratorDma, sequentialDiskReads } from './workload.ts';
