import { faultCondition, faultReasonText } from '../fault-reason.ts';

/** A request that an entry stops, and how. */
export interface FaultAccount {
  /** Which requests, such as `read`, `any request`, `translation request`. */
  readonly request: string;
  /** Legacy or scalable mode; the same paging entry is used in both, with other numbers. */
  readonly mode: 'legacy' | 'scalable';
  readonly reason: number;
  /** The reason in words, with its number. */
  readonly text: string;
  /** Condition of table 30, such as `LSS.2`. */
  readonly condition: string;
  /** Whether an FPD bit suppresses the report. */
  readonly qualified: boolean;
}

/** What an entry is good for. */
export interface Verdict {
  /** Whether hardware goes on with it. */
  readonly present: boolean;
  /** A leaf maps a page, a table leads to the next table, a structure is neither; absent is not present. */
  readonly shape: 'leaf' | 'table' | 'structure' | 'absent';
  /** One line. */
  readonly summary: string;
  /** What is odd about it though no reserved bit says so. */
  readonly notes: readonly string[];
  /** Requests that fault at this entry, if those above it let them through. */
  readonly faults: readonly FaultAccount[];
  /** Host address that it leads to, or null. */
  readonly address: bigint | null;
  /** Bytes of the page that it maps; 0 if it is no leaf. */
  readonly bytes: bigint;
}

/** A {@link FaultAccount} of a reason. */
export function faultAccount(request: string, mode: FaultAccount['mode'], reason: number): FaultAccount {
  const { code = '', qualified = false } = faultCondition(reason) ?? {};
  return { request, mode, reason, text: faultReasonText(reason), condition: code, qualified };
}

/** An address in hex. */
export const hexAddress = (value: bigint): string => `0x${value.toString(16)}`;

/** The address of a frame in hex. */
export const frameAddress = (pfn: number): string => hexAddress(BigInt(pfn) << 12n);
