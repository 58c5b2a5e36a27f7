/* SPDX-License-Identifier: MIT */
/* First C code of every guest: checks the loader's magic, finds the command line, calls main. */
#include "start.h"

#include "console.h"

#define MULTIBOOT_MAGIC   0x2badb002u
#define MULTIBOOT_CMDLINE (1u << 2)
#define LINE_MAX          1024u

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

/* A copy: the loader may have put the line where the guest starts its processors. */
static char line[LINE_MAX];

void guest_start(uint32_t magic, const struct multiboot_info *info);

static void copy_line(const char *from)
{
    for (unsigned i = 0; i < LINE_MAX - 1 && from[i]; i++)
        line[i] = from[i];
}

void guest_start(uint32_t magic, const struct multiboot_info *info)
{
    console_init();
    if (magic != MULTIBOOT_MAGIC)
        panic("not started by a multiboot loader");
    if (info->flags & MULTIBOOT_CMDLINE)
        copy_line((const char *)(uint64_t)info->cmdline);
    guest_main(line);
}
