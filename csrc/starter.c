/* Cloning and reaping, for the roles that start processes. No allocation, no logging. */
#define _GNU_SOURCE
#include "starter.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "channel.h"
#include "message.h"
#include "overlay.h"
#include "path.h"
#include "sys.h"

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif


/* `parked` holds namespaces of the container, so that its end can be told before they are taken apart. */
struct container {
    pid_t pid;
    int status_fd;
    int parked[STARTER_PARKED];
};

static struct container table[CTR_MAX_CONTAINERS];
static uint32_t table_used;

void starter_report_error(int fd, int32_t step)
{
    struct ctr_error error = {step, errno, 0};

    (void)!write(fd, &error, sizeof(error));
}

uint32_t starter_count(void)
{
    return table_used;
}

int starter_enter(pid_t pid, int status_fd, const int *parked)
{
    if (table_used == CTR_MAX_CONTAINERS) {
        errno = EAGAIN;
        return -1;
    }
    table[table_used] = (struct container){.pid = pid, .status_fd = status_fd};
    for (int i = 0; i < STARTER_PARKED; i++)
        table[table_used].parked[i] = parked ? parked[i] : -1;
    table_used++;
    return 0;
}

static void report_exit(struct container *entry, const struct ctr_status *record)
{
    (void)channel_send(entry->status_fd, record, -1);
    (void)close(entry->status_fd);
    for (int i = 0; i < STARTER_PARKED; i++)
        close_fd(&entry->parked[i]);
    *entry = table[--table_used];
}

pid_t starter_reap(struct ctr_status *ret_record)
{
    struct rusage usage;
    int status;
    pid_t pid = wait4(-1, &status, WNOHANG, &usage);

    if (pid <= 0)
        return 0;
    *ret_record = (struct ctr_status){
        .kind = CTR_STATUS_EXITED,
        .code = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        .value = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
        .user_us = (uint64_t)usage.ru_utime.tv_sec * 1000000 + (uint64_t)usage.ru_utime.tv_usec,
        .system_us = (uint64_t)usage.ru_stime.tv_sec * 1000000 + (uint64_t)usage.ru_stime.tv_usec,
        .max_rss_bytes = (uint64_t)usage.ru_maxrss * 1024,
    };
    for (uint32_t i = 0; i < table_used; i++)
        if (table[i].pid == pid) {
            report_exit(&table[i], ret_record);
            break;
        }
    return pid;
}

/* clone(2) puts no process into a cgroup; then the child has to be in it by a join descriptor. */
pid_t starter_clone(struct child *c, uint64_t flags, int *ret_pidfd)
{
    uint64_t namespaces = c->network_fd < 0 ? c->spec->namespaces : c->spec->namespaces & ~(uint64_t)CLONE_NEWNET;
    struct clone_args args = {
        .flags = namespaces | flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
        /* A sibling tells its parent as this process does. */
        .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD,
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
    return (pid_t)syscall(SYS_clone, namespaces | flags | CLONE_PIDFD | args.exit_signal, NULL, ret_pidfd, NULL, NULL);
}

/* A helper enters the container's namespaces and makes the process there. It says which one that is, or what
 * failed on the error pipe. */
int starter_join(struct child *c)
{
    _cleanup_close_ int answer = -1;
    int pair[2];
    int ignored;
    pid_t pid;

    if (pipe2(pair, O_CLOEXEC) < 0)
        return CTR_STEP_CLONE;
    answer = pair[0];
    c->answer_fd = pair[1];
    pid = starter_clone(c, 0, &ignored);
    if (pid == 0)
        join_main(c);
    close_fd(&c->answer_fd);
    if (pid < 0)
        return CTR_STEP_CLONE;
    (void)close(ignored);
    if (read(answer, &pid, sizeof(pid)) != sizeof(pid))
        return 0;
    if (starter_enter(pid, c->fds[CTR_FD_STATUS], NULL) < 0)
        return CTR_STEP_TABLE;
    c->fds[CTR_FD_STATUS] = -1;
    return 0;
}

const struct ctr_spec *starter_map(const struct child *c, size_t *ret_size)
{
    struct stat st;
    void *data;

    errno = EBADMSG;
    if (c->fd_count < CTR_FD_FIRST_FREE || fstat(c->fds[CTR_FD_SPEC], &st) < 0)
        return NULL;
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, c->fds[CTR_FD_SPEC], 0);
    if (data == MAP_FAILED)
        return NULL;
    *ret_size = (size_t)st.st_size;
    if (message_check(data, *ret_size, c->fd_count) == 0)
        return data;
    (void)munmap(data, *ret_size);
    errno = EBADMSG;
    return NULL;
}

void starter_close(struct child *c)
{
    for (uint32_t i = 0; i < c->fd_count; i++)
        close_fd(&c->fds[i]);
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

static int report_ready(const struct starter *s)
{
    struct ctr_status ready = {.kind = CTR_STATUS_STARTED, .pid = getpid(), .value = (int32_t)features};
    _cleanup_close_ int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

    return channel_send(s->control, &ready, self);
}

struct starter starter_begin(int argc, char **argv, int is_detached)
{
    struct starter s = {.own_network = -1};
    unsigned join_count;

    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* A supervisor is nobody's child: its starter may live for months and need not wait for it. */
    if (is_detached && fork() != 0)
        _exit(0);
    /* What runs from a descriptor is called after its number or its memory file. */
    (void)prctl(PR_SET_NAME, argv[0], 0, 0, 0);
    if (argc < 6)
        _exit(125);
    s.control = (int)strtol(argv[1], NULL, 10);
    s.second = (int)strtol(argv[2], NULL, 10);
    s.second_is_pidfd = argv[3][0] == 'p';
    s.program = (int)strtol(argv[4], NULL, 10);
    join_count = (unsigned)strtol(argv[5], NULL, 10);
    for (unsigned i = 0; i < join_count && 6 + (int)i < argc; i++)
        if (write((int)strtol(argv[6 + i], NULL, 10), "0", 1) != 1)
            _exit(124);
    const int keep[3] = {s.control, s.second, s.program};
    for (int i = 0; i < 3; i++)
        if (keep[i] >= 0)
            (void)fcntl(keep[i], F_SETFD, FD_CLOEXEC);
    features = features_probe();
    (void)overlay_appends(); /* for all that are forked off: each attempt in vain is a line in the kernel's log */
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
