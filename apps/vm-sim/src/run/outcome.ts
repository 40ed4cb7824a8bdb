import type { StatsDocument } from '@faultline/machine';
import { EXIT, type ExitCode } from '../exit-code.ts';

/** How a run is judged: the exit code, and a sentence where it is not simply the verdict. */
export interface Outcome {
  readonly code: ExitCode;
  /** `HELD`, `HOST CRASHED`, ... */
  readonly headline: string;
  readonly good: boolean;
  /** What explains the judgement. */
  readonly remark: string;
}

/** Judges a finished run against what its scenario expects. */
export function outcomeOf(stats: StatsDocument): Outcome {
  const failed = stats.thresholds.filter(({ ok }) => !ok).length;
  if (stats.interrupted) {
    const headline = stats.verdict === 'invariant-violated' ? 'INTERRUPTED, VIOLATED' : 'INTERRUPTED';
    return { code: EXIT.interrupted, headline, good: false, remark: 'the numbers are of what ran until then' };
  }
  if (stats.verdict === 'invariant-violated') {
    const broken = stats.invariants.filter(({ violations }) => violations > 0).map(({ id }) => id);
    const remark = broken.length > 0 ? `violated: ${broken.join(', ')}` : '';
    return { code: EXIT.failed, headline: 'VIOLATED', good: false, remark };
  }
  if (stats.verdict === 'host-crashed') {
    if (stats.expect !== 'host-crashed')
      return {
        code: EXIT.failed,
        headline: 'HOST CRASHED',
        good: false,
        remark: 'which this scenario does not expect',
      };
    return failed > 0
      ? thresholdsFailed('HOST CRASHED', failed)
      : { code: EXIT.ok, headline: 'HOST CRASHED', good: true, remark: 'as this scenario expects' };
  }
  if (stats.expect === 'host-crashed') {
    const remark = 'this scenario expects the host to crash, and it did not';
    return { code: EXIT.failed, headline: 'NO CRASH', good: false, remark };
  }
  if (failed > 0) return thresholdsFailed('HELD', failed);
  return { code: EXIT.ok, headline: 'HELD', good: true, remark: '' };
}

function thresholdsFailed(headline: string, failed: number): Outcome {
  const remark = `but ${failed} threshold${failed === 1 ? '' : 's'} failed`;
  return { code: EXIT.threshold, headline, good: false, remark };
}
