export type { MachineOptions, MachineProgress } from './machine.ts';
export { Machine } from './machine.ts';
export type { Scenario, ScenarioInput, Strategy } from './scenario.ts';
export { PLANNED_STRATEGIES, STRATEGIES, scenarioJsonSchema, scenarioSchema } from './scenario.ts';
export type { BuiltInScenario } from './scenarios.ts';
export { BUILT_IN_SCENARIOS } from './scenarios.ts';
export type {
  CrashStats,
  DmaStats,
  FaultStats,
  HostMmStats,
  InvariantStats,
  IoptStats,
  IotlbStats,
  MarkStats,
  StatsDocument,
  ThresholdStats,
  VmStats,
} from './stats.ts';
export type { Threshold } from './threshold.ts';
export { evaluateThresholds, parseThreshold } from './threshold.ts';
export { VERSION } from './version.ts';
