/* SPDX-License-Identifier: MIT */
/*
 * Guest loaders. A loader takes the bytes of a guest image as a user handed them over (so every
 * length and offset in them is hostile), lays the guest out in RAM, and says with which
 * registers the boot processor starts. It knows nothing of KVM.
 */
#ifndef VMM_LOAD_H
#define VMM_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "mem.h"

/* A file's bytes. `name` is what the user called it: for error texts and guest arguments. */
struct vmm_blob {
    const uint8_t *data;
    size_t size;
    const char *name;
};

struct vmm_load_args {
    struct vmm_blob kernel;
    struct vmm_blob initrd; /* data NULL: none */
    const char *cmdline;    /* never NULL */
    uint64_t rsdp;          /* guest-physical address of the ACPI root pointer, 0: none */
};

enum vmm_load_kind {
    VMM_LOAD_UNKNOWN,
    VMM_LOAD_LINUX,
    VMM_LOAD_MULTIBOOT,
};

/* How the boot processor starts: flat segments, interrupts off, everything else as at reset. */
struct vmm_start {
    bool long_mode; /* paging through cr3, 64-bit code; else 32-bit protected mode, no paging */
    uint16_t code_selector;
    uint16_t data_selector;
    uint64_t gdt_base;
    uint16_t gdt_limit;
    uint64_t cr3;
    uint64_t rip;
    uint64_t rax;
    uint64_t rbx;
    uint64_t rsi;
};

/* Tells what an image is by its content. */
enum vmm_load_kind vmm_load_probe(const struct vmm_blob *kernel);

/* Loads any known image into RAM that is all zero. */
int vmm_load(const struct vmm_mem *mem, const struct vmm_load_args *args, struct vmm_start *start,
             struct vmm_err *err);

int vmm_load_linux(const struct vmm_mem *mem, const struct vmm_load_args *args,
                   struct vmm_start *start, struct vmm_err *err);
int vmm_load_multiboot(const struct vmm_mem *mem, const struct vmm_load_args *args,
                       struct vmm_start *start, struct vmm_err *err);

/* Reads a whole regular file; the data is the caller's to give back with vmm_blob_free(). */
int vmm_blob_read(struct vmm_blob *blob, const char *option, const char *path, struct vmm_err *err);
void vmm_blob_free(struct vmm_blob *blob);

#endif
