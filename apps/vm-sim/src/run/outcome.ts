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
  const found = verdictOf(stats);
  if (found.verdict === stats.expect) {
    if (failed > 0) return thresholdsFailed(found.headline, failed);
    const remark = [found.remark, stats.expect === 'ok' ? '' : 'as this scenario expects'].filter(
      (part) => part !== '',
    );
    return { code: EXIT.ok, headline: found.headline, good: true, remark: remark.join(', ') };
  }
  if (found.verdict === 'ok') {
    const { headline, remark } = NOT_AS_EXPECTED[stats.expect];
    return { code: EXIT.failed, headline, good: false, remark };
  }
  const unexpected = found.verdict === 'invariant-violated' ? '' : 'which this scenario does not expect';
  const remark = [found.remark, unexpected].filter((part) => part !== '').join(', ');
  // A device that is not let in is a matter of the scenario's settings.
  const code = found.verdict === 'refused' ? EXIT.usage : EXIT.failed;
  return { code, headline: found.headline, good: false, remark };
}

interface Found {
  readonly verdict: StatsDocument['expect'];
  readonly headline: string;
  readonly remark: string;
}

/** What happened, whatever was expected and whatever thresholds say. */
function verdictOf(stats: StatsDocument): Found {
  switch (stats.verdict) {
    case 'invariant-violated': {
      const broken = stats.invariants.filter(({ violations }) => violations > 0).map(({ id }) => id);
      const remark = broken.length > 0 ? `violated: ${broken.join(', ')}` : '';
      return { verdict: stats.verdict, headline: 'VIOLATED', remark };
    }
    case 'host-crashed':
      return { verdict: stats.verdict, headline: 'HOST CRASHED', remark: '' };
    case 'refused': {
      const { refusal } = stats;
      const remark = refusal === null ? '' : `${refusal.vm} ${refusal.device ?? 'memory'}: ${refusal.code}`;
      return { verdict: stats.verdict, headline: 'REFUSED', remark };
    }
    default:
      return { verdict: 'ok', headline: 'HELD', remark: '' };
  }
}

const NOT_AS_EXPECTED: Readonly<Record<StatsDocument['expect'], { headline: string; remark: string }>> = {
  ok: { headline: 'HELD', remark: '' },
  'host-crashed': { headline: 'NO CRASH', remark: 'this scenario expects the host to crash, and it did not' },
  'invariant-violated': { headline: 'HELD', remark: 'this scenario expects a violated invariant, and none was' },
  refused: { headline: 'NOT REFUSED', remark: 'this scenario expects a device to be refused, and none was' },
};

function thresholdsFailed(headline: string, failed: number): Outcome {
  const remark = `but ${failed} threshold${failed === 1 ? '' : 's'} failed`;
  return { code: EXIT.threshold, headline, good: false, remark };
}
