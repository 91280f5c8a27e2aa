/* Path resolution anchored at a descriptor: openat2 where it exists, a walk in user space where not. */
#define _GNU_SOURCE
#include "path.h"

#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#include "ctr.h"
#include "sys.h"

/* The kernel gives EAGAIN when a rename happened during a walk that has "..": retry a bounded number of times. */
enum { MAX_RETRIES = 128, MAX_LINKS = 40, MAX_DEPTH = 256 };

unsigned features;

/* A call with impossible arguments fails in many ways; only ENOSYS says that it does not exist. */
static unsigned probe(unsigned bit, long result)
{
    return result < 0 && errno == ENOSYS ? 0 : bit;
}

unsigned features_probe(void)
{
    unsigned found = 0;
    int fd;

    found |= probe(CTR_FEATURE_OPENAT2, syscall(SYS_openat2, -1, "", NULL, 0));
    found |= probe(CTR_FEATURE_CLONE3, syscall(SYS_clone3, NULL, 0));
    found |= probe(CTR_FEATURE_MOUNT_API, syscall(SYS_move_mount, -1, "", -1, "", 0x80000000u)) &
             probe(CTR_FEATURE_MOUNT_API, syscall(SYS_fsopen, NULL, 0)) &
             probe(CTR_FEATURE_MOUNT_API, syscall(SYS_open_tree, -1, "", 0));
    found |= probe(CTR_FEATURE_MOUNT_SETATTR, syscall(SYS_mount_setattr, -1, "", 0, NULL, 0));
    found |= probe(CTR_FEATURE_CLOSE_RANGE, syscall(SYS_close_range, ~0u, 0, 0));
    fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    found |= fd < 0 && errno == ENOSYS ? 0 : CTR_FEATURE_PIDFD_OPEN;
    if (fd >= 0)
        (void)close(fd);
    return found;
}

/* State of a walk: the chain of directories from the root, so that ".." needs no trust in the file system. */
struct walk {
    int root;
    int dirs[128];
    int depth;
    int links;
    int no_symlinks;
    char rest[PATH_MAX];
};

static int walk_top(const struct walk *w)
{
    return w->depth > 0 ? w->dirs[w->depth - 1] : w->root;
}

static void walk_pop(struct walk *w)
{
    if (w->depth > 0)
        close_fd(&w->dirs[--w->depth]);
}

static void walk_end(struct walk *w)
{
    while (w->depth > 0)
        walk_pop(w);
}

static int walk_push(struct walk *w, int fd)
{
    if (w->depth >= (int)(sizeof(w->dirs) / sizeof(w->dirs[0]))) {
        (void)close(fd);
        errno = ENAMETOOLONG;
        return -1;
    }
    w->dirs[w->depth++] = fd;
    return 0;
}

/* Puts `text` in front of what is left to walk. */
static int walk_prepend(struct walk *w, const char *text, const char *rest)
{
    char joined[PATH_MAX];
    size_t a = strlen(text);
    size_t b = strlen(rest);

    if (a + b + 2 > sizeof(joined)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(joined, text, a);
    joined[a] = '/';
    memcpy(joined + a + 1, rest, b + 1);
    memcpy(w->rest, joined, a + b + 2);
    return 0;
}

/* The links of proc that the kernel resolves by object and not by their text, such as /proc/self/fd/3. Proc's
 * ordinary links (self, mounts, net) are relative; the text of a magic one is a path of some other root, or
 * names an object as in "pipe:[1]". */
static int is_magic(int fd, const char *text)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return 1;
    return fs.f_type == PROC_SUPER_MAGIC && (text[0] == '/' || text[0] == '(' || strchr(text, ':'));
}

/* Follows the symbolic link behind `fd`; an absolute one starts again at the root of the tree. */
static int walk_follow(struct walk *w, int fd, const char *rest)
{
    char text[PATH_MAX];
    ssize_t n;

    if (w->no_symlinks || ++w->links > MAX_LINKS) {
        errno = ELOOP;
        return -1;
    }
    n = readlinkat(fd, "", text, sizeof(text) - 1);
    if (n < 0)
        return -1;
    text[n] = '\0';
    if (is_magic(fd, text)) {
        errno = ELOOP;
        return -1;
    }
    if (text[0] == '/')
        walk_end(w);
    return walk_prepend(w, text, rest);
}

/* Takes the next component off w->rest into `name`; returns 0 at the end. */
static int walk_next(struct walk *w, char name[static NAME_MAX + 1], char rest[static PATH_MAX])
{
    const char *p = w->rest + strspn(w->rest, "/");
    size_t n = strcspn(p, "/");

    if (n == 0)
        return 0;
    if (n > NAME_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, p, n);
    name[n] = '\0';
    p += n;
    p += strspn(p, "/");
    memcpy(rest, p, strlen(p) + 1);
    return 1;
}

static int walk_component(struct walk *w, const char *name, const char *rest, int last_flags, int *ret_fd)
{
    _cleanup_close_ int fd = openat(walk_top(w), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    if (S_ISLNK(st.st_mode) && !(rest[0] == '\0' && (last_flags & O_NOFOLLOW)))
        return walk_follow(w, fd, rest) < 0 ? -1 : 1;
    /* Only a directory has something below it, ".." included. */
    if (!S_ISDIR(st.st_mode) && (rest[0] != '\0' || last_flags & O_DIRECTORY)) {
        errno = ENOTDIR;
        return -1;
    }
    if (rest[0] != '\0') {
        memmove(w->rest, rest, strlen(rest) + 1);
        return walk_push(w, take_fd(&fd)) < 0 ? -1 : 1;
    }
    if (last_flags & O_PATH) {
        *ret_fd = take_fd(&fd);
        return 0;
    }
    *ret_fd = openat(walk_top(w), name, last_flags | O_NOFOLLOW | O_CLOEXEC);
    return *ret_fd < 0 ? -1 : 0;
}

static int open_by_walk(int root, const char *path, int flags, int no_symlinks)
{
    struct walk w = {.root = root, .no_symlinks = no_symlinks};
    char name[NAME_MAX + 1];
    char rest[PATH_MAX];
    int fd = -1;
    int more;

    if (strlen(path) >= sizeof(w.rest)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(w.rest, path, strlen(path) + 1);
    while ((more = walk_next(&w, name, rest)) > 0) {
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            if (name[1] == '.')
                walk_pop(&w);
            memmove(w.rest, rest, strlen(rest) + 1);
            continue;
        }
        more = walk_component(&w, name, rest, flags, &fd);
        if (more <= 0)
            break;
    }
    if (more == 0 && fd < 0)
        fd = openat(walk_top(&w), ".", (flags & ~(O_CREAT | O_EXCL)) | O_CLOEXEC);
    int saved = errno;
    walk_end(&w);
    errno = saved;
    return more < 0 ? -1 : fd;
}

int path_open(int root, const char *path, int flags, int no_symlinks)
{
    uint64_t resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    int fd = -1;

    if (!(features & CTR_FEATURE_OPENAT2))
        return open_by_walk(root, path, flags, no_symlinks);
    if (no_symlinks)
        resolve |= RESOLVE_NO_SYMLINKS;
    for (int i = 0; i < MAX_RETRIES; i++) {
        fd = sys_openat2(root, path[0] ? path : "/", (uint64_t)(flags | O_CLOEXEC), 0, resolve);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            return fd;
    }
    return fd;
}

/* Makes the component `name` below `dir` and opens it. Another process making it at the same time is no error. */
static int make_component(int dir, const char *name, int directory)
{
    int fd;

    if (directory) {
        if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
            return -1;
    } else {
        fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd < 0 && errno != EEXIST)
            return -1;
        close_fd(&fd);
    }
    return openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* path_make for the first `length` bytes of `path`, which it may change while it runs. */
static int make_path(int root, char *path, size_t length, int directory, int no_symlinks, int depth)
{
    _cleanup_close_ int parent = -1;
    _cleanup_close_ int fd = -1;
    struct stat st;
    size_t start = length;
    char after = path[length];

    path[length] = '\0';
    fd = path_open(root, path, O_PATH, no_symlinks);
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (fd >= 0 || errno != ENOENT || start == length || depth > MAX_DEPTH)
        goto done;
    /* ".." of what is missing leads nowhere. */
    if (strcmp(path + start, "..") == 0 || strcmp(path + start, ".") == 0)
        goto done;
    size_t before = start;
    while (before > 0 && path[before - 1] == '/')
        before--;
    parent = before == 0 ? path_open(root, "/", O_PATH | O_DIRECTORY, 0)
                         : make_path(root, path, before, 1, no_symlinks, depth + 1);
    if (parent < 0)
        goto done;
    fd = make_component(parent, path + start, directory);
    /* What stands there after all is a dangling link, or something that came this moment: resolve it. */
    if (fd >= 0 && (fstat(fd, &st) < 0 || S_ISLNK(st.st_mode))) {
        close_fd(&fd);
        fd = path_open(root, path, O_PATH, no_symlinks);
    }
done:
    path[length] = after;
    return take_fd(&fd);
}

int path_make(int root, const char *path, int directory, int no_symlinks)
{
    char copy[PATH_MAX];
    size_t length = strlen(path);

    if (length >= sizeof(copy)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(copy, path, length + 1);
    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = '\0';
    return make_path(root, copy, length, directory, no_symlinks, 0);
}
