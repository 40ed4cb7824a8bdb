import { IommufdError } from '../errno.ts';
import type { Process } from '../process.ts';

/**
 * Against what pins are counted: `user` the user's locked_vm against the mapper's RLIMIT_MEMLOCK, `mm` the mm's locked_vm (RLIMIT_MODE 1; CAP_IPC_LOCK is exempt),
 * `none` nothing (the mapper had CAP_IPC_LOCK when the pages were set up).
 */
export type AccountMode = 'user' | 'mm' | 'none';

/**
 * Charges pins to a process; gives them back with a negative number.
 * @throws IommufdError ENOMEM over the limit, with nothing charged
 */
export function chargePins(process: Process, mode: AccountMode, pages: number): void {
  const { user, memlockBytes } = process;
  const limitPages = Number(memlockBytes >> 12n);
  if (mode === 'user') {
    if (pages > 0 && user.lockedPages + pages > limitPages) throw overLimit(user.lockedPages, pages, memlockBytes);
    user.lockedPages += pages;
  } else if (mode === 'mm') {
    const isExempt = process.capabilities.has('CAP_IPC_LOCK');
    if (pages > 0 && !isExempt && process.lockedPages + pages > limitPages)
      throw overLimit(process.lockedPages, pages, memlockBytes);
    process.lockedPages += pages;
  }
  process.pinnedPages += pages;
}

const overLimit = (locked: number, pages: number, limit: bigint): IommufdError =>
  new IommufdError(
    'ENOMEM',
    `pin: 0x${(pages * 4096).toString(16)} bytes on top of 0x${(locked * 4096).toString(16)} locked exceed RLIMIT_MEMLOCK 0x${limit.toString(16)}`,
  );
