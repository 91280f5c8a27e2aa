/* Walking from directory to directory by descriptor. Archives are sorted by directory, so the chain from the root
 * to the last one is kept open, and mostly the next one is the same. */
#define _GNU_SOURCE
#include "tree.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "remove.h"
#include "sys.h"

enum {
    MAX_DEPTH = TREE_PATH / 2 + 1,
    MAX_OPEN = 128,
    MAX_LINKS = 40,
    MAX_STEPS = 8192,
    MAX_IMPLIED_BYTES = 64 << 20
};

struct link {
    size_t end; /* of its path in the path of the chain */
    int fd;     /* -1 where the chain is too long to be open everywhere */
};

struct tree {
    int root_fd;
    dev_t device;
    int plain;
    struct ctr_unpack_result *result;
    size_t depth;
    struct link chain[MAX_DEPTH];
    char path[TREE_PATH];
    size_t alias_size; /* of the last path that led through a link, and where it led; 0 if there is none */
    char alias[TREE_PATH];
    size_t target_size;
    char target[TREE_PATH];
    int is_plain;
    int is_new;    /* whether the last step has made its directory */
    char *implied; /* paths of directories that were made on the way, each with a NUL behind it */
    size_t implied_used;
    size_t implied_room;
};

static struct tree the_tree;

struct tree *tree_open(int root_fd, int plain, struct ctr_unpack_result *result)
{
    struct stat st;

    if (fstat(root_fd, &st) < 0)
        return NULL;
    the_tree.root_fd = root_fd;
    the_tree.device = st.st_dev;
    the_tree.plain = plain;
    the_tree.result = result;
    return &the_tree;
}

static int fail(struct tree *t, enum ctr_unpack_reason reason, const char *detail, size_t size)
{
    return unpack_fail(t->result, reason, detail, size);
}

static void cut(struct tree *t, size_t depth)
{
    while (t->depth > depth)
        close_fd(&t->chain[--t->depth].fd);
}

static size_t chain_size(const struct tree *t)
{
    return t->depth ? t->chain[t->depth - 1].end : 0;
}

static int chain_fd(const struct tree *t)
{
    return t->depth ? t->chain[t->depth - 1].fd : t->root_fd;
}

const char *tree_path(const struct tree *t, size_t *ret_size)
{
    *ret_size = chain_size(t);
    return t->path;
}

int tree_is_plain(const struct tree *t)
{
    return t->is_plain;
}

void tree_enter(struct tree *t, const char *name, size_t size, int fd)
{
    size_t end = chain_size(t);

    /* Only behind links can a path get longer than the archive's own. */
    if (end + size + 2 > sizeof(t->path)) {
        (void)close(fd);
        return;
    }
    if (end)
        t->path[end++] = '/';
    memcpy(t->path + end, name, size);
    if (t->depth >= MAX_OPEN)
        close_fd(&t->chain[t->depth - MAX_OPEN].fd);
    t->chain[t->depth++] = (struct link){end + size, fd};
}

int tree_hide_below(int fd)
{
    if (fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) == 0)
        return 0;
    return errno == EPERM ? fsetxattr(fd, "user.overlay.opaque", "y", 1, 0) : -1;
}

/* Whatever the set-group-id bit of its parent hands down. Returns the descriptor, or -1 with errno. */
static int make_directory(int parent, const char *name)
{
    _cleanup_close_ int fd = -1;

    if (mkdirat(parent, name, 0755) < 0)
        return -1;
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchown(fd, 0, 0) < 0 || fchmod(fd, 0755) < 0)
        return -1;
    return take_fd(&fd);
}

/* Opens the directory `name` of `parent`. -2 if it is something else, perhaps a link; -1 with errno. */
static int step(struct tree *t, int parent, const char *name, int create)
{
    _cleanup_close_ int fd = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    t->is_new = 0;
    if (fd < 0 && errno == ENOENT && create) {
        fd = make_directory(parent, name);
        t->is_new = 1;
    } else if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) {
        if (!create || t->plain || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISCHR(st.st_mode) ||
            st.st_rdev)
            return -2;
        /* Removed by this archive and made anew by it. */
        if (unlinkat(parent, name, 0) < 0)
            return -1;
        fd = make_directory(parent, name);
        if (fd >= 0 && tree_hide_below(fd) < 0)
            return -1;
    }
    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    if (st.st_dev != t->device && !t->plain)
        return fail(t, CTR_UNPACK_OTHER_FILE_SYSTEM, name, strlen(name));
    return take_fd(&fd);
}

/* How many links of the chain are the way to `path`. */
static size_t common_depth(const struct tree *t, const char *path, size_t size)
{
    size_t depth = 0;

    while (depth < t->depth) {
        size_t end = t->chain[depth].end;
        size_t from = depth ? t->chain[depth - 1].end : 0;

        if (end > size || (end < size && path[end] != '/') || memcmp(path + from, t->path + from, end - from) != 0)
            break;
        depth++;
    }
    return depth;
}

/* Remembers the last directory as one that nobody asked for. */
static int note_implied(struct tree *t)
{
    size_t size = chain_size(t);

    if (t->implied_used + size + 1 > t->implied_room) {
        size_t room = t->implied_room ? 2 * t->implied_room : 1 << 16;
        char *more = room > MAX_IMPLIED_BYTES ? NULL : realloc(t->implied, room);

        if (!more)
            return fail(t, CTR_UNPACK_MEMORY, NULL, 0);
        t->implied = more;
        t->implied_room = room;
    }
    memcpy(t->implied + t->implied_used, t->path, size);
    t->implied[t->implied_used + size] = 0;
    t->implied_used += size + 1;
    return 0;
}

int tree_implied(const struct tree *t, int (*tell)(void *context, const char *path, size_t size), void *context)
{
    for (size_t at = 0; at < t->implied_used;) {
        size_t size = strlen(t->implied + at);
        int result = tell(context, t->implied + at, size);

        if (result != 0)
            return result;
        at += size + 1;
    }
    return 0;
}

/* Makes the chain that of `path`. 0, -2 if a part is no directory, -1 with errno. */
static int walk(struct tree *t, const char *path, size_t size, int create)
{
    cut(t, common_depth(t, path, size));
    if (chain_fd(t) < 0)
        cut(t, 0);
    while (chain_size(t) < size) {
        size_t start = chain_size(t) ? chain_size(t) + 1 : 0;
        const char *slash = memchr(path + start, '/', size - start);
        size_t end = slash ? (size_t)(slash - path) : size;
        char name[TREE_COMPONENT + 1];
        int fd;

        memcpy(name, path + start, end - start);
        name[end - start] = 0;
        fd = step(t, chain_fd(t), name, create);
        if (fd < 0)
            return fd;
        tree_enter(t, name, end - start, fd);
        if (chain_size(t) != end) {
            errno = ENAMETOOLONG;
            return -1;
        }
        if (t->is_new && note_implied(t) < 0)
            return -1;
    }
    return 0;
}

/* State of a walk through links: `done` has no links, `rest` is still to be walked. */
struct resolving {
    char done[TREE_PATH];
    size_t done_size;
    char rest[2 * TREE_PATH];
    int links;
};

static void leave(struct resolving *w)
{
    while (w->done_size && w->done[w->done_size - 1] != '/')
        w->done_size--;
    if (w->done_size)
        w->done_size--;
    w->done[w->done_size] = 0;
}

/* Puts the text of the link `done` in front of what is left to walk. */
static int follow(struct tree *t, struct resolving *w, const char *rest)
{
    char text[2 * TREE_PATH];
    ssize_t n = readlinkat(t->root_fd, w->done, text, TREE_PATH);
    size_t rest_size = strlen(rest);

    if (n < 0)
        return fail(t, CTR_UNPACK_IN_THE_WAY, w->done, w->done_size);
    if (++w->links > MAX_LINKS || n >= TREE_PATH || (size_t)n + rest_size + 2 > sizeof(text))
        return fail(t, CTR_UNPACK_LINKS, w->done, w->done_size);
    leave(w);
    if (text[0] == '/')
        w->done[w->done_size = 0] = 0;
    text[n] = '/';
    memcpy(text + n + 1, rest, rest_size + 1);
    memcpy(w->rest, text, (size_t)n + rest_size + 2);
    return 0;
}

/* Takes one part of what is left to walk. 1, 0 at the end, -1. */
static int resolve_part(struct tree *t, struct resolving *w, int create, int *ret_missing)
{
    const char *part = w->rest + strspn(w->rest, "/");
    size_t size = strcspn(part, "/");
    struct stat st;
    const char *rest = part + size;

    if (size == 0)
        return 0;
    if (size == 1 && part[0] == '.') {
        memmove(w->rest, rest, strlen(rest) + 1);
        return 1;
    }
    if (size == 2 && memcmp(part, "..", 2) == 0) {
        leave(w);
        memmove(w->rest, rest, strlen(rest) + 1);
        return 1;
    }
    if (size > TREE_COMPONENT || w->done_size + size + 2 > sizeof(w->done))
        return fail(t, CTR_UNPACK_COMPONENT_BYTES, part, size);
    if (w->done_size)
        w->done[w->done_size++] = '/';
    memcpy(w->done + w->done_size, part, size);
    w->done[w->done_size += size] = 0;
    if (fstatat(t->root_fd, w->done, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISDIR(st.st_mode) && !(create && !t->plain && S_ISCHR(st.st_mode) && !st.st_rdev))
            return follow(t, w, rest) < 0 ? -1 : 1;
    } else if (errno != ENOENT || !create) {
        *ret_missing = errno == ENOENT;
        return *ret_missing ? -1 : fail(t, CTR_UNPACK_SYSTEM, NULL, 0);
    }
    /* A directory, or one to be made. */
    if (walk(t, w->done, w->done_size, create) < 0)
        return fail(t, CTR_UNPACK_SYSTEM, NULL, 0);
    memmove(w->rest, rest, strlen(rest) + 1);
    return 1;
}

/* Finds where `path` leads through links, and notes it as the target of the alias. */
static int resolve(struct tree *t, const char *path, size_t size, int create, int *ret_missing)
{
    static struct resolving w;
    int steps = 0;
    int more;

    w = (struct resolving){.links = 0};
    memcpy(w.rest, path, size);
    w.rest[size] = 0;
    t->alias_size = 0;
    while ((more = resolve_part(t, &w, create, ret_missing)) > 0)
        if (++steps > MAX_STEPS)
            return fail(t, CTR_UNPACK_LINKS, path, size);
    if (more < 0)
        return -1;
    memcpy(t->alias, path, size);
    t->alias_size = size;
    memcpy(t->target, w.done, w.done_size);
    t->target_size = w.done_size;
    return 0;
}

int tree_directory(struct tree *t, const char *path, size_t size, int create, int *ret_missing)
{
    int result;

    *ret_missing = 0;
    t->is_plain = !(t->alias_size && t->alias_size == size && memcmp(t->alias, path, size) == 0);
    if (t->is_plain) {
        result = walk(t, path, size, create);
        if (result == -2) {
            t->is_plain = 0;
            if (resolve(t, path, size, create, ret_missing) < 0)
                return -1;
        }
    }
    if (!t->is_plain)
        result = walk(t, t->target, t->target_size, create);
    if (result < 0) {
        *ret_missing = errno == ENOENT && t->result->reason == CTR_UNPACK_DONE && !create;
        return *ret_missing ? -1 : fail(t, CTR_UNPACK_SYSTEM, NULL, 0);
    }
    return chain_fd(t);
}

int tree_find(struct tree *t, const char *path, size_t size)
{
    t->alias_size = 0;
    t->is_plain = 1;
    return walk(t, path, size, 0) < 0 ? -1 : chain_fd(t);
}

int tree_remove(struct tree *t, const char *name)
{
    int fd = chain_fd(t);

    /* What was a link, or led through one, may be something else afterwards. */
    t->alias_size = 0;
    if (unlinkat(fd, name, 0) == 0)
        return 0;
    return errno == EISDIR || errno == EPERM ? remove_directory(fd, name) : -1;
}
