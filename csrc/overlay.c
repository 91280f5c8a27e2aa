/* The functions of overlay.h. */
#define _GNU_SOURCE
#include "overlay.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "sys.h"

enum { PAGE = 4096 };

int overlay_appends(void)
{
    static int answer = -1;

    if (answer < 0) {
        _cleanup_close_ int fs_fd = sys_fsopen("overlay");

        /* Before Linux 6.5 nothing looks at the options until the file system is made: then all are taken. */
        answer = fs_fd >= 0 && sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "no-such-option", "/", 0) < 0 &&
                 sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "lowerdir+", "/", 0) == 0;
    }
    return answer;
}

int overlay_create(const struct overlay *o)
{
    _cleanup_close_ int fs_fd = sys_fsopen("overlay");

    if (fs_fd < 0)
        return -1;
    for (uint32_t i = 0; i < o->lower_count; i++)
        if (sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "lowerdir+", o->lower(o->context, i), 0) < 0)
            return -1;
    if (sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "upperdir", o->upper, 0) < 0 ||
        sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "workdir", o->work, 0) < 0)
        return -1;
    for (uint32_t i = 0; i < o->option_count; i++)
        if (sys_fsconfig(fs_fd, FSCONFIG_SET_FLAG, o->option(o->context, i), NULL, 0) < 0)
            return -1;
    if (sys_fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return sys_fsmount(fs_fd, 0);
}

/* Appends `key` and `value` to an option text of mount(2), with its two levels of escapes. */
static int append_option(char text[PAGE], const char *key, const char *value, int escape_colon)
{
    size_t used = strlen(text);
    int n = snprintf(text + used, PAGE - used, "%s%s", used && key[0] != ':' ? "," : "", key);

    if (n < 0 || (size_t)n >= PAGE - used)
        goto too_long;
    used += (size_t)n;
    for (const char *p = value; *p; p++) {
        if (used + 4 > PAGE)
            goto too_long;
        if (*p == '\\' || *p == ',' || (escape_colon && *p == ':'))
            text[used++] = '\\';
        text[used++] = *p;
    }
    text[used] = '\0';
    return 0;
too_long:
    errno = E2BIG;
    return -1;
}

static int mount_with(const struct overlay *o, char data[PAGE], const char *target)
{
    if (append_option(data, "upperdir=", o->upper, 0) < 0 || append_option(data, "workdir=", o->work, 0) < 0)
        return -1;
    for (uint32_t i = 0; i < o->option_count; i++)
        if (append_option(data, o->option(o->context, i), "", 0) < 0)
            return -1;
    return mount("overlay", target, "overlay", 0, data);
}

/* The lower directories by their paths, as /proc/self/mountinfo shows them later. */
static int mount_by_paths(const struct overlay *o, const char *target)
{
    char data[PAGE] = "";

    for (uint32_t i = 0; i < o->lower_count; i++)
        if (append_option(data, i ? ":" : "lowerdir=", o->lower(o->context, i), 1) < 0)
            return -1;
    return mount_with(o, data, target);
}

static int open_lowers(const struct overlay *o, char data[PAGE], int ret_fds[OVERLAY_MAX_LOWERS], uint32_t *ret_count)
{
    char number[16];

    for (*ret_count = 0; *ret_count < o->lower_count; (*ret_count)++) {
        uint32_t i = *ret_count;
        int fd;

        if (i == OVERLAY_MAX_LOWERS) {
            errno = E2BIG;
            return -1;
        }
        fd = open(o->lower(o->context, i), O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return -1;
        ret_fds[i] = fd;
        (void)snprintf(number, sizeof(number), "%d", fd);
        if (append_option(data, i ? ":" : "lowerdir=", number, 0) < 0) {
            close_fd(&ret_fds[i]);
            return -1;
        }
    }
    return 0;
}

/* "lowerdir=4:5:6", which means what it shall to whoever stands in the directory of the descriptors. */
static int mount_by_numbers(const struct overlay *o, const char *target)
{
    char data[PAGE] = "";
    int fds[OVERLAY_MAX_LOWERS];
    uint32_t count = 0;
    _cleanup_close_ int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = back < 0 ? -1 : open_lowers(o, data, fds, &count);

    if (r == 0)
        r = chdir("/proc/thread-self/fd");
    if (r == 0) {
        r = mount_with(o, data, target);
        if (fchdir(back) < 0)
            r = -1;
    }
    while (count > 0)
        close_fd(&fds[--count]);
    return r;
}

int overlay_mount_at(const struct overlay *o, const char *target)
{
    int r = mount_by_paths(o, target);

    return r < 0 && errno == E2BIG ? mount_by_numbers(o, target) : r;
}
