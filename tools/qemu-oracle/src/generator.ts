import { RandomStream } from '@faultline/sim';
import { contextOperation, rootOperation } from './context-generator.ts';
import { invalidateAll, randomInvalidation } from './invalidation-generator.ts';
import { PagingProgram } from './paging-generator.ts';
import type { Operation } from './program.ts';
import { ProgramWorld } from './program-world.ts';

/** What a random program is made from; the same options give the same program. */
export interface ProgramOptions {
  readonly seed: number;
  /** Number of the program in its run. */
  readonly index: number;
  readonly levels: 3 | 4;
  readonly operations: number;
}

/** Every so many programs, one fills the IOTLB beyond its capacity. */
const SWEEP_EVERY = 8;

/**
 * A random program: tables, contexts and roots that are right for most of the time, changes of all of them, invalidations
 * that fit or do not, and DMA of every requester in between.
 */
export function randomProgram(options: ProgramOptions): Operation[] {
  const { seed, index, levels } = options;
  const random = new RandomStream(seed, `program ${index} of ${levels} levels`);
  const world = new ProgramWorld(random, levels);
  const paging = new PagingProgram(world);
  world.writeContexts();
  world.writeData();
  for (const domain of world.domains) paging.populate(domain);
  invalidateAll(world);
  if (index % SWEEP_EVERY === SWEEP_EVERY - 1) paging.sweep();
  while (world.operations.length < options.operations) {
    const dice = random.below(1000);
    if (dice < 640) world.dma();
    else if (dice < 780) paging.change();
    else if (dice < 830) paging.splitOrCollapse();
    else if (dice < 950) randomInvalidation(world);
    else if (dice < 990) contextOperation(world);
    else rootOperation(world);
    world.repairIfDue();
  }
  return world.operations.slice(0, options.operations);
}
