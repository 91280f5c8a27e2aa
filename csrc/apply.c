/* Entries become files. Every object is made new, relative to the descriptor of its directory; whiteouts become
 * the marks that overlayfs knows. */
#define _GNU_SOURCE
#include "apply.h"

#include <string.h>
#include <sys/sysmacros.h>

#include "attribute.h"
#include "notes.h"
#include "sys.h"
#include "tree.h"

enum { MAX_MAJOR = 1 << 12, MAX_MINOR = 1 << 20, COPY = TAR_BUFFER };

struct applier {
    struct tar_reader *reader;
    struct tree *tree;
    struct ctr_unpack_result *result;
    const struct ctr_unpack_order *order;
    int root_fd;
    uint64_t apparent;
    struct notes notes;
    /* The present entry: its cleaned path, how much of it names the directory, and the name. */
    char path[TREE_PATH];
    size_t head;
    const char *name;
};

static int fail(struct applier *a, enum ctr_unpack_reason reason)
{
    return unpack_fail(a->result, reason, NULL, 0);
}

/* What the archive asks wrongly, or what the disk cannot do: the reader of the report tells by errno. */
static int fail_system(struct applier *a)
{
    return fail(a, CTR_UNPACK_SYSTEM);
}

/* Copies a name without empty, "." and ".." parts. The size, or -1 with what is wrong noted. */
static ssize_t clean(struct applier *a, const struct tar_text *name, char *ret_path)
{
    const char *at = name->data;
    const char *end = at + name->size;
    size_t used = 0;

    while (at < end) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        size_t size = (size_t)((slash ? slash : end) - at);

        if (size == 2 && at[0] == '.' && at[1] == '.') {
            if (used == 0)
                return unpack_fail(a->result, CTR_UNPACK_OUTSIDE, name->data, name->size);
            while (used && ret_path[used - 1] != '/')
                used--;
            used -= used > 0;
        } else if (size > TREE_COMPONENT) {
            return fail(a, CTR_UNPACK_COMPONENT_BYTES);
        } else if (size > 1 || (size == 1 && at[0] != '.')) {
            if (used)
                ret_path[used++] = '/';
            memcpy(ret_path + used, at, size);
            used += size;
        }
        at += size + 1;
    }
    ret_path[used] = 0;
    return (ssize_t)used;
}

static int parent_directory(struct applier *a)
{
    int missing;

    return tree_directory(a->tree, a->path, a->head, 1, &missing);
}

static int lookup(int parent, const char *name, struct stat *ret_st)
{
    return fstatat(parent, name, ret_st, AT_SYMLINK_NOFOLLOW);
}

static int is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

static int is_plain(const struct applier *a)
{
    return (a->order->flags & CTR_UNPACK_PLAIN) != 0;
}

static int fail_other_kind(struct applier *a)
{
    return unpack_fail(a->result, CTR_UNPACK_OTHER_KIND, a->name, strlen(a->name));
}

/* Makes room for the entry, which is no directory and whose name is taken. */
static int clear(struct applier *a, int parent)
{
    struct stat st;

    if (is_plain(a) && lookup(parent, a->name, &st) == 0 && S_ISDIR(st.st_mode))
        return fail_other_kind(a);
    return tree_remove(a->tree, a->name) < 0 ? fail_system(a) : 0;
}

static int write_all(struct applier *a, int fd, const uint8_t *data, size_t size, off_t offset)
{
    while (size) {
        ssize_t n = pwrite(fd, data, size, offset);

        if (n < 0)
            return fail_system(a);
        data += n;
        offset += n;
        size -= (size_t)n;
    }
    return 0;
}

static int copy_span(struct applier *a, int fd, uint64_t offset, uint64_t size)
{
    while (size) {
        const uint8_t *data;
        ssize_t n = tar_content(a->reader, size < COPY ? (size_t)size : COPY, &data);

        if (n <= 0)
            return n < 0 ? -1 : fail(a, CTR_UNPACK_CUT_OFF_IN_FILE);
        if (write_all(a, fd, data, (size_t)n, (off_t)offset) < 0)
            return -1;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return 0;
}

static int copy_content(struct applier *a, const struct tar_entry *e, int fd)
{
    if (!e->is_sparse)
        return copy_span(a, fd, 0, e->size);
    for (uint32_t i = 0; i < e->span_count; i++)
        if (copy_span(a, fd, e->spans[i].offset, e->spans[i].size) < 0)
            return -1;
    return ftruncate(fd, (off_t)e->size) < 0 ? fail_system(a) : 0;
}

static int make_file(struct applier *a, const struct tar_entry *e)
{
    static const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int parent = parent_directory(a);
    _cleanup_close_ int fd = -1;

    if (parent < 0)
        return -1;
    fd = openat(parent, a->name, flags, 0600);
    if (fd < 0 && errno == EEXIST) {
        if (clear(a, parent) < 0)
            return -1;
        fd = openat(parent, a->name, flags, 0600);
    }
    if (fd < 0)
        return fail_system(a);
    if (copy_content(a, e, fd) < 0 || attribute_set(a->reader, a->result, e, fd) < 0)
        return -1;
    return attribute_time(fd, NULL, e->mtime_ns) < 0 ? fail_system(a) : 0;
}

static int finish_directory(struct applier *a, const struct tar_entry *e, int fd)
{
    size_t size;
    const char *path;

    if (attribute_set(a->reader, a->result, e, fd) < 0)
        return -1;
    path = tree_path(a->tree, &size);
    return notes_add(&a->notes, path, size, e->mtime_ns) < 0 ? fail(a, CTR_UNPACK_MEMORY) : 0;
}

/* A directory in the place of something else hides what lies below, as that did. */
static int make_directory(struct applier *a, const struct tar_entry *e)
{
    int parent = parent_directory(a);
    int hides = 0;
    struct stat st;
    int fd;

    if (parent < 0)
        return -1;
    if (mkdirat(parent, a->name, 0700) < 0) {
        if (errno != EEXIST || lookup(parent, a->name, &st) < 0)
            return fail_system(a);
        hides = !S_ISDIR(st.st_mode);
        if (hides && is_plain(a))
            return fail_other_kind(a);
        if (hides && (clear(a, parent) < 0 || mkdirat(parent, a->name, 0700) < 0))
            return fail_system(a);
    }
    fd = openat(parent, a->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail_system(a);
    tree_enter(a->tree, a->name, strlen(a->name), fd);
    if (hides && tree_hide_below(fd) < 0)
        return fail_system(a);
    return finish_directory(a, e, fd);
}

static int make_symlink(struct applier *a, const struct tar_entry *e)
{
    int parent;

    if (e->link.size == 0)
        return fail(a, CTR_UNPACK_LINK_TO_NOTHING);
    parent = parent_directory(a);
    if (parent < 0)
        return -1;
    if (symlinkat(e->link.data, parent, a->name) < 0) {
        if (errno != EEXIST)
            return fail(a, CTR_UNPACK_REFUSED);
        if (clear(a, parent) < 0 || symlinkat(e->link.data, parent, a->name) < 0)
            return fail_system(a);
    }
    return attribute_at(e, parent, a->name) < 0 ? fail_system(a) : 0;
}

static int fail_link(struct applier *a, const struct tar_entry *e, enum ctr_unpack_reason reason)
{
    return unpack_fail(a->result, reason, e->link.data, e->link.size);
}

/* Opens the directory of the file that a hard link is to become a name of. */
static int link_source(struct applier *a, const struct tar_entry *e, const char *target, size_t head)
{
    int missing;
    int fd = tree_directory(a->tree, target, head, 0, &missing);

    if (fd < 0)
        return missing ? fail_link(a, e, CTR_UNPACK_HARDLINK_MISSING) : -1;
    return openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int check_link_source(struct applier *a, const struct tar_entry *e, int source, const char *name,
                             struct stat *ret_st)
{
    if (lookup(source, *name ? name : ".", ret_st) < 0)
        return errno == ENOENT ? fail_link(a, e, CTR_UNPACK_HARDLINK_MISSING) : fail_system(a);
    if (S_ISDIR(ret_st->st_mode))
        return fail(a, CTR_UNPACK_HARDLINK_DIRECTORY);
    return is_whiteout(ret_st) ? fail(a, CTR_UNPACK_HARDLINK_REMOVED) : 0;
}

static int make_hardlink(struct applier *a, const struct tar_entry *e)
{
    static char target[TREE_PATH];
    ssize_t size = clean(a, &e->link, target);
    const char *slash;
    const char *name;
    _cleanup_close_ int source = -1;
    struct stat st, present;
    int parent;

    if (size < 0)
        return -1;
    slash = strrchr(target, '/');
    name = slash ? slash + 1 : target;
    source = link_source(a, e, target, slash ? (size_t)(slash - target) : 0);
    if (source < 0)
        return fail_system(a);
    parent = parent_directory(a);
    if (parent < 0 || check_link_source(a, e, source, name, &st) < 0)
        return -1;
    if (linkat(source, name, parent, a->name, 0) == 0)
        return 0;
    if (errno != EEXIST)
        return fail(a, CTR_UNPACK_REFUSED);
    if (lookup(parent, a->name, &present) == 0 && present.st_ino == st.st_ino && present.st_dev == st.st_dev)
        return 0;
    if (clear(a, parent) < 0)
        return -1;
    if (linkat(source, name, parent, a->name, 0) < 0)
        return fail(a, errno == ENOENT ? CTR_UNPACK_HARDLINK_SELF : CTR_UNPACK_REFUSED);
    return 0;
}

static int make_node(struct applier *a, const struct tar_entry *e, mode_t kind, dev_t device)
{
    int parent = parent_directory(a);

    if (parent < 0)
        return -1;
    if (mknodat(parent, a->name, kind | 0600, device) < 0) {
        if (errno != EEXIST)
            return fail_system(a);
        if (clear(a, parent) < 0 || mknodat(parent, a->name, kind | 0600, device) < 0)
            return fail_system(a);
    }
    return attribute_at(e, parent, a->name) < 0 ? fail_system(a) : 0;
}

static int make_device(struct applier *a, const struct tar_entry *e)
{
    if (!(a->order->flags & CTR_UNPACK_DEVICES))
        return unpack_fail(a->result, CTR_UNPACK_DEVICE, e->kind == TAR_CHAR ? "character" : "block",
                           e->kind == TAR_CHAR ? 9 : 5);
    if (e->major >= MAX_MAJOR || e->minor >= MAX_MINOR)
        return fail(a, CTR_UNPACK_DEVICE_NUMBER);
    if (e->kind == TAR_CHAR && e->major == 0 && e->minor == 0)
        return fail(a, CTR_UNPACK_DEVICE_WHITEOUT);
    return make_node(a, e, e->kind == TAR_CHAR ? S_IFCHR : S_IFBLK, makedev(e->major, e->minor));
}

static int hide_below(struct applier *a, int parent, const char *name)
{
    _cleanup_close_ int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return 0;
    return fd < 0 || tree_hide_below(fd) < 0 ? fail_system(a) : 0;
}

/* Notes that something below is removed: one name, or all names of the directory. What this same archive brings
 * stays; a directory of it must not let shine through what lies below. */
static int white_out(struct applier *a, const struct tar_entry *e)
{
    static const char opaque[] = ".wh..wh..opq";
    const char *target = a->name + 4;
    int is_opaque = strcmp(a->name, opaque) == 0;
    int parent;

    if (!*target || strcmp(target, ".") == 0 || strcmp(target, "..") == 0 ||
        (!is_opaque && strncmp(target, ".wh.", 4) == 0))
        return fail(a, CTR_UNPACK_WHITEOUT_NAME);
    if (e->kind != TAR_FILE && e->kind != TAR_HARDLINK)
        return fail(a, CTR_UNPACK_WHITEOUT_KIND);
    parent = parent_directory(a);
    if (parent < 0)
        return -1;
    if (!tree_is_plain(a->tree))
        return fail(a, CTR_UNPACK_WHITEOUT_LINK);
    if (is_opaque)
        return hide_below(a, parent, ".");
    if (mknodat(parent, target, S_IFCHR, 0) == 0)
        return 0;
    return errno == EEXIST ? hide_below(a, parent, target) : fail_system(a);
}

/* 1 if the entry is none of ours: a record of an old union file system. 2 for a whiteout, 0 for a file, -1. */
static int classify(struct applier *a)
{
    static const char opaque[] = ".wh..wh..opq";

    if (is_plain(a) || !strstr(a->path, ".wh."))
        return 0;
    if (strncmp(a->path, ".wh..wh.", 8) == 0 && strcmp(a->path, opaque) != 0)
        return 1;
    if (strncmp(a->name, ".wh.", 4) == 0)
        return 2;
    for (const char *at = a->path; at < a->path + a->head; at++)
        if ((at == a->path || at[-1] == '/') && strncmp(at, ".wh.", 4) == 0)
            return fail(a, CTR_UNPACK_WHITEOUT_PARENT);
    return 0;
}

static int apply_root(struct applier *a, const struct tar_entry *e)
{
    int missing;

    if (e->kind != TAR_DIRECTORY)
        return fail(a, CTR_UNPACK_ROOT);
    if (tree_directory(a->tree, "", 0, 1, &missing) < 0)
        return -1;
    return finish_directory(a, e, a->root_fd);
}

static int apply(struct applier *a, const struct tar_entry *e)
{
    ssize_t size = clean(a, &e->name, a->path);
    const char *slash;
    int class;

    if (size <= 0)
        return size < 0 ? -1 : apply_root(a, e);
    slash = strrchr(a->path, '/');
    a->head = slash ? (size_t)(slash - a->path) : 0;
    a->name = slash ? slash + 1 : a->path;
    class = classify(a);
    if (class != 0)
        return class < 0 ? -1 : class == 2 ? white_out(a, e) : 0;
    switch (e->kind) {
    case TAR_FILE:
        return make_file(a, e);
    case TAR_DIRECTORY:
        return make_directory(a, e);
    case TAR_SYMLINK:
        return make_symlink(a, e);
    case TAR_HARDLINK:
        return make_hardlink(a, e);
    case TAR_FIFO:
        return make_node(a, e, S_IFIFO, 0);
    default:
        return make_device(a, e);
    }
}

static int count(struct applier *a, const struct tar_entry *e)
{
    a->result->entries++;
    a->result->size_bytes += e->stored;
    if (a->result->entries > a->order->entries)
        return fail(a, CTR_UNPACK_ENTRIES);
    if (e->size > a->order->total_bytes - a->apparent)
        return fail(a, CTR_UNPACK_BYTES);
    a->apparent += e->size;
    return 0;
}

static struct applier the_applier;

int apply_report_implied(int control)
{
    return notes_report_implied(&the_applier.notes, the_applier.tree, control);
}

int apply_archive(struct tar_reader *reader, int root_fd, const struct ctr_unpack_order *order,
                  struct ctr_unpack_result *result)
{
    struct applier *a = &the_applier;
    struct tar_entry entry;
    int more;

    *a = (struct applier){.reader = reader, .root_fd = root_fd, .order = order, .result = result};
    a->tree = tree_open(root_fd, is_plain(a), result);
    if (!a->tree)
        return fail_system(a);
    while ((more = tar_next(reader, &entry)) > 0)
        if (count(a, &entry) < 0 || apply(a, &entry) < 0)
            return -1;
    if (more < 0)
        return -1;
    return notes_set_times(&a->notes, a->tree) < 0 ? fail_system(a) : 0;
}
