export { HOST_ACTIONS } from './host-event.ts';
export type { MachineOptions, MachineProgress } from './machine.ts';
export { Machine } from './machine.ts';
export type { Scenario, ScenarioInput, Strategy, VmSettings } from './scenario.ts';
export { STRATEGIES, scenarioJsonSchema, scenarioSchema, vmsOf } from './scenario.ts';
export { BUILT_IN_SCENARIOS } from './scenarios.ts';
export type { BuiltInScenario } from './stage2-scenarios.ts';
export type {
  CrashStats,
  DmaStats,
  EventStats,
  FaultStats,
  HostMmStats,
  InjectionStats,
  InnocentStats,
  InvariantStats,
  IoptStats,
  IotlbStats,
  MarkStats,
  RefusalStats,
  StatsDocument,
  ThresholdStats,
  VmStats,
} from './stats.ts';
export { randomScenario } from './storm/random-scenario.ts';
export type { ShrinkScenarioOptions, ShrunkFailure } from './storm/shrink-scenario.ts';
export { shrinkScenario } from './storm/shrink-scenario.ts';
export type { StormFeatureKind, StormFeatures } from './storm/storm-features.ts';
export { featuresOf, STORM_FEATURE_KINDS } from './storm/storm-features.ts';
export type { StormFigures, StormOutcome } from './storm/storm-run.ts';
export { runStormMachine } from './storm/storm-run.ts';
export type { StrategyClaims } from './strategy-choice.ts';
export { claimsOf } from './strategy-choice.ts';
export type { Threshold } from './threshold.ts';
export { evaluateThresholds, parseThreshold } from './threshold.ts';
export { VERSION } from './version.ts';
