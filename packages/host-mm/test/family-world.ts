import { Agent, runToEnd, type Task } from '@faultline/sim';
import { expect } from 'vitest';
import { type AddressSpace, type Backing, HostMemory, HostMemoryError, VM_FAULT_ERROR } from '../src/index.ts';

/** What one agent does; `space` picks one of the address spaces that live then. */
export interface FamilyOp {
  readonly kind:
    | 'write'
    | 'read'
    | 'fork'
    | 'exit'
    | 'merge'
    | 'pageOut'
    | 'reclaim'
    | 'protect'
    | 'numa'
    | 'softDirty'
    | 'pin'
    | 'collapse'
    | 'migrate';
  readonly space: number;
  readonly page: number;
  readonly other: number;
}

export interface FamilyOptions {
  readonly frames: number;
  readonly swapSlots: number;
  readonly lru: 'classic' | 'mglru';
  readonly splitNotify: 'none' | 'clear';
  readonly backing: Backing;
}

/** One address space and the naive model of it: by page, what may be there. More than one value only where a fork raced with writers. */
interface Member {
  readonly mm: AddressSpace;
  readonly model: Map<number, Set<number>>;
  /** Writes so far, in order, for a fork that runs meanwhile. */
  readonly writes: { readonly page: number; readonly tag: number }[];
  users: number;
}

const START = 512;
const PAGES = 1024;
const MOST_SPACES = 4;

/** Address spaces that fork, share, merge, write and exit, each beside a Map of what it wrote. */
export class FamilyWorld {
  readonly host: HostMemory;
  readonly members: Member[] = [];
  readonly done = { forks: 0, merges: 0, pinsAcrossForks: 0 };
  #tag = 100;
  #names = 0;

  constructor(options: FamilyOptions) {
    this.host = new HostMemory(options);
    this.host.setHugePages('2M', options.backing === 'hugetlb-2M' ? 8 : 0);
    const mm = this.host.createAddressSpace('root');
    mm.mmap({ startPage: START, pages: PAGES, backing: options.backing });
    this.#join(mm, new Map());
  }

  /** Four pages of the first address space become one KSM page, in swap. */
  *mergeAndSwap(agent: Agent): Task<void> {
    const member = this.members[0]!;
    const { mm } = member;
    for (let page = START; page < START + 4; page++) yield* this.#write(agent, member, page, 1);
    for (let page = START + 1; page < START + 4; page++)
      yield* this.host.ksmMerge(agent, { mm, page: START }, { mm, page });
    yield* this.host.reclaim(agent, 1);
    expect(mm.swappedBytes).toBe(4 * 4096);
  }

  *run(agent: Agent, program: readonly FamilyOp[]): Task<void> {
    for (const op of program) {
      const member = this.members[op.space % this.members.length]!;
      if (op.kind === 'exit') yield* this.#exit(agent, member);
      else yield* this.#use(agent, member, op);
    }
  }

  #join(mm: AddressSpace, model: Map<number, Set<number>>): void {
    this.members.push({ mm, model, writes: [], users: 0 });
  }

  *#use(agent: Agent, member: Member, op: FamilyOp): Task<void> {
    member.users++;
    const second = this.members[op.other % this.members.length]!;
    second.users++;
    try {
      yield* this.#do(agent, member, second, op);
    } catch (error) {
      if (!(error instanceof HostMemoryError) || error.code !== 'ENOMEM') throw error;
    } finally {
      member.users--;
      second.users--;
    }
  }

  *#do(agent: Agent, member: Member, second: Member, op: FamilyOp): Task<void> {
    const { mm } = member;
    const page = START + op.page;
    const pages = Math.min(1 + op.other, START + PAGES - page);
    if (op.kind === 'write') yield* this.#write(agent, member, page, op.other);
    else if (op.kind === 'read') yield* mm.cpuAccess(agent, page, { write: false, tagLo: 0, tagHi: 0 });
    else if (op.kind === 'fork') yield* this.#fork(agent, member);
    else if (op.kind === 'merge') yield* this.#merge(agent, member, second, page, op);
    else if (op.kind === 'pageOut') yield* mm.madvise(agent, page, pages, 'PAGEOUT');
    else if (op.kind === 'reclaim') yield* this.host.reclaim(agent, 4 * pages);
    else if (op.kind === 'protect') yield* this.#protect(agent, mm, page, pages, op.space);
    else if (op.kind === 'numa') yield* mm.changeProtNuma(agent, page, pages);
    else if (op.kind === 'softDirty') yield* mm.clearSoftDirty(agent);
    else if (op.kind === 'collapse') yield* mm.collapse(agent, page);
    else if (op.kind === 'migrate') yield* this.#migrate(agent, mm, page);
    else yield* this.#pin(agent, member, page);
    this.check(member, page);
  }

  *#write(agent: Agent, member: Member, page: number, other: number): Task<void> {
    // Mostly the same, so that pages are often equal.
    const tag = other % 4 === 0 ? ++this.#tag : 1;
    const bits = yield* member.mm.cpuAccess(agent, page, { write: true, tagLo: tag, tagHi: 0 });
    if ((bits & VM_FAULT_ERROR) === 0) this.#note(member, page, tag);
  }

  #note(member: Member, page: number, tag: number): void {
    member.model.set(page, new Set([tag]));
    member.writes.push({ page, tag });
  }

  *#fork(agent: Agent, member: Member): Task<void> {
    if (this.members.length >= MOST_SPACES) return;
    const model = new Map([...member.model].map(([page, tags]) => [page, new Set(tags)]));
    const before = member.writes.length;
    const child = yield* member.mm.fork(agent, `child ${++this.#names}`);
    for (const { page, tag } of member.writes.slice(before))
      model.set(page, new Set([...(model.get(page) ?? [0]), tag]));
    this.done.forks++;
    this.#join(child, model);
  }

  *#exit(agent: Agent, member: Member): Task<void> {
    if (this.members.length === 1 || member.users > 0) return;
    this.members.splice(this.members.indexOf(member), 1);
    yield* member.mm.exit(agent);
  }

  *#merge(agent: Agent, one: Member, two: Member, page: number, op: FamilyOp): Task<void> {
    const other = START + (op.other % 4);
    if (yield* this.host.ksmMerge(agent, { mm: one.mm, page }, { mm: two.mm, page: other })) this.done.merges++;
    this.check(two, other);
  }

  *#protect(agent: Agent, mm: AddressSpace, page: number, pages: number, how: number): Task<void> {
    yield* mm.mprotect(agent, page, pages, { readable: how % 2 === 0, writeable: false });
    yield* mm.mprotect(agent, START, PAGES, { readable: true, writeable: true });
  }

  *#migrate(agent: Agent, mm: AddressSpace, page: number): Task<void> {
    const pfn = mm.lookup(page);
    if (pfn >= 0) yield* this.host.migratePage(agent, pfn);
  }

  /** A device writes to the page that it has pinned while others fork, merge and reclaim: the owner's CPU sees it. */
  *#pin(agent: Agent, member: Member, page: number): Task<void> {
    const { mm } = member;
    try {
      yield* mm.pin(agent, page, 1);
    } catch (error) {
      // The page may have been without rights.
      if (error instanceof HostMemoryError && error.code === 'EFAULT') return;
      throw error;
    }
    const [run] = mm.pinnedRuns(page, 1);
    const forks = this.done.forks;
    for (let i = 0; i < 6; i++) yield agent.spends('device at work', 0);
    const tag = ++this.#tag;
    this.host.memory.writeTag(run?.pfn ?? -1, tag, 0);
    this.#note(member, page, tag);
    if (this.done.forks > forks) this.done.pinsAcrossForks++;
    this.check(member, page);
    expect(mm.pinnedRuns(page, 1)).toEqual([run]);
    yield* mm.unpin(agent, page, 1);
  }

  check(member: Member, page: number): void {
    const { tagLo } = member.mm.cpuRead(page);
    expect([...(member.model.get(page) ?? [0])], `${member.mm.name} page ${page}`).toContain(tagLo);
  }

  checkEnd(): void {
    const { host } = this;
    for (const member of this.members) for (const page of member.model.keys()) this.check(member, page);
    expect(host.audit()).toEqual([]);
    for (const { mm } of this.members) {
      expect(mm.pinnedBytes).toBe(0);
      runToEnd(mm.exit(new Agent(`exit of ${mm.name}`)));
    }
    expect(host.audit()).toEqual([]);
    const pool = host.state.hugePages.freeFrames;
    expect([host.allocator.allocatedFrames - pool, host.swap.usedSlots, host.ksm.pagesShared]).toEqual([0, 0, 0]);
  }
}
