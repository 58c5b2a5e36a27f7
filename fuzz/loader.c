/* SPDX-License-Identifier: MIT */
/* See loader.h. */
#include "loader.h"

#include <sys/mman.h>

#define RAM_MAX    (64ull << 20)
#define PAGE       4096u
#define INITRD_MAX 8192u

static struct fuzz_loader loader;
static uint8_t *ram_end; /* the RAM ends here, however much there is of it */
static uint8_t initrd[INITRD_MAX];
static char cmdline[65536];

static void make(void)
{
    uint8_t *all = mmap(NULL, RAM_MAX + 2 * PAGE, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    fuzz_check(all != MAP_FAILED, "no memory");
    fuzz_check(mprotect(all + PAGE, RAM_MAX, PROT_READ | PROT_WRITE) == 0, "no memory");
    ram_end = all + PAGE + RAM_MAX;
    memset(cmdline, 'c', sizeof(cmdline) - 1);
    memset(initrd, 'i', sizeof(initrd));
}

struct fuzz_loader *fuzz_loader(const uint8_t *data, size_t size)
{
    static const uint64_t rams[] = {2ull << 20, 4ull << 20, 16ull << 20, RAM_MAX};
    static const size_t lines[] = {0, 10, 255, 2047, 32766, 32767, 32768, 65535};
    struct fuzz_input in = {data, size};
    uint8_t head[4];

    if (ram_end == NULL)
        make();
    fuzz_bytes(&in, head, sizeof(head));
    loader = (struct fuzz_loader){
        .mem = {.low = rams[head[0] % 4]},
        .args = {.kernel = {.data = in.data, .size = in.left, .name = "kernel"},
                 .initrd = {.name = "initrd"},
                 .cmdline = cmdline + sizeof(cmdline) - 1 - lines[head[2] % 8],
                 .rsdp = head[3]},
    };
    loader.mem.host = ram_end - loader.mem.low;
    if (head[1] != 0) {
        loader.args.initrd.size = head[1] == 255 ? INITRD_MAX : head[1];
        loader.args.initrd.data = initrd + INITRD_MAX - loader.args.initrd.size;
    }
    return &loader;
}

/* The processor starts inside of RAM, with tables that lie there too. */
static void check_start(const struct fuzz_loader *l)
{
    const struct vmm_start *start = &l->start;

    fuzz_check(vmm_mem_at(&l->mem, start->rip, 1) != NULL, "starts at %#llx",
               (unsigned long long)start->rip);
    fuzz_check(vmm_mem_at(&l->mem, start->gdt_base, start->gdt_limit + 1ull) != NULL, "GDT");
    fuzz_check(start->code_selector + 7 <= start->gdt_limit &&
                   start->data_selector + 7 <= start->gdt_limit,
               "selectors outside of the GDT");
    fuzz_check(!start->long_mode || vmm_mem_at(&l->mem, start->cr3, PAGE) != NULL, "CR3");
}

static void one(struct fuzz_loader *l, fuzz_load_fn load)
{
    int rc;

    l->err.text[0] = '\0';
    rc = load(&l->mem, &l->args, &l->start, &l->err);
    fuzz_check(rc == 0 || rc == -1, "a loader returns %d", rc);
    if (rc == 0) {
        check_start(l);
        return;
    }
    /* One line, terminated, that says something. */
    fuzz_check(memchr(l->err.text, '\0', sizeof(l->err.text)) != NULL && l->err.text[0] != '\0' &&
                   strchr(l->err.text, '\n') == NULL,
               "an error without a line of text");
}

void fuzz_load(struct fuzz_loader *l, fuzz_load_fn load)
{
    one(l, load);
    if (vmm_load_probe(&l->args.kernel) == VMM_LOAD_UNKNOWN)
        one(l, vmm_load);
}
