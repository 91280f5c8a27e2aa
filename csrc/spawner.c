/* The spawner: process 1 of a PID namespace around all containers of one engine.
 *
 * It waits for requests, clones containers, reaps them and reports how they ended. When its owner dies it ends,
 * and the kernel then kills everything in its namespace, whatever those processes did to their own signals.
 * One loop, no allocation in it, no logging. */
#define _GNU_SOURCE
#include "spawner.h"

#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>

#include "channel.h"
#include "starter.h"
#include "sys.h"

#ifndef PIDFD_GET_IPC_NAMESPACE
#define PIDFD_GET_IPC_NAMESPACE _IO(0xFF, 2)
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_NET_NAMESPACE _IO(0xFF, 4)
#endif

struct spawner {
    struct starter base;
    int spare_network; /* one for the next container: making it takes half a millisecond */
    int wants_spare;
};

/* A container whose layer is in memory leaves nothing that its namespaces could hold back, so taking them
 * apart (a quarter of a millisecond) may come after the report of its end. Linux 6.11; else it comes before. */
static void park(const struct child *c, int pidfd, int *ret_parked)
{
    static const unsigned long requests[STARTER_PARKED] = {
        PIDFD_GET_IPC_NAMESPACE, PIDFD_GET_MNT_NAMESPACE, PIDFD_GET_NET_NAMESPACE};

    for (int i = 0; i < STARTER_PARKED; i++)
        ret_parked[i] = c->spec->flags & CTR_SPEC_ROOT_MEMORY ? ioctl(pidfd, requests[i], 0) : -1;
}

/* Makes a network namespace while nobody waits. It is used once, so nothing of a container ever gets into
 * another. Without it a container's namespace is made by clone. */
static void make_spare(struct spawner *s)
{
    s->wants_spare = 0;
    if (s->base.own_network < 0 || unshare(CLONE_NEWNET) < 0)
        return;
    if (loopback_up() == 0)
        s->spare_network = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    /* Never go on in a container's network. */
    if (setns(s->base.own_network, CLONE_NEWNET) < 0)
        _exit(121);
}

static int start(struct spawner *s, struct child *c)
{
    _cleanup_close_ int pidfd = -1;
    int parked[STARTER_PARKED];
    pid_t pid;

    if (starter_count() == CTR_MAX_CONTAINERS) {
        errno = EAGAIN;
        return CTR_STEP_TABLE;
    }
    if (c->spec->fault_action == CTR_FAULT_FAIL && c->spec->fault_step <= CTR_STEP_CLONE) {
        errno = c->spec->fault_errno;
        return c->spec->fault_step;
    }
    c->program_fd = s->base.program;
    if (c->spec->flags & CTR_SPEC_JOIN)
        return starter_join(c);
    if (c->spec->namespaces & CLONE_NEWNET && c->spec->flags & CTR_SPEC_LOOPBACK) {
        c->network_fd = s->spare_network;
        s->wants_spare = 1;
    }
    pid = starter_clone(c, 0, &pidfd);
    if (pid < 0)
        return CTR_STEP_CLONE;
    if (pid == 0)
        child_main(c);
    if (c->network_fd >= 0)
        close_fd(&s->spare_network);
    park(c, pidfd, parked);
    (void)starter_enter(pid, c->fds[CTR_FD_STATUS], parked);
    (void)channel_send(c->fds[CTR_FD_STATUS], &(struct ctr_status){.kind = CTR_STATUS_STARTED, .pid = pid}, pidfd);
    c->fds[CTR_FD_STATUS] = -1;
    return 0;
}

/* Every way out of here closes what came with the request; what failed is said on the error pipe. */
static void serve(struct spawner *s, struct child *c)
{
    size_t size = 0;
    int step = CTR_STEP_MESSAGE;

    if (c->fd_count >= CTR_FD_FIRST_FREE) {
        c->spec = starter_map(c, &size);
        if (c->spec)
            step = start(s, c);
        if (step != 0)
            starter_report_error(c->fds[CTR_FD_ERROR], step);
    }
    starter_close(c);
    if (c->spec)
        (void)munmap((void *)(uintptr_t)c->spec, size);
}

/* 0 at the end of the requests: the owner has closed its side, or is gone. */
static int receive(struct spawner *s)
{
    struct child c = CHILD_BLANK;
    uint32_t ignored;
    ssize_t n = channel_receive_fds(s->base.control, &ignored, sizeof(ignored), c.fds, CTR_MAX_FDS, &c.fd_count);

    if (n == 0)
        return 0;
    if (n > 0)
        serve(s, &c);
    return n > 0 || errno == EAGAIN || errno == EMSGSIZE || errno == EINTR;
}

/* Without pidfd_open the owner is a descriptor of its /proc directory, in which nothing opens once it is reaped;
 * before that its state, which follows the name in parentheses, says that it is over. */
static int owner_is_alive(const struct spawner *s)
{
    _cleanup_close_ int fd = -1;
    char text[256];
    const char *state;
    ssize_t n;

    if (s->base.second_is_pidfd || s->base.second < 0)
        return 1;
    fd = openat(s->base.second, "stat", O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    state = strrchr(text, ')');
    return !state || (state[1] == ' ' && state[2] != 'Z' && state[2] != 'X');
}

static _Noreturn void run(struct spawner *s)
{
    struct pollfd polls[3] = {
        {.fd = s->base.control, .events = POLLIN},
        {.fd = s->base.signals, .events = POLLIN},
        {.fd = s->base.second_is_pidfd ? s->base.second : -1, .events = POLLIN},
    };

    for (;;) {
        int spare = s->wants_spare && s->spare_network < 0;
        int n = poll(polls, 3, spare ? 0 : s->base.second_is_pidfd ? -1 : 1000);

        if (polls[2].revents || !owner_is_alive(s))
            _exit(0);
        if (n == 0 && spare)
            make_spare(s);
        if (n <= 0)
            continue;
        if (polls[1].revents) {
            struct signalfd_siginfo info;
            struct ctr_status record;

            (void)!read(s->base.signals, &info, sizeof(info));
            while (starter_reap(&record) > 0)
                ;
        }
        if (polls[0].revents && !receive(s))
            _exit(0);
    }
}

void spawner_role(int argc, char **argv)
{
    struct spawner s = {.base = starter_begin(argc, argv, 0), .spare_network = -1};

    run(&s);
}
