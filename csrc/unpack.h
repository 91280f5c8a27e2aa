/* The unpacker: a process that makes one archive a directory tree, and can do nothing else. */
#ifndef CTR_UNPACK_H
#define CTR_UNPACK_H

/* argv: control socket, root directory, "p" if the owner is a pidfd, program, count of descriptors (2), the
 * archive, the owner. Takes one struct ctr_unpack_order from the socket and answers with one struct
 * ctr_unpack_result. */
_Noreturn void unpacker_role(int argc, char **argv);

#endif
