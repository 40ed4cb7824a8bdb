import ts from 'typescript';
import { importsOf, isBuiltin, placeOf, type Source, walk } from './source.ts';

/** Members that read a wall clock or an unseeded source of randomness. */
const bannedMembers: Readonly<Record<string, readonly string[]>> = {
  Date: ['now'],
  Math: ['random'],
  performance: ['now', 'timeOrigin', 'mark', 'measure'],
  crypto: ['getRandomValues', 'randomUUID'],
};

/** Globals that packages must not touch at all: timers, and what only some platforms have. */
const bannedGlobals = new Set([
  'setTimeout',
  'setInterval',
  'setImmediate',
  'requestAnimationFrame',
  'process',
  'console',
  'Buffer',
  '__dirname',
  '__filename',
]);

/** Names that the file declares: a parameter called `process` is a process of the modelled host, not Node's. */
function declaredNames(source: Source): Set<string> {
  const names = new Set<string>();
  walk(source, (node) => {
    const isDeclaration =
      ts.isVariableDeclaration(node) ||
      ts.isParameter(node) ||
      ts.isBindingElement(node) ||
      ts.isFunctionDeclaration(node) ||
      ts.isImportSpecifier(node);
    if (isDeclaration && node.name !== undefined && ts.isIdentifier(node.name)) names.add(node.name.text);
  });
  return names;
}

/** Whether the identifier is read as a value, and not the name of a member, a key or a type. */
function isValue(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.expression === node;
  if (ts.isQualifiedName(parent) || ts.isTypeNode(parent)) return false;
  const isNamed =
    ts.isPropertyAssignment(parent) ||
    ts.isPropertySignature(parent) ||
    ts.isPropertyDeclaration(parent) ||
    ts.isMethodDeclaration(parent) ||
    ts.isMethodSignature(parent) ||
    ts.isAccessor(parent) ||
    ts.isEnumMember(parent);
  return !(isNamed && parent.name === node);
}

function bannedUse(node: ts.Node, declared: ReadonlySet<string>): string | undefined {
  if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression)) {
    const object = node.expression.text;
    const member = node.name.text;
    if (object === 'globalThis' && (bannedGlobals.has(member) || Object.hasOwn(bannedMembers, member))) {
      return member === 'Math' ? undefined : `globalThis.${member}`;
    }
    if (Object.hasOwn(bannedMembers, object) && !declared.has(object) && bannedMembers[object]?.includes(member)) {
      return `${object}.${member}`;
    }
  }
  const isCall = ts.isNewExpression(node) || ts.isCallExpression(node);
  if (isCall && ts.isIdentifier(node.expression) && node.expression.text === 'Date' && !declared.has('Date')) {
    return ts.isNewExpression(node) ? 'new Date' : 'Date()';
  }
  if (ts.isIdentifier(node) && bannedGlobals.has(node.text) && !declared.has(node.text) && isValue(node)) {
    return node.text;
  }
  return undefined;
}

/**
 * The result of a run must follow from the scenario and the seed alone, and packages run in a browser too: no wall clock,
 * no unseeded randomness, no timer, no process, no console and no Node built-in.
 */
export function determinismViolations(source: Source): string[] {
  const declared = declaredNames(source);
  const found = importsOf(source)
    .filter(({ specifier }) => isBuiltin(specifier))
    .map(({ specifier, place }) => `${place}: imports the built-in ${specifier}`);
  walk(source, (node) => {
    const use = bannedUse(node, declared);
    if (use !== undefined) found.push(`${placeOf(source, node)}: uses ${use}`);
  });
  return found;
}
