/**
 * What a fault handler answers: bits of Linux's `vm_fault_t`, with Linux's values. Zero means: done, a minor fault.
 * Only OOM, MAJOR and SIGSEGV come from this package; the others are there for callers that speak Linux's numbers.
 */
export const VmFault = {
  /** No frame, and reclaim freed none. */
  OOM: 0x1,
  /** Bad access to the backing object. */
  SIGBUS: 0x2,
  /** The page had to be read from swap. */
  MAJOR: 0x4,
  HWPOISON: 0x10,
  HWPOISON_LARGE: 0x20,
  /** No VMA covers the page. */
  SIGSEGV: 0x40,
  NOPAGE: 0x100,
  LOCKED: 0x200,
  /** `mmap_lock` was dropped: take it and try again. */
  RETRY: 0x400,
  FALLBACK: 0x800,
  DONE_COW: 0x1000,
  NEEDDSYNC: 0x2000,
  /** Done, and `mmap_lock` was dropped. */
  COMPLETED: 0x4000,
} as const;

/** `VM_FAULT_ERROR`: any of these bits means that the page was not faulted in. */
export const VM_FAULT_ERROR: number =
  VmFault.OOM | VmFault.SIGBUS | VmFault.SIGSEGV | VmFault.HWPOISON | VmFault.HWPOISON_LARGE | VmFault.FALLBACK;
