/* The roles that start containers and reap them. */
#ifndef CTR_SPAWNER_H
#define CTR_SPAWNER_H

/* argv: name, control socket, owner ("-1" for none), 'p' (pidfd) or 'd' (/proc directory), our own program,
 * number of cgroup descriptors to join, those descriptors. */
_Noreturn void spawner_role(int argc, char **argv);

/* argv: the same, without an owner. Serves one request with an order (struct ctr_order), and ends with its container.
 * Nobody's death ends it. */
_Noreturn void supervisor_role(int argc, char **argv);

/* argv: the same, without an owner. Starts one process, as a child of who launched this one, and ends. */
_Noreturn void creator_role(int argc, char **argv);

/* argv: the same, without an owner. Takes one message of texts that end in NUL, a program's path and its arguments, and
 * executes it with the descriptors that come along, two at most, as its first standard streams. Says an errno if that fails. */
_Noreturn void companion_role(int argc, char **argv);

#endif
