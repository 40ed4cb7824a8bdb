import { Access, type Agent, ANY_LOCATION, Location, type Step, type Task } from '@faultline/sim';
import { SS_FLUSHED, TableMemory, type TableMemoryOptions } from '../src/index.ts';
import { ADDRESS } from './naive-table.ts';

/** One touch of a word of a table that hardware can reach. */
interface Touch {
  readonly location: number;
  readonly change: boolean;
  readonly flush: boolean;
}

/** A step as it was announced, with what it then did. */
export interface WatchedStep {
  readonly label: string;
  readonly access: number;
  readonly kind: number;
  readonly location: number;
  readonly units: number;
  /** Words of published tables that it changed. */
  readonly changed: ReadonlySet<number>;
  /** Words of published tables that it read, changed, compared or flushed. */
  readonly touched: ReadonlySet<number>;
  /** Words of published tables that it wrote back to memory. */
  readonly flushed: ReadonlySet<number>;
  /** Whether the operation ended with an error, such as for a page in use. */
  readonly refused: boolean;
}

/** Table memory that notes which words are touched, through whole entries and through halves. */
export class WatchedMemory extends TableMemory {
  #touches: Touch[] | null = null;

  constructor(options: TableMemoryOptions) {
    super(options);
    const watched = (words: Int32Array | Float64Array, perWord: number) =>
      new Proxy(words, {
        get: (target, key) => {
          this.#note(key, perWord, false);
          return Reflect.get(target, key, target);
        },
        set: (target, key, value) => {
          this.#note(key, perWord, true);
          return Reflect.set(target, key, value, target);
        },
      });
    Object.defineProperty(this, 'cpuHalves', { value: watched(this.cpuHalves, 2) });
    Object.defineProperty(this, 'cpuDoubles', { value: watched(this.cpuDoubles, 1) });
  }

  #note(key: string | symbol, perWord: number, change: boolean): void {
    if (this.#touches === null || typeof key === 'symbol' || !/^\d+$/.test(key)) return;
    this.#touches.push({ location: this.basePfn * 512 + Math.floor(Number(key) / perWord), change, flush: false });
  }

  override load(pfn: number, index: number): bigint {
    this.#touches?.push({ location: this.location(pfn, index), change: false, flush: false });
    return super.load(pfn, index);
  }

  override store(pfn: number, index: number, entry: bigint): void {
    const change = super.load(pfn, index) !== entry;
    this.#touches?.push({ location: this.location(pfn, index), change, flush: false });
    super.store(pfn, index, entry);
  }

  override compareExchange(pfn: number, index: number, expected: bigint, replacement: bigint): bigint {
    const seen = super.compareExchange(pfn, index, expected, replacement);
    const change = seen === expected && expected !== replacement;
    this.#touches?.push({ location: this.location(pfn, index), change, flush: false });
    return seen;
  }

  override flush(pfn: number, index: number, count = 1): void {
    for (let nth = 0; nth < count; nth++)
      this.#touches?.push({ location: this.location(pfn, index + nth), change: false, flush: true });
    super.flush(pfn, index, count);
  }

  /** The words of all tables that a root leads to, as frames. */
  published(rootPfn: number, levels: number): Set<number> {
    const frames = new Set<number>();
    const visit = (pfn: number, level: number): void => {
      if (frames.has(pfn) || !this.isAllocated(pfn)) return;
      frames.add(pfn);
      for (let index = 0; level > 1 && index < 512; index++) {
        const entry = super.load(pfn, index);
        if ((entry & 3n) !== 0n && (level > 3 || (entry & 0x80n) === 0n))
          visit(Number((entry & ADDRESS) >> 12n), level - 1);
      }
    };
    visit(rootPfn, levels);
    return frames;
  }

  /** Words of a root's tables that hardware does not find as the CPU wrote them, but for the mark of what is flushed. */
  unflushed(rootPfn: number, levels: number): string[] {
    const found: string[] = [];
    for (const pfn of this.published(rootPfn, levels))
      for (let index = 0; index < 512; index++)
        if ((super.load(pfn, index) | SS_FLUSHED) !== (this.hardwareLoad(pfn, index) | SS_FLUSHED))
          found.push(`${pfn.toString(16)}.${index}`);
    return found;
  }

  /** Runs a task to its end. @returns its steps with what each did, and what it threw, or null */
  watch(agent: Agent, task: Task<unknown>, root: { rootPfn: number; levels: number }) {
    const steps: WatchedStep[] = [];
    for (let announced: Step | null = null; ; announced = agent.step) {
      const published = this.published(root.rootPfn, root.levels);
      const copy = announced && { ...announced };
      this.#touches = [];
      let done: boolean | undefined = true;
      let thrown: unknown = null;
      try {
        ({ done } = task.next());
      } catch (error) {
        thrown = error;
      }
      const touches = this.#touches.filter(({ location }) => published.has(Math.floor(location / 512)));
      this.#touches = null;
      const words = (which: readonly Touch[]) => new Set(which.map(({ location }) => location));
      const [touched, changed] = [words(touches), words(touches.filter(({ change }) => change))];
      const flushed = words(touches.filter(({ flush }) => flush));
      if (copy) steps.push({ ...copy, touched, changed, flushed, refused: false });
      else if (changed.size > 0) throw new Error('words changed before the first step');
      if (done && this.coherent && steps.some(({ label }) => label.startsWith('flush')))
        throw new Error('flushes what hardware sees anyway');
      if (done) return { steps: steps.map((step) => ({ ...step, refused: thrown !== null })), thrown };
    }
  }
}

/** What is wrong with a step's announcement; null if it keeps the laws. */
export function unlawful(step: WatchedStep): string | null {
  const covers = (location: number) =>
    step.kind === Location.entry && (step.location === ANY_LOCATION || step.location === location);
  for (const location of step.changed)
    if (step.access !== Access.write || !covers(location))
      return `${step.label}: changes word ${location.toString(16)} and announces ${step.access} of ${step.location.toString(16)}`;
  if (step.kind === Location.entry && step.location !== ANY_LOCATION && !step.touched.has(step.location))
    return `${step.label}: announces ${step.location.toString(16)} and does not touch it`;
  if (!Number.isInteger(step.units)) return `${step.label}: costs ${step.units} units`;
  return imprecise(step);
}

/** Steps that act on `units` entries side by side: on one they name it, so that others who act beside it are no conflict. */
const RUNS = ['read entry', 'clear leaf', 'install leaf', 'change rights', 'read dirty', 'read and clear dirty'];

function imprecise({ label, access, location, units, changed, flushed, refused }: WatchedStep): string | null {
  const named = location !== ANY_LOCATION;
  if (RUNS.includes(label) && (units === 1) !== named) return `${label}: ${units} entries, one of them named: ${named}`;
  // Nobody else acts here, so all goes as announced.
  if ((label === 'clear leaf' || label === 'install leaf') && changed.size !== units && !refused)
    return `${label}: pays for ${units} entries and changes ${changed.size}`;
  if (label.startsWith('read') && !label.includes('clear') && access !== Access.read) return `${label}: writes`;
  if (label !== 'flush entries') return null;
  const lines = new Set([...flushed].map((word) => Math.floor(word / 8))).size;
  if (lines !== units || (flushed.size === 1) !== named)
    return `${label}: pays for ${units} lines and flushes ${lines}, one entry named: ${named}`;
  return null;
}
