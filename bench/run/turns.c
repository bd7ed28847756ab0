/*
 * CPU time of each turn of an event loop, measured from outside of it.
 *
 * Loaded by LD_PRELOAD (see turns.py). libuv, which is in uvloop, waits in
 * `epoll_pwait`; whatever the thread does between two such calls is one turn. Its time
 * is that of the thread's own CPU clock, so neither other processes nor waiting count.
 *
 * The file that TURNS_FILE names gets 64-bit numbers in the machine's order: turns, their
 * nanoseconds in all, and how many took 0, 1, 2 ... tenths of a millisecond; the last
 * number counts all longer ones.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 4096
#define BUCKET_NS 100000

struct turns {
    uint64_t count, ns, by_tenth_ms[BUCKETS];
};

static struct turns *turns;
static uint64_t begun_ns;

static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("TURNS_FILE");
    int file = path ? open(path, O_RDWR | O_CREAT, 0600) : -1;

    if (file >= 0 && !ftruncate(file, sizeof *turns)) {
        turns = mmap(NULL, sizeof *turns, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (turns == MAP_FAILED)
            turns = NULL;
    }
    if (file >= 0)
        close(file);
    /* Not for the processes that this one starts. */
    unsetenv("TURNS_FILE");
    unsetenv("LD_PRELOAD");
}

int epoll_pwait(int epoll, struct epoll_event *events, int max, int timeout,
                const sigset_t *mask)
{
    static int (*real)(int, struct epoll_event *, int, int, const sigset_t *);
    int is_main = syscall(SYS_gettid) == getpid();
    int ready;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_pwait");
    if (turns && is_main && begun_ns) {
        uint64_t took_ns = cpu_ns() - begun_ns, bucket = took_ns / BUCKET_NS;

        turns->count++;
        turns->ns += took_ns;
        turns->by_tenth_ms[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    }
    ready = real(epoll, events, max, timeout, mask);
    if (is_main)
        begun_ns = cpu_ns();
    return ready;
}
