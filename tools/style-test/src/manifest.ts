import { isDeepStrictEqual } from 'node:util';
import { importsOf, packageOf, type Source } from './source.ts';

/** The parts of a package.json that the rules look at. */
export interface Manifest {
  readonly name: string;
  readonly version?: string;
  readonly private?: boolean;
  readonly license?: string;
  readonly type?: string;
  readonly sideEffects?: boolean;
  readonly description?: string;
  readonly exports?: Readonly<Record<string, unknown>>;
  readonly publishConfig?: { readonly access?: string; readonly exports?: unknown };
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

const sourceCondition = '@faultline/source';
const scope = '@faultline/';

function withoutSourceCondition(exports: unknown): unknown {
  if (typeof exports !== 'object' || exports === null) return exports;
  const kept = Object.entries(exports).filter(([key]) => key !== sourceCondition);
  return Object.fromEntries(kept.map(([key, value]) => [key, withoutSourceCondition(value)]));
}

/** What every published package says of itself. */
export function manifestViolations(manifest: Manifest): string[] {
  const found: string[] = [];
  const expect = (holds: boolean, message: string): void => {
    if (!holds) found.push(`package.json: ${message}`);
  };
  expect(manifest.license === 'MIT', 'license is not MIT');
  expect(manifest.type === 'module', 'type is not module');
  expect(manifest.sideEffects === false, 'sideEffects is not false');
  expect((manifest.description ?? '').length > 20, 'description is missing');
  expect(manifest.publishConfig?.access === 'public', 'publishConfig.access is not public');
  for (const [path, target] of Object.entries(manifest.exports ?? {})) {
    if (typeof target !== 'object' || target === null) continue;
    expect(Object.keys(target)[0] === sourceCondition, `exports["${path}"] does not start with ${sourceCondition}`);
    expect(
      isDeepStrictEqual(Object.keys(target), [sourceCondition, 'import', 'require']),
      `exports["${path}"] is not ${sourceCondition}, import, require`,
    );
  }
  if (manifest.publishConfig?.exports !== undefined) {
    expect(
      isDeepStrictEqual(withoutSourceCondition(manifest.exports), manifest.publishConfig.exports),
      `publishConfig.exports is not exports without ${sourceCondition}, which names a file that is not published`,
    );
  }
  return found;
}

/** The registry and workspace packages that the files import, each with the first place. */
function importedPackages(sources: readonly Source[]): Map<string, string> {
  const imported = new Map<string, string>();
  for (const { specifier, place } of sources.flatMap(importsOf)) {
    const name = packageOf(specifier);
    if (name !== undefined && !imported.has(name)) imported.set(name, place);
  }
  return imported;
}

/**
 * A library's `dependencies` are exactly what its `src` imports; its tests may import its `devDependencies` too, and those of
 * the root (`shared`).
 */
export function dependencyViolations(
  manifest: Manifest,
  sources: readonly Source[],
  shared: readonly string[],
): string[] {
  const run = Object.keys(manifest.dependencies ?? {});
  const test = [...run, ...Object.keys(manifest.devDependencies ?? {}), ...shared, manifest.name];
  const inSource = importedPackages(sources.filter((source) => source.path.startsWith('src/')));
  const inTests = importedPackages(sources.filter((source) => source.path.startsWith('test/')));
  return [
    ...[...inSource].flatMap(([name, place]) =>
      run.includes(name) || name === manifest.name ? [] : [`${place}: ${name} is not in dependencies`],
    ),
    ...[...inTests].flatMap(([name, place]) =>
      test.includes(name) ? [] : [`${place}: ${name} is in no dependencies`],
    ),
    ...run.flatMap((name) =>
      inSource.has(name) ? [] : [`package.json: ${name} is a dependency that src never imports`],
    ),
  ];
}

/**
 * An application bundles the workspace's packages, which are therefore its `devDependencies`, and leaves the libraries that they
 * and itself import to its `dependencies`. `workspace` holds the manifests of all packages by name.
 */
export function applicationDependencyViolations(
  manifest: Manifest,
  sources: readonly Source[],
  workspace: ReadonlyMap<string, Manifest>,
  shared: readonly string[],
): string[] {
  const run = manifest.dependencies ?? {};
  const bundled = Object.keys(manifest.devDependencies ?? {}).filter((name) => name.startsWith(scope));
  const imported = importedPackages(sources.filter((source) => source.path.startsWith('src/')));
  const needed = new Map<string, string | undefined>();
  const add = (name: string): void => {
    for (const [dependency, version] of Object.entries(workspace.get(name)?.dependencies ?? {})) {
      if (dependency.startsWith(scope)) add(dependency);
      else needed.set(dependency, version);
    }
  };
  for (const name of bundled) add(name);
  const found = Object.keys(run)
    .filter((name) => name.startsWith(scope))
    .map((name) => `package.json: ${name} is bundled, so it belongs in devDependencies`);
  for (const [name, place] of imported) {
    const list = name.startsWith(scope) ? bundled : Object.keys(run);
    if (!list.includes(name) && name !== manifest.name) found.push(`${place}: ${name} is not declared`);
  }
  for (const [name, version] of needed) {
    if (run[name] !== version)
      found.push(`package.json: a bundled package needs ${name} ${version}, dependencies say ${run[name]}`);
  }
  for (const name of Object.keys(run)) {
    if (!imported.has(name) && !needed.has(name)) found.push(`package.json: ${name} is needed by nothing`);
  }
  const test = [...Object.keys(run), ...Object.keys(manifest.devDependencies ?? {}), ...shared, manifest.name];
  for (const [name, place] of importedPackages(sources.filter((source) => source.path.startsWith('test/')))) {
    if (!test.includes(name)) found.push(`${place}: ${name} is in no dependencies`);
  }
  return found;
}

/** One version of a registry package in the whole repository, pinned. */
export function versionViolations(manifests: readonly Manifest[]): string[] {
  const seen = new Map<string, { version: string; by: string }>();
  const found: string[] = [];
  for (const manifest of manifests) {
    for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
      if (version === 'workspace:*') continue;
      if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) found.push(`${manifest.name}: ${name} ${version} is not pinned`);
      const first = seen.get(name);
      if (first === undefined) seen.set(name, { version, by: manifest.name });
      else if (first.version !== version) {
        found.push(`${manifest.name}: ${name} ${version}, but ${first.version} in ${first.by}`);
      }
    }
  }
  return found;
}
