import { hex } from '@faultline/address';
import { entryName } from './entry.ts';

/** A failure that the modelled driver reports, with the kernel's errno. */
export class PageTableError extends Error {
  /** The errno's name: `EADDRINUSE`, `EINVAL`, `ERANGE`, `EOVERFLOW`, `ENXIO`, `ENOMEM`, `EOPNOTSUPP`; `EIO` for a corrupt table. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${code}: ${message}`);
    this.code = code;
  }
}

/** Where an entry is and what is in it. */
export interface CorruptEntry {
  readonly level: number;
  readonly tablePfn: number;
  readonly index: number;
  readonly entry: bigint;
}

/** The error for an entry that this package's operations cannot have written. */
export function corruptEntry(where: CorruptEntry, why: string): PageTableError {
  const { level, tablePfn, index, entry } = where;
  return new PageTableError(
    'EIO',
    `corrupt ${entryName(level)} ${hex(entry)} at ${hex(tablePfn * 4096 + index * 8)} (table ${hex(tablePfn * 4096)}, index ${index}): ${why}`,
  );
}
