/* Records what a process does to the files under one directory, in one log for all processes, and makes faults on order.
 *
 *   cc -shared -fPIC -O2 -o recorder.so recorder.c -ldl -lpthread
 *   LD_PRELOAD=recorder.so RECORDER_ROOT=/dir RECORDER_LOG=/log RECORDER_CONTROL=/control RECORDER_LOCK=/lock program
 *
 * RECORDER_ROOT (its real path) is what is recorded. RECORDER_LOG gets one record (struct record, paths, data) for each
 * thing done, by one write with O_APPEND: its order is the order of things. A record is written after what it tells of
 * was done, a sync has one before (BEGIN) and one after (END): so the log never promises more than the disk has. What
 * changes names is done and recorded under one lock for all processes (RECORDER_LOCK), as the number of a removed file
 * may be given to a new one at once.
 * RECORDER_CONTROL (struct control, mapped) belongs to one service: it says what shall fail, where to die, and how far
 * the wall clock is off. Each of the three is optional.
 * What cannot be recorded (a shared writable mapping, an exchange of names, ...) gets a record ODD: the reader refuses it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 'O', WRITE = 'W', ZEROS = 'Z', TRUNCATE = 'T', BEGIN = 'B', END = 'E', RENAME = 'R', LINK = 'L',
       UNLINK = 'U', MKDIR = 'M', RMDIR = 'D', FAULT = 'I', ODD = 'X' };

struct record {
    uint32_t size; /* of all: this, first path, second path, data */
    uint8_t kind, flags; /* flags of a sync: 1 of a directory */
    uint16_t first, second, spare; /* lengths of the paths */
    uint32_t pid;
    int32_t result;
    uint64_t ino, offset, length, token;
    double time;
} __attribute__((packed));

/* the kinds of calls that a rule may break, in the order of struct control */
enum { R_WRITE, R_SYNC, R_CREATE, R_UNLINK, R_RENAME, R_LINK, RULES };
enum { FAIL, DIE_BEFORE, DIE_AFTER, SKIP }; /* SKIP: a sync answers well, does nothing, and is not recorded */
struct rule { int64_t seen, from, to; int32_t error, action; char match[64]; }; /* calls from <= seen < to; match: in the path */
struct control { double clock; struct rule rules[RULES]; };

#define FDS 4096
static char paths[FDS][192]; /* of a tracked file; "" for any other */
static uint64_t inos[FDS];
static char is_directory[FDS];
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static struct control *control;
static pthread_mutex_t *names;
static uint64_t tokens;
static const char *log_path;

#define REAL(name) ({ static typeof(&name) f; if (!f) f = (typeof(&name))dlsym(RTLD_NEXT, #name); f; })

static int high(int fd) {
    if (fd < 0) return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 900);
    REAL(close)(fd);
    return moved;
}

static void open_log(void) { log_fd = high(syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT, 0600)); }

__attribute__((constructor)) static void start(void) {
    const char *where = getenv("RECORDER_ROOT"), *control_path = getenv("RECORDER_CONTROL"), *lock = getenv("RECORDER_LOCK");
    if (where && realpath(where, root)) root_length = strlen(root);
    if ((log_path = getenv("RECORDER_LOG"))) open_log();
    if (control_path) {
        int fd = syscall(SYS_openat, AT_FDCWD, control_path, O_RDWR | O_CLOEXEC, 0);
        void *map = fd < 0 ? MAP_FAILED : mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) control = map;
        if (fd >= 0) REAL(close)(fd);
    }
    if (lock) {
        int fd = syscall(SYS_openat, AT_FDCWD, lock, O_RDWR | O_CLOEXEC, 0);
        void *map = fd < 0 ? MAP_FAILED : mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd >= 0) REAL(close)(fd);
        if (map == MAP_FAILED) return;
        uint32_t *state = (uint32_t *)((char *)map + 1024); /* 0 new, 1 being made, 2 ready */
        if (__sync_bool_compare_and_swap(state, 0, 1)) {
            pthread_mutexattr_t a;
            pthread_mutexattr_init(&a);
            pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
            pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
            pthread_mutex_init(map, &a);
            __sync_synchronize();
            *state = 2;
        }
        while (*(volatile uint32_t *)state != 2) usleep(100);
        names = map;
    }
}

static void take(void) {
    if (names && pthread_mutex_lock(names) == EOWNERDEAD) pthread_mutex_consistent(names);
}
static void give(void) {
    if (names) pthread_mutex_unlock(names);
}

static void note(struct record r, const char *first, const char *second, const void *data, size_t length) {
    if (log_fd < 0) return;
    int kept = errno;
    struct timespec t;
    REAL(clock_gettime)(CLOCK_MONOTONIC, &t);
    r.first = first ? strlen(first) : 0;
    r.second = second ? strlen(second) : 0;
    r.size = sizeof r + r.first + r.second + length;
    r.pid = getpid();
    r.time = t.tv_sec + t.tv_nsec / 1e9;
    struct iovec parts[] = {{&r, sizeof r}, {(void *)first, r.first}, {(void *)second, r.second}, {(void *)data, length}};
    for (int again = 0; again < 2; again++) {
        ssize_t done = syscall(SYS_writev, log_fd, parts, 4);
        if (done == (ssize_t)r.size) break;
        if (done < 0 && errno == EBADF && !again) { open_log(); continue; }
        static const char words[] = "recorder: the log takes no more\n";
        syscall(SYS_write, 2, words, sizeof words - 1);
        abort();
    }
    errno = kept;
}

static void odd(const char *what, const char *path) { note((struct record){.kind = ODD}, what, path, 0, 0); }

/* The path as the reader knows it: below root, without root. 0: not below it. */
static const char *below(int at, const char *path, char *full) {
    if (!root_length || !path) return 0;
    if (path[0] == '/') {
        if (snprintf(full, PATH_MAX, "%s", path) >= PATH_MAX) return 0;
    } else {
        char link[64], place[PATH_MAX];
        if (at == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, place, sizeof place - 1);
        if (n < 0) return 0;
        place[n] = 0;
        if (snprintf(full, PATH_MAX, "%s/%s", place, path) >= PATH_MAX) return 0;
    }
    char *end = full + strlen(full);
    while (end > full + 1 && end[-1] == '/') *--end = 0;
    char *last = strrchr(full, '/');
    if (last && (strstr(full, "/./") || strstr(full, "/../") || strstr(full, "//"))) {
        char directory[PATH_MAX], real[PATH_MAX], tail[NAME_MAX + 1];
        if (snprintf(tail, sizeof tail, "%s", last + 1) >= (int)sizeof tail) return 0;
        snprintf(directory, sizeof directory, "%.*s", (int)(last - full ? last - full : 1), full);
        if (!realpath(directory, real)) return 0;
        if (snprintf(full, PATH_MAX, "%s/%s", real, tail) >= PATH_MAX) return 0;
    }
    if (strncmp(full, root, root_length) || (full[root_length] != '/' && full[root_length])) return 0;
    return full[root_length] ? full + root_length + 1 : full + root_length;
}

/* A part of the path; with $, its end. */
static int matches(const char *path, const char *match) {
    size_t size = strlen(match), length = strlen(path);
    if (!size || match[size - 1] != '$') return !size || strstr(path, match);
    return length >= size - 1 && !strncmp(path + length - (size - 1), match, size - 1);
}

/* What shall become of this call: 0 goes on; else errno is set, and the call fails. *dies: end when it is done. */
static int broken(int rule, const char *path, int *dies) {
    *dies = 0;
    if (!control) return 0;
    struct rule *r = &control->rules[rule];
    if (!r->to || !matches(path, r->match)) return 0;
    int64_t number = __sync_fetch_and_add(&r->seen, 1);
    if (number < r->from || number >= r->to) return 0;
    if (r->action != SKIP)
        note((struct record){.kind = FAULT, .result = r->error, .offset = number, .length = rule, .flags = r->action}, path, 0, 0, 0);
    if (r->action == DIE_BEFORE) { give(); kill(getpid(), SIGKILL); for (;;) pause(); }
    if (r->action == DIE_AFTER) { *dies = 1; return 0; }
    errno = r->error;
    return 1;
}
static void die(int now) { if (now) { kill(getpid(), SIGKILL); for (;;) pause(); } }

/* --- files --- */
static int tracked(int fd) { return fd >= 0 && fd < FDS && paths[fd][0]; }

static int opened(int at, const char *path, int flags, mode_t mode, int (*call)(int, const char *, int, mode_t)) {
    char full[PATH_MAX];
    const char *ours = below(at, path, full);
    if (!ours) {
        int fd = call(at, path, flags, mode);
        if (fd >= 0 && fd < FDS) paths[fd][0] = 0;
        return fd;
    }
    int dies = 0, changes = flags & (O_CREAT | O_TRUNC);
    if ((flags & O_TMPFILE) == O_TMPFILE) odd("O_TMPFILE", ours);
    if (flags & O_DSYNC) odd("O_DSYNC", ours);
    if (changes) take();
    if (flags & O_CREAT && broken(R_CREATE, ours, &dies)) { give(); return -1; }
    int fd = call(at, path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        struct stat s;
        fstat(fd, &s);
        snprintf(paths[fd], sizeof paths[fd], "%s", *ours ? ours : ".");
        inos[fd] = s.st_ino;
        is_directory[fd] = S_ISDIR(s.st_mode);
        if (changes) note((struct record){.kind = OPEN, .ino = s.st_ino, .flags = !!(flags & O_TRUNC)}, ours, 0, 0, 0);
    }
    if (changes) give();
    die(dies && fd >= 0);
    return fd;
}
static int call_openat(int at, const char *path, int flags, mode_t mode) { return syscall(SYS_openat, at, path, flags, mode); }
#define MODE(last) mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, last); mode = va_arg(l, int); va_end(l); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode, call_openat); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode, call_openat); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode, call_openat); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode, call_openat); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode, call_openat); }

int close(int fd) {
    if (fd >= 0 && fd == log_fd) return 0;
    if (fd >= 0 && fd < FDS) paths[fd][0] = 0;
    return REAL(close)(fd);
}
static void copied(int from, int to) {
    if (to < 0 || to >= FDS) return;
    if (tracked(from)) { memcpy(paths[to], paths[from], sizeof paths[to]); inos[to] = inos[from]; is_directory[to] = is_directory[from]; }
    else paths[to][0] = 0;
}
int dup(int fd) { int n = REAL(dup)(fd); copied(fd, n); return n; }
int dup2(int fd, int to) { int n = REAL(dup2)(fd, to); copied(fd, n); return n; }
int dup3(int fd, int to, int flags) { int n = REAL(dup3)(fd, to, flags); copied(fd, n); return n; }

static void wrote(int fd, const struct iovec *parts, int count, ssize_t done, off_t at) {
    if (done <= 0) return;
    if (at < 0) at = lseek(fd, 0, SEEK_CUR) - done;
    char *data = malloc(done), *to = data;
    ssize_t left = done;
    for (int i = 0; i < count && left > 0; i++) {
        size_t n = parts[i].iov_len < (size_t)left ? parts[i].iov_len : (size_t)left;
        memcpy(to, parts[i].iov_base, n); to += n; left -= n;
    }
    int zeros = !data[0] && !memcmp(data, data + 1, done - 1);
    note((struct record){.kind = zeros ? ZEROS : WRITE, .ino = inos[fd], .offset = at, .length = done}, paths[fd], 0, data, zeros ? 0 : done);
    free(data);
}
#define WRITING(call, parts, count, at)                                  \
    if (!tracked(fd)) return call;                                       \
    int dies;                                                            \
    if (broken(R_WRITE, paths[fd], &dies)) return -1;                    \
    ssize_t done = call;                                                 \
    wrote(fd, parts, count, done, at);                                   \
    die(dies);                                                           \
    return done;
#define ONE (&(struct iovec){(void *)data, size})
ssize_t write(int fd, const void *data, size_t size) { WRITING(REAL(write)(fd, data, size), ONE, 1, -1) }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { WRITING(REAL(pwrite)(fd, data, size, at), ONE, 1, at) }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { WRITING(REAL(pwrite)(fd, data, size, at), ONE, 1, at) }
ssize_t writev(int fd, const struct iovec *parts, int count) { WRITING(REAL(writev)(fd, parts, count), parts, count, -1) }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { WRITING(REAL(pwritev)(fd, parts, count, at), parts, count, at) }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { WRITING(REAL(pwritev)(fd, parts, count, at), parts, count, at) }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    if (tracked(fd)) odd("pwritev2", paths[fd]);
    return REAL(pwritev2)(fd, parts, count, at, flags);
}
/* copies inside the kernel: who asks is told to do it by hand */
ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    if (tracked(to)) { errno = ENOTSOCK; return -1; }
    return syscall(SYS_sendfile, to, from, at, size);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { return sendfile(to, from, at, size); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    if (tracked(to)) { errno = ENOSYS; return -1; }
    return syscall(SYS_copy_file_range, from, a, to, b, size, flags);
}
static int resized(int fd, int result, off_t size) {
    if (!result && tracked(fd)) note((struct record){.kind = TRUNCATE, .ino = inos[fd], .length = size}, paths[fd], 0, 0, 0);
    return result;
}
int ftruncate(int fd, off_t size) {
    int dies = 0;
    if (tracked(fd) && broken(R_WRITE, paths[fd], &dies)) return -1;
    int result = resized(fd, syscall(SYS_ftruncate, fd, size), size);
    die(dies);
    return result;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
static int by_path(const char *path, off_t size) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = ftruncate(fd, size), kept = errno;
    close(fd);
    errno = kept;
    return result;
}
int truncate(const char *path, off_t size) { return by_path(path, size); }
int truncate64(const char *path, off64_t size) { return by_path(path, size); }
int fallocate(int fd, int mode, off_t at, off_t size) {
    int dies = 0;
    if (tracked(fd) && broken(R_WRITE, paths[fd], &dies)) return -1;
    int result = syscall(SYS_fallocate, fd, mode, at, size);
    struct stat s;
    if (!result && tracked(fd)) {
        if (mode & ~FALLOC_FL_KEEP_SIZE) odd("fallocate", paths[fd]);
        else if (!mode && !fstat(fd, &s)) resized(fd, 0, s.st_size);
    }
    die(dies);
    return result;
}
int fallocate64(int fd, int mode, off64_t at, off64_t size) { return fallocate(fd, mode, at, size); }
int posix_fallocate(int fd, off_t at, off_t size) { return fallocate(fd, 0, at, size) ? errno : 0; }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return posix_fallocate(fd, at, size); }
static void mapped(int fd, int protection, int flags) {
    if (tracked(fd) && protection & PROT_WRITE && (flags & MAP_TYPE) != MAP_PRIVATE) odd("mmap", paths[fd]);
}
void *mmap(void *a, size_t n, int protection, int flags, int fd, off_t at) {
    mapped(fd, protection, flags);
    return (void *)syscall(SYS_mmap, a, n, protection, flags, fd, at);
}
void *mmap64(void *a, size_t n, int protection, int flags, int fd, off64_t at) { return mmap(a, n, protection, flags, fd, at); }

/* --- syncs --- */
static int synced(int fd, long number) {
    if (!tracked(fd)) return syscall(number, fd);
    int dies, fails = broken(R_SYNC, paths[fd], &dies), why = errno;
    if (fails && control->rules[R_SYNC].action == SKIP) return 0;
    struct record r = {.kind = BEGIN, .flags = is_directory[fd], .ino = inos[fd], .token = __sync_add_and_fetch(&tokens, 1)};
    note(r, paths[fd], 0, 0, 0);
    int result = fails ? -1 : syscall(number, fd);
    if (fails) errno = why;
    r.kind = END;
    r.result = result;
    note(r, paths[fd], 0, 0, 0);
    die(dies);
    return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* --- names --- */
static int renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    const char *ours = below(from_at, from, a), *new = below(to_at, to, b);
    int dies = 0;
    if (!ours && !new) return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    take();
    if (broken(R_RENAME, ours ? ours : new, &dies)) { give(); return -1; }
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!result) {
        if (!ours || !new || flags & RENAME_EXCHANGE) odd("rename", ours ? ours : new);
        else note((struct record){.kind = RENAME}, ours, new, 0, 0);
    }
    give();
    die(dies && !result);
    return result;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int f, const char *from, int t, const char *to) { return renamed(f, from, t, to, 0); }
int renameat2(int f, const char *from, int t, const char *to, unsigned flags) { return renamed(f, from, t, to, flags); }

static int linked(int from_at, const char *from, int to_at, const char *to, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    const char *ours = below(from_at, from, a), *new = below(to_at, to, b);
    int dies = 0;
    if (!new) return syscall(SYS_linkat, from_at, from, to_at, to, flags);
    take();
    if (broken(R_LINK, new, &dies)) { give(); return -1; }
    int result = syscall(SYS_linkat, from_at, from, to_at, to, flags);
    struct stat s;
    if (!result && !stat(b, &s)) note((struct record){.kind = LINK, .ino = s.st_ino}, ours ? ours : "", new, 0, 0);
    give();
    die(dies && !result);
    return result;
}
int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int f, const char *from, int t, const char *to, int flags) { return linked(f, from, t, to, flags); }

static int removed(int at, const char *path, int flags) {
    char full[PATH_MAX];
    const char *ours = below(at, path, full);
    int dies = 0;
    if (!ours) return syscall(SYS_unlinkat, at, path, flags);
    take();
    if (broken(R_UNLINK, ours, &dies)) { give(); return -1; }
    int result = syscall(SYS_unlinkat, at, path, flags);
    if (!result) note((struct record){.kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK}, ours, 0, 0, 0);
    give();
    die(dies && !result);
    return result;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

static int made(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    const char *ours = below(at, path, full);
    if (!ours) return syscall(SYS_mkdirat, at, path, mode);
    take();
    int result = syscall(SYS_mkdirat, at, path, mode);
    if (!result) note((struct record){.kind = MKDIR}, ours, 0, 0, 0);
    give();
    return result;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made(at, path, mode); }
int symlink(const char *to, const char *path) {
    char full[PATH_MAX];
    if (below(AT_FDCWD, path, full)) odd("symlink", path);
    return REAL(symlink)(to, path);
}

/* --- the wall clock --- */
int clock_gettime(clockid_t which, struct timespec *t) {
    int result = REAL(clock_gettime)(which, t);
    if (!result && control && which == CLOCK_REALTIME) t->tv_sec += (time_t)control->clock;
    return result;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
