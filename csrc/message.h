/* Reading a start request. Nothing is trusted before message_check has passed. */
#ifndef CTR_MESSAGE_H
#define CTR_MESSAGE_H

#include <stddef.h>

#include "ctr.h"

/* 0 when every offset, count and string of the message lies inside it; else -1 with errno EBADMSG. */
int message_check(const void *data, size_t size, uint32_t fd_count);

static inline const char *message_text(const struct ctr_spec *spec, uint32_t offset)
{
    return offset ? (const char *)spec + offset : NULL;
}

static inline const void *message_array(const struct ctr_spec *spec, struct ctr_array array)
{
    return (const char *)spec + array.offset;
}

/* String number `i` of an array of string offsets. */
static inline const char *message_item(const struct ctr_spec *spec, struct ctr_array array, uint32_t i)
{
    const uint32_t *offsets = message_array(spec, array);

    return message_text(spec, offsets[i]);
}

#endif
