/* User and time namespaces: what has to be done before them with the privileges of the host, and who one is inside. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "child.h"
#include "message.h"
#include "sys.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#ifndef NS_GET_NSTYPE
#define NS_GET_NSTYPE _IO(0xb7, 0x3)
#endif

/* Whoever may write /proc/PID/uid_map is told, and lets this process go on when that is done. */
int step_user_namespace(struct child *c)
{
    return c->spec->namespaces & CLONE_NEWUSER ? child_hold(c) : 0;
}

/* Until here this was the host's root without its capabilities, to whom the host's directories are open; what is made
 * from here on belongs to the root of the namespace. */
int step_user_root(struct child *c)
{
    if (!(c->spec->flags & CTR_SPEC_USER))
        return 0;
    return syscall(SYS_setresgid, 0, 0, 0) < 0 ? -1 : (int)syscall(SYS_setresuid, 0, 0, 0);
}

/* Through the host's proc, in which this process still is. */
int step_join_oom_score(struct child *c)
{
    _cleanup_close_ int fd = -1;
    char text[16];
    int n;

    if (!(c->spec->flags & CTR_SPEC_OOM_SCORE))
        return 0;
    fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    n = snprintf(text, sizeof(text), "%d", c->spec->oom_score_adj);
    return fd >= 0 && write(fd, text, (size_t)n) == n ? 0 : -1;
}

/* What is born in a user namespace inherits its score: there it may not set its own. */
static int step_early_oom_score(struct child *c)
{
    return c->spec->flags & CTR_SPEC_USER ? step_join_oom_score(c) : 0;
}

/* Raising takes a privilege over the host, which is gone inside; lowering comes with the other limits. */
int step_raise_limits(struct child *c)
{
    const struct ctr_rlimit *r = message_array(c->spec, c->spec->rlimits);

    if (!(c->spec->flags & CTR_SPEC_USER))
        return 0;
    for (uint32_t i = 0; i < c->spec->rlimits.count; i++) {
        struct rlimit64 limit;

        if (child_at(c, CTR_STEP_RLIMIT, (int32_t)i) < 0 ||
            syscall(SYS_prlimit64, 0, r[i].resource, NULL, &limit) < 0)
            return -1;
        if (limit.rlim_max >= r[i].hard)
            continue;
        limit.rlim_max = r[i].hard;
        if (syscall(SYS_prlimit64, 0, r[i].resource, &limit, NULL) < 0)
            return -1;
    }
    return 0;
}

/* The host's groups are nobody's inside, and would still open the host's files. */
static int step_drop_groups(struct child *c)
{
    return c->spec->flags & CTR_SPEC_USER ? (int)syscall(SYS_setgroups, 0, NULL) : 0;
}

/* It is entered by being born in it, and its clocks are set before anybody is. */
static int step_time_namespace(struct child *c)
{
    const char *offsets = message_text(c->spec, c->spec->time_offsets);
    _cleanup_close_ int fd = -1;
    size_t size;

    if (!offsets)
        return 0;
    if (unshare(CLONE_NEWTIME) < 0)
        return -1;
    fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    size = strlen(offsets);
    return fd >= 0 && write(fd, offsets, size) == (ssize_t)size ? 0 : -1;
}

/* The PID and the time namespace are entered by being born in them; and all of them where the new process will have
 * no privileges outside its user namespace, which comes last of them. */
static int step_creator_joins(struct child *c)
{
    uint32_t end = child_first_kept(c);

    for (uint32_t i = end - c->spec->namespace_count; i < end; i++) {
        int type = ioctl(c->fds[i], NS_GET_NSTYPE);
        int early = c->spec->flags & CTR_SPEC_USER || type == CLONE_NEWPID || type == CLONE_NEWTIME;

        c->index = (int32_t)(i - (end - c->spec->namespace_count));
        if (type < 0 || (early && setns(c->fds[i], type) < 0))
            return -1;
    }
    return 0;
}

const struct step creator_steps[] = {
    {CTR_STEP_OOM_SCORE, step_early_oom_score},
    {CTR_STEP_RLIMIT, step_raise_limits},
    {CTR_STEP_GROUPS, step_drop_groups},
    {CTR_STEP_TIME_NAMESPACE, step_time_namespace},
    {CTR_STEP_JOIN_NAMESPACE, step_creator_joins},
    {CTR_STEP_NONE, NULL},
};
