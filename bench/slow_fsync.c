/* Preloaded into a server, this makes its disk one whose fsync takes BENCH_FSYNC_US microseconds longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int slowed(const char *name, int descriptor)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(descriptor);
    const char *given = getenv("BENCH_FSYNC_US");
    long microseconds = given ? atol(given) : 0;
    struct timespec pause = {microseconds / 1000000, microseconds % 1000000 * 1000};

    if (microseconds > 0)
        nanosleep(&pause, NULL);
    return result;
}

int fsync(int descriptor) { return slowed("fsync", descriptor); }
int fdatasync(int descriptor) { return slowed("fdatasync", descriptor); }
