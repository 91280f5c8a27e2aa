/* What an archive says of its directories: when each was last changed, to be set when nothing changes in it any
 * more; and so which directories it says nothing of. */
#ifndef CTR_NOTES_H
#define CTR_NOTES_H

#include <stddef.h>
#include <stdint.h>

#include "tree.h"

struct notes {
    char *data;
    size_t used;
    size_t room;
};

/* Remembers the time of the directory `path`. 0, or -1 if there is no room. */
int notes_add(struct notes *notes, const char *path, size_t size, int64_t mtime_ns);

/* Sets the times of all directories that are there. 0, or -1 with errno. */
int notes_set_times(const struct notes *notes, struct tree *tree);

/* Sends a struct ctr_unpack_implied for each directory of the tree that was made on the way and is not among the
 * notes. 0, or -1 with errno. */
int notes_report_implied(const struct notes *notes, struct tree *tree, int control);

#endif
