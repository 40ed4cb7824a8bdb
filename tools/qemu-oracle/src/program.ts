/** A 4-byte DMA: `r` takes from memory, `w` puts into it. */
export interface DmaRequest {
  /** Bytes, a multiple of 4: a longer or crossing access would be two translations. */
  readonly iova: bigint;
  readonly access: 'r' | 'w';
  /** Requester: bus << 8 | device << 3 | function. */
  readonly sourceId: number;
}

/** One operation of a program, in the order of a driver and its devices. */
export type Operation =
  /** An 8-byte store to memory: a root, context or paging entry. */
  | { readonly kind: 'write'; readonly pa: bigint; readonly value: bigint }
  /** One 128-bit descriptor of the invalidation queue, executed before the next operation. */
  | { readonly kind: 'invalidate'; readonly lo: bigint; readonly hi: bigint }
  /** RTADDR and GCMD.SRTP. */
  | { readonly kind: 'root'; readonly pa: bigint }
  | ({ readonly kind: 'dma' } & DmaRequest)
  /** 32 bits of memory are looked at: what DMA wrote, and where it went. */
  | { readonly kind: 'read'; readonly pa: bigint };

/** What became of a DMA, or what was read. */
export type Answer =
  | {
      readonly kind: 'translated';
      /** First byte of the page that it went to. */
      readonly gpa: bigint;
      /** Size of the page minus 1. */
      readonly mask: bigint;
      /** Answered by the IOTLB. */
      readonly hit: boolean;
      /** The leaf. */
      readonly slpte: bigint;
    }
  | {
      readonly kind: 'fault';
      readonly reason: number;
      readonly type: 'r' | 'w';
      /** The page in the fault record, in bytes. */
      readonly address: bigint;
      /** Requester in the fault record; null where the recording has none. */
      readonly sourceId: number | null;
    }
  /** No translation and no fault record: FPD. */
  | { readonly kind: 'blocked' }
  /** The address went through as it is: TT=10b. */
  | { readonly kind: 'passThrough' }
  /** What memory holds, 32 bits. */
  | { readonly kind: 'data'; readonly value: number };

/** What a unit must be told before a program runs on it, as the first line of a vectors file has it. */
export interface Configuration {
  /** Which QEMU answered, such as `q11` or `7.2.22`. */
  readonly qemu: string;
  readonly seed: string;
  /** Levels of the tables that the program builds; what the unit can do is in `cap`. */
  readonly levels: 3 | 4 | 5;
  /** CAP and ECAP registers. */
  readonly cap: bigint;
  readonly ecap: bigint;
  /** RTADDR. */
  readonly root: bigint;
  /** The context table of bus 0; for readers, the root entry says it. */
  readonly contextTable: bigint;
  /** Requester of every DMA that names none. */
  readonly sourceId: number;
  /** All requesters that there are, as far as is known. */
  readonly requesters: readonly number[];
  /** RAM from address 0 on, in bytes. */
  readonly ramBytes: number;
}

/**
 * Whatever runs programs: QEMU, or the model. Operations take effect in the order of the calls; an answer may come later.
 */
export interface Subject {
  writeWord(pa: bigint, value: bigint): void;
  invalidate(lo: bigint, hi: bigint): void;
  setRoot(pa: bigint): void;
  dma(request: DmaRequest): Answer | Promise<Answer>;
  readMemory(pa: bigint): Answer | Promise<Answer>;
}

/** Gives one operation to a subject. @returns the answer if it has one */
export function perform(subject: Subject, operation: Operation): Answer | Promise<Answer> | null {
  switch (operation.kind) {
    case 'write':
      subject.writeWord(operation.pa, operation.value);
      return null;
    case 'invalidate':
      subject.invalidate(operation.lo, operation.hi);
      return null;
    case 'root':
      subject.setRoot(operation.pa);
      return null;
    case 'dma':
      return subject.dma(operation);
    case 'read':
      return subject.readMemory(operation.pa);
  }
}

/** Whether two answers say the same, in every field that both have. */
export function sameAnswer(a: Answer, b: Answer): boolean {
  if (a.kind === 'translated' && b.kind === 'translated')
    return a.gpa === b.gpa && a.mask === b.mask && a.hit === b.hit && a.slpte === b.slpte;
  if (a.kind === 'fault' && b.kind === 'fault') {
    const sameSource = a.sourceId === null || b.sourceId === null || a.sourceId === b.sourceId;
    return a.reason === b.reason && a.type === b.type && a.address === b.address && sameSource;
  }
  if (a.kind === 'data' && b.kind === 'data') return a.value === b.value;
  return a.kind === b.kind;
}
