import { defineConfig } from 'tsup';

/** A package for others to import: ESM, CommonJS and declarations from `src/index.ts`. */
export function libraryBuild(
  entry: Record<string, string> = { index: 'src/index.ts' },
): ReturnType<typeof defineConfig> {
  return defineConfig({
    entry,
    format: ['esm', 'cjs'],
    platform: 'neutral',
    target: 'es2022',
    tsconfig: 'tsconfig.src.json',
    dts: true,
    clean: true,
    sourcemap: true,
    treeshake: true,
    silent: true,
  });
}

/**
 * A command: one ESM file with the workspace's packages bundled from their sources, so that building it needs
 * none of them built first. Libraries from the registry stay imports, and are the application's dependencies.
 */
export function applicationBuild(entry: Record<string, string>): ReturnType<typeof defineConfig> {
  return defineConfig({
    entry,
    format: ['esm'],
    platform: 'node',
    target: 'node20',
    tsconfig: 'tsconfig.src.json',
    noExternal: [/^@faultline\//],
    clean: true,
    sourcemap: true,
    silent: true,
    esbuildOptions(options) {
      options.conditions = ['@faultline/source'];
    },
  });
}
