/** A member of a {@link LinkedList}; in one list at a time. */
export interface Linked<T> {
  prev: T | null;
  next: T | null;
}

/** A doubly linked list through its members, for O(1) removal from the middle. */
export class LinkedList<T extends Linked<T>> {
  first: T | null = null;

  pushFront(member: T): void {
    member.prev = null;
    member.next = this.first;
    if (this.first) this.first.prev = member;
    this.first = member;
  }

  /** Takes out a member of this list. */
  remove(member: T): void {
    if (member.prev) member.prev.next = member.next;
    else this.first = member.next;
    if (member.next) member.next.prev = member.prev;
    member.prev = null;
    member.next = null;
  }
}
