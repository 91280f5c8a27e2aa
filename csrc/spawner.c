/* The spawner: process 1 of a PID namespace around all containers of one engine.
 *
 * It waits for requests, clones containers, reaps them and reports how they ended. When its owner dies it ends,
 * and the kernel then kills everything in its namespace, whatever those processes did to their own signals.
 * One loop, no allocation in it, no logging. */
#define _GNU_SOURCE
#include "spawner.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "channel.h"
#include "child.h"
#include "message.h"
#include "path.h"
#include "sys.h"

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

#ifndef PIDFD_GET_IPC_NAMESPACE
#define PIDFD_GET_IPC_NAMESPACE _IO(0xFF, 2)
#define PIDFD_GET_MNT_NAMESPACE _IO(0xFF, 3)
#define PIDFD_GET_NET_NAMESPACE _IO(0xFF, 4)
#endif

enum { PARKED = 3 };

/* `parked` holds namespaces of the container, so that its end can be told before they are taken apart. */
struct container {
    pid_t pid;
    int status_fd;
    int parked[PARKED];
};

static struct container table[CTR_MAX_CONTAINERS];
static uint32_t table_used;

struct spawner {
    int control;
    int owner; /* whose death ends the spawner */
    int owner_is_pidfd;
    int record; /* where a supervisor leaves how its container ended */
    int signals;
    int program;
    int own_network;   /* the network namespace that this process belongs in */
    int spare_network; /* one for the next container: making it takes half a millisecond */
    int wants_spare;
};

static void report_error(int fd, int32_t step)
{
    struct ctr_error error = {step, errno, 0};

    (void)!write(fd, &error, sizeof(error));
}

static void report_exit(const struct spawner *s, struct container *entry, int status, const struct rusage *usage)
{
    struct ctr_status record = {
        .kind = CTR_STATUS_EXITED,
        .code = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        .value = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
        .user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000 + (uint64_t)usage->ru_utime.tv_usec,
        .system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000 + (uint64_t)usage->ru_stime.tv_usec,
        .max_rss_bytes = (uint64_t)usage->ru_maxrss * 1024,
    };

    if (s->record >= 0)
        (void)!pwrite(s->record, &record, sizeof(record), 0);
    (void)channel_send(entry->status_fd, &record, -1);
    (void)close(entry->status_fd);
    for (int i = 0; i < PARKED; i++)
        close_fd(&entry->parked[i]);
    *entry = table[--table_used];
}

static void reap(const struct spawner *s)
{
    struct rusage usage;
    int status;
    pid_t pid;

    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
        for (uint32_t i = 0; i < table_used; i++)
            if (table[i].pid == pid) {
                report_exit(s, &table[i], status, &usage);
                break;
            }
}

/* clone(2) puts no process into a cgroup; then the child has to be in it by a join descriptor. */
static pid_t clone_child(const struct child *c, int *ret_pidfd)
{
    uint64_t namespaces = c->network_fd < 0 ? c->spec->namespaces : c->spec->namespaces & ~(uint64_t)CLONE_NEWNET;
    struct clone_args args = {
        .flags = namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
        .exit_signal = SIGCHLD,
    };

    if (c->spec->flags & CTR_SPEC_CGROUP_FD) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)c->fds[c->spec->cgroup_fd];
    }
    if (features & CTR_FEATURE_CLONE3)
        return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (c->spec->flags & CTR_SPEC_CGROUP_FD) {
        errno = ENOSYS;
        return -1;
    }
    /* x86-64 and arm64 agree on the place of the third argument, which receives the pidfd. */
    return (pid_t)syscall(SYS_clone, namespaces | CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd, NULL, NULL);
}

/* A container whose layer is in memory leaves nothing that its namespaces could hold back, so taking them
 * apart (a quarter of a millisecond) may come after the report of its end. Linux 6.11; else it comes before. */
static void park(struct container *entry, const struct child *c, int pidfd)
{
    static const unsigned long requests[PARKED] = {
        PIDFD_GET_IPC_NAMESPACE, PIDFD_GET_MNT_NAMESPACE, PIDFD_GET_NET_NAMESPACE};

    for (int i = 0; i < PARKED; i++)
        entry->parked[i] = c->spec->flags & CTR_SPEC_ROOT_MEMORY ? ioctl(pidfd, requests[i], 0) : -1;
}

/* Makes a network namespace while nobody waits. It is used once, so nothing of a container ever gets into
 * another. Without it a container's namespace is made by clone. */
static void make_spare(struct spawner *s)
{
    s->wants_spare = 0;
    if (s->own_network < 0 || unshare(CLONE_NEWNET) < 0)
        return;
    if (loopback_up() == 0)
        s->spare_network = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    /* Never go on in a container's network. */
    if (setns(s->own_network, CLONE_NEWNET) < 0)
        _exit(121);
}

/* A helper enters the container's namespaces and makes the process there. It says which one that is, or what
 * failed on the error pipe. */
static int join(struct child *c)
{
    _cleanup_close_ int answer = -1;
    int pair[2];
    int ignored;
    pid_t pid;

    if (pipe2(pair, O_CLOEXEC) < 0)
        return CTR_STEP_CLONE;
    answer = pair[0];
    c->answer_fd = pair[1];
    pid = clone_child(c, &ignored);
    if (pid == 0)
        join_main(c);
    close_fd(&c->answer_fd);
    if (pid < 0)
        return CTR_STEP_CLONE;
    (void)close(ignored);
    if (read(answer, &pid, sizeof(pid)) != sizeof(pid))
        return 0;
    table[table_used++] = (struct container){.pid = pid, .status_fd = c->fds[CTR_FD_STATUS], .parked = {-1, -1, -1}};
    c->fds[CTR_FD_STATUS] = -1;
    return 0;
}

static int start(struct spawner *s, struct child *c)
{
    _cleanup_close_ int pidfd = -1;
    pid_t pid;

    if (table_used == CTR_MAX_CONTAINERS) {
        errno = EAGAIN;
        return CTR_STEP_TABLE;
    }
    if (c->spec->fault_action == CTR_FAULT_FAIL && c->spec->fault_step <= CTR_STEP_CLONE) {
        errno = c->spec->fault_errno;
        return c->spec->fault_step;
    }
    c->program_fd = s->program;
    if (c->spec->flags & CTR_SPEC_JOIN)
        return join(c);
    if (c->spec->namespaces & CLONE_NEWNET && c->spec->flags & CTR_SPEC_LOOPBACK) {
        c->network_fd = s->spare_network;
        s->wants_spare = 1;
    }
    pid = clone_child(c, &pidfd);
    if (pid < 0)
        return CTR_STEP_CLONE;
    if (pid == 0)
        child_main(c);
    if (c->network_fd >= 0)
        close_fd(&s->spare_network);
    table[table_used] = (struct container){.pid = pid, .status_fd = c->fds[CTR_FD_STATUS]};
    park(&table[table_used++], c, pidfd);
    (void)channel_send(c->fds[CTR_FD_STATUS], &(struct ctr_status){.kind = CTR_STATUS_STARTED, .pid = pid}, pidfd);
    c->fds[CTR_FD_STATUS] = -1;
    return 0;
}

static void *map_spec(int fd, size_t *ret_size)
{
    struct stat st;
    void *data;

    if (fstat(fd, &st) < 0)
        return MAP_FAILED;
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    *ret_size = (size_t)st.st_size;
    return data;
}

/* Every way out of here closes what came with the request; what failed is said on the error pipe. */
static void serve(struct spawner *s, struct child *c)
{
    size_t size = 0;
    void *data = MAP_FAILED;
    int step = CTR_STEP_MESSAGE;

    if (c->fd_count >= CTR_FD_FIRST_FREE) {
        data = map_spec(c->fds[CTR_FD_SPEC], &size);
        if (data != MAP_FAILED && message_check(data, size, c->fd_count) == 0) {
            c->spec = data;
            step = start(s, c);
        }
        if (step != 0)
            report_error(c->fds[CTR_FD_ERROR], step);
    }
    for (uint32_t i = 0; i < c->fd_count; i++)
        if (c->fds[i] >= 0)
            (void)close(c->fds[i]);
    if (data != MAP_FAILED)
        (void)munmap(data, size);
}

/* 0 at the end of the requests: the owner has closed its side, or is gone. */
static int receive(struct spawner *s)
{
    struct child c = CHILD_BLANK;
    uint32_t ignored;
    ssize_t n = channel_receive_fds(s->control, &ignored, sizeof(ignored), c.fds, CTR_MAX_FDS, &c.fd_count);

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

    if (s->owner_is_pidfd || s->owner < 0)
        return 1;
    fd = openat(s->owner, "stat", O_RDONLY | O_CLOEXEC);
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
        {.fd = s->control, .events = POLLIN},
        {.fd = s->signals, .events = POLLIN},
        {.fd = s->owner_is_pidfd ? s->owner : -1, .events = POLLIN},
    };

    for (;;) {
        int spare = s->wants_spare && s->spare_network < 0;
        int n = poll(polls, 3, spare ? 0 : s->owner_is_pidfd ? -1 : 1000);

        if (polls[2].revents || !owner_is_alive(s))
            _exit(0);
        if (n == 0 && spare)
            make_spare(s);
        if (n <= 0)
            continue;
        if (polls[1].revents) {
            struct signalfd_siginfo info;

            (void)!read(s->signals, &info, sizeof(info));
            reap(s);
        }
        if (polls[0].revents && !receive(s))
            _exit(0);
    }
}

/* Standard streams that lead nowhere, so that no descriptor of a request is ever 0, 1 or 2. */
static void detach_streams(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int i = 0; i < 3; i++)
        if (fd >= 0 && fd != i)
            (void)dup2(fd, i);
    if (fd > 2)
        (void)close(fd);
}

/* Signals that the owner ignores (Python ignores SIGPIPE) would stay ignored in every container. */
static int set_signals(void)
{
    sigset_t set;

    for (int sig = 1; sig < 65; sig++)
        (void)signal(sig, SIG_DFL);
    sigfillset(&set);
    if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
        return -1;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int report_ready(const struct spawner *s)
{
    struct ctr_status ready = {.kind = CTR_STATUS_STARTED, .pid = getpid(), .value = (int32_t)features};
    _cleanup_close_ int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

    return channel_send(s->control, &ready, self);
}

/* What both roles begin with. argv: see spawner.h. */
static struct spawner begin(int argc, char **argv, int is_supervisor)
{
    struct spawner s = {.owner = -1, .record = -1, .own_network = -1, .spare_network = -1};
    int second;
    unsigned join_count;

    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* A supervisor is nobody's child: its starter may live for months and need not wait for it. */
    if (is_supervisor && fork() != 0)
        _exit(0);
    /* What runs from a descriptor is called after its number or its memory file. */
    (void)prctl(PR_SET_NAME, is_supervisor ? "ctr-supervisor" : "ctr-spawner", 0, 0, 0);
    if (argc < 6)
        _exit(125);
    s.control = (int)strtol(argv[1], NULL, 10);
    second = (int)strtol(argv[2], NULL, 10);
    *(is_supervisor ? &s.record : &s.owner) = second;
    s.owner_is_pidfd = argv[3][0] == 'p';
    s.program = (int)strtol(argv[4], NULL, 10);
    join_count = (unsigned)strtol(argv[5], NULL, 10);
    for (unsigned i = 0; i < join_count && 6 + (int)i < argc; i++)
        if (write((int)strtol(argv[6 + i], NULL, 10), "0", 1) != 1)
            _exit(124);
    const int keep[3] = {s.control, second, s.program};
    for (int i = 0; i < 3; i++)
        if (keep[i] >= 0)
            (void)fcntl(keep[i], F_SETFD, FD_CLOEXEC);
    features = features_probe();
    close_all_but(keep, 3);
    detach_streams();
    (void)umask(0);
    (void)setsid();
    s.own_network = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    s.signals = set_signals();
    if (chdir("/") < 0 || s.signals < 0)
        _exit(123);
    if (report_ready(&s) < 0)
        _exit(122);
    return s;
}

void spawner_role(int argc, char **argv)
{
    struct spawner s = begin(argc, argv, 0);

    run(&s);
}

/* One container, whoever started it: its starter may go, the container and this process stay. */
void supervisor_role(int argc, char **argv)
{
    struct spawner s = begin(argc, argv, 1);
    struct pollfd control = {.fd = s.control, .events = POLLIN};
    struct pollfd signals = {.fd = s.signals, .events = POLLIN};

    close_fd(&s.own_network);
    (void)poll(&control, 1, -1);
    (void)receive(&s);
    close_fd(&s.control);
    while (table_used > 0 && poll(&signals, 1, -1) > 0) {
        struct signalfd_siginfo info;

        (void)!read(s.signals, &info, sizeof(info));
        reap(&s);
    }
    _exit(0);
}
