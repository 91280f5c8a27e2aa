/* An archive becomes the upper directory of an overlay. */
#ifndef CTR_APPLY_H
#define CTR_APPLY_H

#include "ctr.h"
#include "tar.h"

/* Makes every entry of the archive below `root_fd`, the root of this process, by OCI image-spec 1.1, "Applying
 * Changesets". 0, or -1 with what is wrong noted in `result`. */
int apply_archive(struct tar_reader *reader, int root_fd, const struct ctr_unpack_order *order,
                  struct ctr_unpack_result *result);

/* Sends a struct ctr_unpack_implied for each directory that was made only because something is in it. To be called
 * once the archive was applied. 0, or -1 with errno. */
int apply_report_implied(int control);

#endif
