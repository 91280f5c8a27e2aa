/* What the container sees of the kernel and of us: small files, kernel settings, masks. */
#define _GNU_SOURCE
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "child.h"
#include "message.h"
#include "mount.h"
#include "path.h"
#include "sys.h"

enum { LOCKED = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC };

static const struct bind_options locked_down = {.attributes = LOCKED};
static const struct bind_options locked_tree = {.attributes = LOCKED, .tree = 1, .attributes_below = 1};

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

/* A file such as /etc/hosts: its content lies in the scratch file system and is bound over the name, so that
 * it never becomes part of the container's layer. */
static int place_file(struct child *c, const struct ctr_file *f, uint32_t i)
{
    char name[16];
    _cleanup_close_ int file = -1;
    _cleanup_close_ int target = -1;

    (void)snprintf(name, sizeof(name), "file%u", i);
    file = openat(c->scratch_fd, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, f->mode);
    if (file < 0 || write_all(file, message_array(c->spec, f->content), f->content.count) < 0)
        return -1;
    target = path_make(c->root_fd, message_text(c->spec, f->target), 0, 0);
    if (target < 0)
        return -1;
    return mount_bind(file, target, &(struct bind_options){0});
}

int step_files(struct child *c)
{
    const struct ctr_file *f = message_array(c->spec, c->spec->files);

    for (uint32_t i = 0; i < c->spec->files.count; i++)
        if (child_at(c, CTR_STEP_FILE, (int32_t)i) < 0 || place_file(c, &f[i], i) < 0)
            return -1;
    return 0;
}

/* Opens a file of our own mount of proc, never of the container's tree; verifies that it is proc. */
static int proc_open(const struct child *c, const char *path, int flags)
{
    _cleanup_close_ int fd = -1;
    struct statfs fs;

    if (c->proc_fd < 0) {
        errno = ENOENT;
        return -1;
    }
    fd = path_open(c->proc_fd, path, flags | O_NOFOLLOW, 0);
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        return -1;
    if (fs.f_type != PROC_SUPER_MAGIC) {
        errno = EXDEV;
        return -1;
    }
    return take_fd(&fd);
}

static int proc_write(const struct child *c, const char *path, const char *text)
{
    _cleanup_close_ int fd = proc_open(c, path, O_WRONLY);

    if (fd < 0)
        return -1;
    return write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

/* Python has checked the names; dots are already slashes. */
int step_sysctls(struct child *c)
{
    const struct ctr_pair *p = message_array(c->spec, c->spec->sysctls);
    char path[512];

    for (uint32_t i = 0; i < c->spec->sysctls.count; i++) {
        if (child_at(c, CTR_STEP_SYSCTL, (int32_t)i) < 0)
            return -1;
        if (snprintf(path, sizeof(path), "sys/%s", message_text(c->spec, p[i].key)) >= (int)sizeof(path)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        if (proc_write(c, path, message_text(c->spec, p[i].value)) < 0)
            return -1;
    }
    return 0;
}

int step_oom_score(struct child *c)
{
    char text[16];

    if (!(c->spec->flags & CTR_SPEC_OOM_SCORE) || c->spec->flags & CTR_SPEC_USER)
        return 0;
    (void)snprintf(text, sizeof(text), "%d", c->spec->oom_score_adj);
    return proc_write(c, "self/oom_score_adj", text);
}

int step_readonly_paths(struct child *c)
{
    for (uint32_t i = 0; i < c->spec->readonly_paths.count; i++) {
        _cleanup_close_ int fd = -1;

        if (child_at(c, CTR_STEP_READONLY_PATH, (int32_t)i) < 0)
            return -1;
        fd = path_open(c->root_fd, message_item(c->spec, c->spec->readonly_paths, i), O_PATH, 1);
        if (fd < 0 && errno == ENOENT)
            continue;
        /* The flags of /proc itself are kept: the bind is of the same mount. */
        if (fd < 0 || mount_bind(fd, fd, &locked_tree) < 0)
            return -1;
    }
    return 0;
}

/* A null device that really is one, whatever the image has put at its place. */
static int open_null(const struct child *c)
{
    /* A /dev that is not ours is the business of who wrote the spec. */
    _cleanup_close_ int fd = c->dev_fd < 0 ? path_open(c->root_fd, "dev/null", O_PATH, 1)
                                           : openat(c->dev_fd, "null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
        errno = ENODEV;
        return -1;
    }
    return take_fd(&fd);
}

static int mask_one(struct child *c, const char *path, int null_fd, int empty_fd)
{
    _cleanup_close_ int fd = path_open(c->root_fd, path, O_PATH, 1);
    struct stat st;

    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    if (fstat(fd, &st) < 0)
        return -1;
    if (S_ISDIR(st.st_mode))
        return mount_bind(empty_fd, fd, &locked_down);
    return mount_bind(null_fd, fd, &(struct bind_options){0});
}

int step_masked_paths(struct child *c)
{
    _cleanup_close_ int null_fd = -1;
    _cleanup_close_ int empty_fd = -1;

    if (c->spec->masked_paths.count == 0)
        return 0;
    if (mkdirat(c->scratch_fd, "empty", 0555) < 0)
        return -1;
    null_fd = open_null(c);
    empty_fd = openat(c->scratch_fd, "empty", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (null_fd < 0 || empty_fd < 0)
        return -1;
    for (uint32_t i = 0; i < c->spec->masked_paths.count; i++)
        if (child_at(c, CTR_STEP_MASKED_PATH, (int32_t)i) < 0 ||
            mask_one(c, message_item(c->spec, c->spec->masked_paths, i), null_fd, empty_fd) < 0)
            return -1;
    return 0;
}
