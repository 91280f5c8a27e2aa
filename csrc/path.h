/* Paths inside a tree that somebody else may be changing. */
#ifndef CTR_PATH_H
#define CTR_PATH_H

#include <stdint.h>
#include <sys/types.h>

/* Resolves `path` with `root` as its root directory, whatever symbolic links say, and opens it with
 * `flags` (O_CLOEXEC is added). Magic links are refused. no_symlinks: any symbolic link is ELOOP.
 * Returns the descriptor, or -1 with errno. */
int path_open(int root, const char *path, int flags, int no_symlinks);

/* As path_open with O_PATH; what is missing is made: directories with mode 0755, and the last component as
 * a directory or an empty file. What exists is never changed. */
int path_make(int root, const char *path, int directory, int no_symlinks);

/* Which of the newer system calls this kernel (or its filter) answers: a mask of CTR_FEATURE_*. */
unsigned features_probe(void);

/* The mask, probed once per process. */
extern unsigned features;

#endif
