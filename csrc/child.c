/* The container's first process, from clone to exec: two straight lists of steps. Single-threaded, and only
 * system calls; what fails is reported as {step, errno, index} and turned into words by the caller. */
#define _GNU_SOURCE
#include "child.h"

#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "channel.h"
#include "init.h"
#include "message.h"
#include "path.h"
#include "sys.h"

int child_hold(const struct child *c)
{
    char byte;

    if (channel_send(c->fds[CTR_FD_STATUS], &(struct ctr_status){.kind = CTR_STATUS_HELD, .code = c->step}, -1) < 0)
        return -1;
    return read(c->fds[CTR_FD_STATUS], &byte, 1) == 1 ? 0 : -1;
}

int child_at(struct child *c, int32_t step, int32_t index)
{
    const struct ctr_spec *s = c->spec;

    c->step = step;
    c->index = index;
    if (s->fault_action == CTR_FAULT_NONE || s->fault_step != step || (s->fault_index >= 0 && s->fault_index != index))
        return 0;
    if (s->fault_action == CTR_FAULT_HOLD)
        return child_hold(c);
    errno = s->fault_errno;
    return -1;
}

uint32_t child_first_kept(const struct child *c)
{
    return c->fd_count - c->spec->kept_count - (c->spec->flags & CTR_SPEC_GATE ? 1 : 0);
}

int child_walk(struct child *c, const struct step *steps)
{
    for (; steps->step != CTR_STEP_NONE; steps++)
        if (child_at(c, steps->step, 0) < 0 || steps->run(c) < 0)
            return -1;
    return 0;
}

void child_fail(struct child *c)
{
    struct ctr_error error = {c->step, errno, c->index};

    /* Whoever was told of the gate need not be there any more. */
    (void)signal(SIGPIPE, SIG_IGN);
    /* Shorter than PIPE_BUF: written whole or not at all. */
    (void)!write(c->fds[CTR_FD_ERROR], &error, sizeof(error));
    _exit(127);
}

static void close_between(int first, int last)
{
    if (first > last)
        return;
    if (features & CTR_FEATURE_CLOSE_RANGE) {
        (void)sys_close_range((unsigned)first, (unsigned)last);
        return;
    }
    if (last > 1 << 20)
        last = (int)sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd <= last; fd++)
        (void)close(fd);
}

void close_all_but(const int *keep, uint32_t count)
{
    int sorted[CTR_MAX_FDS + 3];
    uint32_t n = 0;
    int next = 3;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t j = n;

        if (keep[i] < 3)
            continue;
        for (; j > 0 && sorted[j - 1] > keep[i]; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = keep[i];
        n++;
    }
    for (uint32_t i = 0; i < n; i++) {
        close_between(next, sorted[i] - 1);
        next = sorted[i] + 1;
    }
    close_between(next, INT32_MAX);
}

/* Other containers' sockets must not be seen from inside this one. */
static int step_close_inherited(struct child *c)
{
    int keep[CTR_MAX_FDS + 3];

    memcpy(keep, c->fds, sizeof(int) * c->fd_count);
    keep[c->fd_count] = c->program_fd;
    keep[c->fd_count + 1] = c->network_fd;
    keep[c->fd_count + 2] = c->answer_fd;
    close_all_but(keep, c->fd_count + 3);
    return 0;
}

/* A thread that writes itself into a v1 `tasks` file moves without the grace period that cgroup.procs waits for. */
static int step_cgroup_join(struct child *c)
{
    for (uint32_t i = 0; i < c->spec->join_count; i++) {
        int *fd = &c->fds[CTR_FD_FIRST_FREE + i];

        if (child_at(c, CTR_STEP_CGROUP_JOIN, (int32_t)i) < 0 || write(*fd, "0", 1) != 1)
            return -1;
        close_fd(fd);
    }
    return 0;
}

/* After joining, or the namespace would be rooted where we came from. */
static int step_cgroup_namespace(struct child *c)
{
    return c->spec->flags & CTR_SPEC_CGROUP_NAMESPACE ? unshare(CLONE_NEWCGROUP) : 0;
}

/* From the mount namespace on names are the container's, and from the user namespace on nothing of the host's may be
 * done: those two come last. A new process in a user namespace was born in the others. */
static int step_join_namespaces(struct child *c)
{
    uint32_t first = child_first_kept(c) - c->spec->namespace_count;
    int kind = c->spec->flags & (CTR_SPEC_JOIN | CTR_SPEC_GATE) ? 0 : CLONE_NEWNET;

    if (c->spec->flags & CTR_SPEC_USER && !(c->spec->flags & CTR_SPEC_JOIN))
        return 0;

    for (uint32_t i = 0; i < c->spec->namespace_count; i++)
        if (child_at(c, CTR_STEP_JOIN_NAMESPACE, (int32_t)i) < 0 || setns(c->fds[first + i], kind) < 0)
            return -1;
    /* The container's root is not that of its mount namespace. */
    if (c->spec->flags & CTR_SPEC_CHROOT && c->spec->flags & CTR_SPEC_JOIN)
        return fchdir(c->fds[first - 1]) < 0 || chroot(".") < 0 ? -1 : chdir("/");
    return 0;
}

static int step_keyring(struct child *c)
{
    if (c->spec->flags & CTR_SPEC_NO_KEYRING)
        return 0;
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
        return errno == ENOSYS ? 0 : -1;
    return 0;
}

/* Into the namespace made in advance, if there is one; else clone has made one. */
static int step_network(struct child *c)
{
    return c->network_fd < 0 ? 0 : setns(c->network_fd, CLONE_NEWNET);
}

int loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd < 0 ? -1 : ioctl(fd, SIOCSIFFLAGS, &request);
}

static int step_loopback(struct child *c)
{
    return c->network_fd < 0 && c->spec->flags & CTR_SPEC_LOOPBACK ? loopback_up() : 0;
}

static int step_hostname(struct child *c)
{
    const char *host = message_text(c->spec, c->spec->hostname);
    const char *domain = message_text(c->spec, c->spec->domainname);

    if (host && sethostname(host, strlen(host)) < 0)
        return -1;
    return domain ? setdomainname(domain, strlen(domain)) : 0;
}

static int step_init_exec(struct child *c)
{
    return c->spec->flags & CTR_SPEC_INIT ? init_exec(c) : 0;
}

static int step_signals(struct child *c)
{
    sigset_t none;

    /* The spawner has every signal at its default already. */
    (void)c;
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL);
}

static int step_session(struct child *c)
{
    (void)c;
    return setsid() < 0 ? -1 : 0;
}

static int step_rlimits(struct child *c)
{
    const struct ctr_rlimit *r = message_array(c->spec, c->spec->rlimits);

    for (uint32_t i = 0; i < c->spec->rlimits.count; i++) {
        struct rlimit64 limit = {r[i].soft, r[i].hard};

        if (child_at(c, CTR_STEP_RLIMIT, (int32_t)i) < 0 ||
            syscall(SYS_prlimit64, 0, r[i].resource, &limit, NULL) < 0)
            return -1;
    }
    return 0;
}

static int step_umask(struct child *c)
{
    (void)umask((mode_t)c->spec->umask);
    return 0;
}

static int step_stdio(struct child *c)
{
    if (c->tty_fd >= 0 && ioctl(c->tty_fd, TIOCSCTTY, 0) < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(c->tty_fd >= 0 ? c->tty_fd : c->fds[CTR_FD_STDIN + i], i) < 0)
            return -1;
    return 0;
}

/* Opened without magic links, so that /proc/self/fd/N leads nowhere; and what is reached must have a name. */
static int step_workdir(struct child *c)
{
    _cleanup_close_ int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = -1;
    char name[4096];

    if (root < 0)
        return -1;
    fd = path_open(root, message_text(c->spec, c->spec->workdir), O_PATH | O_DIRECTORY, 0);
    if (fd < 0 || fchdir(fd) < 0)
        return -1;
    if (syscall(SYS_getcwd, name, sizeof(name)) < 0)
        return -1;
    if (name[0] == '/')
        return 0;
    errno = ENOENT;
    return -1;
}

/* Whether one of the programs can be executed, as far as that can be told without trying. */
static int find_program(struct child *c)
{
    const struct ctr_spec *s = c->spec;
    int denied = 0;

    c->step = CTR_STEP_EXEC;
    for (uint32_t i = 0; i < s->programs.count; i++) {
        if (faccessat(AT_FDCWD, message_item(s, s->programs, i), X_OK, AT_EACCESS) == 0) {
            c->step = CTR_STEP_GATE;
            return 0;
        }
        denied |= errno == EACCES;
    }
    errno = denied ? EACCES : ENOENT;
    return -1;
}

/* Says that all is prepared, and stands still until somebody wants the command; by then nobody may listen. A filter that
 * is in force lets write and read through, or the command could do nothing. */
static int step_gate(struct child *c)
{
    struct ctr_status held = {.kind = CTR_STATUS_HELD, .code = CTR_STEP_GATE};
    char byte;
    ssize_t n;

    if (!(c->spec->flags & CTR_SPEC_GATE))
        return 0;
    if (find_program(c) < 0 || write(c->fds[CTR_FD_STATUS], &held, sizeof(held)) != sizeof(held))
        return -1;
    close_fd(&c->fds[CTR_FD_STATUS]);
    do
        n = read(c->fds[c->fd_count - 1], &byte, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : -1;
}

/* From 3 up, in their order; what is there meanwhile is moved out of the way. */
static int place_kept(struct child *c, int *error)
{
    int *kept = &c->fds[child_first_kept(c)];
    int first_free = 3 + (int)c->spec->kept_count;

    *error = fcntl(*error, F_DUPFD_CLOEXEC, first_free);
    for (uint32_t i = 0; i < c->spec->kept_count; i++) {
        kept[i] = fcntl(kept[i], F_DUPFD_CLOEXEC, first_free);
        if (kept[i] < 0)
            return -1;
    }
    for (uint32_t i = 0; i < c->spec->kept_count; i++)
        if (dup2(kept[i], 3 + (int)i) < 0)
            return -1;
    return *error < 0 ? -1 : 0;
}

static int step_close_fds(struct child *c)
{
    /* Whoever is to stand still in a later step needs the socket for that; exec closes it. */
    int keep[CTR_MAX_FDS + 2] = {c->fds[CTR_FD_ERROR],
                                 c->spec->fault_action == CTR_FAULT_HOLD ? c->fds[CTR_FD_STATUS] : -1};
    uint32_t count = 2;

    if (c->spec->kept_count > 0) {
        if (place_kept(c, &c->fds[CTR_FD_ERROR]) < 0)
            return -1;
        keep[0] = c->fds[CTR_FD_ERROR];
        keep[1] = -1;
        for (uint32_t i = 0; i < c->spec->kept_count; i++)
            keep[count++] = 3 + (int)i;
    }
    close_all_but(keep, count);
    return 0;
}

static void fill(const struct ctr_spec *s, struct ctr_array texts, const char **ret)
{
    for (uint32_t i = 0; i < texts.count; i++)
        ret[i] = message_item(s, texts, i);
    ret[texts.count] = NULL;
}

/* The candidates come from PATH as Python read it; the answers are weighed as execvp does. */
static int step_exec(struct child *c)
{
    const struct ctr_spec *s = c->spec;
    size_t size = sizeof(char *) * (s->args.count + s->env.count + 2);
    const char **argv = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const char **envp = argv + s->args.count + 1;
    int denied = 0;

    if (argv == MAP_FAILED)
        return -1;
    fill(s, s->args, argv);
    fill(s, s->env, envp);
    for (uint32_t i = 0; i < s->programs.count; i++) {
        const char *program = message_item(s, s->programs, i);

        if (child_at(c, CTR_STEP_EXEC, (int32_t)i) < 0)
            return -1;
        (void)execve(program, (char *const *)argv, (char *const *)envp);
        if (errno == EACCES)
            denied = 1;
        else if (errno != ENOENT && errno != ENOTDIR)
            return -1;
        else if (errno == ENOENT && faccessat(AT_FDCWD, program, F_OK, 0) == 0) {
            /* The file is there, so what is missing is its interpreter. */
            errno = ELIBACC;
            return -1;
        }
    }
    errno = denied ? EACCES : ENOENT;
    return -1;
}

static const struct step isolate_steps[] = {
    {CTR_STEP_CLOSE_INHERITED, step_close_inherited},
    {CTR_STEP_USER_NAMESPACE, step_user_namespace},
    {CTR_STEP_CGROUP_JOIN, step_cgroup_join},
    {CTR_STEP_CGROUP_NAMESPACE, step_cgroup_namespace},
    {CTR_STEP_JOIN_NAMESPACE, step_join_namespaces},
    {CTR_STEP_NETWORK, step_network},
    {CTR_STEP_KEYRING, step_keyring},
    {CTR_STEP_MOUNT_PRIVATE, step_mount_private},
    {CTR_STEP_SCRATCH, step_scratch},
    {CTR_STEP_ROOT_CREATE, step_root_create},
    {CTR_STEP_USER_ROOT, step_user_root},
    {CTR_STEP_MOUNT_SOURCE, step_mounts},
    {CTR_STEP_DEVICE, step_devices},
    {CTR_STEP_FILE, step_files},
    {CTR_STEP_CONSOLE, step_console},
    {CTR_STEP_LOOPBACK, step_loopback},
    {CTR_STEP_SYSCTL, step_sysctls},
    {CTR_STEP_OOM_SCORE, step_oom_score},
    {CTR_STEP_READONLY_PATH, step_readonly_paths},
    {CTR_STEP_MASKED_PATH, step_masked_paths},
    {CTR_STEP_ROOT_READONLY, step_root_readonly},
    {CTR_STEP_PIVOT, step_pivot},
    {CTR_STEP_HOSTNAME, step_hostname},
    {CTR_STEP_INIT_EXEC, step_init_exec},
    {CTR_STEP_NONE, NULL},
};

static const struct step join_steps[] = {
    {CTR_STEP_CLOSE_INHERITED, step_close_inherited},
    {CTR_STEP_CGROUP_JOIN, step_cgroup_join},
    {CTR_STEP_OOM_SCORE, step_join_oom_score},
    {CTR_STEP_RLIMIT, step_raise_limits},
    {CTR_STEP_JOIN_NAMESPACE, step_join_namespaces},
    {CTR_STEP_USER_ROOT, step_user_root},
    {CTR_STEP_KEYRING, step_keyring},
    {CTR_STEP_CONSOLE, step_join_console},
    {CTR_STEP_NONE, NULL},
};

const struct step enter_steps[] = {
    {CTR_STEP_SIGNALS, step_signals},
    {CTR_STEP_SESSION, step_session},
    {CTR_STEP_RLIMIT, step_rlimits},
    {CTR_STEP_AFFINITY, step_affinity},
    {CTR_STEP_SCHEDULER, step_scheduler},
    {CTR_STEP_IO_PRIORITY, step_io_priority},
    {CTR_STEP_PERSONALITY, step_personality},
    {CTR_STEP_UMASK, step_umask},
    {CTR_STEP_STDIO, step_stdio},
    {CTR_STEP_APPARMOR, step_apparmor},
    {CTR_STEP_SECCOMP_PRIVILEGED, step_seccomp_privileged},
    {CTR_STEP_BOUNDING, step_bounding},
    {CTR_STEP_GROUPS, step_groups},
    {CTR_STEP_WORKDIR, step_workdir},
    {CTR_STEP_GID, step_gid},
    {CTR_STEP_UID, step_uid},
    {CTR_STEP_CAPABILITIES, step_capabilities},
    {CTR_STEP_NO_NEW_PRIVS, step_no_new_privs},
    {CTR_STEP_SECCOMP_LISTENER, step_seccomp_listener},
    {CTR_STEP_GATE, step_gate},
    {CTR_STEP_CLOSE_FDS, step_close_fds},
    {CTR_STEP_SECCOMP, step_seccomp},
    {CTR_STEP_EXEC, step_exec},
    {CTR_STEP_NONE, NULL},
};

/* What the reaper gives up: the same as the payload, so that it may signal the payload and nothing more. */
const struct step demote_steps[] = {
    {CTR_STEP_SECCOMP_PRIVILEGED, step_seccomp_privileged},
    {CTR_STEP_BOUNDING, step_bounding},
    {CTR_STEP_GROUPS, step_groups},
    {CTR_STEP_GID, step_gid},
    {CTR_STEP_UID, step_uid},
    {CTR_STEP_CAPABILITIES, step_capabilities},
    {CTR_STEP_NO_NEW_PRIVS, step_no_new_privs},
    {CTR_STEP_SECCOMP, step_seccomp},
    {CTR_STEP_NONE, NULL},
};

void child_main(struct child *c)
{
    if (child_walk(c, isolate_steps) == 0)
        (void)child_walk(c, enter_steps);
    child_fail(c);
}

/* A PID namespace is entered by being born in it. The new process is no child of this one but of the spawner, as
 * the container's first process is, and is reaped like that. */
static pid_t clone_into(int *ret_pidfd)
{
    struct clone_args args = {.flags = CLONE_PARENT | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)ret_pidfd};

    if (features & CTR_FEATURE_CLONE3)
        return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    return (pid_t)syscall(SYS_clone, CLONE_PARENT | CLONE_PIDFD, NULL, ret_pidfd, NULL, NULL);
}

void join_main(struct child *c)
{
    struct ctr_status started = {.kind = CTR_STATUS_STARTED};
    int pidfd = -1;
    pid_t pid;

    if (child_walk(c, join_steps) < 0 || child_at(c, CTR_STEP_JOIN_CLONE, 0) < 0)
        child_fail(c);
    pid = clone_into(&pidfd);
    if (pid < 0)
        child_fail(c);
    if (pid == 0) {
        (void)child_walk(c, enter_steps);
        child_fail(c);
    }
    started.pid = pid;
    (void)channel_send(c->fds[CTR_FD_STATUS], &started, pidfd);
    (void)!write(c->answer_fd, &pid, sizeof(pid));
    _exit(0);
}
