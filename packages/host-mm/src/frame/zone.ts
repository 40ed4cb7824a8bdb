import { Condition } from '@faultline/sim';

/** Free frames at which reclaim begins and ends; see {@link linuxWatermarks}. */
export interface Watermarks {
  /** Below it an allocation reclaims itself. */
  readonly min: number;
  /** Below it kswapd is woken. */
  readonly low: number;
  /** Up to it kswapd reclaims. */
  readonly high: number;
}

/** No watermarks: an allocation reclaims when no frame is free at all. */
export const NO_WATERMARKS: Watermarks = { min: 0, low: 0, high: 0 };

const KILOBYTES_PER_FRAME = 4;

/**
 * What Linux computes at boot for one zone of that many frames: min_free_kbytes = 4 * sqrt(kilobytes), within 128 KiB and
 * 256 MiB; low and high each a step of max(min / 4, frames * watermark_scale_factor / 10000) above the one before.
 * @param scaleFactor vm.watermark_scale_factor, 10 by default
 */
export function linuxWatermarks(frames: number, scaleFactor = 10): Watermarks {
  const kilobytes = frames * KILOBYTES_PER_FRAME;
  const minKilobytes = Math.min(262_144, Math.max(128, Math.floor(Math.sqrt(kilobytes * 16))));
  const min = Math.floor(minKilobytes / KILOBYTES_PER_FRAME);
  const step = Math.max(Math.floor(min / 4), Math.floor((frames * scaleFactor) / 10_000));
  return { min, low: min + step, high: min + 2 * step };
}

/** The memory zone: its watermarks and whether kswapd has been asked to work. */
export class Zone {
  readonly watermarks: Watermarks;
  /** Somebody found less than `low` free since kswapd last went to sleep. */
  kswapdWanted = false;
  readonly kswapdWait = new Condition('kswapd_wait', () => this.kswapdWanted);

  constructor(watermarks: Watermarks) {
    this.watermarks = watermarks;
  }

  /** Asks kswapd to work (wakeup_kswapd). */
  wakeKswapd(): void {
    if (this.kswapdWanted) return;
    this.kswapdWanted = true;
    this.kswapdWait.wake();
  }
}
