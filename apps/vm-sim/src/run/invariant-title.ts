/** The invariants in a few words each, by id. */
const TITLES: Readonly<Record<string, string>> = {
  I1: 'no stale DMA',
  I2: 'no lost write',
  I3: 'no walk to error',
  I4: 'hitless',
  I5: 'table lifetime',
  I6: 'dirty kept',
  I7: 'metadata unchanged',
  I8: 'notifier succeeds',
  I9: 'one answer',
  I10: 'no map under invalidation',
  I11: 'isolation',
  I12: 'balance',
  I13: 'progress',
};

/** `I1 no stale DMA`. */
export const invariantTitle = (id: string): string => (TITLES[id] === undefined ? id : `${id} ${TITLES[id]}`);
