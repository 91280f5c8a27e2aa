/* Removing directories. */
#ifndef CTR_REMOVE_H
#define CTR_REMOVE_H

/* Removes the directory `name` of `parent` with everything in it. Nobody may rename anything below it meanwhile. 0, or
 * -1 with errno. */
int remove_directory(int parent, const char *name);

#endif
