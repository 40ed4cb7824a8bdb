import { execFile } from 'node:child_process';
import {
  DMAR,
  decodeFaultRegister,
  type FaultRegister,
  FSTS_FAULTS,
  faultRegisterOffset,
  GCMD,
} from './dmar-registers.ts';
import type { Answer, Configuration, DmaRequest, Subject } from './program.ts';
import { QemuError, Qtest } from './qtest.ts';
import { answerOf } from './trace-answer.ts';

/** RAM of the machine: enough for tables and data, little enough to be zeroed often. */
export const RAM_BYTES = 0x400_0000;
/** The invalidation queue, where no program goes. */
const RING = 0x8000;
const RING_BYTES = 0x1000;
/** A page that stays zero: a root table without entries. */
const EMPTY_ROOT = 0x9000;
/** Programs live from here on. */
const PROGRAM_BASE = 0x10_0000;

/** Requesters, one `edu` device each; the last two are functions of one device. */
export const SOURCE_IDS: readonly number[] = [0x20, 0x28, 0x30, 0x31];
const eduBase = (index: number): number => 0xfe00_0000 + index * 0x10_0000;
/** Device address of edu's buffer, and its registers. */
const EDU_BUFFER = 0x4_0000;
const EDU = { source: 0x80, destination: 0x88, count: 0x90, command: 0x98 } as const;
const EDU_TO_MEMORY = 3;
const EDU_FROM_MEMORY = 1;
const EDU_BUSY = 1n;

const TRACE_EVENTS = [
  'vtd_dmar_translate',
  'vtd_iotlb_page_hit',
  'vtd_iotlb_page_update',
  'vtd_dmar_fault',
  'vtd_fault_disabled',
  'vtd_translate_pt',
  'vtd_reg_read',
];

/** A look at memory, in order with everything else. */
interface PendingRead {
  readonly address: bigint;
  readonly resolve: (answer: Answer) => void;
}

/** A DMA on its way: what its trace said, and what its fault register. */
interface PendingDma {
  readonly request: DmaRequest;
  readonly trace: string[];
  faultLow: bigint;
  fault: FaultRegister | null | undefined;
  traced: boolean;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

const hexOf = (value: bigint | number): string => `0x${value.toString(16)}`;

function eduArguments(): string[] {
  return SOURCE_IDS.flatMap((sid) => {
    const sharesDevice = SOURCE_IDS.some((other) => other !== sid && other >> 3 === sid >> 3);
    const multifunction = sharesDevice && (sid & 7) === 0 ? ',multifunction=on' : '';
    const address = `${(sid >> 3).toString(16).padStart(2, '0')}.${sid & 7}`;
    return ['-device', `edu,addr=${address},dma_mask=0xffffffffffffffff${multifunction}`];
  });
}

/**
 * QEMU as a subject: `edu` devices behind its VT-d. What became of a DMA is read twice: from the trace of the unit, which has the page
 * size and whether the IOTLB answered, and from the fault recording register; they must agree.
 */
export class QemuSubject implements Subject {
  readonly #qtest: Qtest;
  readonly configuration: Configuration;
  readonly #faultRegister: number;
  #tail = 0;
  /** Work in order: commands to send, and DMAs to wait for. */
  readonly #work: (string | PendingRead | PendingDma)[] = [];
  #pumping = false;
  readonly #inTrace: PendingDma[] = [];
  #chunk: string[] = [];

  private constructor(qtest: Qtest, configuration: Configuration) {
    this.#qtest = qtest;
    this.configuration = configuration;
    this.#faultRegister = DMAR.base + faultRegisterOffset(configuration.cap);
  }

  /** Starts QEMU with a unit of so many levels, sets up devices and unit, and turns translation on. */
  static async start(options: {
    readonly program: string;
    readonly levels: 3 | 4;
    readonly root: bigint;
    readonly contextTable: bigint;
    readonly seed: string;
    readonly hangSeconds?: number;
  }): Promise<QemuSubject> {
    let subject: QemuSubject | null = null;
    const { program, levels, root, contextTable, seed } = options;
    const qtest = await Qtest.start({
      program,
      arguments: [
        ...['-m', `${RAM_BYTES / 0x10_0000}M`],
        ...['-device', `intel-iommu,aw-bits=${levels === 3 ? 39 : 48}`],
        ...eduArguments(),
      ],
      traceEvents: TRACE_EVENTS,
      onTrace: (line) => subject?.onTrace(line),
      ...(options.hangSeconds === undefined ? {} : { hangSeconds: options.hangSeconds }),
    });
    try {
      const cap = BigInt(await qtest.ask(`readq ${hexOf(DMAR.base + DMAR.cap)}`));
      const ecap = BigInt(await qtest.ask(`readq ${hexOf(DMAR.base + DMAR.ecap)}`));
      const sourceId = SOURCE_IDS[0] as number;
      const configuration = {
        qemu: '7.2',
        seed,
        levels,
        cap,
        ecap,
        root,
        contextTable,
        sourceId,
        ramBytes: RAM_BYTES,
        requesters: SOURCE_IDS,
      };
      subject = new QemuSubject(qtest, { ...configuration, qemu: await versionOf(program) });
      await subject.#setUp();
      return subject;
    } catch (error) {
      await qtest.close();
      throw error;
    }
  }

  get pid(): number {
    return this.#qtest.pid;
  }

  writeWord(pa: bigint, value: bigint): void {
    this.#work.push(`writeq ${hexOf(pa)} ${hexOf(value)}`);
  }

  invalidate(lo: bigint, hi: bigint): void {
    const at = RING + this.#tail;
    this.#tail = (this.#tail + 16) % RING_BYTES;
    this.#work.push(
      `writeq ${hexOf(at)} ${hexOf(lo)}`,
      `writeq ${hexOf(at + 8)} ${hexOf(hi)}`,
      `writeq ${hexOf(DMAR.base + DMAR.iqt)} ${hexOf(this.#tail)}`,
    );
  }

  setRoot(pa: bigint): void {
    this.#work.push(
      `writeq ${hexOf(DMAR.base + DMAR.rtaddr)} ${hexOf(pa)}`,
      `writel ${hexOf(DMAR.base + DMAR.gcmd)} ${hexOf(GCMD.te + GCMD.qie + GCMD.srtp)}`,
    );
  }

  dma(request: DmaRequest): Promise<Answer> {
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#work.push({ request, trace: [], faultLow: 0n, fault: undefined, traced: false, resolve, reject });
    });
    return this.#started(answer);
  }

  readMemory(pa: bigint): Promise<Answer> {
    return this.#started(
      new Promise<Answer>((resolve) => {
        this.#work.push({ address: pa, resolve });
      }),
    );
  }

  /** Gets the work going; what the caller adds until it waits goes along. */
  #started(answer: Promise<Answer>): Promise<Answer> {
    if (!this.#pumping) {
      this.#pumping = true;
      queueMicrotask(() => void this.#pump());
    }
    return Promise.race([answer, this.#qtest.failed]);
  }

  /** Brings memory, caches, devices and root back to what they were at the start. No DMA may be pending. */
  async reset(): Promise<void> {
    this.#work.push(`memset ${hexOf(PROGRAM_BASE)} ${hexOf(RAM_BYTES - PROGRAM_BASE)} 0x0`);
    this.setRoot(BigInt(EMPTY_ROOT));
    this.invalidate(0x11n, 0n);
    this.invalidate(0x12n, 0n);
    // A read that is refused leaves zero in the device's buffer.
    for (const sourceId of SOURCE_IDS) await this.dma({ iova: 0n, access: 'r', sourceId });
    this.setRoot(this.configuration.root);
    this.invalidate(0x11n, 0n);
    this.invalidate(0x12n, 0n);
  }

  /** Ends QEMU. */
  close(): Promise<void> {
    return this.#qtest.close();
  }

  /** One line of QEMU's trace. A read of FSTS ends the lines of a DMA. */
  onTrace(line: string): void {
    const isRead = line.startsWith('vtd_reg_read');
    if (!isRead) this.#chunk.push(line);
    else if (line.includes(`addr ${hexOf(DMAR.fsts)} `)) {
      const dma = this.#inTrace.shift();
      dma?.trace.push(...this.#chunk);
      this.#chunk = [];
      if (dma) {
        dma.traced = true;
        this.#finish(dma);
      }
    }
  }

  async #setUp(): Promise<void> {
    const config = (sid: number, offset: number, value: number): void => {
      this.#qtest.send(`outl 0xcf8 ${hexOf(0x8000_0000 + sid * 0x100 + offset)}`);
      this.#qtest.send(`outl 0xcfc ${hexOf(value)}`);
    };
    for (const [index, sid] of SOURCE_IDS.entries()) {
      config(sid, 0x10, eduBase(index));
      // Memory and bus master: without the second there is no DMA.
      config(sid, 0x04, 0x6);
    }
    const register = (width: 'l' | 'q', offset: number, value: number | bigint): void =>
      this.#qtest.send(`write${width} ${hexOf(DMAR.base + offset)} ${hexOf(value)}`);
    register('q', DMAR.rtaddr, this.configuration.root);
    register('l', DMAR.gcmd, GCMD.srtp);
    register('q', DMAR.iqt, 0);
    register('q', DMAR.iqa, RING);
    register('l', DMAR.gcmd, GCMD.qie);
    this.invalidate(0x11n, 0n);
    this.invalidate(0x12n, 0n);
    this.#sendWork();
    register('l', DMAR.gcmd, GCMD.te + GCMD.qie);
    const status = Number(await this.#qtest.ask(`readl ${hexOf(DMAR.base + DMAR.gsts)}`));
    const wanted = GCMD.te + GCMD.srtp + GCMD.qie;
    if (status !== wanted) throw new QemuError(`GSTS: expected ${hexOf(wanted)}, got ${hexOf(status)}`);
    await this.reset();
  }

  #sendWork(): void {
    for (const command of this.#work.splice(0)) if (typeof command === 'string') this.#qtest.send(command);
  }

  async #pump(): Promise<void> {
    try {
      for (let next = this.#work.shift(); next !== undefined; next = this.#work.shift())
        if (typeof next === 'string') this.#qtest.send(next);
        else if ('address' in next) {
          const { address, resolve } = next;
          this.#qtest.send(`readl ${hexOf(address)}`, (reply) => resolve({ kind: 'data', value: Number(reply) }));
        } else await this.#runDma(next);
      this.#qtest.flush();
    } catch {
      // `failed` of the qtest connection has rejected every answer.
    } finally {
      this.#pumping = false;
    }
  }

  async #runDma(dma: PendingDma): Promise<void> {
    const { iova, access, sourceId } = dma.request;
    const index = SOURCE_IDS.indexOf(sourceId);
    if (index < 0) throw new RangeError(`sourceId: ${hexOf(sourceId)} is not one of ${SOURCE_IDS.map(hexOf)}`);
    const base = eduBase(index);
    const write = (offset: number, value: bigint | number): void =>
      this.#qtest.send(`writeq ${hexOf(base + offset)} ${hexOf(value)}`);
    write(EDU.source, access === 'w' ? EDU_BUFFER : iova);
    write(EDU.destination, access === 'w' ? iova : EDU_BUFFER);
    write(EDU.count, 4);
    write(EDU.command, access === 'w' ? EDU_TO_MEMORY : EDU_FROM_MEMORY);
    // The device works on a timer of virtual time: each question lets the main loop go round once.
    while ((BigInt(await this.#qtest.ask(`readl ${hexOf(base + EDU.command)}`)) & EDU_BUSY) !== 0n);
    this.#inTrace.push(dma);
    this.#qtest.send(`readq ${hexOf(this.#faultRegister)}`, (reply) => {
      dma.faultLow = BigInt(reply);
    });
    this.#qtest.send(`readq ${hexOf(this.#faultRegister + 8)}`, (reply) => {
      dma.fault = decodeFaultRegister(dma.faultLow, BigInt(reply));
    });
    this.#qtest.send(`readl ${hexOf(DMAR.base + DMAR.fsts)}`, () => this.#finish(dma));
    this.#qtest.send(`writel ${hexOf(this.#faultRegister + 12)} 0x80000000`);
    this.#qtest.send(`writel ${hexOf(DMAR.base + DMAR.fsts)} ${hexOf(FSTS_FAULTS)}`);
  }

  #finish(dma: PendingDma): void {
    if (!dma.traced || dma.fault === undefined) return;
    try {
      dma.resolve(answerOf(dma.request, dma.trace, dma.fault));
    } catch (error) {
      dma.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

/** The version that the program gives itself, such as `7.2.22`. */
async function versionOf(program: string): Promise<string> {
  const text = await new Promise<string>((resolve) => {
    execFile(program, ['--version'], (_error, stdout) => resolve(stdout));
  });
  return /version (\d+\.\d+\.\d+)/.exec(text)?.[1] ?? '7.2';
}
