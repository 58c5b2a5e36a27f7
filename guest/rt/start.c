/* SPDX-License-Identifier: MIT */
/* First C code of every guest: checks the loader's magic, finds the command line, calls main. */
#include "start.h"

#include "console.h"

#define MULTIBOOT_MAGIC   0x2badb002u
#define MULTIBOOT_CMDLINE (1u << 2)

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

void guest_start(uint32_t magic, const struct multiboot_info *info);

void guest_start(uint32_t magic, const struct multiboot_info *info)
{
    const char *line = "";

    console_init();
    if (magic != MULTIBOOT_MAGIC)
        panic("not started by a multiboot loader");
    if (info->flags & MULTIBOOT_CMDLINE)
        line = (const char *)(uint64_t)info->cmdline;
    guest_main(line);
}
