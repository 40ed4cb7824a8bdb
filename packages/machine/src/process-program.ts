import { parseSize } from '@faultline/address';
import { type AddressSpace, type HostMemory, VM_FAULT_ERROR } from '@faultline/host-mm';
import type { Agent, RandomStream, Task } from '@faultline/sim';
import type { Scenario } from './scenario.ts';
import type { MarkStats } from './stats.ts';

/** What a program runs on. */
export interface ProgramSeat {
  readonly host: HostMemory;
  readonly mm: AddressSpace;
  readonly firstPage: number;
  readonly pages: number;
  readonly random: RandomStream;
  readonly now: () => number;
  readonly stopped: () => boolean;
  /** A page was accessed, for the second model of its content. */
  readonly accessed: (page: number, write: boolean, tagLo: number, tagHi: number) => void;
  readonly failed: () => void;
}

type Program = NonNullable<Scenario['vm']['program']>;

/** Runs a process through its steps, and keeps the figures at the end of each. */
export function* runProgram(agent: Agent, program: Program, seat: ProgramSeat, marks: MarkStats[]): Task<void> {
  const before = seat.host.vmstat();
  for (const step of program) {
    if (seat.stopped()) return;
    if (step.step === 'limit') yield* seat.host.setMemoryMax(agent, seat.mm.memcg, Number(parseSize(step.memoryMax)));
    else yield* touch(agent, step, seat);
    const { residentBytes, anonHugeBytes, swappedBytes } = seat.mm;
    marks.push({
      name: step.mark,
      atNs: seat.now(),
      residentBytes,
      anonHugeBytes,
      swappedBytes,
      vmstat: difference(seat.host.vmstat(), before),
    });
  }
}

function* touch(agent: Agent, step: Exclude<Program[number], { step: 'limit' }>, seat: ProgramSeat): Task<void> {
  const write = step.step === 'fill';
  const atRandom = step.step === 'touch' && step.order === 'random';
  const count = (step.step === 'touch' ? step.pages : undefined) ?? seat.pages;
  for (let i = 0; i < count && !seat.stopped(); i++) {
    const page = seat.firstPage + (atRandom ? seat.random.below(seat.pages) : i % seat.pages);
    // No page of zeros: those are not written to swap.
    const tag = { tagLo: page + 1, tagHi: 1 };
    const bits = yield* seat.mm.cpuAccess(agent, page, { write, ...tag });
    if ((bits & VM_FAULT_ERROR) === 0) seat.accessed(page, write, tag.tagLo, tag.tagHi);
    else seat.failed();
  }
}

const difference = (now: Record<string, number>, before: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(now).map(([name, value]) => [name, value - (before[name] ?? 0)]));
