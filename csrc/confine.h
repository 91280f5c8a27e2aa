/* What the unpacker gives up before it reads the first byte of an archive. */
#ifndef CTR_CONFINE_H
#define CTR_CONFINE_H

/* Makes `root_fd` the root of this process, and keeps only the system calls and capabilities by which files are
 * made in it. may_make_devices: device nodes, too. 0, or -1 with errno. */
int confine(int root_fd, int may_make_devices);

#endif
