import {
  type Document,
  isAlias,
  isCollection,
  isMap,
  isNode,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
} from 'yaml';
import { UsageError } from '../exit-code.ts';
import { type KeyPath, memberOf, type Shape, typeOf } from './shape.ts';

/** A scenario as text (YAML, or JSON, which is YAML), read but not yet checked against the schema. */
export interface ScenarioText {
  readonly value: Record<string, unknown>;
  /** `file:line:column` of a value, or of a key; of the nearest map around it if it is not there. */
  placeOf(path: KeyPath, atKey: boolean): string;
}

function plainMessage(code: string, message: string): string {
  if (code === 'DUPLICATE_KEY') return 'this key stands here for the second time';
  if (code === 'MULTIPLE_DOCS') return 'a second document begins here; expected one scenario';
  return message.replace(/\s+/g, ' ');
}

/**
 * Reads a scenario's text.
 * @param name of the file, for messages
 * @throws UsageError with `file:line:column` for text that is no YAML, empty, or not a map
 */
export function readScenarioText(name: string, text: string, shape: Shape): ScenarioText {
  if (text.includes('\u0000') || text.includes('\ufffd'))
    throw new UsageError(`${name}: this is not text in UTF-8; expected a scenario in YAML or JSON`);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const place = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${Math.max(line, 1)}:${Math.max(col, 1)}`;
  };
  if (document.errors.length > 0) {
    const shownErrors = document.errors.slice(0, 5);
    throw new UsageError(
      shownErrors.map(({ code, message, pos }) => `${place(pos[0])}: ${plainMessage(code, message)}`).join('\n'),
    );
  }
  const root = document.contents;
  if (root === null || (isScalar(root) && root.value === null))
    throw new UsageError(`${name}:1:1: the file is empty; expected a scenario (vm-sim schema says what it may hold)`);
  const offsetOf = (node: Node | null): number => node?.range?.[0] ?? 0;
  if (!isMap(root)) {
    const found = isSeq(root) ? 'a list' : 'a single value';
    throw new UsageError(
      `${place(offsetOf(root))}: expected a map such as "vm: { memory: 16G }" (vm-sim schema says what it may hold), found ${found}`,
    );
  }
  keepTexts(root, shape, document);
  return {
    value: toPlain(document, place),
    placeOf: (path, atKey) => place(offsetOf(nodeAt(root, path, atKey, document))),
  };
}

function toPlain(document: Document, place: (offset: number) => string): Record<string, unknown> {
  try {
    return document.toJS() as Record<string, unknown>;
  } catch (error) {
    throw new UsageError(`${place(0)}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Where the schema wants a text, what stands there is one: `gpa: 0x1000` is not the number 4096, `memory: 16` not 16. */
export function keepTexts(node: unknown, shape: Shape | undefined, document: Document): void {
  if (shape === undefined) return;
  if (isScalar(node)) {
    const isValue = typeof node.value === 'number' || typeof node.value === 'boolean';
    if (typeOf(shape) === 'string' && isValue) node.value = node.source ?? String(node.value);
    return;
  }
  if (isAlias(node)) keepTexts(node.resolve(document), shape, document);
  if (!isCollection(node)) return;
  node.items.forEach((item, index) => {
    if (isPair(item)) keepTexts(item.value, memberOf(shape, keyText(item.key)), document);
    else keepTexts(item, memberOf(shape, index), document);
  });
}

const keyText = (key: unknown): string => String(isScalar(key) ? key.value : key);

function nodeAt(root: Node, path: KeyPath, atKey: boolean, document: Document): Node {
  let node: Node = root;
  let found: Node = root;
  for (const [index, key] of path.entries()) {
    const target: unknown = isAlias(node) ? node.resolve(document) : node;
    const last = index === path.length - 1;
    if (isMap(target)) {
      const pair = target.items.find((item) => keyText(item.key) === String(key));
      if (pair === undefined) return found;
      if (isNode(pair.key)) found = pair.key;
      if (last && atKey) return found;
      if (!isNode(pair.value) || (isScalar(pair.value) && pair.value.value === null && !pair.value.source))
        return found;
      node = pair.value;
    } else if (isSeq(target)) {
      const item = target.items[Number(key)];
      if (!isNode(item)) return found;
      node = item;
    } else return found;
    found = node;
  }
  return found;
}
