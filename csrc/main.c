/* One program, several roles, told apart by the name it is started with. */
#include <string.h>
#include <unistd.h>

#include "init.h"
#include "spawner.h"
#include "unpack.h"

int main(int argc, char **argv)
{
    if (argc > 0 && strcmp(argv[0], "ctr-spawner") == 0)
        spawner_role(argc, argv);
    if (argc > 0 && strcmp(argv[0], "ctr-supervisor") == 0)
        supervisor_role(argc, argv);
    if (argc > 0 && strcmp(argv[0], "ctr-creator") == 0)
        creator_role(argc, argv);
    if (argc > 0 && strcmp(argv[0], "ctr-companion") == 0)
        companion_role(argc, argv);
    if (argc > 0 && strcmp(argv[0], "ctr-unpacker") == 0)
        unpacker_role(argc, argv);
    if (argc > 0 && strcmp(argv[0], "ctr-init") == 0)
        init_role(argc, argv);
    return 125;
}
