/** What stands for the PASID of a request without one. */
export const NO_PASID = -1;

/** What an invalidation says in place of a PASID to mean requests with any PASID and those without. */
export const ANY_PASID = -2;
/** The same for requests with any PASID, but not those without. */
export const EVERY_PASID = -3;
