/*
 * Invariants. pan prints the failed assertion, so its text says which invariant broke: "(broken!=4)" is I4.
 * The ids are those of ARCHITECTURE.md.
 */
byte broken = 0;

#define HOLDS(id, condition) \
  if \
  :: !(condition) -> broken = id; assert(broken != id) \
  :: else \
  fi
