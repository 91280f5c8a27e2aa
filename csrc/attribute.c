/* Attributes, always on what was just made. Those by which an archive could talk to overlayfs or to the host's
 * security module are dropped. */
#define _GNU_SOURCE
#include "attribute.h"

#include <string.h>
#include <sys/xattr.h>

#include "sys.h"

static const char *const dropped_prefixes[] = {"trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.",
                                               "user.containers."};
static const char *const dropped[] = {"security.selinux", "security.ima", "security.evm", "security.SMACK64"};

static int is_dropped(const char *name)
{
    for (size_t i = 0; i < sizeof(dropped_prefixes) / sizeof(dropped_prefixes[0]); i++)
        if (strncmp(name, dropped_prefixes[i], strlen(dropped_prefixes[i])) == 0)
            return 1;
    for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++)
        if (strcmp(name, dropped[i]) == 0)
            return 1;
    return 0;
}

/* One that the file system cannot hold is left out, as Docker does; but a file that would lose its capabilities
 * is refused, because it would fail later and elsewhere. */
static int set_xattrs(struct tar_reader *reader, struct ctr_unpack_result *result, int fd)
{
    struct tar_text name;
    struct tar_text value;
    size_t cursor = 0;
    int more;

    while ((more = tar_xattr(reader, &cursor, &name, &value)) > 0) {
        char text[256];

        memcpy(text, name.data, name.size);
        text[name.size] = 0;
        if (is_dropped(text) || fsetxattr(fd, text, value.data, value.size, 0) == 0)
            continue;
        if ((errno == ENOTSUP || errno == EPERM) && strcmp(text, "security.capability") != 0)
            continue;
        if (errno == ENOSPC || errno == EDQUOT || errno == EIO)
            return unpack_fail(result, CTR_UNPACK_SYSTEM, NULL, 0);
        return unpack_fail(result, CTR_UNPACK_XATTR, name.data, name.size);
    }
    return more;
}

/* The owner first: a change of it takes set-id bits and capabilities away. */
int attribute_set(struct tar_reader *reader, struct ctr_unpack_result *result, const struct tar_entry *e, int fd)
{
    if (fchown(fd, e->uid, e->gid) < 0 || fchmod(fd, e->mode) < 0)
        return unpack_fail(result, CTR_UNPACK_SYSTEM, NULL, 0);
    return set_xattrs(reader, result, fd);
}

int attribute_at(const struct tar_entry *e, int parent, const char *name)
{
    if (fchownat(parent, name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    /* A link has no mode. The call would follow one, and this is none. */
    if (e->kind != TAR_SYMLINK && fchmodat(parent, name, e->mode, 0) < 0)
        return -1;
    return attribute_time(parent, name, e->mtime_ns);
}

int attribute_time(int fd, const char *name, int64_t mtime_ns)
{
    struct timespec time = {.tv_sec = mtime_ns / 1000000000, .tv_nsec = mtime_ns % 1000000000};
    const struct timespec times[2] = {time, time};

    return name ? utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) : futimens(fd, times);
}
