/* Device nodes and the console: in a /dev that we mounted ourselves a moment ago, or anywhere in the root. */
#define _GNU_SOURCE
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

#include "channel.h"
#include "child.h"
#include "message.h"
#include "mount.h"
#include "path.h"
#include "sys.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#ifndef DEVPTS_SUPER_MAGIC
#define DEVPTS_SUPER_MAGIC 0x1cd1
#endif

/* Parent directories of a node such as snd/timer. */
static int make_parents(int dev, const char *name)
{
    char prefix[256];

    for (const char *p = strchr(name, '/'); p; p = strchr(p + 1, '/')) {
        size_t n = (size_t)(p - name);

        if (n >= sizeof(prefix)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(prefix, name, n);
        prefix[n] = '\0';
        if (mkdirat(dev, prefix, 0755) < 0 && errno != EEXIST)
            return -1;
    }
    return 0;
}

/* A file to bind something on: a new one, or what is there. */
static int make_place(int dir, const char *name)
{
    _cleanup_close_ int file = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);

    return file < 0 && errno != EEXIST ? -1 : openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* Whether what is there already can be meant by `n`: the same device, or any symbolic link where one is wanted. */
static int is_there(int dir, const char *name, const struct ctr_node *n, mode_t type)
{
    struct stat st;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if ((st.st_mode & S_IFMT) == type && (type == S_IFLNK || type == S_IFIFO || st.st_rdev == makedev(n->major, n->minor)))
        return 1;
    errno = EEXIST;
    return 0;
}

/* The root of a user namespace can make no node; the host's own is shown, if it is that device. */
static int bind_node(const struct child *c, const struct ctr_node *n, int dir, const char *name, mode_t type)
{
    const char *path = message_text(c->spec, n->name);
    _cleanup_close_ int host = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int source = host < 0 ? -1 : openat(host, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_close_ int target = -1;
    struct stat st;

    if (source < 0 || fstat(source, &st) < 0)
        return -1;
    if ((st.st_mode & S_IFMT) != type || st.st_rdev != makedev(n->major, n->minor)) {
        errno = ENODEV;
        return -1;
    }
    target = make_place(dir, name);
    if (target < 0 || fstat(target, &st) < 0)
        return -1;
    if (S_ISREG(st.st_mode) && st.st_size == 0)
        return mount_bind(source, target, &(struct bind_options){0});
    return is_there(dir, name, n, type) ? 0 : -1;
}

static mode_t type_of(const struct ctr_node *n)
{
    static const mode_t types[] = {
        [CTR_NODE_CHAR] = S_IFCHR, [CTR_NODE_BLOCK] = S_IFBLK, [CTR_NODE_FIFO] = S_IFIFO, [CTR_NODE_SYMLINK] = S_IFLNK};

    return types[n->kind];
}

static int make_node(const struct child *c, const struct ctr_node *n, int dir, const char *name)
{
    mode_t type = type_of(n);

    if (c->spec->flags & CTR_SPEC_USER && (type == S_IFCHR || type == S_IFBLK))
        return bind_node(c, n, dir, name, type);
    if (type == S_IFLNK)
        return symlinkat(message_text(c->spec, n->target), dir, name) < 0 && !is_there(dir, name, n, type) ? -1 : 0;
    if (mknodat(dir, name, type | n->mode, makedev(n->major, n->minor)) < 0)
        return errno == EEXIST && is_there(dir, name, n, type) ? 0 : -1;
    if (n->uid == 0 && n->gid == 0)
        return 0;
    return fchownat(dir, name, n->uid, n->gid, AT_SYMLINK_NOFOLLOW);
}

/* The file system is ours and nobody else has seen it: names need no resolution. umask is 0 here. */
static int make_in_dev(const struct child *c, const struct ctr_node *n)
{
    const char *name = message_text(c->spec, n->name);

    return make_parents(c->dev_fd, name) < 0 ? -1 : make_node(c, n, c->dev_fd, name);
}

/* In a directory of the root file system, by whatever links lead there. */
static int make_in_root(const struct child *c, const struct ctr_node *n)
{
    const char *path = message_text(c->spec, n->name);
    const char *name = strrchr(path, '/') + 1;
    size_t length = (size_t)(name - path);
    _cleanup_close_ int dir = -1;
    char parent[4096];

    if (length >= sizeof(parent)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(parent, path, length);
    parent[length] = '\0';
    dir = length == 1 ? openat(c->root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC) : path_make(c->root_fd, parent, 1, 0);
    return dir < 0 ? -1 : make_node(c, n, dir, name);
}

static int make_all(struct child *c, int in_root)
{
    const struct ctr_node *n = message_array(c->spec, c->spec->nodes);

    for (uint32_t i = 0; i < c->spec->nodes.count; i++) {
        if ((message_text(c->spec, n[i].name)[0] == '/') != in_root)
            continue;
        if (child_at(c, CTR_STEP_DEVICE, (int32_t)i) < 0 ||
            (in_root ? make_in_root : make_in_dev)(c, &n[i]) < 0)
            return -1;
    }
    return 0;
}

int make_devices(struct child *c)
{
    return make_all(c, 0);
}

/* After all mounts, because they may lie in one. */
int step_devices(struct child *c)
{
    return make_all(c, 1);
}

/* A slave of the container's own devpts, and of nothing else, becomes /dev/console. */
static int bind_console(struct child *c)
{
    _cleanup_close_ int dev = c->dev_fd < 0 ? path_open(c->root_fd, "dev", O_PATH | O_DIRECTORY, 1) : dup(c->dev_fd);
    _cleanup_close_ int target = dev < 0 ? -1 : make_place(dev, "console");
    struct statfs fs;
    struct stat st;

    if (target < 0 || fstatfs(c->tty_fd, &fs) < 0 || fstat(c->tty_fd, &st) < 0)
        return -1;
    if (fs.f_type != DEVPTS_SUPER_MAGIC || !S_ISCHR(st.st_mode)) {
        errno = ENOTTY;
        return -1;
    }
    return mount_bind(c->tty_fd, target, &(struct bind_options){0});
}

/* Opens a pair of a devpts instance: the master is returned, the slave becomes the terminal. -1 with errno. */
static int open_console(struct child *c, int root_fd)
{
    const struct ctr_spec *s = c->spec;
    struct winsize size = {.ws_row = (unsigned short)s->console_rows, .ws_col = (unsigned short)s->console_columns};
    _cleanup_close_ int master = path_open(root_fd, "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 1);
    struct statfs fs;
    int zero = 0;

    if (master < 0 || fstatfs(master, &fs) < 0)
        return -1;
    if (fs.f_type != DEVPTS_SUPER_MAGIC) {
        errno = ENOTTY;
        return -1;
    }
    if (fcntl(master, F_SETFL, O_RDWR) < 0 || ioctl(master, TIOCSPTLCK, &zero) < 0)
        return -1;
    c->tty_fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (c->tty_fd < 0)
        return -1;
    if (s->console_rows > 0 && ioctl(master, TIOCSWINSZ, &size) < 0)
        return -1;
    return fchown(c->tty_fd, s->uid, (gid_t)-1) < 0 ? -1 : take_fd(&master);
}

/* The master goes to the caller; nobody in the container ever holds it. */
static int give_console(struct child *c, int master)
{
    return channel_send(c->fds[CTR_FD_STATUS], &(struct ctr_status){.kind = CTR_STATUS_CONSOLE}, master);
}

int step_console(struct child *c)
{
    _cleanup_close_ int master = -1;

    if (!(c->spec->flags & CTR_SPEC_CONSOLE))
        return 0;
    master = open_console(c, c->root_fd);
    if (master < 0 || bind_console(c) < 0)
        return -1;
    return give_console(c, master);
}

/* In the container's own devpts, which it may have changed meanwhile: what is no devpts is no terminal. */
int step_join_console(struct child *c)
{
    _cleanup_close_ int root = -1;
    _cleanup_close_ int master = -1;

    if (!(c->spec->flags & CTR_SPEC_CONSOLE))
        return 0;
    root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    master = root < 0 ? -1 : open_console(c, root);
    return master < 0 ? -1 : give_console(c, master);
}
