/* The maps of sparse files. */
#ifndef CTR_TAR_SPARSE_H
#define CTR_TAR_SPARSE_H

#include "tar_pax.h"

/* Reads the map of the entry, in whichever of the four forms, into `spans`, and checks it; what it takes of the
 * content is read. `header` is the block of a GNU header of type 'S', NULL for the PAX forms.
 * 0, or -1 with what is wrong noted. */
int sparse_map(struct tar_reader *reader, const char *header, const struct tar_pax *pax, struct tar_span *spans,
               struct tar_entry *entry);

/* tar.c: a block that follows the header and is not content. 1, or -1 with what is wrong noted. */
int tar_extra_block(struct tar_reader *reader, uint8_t *ret_block);

/* tar.c: notes that the map is wrong. Returns -1. */
int tar_bad_sparse(struct tar_reader *reader);

#endif
