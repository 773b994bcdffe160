/* Clocks that jump, and a machine that is suspended. The file named by SKEW_FILE holds two numbers of 8 bytes, little-endian:
   seconds that are added to CLOCK_REALTIME, and nanoseconds for which CLOCK_MONOTONIC, unlike CLOCK_BOOTTIME, has stood
   still. For tests; loaded by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SECOND = 1000000000 };

static volatile int64_t *skew;

__attribute__((constructor)) static void map_skew(void) {
    const char *path = getenv("SKEW_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *at = mmap(NULL, 2 * sizeof *skew, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED)
        skew = at;
    close(file);
}

static void move(struct timespec *time, int64_t nanoseconds) {
    int64_t sum = time->tv_nsec + nanoseconds % SECOND;
    time->tv_sec += nanoseconds / SECOND + (sum >= SECOND) - (sum < 0);
    time->tv_nsec = (sum + SECOND) % SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && skew && clock == CLOCK_REALTIME)
        time->tv_sec += skew[0];
    if (result == 0 && skew && clock == CLOCK_MONOTONIC)
        move(time, -skew[1]);
    return result;
}

/* Rust's threads wait until a time of CLOCK_MONOTONIC, which the kernel takes for one of its own. */
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long),
         e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    struct timespec until;
    if (skew && skew[1] && number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET &&
        !(b & FUTEX_CLOCK_REALTIME) && d) {
        until = *(struct timespec *)d;
        move(&until, skew[1]);
        d = (long)&until;
    }
    return real(number, a, b, c, d, e, f);
}
