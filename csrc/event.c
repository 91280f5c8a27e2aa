/* The function of event.h. */
#define _GNU_SOURCE
#include "event.h"

#include <string.h>

#include "health.h"
#include "sys.h"

void event_tell(int directory, const char id[static 64], enum ctr_event_kind kind, int32_t value, int32_t code)
{
    struct ctr_event e = {CTR_MAGIC, sizeof(e), realtime_ns(), kind, value, code, 0, {0}};
    _cleanup_close_ int fd = -1;
    struct stat st;

    if (directory < 0)
        return;
    memcpy(e.id, id, sizeof(e.id));
    /* By name each time: a full journal is put aside, and a new one takes its place. */
    fd = openat(directory, "journal", O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size < CTR_EVENT_JOURNAL_BYTES)
        (void)!write(fd, &e, sizeof(e));
}
