export type {
  ExplorationResult,
  ExploredSystem,
  ExploredTask,
  ExploreOptions,
  ScheduledStep,
  Violation,
} from './explorer.ts';
export { explore, InvariantError } from './explorer.ts';
export type { ConfigurationResult, Protocol, VerifyOptions, VerifyResult } from './protocols.ts';
export { PROTOCOLS, SPLIT_CONFIGURATIONS, verify, verifySplit } from './protocols.ts';
export type { SplitConfiguration, SplitProtocol } from './split-world.ts';
export { SplitWorld } from './split-world.ts';
