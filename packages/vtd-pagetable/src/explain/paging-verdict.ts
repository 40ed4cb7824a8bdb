import { entryFrame, isLeaf, isPresent, leafSizeName, levelFrames, type TableLevel } from '../entry.ts';
import { FaultReason } from '../fault-reason.ts';
import type { StructureCapabilities } from '../structure-capabilities.ts';
import { type FaultAccount, faultAccount, hexAddress, type Verdict } from './verdict.ts';

const LEVEL_TABLE = ['', '', 'SS-PTE', 'SS-PDE', 'SS-PDPTE', 'SS-PML4E'] as const;

const has = (entry: bigint, bit: number): boolean => ((entry >> BigInt(bit)) & 1n) !== 0n;

/** R and W in words. */
export const rightsText = (entry: bigint): string =>
  (['no access', 'read only', 'write only', 'read/write'] as const)[Number(entry & 3n)] as string;

/** What a second-stage paging entry is good for. `reserved` says whether any reserved bit is set. */
export function pagingVerdict(
  level: TableLevel,
  entry: bigint,
  reserved: boolean,
  capabilities: StructureCapabilities,
): Verdict {
  const faults = pagingFaults(entry, reserved);
  if (!isPresent(entry)) {
    const summary = entry === 0n ? 'empty: nothing is mapped' : 'not present: R and W are clear';
    const notes =
      entry === 0n ? [] : ['hardware ignores the other bits, reserved ones too; Linux never writes such an entry'];
    return { present: false, shape: 'absent', summary, notes, faults, address: null, bytes: 0n };
  }
  const leaf = isLeaf(entry, level);
  const notes = pagingNotes(entry, leaf, capabilities);
  if (leaf && mapsInterrupts(entryFrame(entry), levelFrames(level)))
    notes.push(
      'host 0xfee00000-0xfeefffff is the interrupt range: a request translated to it faults (0xe, in scalable mode 0x87)',
    );
  if (!leaf) {
    const address = BigInt(entryFrame(entry)) << 12n;
    const summary = `leads to the ${LEVEL_TABLE[level] ?? ''} table at ${hexAddress(address)}, ${rightsText(entry)}`;
    return { present: true, shape: 'table', summary, notes, faults, address, bytes: 0n };
  }
  const bytes = BigInt(levelFrames(level)) << 12n;
  const address = (BigInt(entryFrame(entry)) << 12n) & ~(bytes - 1n);
  const range = `${hexAddress(address)}-${hexAddress(address + bytes - 1n)}`;
  const summary = `${leafSizeName(level)} leaf, host ${range}, ${rightsText(entry)}`;
  return { present: true, shape: 'leaf', summary, notes, faults, address, bytes };
}

/** Whether a leaf reaches into FEEx_xxxxh (conditions LGN.4 and SGN.8.1). Bits of the address below its size do not count. */
function mapsInterrupts(frame: number, frames: number): boolean {
  const first = Math.floor(frame / frames) * frames;
  return first < 0xfef00 && first + frames > 0xfee00;
}

/** Read and write in both modes. Legacy tests the right asked for first, scalable reserved bits (table 30). */
function pagingFaults(entry: bigint, reserved: boolean): FaultAccount[] {
  const faults: FaultAccount[] = [];
  for (const [request, bit] of [
    ['read', 0],
    ['write', 1],
  ] as const) {
    const granted = has(entry, bit);
    const denied = bit === 0 ? FaultReason.readNotAllowed : FaultReason.writeNotAllowed;
    const legacy = !granted ? denied : reserved ? FaultReason.pagingReserved : 0;
    if (legacy !== 0) faults.push(faultAccount(request, 'legacy', legacy));
    const scalable = scalableReason(entry, reserved, bit);
    if (scalable !== 0) faults.push(faultAccount(request, 'scalable', scalable));
  }
  return faults;
}

function scalableReason(entry: bigint, reserved: boolean, bit: 0 | 1): number {
  if (!isPresent(entry)) return FaultReason.secondStageNoPermission;
  if (reserved) return FaultReason.secondStageReserved;
  if (has(entry, bit)) return 0;
  return bit === 0 ? FaultReason.scalableReadNotAllowed : FaultReason.scalableWriteNotAllowed;
}

function pagingNotes(entry: bigint, leaf: boolean, { specRevision }: StructureCapabilities): string[] {
  const notes: string[] = [];
  if (leaf && has(entry, 9) && !has(entry, 1)) notes.push('dirty but not writable: W was taken away after a write');
  if (leaf && has(entry, 9) && !has(entry, 8)) notes.push('dirty but not accessed: software cleared A alone');
  const memoryType = Number((entry >> 3n) & 7n);
  if (leaf && (memoryType === 2 || memoryType === 3 || memoryType === 7))
    notes.push(`EMT ${memoryType} is a reserved memory type; it counts only with EMTE`);
  if (has(entry, 2) && specRevision === '5.10') notes.push('bit 2 was execute before Rev 5.10 and is ignored now');
  if (!leaf && has(entry, 10)) notes.push('Linux software bit 0: the table below has been flushed from the CPU cache');
  return notes;
}
