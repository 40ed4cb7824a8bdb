/** What a call did on the model, in the words of the log. */
export interface CallOutcome {
  /** `0` or an errno's name. */
  readonly result: string;
  /** Out-fields by the log's names. */
  readonly out: Readonly<Record<string, string>>;
  /** Of IOVA_RANGES: `[0-fedfffff] [fef00000-ffffffffffff]`. */
  readonly ranges?: string;
}

/** A call of which nothing but its result is known. */
export const resultOnly = (result: string): CallOutcome => ({ result, out: {} });

/** A number as the log writes addresses. */
export const hexText = (value: number | bigint): string => value.toString(16);

/** Ranges as the log writes them. */
export const rangesText = (ranges: readonly { readonly start: bigint; readonly last: bigint }[]): string =>
  ranges.map(({ start, last }) => `[${hexText(start)}-${hexText(last)}]`).join(' ');
