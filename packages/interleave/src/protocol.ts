import type { ExploredSystem } from './system.ts';

/** A small but complete world in which a protocol runs. */
export interface ProtocolConfiguration {
  readonly name: string;
  /** Builds it anew, the same each time. */
  readonly build: () => ExploredSystem;
}

/** A protocol that can be verified. */
export interface Protocol {
  readonly name: string;
  /** What it claims, in one line: a verdict is about this and the invariants, and nothing else. */
  readonly title: string;
  readonly configurations: readonly ProtocolConfiguration[];
}
