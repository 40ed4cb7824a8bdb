import { defaultServerConditions } from 'vite';
import { defineConfig } from 'vitest/config';

// The workspace's packages are tested from their sources: nothing has to be built first.
const conditions = ['@faultline/source', ...defaultServerConditions];

/** `vitest run` leaves `*.slow.test.ts` out; `vitest run --mode slow` runs only those. */
export function packageTests(): ReturnType<typeof defineConfig> {
  return defineConfig(({ mode }) => {
    const slow = mode === 'slow';
    return {
      resolve: { conditions },
      ssr: { resolve: { conditions, externalConditions: conditions } },
      test: {
        include: slow ? ['test/**/*.slow.test.ts'] : ['test/**/*.test.ts'],
        exclude: slow ? [] : ['test/**/*.slow.test.ts'],
        passWithNoTests: true,
        testTimeout: slow ? 600_000 : 20_000,
        reporters: ['default', 'json'],
        outputFile: { json: slow ? 'reports/vitest-slow.json' : 'reports/vitest.json' },
        coverage: { provider: 'v8', include: ['src/**'], reportsDirectory: 'reports/coverage' },
      },
    };
  });
}
