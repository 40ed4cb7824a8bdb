import ts from 'typescript';
import { placeOf, type Source, walk } from './source.ts';

/** A longer file models more than one thing. */
const longestFileLines = 450;

export function lengthViolations(source: Source): string[] {
  const lines = source.text.split('\n').length - (source.text.endsWith('\n') ? 1 : 0);
  return lines > longestFileLines ? [`${source.path}: ${lines} lines, more than ${longestFileLines}`] : [];
}

/** No `any`, no enum, no silenced compiler, and `!` only where an index into an array is known to be in range. */
export function languageViolations(source: Source): string[] {
  const found: string[] = [];
  for (const [index, line] of source.text.split('\n').entries()) {
    const silenced = /(?:\/\/|\/\*|^\s*\*)\s*(@ts-(?:ignore|nocheck))/.exec(line);
    if (silenced) found.push(`${source.path}:${index + 1}: ${silenced[1]}`);
  }
  walk(source, (node) => {
    if (node.kind === ts.SyntaxKind.AnyKeyword) found.push(`${placeOf(source, node)}: any`);
    if (ts.isEnumDeclaration(node)) found.push(`${placeOf(source, node)}: enum`);
    if (ts.isNonNullExpression(node) && !ts.isElementAccessExpression(node.expression)) {
      found.push(`${placeOf(source, node)}: non-null ! outside indexing`);
    }
  });
  return found;
}

/** What a package gives to others is written out by name in its `src/index.ts`. */
export function indexViolations(source: Source): string[] {
  const found: string[] = [];
  let names = 0;
  for (const statement of source.tree.statements) {
    if (ts.isExportAssignment(statement)) found.push(`${placeOf(source, statement)}: default export`);
    if (!ts.isExportDeclaration(statement)) continue;
    if (statement.exportClause !== undefined && ts.isNamedExports(statement.exportClause)) {
      names += statement.exportClause.elements.length;
    } else {
      found.push(`${placeOf(source, statement)}: export * instead of names`);
    }
  }
  if (names === 0 && found.length === 0) found.push(`${source.path}: exports nothing by name`);
  return found;
}
