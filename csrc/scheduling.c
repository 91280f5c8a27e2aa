/* How the kernel schedules the command, and as what machine it shows itself: what only a process can say of itself. */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/personality.h>

#include "child.h"
#include "message.h"
#include "sys.h"

/* ioprio_set(2) has no header of the C library's. */
enum { IOPRIO_WHO_PROCESS = 1 };

int step_affinity(struct child *c)
{
    if (c->spec->affinity.count == 0)
        return 0;
    return (int)syscall(SYS_sched_setaffinity, 0, c->spec->affinity.count, message_array(c->spec, c->spec->affinity));
}

/* The structure is as the kernel reads it: its first field is its size. */
int step_scheduler(struct child *c)
{
    if (c->spec->scheduler.count == 0)
        return 0;
    return (int)syscall(SYS_sched_setattr, 0, message_array(c->spec, c->spec->scheduler), 0);
}

int step_io_priority(struct child *c)
{
    if (!(c->spec->flags & CTR_SPEC_IO_PRIORITY))
        return 0;
    return (int)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, c->spec->io_priority);
}

int step_personality(struct child *c)
{
    if (!(c->spec->flags & CTR_SPEC_PERSONALITY))
        return 0;
    return personality(c->spec->personality) < 0 ? -1 : 0;
}
