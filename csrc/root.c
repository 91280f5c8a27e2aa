/* The container's root file system: scratch space, the overlay, the mounts on it, and the switch to it. */
#define _GNU_SOURCE
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "child.h"
#include "message.h"
#include "mount.h"
#include "overlay.h"
#include "path.h"
#include "sys.h"

#ifndef PROC_SUPER_MAGIC
#define PROC_SUPER_MAGIC 0x9fa0
#endif

enum { MAX_OPTIONS = 64 };

int step_mount_private(struct child *c)
{
    /* Somebody else's namespace stays as it is. */
    if (c->spec->flags & CTR_SPEC_CHROOT)
        return 0;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static struct filesystem filesystem_of(const struct ctr_spec *spec, const char *type, struct ctr_array options,
                                       uint32_t attributes, const char *texts[static MAX_OPTIONS])
{
    for (uint32_t i = 0; i < options.count; i++)
        texts[i] = message_item(spec, options, i);
    return (struct filesystem){type, texts, options.count, attributes};
}

/* A private tmpfs at the staging directory: the upper layer of a container kept in memory, the contents of
 * small files, the empty directory that masks others. It has a name only in this namespace, and after the
 * switch of the root it has none. */
int step_scratch(struct child *c)
{
    const struct ctr_spec *s = c->spec;
    const char *texts[MAX_OPTIONS];
    struct filesystem fs = filesystem_of(s, "tmpfs", s->scratch_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, texts);
    _cleanup_close_ int staging = open(message_text(s, s->staging), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd;

    if (staging < 0)
        return -1;
    fd = mount_filesystem(&fs, staging);
    if (fd == -2)
        fd = open(message_text(s, s->staging), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    c->scratch_fd = fd;
    if (!(s->flags & CTR_SPEC_ROOT_MEMORY))
        return 0;
    return mkdirat(fd, "upper", 0755) < 0 || mkdirat(fd, "work", 0700) < 0 ? -1 : 0;
}

/* Upper and work directory of the overlay; in memory they lie in the scratch file system. */
static int layer_path(const struct ctr_spec *s, uint32_t given, const char *name, char *ret_path, size_t size)
{
    int n = given ? snprintf(ret_path, size, "%s", message_text(s, given))
                  : snprintf(ret_path, size, "%s/%s", message_text(s, s->staging), name);

    if (n < 0 || (size_t)n >= size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return 0;
}

static const char *lower_path(const void *context, uint32_t i)
{
    const struct ctr_spec *s = context;

    return message_item(s, s->root_lowers, i);
}

static const char *option_text(const void *context, uint32_t i)
{
    const struct ctr_spec *s = context;

    return message_item(s, s->root_options, i);
}

/* Makes a root whose descriptor is in `ret_fd`, or where that cannot be, mounts it on the staging path. */
static int make_overlay(const struct ctr_spec *s, int *ret_fd)
{
    char upper[4096];
    char work[4096];
    const struct overlay o = {
        lower_path, option_text, s, s->root_lowers.count, s->root_options.count, upper, work,
    };

    if (layer_path(s, s->root_upper, "upper", upper, sizeof(upper)) < 0 ||
        layer_path(s, s->root_work, "work", work, sizeof(work)) < 0)
        return -1;
    if (!(features & CTR_FEATURE_MOUNT_API) || !overlay_appends())
        return overlay_mount_at(&o, message_text(s, s->staging));
    *ret_fd = overlay_create(&o);
    return *ret_fd < 0 ? -1 : 0;
}

/* A copied tree is its own root: it is bound on itself to be a mount that pivot_root accepts. */
static int bind_root(struct child *c)
{
    const struct ctr_spec *s = c->spec;
    _cleanup_close_ int source = open(message_text(s, s->root_source), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_close_ int staging = open(message_text(s, s->staging), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (source < 0 || staging < 0)
        return -1;
    /* Of a root that somebody else made, the mounts below it are part. */
    return mount_bind(source, staging, &(struct bind_options){.tree = 1, .propagation = MS_PRIVATE | MS_REC});
}

/* Makes the root and attaches it over the scratch file system; opening the staging path then gives the root. */
int step_root_create(struct child *c)
{
    const struct ctr_spec *s = c->spec;
    const char *staging = message_text(s, s->staging);

    if (s->flags & CTR_SPEC_ROOT_BIND) {
        if (bind_root(c) < 0)
            return -1;
    } else {
        _cleanup_close_ int fd = -1;

        if (make_overlay(s, &fd) < 0)
            return -1;
        if (fd >= 0 && (child_at(c, CTR_STEP_ROOT_ATTACH, 0) < 0 || mount_attach(fd, c->scratch_fd) < 0))
            return -1;
    }
    if (child_at(c, CTR_STEP_ROOT_ATTACH, 0) < 0)
        return -1;
    c->root_fd = open(staging, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return c->root_fd < 0 ? -1 : 0;
}

/* What the caller asked to be mounted may not land on the kernel's own file systems, whatever link led there. */
static int check_target(const struct ctr_mount *m, int target)
{
    struct statfs fs;

    if (m->flags & CTR_MOUNT_NO_SYMLINKS)
        return 0;
    if (fstatfs(target, &fs) < 0)
        return -1;
    if (fs.f_type != PROC_SUPER_MAGIC && fs.f_type != SYSFS_MAGIC)
        return 0;
    errno = EPERM;
    return -1;
}

/* The source of a bind: a tree that Python made, or a path that must still be the object that Python saw. */
static int open_source(struct child *c, const struct ctr_mount *m)
{
    const char *path = message_text(c->spec, m->source);
    int fd = path ? open(path, O_PATH | O_CLOEXEC) : -1;
    struct stat st;

    if (!path)
        errno = EBADF;
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_dev == m->device && (uint64_t)st.st_ino == m->inode)
        return fd;
    (void)close(fd);
    errno = ESTALE;
    return -1;
}

static int mount_new(struct child *c, const struct ctr_mount *m, int target, int32_t i)
{
    const char *texts[MAX_OPTIONS];
    struct filesystem fs =
        filesystem_of(c->spec, message_text(c->spec, m->type), m->options, m->attributes, texts);
    _cleanup_close_ int fd = mount_filesystem(&fs, target);

    if (fd == -1)
        return -1;
    if (child_at(c, CTR_STEP_MOUNT_ATTACH, i) < 0)
        return -1;
    if (!(m->flags & (CTR_MOUNT_PROC | CTR_MOUNT_DEVICES)))
        return 0;
    /* mount(2) gave no descriptor. These two targets have no symbolic link in them. */
    if (fd == -2)
        fd = path_open(c->root_fd, message_text(c->spec, m->target), O_PATH | O_DIRECTORY, 1);
    if (fd < 0)
        return -1;
    if (m->flags & CTR_MOUNT_PROC)
        c->proc_fd = take_fd(&fd);
    else if (m->flags & CTR_MOUNT_DEVICES) {
        c->dev_fd = take_fd(&fd);
        return make_devices(c);
    }
    return 0;
}

static struct bind_options options_of(const struct ctr_mount *m)
{
    int tree = !!(m->flags & CTR_MOUNT_RECURSIVE);

    return (struct bind_options){
        .attributes = m->attributes,
        .propagation = m->propagation,
        .tree = tree,
        .attributes_below = tree && !(m->flags & CTR_MOUNT_TOP_ATTRIBUTES),
    };
}

/* What lies on the target now is what was mounted there a moment ago. */
static int propagate(struct child *c, const struct ctr_mount *m)
{
    _cleanup_close_ int fd = path_open(c->root_fd, message_text(c->spec, m->target), O_PATH, 0);

    return fd < 0 ? -1 : mount_propagate(fd, m->propagation);
}

static int remount(struct child *c, const struct ctr_mount *m, int32_t i)
{
    const char *type = m->kind == CTR_MOUNT_BIND ? NULL : message_text(c->spec, m->type);
    const char *texts[MAX_OPTIONS];
    struct filesystem fs = filesystem_of(c->spec, type, m->options, m->attributes, texts);
    _cleanup_close_ int fd = -1;

    if (child_at(c, CTR_STEP_MOUNT_TARGET, i) < 0)
        return -1;
    fd = path_open(c->root_fd, message_text(c->spec, m->target), O_PATH, !!(m->flags & CTR_MOUNT_NO_SYMLINKS));
    if (fd < 0 || check_target(m, fd) < 0 || child_at(c, CTR_STEP_MOUNT_CREATE, i) < 0 || mount_again(&fs, fd) < 0)
        return -1;
    return m->propagation ? mount_propagate(fd, m->propagation) : 0;
}

static int mount_one(struct child *c, const struct ctr_mount *m, int32_t i)
{
    const char *target_path = message_text(c->spec, m->target);
    int directory = m->kind == CTR_MOUNT_FILESYSTEM || m->flags & CTR_MOUNT_SOURCE_IS_DIR;
    struct bind_options how = options_of(m);
    /* A container that is started again has no tree that was made for it, and goes by the path. */
    int received = m->fd >= 0 ? c->fds[m->fd] : -1;
    _cleanup_close_ int source = -1;
    _cleanup_close_ int target = -1;

    if (child_at(c, CTR_STEP_MOUNT_SOURCE, i) < 0)
        return -1;
    if (m->kind == CTR_MOUNT_BIND && received < 0) {
        source = open_source(c, m);
        if (source < 0)
            return -1;
    }
    if (child_at(c, CTR_STEP_MOUNT_TARGET, i) < 0)
        return -1;
    target = path_make(c->root_fd, target_path, directory, !!(m->flags & CTR_MOUNT_NO_SYMLINKS));
    if (target < 0 || check_target(m, target) < 0)
        return -1;
    if (child_at(c, CTR_STEP_MOUNT_CREATE, i) < 0)
        return -1;
    if (m->kind == CTR_MOUNT_FILESYSTEM)
        return mount_new(c, m, target, i) < 0 ? -1 : m->propagation ? propagate(c, m) : 0;
    if (child_at(c, CTR_STEP_MOUNT_ATTACH, i) < 0)
        return -1;
    if (received >= 0)
        return mount_attach_received(received, target, &how);
    return mount_bind(source, target, &how);
}

int step_mounts(struct child *c)
{
    const struct ctr_mount *m = message_array(c->spec, c->spec->mounts);

    for (uint32_t i = 0; i < c->spec->mounts.count; i++)
        if ((m[i].flags & CTR_MOUNT_REMOUNT ? remount : mount_one)(c, &m[i], (int32_t)i) < 0)
            return -1;
    return 0;
}

/* Last, because mount points had to be made in it. */
int step_root_readonly(struct child *c)
{
    return c->spec->flags & CTR_SPEC_ROOT_READONLY ? mount_make_readonly(c->root_fd, 0) : 0;
}

/* pivot_root(".", ".") puts the old root over the new one, so that no directory for it is needed (man page). */
static int switch_root(struct child *c)
{
    if (fchdir(c->root_fd) < 0)
        return -1;
    if (c->spec->flags & CTR_SPEC_CHROOT)
        return chroot(".") < 0 ? -1 : chdir("/");
    if (c->spec->flags & CTR_SPEC_NO_PIVOT)
        return mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ? -1 : chdir("/");
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return -1;
    return umount2(".", MNT_DETACH) < 0 ? -1 : chdir("/");
}

int step_pivot(struct child *c)
{
    if (c->spec->flags & CTR_SPEC_HOOKS && child_hold(c) < 0)
        return -1;
    if (switch_root(c) < 0)
        return -1;
    if (c->spec->root_propagation && mount(NULL, "/", NULL, c->spec->root_propagation, NULL) < 0)
        return -1;
    close_fd(&c->root_fd);
    close_fd(&c->scratch_fd);
    close_fd(&c->proc_fd);
    close_fd(&c->dev_fd);
    close_fd(&c->network_fd);
    /* Control groups and sources of mounts: from here on no descriptor leads to a directory of the host. */
    for (uint32_t i = CTR_FD_FIRST_FREE; i < child_first_kept(c); i++)
        close_fd(&c->fds[i]);
    return 0;
}
