/* Writes down every operation of a process on the files below one folder, in their order, with what was written.
 *
 * Loaded before the C library (LD_PRELOAD). HIGHWATER_RECORD_FOLDER names the folder (absolute, without links),
 * HIGHWATER_RECORD_TO the file that the records are appended to. src/trace.rs reads them.
 *
 * A record (little-endian): kind u8, inode u64, number u64, then two byte strings, each with its length as u32.
 * What is done and its record are one step for all threads. Operations that fail leave no record.
 * Files that end in -shm are not recorded: they are shared memory, and SQLite makes them anew after a crash.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, RENAME, LINK, UNLINK, MKDIR, RMDIR };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_length;
static int trace = -1;

static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_open)(const char *, int, ...);

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("HIGHWATER_RECORD_FOLDER");
    const char *to = getenv("HIGHWATER_RECORD_TO");
    real_write = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    if (!where || !to || strlen(where) + 1 >= sizeof folder) return;
    strcpy(folder, where);
    folder_length = strlen(folder);
    trace = real_open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (trace < 0) {
        perror("the recorder cannot write its records");
        _exit(125);
    }
}

/* The part of a path below the folder, or NULL when it is elsewhere or not of interest. */
static const char *inside(const char *path) {
    if (trace < 0 || !path || strncmp(path, folder, folder_length) != 0) return NULL;
    if (path[folder_length] != '/' && path[folder_length] != 0) return NULL;
    size_t length = strlen(path);
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0) return NULL;
    return path[folder_length] ? path + folder_length + 1 : "";
}

/* The same for an open file. Fills in its inode and whether it is a folder. */
static const char *inside_fd(int fd, char *path, struct stat *about) {
    char link[64];
    if (trace < 0) return NULL;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    const char *found = NULL;
    if (length > 0) {
        path[length] = 0;
        found = inside(path);
        if (found && fstat(fd, about) != 0) found = NULL;
    }
    errno = saved;
    return found;
}

static void put(char **at, const void *bytes, size_t length) {
    memcpy(*at, bytes, length);
    *at += length;
}

static void record(enum kind kind, uint64_t inode, uint64_t number, const void *one, size_t one_length,
                   const void *two, size_t two_length) {
    int saved = errno;
    size_t total = 1 + 8 + 8 + 4 + one_length + 4 + two_length;
    char *bytes = malloc(total), *at = bytes;
    uint8_t tag = (uint8_t)kind;
    uint32_t lengths[2] = {(uint32_t)one_length, (uint32_t)two_length};
    if (!bytes) abort();
    put(&at, &tag, 1);
    put(&at, &inode, 8);
    put(&at, &number, 8);
    put(&at, &lengths[0], 4);
    put(&at, one, one_length);
    put(&at, &lengths[1], 4);
    put(&at, two, two_length);
    if (real_write(trace, bytes, total) != (ssize_t)total) abort();
    free(bytes);
    errno = saved;
}

static void record_path(enum kind kind, uint64_t inode, const char *path) {
    record(kind, inode, 0, path, strlen(path), "", 0);
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    if (!name || !(flags & (O_CREAT | O_TRUNC))) return real(path, flags, mode);
    struct stat before, after;
    pthread_mutex_lock(&turn);
    int existed = stat(path, &before) == 0;
    int fd = real(path, flags, mode);
    if (fd >= 0 && fstat(fd, &after) == 0) {
        if (!existed) record_path(CREATE, after.st_ino, name);
        else if ((flags & O_TRUNC) && S_ISREG(after.st_mode)) record(TRUNCATE, after.st_ino, 0, "", 0, "", 0);
    }
    pthread_mutex_unlock(&turn);
    return fd;
}

static mode_t mode_of(int flags, va_list list) {
    return (flags & O_CREAT) ? (mode_t)va_arg(list, int) : 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(const char *, int, ...); \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = mode_of(flags, list); \
        va_end(list); \
        return opened(real, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name, plain) \
    int name(int at, const char *path, int flags, ...) { \
        static int (*real)(int, const char *, int, ...); \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = mode_of(flags, list); \
        va_end(list); \
        if (inside(path)) return plain(path, flags, mode); \
        return real(at, path, flags, mode); \
    }
OPENAT(openat, open)
OPENAT(openat64, open64)

/* Notes `count` bytes of `from` that now stand at `offset`. */
static void wrote(int fd, const struct stat *about, const void *from, ssize_t count, off_t offset) {
    if (count <= 0) return;
    if (offset < 0) offset = lseek(fd, 0, SEEK_CUR) - count;
    record(WRITE, about->st_ino, (uint64_t)offset, "", 0, from, (size_t)count);
}

ssize_t write(int fd, const void *from, size_t count) {
    char path[PATH_MAX];
    struct stat about;
    if (!real_write) real_write = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (!inside_fd(fd, path, &about)) return real_write(fd, from, count);
    pthread_mutex_lock(&turn);
    ssize_t done = real_write(fd, from, count);
    wrote(fd, &about, from, done, -1);
    pthread_mutex_unlock(&turn);
    return done;
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *from, size_t count, offset_type offset) { \
        REAL(name); \
        char path[PATH_MAX]; \
        struct stat about; \
        if (!inside_fd(fd, path, &about)) return real(fd, from, count, offset); \
        pthread_mutex_lock(&turn); \
        ssize_t done = real(fd, from, count, offset); \
        wrote(fd, &about, from, done, (off_t)offset); \
        pthread_mutex_unlock(&turn); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

/* One after the other: what a gathered write does, in more steps. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    char path[PATH_MAX];
    struct stat about;
    if (!inside_fd(fd, path, &about)) return real(fd, parts, count);
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len == 0) continue;
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return total > 0 ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

#define TRUNCATED(name, offset_type) \
    int name(int fd, offset_type size) { \
        REAL(name); \
        char path[PATH_MAX]; \
        struct stat about; \
        if (!inside_fd(fd, path, &about)) return real(fd, size); \
        pthread_mutex_lock(&turn); \
        int result = real(fd, size); \
        if (result == 0) record(TRUNCATE, about.st_ino, (uint64_t)size, "", 0, "", 0); \
        pthread_mutex_unlock(&turn); \
        return result; \
    }
TRUNCATED(ftruncate, off_t)
TRUNCATED(ftruncate64, off64_t)

#define SYNCED(name) \
    int name(int fd) { \
        REAL(name); \
        char path[PATH_MAX]; \
        struct stat about; \
        const char *found = inside_fd(fd, path, &about); \
        if (!found) return real(fd); \
        pthread_mutex_lock(&turn); \
        /* Nothing is lost with the process: the record stands for the disk. */ \
        if (S_ISDIR(about.st_mode)) record_path(SYNC_FOLDER, about.st_ino, found); \
        else record_path(SYNC, about.st_ino, found); \
        pthread_mutex_unlock(&turn); \
        return 0; \
    }
SYNCED(fsync)
SYNCED(fdatasync)

static void moved(enum kind kind, const char *from, const char *to) {
    record(kind, 0, 0, from, strlen(from), to, strlen(to));
}

#define TWO_PATHS(signature, call, from, to, kind) \
    signature { \
        const char *one = inside(from), *two = inside(to); \
        if (!one || !two) return call; \
        pthread_mutex_lock(&turn); \
        int result = call; \
        if (result == 0) moved(kind, one, two); \
        pthread_mutex_unlock(&turn); \
        return result; \
    }
static int call_rename(const char *from, const char *to) { REAL(rename); return real(from, to); }
static int call_link(const char *from, const char *to) { REAL(link); return real(from, to); }
static int call_linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(linkat);
    return real(a, from, b, to, flags);
}
static int call_renameat(int a, const char *from, int b, const char *to) { REAL(renameat); return real(a, from, b, to); }
TWO_PATHS(int rename(const char *from, const char *to), call_rename(from, to), from, to, RENAME)
TWO_PATHS(int renameat(int a, const char *from, int b, const char *to), call_renameat(a, from, b, to), from, to, RENAME)
TWO_PATHS(int link(const char *from, const char *to), call_link(from, to), from, to, LINK)
TWO_PATHS(int linkat(int a, const char *from, int b, const char *to, int flags), call_linkat(a, from, b, to, flags), from, to, LINK)

#define ONE_PATH(signature, call, path, kind) \
    signature { \
        const char *name = inside(path); \
        if (!name) return call; \
        pthread_mutex_lock(&turn); \
        int result = call; \
        if (result == 0) record_path(kind, 0, name); \
        pthread_mutex_unlock(&turn); \
        return result; \
    }
static int call_unlink(const char *path) { REAL(unlink); return real(path); }
static int call_mkdir(const char *path, mode_t mode) { REAL(mkdir); return real(path, mode); }
static int call_rmdir(const char *path) { REAL(rmdir); return real(path); }
ONE_PATH(int unlink(const char *path), call_unlink(path), path, UNLINK)
ONE_PATH(int mkdir(const char *path, mode_t mode), call_mkdir(path, mode), path, MKDIR)
ONE_PATH(int rmdir(const char *path), call_rmdir(path), path, RMDIR)

/* Copies within the kernel would pass unseen; whoever is refused them writes instead. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t count, unsigned flags) {
    REAL(copy_file_range);
    char path[PATH_MAX];
    struct stat about;
    if (!inside_fd(to, path, &about)) return real(from, from_at, to, to_at, count, flags);
    errno = ENOSYS;
    return -1;
}
