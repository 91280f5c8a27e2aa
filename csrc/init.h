/* The init role: process 1 of a container that asked for a reaper. */
#ifndef CTR_INIT_H
#define CTR_INIT_H

#include "child.h"

/* Replaces this process, which has isolated the container, by our program in the init role. The memory that it
 * shared with the spawner is gone with that. Returns only on failure, -1. */
int init_exec(struct child *c);

/* Takes over after init_exec. argv: name, then the descriptors spec, status, error, 0, 1, 2, tty. */
_Noreturn void init_role(int argc, char **argv);

#endif
