/* Preloaded into a server, lets each of its syncs to disk take SLOW_DISK_MS longer. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_for_the_disk(void) {
    const char *ms = getenv("SLOW_DISK_MS");
    long wait = ms ? atol(ms) : 0;
    struct timespec left = {wait / 1000, wait % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0) { }
}

int fsync(int file) { wait_for_the_disk(); return (int)syscall(SYS_fsync, file); }
int fdatasync(int file) { wait_for_the_disk(); return (int)syscall(SYS_fdatasync, file); }
