/* An overlay by the newer calls: of the layers of an image, and the layer of a container. */
#ifndef CTR_OVERLAY_H
#define CTR_OVERLAY_H

#include <stdint.h>

struct overlay {
    /* Path of lower directory `i`, the top-most first. */
    const char *(*lower)(const void *context, uint32_t i);
    const void *context;
    uint32_t lower_count;
    const char *upper;
    const char *work;
};

/* Begins one. The descriptor takes further options before overlay_finish; -1 with ENOSYS when the calls are missing. */
int overlay_begin(const struct overlay *o);

/* Makes the file system, unattached. Returns a descriptor of the mount. */
int overlay_finish(int fs_fd);

#endif
