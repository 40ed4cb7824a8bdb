import { importsOf, packageOf, type Source } from './source.ts';

const scope = '@faultline/';

/** The packages bottom up, as in ARCHITECTURE.md: each may depend only on those before it. */
export const layers: readonly string[] = [
  'address',
  'sim',
  'vtd-pagetable',
  'iotlb',
  'vtd-remapping',
  'pci-device',
  'host-mm',
  'iommufd-core',
  'vm-guest',
  'machine',
  'interleave',
  'trace-formats',
];

/**
 * Lower layers that a package must still not know: iommufd declares the interfaces that it consumes, and `machine`
 * plugs the hardware and the host's memory management into them; a guest sees devices and nothing of its host.
 */
const strangers: Readonly<Record<string, readonly string[]>> = {
  'host-mm': ['vtd-pagetable', 'iotlb', 'vtd-remapping', 'pci-device'],
  'iommufd-core': ['vtd-pagetable', 'iotlb', 'vtd-remapping', 'pci-device', 'host-mm'],
  'vm-guest': ['host-mm', 'iommufd-core'],
};

/** Why `user` may not depend on the workspace package `used`, both without scope; undefined if it may. */
function objectionTo(user: string, used: string, inTests: boolean): string | undefined {
  if (!layers.includes(used)) return `${scope}${used} is no package of a layer`;
  if (layers.indexOf(used) >= layers.indexOf(user)) return `${scope}${used} is not in a layer below ${user}`;
  if (!inTests && strangers[user]?.includes(used)) return `${user} must not know ${scope}${used}`;
  return undefined;
}

/** The order holds for what tests need, too: a cycle through tests would be a cycle of turbo's tasks. */
export function layerViolations(
  name: string,
  dependencies: readonly string[],
  devDependencies: readonly string[],
  sources: readonly Source[],
): string[] {
  if (!layers.includes(name))
    return [`${name} is in no layer: add it to the table in ARCHITECTURE.md and to layers.ts`];
  const uses = [
    ...dependencies.map((used) => ({ used, inTests: false, place: 'package.json' })),
    ...devDependencies.map((used) => ({ used, inTests: true, place: 'package.json' })),
    ...sources.flatMap((source) =>
      importsOf(source).map(({ specifier, place }) => ({
        used: packageOf(specifier) ?? '',
        inTests: source.path.startsWith('test/'),
        place,
      })),
    ),
  ];
  return uses.flatMap(({ used, inTests, place }) => {
    if (!used.startsWith(scope) || used === scope + name) return [];
    const objection = objectionTo(name, used.slice(scope.length), inTests);
    return objection === undefined ? [] : [`${place}: ${objection}`];
  });
}
