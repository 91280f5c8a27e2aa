/* The functions of overlay.h. */
#define _GNU_SOURCE
#include "overlay.h"

#include "sys.h"

/* lowerdir+ takes one path each and has no limit but the number of layers; before Linux 6.5 all of them go
 * into one text. */
static int set_lowers(const struct overlay *o, int fs_fd)
{
    char joined[4096];
    size_t used = 0;

    for (uint32_t i = 0; i < o->lower_count; i++)
        if (sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "lowerdir+", o->lower(o->context, i), 0) < 0) {
            if (errno != EINVAL || i > 0)
                return -1;
            break;
        } else if (i + 1 == o->lower_count) {
            return 0;
        }
    for (uint32_t i = 0; i < o->lower_count; i++) {
        const char *p = o->lower(o->context, i);

        if (used)
            joined[used++] = ':';
        for (; *p; p++) {
            if (used + 3 > sizeof(joined)) {
                errno = E2BIG;
                return -1;
            }
            if (*p == ':' || *p == '\\')
                joined[used++] = '\\';
            joined[used++] = *p;
        }
        joined[used] = '\0';
    }
    return sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "lowerdir", joined, 0);
}

int overlay_begin(const struct overlay *o)
{
    _cleanup_close_ int fs_fd = sys_fsopen("overlay");

    if (fs_fd < 0 || set_lowers(o, fs_fd) < 0)
        return -1;
    if (sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "upperdir", o->upper, 0) < 0 ||
        sys_fsconfig(fs_fd, FSCONFIG_SET_STRING, "workdir", o->work, 0) < 0)
        return -1;
    return take_fd(&fs_fd);
}

int overlay_finish(int fs_fd)
{
    if (sys_fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return sys_fsmount(fs_fd, 0);
}
