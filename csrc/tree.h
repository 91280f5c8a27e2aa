/* The directories of the tree that an archive becomes. The root of the tree is the root of this process, so no
 * name and no link leads out of it; nobody else changes it. */
#ifndef CTR_TREE_H
#define CTR_TREE_H

#include <stddef.h>
#include <sys/types.h>

#include "ctr.h"
#include "tar.h"

enum { TREE_PATH = TAR_NAME_MAX + 1, TREE_COMPONENT = 255 };

struct tree;

/* Takes the tree below `root_fd`, the root of this process. plain: see CTR_UNPACK_PLAIN. Returns the one tree of this process, NULL with errno. */
struct tree *tree_open(int root_fd, int plain, struct ctr_unpack_result *result);

/* Returns a descriptor of the directory `path` (cleaned), which stays open until the next call here.
 * create: missing directories are made with mode 0755, and one that this archive has removed is made anew and
 * hides what lies below. -1 if it cannot be; without `create` and with *ret_missing set if it is not there. */
int tree_directory(struct tree *t, const char *path, size_t size, int create, int *ret_missing);

/* As above for a path that must be there and have no links in it. -1 if it is not so; nothing is noted. */
int tree_find(struct tree *t, const char *path, size_t size);

/* Calls `tell` with each directory that was made although nobody asked for it, in the order in which they were.
 * 0, or what `tell` returned if that is something else. */
int tree_implied(const struct tree *t, int (*tell)(void *context, const char *path, size_t size), void *context);

/* Whether the last directory was reached without a symbolic link. */
int tree_is_plain(const struct tree *t);

/* The last directory's own path, without links. */
const char *tree_path(const struct tree *t, size_t *ret_size);

/* Keeps `fd`, the directory `name` of the last one, as the last one. */
void tree_enter(struct tree *t, const char *name, size_t size, int fd);

/* Removes whatever `name` is in the last directory, with everything in it. 0, or -1 with errno. */
int tree_remove(struct tree *t, const char *name);

/* Marks a directory as hiding everything below it. 0, or -1 with errno. */
int tree_hide_below(int fd);

#endif
