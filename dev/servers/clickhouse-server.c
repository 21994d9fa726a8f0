/* Runs the library beside this program with the arguments given: a ClickHouse, complete but for its main function. */
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char path[PATH_MAX + sizeof "/libchdb.so"];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    if (length < 0) { perror("/proc/self/exe"); return 1; }
    path[length] = 0;
    strcat(dirname(path), "/libchdb.so");
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    void *(*run)(int, char **) = library ? (void *(*)(int, char **))dlsym(library, "query_stable_v2") : NULL;
    if (!run) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    argv[0] = "clickhouse";
    run(argc, argv);
    return 1; /* The query that keeps it running never ends by itself: something failed. */
}
