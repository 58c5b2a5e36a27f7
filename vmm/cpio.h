/* SPDX-License-Identifier: MIT */
/*
 * Writes a "newc" cpio archive, the form in which Linux takes an initramfs, to a file
 * descriptor. Owned by whoever builds the archive (vmm/rig_pack.c). Everything belongs to root
 * and has time 0, so that the same content gives the same bytes.
 */
#ifndef VMM_CPIO_H
#define VMM_CPIO_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define VMM_CPIO_NAME_MAX 1024u

struct vmm_cpio {
    int fd;
    uint32_t entries;
    uint64_t size; /* bytes written so far */
};

/* Starts an archive at fd's position, which must be a multiple of 4. */
void vmm_cpio_init(struct vmm_cpio *cpio, int fd);

/*
 * Names are relative or absolute (Linux unpacks either below its root). All directories on the
 * way to a name must have been added before; vmm_cpio_parents() adds them. Adding a directory
 * twice is harmless.
 */
int vmm_cpio_parents(struct vmm_cpio *cpio, const char *name, struct vmm_err *err);
int vmm_cpio_dir(struct vmm_cpio *cpio, const char *name, struct vmm_err *err);
int vmm_cpio_bytes(struct vmm_cpio *cpio, const char *name, uint32_t mode, const void *data,
                   size_t size, struct vmm_err *err);

/* The content of the regular file at `path`, at most 4 GiB - 1 as the format has it. */
int vmm_cpio_file(struct vmm_cpio *cpio, const char *name, uint32_t mode, const char *path,
                  struct vmm_err *err);

/* The end mark; nothing may be added after it. */
int vmm_cpio_end(struct vmm_cpio *cpio, struct vmm_err *err);

#endif
