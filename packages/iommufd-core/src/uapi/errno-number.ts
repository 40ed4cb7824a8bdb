/** Numbers of the errnos that these calls can end with, as Linux has them on x86 (asm-generic/errno-base.h, errno.h). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ESPIPE: 29,
  ERANGE: 34,
  EDEADLK: 35,
  EDEADLOCK: 35,
  EOVERFLOW: 75,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ETIMEDOUT: 110,
  EHWPOISON: 133,
} as const;
/** The name of an errno in {@link ERRNO}. */
export type ErrnoName = keyof typeof ERRNO;

/** The negative number of an errno, as a system call returns it; undefined for a name that is not in {@link ERRNO}. */
export const negativeErrno = (code: string): number | undefined => {
  const number = (ERRNO as Readonly<Record<string, number>>)[code];
  return number === undefined ? undefined : -number;
};

const NAMES = new Map<number, ErrnoName>();
for (const [name, number] of Object.entries(ERRNO)) if (!NAMES.has(number)) NAMES.set(number, name as ErrnoName);

/** The name for what a system call returned: `EINVAL` for -22; null for 0 and more, and for numbers that are not in {@link ERRNO}. */
export const errnoName = (result: number): ErrnoName | null => NAMES.get(-result) ?? null;
