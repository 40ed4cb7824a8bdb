import { checkInteger } from '../argument.ts';
import { FRAMES_PER_1G } from '../folio/folio-order.ts';

/** Frames in a row. */
export interface FrameRun {
  readonly firstPfn: number;
  readonly frames: number;
}

/** Where the frames of a host are. */
export interface FrameSpanOptions extends FrameRun {
  /**
   * Frame numbers within the run that are no memory, such as the MMIO hole below 4 GiB: whole aligned GiBs. They do not count as
   * `frames`; what would lie there lies behind the end instead.
   */
  readonly hole?: FrameRun;
}

/** The frame numbers of a host: from the first one on, without the hole. */
export class FrameSpan {
  readonly firstPfn: number;
  /** Number of frames, the hole not counted. */
  readonly frames: number;
  /** One past the last frame number. */
  readonly endPfn: number;
  readonly #hole: FrameRun | null;

  /** @throws RangeError naming the argument that is no whole number, leaves 31 bits, or a hole that is no whole GiBs */
  constructor({ firstPfn, frames, hole }: FrameSpanOptions) {
    checkInteger('firstPfn', firstPfn, 0, 2 ** 31 - 2);
    const reachesHole = hole !== undefined && firstPfn < hole.firstPfn && firstPfn + frames > hole.firstPfn;
    if (reachesHole && (hole.firstPfn % FRAMES_PER_1G !== 0 || hole.frames % FRAMES_PER_1G !== 0))
      throw new RangeError(`hole: frames ${hole.firstPfn} + ${hole.frames} are not whole aligned GiBs`);
    this.#hole = reachesHole ? hole : null;
    const holeFrames = this.#hole?.frames ?? 0;
    checkInteger('frames', frames, 1, 2 ** 31 - 1 - firstPfn - holeFrames);
    this.firstPfn = firstPfn;
    this.frames = frames;
    this.endPfn = firstPfn + frames + holeFrames;
  }

  /** Whether there is such a frame. */
  contains(pfn: number): boolean {
    return pfn >= this.firstPfn && pfn < this.endPfn && !this.isHole(pfn);
  }

  /** Whether a frame number is in the hole. */
  isHole(pfn: number): boolean {
    const hole = this.#hole;
    return hole !== null && pfn >= hole.firstPfn && pfn < hole.firstPfn + hole.frames;
  }
}
