import { contextReason, decodeContext, TranslationType } from '../context-entry.ts';
import { FaultReason } from '../fault-reason.ts';
import { isFaultProcessingDisabled } from '../format/shared-field.ts';
import { decodePasidDirectoryEntry, pasidDirectoryReason } from '../pasid-directory-entry.ts';
import { decodePasidEntry, invalidPasidField, PasidTranslationType, pasidEntryReason } from '../pasid-entry.ts';
import { decodeRoot, decodeScalableRoot, rootReason, scalableRootReason } from '../root-entry.ts';
import {
  contradictsTranslatedPasid,
  decodeScalableContext,
  pasidLimit,
  type ScalableContextEntry,
  scalableContextReason,
} from '../scalable-context-entry.ts';
import type { StructureCapabilities } from '../structure-capabilities.ts';
import type { EntryKind } from './entry-kind.ts';
import { type FaultAccount, faultAccount, frameAddress, type Verdict } from './verdict.ts';

type Words = readonly bigint[];

const ANY = 'any request';
const addressOf = (pfn: number): bigint => BigInt(pfn) << 12n;
const anyFault = (mode: FaultAccount['mode'], reason: number): FaultAccount[] =>
  reason === 0 ? [] : [faultAccount(ANY, mode, reason)];

function absent(words: Words, faults: FaultAccount[], hasFaultProcessing: boolean): Verdict {
  const notes: string[] = [];
  if (hasFaultProcessing && isFaultProcessingDisabled(words)) notes.push('FPD counts though P is clear: no report');
  const junk = words.some((word, index) => (index === 0 && hasFaultProcessing ? word & ~2n : word) !== 0n);
  if (junk) notes.push('hardware ignores the other bits');
  const summary = words.every((word) => word === 0n) ? 'empty: not present' : 'not present: P is clear';
  return { present: false, shape: 'absent', summary, notes, faults, address: null, bytes: 0n };
}

const structure = (verdict: Omit<Verdict, 'present' | 'bytes'>): Verdict => ({ ...verdict, present: true, bytes: 0n });

function rootVerdict(words: Words, unit: StructureCapabilities): Verdict {
  const faults = anyFault('legacy', rootReason(words, unit));
  const root = decodeRoot(words);
  if (root === null) return absent(words, faults, false);
  const summary = `leads to the context table at ${frameAddress(root.contextPfn)}`;
  return structure({ shape: 'table', summary, notes: [], faults, address: addressOf(root.contextPfn) });
}

function scalableRootVerdict(words: Words, unit: StructureCapabilities): Verdict {
  const faults = ([0, 1] as const).flatMap((half) => {
    const reason = scalableRootReason(words, half, unit);
    return reason === 0 ? [] : [faultAccount(half === 0 ? 'devfn 0-0x7f' : 'devfn 0x80-0xff', 'scalable', reason)];
  });
  const root = decodeScalableRoot(words);
  if (root === null) return absent(words, faults, false);
  const half = (name: string, pfn: number | null): string =>
    `${name} ${pfn === null ? 'not present' : `context table at ${frameAddress(pfn)}`}`;
  const summary = `${half('devfn 0-0x7f:', root.lowerContextPfn)}; ${half('0x80-0xff:', root.upperContextPfn)}`;
  const first = root.lowerContextPfn ?? root.upperContextPfn ?? 0;
  return structure({ shape: 'table', summary, notes: [], faults, address: addressOf(first) });
}

const levelsText = (addressWidth: number): string =>
  addressWidth >= 1 && addressWidth <= 3 ? `${addressWidth + 2} levels` : `AW ${addressWidth} (reserved)`;

function contextVerdict(words: Words, unit: StructureCapabilities): Verdict {
  const [lo = 0n, hi = 0n] = words;
  const reason = contextReason(words, unit);
  const faults = anyFault('legacy', reason);
  const context = decodeContext(lo, hi);
  if (context === null) return absent(words, faults, true);
  const { translationType, addressWidth, domainId, tablePfn } = context;
  const notes: string[] = [];
  if (reason === FaultReason.contextInvalid) {
    if (!unit.addressWidths.includes(addressWidth)) notes.push(`the unit does not walk AW ${addressWidth}`);
    else notes.push(`the unit does not have TT ${translationType}`);
  }
  if (reason === 0 && translationType !== TranslationType.deviceTlb)
    faults.push(faultAccount('ATS', 'legacy', FaultReason.translationTypeBlocked));
  if (translationType === TranslationType.passThrough) {
    const summary = `pass-through, domain ${domainId}`;
    return structure({ shape: 'structure', summary, notes, faults, address: null });
  }
  const ats = translationType === TranslationType.deviceTlb ? 'ATS allowed' : 'ATS blocked';
  const summary = `second stage of ${levelsText(addressWidth)} at ${frameAddress(tablePfn)}, domain ${domainId}, ${ats}`;
  return structure({ shape: 'structure', summary, notes, faults, address: addressOf(tablePfn) });
}

/** Requests that a valid entry blocks: conditions SCT.4.3 to SCT.6, SCT.8 and SCT.10 of table 30. */
function blockedRequests(context: Required<ScalableContextEntry>): FaultAccount[] {
  const blocked = (request: string, reason: number): FaultAccount => faultAccount(request, 'scalable', reason);
  if (contradictsTranslatedPasid(context))
    return [
      blocked('without PASID, translated or page request', FaultReason.scalableContextInvalid),
      blocked('with PASID', FaultReason.pasidDisabled),
    ];
  const faults: FaultAccount[] = [];
  if (!context.deviceTlbEnable) faults.push(blocked('ATS', FaultReason.deviceTlbDisabled));
  if (!context.pasidEnable) faults.push(blocked('with PASID', FaultReason.pasidDisabled));
  if (!context.pageRequestEnable) faults.push(blocked('page request', FaultReason.pageRequestDisabled));
  if (context.deviceTlbEnable && !context.pasidInTranslatedEnable)
    faults.push(blocked('translated request with PASID', FaultReason.translatedPasidDisabled));
  return faults;
}

function scalableContextVerdict(words: Words, unit: StructureCapabilities): Verdict {
  const reason = scalableContextReason(words, unit);
  const faults = anyFault('scalable', reason);
  const context = decodeScalableContext(words);
  if (context === null) return absent(words, faults, true);
  const notes: string[] = [];
  if (context.pageRequestEnable && !context.deviceTlbEnable) notes.push('PRE needs DTE');
  const limit = pasidLimit(context.pasidDirectorySize);
  if (context.ridPasid >= limit)
    notes.push(
      `RID_PASID 0x${context.ridPasid.toString(16)} is beyond the directory, which ends at 0x${limit.toString(16)}`,
    );
  if (contradictsTranslatedPasid(context)) notes.push('EPTR needs PASIDE');
  if (reason === 0) faults.push(...blockedRequests(context));
  const allowed = [
    context.deviceTlbEnable ? 'ATS' : '',
    context.pasidEnable ? 'PASID' : '',
    context.pageRequestEnable ? 'page requests' : '',
  ].filter((name) => name !== '');
  const summary = `PASID directory at ${frameAddress(context.pasidDirectoryPfn)}, ${allowed.length > 0 ? `allows ${allowed.join(', ')}` : 'plain requests only'}`;
  return structure({ shape: 'structure', summary, notes, faults, address: addressOf(context.pasidDirectoryPfn) });
}

function pasidDirectoryVerdict(words: Words, unit: StructureCapabilities): Verdict {
  const faults = anyFault('scalable', pasidDirectoryReason(words, unit));
  const entry = decodePasidDirectoryEntry(words);
  if (entry === null) return absent(words, faults, true);
  const summary = `leads to the PASID table at ${frameAddress(entry.pasidTablePfn)}`;
  return structure({ shape: 'table', summary, notes: [], faults, address: addressOf(entry.pasidTablePfn) });
}

function pasidVerdict(words: Words, unit: StructureCapabilities): Verdict {
  const reason = pasidEntryReason(words, unit);
  const faults = anyFault('scalable', reason);
  const entry = decodePasidEntry(words);
  if (entry === null) return absent(words, faults, true);
  const notes: string[] = [];
  const invalid = invalidPasidField(entry, unit);
  if (invalid !== null) notes.push(`${invalid} has a value that the unit does not have`);
  if (reason === 0 && !entry.supervisorRequestEnable)
    faults.push(faultAccount('supervisor request', 'scalable', FaultReason.supervisorDisabled));
  const second = `second stage of ${levelsText(entry.addressWidth)} at ${frameAddress(entry.secondStagePfn)}`;
  const first = `first stage at ${frameAddress(entry.firstStagePfn)}`;
  const types: Readonly<Record<number, readonly [string, number | null]>> = {
    [PasidTranslationType.firstStage]: [first, entry.firstStagePfn],
    [PasidTranslationType.secondStage]: [second, entry.secondStagePfn],
    [PasidTranslationType.nested]: [`nested: ${first} (guest), ${second}`, entry.secondStagePfn],
    [PasidTranslationType.passThrough]: ['pass-through', null],
  };
  // Without a second stage hardware ignores SSADE (9.6).
  const walksSecond = [PasidTranslationType.secondStage, PasidTranslationType.nested].some(
    (type) => type === entry.translationType,
  );
  const [text, pfn] = types[entry.translationType] ?? [`PGTT ${entry.translationType} (reserved)`, null];
  const summary = `${text}, domain ${entry.domainId}${walksSecond && entry.secondStageAccessedDirty ? ', A and D are set' : ''}`;
  return structure({ shape: 'structure', summary, notes, faults, address: pfn === null ? null : addressOf(pfn) });
}

const VERDICTS: Readonly<Partial<Record<EntryKind, (words: Words, unit: StructureCapabilities) => Verdict>>> = {
  root: rootVerdict,
  'root-scalable': scalableRootVerdict,
  context: contextVerdict,
  'context-scalable': scalableContextVerdict,
  'pasid-dir': pasidDirectoryVerdict,
  pasid: pasidVerdict,
};

/** What a root, context or PASID structure is good for. @throws TypeError for a kind of paging entry */
export function structureVerdict(kind: EntryKind, words: Words, capabilities: StructureCapabilities): Verdict {
  const verdict = VERDICTS[kind];
  if (verdict === undefined) throw new TypeError(`kind: ${kind} is no root, context or PASID structure`);
  return verdict(words, capabilities);
}
