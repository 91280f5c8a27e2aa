/* Removing a directory with everything in it, without following a link, at any depth, in constant memory. */
#define _GNU_SOURCE
#include "remove.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "sys.h"

/* Removes the files of the directory behind `fd`, and the directories that are empty. Gives the name of one that
 * is not empty, or an empty one if nothing is left. 0, or -1 with errno. */
static int empty(int fd, char *ret_name)
{
    _Alignas(struct dirent64) char buffer[32768];
    ssize_t n;

    *ret_name = 0;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    while ((n = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
        for (ssize_t at = 0; at < n;) {
            struct dirent64 *entry = (struct dirent64 *)(buffer + at);

            at += entry->d_reclen;
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            if (unlinkat(fd, entry->d_name, 0) == 0 || errno == ENOENT)
                continue;
            if (errno != EISDIR && errno != EPERM)
                return -1;
            if (unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0)
                continue;
            if (errno != ENOTEMPTY && errno != EEXIST)
                return -1;
            memcpy(ret_name, entry->d_name, strlen(entry->d_name) + 1);
        }
    }
    return n < 0 ? -1 : 0;
}

/* Goes down into one directory after the other; ".." is the way back. */
int remove_directory(int parent, const char *name)
{
    _cleanup_close_ int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char next[NAME_MAX + 1];
    unsigned depth = 0;

    if (fd < 0)
        return -1;
    for (;;) {
        int other;

        if (empty(fd, next) < 0)
            return -1;
        if (!*next && depth == 0)
            break;
        other = openat(fd, *next ? next : "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (other < 0)
            return -1;
        depth += *next ? 1 : -1u;
        close_fd(&fd);
        fd = other;
    }
    return unlinkat(parent, name, AT_REMOVEDIR);
}
