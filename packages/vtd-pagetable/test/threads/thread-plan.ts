/** The page numbers that walkers look at: around the places where the mapper cuts, and elsewhere. */
export const watchedPages: readonly number[] = [
  ...[0, 1, 511, 512, 1023, 1024, 70_001, 70_002, 262_143],
  ...[0, 1, 5, 511, 512, 700, 1023, 131_072, 262_143].map((page) => 262_144 + page),
];

/** First frame, above 4 GiB while the table pages are below it, so that the halves of a leaf and a table entry both differ. */
export const firstFrame = 40 * 262_144;

/** Words of the control buffer. */
export const Control = {
  /** 1: everybody ends. */
  stop: 0,
  /** Where the counts of each walker begin: its walks (odd while one is under way), wrong answers, judged answers. */
  walkers: 8,
  wordsPerWalker: 8,
} as const;

/** A defect on purpose. */
export type Defect = 'none' | 'torn-install' | 'no-wait-before-free';

/** What a thread gets. */
export interface ThreadTask {
  readonly role: 'mapper' | 'walker';
  /** Of a walker: its number. */
  readonly nth: number;
  readonly walkers: number;
  readonly defect: Defect;
  readonly seed: number;
  readonly tablePages: number;
  readonly rootPfn: number;
  readonly memory: SharedArrayBuffer;
  readonly history: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

/** What a thread reports at its end. */
export interface ThreadReport {
  readonly role: 'mapper' | 'walker';
  /** Walks judged, or table changes made. */
  readonly count: number;
  /** Walks that overran the log. */
  readonly unjudged: number;
  /** Mapper: changes by kind. */
  readonly kinds: Readonly<Record<string, number>>;
  /** The first wrong answers, in words. */
  readonly wrong: readonly string[];
}
