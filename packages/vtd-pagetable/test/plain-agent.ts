import { Agent } from '@faultline/sim';

/** The agent of tasks that a test runs to their end. */
export const PLAIN = new Agent('test');
