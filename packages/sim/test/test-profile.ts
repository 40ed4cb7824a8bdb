import { Cost, type CostName, type CostProfile } from '../src/index.ts';

/** Every class costs its own number in tenths of a nanosecond a unit, so that rounding matters; `nanosecond` costs 1. */
export const TEST_PROFILE: CostProfile = Object.fromEntries(
  (Object.keys(Cost) as CostName[]).map((name) => [
    name,
    { ns: name === 'nanosecond' ? 1 : Cost[name] / 10, source: 'test' },
  ]),
) as unknown as CostProfile;
