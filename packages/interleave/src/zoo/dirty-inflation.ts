import { Agent, type Task } from '@faultline/sim';
import { type PhysicalWords, unmapByPatch2023 } from '@faultline/vtd-pagetable';
import { DomainWorld, FRAME } from '../worlds/domain-world.ts';
import type { MeasuredDefect, Measurement } from './defect.ts';

const DRIVER = new Agent('driver');
const DEVICE = new Agent('device');
const DEVICE_ID = 1 << 3;
/** The page that the device writes, and the one that is taken away: neighbours. */
const WRITTEN = 5;
const TAKEN = 6;
const ALL_RIGHT = { D1: false, D3: false, D4: false, D5: false, D6: false, D7: false, D8: false, D9: false } as const;

/** Guest memory: without D4 nobody takes it for a table. */
const NOWHERE: PhysicalWords = { contains: () => false, loadWord: () => 0n, storeWord: () => undefined };

/**
 * A device writes one page of a large leaf; the page beside it is unmapped, which splits the leaf; the device writes its page again; then
 * dirty bits are harvested. @returns 4K pages in that report, and the steps until then
 */
function harvested(pages: 512 | 262144, inheritsDirty: boolean): { readonly reported: number; readonly steps: number } {
  const world = new DomainWorld({ accessedDirty: true });
  const { domain } = world;
  world.now(domain.map(DRIVER, { page: 0, frame: FRAME, pages, write: true }));
  const endpoint = world.connect('device', DEVICE_ID, false);
  let steps = 0;
  const run = <T>(task: Task<T>): T => {
    const counted = (function* (): Task<T> {
      for (;;) {
        const next = task.next();
        if (next.done) return next.value;
        steps++;
        yield next.value;
      }
    })();
    return world.now(counted);
  };
  const write = (tag: number) => run(endpoint.dmaPage(DEVICE, 'write', WRITTEN, true, tag, tag));
  write(1);
  const gather = domain.gather();
  const request = { page: TAKEN, pages: 1, defects: { ...ALL_RIGHT, D7: inheritsDirty } };
  run(unmapByPatch2023(DRIVER, domain.table, request, gather, NOWHERE));
  run(domain.flush(DRIVER, gather));
  write(2);
  const ranges = run(domain.readAndClearDirty(DRIVER, 0, pages, true));
  return { reported: ranges.reduce((sum, range) => sum + range.pages, 0), steps };
}

/** Both leaf sizes, with D7 and without. */
function measure(): Measurement {
  const sizes = [
    ['2M', 512],
    ['1G', 262144],
  ] as const;
  let steps = 0;
  const cases = sizes.map(([name, pages]) => {
    const wrong = harvested(pages, true);
    steps += wrong.steps;
    return { name: `${name} leaf`, right: harvested(pages, false).reported, wrong: wrong.reported };
  });
  return { unit: '4K pages reported dirty for one that was written', cases, steps };
}

/** D7 of the posted patch: no order of steps breaks an invariant, since what is reported too much is no page lost. */
export const DIRTY_INFLATION: Omit<MeasuredDefect, 'source'> = {
  id: 'D7',
  title: 'A and D of the old leaf are inherited by all children: dirty inflation',
  text: 'One page of the leaf was written, and after the split all its children say that they were: 512 or 262,144, with the page that is taken, whose bit is reported as it goes. A migration copies them all, and again after each further split. Children that start clean say from then on what is written to them; the old leaf’s dirty bit, which cannot say which page it was, is reported once, whole, when the leaf is split.',
  measure,
};
