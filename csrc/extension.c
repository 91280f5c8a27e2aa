/* The functions of extension.h. */
#define _GNU_SOURCE
#include "extension.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>

#include "channel.h"
#include "message.h"
#include "mount.h"
#include "overlay.h"
#include "path.h"
#include "sys.h"

enum { STACK_SIZE = 64 * 1024, MAX_JOIN = 16, FIXED_ARGS = 6 };

struct launch {
    int program_fd;
    const int *keep[MAX_JOIN + 3];
    uint32_t keep_count;
    char **argv;
    int flags;
    int err;
};

/* Runs on its own stack in this process's memory until exec: system calls only. The descriptor table is its
 * own, so that clearing close-on-exec here is invisible to other threads. */
static int launched(void *argument)
{
    struct launch *l = argument;
    char *envp[] = {NULL};

    for (uint32_t i = 0; i < l->keep_count; i++)
        if (*l->keep[i] >= 0 && fcntl(*l->keep[i], F_SETFD, 0) < 0)
            goto failed;
    (void)syscall(SYS_execveat, l->program_fd, "", l->argv, envp, AT_EMPTY_PATH);
failed:
    l->err = errno;
    _exit(127);
}

static int launch_clone(struct launch *l, int *ret_pidfd)
{
    sigset_t all, before;
    char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    int pid;
    int saved;

    if (stack == MAP_FAILED)
        return -1;
    /* A handler of this process must not run in the child, which shares its memory. */
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = clone(launched, stack + STACK_SIZE,
                CLONE_VM | CLONE_VFORK | CLONE_PIDFD | l->flags, l, ret_pidfd);
    saved = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)munmap(stack, STACK_SIZE);
    errno = saved;
    return pid;
}

int ctr_launch(const char *role, int program_fd, int control_fd, int second_fd, int owner_is_pidfd,
               int namespaces, const int *join_fds, uint32_t join_count, int *ret_pidfd,
               struct ctr_error *reterr)
{
    char numbers[MAX_JOIN + 4][12];
    char *argv[MAX_JOIN + FIXED_ARGS + 1] = {(char *)(uintptr_t)role, numbers[0], numbers[1],
                                             owner_is_pidfd ? "p" : "d", numbers[2], numbers[3]};
    struct launch l = {.program_fd = program_fd,
                       .keep = {&control_fd, &second_fd, &program_fd},
                       .keep_count = 3,
                       .flags = namespaces};
    int pidfd = -1;

    if (join_count > MAX_JOIN)
        return -E2BIG;
    (void)snprintf(numbers[0], sizeof(numbers[0]), "%d", control_fd);
    (void)snprintf(numbers[1], sizeof(numbers[1]), "%d", second_fd);
    (void)snprintf(numbers[2], sizeof(numbers[2]), "%d", program_fd);
    (void)snprintf(numbers[3], sizeof(numbers[3]), "%u", join_count);
    for (uint32_t i = 0; i < join_count; i++) {
        (void)snprintf(numbers[4 + i], sizeof(numbers[0]), "%d", join_fds[i]);
        argv[FIXED_ARGS + i] = numbers[4 + i];
        l.keep[l.keep_count++] = &join_fds[i];
    }
    l.argv = argv;
    if (launch_clone(&l, &pidfd) < 0) {
        *reterr = (struct ctr_error){CTR_LAUNCH_CLONE, errno, 0};
        return -reterr->err;
    }
    *ret_pidfd = pidfd;
    if (l.err) {
        *reterr = (struct ctr_error){CTR_LAUNCH_EXEC, l.err, 0};
        return -l.err;
    }
    return 0;
}

int ctr_channel(int *ret_pair)
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_pair) < 0 ? -errno : 0;
}

/* By the descriptor, because the path of a socket has little room. */
static int named_socket(int directory, const char *name, struct sockaddr_un *ret_address)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s", directory, name) >=
        (int)sizeof(ret_address->sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

int ctr_listen(int directory, const char *name)
{
    struct sockaddr_un address;
    _cleanup_close_ int fd = named_socket(directory, name, &address);

    if (fd < 0 || (unlinkat(directory, name, 0) < 0 && errno != ENOENT))
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0)
        return -errno;
    return take_fd(&fd);
}

int ctr_connect(int directory, const char *name)
{
    struct sockaddr_un address;
    _cleanup_close_ int fd = named_socket(directory, name, &address);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return take_fd(&fd);
}

int ctr_watch(const char *directory)
{
    _cleanup_close_ int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    if (fd < 0 || inotify_add_watch(fd, directory, IN_MODIFY | IN_CREATE | IN_DELETE | IN_ONLYDIR) < 0)
        return -errno;
    return take_fd(&fd);
}

int ctr_send(int socket, const void *data, uint32_t size, const int *fds, uint32_t count)
{
    return channel_send_fds(socket, data, size, fds, count) < 0 ? -errno : 0;
}

/* 1 with a record, 0 at the end. *ret_fd is the descriptor that came with it, or -1. */
int ctr_receive(int socket, struct ctr_status *ret_status, int *ret_fd)
{
    uint32_t count = 0;
    int fd = -1;
    ssize_t n = channel_receive_fds(socket, ret_status, sizeof(*ret_status), &fd, 1, &count);

    if (n < 0)
        return -errno;
    *ret_fd = count ? fd : -1;
    if (n != 0 && n != (ssize_t)sizeof(*ret_status))
        return -EBADMSG;
    return n > 0;
}

int ctr_check_message(const void *data, uint64_t size, uint32_t fd_count)
{
    return message_check(data, (size_t)size, fd_count) < 0 ? -errno : 0;
}

int ctr_setns(int fd)
{
    return setns(fd, 0) < 0 ? -errno : 0;
}

uint32_t ctr_features(void)
{
    if (!features)
        features = features_probe();
    return features;
}

int ctr_open_in_root(int root_fd, const char *path, int flags, int no_symlinks)
{
    int fd;

    (void)ctr_features();
    fd = path_open(root_fd, path, flags, no_symlinks);
    return fd < 0 ? -errno : fd;
}

int ctr_clone_tree(int fd, int recursive)
{
    int tree = sys_open_tree(
        fd, "", (unsigned)(AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0)));

    return tree < 0 ? -errno : tree;
}

int ctr_map_ids(int fd, int user_fd, int recursive)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user_fd};

    return sys_mount_setattr(fd, recursive ? AT_RECURSIVE : 0, &attr) < 0 ? -errno : 0;
}

int ctr_mount_tmpfs(const char *const *options, uint32_t count)
{
    const struct filesystem fs = {"tmpfs", options, count, 0};
    int fd;

    (void)ctr_features();
    fd = mount_create(&fs);
    return fd < 0 ? -errno : fd;
}

/* Everything that lies on `path`, one over the other; what still uses it keeps it. */
int ctr_unmount(const char *path)
{
    while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        ;
    return errno == EINVAL ? 0 : -errno;
}

static const char *lower_path(const void *context, uint32_t i)
{
    return ((const char *const *)context)[i];
}

static const char *volatile_option(const void *context, uint32_t i)
{
    (void)context;
    (void)i;
    return "volatile";
}

struct aside {
    const struct overlay *overlay;
    int result;
};

/* In a mount namespace of its own, over its own layer, and taken out of there. */
static void *mount_overlay_aside(void *context)
{
    struct aside *a = context;
    const char *place = a->overlay->upper;

    a->result = -1;
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        overlay_mount_at(a->overlay, place) == 0)
        a->result = sys_open_tree(AT_FDCWD, place, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (a->result < 0)
        a->result = -errno;
    return NULL;
}

int ctr_mount_overlay(const char *const *lowers, uint32_t count, const char *upper, const char *work)
{
    const struct overlay o = {lower_path, volatile_option, lowers, count, 1, upper, work};
    struct aside a = {.overlay = &o};
    pthread_t thread;
    int r;

    if (overlay_appends()) {
        int fd = overlay_create(&o);

        return fd < 0 ? -errno : fd;
    }
    r = pthread_create(&thread, NULL, mount_overlay_aside, &a);
    if (r == 0)
        r = pthread_join(thread, NULL);
    return r == 0 ? a.result : -r;
}

int64_t ctr_filesystem_type(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) < 0 ? -errno : (int64_t)(uint32_t)fs.f_type;
}

int ctr_sync_filesystem(int fd)
{
    return syncfs(fd) < 0 ? -errno : 0;
}

struct visit {
    int namespace_fd; /* -1 for a new one */
    int domain;
    int type;
    int protocol;
    int result;
};

/* Devices that come into this thread's network later get no addresses of version 6 by themselves; a kernel without that
 * version has nothing to say. */
static int without_version_six(void)
{
    _cleanup_close_ int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    return write(fd, "1", 1) == 1 ? 0 : -1;
}

static int look(const struct visit *v)
{
    if (v->namespace_fd < 0) {
        if (unshare(CLONE_NEWNET) < 0 || without_version_six() < 0)
            return -1;
        return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    }
    if (setns(v->namespace_fd, CLONE_NEWNET) < 0)
        return -1;
    return socket(v->domain, v->type | SOCK_CLOEXEC, v->protocol);
}

static void *visited(void *argument)
{
    struct visit *v = argument;
    int fd = look(v);

    v->result = fd < 0 ? -errno : fd;
    return NULL;
}

/* In a thread of its own, which ends there: no thread of the caller's is in another network for a moment. */
static int visit(struct visit *v)
{
    sigset_t all, before;
    pthread_t thread;
    int err;

    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&thread, NULL, visited, v);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err)
        return -err;
    (void)pthread_join(thread, NULL);
    return v->result;
}

int ctr_new_network(void)
{
    return visit(&(struct visit){.namespace_fd = -1});
}

int ctr_network_socket(int namespace_fd, int domain, int type, int protocol)
{
    return visit(&(struct visit){.namespace_fd = namespace_fd, .domain = domain, .type = type, .protocol = protocol});
}
