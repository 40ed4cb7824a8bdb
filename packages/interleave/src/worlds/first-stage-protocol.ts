import { Agent, Cost, Location, runToEnd, type Task } from '@faultline/sim';
import {
  encodeFirstStageLeaf,
  encodeFirstStageTable,
  type FirstStageTable,
  faultReasonText,
  splitFirstStage,
  TableMemory,
  walkFirstStage,
} from '@faultline/vtd-pagetable';
import type { Protocol } from '../protocol.ts';
import type { ExploredSystem, ExploredTask, Violation } from '../system.ts';

const DEVICE = new Agent('device');
const DRIVER = new Agent('driver');
const FRAME = 0x80000;
const PAGE = 5;
/** Another page of the leaf, for which it is split. */
const VICTIM = 9;
const CAPABILITIES = { hostAddressWidth: 46, page1G: true };

/** A device that writes a page through a first stage, and a driver that splits the page's leaf. There are no caches. */
class FirstStageWorld implements ExploredSystem {
  readonly tasks: readonly ExploredTask[];
  readonly #table: FirstStageTable;
  #violation: Violation | null = null;

  constructor(leafLevel: 2 | 3, coherent: boolean, tableBits: bigint | undefined) {
    const memory = new TableMemory({ pages: 8, coherent });
    const rootPfn = memory.allocate();
    this.#table = { memory, rootPfn, levels: 4, capabilities: CAPABILITIES };
    let pfn = rootPfn;
    for (let level = 4; level > leafLevel; level--) {
      const next = memory.allocate();
      memory.store(pfn, 0, encodeFirstStageTable(next));
      memory.flush(pfn, 0);
      pfn = next;
    }
    memory.store(pfn, 0, encodeFirstStageLeaf(leafLevel, FRAME, true));
    memory.flush(pfn, 0);
    this.tasks = [
      { agent: DEVICE, task: this.#dma(DEVICE) },
      { agent: DRIVER, task: splitFirstStage(DRIVER, this.#table, VICTIM, tableBits) },
    ];
  }

  /** {@inheritDoc ExploredSystem.check} */
  check(): Violation | null {
    return this.#violation;
  }

  /** {@inheritDoc ExploredSystem.checkEnd} */
  checkEnd(): Violation | null {
    runToEnd(this.#dma(DEVICE));
    return this.#violation;
  }

  *#dma(agent: Agent): Task<void> {
    const { frame, reason } = yield* walkFirstStage(agent, this.#table, PAGE, true);
    if (frame < 0)
      this.#violation ??= {
        invariant: 'I4',
        message: `DMA to page 0x${PAGE.toString(16)}, which nobody took away: ${faultReasonText(reason)}`,
      };
    else {
      yield agent.writes('write memory', Location.frame, frame, Cost.dmaPayload);
      if (frame !== FRAME + PAGE)
        this.#violation ??= { invariant: 'I1', message: `the device reached frame 0x${frame.toString(16)}` };
    }
  }
}

/**
 * A split of a first-stage leaf: hitless.
 * @param tableBits bits 11:0 of the entry that takes the leaf's place; default the right ones
 */
export const firstStageProtocol = (tableBits?: bigint): Protocol => ({
  name: 'first-stage-split',
  title: 'a first-stage leaf is replaced by a table while a device uses it: hitless',
  configurations: ([2, 3] as const).flatMap((level) =>
    [true, false].map((coherent) => ({
      name: `${level === 2 ? '2M->4K' : '1G->2M'}, ${coherent ? 'coherent' : 'not coherent'}`,
      build: () => new FirstStageWorld(level, coherent, tableBits),
    })),
  ),
});
