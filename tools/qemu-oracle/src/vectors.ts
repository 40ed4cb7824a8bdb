import type { Answer, Configuration, Operation } from './program.ts';

/** A line that is not of the format, or a file that ends where it must not. */
export class VectorsError extends Error {
  /** Counted from 1. */
  readonly line: number;

  constructor(line: number, message: string) {
    super(message);
    this.name = 'VectorsError';
    this.line = line;
  }
}

/** One line of a vectors file, decoded. A DMA has its recorded answer. */
export type VectorLine =
  | { readonly kind: 'configuration'; readonly configuration: Configuration }
  /** Another program: memory is zero, caches are empty, the root is the first line's. */
  | { readonly kind: 'startOver' }
  | { readonly kind: 'operation'; readonly operation: Operation; readonly answer: Answer | null };

/** The line between two programs. */
export const START_OVER = '{"start":true}';

const DEFAULT_RAM_BYTES = 2 ** 31;
const hexOf = (value: bigint | number): string => `0x${value.toString(16)}`;

type Fields = Readonly<Record<string, unknown>>;

/** Reads the fields of one line, and says by line number what is wrong with them. */
class LineReader {
  readonly line: number;

  constructor(line: number) {
    this.line = line;
  }

  fail(expected: string, got: unknown): never {
    const text = typeof got === 'string' ? got : (JSON.stringify(got) ?? 'nothing');
    // Control characters of a file that is something else are not for a terminal to obey.
    const shown = (text.length > 80 ? `${text.slice(0, 80)}...` : text).replace(/\p{Cc}/gu, '?');
    throw new VectorsError(this.line, `expected ${expected}, got ${shown === '' ? 'an empty line' : shown}`);
  }

  object(value: unknown, expected: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.fail(expected, value);
    return value as Fields;
  }

  hex(value: unknown, what: string): bigint {
    if (typeof value !== 'string' || !/^0x[0-9a-f]{1,16}$/i.test(value))
      this.fail(`${what} as a hexadecimal string of at most 64 bits, such as "0x1000"`, value);
    return BigInt(value as string);
  }

  aligned(value: unknown, what: string, bytes: bigint): bigint {
    const address = this.hex(value, what);
    if (address % bytes !== 0n) this.fail(`${what} as a multiple of ${bytes}`, value);
    return address;
  }

  sourceId(value: unknown, what: string): number {
    const id = this.hex(value, what);
    if (id > 0xffffn) this.fail(`${what} of at most 16 bits`, value);
    return Number(id);
  }

  list(value: unknown, what: string, lengths?: readonly number[]): readonly unknown[] {
    if (!Array.isArray(value) || lengths?.includes(value.length) === false) this.fail(what, value);
    return value as readonly unknown[];
  }
}

function readConfiguration(reader: LineReader, fields: Fields): Configuration {
  const { levels } = fields;
  if (levels !== 3 && levels !== 4 && levels !== 5) reader.fail('"levels" as 3, 4 or 5', levels);
  const devfn = fields.devfn === undefined ? null : reader.sourceId(fields.devfn, '"devfn"');
  const sid = fields.sid === undefined ? null : reader.sourceId(fields.sid, '"sid"');
  const sourceId = sid ?? devfn;
  if (sourceId === null) reader.fail('"sid" or "devfn"', fields);
  if (devfn !== null && (sourceId & 0xff) !== devfn)
    reader.fail(`"devfn" as the low byte of "sid" ${hexOf(sourceId)}`, hexOf(devfn));
  const ram = fields.ram === undefined ? BigInt(DEFAULT_RAM_BYTES) : reader.aligned(fields.ram, '"ram"', 4096n);
  if (ram < 0x1_0000n || ram > 2n ** 33n) reader.fail('"ram" from 0x10000 to 0x200000000', fields.ram);
  return {
    qemu: typeof fields.qemu === 'string' ? fields.qemu : '',
    seed: typeof fields.seed === 'string' || typeof fields.seed === 'number' ? String(fields.seed) : '',
    levels,
    cap: reader.hex(fields.cap, '"cap"'),
    ecap: reader.hex(fields.ecap, '"ecap"'),
    root: reader.aligned(fields.root, '"root"', 4096n),
    contextTable: fields.ctx === undefined ? 0n : reader.hex(fields.ctx, '"ctx"'),
    sourceId,
    requesters: (fields.requesters === undefined ? [] : reader.list(fields.requesters, '"requesters" as a list')).map(
      (requester) => reader.sourceId(requester, 'an element of "requesters"'),
    ),
    ramBytes: Number(ram),
  };
}

function readAnswer(reader: LineReader, value: unknown): Answer {
  const fields = reader.object(value, '"res" as the answer of the DMA');
  if (fields.blocked === true) return { kind: 'blocked' };
  if (fields.passThrough === true) return { kind: 'passThrough' };
  if (fields.data !== undefined) {
    const data = reader.hex(fields.data, '"data"');
    if (data > 0xffff_ffffn) reader.fail('"data" of at most 32 bits', fields.data);
    return { kind: 'data', value: Number(data) };
  }
  if (fields.fault !== undefined) {
    const { fault, type } = fields;
    if (typeof fault !== 'number' || !Number.isInteger(fault) || fault < 1 || fault > 255)
      reader.fail('"fault" as a fault reason, 1 to 255', fault);
    if (type !== 'r' && type !== 'w') reader.fail('"type" as "r" or "w"', type);
    const sourceId = fields.sid === undefined ? null : reader.sourceId(fields.sid, '"sid"');
    return { kind: 'fault', reason: fault, type, address: reader.hex(fields.addr, '"addr"'), sourceId };
  }
  if (typeof fields.hit !== 'boolean') reader.fail('"gpa", "mask", "hit" and "slpte", or "fault"', value);
  return {
    kind: 'translated',
    gpa: reader.hex(fields.gpa, '"gpa"'),
    mask: reader.hex(fields.mask, '"mask"'),
    hit: fields.hit,
    slpte: reader.hex(fields.slpte, '"slpte"'),
  };
}

function readOperation(reader: LineReader, fields: Fields, configuration: Configuration): VectorLine {
  const operation = (made: Operation, answer: Answer | null = null): VectorLine => ({
    kind: 'operation',
    operation: made,
    answer,
  });
  if (fields.start === true) return { kind: 'startOver' };
  if (fields.w !== undefined) {
    const [pa, value] = reader.list(fields.w, '"w" as [address, value]', [2]);
    return operation({
      kind: 'write',
      pa: reader.aligned(pa, 'the address of "w"', 8n),
      value: reader.hex(value, 'the value of "w"'),
    });
  }
  if (fields.inv !== undefined) {
    const [lo, hi] = reader.list(fields.inv, '"inv" as [low, high] of a descriptor', [2]);
    return operation({
      kind: 'invalidate',
      lo: reader.hex(lo, 'the low half of "inv"'),
      hi: reader.hex(hi, 'the high half of "inv"'),
    });
  }
  if (fields.root !== undefined) return operation({ kind: 'root', pa: reader.aligned(fields.root, '"root"', 4096n) });
  if (fields.dma !== undefined) {
    const [iova, access, source] = reader.list(fields.dma, '"dma" as [iova, "r" or "w"] or with a source-id', [2, 3]);
    if (access !== 'r' && access !== 'w') reader.fail('the access of "dma" as "r" or "w"', access);
    const sourceId = source === undefined ? configuration.sourceId : reader.sourceId(source, 'the source-id of "dma"');
    return operation(
      { kind: 'dma', iova: reader.hex(iova, 'the address of "dma"'), access, sourceId },
      readAnswer(reader, fields.res),
    );
  }
  if (fields.m !== undefined)
    return operation(
      { kind: 'read', pa: reader.aligned(fields.m, 'the address of "m"', 4n) },
      readAnswer(reader, fields.res),
    );
  return reader.fail('an object with "w", "inv", "root", "dma", "m" or "start"', fields);
}

/**
 * Decodes one line. @param configuration what the first line said, null for the first line itself
 * @throws VectorsError with the line number and what was expected
 */
export function readVectorLine(text: string, line: number, configuration: Configuration | null): VectorLine {
  const reader = new LineReader(line);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    reader.fail('a JSON object', text);
  }
  const fields = reader.object(value, 'a JSON object');
  if (configuration !== null) return readOperation(reader, fields, configuration);
  const expected = '{"cfg": ...} as the first line';
  if (fields.cfg === undefined) reader.fail(expected, fields);
  return { kind: 'configuration', configuration: readConfiguration(reader, reader.object(fields.cfg, expected)) };
}

function answerFields(answer: Answer): Record<string, unknown> {
  switch (answer.kind) {
    case 'translated':
      return { gpa: hexOf(answer.gpa), mask: hexOf(answer.mask), hit: answer.hit, slpte: hexOf(answer.slpte) };
    case 'fault': {
      const fields = { fault: answer.reason, type: answer.type, addr: hexOf(answer.address) };
      return answer.sourceId === null ? fields : { ...fields, sid: hexOf(answer.sourceId) };
    }
    case 'blocked':
      return { blocked: true };
    case 'passThrough':
      return { passThrough: true };
    case 'data':
      return { data: hexOf(answer.value) };
  }
}

/** An answer in the words of the file, for messages too. */
export const answerText = (answer: Answer): string => JSON.stringify(answerFields(answer));

/** The first line of a file. */
export function configurationText(configuration: Configuration): string {
  const { qemu, seed, levels, cap, ecap, root, contextTable, sourceId, requesters, ramBytes } = configuration;
  return JSON.stringify({
    cfg: {
      qemu,
      seed,
      levels,
      cap: hexOf(cap),
      ecap: hexOf(ecap),
      root: hexOf(root),
      ctx: hexOf(contextTable),
      devfn: hexOf(sourceId & 0xff),
      sid: hexOf(sourceId),
      ...(requesters.length === 0 ? {} : { requesters: requesters.map(hexOf) }),
      ram: hexOf(ramBytes),
    },
  });
}

/** One operation as a line; what has an answer needs it. */
export function operationText(operation: Operation, answer: Answer | null, configuration: Configuration): string {
  switch (operation.kind) {
    case 'write':
      return JSON.stringify({ w: [hexOf(operation.pa), hexOf(operation.value)] });
    case 'invalidate':
      return JSON.stringify({ inv: [hexOf(operation.lo), hexOf(operation.hi)] });
    case 'root':
      return JSON.stringify({ root: hexOf(operation.pa) });
    case 'read':
      return JSON.stringify({ m: hexOf(operation.pa), ...(answer === null ? {} : { res: answerFields(answer) }) });
    case 'dma': {
      const { iova, access, sourceId } = operation;
      const source = sourceId === configuration.sourceId ? [] : [hexOf(sourceId)];
      const dma = [hexOf(iova), access, ...source];
      return JSON.stringify(answer === null ? { dma } : { dma, res: answerFields(answer) });
    }
  }
}

/** What an answer is about, for messages. */
export function subjectOf(operation: Operation): string {
  if (operation.kind === 'read') return `memory at 0x${operation.pa.toString(16)}`;
  if (operation.kind !== 'dma') return operation.kind;
  const { iova, access, sourceId } = operation;
  return `${access === 'w' ? 'write' : 'read'} 0x${iova.toString(16)} by 0x${sourceId.toString(16)}`;
}
