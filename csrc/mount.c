/* Mounts by descriptor. */
#define _GNU_SOURCE
#include "mount.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "ctr.h"
#include "path.h"
#include "sys.h"

enum { PROC_PATH_SIZE = 40, DATA_SIZE = 4096 };

/* Only used before the root is changed, so /proc is the host's, which no container can have touched. */
static void fd_path(char text[static PROC_PATH_SIZE], int fd)
{
    (void)snprintf(text, PROC_PATH_SIZE, "/proc/self/fd/%d", fd);
}

/* The mount(2) flags that mean the same as MOUNT_ATTR_*. */
static unsigned long legacy_flags(uint32_t attributes)
{
    unsigned long flags = 0;

    flags |= attributes & MOUNT_ATTR_RDONLY ? MS_RDONLY : 0;
    flags |= attributes & MOUNT_ATTR_NOSUID ? MS_NOSUID : 0;
    flags |= attributes & MOUNT_ATTR_NODEV ? MS_NODEV : 0;
    flags |= attributes & MOUNT_ATTR_NOEXEC ? MS_NOEXEC : 0;
    flags |= (attributes & MOUNT_ATTR__ATIME) == MOUNT_ATTR_NOATIME ? MS_NOATIME : 0;
    flags |= (attributes & MOUNT_ATTR__ATIME) == MOUNT_ATTR_STRICTATIME ? MS_STRICTATIME : 0;
    flags |= attributes & MOUNT_ATTR_NODIRATIME ? MS_NODIRATIME : 0;
    flags |= attributes & MOUNT_ATTR_NOSYMFOLLOW ? MS_NOSYMFOLLOW : 0;
    return flags;
}

static int set_option(int fs_fd, const char *option)
{
    char key[32];
    const char *value = strchr(option, '=');
    size_t n;

    if (!value)
        return sys_fsconfig(fs_fd, FSCONFIG_SET_FLAG, option, NULL, 0);
    n = (size_t)(value - option);
    if (n >= sizeof(key)) {
        errno = EINVAL;
        return -1;
    }
    memcpy(key, option, n);
    key[n] = '\0';
    return sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, key, value + 1, 0);
}

int mount_create(const struct filesystem *fs)
{
    _cleanup_close_ int fs_fd = -1;

    if (!(features & CTR_FEATURE_MOUNT_API)) {
        errno = ENOSYS;
        return -1;
    }
    fs_fd = sys_fsopen(fs->type);
    if (fs_fd < 0)
        return -1;
    for (uint32_t i = 0; i < fs->option_count; i++)
        if (set_option(fs_fd, fs->options[i]) < 0)
            return -1;
    if (sys_fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return sys_fsmount(fs_fd, fs->attributes);
}

int mount_attach(int mount_fd, int target_fd)
{
    return sys_move_mount(mount_fd, target_fd);
}

/* Options of every file system, which mount(2) takes as flags. The newer calls do not know iversion. */
static const struct {
    const char *name;
    unsigned long flag;
} superblock_words[] = {
    {"sync", MS_SYNCHRONOUS}, {"dirsync", MS_DIRSYNC},     {"lazytime", MS_LAZYTIME},
    {"mand", MS_MANDLOCK},    {"iversion", MS_I_VERSION},
};

static unsigned long superblock_flag(const char *option)
{
    for (size_t i = 0; i < sizeof(superblock_words) / sizeof(superblock_words[0]); i++)
        if (strcmp(superblock_words[i].name, option) == 0)
            return superblock_words[i].flag;
    return 0;
}

static unsigned long superblock_flags(const struct filesystem *fs)
{
    unsigned long flags = 0;

    for (uint32_t i = 0; i < fs->option_count; i++)
        flags |= superblock_flag(fs->options[i]);
    return flags;
}

/* mount(2) takes the other options as one text of at most a page. */
static int join_options(const struct filesystem *fs, char data[static DATA_SIZE])
{
    size_t used = 0;

    data[0] = '\0';
    for (uint32_t i = 0; i < fs->option_count; i++) {
        size_t n = strlen(fs->options[i]);

        if (superblock_flag(fs->options[i]))
            continue;
        if (used + n + 2 > DATA_SIZE) {
            errno = E2BIG;
            return -1;
        }
        if (used)
            data[used++] = ',';
        memcpy(data + used, fs->options[i], n + 1);
        used += n;
    }
    return 0;
}

static int mount_legacy(const struct filesystem *fs, int target_fd)
{
    char data[DATA_SIZE];
    char target[PROC_PATH_SIZE];
    unsigned long flags = legacy_flags(fs->attributes) | superblock_flags(fs);

    if (join_options(fs, data) < 0)
        return -1;
    fd_path(target, target_fd);
    /* NULL instead of "": the kernel then need not copy a page of options. */
    return mount(fs->type, target, fs->type, flags, data[0] ? data : NULL);
}

int mount_again(const struct filesystem *fs, int fd)
{
    char data[DATA_SIZE];
    char path[PROC_PATH_SIZE];
    unsigned long flags = legacy_flags(fs->attributes) | superblock_flags(fs) | MS_REMOUNT;

    if (join_options(fs, data) < 0)
        return -1;
    fd_path(path, fd);
    return mount(NULL, path, NULL, fs->type ? flags : flags | MS_BIND, data[0] ? data : NULL);
}

int mount_filesystem(const struct filesystem *fs, int target_fd)
{
    int by_number = !!(superblock_flags(fs) & MS_I_VERSION);
    _cleanup_close_ int fd = by_number ? -1 : mount_create(fs);

    if (by_number || (fd < 0 && errno == ENOSYS))
        return mount_legacy(fs, target_fd) < 0 ? -1 : -2;
    if (fd < 0 || mount_attach(fd, target_fd) < 0)
        return -1;
    return take_fd(&fd);
}

/* What a copy of a tree propagates when nobody said: nothing. */
static uint32_t propagation_of(const struct bind_options *how)
{
    if (how->propagation)
        return how->propagation;
    return how->tree ? MS_PRIVATE | MS_REC : MS_PRIVATE;
}

int mount_set_attributes(int mount_fd, const struct bind_options *how)
{
    uint32_t propagation = propagation_of(how);
    struct mount_attr attr = {.attr_set = how->attributes};
    struct mount_attr spread = {.propagation = propagation & ~(uint32_t)MS_REC};
    int everywhere = !!(propagation & MS_REC);

    if (how->attributes & MOUNT_ATTR__ATIME)
        attr.attr_clr = MOUNT_ATTR__ATIME;
    if (everywhere == !!how->attributes_below)
        attr.propagation = spread.propagation;
    else if (sys_mount_setattr(mount_fd, everywhere ? AT_RECURSIVE : 0, &spread) < 0)
        return -1;
    return sys_mount_setattr(mount_fd, how->attributes_below ? AT_RECURSIVE : 0, &attr);
}

/* A bind remount replaces all flags of a mount, so the ones it has are read first and kept. */
static int remount_legacy(int fd, uint32_t attributes)
{
    char path[PROC_PATH_SIZE];
    struct statfs fs;
    unsigned long flags = legacy_flags(attributes) | MS_BIND | MS_REMOUNT;

    if (fstatfs(fd, &fs) < 0)
        return -1;
    /* ST_* and MS_* agree for these five bits; 0x20 says that the field is valid. */
    flags |= (unsigned long)fs.f_flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
    fd_path(path, fd);
    return mount(NULL, path, NULL, flags, NULL);
}

/* mount(2) can only detect afterwards that the path was exchanged meanwhile. */
static int check_same(int a, int b)
{
    struct stat x, y;

    if (fstat(a, &x) < 0 || fstat(b, &y) < 0)
        return -1;
    if (x.st_dev == y.st_dev && x.st_ino == y.st_ino)
        return 0;
    errno = ESTALE;
    return -1;
}

/* Binding by mount(2): the new mount lies over the target, so its root has to be found through the target's
 * own path once more before flags can be set. */
static int bind_legacy(int source_fd, int target_fd, const struct bind_options *how)
{
    char source[PROC_PATH_SIZE];
    char target[PROC_PATH_SIZE];
    char place[4096];
    _cleanup_close_ int fd = -1;
    ssize_t n;

    fd_path(source, source_fd);
    fd_path(target, target_fd);
    if (mount(source, target, NULL, how->tree ? MS_BIND | MS_REC : MS_BIND, NULL) < 0)
        return -1;
    n = readlink(target, place, sizeof(place) - 1);
    if (n < 0)
        return -1;
    place[n] = '\0';
    fd = open(place, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || check_same(fd, source_fd) < 0)
        return -1;
    fd_path(place, fd);
    if (mount(NULL, place, NULL, propagation_of(how), NULL) < 0)
        return -1;
    if (!how->attributes)
        return 0;
    /* Where a filter has left us this call without the others, it still reaches the mounts below. */
    if (features & CTR_FEATURE_MOUNT_SETATTR)
        return mount_set_attributes(fd, how);
    return remount_legacy(fd, how->attributes);
}

int mount_bind(int source_fd, int target_fd, const struct bind_options *wanted)
{
    struct bind_options how = *wanted;
    _cleanup_close_ int fd = -1;

    /* Without mount_setattr the mounts below could not be made read-only with it: they stay out. */
    if (how.attributes & MOUNT_ATTR_RDONLY && how.attributes_below && !(features & CTR_FEATURE_MOUNT_SETATTR))
        how.tree = how.attributes_below = 0;
    if (!(features & CTR_FEATURE_MOUNT_API))
        return bind_legacy(source_fd, target_fd, &how);
    fd = sys_open_tree(source_fd, "",
                       (unsigned)(AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (how.tree ? AT_RECURSIVE : 0)));
    if (fd < 0)
        return -1;
    /* Unless somebody said otherwise, everything in this namespace is private, and so is a copy. */
    if (!how.attributes && !how.propagation)
        return mount_attach(fd, target_fd);
    return mount_attach_received(fd, target_fd, &how);
}

int mount_attach_received(int mount_fd, int target_fd, const struct bind_options *how)
{
    char path[PROC_PATH_SIZE];

    if (features & CTR_FEATURE_MOUNT_SETATTR)
        return mount_set_attributes(mount_fd, how) < 0 ? -1 : mount_attach(mount_fd, target_fd);
    if (mount_attach(mount_fd, target_fd) < 0)
        return -1;
    fd_path(path, mount_fd);
    if (mount(NULL, path, NULL, propagation_of(how), NULL) < 0)
        return -1;
    return how->attributes ? remount_legacy(mount_fd, how->attributes) : 0;
}

int mount_propagate(int fd, uint32_t propagation)
{
    char path[PROC_PATH_SIZE];

    fd_path(path, fd);
    return mount(NULL, path, NULL, propagation, NULL);
}

int mount_make_readonly(int fd, uint32_t attributes)
{
    struct mount_attr attr = {.attr_set = attributes | MOUNT_ATTR_RDONLY};

    if (features & CTR_FEATURE_MOUNT_SETATTR)
        return sys_mount_setattr(fd, 0, &attr);
    return remount_legacy(fd, attributes | MOUNT_ATTR_RDONLY);
}
