import { describe, expect, test } from 'vitest';
import { determinismViolations } from '../src/determinism.ts';
import { fileNameViolations } from '../src/file-names.ts';
import { indexViolations, languageViolations, lengthViolations } from '../src/language.ts';
import { layers, layerViolations } from '../src/layers.ts';
import {
  applicationDependencyViolations,
  dependencyViolations,
  manifestViolations,
  versionViolations,
} from '../src/manifest.ts';
import { contentViolations } from '../src/package-contents.ts';
import { type Member, readChangesets, readMembers, readRootManifest } from '../src/repository.ts';

const packages = readMembers('packages');
const apps = readMembers('apps');
const changesets = readChangesets();
const rootManifest = readRootManifest();
const shared = Object.keys(rootManifest.devDependencies ?? {});
const workspace = new Map(packages.map((member) => [member.manifest.name, member.manifest]));

const namesOf = (dependencies: Readonly<Record<string, string>> | undefined): string[] =>
  Object.keys(dependencies ?? {});
const codeOf = (member: Member) => member.sources.filter((source) => source.path.startsWith('src/'));

test('every layer has its package', () => {
  expect(packages.map((member) => member.directory).sort()).toEqual([...layers].sort());
});

test('every dependency is pinned, to one version', () => {
  expect(versionViolations([rootManifest, ...[...packages, ...apps].map((member) => member.manifest)])).toEqual([]);
});

describe.each(packages.map((member) => [member.directory, member] as const))('packages/%s', (directory, member) => {
  const { manifest, sources } = member;
  test('depends only on lower layers', () => {
    const found = layerViolations(
      directory,
      namesOf(manifest.dependencies),
      namesOf(manifest.devDependencies),
      sources,
    );
    expect(found).toEqual([]);
  });
  test('declares what it imports', () => expect(dependencyViolations(manifest, sources, shared)).toEqual([]));
  test('uses no clock, randomness, timer, process, console or built-in', () => {
    expect(codeOf(member).flatMap(determinismViolations)).toEqual([]);
  });
  test('exports by name', () => {
    expect(sources.filter((source) => source.path === 'src/index.ts').flatMap(indexViolations)).toEqual([]);
  });
});

describe.each([...packages, ...apps].map((member) => [member.manifest.name, member] as const))('%s', (name, member) => {
  const { manifest, files, sources } = member;
  test('is named after its directory', () => expect(name).toBe(`@faultline/${member.directory}`));
  test('has files named for what is in them', () => {
    expect(
      fileNameViolations(files.filter((file) => /^((src|test|bin)\/.*\.(ts|tsx|mts|mjs|js)|[^/]+\.ts)$/.test(file))),
    ).toEqual([]);
  });
  test('has no any, enum, silenced compiler or stray !', () => {
    expect(codeOf(member).flatMap(languageViolations)).toEqual([]);
  });
  test('has no file over 450 lines', () => expect(codeOf(member).flatMap(lengthViolations)).toEqual([]));
  test('says what a published package must', () => expect(manifestViolations(manifest)).toEqual([]));
  test('brings a README, a licence, tests and a changeset', () => {
    expect(contentViolations({ name, files, changesets, isLibrary: packages.includes(member) })).toEqual([]);
  });
  if (apps.includes(member)) {
    test('declares what its bundle needs', () => {
      expect(applicationDependencyViolations(manifest, sources, workspace, shared)).toEqual([]);
    });
  }
});
