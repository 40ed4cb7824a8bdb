import { negativeErrno } from './errno-number.ts';

/**
 * What a system call returns for a failure: the negative errno of the error's `code`.
 * @throws the error itself if that is no errno: then it is a defect of the model
 */
export function errnoOf(error: unknown): number {
  const code = error instanceof Error && 'code' in error ? negativeErrno(String(error.code)) : undefined;
  if (code === undefined) throw error;
  return code;
}
