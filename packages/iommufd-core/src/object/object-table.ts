import { type Agent, Condition, type Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';

/** The types of objects. */
export type ObjectType =
  | 'DEVICE'
  | 'HWPT_PAGING'
  | 'HWPT_NESTED'
  | 'IOAS'
  | 'ACCESS'
  | 'FAULT'
  | 'VIOMMU'
  | 'VDEVICE'
  | 'VEVENTQ';

/** An object of an open /dev/iommu, with the two counts that Linux keeps of it. */
export abstract class IommufdObject {
  abstract readonly type: ObjectType;
  /** From 1; set when it enters the table. */
  id = 0;
  /** Who refers to it; 1 is the table's own. Only then may a user destroy it. */
  users = 1;
  /** Calls that are at work on it, and 1; whoever takes it away in the kernel waits for them. */
  waitCount = 1;
  /** Whether the call that makes it has succeeded: only then is it found. */
  finalized = false;

  /** Ends the object, which has left the table. */
  abstract destroy(agent: Agent): Task<void>;
}

/** Largest id: xa_limit_31b. */
const LAST_ID = 2 ** 31 - 1;

/** The ids of one open /dev/iommu: lowest free first, and the rules by which objects go (iommufd/main.c). */
export class ObjectTable {
  /** Null is a tombstone: the id of a VDEVICE whose device went away, not to be used again. */
  readonly #objects = new Map<number, IommufdObject | null>();
  #lowestFree = 1;
  /** Kernel-side destroys that wait for calls to end. */
  readonly #idle = new Set<Condition>();

  /** Objects, without tombstones. */
  get size(): number {
    let size = 0;
    for (const object of this.#objects.values()) if (object) size++;
    return size;
  }

  /** Whether there is nothing at all, not even a tombstone. */
  get isEmpty(): boolean {
    return this.#objects.size === 0;
  }

  /** Every object, by id. */
  objects(): IommufdObject[] {
    const found = [...this.#objects.values()].filter((object) => object !== null);
    return found.sort((a, b) => a.id - b.id);
  }

  /** Gives an object the lowest free id; it is not found until {@link finalize}. @throws IommufdError ENOSPC */
  add<T extends IommufdObject>(object: T): T {
    let id = this.#lowestFree;
    while (this.#objects.has(id)) id++;
    if (id > LAST_ID) throw new IommufdError('ENOSPC', 'no object id is free');
    this.#lowestFree = id + 1;
    object.id = id;
    this.#objects.set(id, object);
    return object;
  }

  /** The call that made it succeeds: from here on it is found. */
  finalize<T extends IommufdObject>(object: T): T {
    object.finalized = true;
    return object;
  }

  /** The call that made it fails: the id is free again. */
  abort(object: IommufdObject): void {
    this.#free(object.id);
  }

  /**
   * The object of an id, if it is of one of the types, kept from going until {@link put}.
   * @throws IommufdError ENOENT: absent, not finalized, a tombstone, or of another type
   */
  get(id: number, ...types: ObjectType[]): IommufdObject {
    const object = this.#objects.get(id);
    if (!object?.finalized) throw new IommufdError('ENOENT', `id: there is no object ${id}`);
    if (types.length > 0 && !types.includes(object.type))
      throw new IommufdError('ENOENT', `id: object ${id} is a ${object.type}, not a ${types.join(' or ')}`);
    object.users++;
    object.waitCount++;
    return object;
  }

  /** Ends what {@link get} began. */
  put(object: IommufdObject): void {
    object.waitCount--;
    object.users--;
    for (const condition of this.#idle) condition.wake();
  }

  /** Looks at an object in one step: ends the hold at once. */
  peek<T extends IommufdObject>(object: T): T {
    this.put(object);
    return object;
  }

  /** IOMMU_DESTROY. @throws IommufdError ENOENT, EBUSY (somebody refers to it) */
  *destroy(agent: Agent, id: number): Task<IommufdObject> {
    const object = this.#objects.get(id);
    if (!object?.finalized) throw new IommufdError('ENOENT', `id: there is no object ${id}`);
    if (object.users !== 1)
      throw new IommufdError('EBUSY', `id: the ${object.type} ${id} has ${object.users - 1} users`);
    this.#free(id);
    yield* object.destroy(agent);
    return object;
  }

  /** Destroys an object if nobody but the table refers to it: an automatic HWPT whose last device went. */
  *tryDestroy(agent: Agent, object: IommufdObject): Task<void> {
    if (object.users !== 1 || this.#objects.get(object.id) !== object) return;
    this.#free(object.id);
    yield* object.destroy(agent);
  }

  /**
   * The kernel's own destroy, for a device that is unbound: waits for calls that are at work on the object. Linux gives up after 60
   * seconds; here there is no clock, and a scheduler finds the deadlock. @param tombstone the id stays unusable
   */
  *destroyInKernel(agent: Agent, object: IommufdObject, tombstone = false): Task<void> {
    object.finalized = false; // nobody finds it any more
    const idle = new Condition(`${object.type} ${object.id} idle`, () => object.waitCount === 1);
    this.#idle.add(idle);
    while (!idle.ready()) yield agent.waits('wait for users', idle);
    this.#idle.delete(idle);
    if (tombstone) this.#objects.set(object.id, null);
    else this.#free(object.id);
    yield* object.destroy(agent);
  }

  /** close(): destroys in any order that the counts allow, until nothing is left, then forgets tombstones. */
  *close(agent: Agent): Task<void> {
    for (let destroyed = 1; destroyed > 0; ) {
      destroyed = 0;
      for (const object of this.objects().reverse()) {
        if (object.users !== 1) continue;
        yield* this.destroy(agent, object.id);
        destroyed++;
      }
    }
    for (const [id, object] of this.#objects) if (object === null) this.#free(id);
  }

  #free(id: number): void {
    this.#objects.delete(id);
    this.#lowestFree = Math.min(this.#lowestFree, id);
  }
}
