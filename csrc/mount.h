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

/* Binds the file or tree `source_fd` on `target_fd` with `attributes`, never propagating. */
int mount_bind(int source_fd, int target_fd, uint32_t attributes, int recursive);

/* Attaches an unattached tree that another process made, with `attributes`, never propagating. */
int mount_attach_received(int mount_fd, int target_fd, uint32_t attributes, int recursive);

/* Sets `attributes` on the unattached mount `mount_fd` and makes it private. */
int mount_set_attributes(int mount_fd, uint32_t attributes, int recursive);

/* Adds MOUNT_ATTR_RDONLY to the mount whose root is `fd`, in place. */
int mount_make_readonly(int fd, uint32_t attributes);

#endif
