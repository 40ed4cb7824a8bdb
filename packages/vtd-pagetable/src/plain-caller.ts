import { Agent } from '@faultline/sim';

/** The agent of plain method calls, which run with no scheduler and nobody else. */
export const PLAIN_CALLER = new Agent('caller');
