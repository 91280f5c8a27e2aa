/* The spawner role. */
#ifndef CTR_SPAWNER_H
#define CTR_SPAWNER_H

/* argv: name, control socket, owner ("-1" for none), 'p' (pidfd) or 'd' (/proc directory), our own program,
 * number of cgroup descriptors to join, those descriptors. */
_Noreturn void spawner_role(int argc, char **argv);

#endif
