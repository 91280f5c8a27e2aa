/* The journal of events, as far as a supervisor writes it. */
#ifndef CTR_EVENT_H
#define CTR_EVENT_H

#include "ctr.h"

/* Appends one record to the journal in `directory`, which may be -1. A journal that cannot be written misses it. */
void event_tell(int directory, const char id[static 64], enum ctr_event_kind kind, int32_t value, int32_t code);

#endif
