/* Making mounts and putting them in place, by descriptor; with mount(2) where the newer calls are missing. */
#ifndef CTR_MOUNT_H
#define CTR_MOUNT_H

#include <stdint.h>

/* A file system that is to be mounted: its type, options as "key" or "key=value" texts, and MOUNT_ATTR_* flags. */
struct filesystem {
    const char *type;
    const char *const *options;
    uint32_t option_count;
    uint32_t attributes;
};

/* Makes the file system, unattached. Returns a descriptor, or -1; -1 with ENOSYS when the calls are missing. */
int mount_create(const struct filesystem *fs);

/* Attaches the unattached mount `mount_fd` on what `target_fd` refers to. */
int mount_attach(int mount_fd, int target_fd);

/* mount_create and mount_attach in one, by whichever way works here. Returns a descriptor of the new root
 * when the newer calls exist, and -2 when the mount was made by mount(2) and has to be opened by path. */
int mount_filesystem(const struct filesystem *fs, int target_fd);

/* How a file or tree is bound.
 * tree: with the mounts below it. attributes_below: the attributes are for those, too.
 * propagation: MS_SHARED and the like, with MS_REC; 0 for none, to and from nowhere. */
struct bind_options {
    uint32_t attributes;
    uint32_t propagation;
    int tree;
    int attributes_below;
};

/* Binds the file or tree `source_fd` on `target_fd`. */
int mount_bind(int source_fd, int target_fd, const struct bind_options *how);

/* Attaches an unattached tree that another process made. */
int mount_attach_received(int mount_fd, int target_fd, const struct bind_options *how);

/* Sets attributes and propagation of the unattached mount `mount_fd`. */
int mount_set_attributes(int mount_fd, const struct bind_options *how);

/* Sets the propagation of the mount whose root is `fd`, in place. */
int mount_propagate(int fd, uint32_t propagation);

/* Gives the mount whose root is `fd` other flags, and its file system other options; the flags alone when `fs`
 * has no type. Flags that are not given are taken back, as mount(2) does. */
int mount_again(const struct filesystem *fs, int fd);

/* Adds MOUNT_ATTR_RDONLY to the mount whose root is `fd`, in place. */
int mount_make_readonly(int fd, uint32_t attributes);

#endif
