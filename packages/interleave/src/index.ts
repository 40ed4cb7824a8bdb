export { InvariantError } from './execution.ts';
export type { ExplorationResult, ExploreOptions } from './explorer.ts';
export { explore } from './explorer.ts';
export type { ConfigurationResult, Protocol, VerifyOptions, VerifyResult } from './protocols.ts';
export { PROTOCOLS, SPLIT_CONFIGURATIONS, verify, verifySplit } from './protocols.ts';
export type { SplitConfiguration, SplitProtocol } from './split-world.ts';
export { SplitWorld } from './split-world.ts';
export type { Counterexample, ScheduledStep } from './schedule.ts';
export type { ExploredSystem, ExploredTask, Violation } from './system.ts';
