import type { Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';

/** What a lower layer fails with, when it is an errno. */
const errnoOf = (error: unknown): string | null => {
  const code = error instanceof Error ? (error as { code?: unknown }).code : null;
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : null;
};

/** Runs a task of a driver or of the host's mm; its errno comes out as an IommufdError. Anything else, a broken invariant, goes through as it is. */
export function* reported<T>(task: Task<T>): Task<T> {
  try {
    return yield* task;
  } catch (error) {
    throw asIommufdError(error);
  }
}

/** The same for a plain call. */
export function asIommufdError(error: unknown): unknown {
  if (error instanceof IommufdError) return error;
  const code = errnoOf(error);
  return code === null ? error : new IommufdError(code, (error as Error).message.replace(`${code}: `, ''));
}
