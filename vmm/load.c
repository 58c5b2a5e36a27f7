/* SPDX-License-Identifier: MIT */
/* What the loaders share: telling images apart, reading files, the command line. */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layout.h"
#include "load_bytes.h"

enum vmm_load_kind vmm_load_probe(const struct vmm_blob *kernel)
{
    const uint8_t *setup = blob_at(kernel, 0x1fe, 8);

    if (setup != NULL && get16(setup) == 0xaa55 && memcmp(setup + 4, "HdrS", 4) == 0) {
        return VMM_LOAD_LINUX;
    }
    return vmm_multiboot_header(kernel) != VMM_MULTIBOOT_NONE ? VMM_LOAD_MULTIBOOT
                                                              : VMM_LOAD_UNKNOWN;
}

int vmm_load(const struct vmm_mem *mem, const struct vmm_load_args *args, struct vmm_start *start,
             struct vmm_err *err)
{
    switch (vmm_load_probe(&args->kernel)) {
    case VMM_LOAD_LINUX:
        return vmm_load_linux(mem, args, start, err);
    case VMM_LOAD_MULTIBOOT:
        return vmm_load_multiboot(mem, args, start, err);
    case VMM_LOAD_UNKNOWN:
        break;
    }
    return vmm_fail(err,
                    "%s: neither a Linux bzImage nor a multiboot image (no 'HdrS' at offset 0x202, "
                    "no multiboot header in the first 8 KiB): give a kernel of one of these kinds",
                    args->kernel.name);
}

int vmm_load_cmdline(const struct vmm_mem *mem, const char *prefix, const char *cmdline,
                     size_t limit, struct vmm_err *err)
{
    size_t plen = strlen(prefix);
    size_t clen = strlen(cmdline);
    size_t sep = plen != 0 && clen != 0;
    char *to;

    if (limit > VMM_CMDLINE_MAX - 1) {
        limit = VMM_CMDLINE_MAX - 1;
    }
    if (plen + sep + clen > limit) {
        return vmm_fail(err,
                        "--append: the command line has %zu bytes and the guest takes %zu: "
                        "shorten it",
                        plen + sep + clen, limit);
    }
    to = vmm_mem_at(mem, VMM_CMDLINE_BASE, limit + 1);
    if (to == NULL) {
        return vmm_fail(err, "--mem: too little for the command line: give at least 2M");
    }
    memcpy(to, prefix, plen);
    memset(to + plen, ' ', sep);
    memcpy(to + plen + sep, cmdline, clen + 1);
    return 0;
}

static int read_all(int fd, uint8_t *to, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, to + done, size - done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

static int blob_from_fd(struct vmm_blob *blob, int fd, const char *option, struct vmm_err *err)
{
    struct stat st;
    uint8_t *data;

    if (fstat(fd, &st) != 0) {
        return vmm_fail(err, "%s: cannot examine %s: %s", option, blob->name, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return vmm_fail(err, "%s: %s is no regular file: give a file", option, blob->name);
    }
    if (st.st_size == 0) {
        return vmm_fail(err, "%s: %s is empty: give another file", option, blob->name);
    }
    if (st.st_size > UINT32_MAX) {
        return vmm_fail(err, "%s: %s has more than 4 GiB: give a smaller file", option, blob->name);
    }
    data = malloc((size_t)st.st_size);
    if (data == NULL) {
        return vmm_fail(err, "%s: no memory to read %s (%lld bytes)", option, blob->name,
                        (long long)st.st_size);
    }
    if (read_all(fd, data, (size_t)st.st_size) != 0) {
        free(data);
        return vmm_fail(err, "%s: cannot read %s: %s", option, blob->name, strerror(errno));
    }
    blob->data = data;
    blob->size = (size_t)st.st_size;
    return 0;
}

int vmm_blob_read(struct vmm_blob *blob, const char *option, const char *path, struct vmm_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* or a FIFO blocks */
    int rc;

    *blob = (struct vmm_blob){.name = path};
    if (fd < 0) {
        return vmm_fail(err, "%s: cannot open %s: %s: check the path", option, path,
                        strerror(errno));
    }
    rc = blob_from_fd(blob, fd, option, err);
    close(fd);
    return rc;
}

void vmm_blob_free(struct vmm_blob *blob)
{
    free((void *)blob->data);
    *blob = (struct vmm_blob){0};
}
