import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildMachine } from '../src/run/driven-machine.ts';
import { invoke } from './support/invocation.ts';
import { temporaryDirectory } from './support/temporary-directory.ts';

async function check(text: string, name = 's.yaml') {
  const cwd = temporaryDirectory();
  writeFileSync(join(cwd, name), text);
  return invoke(['check', name], { cwd });
}

describe('a scenario file', () => {
  it('may be YAML, JSON or stdin', async () => {
    expect(await check('vm: { memory: 2G }\n')).toMatchObject({ code: 0, err: '' });
    expect(await check('{"vm": {"memory": "2G"}}', 's.json')).toMatchObject({ code: 0 });
    expect(await invoke(['check', '-'], { stdin: 'name: piped\n' })).toMatchObject({
      code: 0,
      out: expect.stringContaining('scenario piped'),
    });
  });

  it('keeps hexadecimal addresses, which YAML takes for numbers', async () => {
    const text = 'events:\n  - { at: 1ms, action: madvise-dontneed, gpa: 0x180800000, length: 2M }\nname: 7\n';
    const { out } = await invoke(['check', '-', '--json'], { stdin: text });
    expect(JSON.parse(out)).toMatchObject({ name: '7', events: [{ gpa: '0x180800000' }] });
  });

  it('resolves anchors, and finds places through them', async () => {
    const { out } = await invoke(['check', '-', '--json'], {
      stdin: 'host: { memory: &size 32G }\nvm: { memory: *size }\n',
    });
    expect(JSON.parse(out).vm.memory).toBe('32G');
    const { err } = await check('host: { memory: &size 32 }\nvm: { memory: *size }\n');
    expect(err).toContain('s.yaml:1:23: host.memory: expected a size');
    expect(err).toContain('s.yaml:2:15: vm.memory: expected a size');
  });

  it.each([
    ['vm:\n  memory: 16\n', 's.yaml:2:11: vm.memory: expected a size such as 4K, 2M or 16G, got "16"'],
    ['vm:\n  memroy: 16G\n', 's.yaml:2:3: unknown key "memroy" in vm; did you mean "memory"?'],
    ['memory: 16G\n', 's.yaml:1:1: unknown key "memory"; there is name'],
    ['vm:\n  devices:\n    nic:\n      queues: 0\n', 's.yaml:4:15: vm.devices.nic.queues: expected at least 1, got 0'],
    ['reclaim: { batch: 4K }\n', 's.yaml:1:19: reclaim.batch: expected a number, got "4K"'],
    ['reclaim: { batch: 1.5 }\n', 's.yaml:1:19: reclaim.batch: expected a whole number, got 1.5'],
    ['strategy: cutt\n', 's.yaml:1:11: strategy: expected one of'],
    [
      'vm: { backing: 3M }\n',
      's.yaml:1:16: vm.backing: expected one of 4K, thp-2M, hugetlb-2M, hugetlb-1G, contiguous, contiguous-4K, pud-thp, got "3M"',
    ],
    ['strategy: piared\n', 's.yaml:1:11: strategy: expected one of pinned,'],
    ['duration: 5\n', 's.yaml:1:11: duration: expected a duration such as 10us or 50ms, got "5"'],
    ['vm:\nhost: { memory: 2G }\n', 's.yaml:1:1: vm: expected a map, got nothing; leave the key out'],
    ['vm: [1]\n', 's.yaml:1:5: vm: expected a map, got a list'],
    ['events:\n  - { at: 1ms, gpa: 0x0, length: 2M }\n', 's.yaml:2:5: events[0].action'],
    ['events:\n  - { action: compact }\n', 's.yaml:2:5: events[0].at is missing; expected a duration'],
    ['thresholds: [dma.p99 < 3us]\n', 's.yaml:1:14: threshold "dma.p99 < 3us": no field "p99"'],
    ['vm: { name: "A B" }\n', 's.yaml:1:13: vm.name: expected text that matches'],
    ['a: 1\na: 2\n', 's.yaml:2:1: this key stands here for the second time'],
    ['name: a\n---\nname: b\n', 's.yaml:2:1: a second document begins here; expected one scenario'],
    ['\u0000\u0001: \n', 's.yaml: this is not text in UTF-8'],
    ['- 1\n', 's.yaml:1:1: expected a map such as'],
    ['16G\n', 's.yaml:1:1: expected a map such as'],
    ['', 's.yaml:1:1: the file is empty'],
    ['# nothing\n', 's.yaml:1:1: the file is empty'],
    ['vm: { memory: 2G\n', 's.yaml:2:1: '],
    ['vm:\n\tmemory: 2G\n', 's.yaml:2:1: '],
    ['a: &a [*a]\n', 's.yaml:1:'],
    ['schema: faultline.stats/1\n', 's.yaml:1:9: expected a scenario or the config.json of a run'],
    ['schema: faultline.config/1\nseed: 1.5\nscenario: {}\n', 's.yaml:2:7: seed: expected a whole number'],
    ['schema: faultline.config/1\nseed: 1\n', 's.yaml:1:1: expected the scenario of a run'],
    [
      'schema: faultline.config/1\nseed: 1\nscenario: { vm: { memory: 3 } }\n',
      's.yaml:3:27: vm.memory: expected a size',
    ],
  ])('%j is refused with its place', async (text, message) => {
    const { code, out, err } = await check(text);
    expect(err).toContain(message);
    expect({ code, out }).toEqual({ code: 2, out: '' });
  });

  it('complains of everything at once', async () => {
    const { err } = await check('vm: { memory: 1, backing: 5G }\nhots: {}\n');
    expect(err.trimEnd().split('\n')).toHaveLength(3);
    expect(err).toContain('s.yaml:2:1: unknown key "hots"; did you mean "host"?');
  });

  it.each([
    ['nosuch.yaml', 'nosuch.yaml: no such file'],
    ['./sub', './sub: no such file'],
    ['pined-baseline', 'did you mean "pinned-baseline"?'],
    ['lits', 'did you mean the command "list"?'],
    ['xyzzy', 'neither a built-in scenario (1g-swap-storm, '],
    ['.', '.: is a directory, not a scenario file'],
  ])('%s that is not there is refused', async (name, message) => {
    const cwd = temporaryDirectory();
    const { code, err } = await invoke(['run', name], { cwd });
    expect(err).toContain(message);
    expect(code).toBe(2);
  });

  it('says what a trace is not', async () => {
    const cwd = temporaryDirectory();
    writeFileSync(join(cwd, 'x.gz'), new Uint8Array([0x1f, 0x8b, 8, 0]));
    expect((await invoke(['x.gz'], { cwd })).err).toContain('traces go to vm-sim replay');
    writeFileSync(join(cwd, 'big'), new Uint8Array(5 << 20));
    expect((await invoke(['big'], { cwd })).err).toContain('too many for a scenario');
  });

  it('that cannot be built is the user’s fault, not ours', async () => {
    const { fakeMachine } = await import('./support/fake-machine.ts');
    const buildMachine = fakeMachine({ fail: new RangeError('vm.memory: 64G is more than host.memory, 24G') });
    for (const command of ['check', 'run'])
      expect(await invoke([command, 'whole-leaf'], { buildMachine })).toMatchObject({
        code: 2,
        err: expect.stringContaining('error: whole-leaf: vm.memory: 64G is more than host.memory'),
      });
  });

  it('is refused with its place, too, by the machine', async () => {
    const stdin = 'duration: 1ms\nvm: { memory: 1025M }\n';
    expect(await invoke(['check', '-'], { stdin, buildMachine })).toMatchObject({
      code: 2,
      err: expect.stringContaining('<stdin>:2:15: vm.memory: 1025M is not a multiple of its backing, pud-thp'),
    });
  });
});
