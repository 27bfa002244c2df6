/* Loaded into virtiofsd (LD_PRELOAD) when it runs without root: opens files without O_NOATIME.
 *
 * overlayfs opens every lower file with O_NOATIME, FUSE passes that on, and the kernel grants it to the file's owner
 * only (open(2), EPERM). Not changing the access time is a wish here, not a need. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_at(int dir, const char *path, int flags, va_list rest) {
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;
    return syscall(SYS_openat, dir, path, flags & ~O_NOATIME, mode);
}

int openat(int dir, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int fd = open_at(dir, path, flags, rest);
    va_end(rest);
    return fd;
}

int openat64(int dir, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int fd = open_at(dir, path, flags, rest);
    va_end(rest);
    return fd;
}

/* What the calls without a mode become under _FORTIFY_SOURCE. */
int __openat_2(int dir, const char *path, int flags) { return syscall(SYS_openat, dir, path, flags & ~O_NOATIME, 0); }
int __openat64_2(int dir, const char *path, int flags) { return syscall(SYS_openat, dir, path, flags & ~O_NOATIME, 0); }
