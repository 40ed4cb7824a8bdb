const SIZE_UNITS: Readonly<Record<string, bigint>> = {
  B: 1n,
  K: 1n << 10n,
  M: 1n << 20n,
  G: 1n << 30n,
  T: 1n << 40n,
};
const SIZE_SUFFIXES = ['T', 'G', 'M', 'K'] as const;

const DURATION_UNITS_NS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, ms: 1e6, s: 1e9 };

/**
 * Reads a size such as `4K`, `2M`, `1G`, `512B` or `0x1000`: units are powers of 1024.
 * A bare decimal number is refused, since it could mean bytes or pages.
 * @returns bytes
 * @throws RangeError naming the text and what was expected
 */
export function parseSize(text: string): bigint {
  const hexadecimal = /^0x[0-9a-f]+$/i.exec(text);
  if (hexadecimal) return BigInt(text);
  const match = /^(\d+)(B|K|M|G|T)$/.exec(text);
  const unit = match?.[2] === undefined ? undefined : SIZE_UNITS[match[2]];
  if (match?.[1] === undefined || unit === undefined)
    throw new RangeError(`size: "${text}" is not a size; expected a number with a unit (4K, 2M, 1G, 512B) or 0x…`);
  return BigInt(match[1]) * unit;
}

/** Prints bytes with the largest unit that divides them: `1G`, `2052K`, `100B`. Inverse of {@link parseSize}. */
export function formatSize(bytes: bigint): string {
  if (bytes === 0n) return '0B';
  for (const suffix of SIZE_SUFFIXES) {
    const unit = SIZE_UNITS[suffix] ?? 1n;
    if (bytes % unit === 0n) return `${bytes / unit}${suffix}`;
  }
  return `${bytes}B`;
}

/** Prints bytes for reading, with one decimal at most: `15.9 GiB`, `512 KiB`. Not exact. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let index = 0;
  while (Math.abs(value) >= 1024 && index < units.length - 1) {
    value /= 1024;
    index++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[index]}`;
}

/**
 * Reads a duration such as `10us`, `1.5ms` or `2s`.
 * @returns integer nanoseconds
 * @throws RangeError naming the text and what was expected
 */
export function parseDurationNs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ns|us|ms|s)$/.exec(text);
  const unit = match?.[2] === undefined ? undefined : DURATION_UNITS_NS[match[2]];
  if (match?.[1] === undefined || unit === undefined)
    throw new RangeError(`duration: "${text}" is not a duration; expected a number with ns, us, ms or s`);
  const ns = Number(match[1]) * unit;
  if (!Number.isSafeInteger(Math.round(ns))) throw new RangeError(`duration: "${text}" is too long`);
  return Math.round(ns);
}

/** Prints nanoseconds for reading: `850 ns`, `10.5 us`, `1.20 ms`. Not exact. */
export function formatDurationNs(ns: number): string {
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 1e6) return `${Number((ns / 1e3).toPrecision(3))} us`;
  if (ns < 1e9) return `${Number((ns / 1e6).toPrecision(3))} ms`;
  return `${Number((ns / 1e9).toPrecision(4))} s`;
}
