import { parseDurationNs, parseSize } from '@faultline/address';
import { z } from 'zod';

const quantity = (what: 'size' | 'duration', example: string) =>
  z.string().superRefine((text, context) => {
    try {
      if (what === 'size') parseSize(text);
      else parseDurationNs(text);
    } catch {
      context.addIssue({ code: 'custom', message: `expected a ${what} such as ${example}, got "${text}"` });
    }
  });

/** A size with a unit, in bytes once parsed: `4K`, `16G`, `0x1000`. */
export const size = (description: string) => quantity('size', '4K, 2M or 16G').describe(description);
/** A duration with a unit, in ns once parsed: `10us`, `50ms`. */
export const duration = (description: string) => quantity('duration', '10us or 50ms').describe(description);
/** A whole number. */
export const count = (description: string, minimum = 0, maximum = 1e9) =>
  z.number().int().min(minimum).max(maximum).describe(description);
/** A share, 0 to 1. */
export const fraction = (description: string) => z.number().min(0).max(1).describe(description);
