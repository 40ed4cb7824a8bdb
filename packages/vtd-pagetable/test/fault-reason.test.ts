import { describe, expect, it } from 'vitest';
import { FaultReason, faultCondition, faultReasonText, isQualifiedFault, isWalkError } from '../src/index.ts';

/** Number, condition and "Qualified" as table 30 of Rev 5.10 has them; 82h (SGN.3) is of older revisions. */
const TABLE_30 = `
  1 LRT.2 no, 2 LCT.2 yes, 3 LCT.4 yes, 4 LGN.1 yes, 5 LGN.2 yes, 6 LGN.3 yes, 7 LSS.1 yes, 8 LRT.1 no, 9 LCT.1 no,
  a LRT.3 no, b LCT.3 yes, c LSS.2 yes, d LCT.5 yes, e LGN.4 yes,
  30 RTA.1 no, 31 RTA.2 no, 32 RTA.3 no, 33 RTA.4 no, 34 RTA.5 no, 38 SRT.1 no, 39 SRT.2 no, 3a SRT.3 no,
  40 SCT.1 no, 41 SCT.2 yes, 42 SCT.3 yes, 43 SCT.4 yes, 44 SCT.5 yes, 45 SCT.6 yes, 46 SCT.7 yes, 47 SCT.8 yes, 48 SCT.9 yes,
  49 SCT.10 yes, 50 SPD.1 no, 51 SPD.2 yes, 52 SPD.3 yes, 58 SPT.1 no, 59 SPT.2 yes, 5a SPT.3 yes, 5b SPT.4 yes,
  5c SPT.5 yes, 5d SPT.6 yes, 60 SPT.9 yes, 70 SFS.1 yes, 71 SFS.2 yes, 72 SFS.3 yes, 73 SFS.4 yes, 74 SFS.5 yes,
  75 SFS.6 yes, 76 SFS.7 yes, 77 SFS.8 yes, 78 SSS.1 yes, 79 SSS.2 yes, 7a SSS.3 yes, 7b SSS.4 yes, 7c SSS.5 yes, 7d SSS.6 yes,
  80 SGN.1 yes, 81 SGN.2 yes, 82 SGN.3 yes, 83 SGN.4 yes, 84 SGN.5 yes, 85 SGN.6 yes, 86 SGN.7 yes, 87 SGN.8 yes,
  89 SGN.10 yes, 90 SFS.9 yes, 91 SFS.10 yes, a0 HPT.1 yes, a1 HPT.2 yes, a2 HPT.3 yes, a3 HPT.4 yes, a4 HPT.5 yes, a5 HPT.6 yes`
  .split(',')
  .map((row) => row.trim().split(' '))
  .map(([reason = '', code = '', qualified = '']) => ({
    reason: Number.parseInt(reason, 16),
    code,
    qualified: qualified === 'yes',
  }));

describe('fault reasons', () => {
  it('are those of table 30, each once', () => {
    const reasons = Object.values(FaultReason);
    expect(new Set(reasons).size).toBe(reasons.length);
    expect([...reasons].sort((a, b) => a - b)).toEqual(TABLE_30.map(({ reason }) => reason));
    for (const row of TABLE_30) {
      expect(faultCondition(row.reason)).toMatchObject(row);
      expect(isQualifiedFault(row.reason)).toBe(row.qualified);
      expect(faultReasonText(row.reason)).toMatch(new RegExp(`^[^(].* \\(0x${row.reason.toString(16)}\\)$`));
    }
  });
  it('have names that say what they say', () => {
    // One of each group, against the condition that the name speaks of.
    const { rootRegister, scalableContextInvalid, pasidDirectoryReserved, pasidEntryAccess } = FaultReason;
    expect([rootRegister, scalableContextInvalid, pasidDirectoryReserved, pasidEntryAccess]).toEqual([
      0x30, 0x43, 0x52, 0x58,
    ]);
    const { secondStageReserved, inputBeyondWidth, scalableWriteNotAllowed, scalableReadNotAllowed } = FaultReason;
    expect([secondStageReserved, inputBeyondWidth, scalableWriteNotAllowed, scalableReadNotAllowed]).toEqual([
      0x7a, 0x84, 0x85, 0x86,
    ]);
  });
  it('mean a corrupt table where an entry could not be read or has reserved bits', () => {
    const errors = TABLE_30.map(({ reason }) => reason).filter(isWalkError);
    expect(errors).toEqual([7, 0xc, 0x70, 0x72, 0x73, 0x74, 0x78, 0x7a, 0x7b]);
  });
  it('a number that is not in the table is unknown and reported', () => {
    expect([faultReasonText(0x63), faultCondition(0x63), isQualifiedFault(0x63), isWalkError(0x63)]).toEqual([
      'unknown reason (0x63)',
      undefined,
      false,
      false,
    ]);
  });
});
