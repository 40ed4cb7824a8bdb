import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { runApplication } from '../src/application.ts';
import { fakeMachine } from './support/fake-machine.ts';
import { fakeTerminal } from './support/fake-terminal.ts';
import { invoke, NO_PROTOCOLS } from './support/invocation.ts';
import { temporaryDirectory } from './support/temporary-directory.ts';

// The excerpts of real recordings that the readers are tested with; their provenance stands beside them.
const vectors = fileURLToPath(new URL('../../../packages/trace-formats/test/vectors/', import.meta.url));
const qemu = readFileSync(join(vectors, 'strict61-head.qemu-vtd.log'), 'utf8');

function directory(files: Readonly<Record<string, string | Uint8Array>> = {}): string {
  const cwd = temporaryDirectory();
  copyFileSync(join(vectors, 'strict61-head.qemu-vtd.log'), join(cwd, 'qemu.log'));
  copyFileSync(join(vectors, 'strict61-head.ftrace.txt'), join(cwd, 'ftrace.txt'));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(cwd, name), content);
  return cwd;
}

describe('replay', () => {
  it('agrees with a QEMU log, plain, gzip or from stdin', async () => {
    const cwd = directory({ 'qemu.gz': gzipSync(qemu) });
    const { code, out, err } = await invoke(['replay', 'qemu.log', '--json'], { cwd });
    const result = JSON.parse(out);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(result.translations).toBeGreaterThan(100);
    expect(result).toMatchObject({ agree: result.translations, differ: 0, lines: { unknown: 0 } });
    const gzip = JSON.parse((await invoke(['replay', 'qemu.gz', '--json'], { cwd })).out);
    const piped = JSON.parse((await invoke(['replay', '-', '--json'], { stdin: gzipSync(qemu) })).out);
    for (const { translations, agree } of [gzip, piped])
      expect({ translations, agree }).toEqual({ translations: result.translations, agree: result.agree });
  });

  it('says in words what it found', async () => {
    const cwd = directory();
    const log = await invoke(['replay', 'qemu.log'], { cwd });
    expect(log.out).toMatch(/^AGREES {2}([\d,]+) of \1 translations as QEMU answered them\nqemu\.log\n/);
    const ftrace = await invoke(['replay', 'ftrace.txt'], { cwd });
    expect(ftrace.out).toMatch(/^AGREES .*maps and 14 unmaps on the model's table/);
    for (const files of [
      ['qemu.log', 'ftrace.txt'],
      ['ftrace.txt', 'qemu.log'],
    ]) {
      const pair = await invoke(['replay', ...files], { cwd });
      expect(pair).toMatchObject({ code: 0, out: expect.stringContaining('14 of 14 unmaps found their invalidation') });
      expect(pair.out).toContain('0 contradict it');
    }
  });

  it('makes the calls of an iommufd log again, and exits 3 at one that Linux answered otherwise', async () => {
    const log = readFileSync(join(vectors, 'iofd-7.3.4.log'), 'utf8');
    const wrong = log.replace(/^(COPY onto existing .*)-> EEXIST$/m, '$1-> ENOENT');
    expect(wrong).not.toBe(log);
    const cwd = directory({ 'iofd.log': log, 'wrong.log': wrong });
    const good = await invoke(['replay', 'iofd.log'], { cwd });
    expect(good).toMatchObject({ code: 0, err: '' });
    expect(good.out).toMatch(/^AGREES {2}(\d+) of \1 calls as Linux 7\.3 answered them\niofd\.log\n/);
    const bad = await invoke(['replay', 'wrong.log'], { cwd });
    expect(bad.code).toBe(3);
    const line = wrong.split('\n').findIndex((text) => text.startsWith('COPY onto existing')) + 1;
    expect(bad.out).toMatch(/^DIFFERS /);
    expect(bad.out).toContain(
      `wrong.log:${line}: COPY onto existing: result\n    recorded ENOENT\n    model    EEXIST\n`,
    );
    const json = JSON.parse((await invoke(['replay', 'wrong.log', '--json'], { cwd })).out);
    expect(json).toMatchObject({ calls: 145, agree: 144, differ: 1, differences: [{ line, got: 'EEXIST' }] });
  });

  it('shows the first damaged line, with what it does to the terminal taken out', async () => {
    const damaged = qemu.split('\n').toSpliced(3, 0, 'vtd_\u001b[31mnonsense').join('\n');
    const cwd = directory({ 'damaged.log': damaged });
    const { code, out } = await invoke(['replay', 'damaged.log'], { cwd });
    expect(code).toBe(0);
    expect(out).toContain('1 unknown or damaged');
    expect(out).toContain('the first of them: damaged.log:4: vtd_.[31mnonsense');
    const strict = await invoke(['replay', 'damaged.log', '--strict'], { cwd });
    expect(strict).toMatchObject({ code: 2, err: '1 unknown or damaged line, and --strict\n' });
  });

  it('exits 3 with the first answers that differ', async () => {
    const lines = qemu.split('\n');
    const at = lines.findIndex((line) => line.includes('vtd_dmar_translate'));
    const changed = (lines[at] ?? '').replace(/gpa 0x([0-9a-f]+)/, 'gpa 0xdead000');
    expect(changed).not.toBe(lines[at]);
    const cwd = directory({ 'changed.log': lines.with(at, changed).join('\n') });
    const { code, out } = await invoke(['replay', 'changed.log'], { cwd });
    expect(code).toBe(3);
    expect(out).toMatch(/^DIFFERS /);
    expect(out).toContain(`changed.log:${at + 1}: `);
    expect(out).toContain('recorded page 0xdead000');
  });

  it.each([
    [['nosuch.log'], 'nosuch.log: no such file'],
    [['.'], '.: is a directory, not a file'],
    [['empty'], 'empty: the input is empty'],
    [['text'], 'text: neither a QEMU vtd_* log nor ftrace text nor a log of iommufd calls; the first line is "hello"'],
    [['cut.gz'], 'cut.gz: the gzip stream ends too early'],
    [['bad.gz'], 'bad.gz: the gzip stream is damaged'],
    [['qemu.log', 'qemu.log'], 'both are QEMU logs'],
    [['ftrace.txt', 'ftrace.txt'], 'both are ftrace text'],
    [['iofd.log', 'ftrace.txt'], 'a log of iommufd calls and ftrace text; two files must be'],
    [['qemu.log', 'nosuch'], 'nosuch: no such file'],
    [['qemu.log', 'ftrace.txt', 'text'], 'not 3 files'],
    [['-', '-'], 'only one of the files can be -'],
  ])('%j cannot be used', async (files, message) => {
    const gzip = gzipSync(qemu);
    const bad = Uint8Array.from(gzip);
    bad.fill(0xff, 200, 260);
    const cwd = directory({
      empty: '',
      text: 'hello\n',
      'iofd.log': 'open iommu=3 vfio cdev=4 errno=0\n',
      'cut.gz': gzip.subarray(0, gzip.length >> 1),
      'bad.gz': bad,
    });
    const { code, out, err } = await invoke(['replay', ...files], { cwd });
    expect(err).toContain(message);
    expect({ code, out }).toEqual({ code: 2, out: '' });
  });

  it('does not take nothing for agreement', async () => {
    const cwd = directory({ 'head.txt': '# tracer: nop\n#\n' });
    const { code, out } = await invoke(['replay', 'head.txt'], { cwd });
    expect({ code, out }).toMatchObject({ code: 0, out: expect.stringMatching(/^NOTHING TO CHECK {2}0 maps/) });
  });

  it('ends on Ctrl-C while stdin says nothing', async () => {
    const terminal = fakeTerminal();
    const stdin = async function* () {
      yield await new Promise<Uint8Array>(() => undefined);
    };
    const running = runApplication(
      ['replay', '-'],
      { ...terminal, stdin },
      { buildMachine: fakeMachine(), verifier: NO_PROTOCOLS },
    );
    await new Promise((resolve) => setImmediate(resolve));
    terminal.interrupt();
    expect(await running).toBe(130);
  });

  it('ends on Ctrl-C', async () => {
    const cwd = directory({ 'long.log': qemu.repeat(20) });
    const terminal = fakeTerminal({ cwd });
    const running = runApplication(['replay', 'long.log'], terminal, {
      buildMachine: fakeMachine(),
      verifier: NO_PROTOCOLS,
    });
    terminal.interrupt();
    expect(await running).toBe(130);
    expect(terminal.out()).toBe('');
    expect(terminal.err()).toContain('interrupted');
  });
});
