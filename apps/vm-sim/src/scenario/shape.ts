import { scenarioJsonSchema } from '@faultline/machine';

/** The parts of a JSON schema that say what a value must look like. */
export interface Shape {
  readonly type?: string;
  readonly description?: string;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly items?: Shape;
  readonly anyOf?: readonly Shape[];
}

/** A way into a scenario: `['vm', 'memory']`, `['events', 0, 'at']`. */
export type KeyPath = readonly (string | number)[];

/** The shape of a whole scenario. */
export const scenarioShape = (): Shape => scenarioJsonSchema() as Shape;

/** The alternative that is not null. */
function solid(shape: Shape): Shape {
  return shape.anyOf?.find(({ type }) => type !== 'null') ?? shape;
}

/** Whether null may stand there. */
export const isNullable = (shape: Shape): boolean => shape.anyOf?.some(({ type }) => type === 'null') ?? false;

/** Keys of a map, empty for everything else. */
export const keysOf = (shape: Shape): string[] => Object.keys(solid(shape).properties ?? {});

/** The shape of a member, or undefined if there is none of that name. */
export function memberOf(shape: Shape, key: string | number): Shape | undefined {
  const { properties, items, type } = solid(shape);
  if (type === 'array') return /^\d+$/.test(String(key)) ? items : undefined;
  return properties !== undefined && Object.hasOwn(properties, key) ? properties[key] : undefined;
}

/** The shape at the end of a path, or undefined. */
export function shapeAt(shape: Shape, path: KeyPath): Shape | undefined {
  let at: Shape | undefined = shape;
  for (const key of path) at = at === undefined ? undefined : memberOf(at, key);
  return at;
}

/** What must stand there: `string`, `number`, `integer`, `object`, `array`. */
export const typeOf = (shape: Shape): string => solid(shape).type ?? 'anything';

/** The words that may stand there; empty if any may. */
export const wordsOf = (shape: Shape): string[] => (solid(shape).enum ?? []).map(String);

/** All paths to single values, dotted; lists end in their own name. */
export function leafPaths(shape: Shape, prefix = ''): string[] {
  return keysOf(shape).flatMap((key) => {
    const member = memberOf(shape, key);
    const path = prefix === '' ? key : `${prefix}.${key}`;
    return member !== undefined && typeOf(member) === 'object' ? leafPaths(member, path) : [path];
  });
}

/** `vm.memory`, `events[0].at`. */
export function dotted(path: KeyPath): string {
  let text = '';
  for (const key of path) text += typeof key === 'number' ? `[${key}]` : text === '' ? key : `.${key}`;
  return text;
}
