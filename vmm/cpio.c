/* SPDX-License-Identifier: MIT */
/* The newc archive writer; see cpio.h. A header is 110 characters, names and data end on 4. */
#include "cpio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_SIZE 110u
#define TRAILER     "TRAILER!!!"

void vmm_cpio_init(struct vmm_cpio *cpio, int fd)
{
    *cpio = (struct vmm_cpio){.fd = fd};
}

static int put(struct vmm_cpio *cpio, const void *data, size_t size, struct vmm_err *err)
{
    const char *at = data;
    size_t left = size;

    while (left > 0) {
        ssize_t done = write(cpio->fd, at, left);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return vmm_fail(err, "cannot write the archive: %s", strerror(errno));
        at += done;
        left -= (size_t)done;
    }
    cpio->size += size;
    return 0;
}

static int pad(struct vmm_cpio *cpio, struct vmm_err *err)
{
    static const char zeros[4];

    return put(cpio, zeros, (size_t)(-cpio->size & 3u), err);
}

static int put_header(struct vmm_cpio *cpio, const char *name, uint32_t mode, uint32_t size,
                      struct vmm_err *err)
{
    char text[HEADER_SIZE + 1];
    size_t length = strlen(name);
    uint32_t links = S_ISDIR(mode) ? 2 : 1;

    if (length == 0 || length > VMM_CPIO_NAME_MAX)
        return vmm_fail(err, "a file's name inside the archive has %zu characters (1 to %u)",
                        length, VMM_CPIO_NAME_MAX);
    /* ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check */
    snprintf(text, sizeof(text), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
             ++cpio->entries, mode, 0u, 0u, links, 0u, size, 0u, 0u, 0u, 0u, (uint32_t)length + 1,
             0u);
    if (put(cpio, text, HEADER_SIZE, err) || put(cpio, name, length + 1, err))
        return -1;
    return pad(cpio, err);
}

int vmm_cpio_dir(struct vmm_cpio *cpio, const char *name, struct vmm_err *err)
{
    return put_header(cpio, name, S_IFDIR | 0755, 0, err);
}

int vmm_cpio_parents(struct vmm_cpio *cpio, const char *name, struct vmm_err *err)
{
    char dir[VMM_CPIO_NAME_MAX + 1];

    for (const char *slash = strchr(name + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t length = (size_t)(slash - name);

        if (length > VMM_CPIO_NAME_MAX)
            return vmm_fail(err, "the name '%.40s...' is too long for the archive", name);
        memcpy(dir, name, length);
        dir[length] = '\0';
        if (vmm_cpio_dir(cpio, dir, err))
            return -1;
    }
    return 0;
}

int vmm_cpio_bytes(struct vmm_cpio *cpio, const char *name, uint32_t mode, const void *data,
                   size_t size, struct vmm_err *err)
{
    if (size > UINT32_MAX)
        return vmm_fail(err, "'%s' is too large for the archive", name);
    if (put_header(cpio, name, S_IFREG | mode, (uint32_t)size, err) || put(cpio, data, size, err))
        return -1;
    return pad(cpio, err);
}

static int copy(struct vmm_cpio *cpio, int fd, const char *path, uint64_t size, struct vmm_err *err)
{
    for (uint64_t left = size; left > 0;) {
        ssize_t done = sendfile(cpio->fd, fd, NULL, left);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return vmm_fail(err, "cannot copy '%s': %s", path, strerror(errno));
        if (done == 0)
            return vmm_fail(err, "'%s' became shorter while it was read", path);
        left -= (uint64_t)done;
    }
    cpio->size += size;
    return pad(cpio, err);
}

static int add_open_file(struct vmm_cpio *cpio, const char *name, uint32_t mode, int fd,
                         const char *path, struct vmm_err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return vmm_fail(err, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return vmm_fail(err, "cannot read '%s': it is no regular file", path);
    if ((uint64_t)st.st_size > UINT32_MAX)
        return vmm_fail(err, "'%s' is too large for the archive: at most 4 GiB - 1", path);
    if (put_header(cpio, name, S_IFREG | mode, (uint32_t)st.st_size, err))
        return -1;
    return copy(cpio, fd, path, (uint64_t)st.st_size, err);
}

int vmm_cpio_file(struct vmm_cpio *cpio, const char *name, uint32_t mode, const char *path,
                  struct vmm_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result;

    if (fd < 0)
        return vmm_fail(err, "cannot read '%s': %s", path, strerror(errno));
    result = add_open_file(cpio, name, mode, fd, path, err);
    close(fd);
    return result;
}

int vmm_cpio_end(struct vmm_cpio *cpio, struct vmm_err *err)
{
    return put_header(cpio, TRAILER, 0, 0, err);
}
