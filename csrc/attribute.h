/* Owner, mode, times and extended attributes of what is unpacked. */
#ifndef CTR_ATTRIBUTE_H
#define CTR_ATTRIBUTE_H

#include "tar.h"

/* Sets owner, mode and extended attributes of the present entry on `fd`. 0, or -1 with what is wrong noted. */
int attribute_set(struct tar_reader *reader, struct ctr_unpack_result *result, const struct tar_entry *entry, int fd);

/* Sets owner, mode and time of a link, fifo or device that was just made. 0, or -1 with errno. */
int attribute_at(const struct tar_entry *entry, int parent, const char *name);

/* Sets the time of `name` in `fd`, or of `fd` itself if that is NULL. 0, or -1 with errno. */
int attribute_time(int fd, const char *name, int64_t mtime_ns);

#endif
