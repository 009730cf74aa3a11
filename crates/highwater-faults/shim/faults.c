/*
 * A disk that fails, for unmodified programs: preloaded (LD_PRELOAD), it stands between a process and
 * the system calls with which files are opened, read, written, flushed, renamed and removed.
 *
 * HIGHWATER_FAULT_PLAN says what fails, as NAME=VALUE pairs that are separated by ';':
 *   root=FOLDER   only files below it (required; a plan without it does nothing)
 *   calls=A,B     open read write sync truncate rename link unlink mkdir; all unless said
 *   files=A|B     only names that contain one of these
 *   not=A|B       no names that contain one of these
 *   kind=KIND     eio      the call fails with EIO and does nothing
 *                 enospc   the call fails with ENOSPC and does nothing
 *                 short    a write takes half of its bytes and says so
 *                 torn     a write takes half of its bytes, the next matching call fails with ENOSPC
 *                 lost     a flush fails with EIO, and what was written since the last flush of that file
 *                          is gone, as when the kernel drops pages that it could not write
 *   when=N        only the N-th matching call; N+: from the N-th on; N/SEED: each with N in a million
 *
 * HIGHWATER_FAULT_REPORT names a file to which a line goes for each fault: CALL NUMBER PATH.
 *
 * Every call is made as a plain system call, never through the C library: no symbol is looked up, so
 * nothing can recurse. What a process writes through a mapping is not seen.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, EIO_, ENOSPC_, SHORT, TORN, LOST };

static struct {
    char text[4096];
    const char *root, *calls, *files, *not, *report;
    enum kind kind;
    uint64_t n, seed;
    int onward, chance;
} plan;

static atomic_ulong counted;

static void parse_when(const char *text) {
    char *end = NULL;
    plan.n = strtoull(text, &end, 10);
    if (end && *end == '+') plan.onward = 1;
    if (end && *end == '/') {
        plan.chance = 1;
        plan.seed = strtoull(end + 1, NULL, 10);
    }
}

static enum kind kind_of(const char *text) {
    static const char *names[] = {"", "eio", "enospc", "short", "torn", "lost"};
    for (int at = 1; at < 6; at++)
        if (!strcmp(text, names[at])) return (enum kind)at;
    return NONE;
}

__attribute__((constructor)) static void read_plan(void) {
    const char *text = getenv("HIGHWATER_FAULT_PLAN");
    plan.report = getenv("HIGHWATER_FAULT_REPORT");
    if (!text || strlen(text) >= sizeof plan.text) return;
    strcpy(plan.text, text);
    char *rest = NULL;
    const char *root = NULL;
    for (char *pair = strtok_r(plan.text, ";", &rest); pair; pair = strtok_r(NULL, ";", &rest)) {
        char *value = strchr(pair, '=');
        if (!value) continue;
        *value++ = 0;
        if (!strcmp(pair, "root")) root = value;
        if (!strcmp(pair, "calls")) plan.calls = value;
        if (!strcmp(pair, "files")) plan.files = value;
        if (!strcmp(pair, "not")) plan.not = value;
        if (!strcmp(pair, "kind")) plan.kind = kind_of(value);
        if (!strcmp(pair, "when")) parse_when(value);
    }
    plan.root = root; /* last: it arms the plan */
}

/* Whether `name` contains one of the parts of `list`. */
static int contains(const char *name, const char *list) {
    char part[256];
    while (*list) {
        size_t length = strcspn(list, "|");
        if (length && length < sizeof part) {
            memcpy(part, list, length);
            part[length] = 0;
            if (strstr(name, part)) return 1;
        }
        list += length + (list[length] == '|');
    }
    return 0;
}

static int listed(const char *call) {
    if (!plan.calls) return 1;
    size_t length = strlen(call);
    for (const char *at = plan.calls; (at = strstr(at, call)); at += length)
        if ((at == plan.calls || at[-1] == ',') && (at[length] == 0 || at[length] == ',')) return 1;
    return 0;
}

static int ours(const char *path) {
    size_t length = strlen(plan.root);
    return !strncmp(path, plan.root, length) && (path[length] == '/' || path[length] == 0) &&
           (!plan.files || contains(path + length, plan.files)) &&
           (!plan.not || !contains(path + length, plan.not));
}

static int fires(uint64_t number) {
    if (!plan.chance) {
        if (plan.kind == TORN && !plan.onward) return number == plan.n || number == plan.n + 1;
        return plan.onward ? number >= plan.n : number == plan.n;
    }
    uint64_t x = (number + plan.seed * 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (x ^ (x >> 31)) % 1000000u < plan.n;
}

static void report(const char *call, uint64_t number, const char *path) {
    char line[PATH_MAX + 64];
    if (!plan.report) return;
    int length = snprintf(line, sizeof line, "%s %lu %s\n", call, (unsigned long)number, path);
    long file = syscall(SYS_openat, AT_FDCWD, plan.report, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) return;
    syscall(SYS_write, file, line, length < (int)sizeof line ? length : (int)sizeof line - 1);
    syscall(SYS_close, file);
}

/* What is to happen to this call: NONE, EIO_, ENOSPC_, SHORT or LOST. */
static enum kind decide(const char *call, const char *path) {
    if (!plan.root || plan.kind == NONE || !listed(call) || !ours(path)) return NONE;
    uint64_t number = atomic_fetch_add(&counted, 1) + 1;
    if (!fires(number)) return NONE;
    enum kind kind = plan.kind;
    if (kind == TORN) {
        int first = plan.chance ? number % 2 : number == plan.n;
        kind = first ? SHORT : ENOSPC_;
    }
    int written = !strcmp(call, "write"), flushed = !strcmp(call, "sync");
    if (kind == SHORT && !written) return NONE;
    if (kind == LOST && !flushed) kind = EIO_;
    report(call, number, path);
    return kind;
}

/* The path behind a descriptor; "" for what is no file. */
static void path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

/* An absolute path, without looking at the file system: `..` and links are left as they are. */
static void absolute(int folder, const char *given, char *path) {
    if (!given) given = "";
    if (given[0] == '/') {
        snprintf(path, PATH_MAX, "%s", given);
        return;
    }
    char base[PATH_MAX];
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, base, sizeof base) < 0) base[0] = 0;
    } else {
        path_of(folder, base);
    }
    if (!strncmp(given, "./", 2)) given += 2;
    if (snprintf(path, PATH_MAX, "%s/%s", base, given) >= PATH_MAX) path[0] = 0;
}

static enum kind on_file(const char *call, int fd) {
    char path[PATH_MAX];
    int saved = errno;
    if (!plan.root) return NONE;
    path_of(fd, path);
    errno = saved;
    return path[0] == '/' ? decide(call, path) : NONE;
}

static enum kind on_path(const char *call, int folder, const char *given) {
    char path[PATH_MAX];
    int saved = errno;
    if (!plan.root) return NONE;
    absolute(folder, given, path);
    errno = saved;
    return decide(call, path);
}

static long fail(enum kind kind) {
    errno = kind == ENOSPC_ ? ENOSPC : EIO;
    return -1;
}

/* ---- What was written and not flushed, so that it can be lost ---- */

struct undo {
    struct undo *before;
    dev_t dev;
    ino_t ino;
    off_t offset, size;
    size_t length;
    char data[];
};

static struct undo *undone;
static pthread_mutex_t undo_lock = PTHREAD_MUTEX_INITIALIZER;

/* A descriptor that allows it, when `fd` does not. SQLite's own always do: to open and close its
 * files would drop its locks. */
static int another(int fd, int flags) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return (int)syscall(SYS_openat, AT_FDCWD, link, flags | O_CLOEXEC, 0);
}

static void remember(int fd, off_t offset, size_t length) {
    struct stat found;
    char path[PATH_MAX];
    if (plan.kind != LOST || !plan.root) return;
    path_of(fd, path);
    if (!ours(path) || fstat(fd, &found) || !S_ISREG(found.st_mode)) return;
    long flags = syscall(SYS_fcntl, fd, F_GETFL);
    if (offset < 0) offset = flags & O_APPEND ? found.st_size : (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    size_t kept = 0;
    if (offset < found.st_size)
        kept = (size_t)(found.st_size - offset) < length ? (size_t)(found.st_size - offset) : length;
    struct undo *undo = malloc(sizeof *undo + kept);
    if (!undo) return;
    *undo = (struct undo){NULL, found.st_dev, found.st_ino, offset, found.st_size, kept};
    int reader = (flags & O_ACCMODE) == O_WRONLY ? another(fd, O_RDONLY) : fd;
    if (kept && syscall(SYS_pread64, reader, undo->data, kept, offset) != (long)kept) undo->length = 0;
    if (reader != fd) syscall(SYS_close, reader);
    pthread_mutex_lock(&undo_lock);
    undo->before = undone;
    undone = undo;
    pthread_mutex_unlock(&undo_lock);
}

/* Forgets what was written to the file of `fd`; `lose`: and takes it back. */
static void settle(int fd, int lose) {
    struct stat found;
    if (plan.kind != LOST || fstat(fd, &found)) return;
    int writer = fd;
    if (lose && (syscall(SYS_fcntl, fd, F_GETFL) & O_ACCMODE) == O_RDONLY) writer = another(fd, O_WRONLY);
    pthread_mutex_lock(&undo_lock);
    for (struct undo **at = &undone; *at;) {
        struct undo *undo = *at;
        if (undo->dev != found.st_dev || undo->ino != found.st_ino) {
            at = &undo->before;
            continue;
        }
        if (lose) {
            if (undo->length) syscall(SYS_pwrite64, writer, undo->data, undo->length, undo->offset);
            syscall(SYS_ftruncate, writer, undo->size);
        }
        *at = undo->before;
        free(undo);
    }
    pthread_mutex_unlock(&undo_lock);
    if (writer != fd) syscall(SYS_close, writer);
}

/* ---- Open ---- */

static int opened(int folder, const char *path, int flags, mode_t mode) {
    enum kind kind = on_path("open", folder, path);
    return (int)(kind ? fail(kind) : syscall(SYS_openat, folder, path, flags, mode));
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                                                                             \
    int name(const char *path, int flags, ...) {                                                               \
        va_list rest;                                                                                          \
        va_start(rest, flags);                                                                                 \
        mode_t mode = mode_of(flags, rest);                                                                    \
        va_end(rest);                                                                                          \
        return opened(AT_FDCWD, path, flags, mode);                                                            \
    }
#define OPENAT(name)                                                                                           \
    int name(int folder, const char *path, int flags, ...) {                                                   \
        va_list rest;                                                                                          \
        va_start(rest, flags);                                                                                 \
        mode_t mode = mode_of(flags, rest);                                                                    \
        va_end(rest);                                                                                          \
        return opened(folder, path, flags, mode);                                                              \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* ---- Read ---- */

ssize_t read(int fd, void *data, size_t length) {
    enum kind kind = on_file("read", fd);
    return kind ? fail(kind) : syscall(SYS_read, fd, data, length);
}
ssize_t pread(int fd, void *data, size_t length, off_t offset) {
    enum kind kind = on_file("read", fd);
    return kind ? fail(kind) : syscall(SYS_pread64, fd, data, length, offset);
}
ssize_t pread64(int fd, void *data, size_t length, off_t offset) { return pread(fd, data, length, offset); }
ssize_t readv(int fd, const struct iovec *parts, int count) {
    enum kind kind = on_file("read", fd);
    return kind ? fail(kind) : syscall(SYS_readv, fd, parts, count);
}

/* ---- Write ---- */

/* `offset` below zero: where the file stands. */
static ssize_t written(int fd, const void *data, size_t length, off_t offset) {
    enum kind kind = on_file("write", fd);
    if (kind == SHORT) length = length > 1 ? length / 2 : length;
    else if (kind) return fail(kind);
    remember(fd, offset, length);
    return offset < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
}

static ssize_t gathered(int fd, const struct iovec *parts, int count, off_t offset) {
    enum kind kind = on_file("write", fd);
    if (kind == SHORT) count = count > 1 ? count / 2 : count;
    else if (kind) return fail(kind);
    size_t length = 0;
    for (int at = 0; at < count; at++) length += parts[at].iov_len;
    remember(fd, offset, length);
    return offset < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

ssize_t write(int fd, const void *data, size_t length) { return written(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return written(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) { return written(fd, data, length, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return gathered(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return gathered(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return gathered(fd, parts, count, at); }

/* Copies within the kernel are not offered: whoever asks falls back to reading and writing. */
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t length, unsigned flags) {
    if (plan.root) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, in, from, out, to, length, flags);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
    struct stat found;
    if (plan.root && !fstat(out, &found) && S_ISREG(found.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_sendfile, out, in, offset, length);
}
ssize_t sendfile64(int out, int in, off_t *offset, size_t length) { return sendfile(out, in, offset, length); }

/* ---- Flush ---- */

static int flushed(int fd, long number) {
    enum kind kind = on_file("sync", fd);
    if (kind) {
        if (kind == LOST) settle(fd, 1);
        return (int)fail(kind);
    }
    int result = (int)syscall(number, fd);
    if (!result) settle(fd, 0);
    return result;
}
int fsync(int fd) { return flushed(fd, SYS_fsync); }
int fdatasync(int fd) { return flushed(fd, SYS_fdatasync); }

/* ---- Size ---- */

int ftruncate(int fd, off_t length) {
    enum kind kind = on_file("truncate", fd);
    if (kind) return (int)fail(kind);
    struct stat found;
    if (plan.kind == LOST && !fstat(fd, &found) && length < found.st_size)
        remember(fd, length, (size_t)(found.st_size - length));
    return (int)syscall(SYS_ftruncate, fd, length);
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) {
    enum kind kind = on_file("truncate", fd);
    return (int)(kind ? fail(kind) : syscall(SYS_fallocate, fd, mode, offset, length));
}
int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) {
    int saved = errno, result = fallocate(fd, 0, offset, length) ? errno : 0;
    errno = saved;
    return result;
}
int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }

/* ---- Names ---- */

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    enum kind kind = on_path("rename", to_folder, to);
    return (int)(kind ? fail(kind) : syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return renameat2(from_folder, from, to_folder, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    enum kind kind = on_path("link", to_folder, to);
    return (int)(kind ? fail(kind) : syscall(SYS_linkat, from_folder, from, to_folder, to, flags));
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int folder, const char *path, int flags) {
    enum kind kind = on_path("unlink", folder, path);
    return (int)(kind ? fail(kind) : syscall(SYS_unlinkat, folder, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t mode) {
    enum kind kind = on_path("mkdir", folder, path);
    return (int)(kind ? fail(kind) : syscall(SYS_mkdirat, folder, path, mode));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
