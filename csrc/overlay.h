/* An overlay of the layers of an image, and the layer of a container. */
#ifndef CTR_OVERLAY_H
#define CTR_OVERLAY_H

#include <stdint.h>

struct overlay {
    /* Path of lower directory `i`, the top-most first. */
    const char *(*lower)(const void *context, uint32_t i);
    /* Further option `i`, such as "volatile". */
    const char *(*option)(const void *context, uint32_t i);
    const void *context;
    uint32_t lower_count;
    uint32_t option_count;
    const char *upper;
    const char *work;
};

enum { OVERLAY_MAX_LOWERS = 500 }; /* the kernel's own limit */

/* Whether the lower directories can be given one by one: since Linux 6.8. Found out once per process. */
int overlay_appends(void);

/* Makes it, where overlay_appends, unattached. Returns a descriptor of the mount. */
int overlay_create(const struct overlay *o);

/* Mounts it on a directory by mount(2), whose options have a page: if need be, by numbers of descriptors. */
int overlay_mount_at(const struct overlay *o, const char *target);

#endif
