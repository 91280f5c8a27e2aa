/* Giving up privileges, in the order in which the kernel allows it. */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "channel.h"
#include "child.h"
#include "message.h"
#include "mount.h"
#include "sys.h"

/* Whoever answers for the kernel has to have the descriptor before the first call that it is asked about. */
static int give_listener(struct child *c, int fd)
{
    _cleanup_close_ int listener = fd;

    c->step = CTR_STEP_SECCOMP_LISTENER;
    if (channel_send(c->fds[CTR_FD_STATUS], &(struct ctr_status){.kind = CTR_STATUS_LISTENER}, listener) < 0)
        return -1;
    return child_hold(c);
}

static int load_filter(struct child *c)
{
    const struct ctr_spec *s = c->spec;
    struct sock_fprog program = {
        .len = (unsigned short)s->seccomp.count,
        .filter = (struct sock_filter *)(uintptr_t)message_array(s, s->seccomp),
    };

    int fd;

    if (s->seccomp.count == 0)
        return 0;
    fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, s->seccomp_flags, &program);
    if (fd < 0 || !(s->seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER))
        return fd;
    return give_listener(c, fd);
}

/* Takes effect with the execution. Through a mount of proc that nobody else has ever seen: in a container's own, any file
 * may lie over this one, also one that does something else with what is written. */
int step_apparmor(struct child *c)
{
    const struct filesystem proc = {.type = "proc"};
    const char *profile = message_text(c->spec, c->spec->apparmor);
    _cleanup_close_ int root = -1;
    _cleanup_close_ int fd = -1;
    char text[512];
    int n;

    if (!profile)
        return 0;
    n = snprintf(text, sizeof(text), "exec %s", profile);
    if (n < 0 || (size_t)n >= sizeof(text)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    root = mount_create(&proc);
    if (root < 0)
        return -1;
    fd = openat(root, "self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC);
    /* Before Linux 5.8 there is one place for all such modules. */
    if (fd < 0 && errno == ENOENT)
        fd = openat(root, "self/attr/exec", O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, (size_t)n) == n ? 0 : -1;
}

/* Without no_new_privs the filter needs CAP_SYS_ADMIN, so it comes before the capabilities go; with it, last. */
int step_seccomp_privileged(struct child *c)
{
    return c->spec->flags & CTR_SPEC_NO_NEW_PRIVS ? 0 : load_filter(c);
}

/* As long as there is somebody to give the descriptor to. */
int step_seccomp_listener(struct child *c)
{
    int wants = c->spec->flags & CTR_SPEC_NO_NEW_PRIVS && c->spec->seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER;

    return wants ? load_filter(c) : 0;
}

int step_seccomp(struct child *c)
{
    int wants = c->spec->flags & CTR_SPEC_NO_NEW_PRIVS && !(c->spec->seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER);

    return wants ? load_filter(c) : 0;
}

int step_bounding(struct child *c)
{
    for (int cap = 0; cap < 64; cap++) {
        if (c->spec->bounding >> cap & 1)
            continue;
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            /* The first number that the kernel does not know ends the list. */
            if (errno == EINVAL)
                return 0;
            return -1;
        }
    }
    return 0;
}

/* Raw system calls: the C library would want to tell other threads, and there are none. */
int step_groups(struct child *c)
{
    return (int)syscall(SYS_setgroups, (int)c->spec->groups.count, message_array(c->spec, c->spec->groups));
}

int step_gid(struct child *c)
{
    return (int)syscall(SYS_setresgid, c->spec->gid, c->spec->gid, c->spec->gid);
}

/* What another user shall have has to stay permitted across the change. */
int step_uid(struct child *c)
{
    if (c->spec->permitted && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return -1;
    return (int)syscall(SYS_setresuid, c->spec->uid, c->spec->uid, c->spec->uid);
}

static int set_capabilities(const struct ctr_spec *s)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    for (int i = 0; i < 2; i++) {
        data[i].permitted = (uint32_t)(s->permitted >> (32 * i));
        data[i].effective = (uint32_t)(s->effective >> (32 * i));
        data[i].inheritable = (uint32_t)(s->inheritable >> (32 * i));
    }
    return (int)syscall(SYS_capset, &header, data);
}

/* The sets are as they were decided; the kernel ties the ambient one to the inheritable one. */
int step_capabilities(struct child *c)
{
    uint64_t ambient = c->spec->ambient;

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -1;
    if (set_capabilities(c->spec) < 0)
        return -1;
    for (int cap = 0; cap < 64; cap++)
        if (ambient >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return -1;
    return 0;
}

int step_no_new_privs(struct child *c)
{
    if (!(c->spec->flags & CTR_SPEC_NO_NEW_PRIVS))
        return 0;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
