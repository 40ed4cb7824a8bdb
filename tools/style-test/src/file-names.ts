/** Names that say nothing of what is inside. */
const vague = ['utils', 'util', 'helpers', 'helper', 'common', 'types', 'misc'];

const shape =
  /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|slow\.test|frozen\.test|test-d|bench|config|shared))?\.(ts|tsx|mts|mjs|js)$/;

/** Code files are named for one noun of the hardware or the kernel, in kebab case; `paths` use `/`. */
export function fileNameViolations(paths: readonly string[]): string[] {
  return paths.flatMap((path) => {
    const parts = path.split('/');
    const name = parts.at(-1) ?? '';
    if (!shape.test(name)) return [`${path}: not a kebab-case name`];
    const stems = [...parts.slice(0, -1), name.replace(/\..*$/, '')];
    const bad = stems.find((stem) => vague.includes(stem) || vague.includes(stem.split('-').at(-1) ?? ''));
    return bad === undefined ? [] : [`${path}: "${bad}" does not say what is inside`];
  });
}
