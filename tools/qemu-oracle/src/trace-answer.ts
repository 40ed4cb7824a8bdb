import { LineAccount, type QemuPageLookup, type QemuVtdEvent, readQemuVtdLine } from '@faultline/trace-formats';
import type { FaultRegister } from './dmar-registers.ts';
import type { Answer, DmaRequest } from './program.ts';
import { QemuError } from './qtest.ts';

function eventsOf(lines: readonly string[]): QemuVtdEvent[] {
  const account = new LineAccount('QEMU');
  return lines.map((line) => readQemuVtdLine(line, account)).filter((event) => event !== null);
}

function translated(events: readonly QemuVtdEvent[]): Answer | null {
  const translate = events.find((event) => event.kind === 'translate');
  const page = events.find((event): event is QemuPageLookup => event.kind === 'pageHit' || event.kind === 'pageUpdate');
  if (translate === undefined || page === undefined) return null;
  const { gpa, mask } = translate;
  return { kind: 'translated', gpa, mask, hit: page.kind === 'pageHit', slpte: page.slpte };
}

/**
 * Puts together what the trace of QEMU's unit and its fault recording register say of one DMA.
 * @throws QemuError if they contradict each other
 */
export function answerOf(request: DmaRequest, lines: readonly string[], fault: FaultRegister | null): Answer {
  const events = eventsOf(lines);
  const contradiction = (): QemuError =>
    new QemuError(
      `trace and fault register contradict each other for ${request.access} 0x${request.iova.toString(16)}: ${JSON.stringify(lines)}, ${fault === null ? 'no record' : `reason ${fault.reason}`}`,
    );
  const traced = events.filter((event) => event.kind === 'fault');
  if (traced.length > 1) throw contradiction();
  if (fault !== null) {
    const [event] = traced;
    const { reason, sourceId, address, write } = fault;
    if (event === undefined || event.reason !== reason || event.sid !== sourceId) throw contradiction();
    return { kind: 'fault', reason, type: write ? 'w' : 'r', address, sourceId };
  }
  if (traced.length > 0) throw contradiction();
  if (lines.some((line) => line.startsWith('vtd_fault_disabled'))) return { kind: 'blocked' };
  if (lines.some((line) => line.startsWith('vtd_translate_pt'))) return { kind: 'passThrough' };
  // QEMU has taken a function in pass-through out of its unit: no line at all.
  if (lines.length === 0) return { kind: 'passThrough' };
  const answer = translated(events);
  if (answer === null) throw contradiction();
  return answer;
}
