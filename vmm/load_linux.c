/* SPDX-License-Identifier: MIT */
/*
 * The Linux loader: the 64-bit entry of the x86 boot protocol, version 2.12 or later. It copies
 * the protected-mode part of a bzImage to where the kernel prefers it, the initial RAM disk as
 * high as the kernel allows, fills the zero page, and starts the boot processor in long mode
 * with the first 4 GiB mapped one to one.
 *
 * Called by vmm_load(). Field offsets are those of the documented zero page.
 */
#include <inttypes.h>
#include <string.h>

#include "layout.h"
#include "load_bytes.h"

/* The setup header, offsets in the file and in the zero page alike. */
#define HDR_START            0x1f1u
#define HDR_SETUP_SECTS      0x1f1u
#define HDR_SYSSIZE          0x1f4u
#define HDR_VID_MODE         0x1fau
#define HDR_JUMP_LENGTH      0x201u
#define HDR_JUMP_END         0x202u
#define HDR_VERSION          0x206u
#define HDR_TYPE_OF_LOADER   0x210u
#define HDR_LOADFLAGS        0x211u
#define HDR_RAMDISK_IMAGE    0x218u
#define HDR_RAMDISK_SIZE     0x21cu
#define HDR_CMD_LINE_PTR     0x228u
#define HDR_INITRD_ADDR_MAX  0x22cu
#define HDR_KERNEL_ALIGNMENT 0x230u
#define HDR_RELOCATABLE      0x234u
#define HDR_XLOADFLAGS       0x236u
#define HDR_CMDLINE_SIZE     0x238u
#define HDR_PREF_ADDRESS     0x258u
#define HDR_INIT_SIZE        0x260u
#define HDR_MIN_END          0x264u
#define HDR_ROOM_END         0x290u /* what the zero page leaves for the header */

/* The rest of the zero page. */
#define ZP_SIZE            0x1000u
#define ZP_ACPI_RSDP_ADDR  0x070u
#define ZP_E820_ENTRIES    0x1e8u
#define ZP_E820_TABLE      0x2d0u
#define ZP_E820_ENTRY_SIZE 20u

#define LOADED_HIGH        0x01u
#define XLF_KERNEL_64      0x0001u
#define PROTOCOL_MIN       0x020cu
#define ENTRY_64           0x200u

#define BOOT_CS            0x10u
#define BOOT_DS            0x18u
#define GDT_CODE_64        0x00af9b000000ffffull
#define GDT_DATA           0x00cf93000000ffffull

/* What the header of a checked image says. */
struct bzimage {
    const uint8_t *header; /* the file's first bytes */
    uint32_t header_end;   /* end of the setup header */
    const uint8_t *payload;
    uint64_t payload_size;
    uint64_t load;      /* where the payload goes */
    uint64_t init_size; /* bytes from there that the kernel needs before it reads its map */
};

static int check_version(const struct vmm_blob *k, const uint8_t *h, struct vmm_err *err)
{
    uint16_t version = get16(h + HDR_VERSION);

    if (version < PROTOCOL_MIN) {
        return vmm_fail(err,
                        "%s: boot protocol %u.%02u is too old: the 64-bit entry needs 2.12 "
                        "(Linux 3.8 or later)",
                        k->name, version >> 8, version & 0xff);
    }
    if ((get16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64) == 0) {
        return vmm_fail(err, "%s: a 32-bit kernel (no 64-bit entry): give an x86-64 bzImage",
                        k->name);
    }
    if ((h[HDR_LOADFLAGS] & LOADED_HIGH) == 0) {
        return vmm_fail(err, "%s: a zImage that loads below 1 MiB: give a bzImage", k->name);
    }
    return 0;
}

static int parse_payload(const struct vmm_blob *k, struct bzimage *bz, struct vmm_err *err)
{
    uint64_t sects = bz->header[HDR_SETUP_SECTS] != 0 ? bz->header[HDR_SETUP_SECTS] : 4;
    uint64_t off = (sects + 1) * 512;
    uint64_t size = (uint64_t)get32(bz->header + HDR_SYSSIZE) * 16;

    bz->header_end = HDR_JUMP_END + bz->header[HDR_JUMP_LENGTH];
    if (bz->header_end < HDR_MIN_END || bz->header_end > off) {
        return vmm_fail(err,
                        "%s: the setup header ends at 0x%x, outside of 0x%x..0x%" PRIx64
                        ": the file is damaged",
                        k->name, bz->header_end, HDR_MIN_END, off);
    }
    if (off >= k->size || k->size - off + 15 < size) {
        return vmm_fail(err,
                        "%s: truncated: the header announces %" PRIu64
                        " bytes after offset 0x%" PRIx64 ", the file has %" PRIu64 " in all",
                        k->name, size, off, (uint64_t)k->size);
    }
    if (size <= ENTRY_64) {
        return vmm_fail(err,
                        "%s: the kernel has only %" PRIu64
                        " bytes, too few for a 64-bit entry at 0x200: the file is damaged",
                        k->name, size);
    }
    bz->payload = k->data + off;
    bz->payload_size = size < k->size - off ? size : k->size - off;
    return 0;
}

static int parse(const struct vmm_blob *k, struct bzimage *bz, struct vmm_err *err)
{
    bz->header = blob_at(k, 0, HDR_MIN_END);
    if (bz->header == NULL) {
        return vmm_fail(err, "%s: truncated: %zu bytes are less than a setup header", k->name,
                        k->size);
    }
    if (check_version(k, bz->header, err) != 0) {
        return -1;
    }
    return parse_payload(k, bz, err);
}

static bool fits(const struct vmm_mem *mem, const struct bzimage *bz, uint64_t load)
{
    return load >= VMM_HIGH_RAM_BASE && load <= mem->low && bz->init_size <= mem->low - load;
}

/* The preferred address, or the lowest aligned one when that is too high for this guest. */
static int place_kernel(const struct vmm_mem *mem, const struct vmm_blob *k, struct bzimage *bz,
                        struct vmm_err *err)
{
    uint64_t preferred = get64(bz->header + HDR_PREF_ADDRESS);
    uint64_t align = get32(bz->header + HDR_KERNEL_ALIGNMENT);
    uint64_t init_size = get32(bz->header + HDR_INIT_SIZE);

    bz->init_size = init_size > bz->payload_size ? init_size : bz->payload_size;
    bz->load = preferred;
    if (fits(mem, bz, preferred)) {
        return 0;
    }
    if (bz->header[HDR_RELOCATABLE] != 0 && align != 0 && (align & (align - 1)) == 0) {
        bz->load = align_up(VMM_HIGH_RAM_BASE, align);
        if (fits(mem, bz, bz->load)) {
            return 0;
        }
    }
    return vmm_fail(err,
                    "%s: the kernel needs %" PRIu64 " MiB at 0x%" PRIx64
                    " and the guest has %" PRIu64 " MiB of RAM below 3 GiB: raise --mem",
                    k->name, (bz->init_size + 0xfffff) >> 20, bz->load, mem->low >> 20);
}

static int copy_kernel(const struct vmm_mem *mem, const struct bzimage *bz, struct vmm_err *err)
{
    uint8_t *to = vmm_mem_at(mem, bz->load, bz->payload_size);

    if (to == NULL || bz->payload == NULL) {
        return vmm_fail(err, "--mem: the kernel does not fit: raise --mem");
    }
    memcpy(to, bz->payload, bz->payload_size);
    return 0;
}

/* As high as allowed: the decompressor and early allocations grow up from the kernel. */
static int place_initrd(const struct vmm_mem *mem, const struct vmm_blob *initrd,
                        const struct bzimage *bz, uint8_t *zero_page, struct vmm_err *err)
{
    uint64_t end = (uint64_t)get32(bz->header + HDR_INITRD_ADDR_MAX) + 1;
    uint64_t floor = bz->load + bz->init_size;
    uint64_t at;

    if (end > mem->low) {
        end = mem->low;
    }
    if (end < floor || initrd->size > end - floor) {
        return vmm_fail(err,
                        "--initrd: %s (%zu MiB) does not fit between the kernel's end at %" PRIu64
                        " MiB and its limit at %" PRIu64 " MiB: raise --mem or shrink the file",
                        initrd->name, initrd->size >> 20, floor >> 20, end >> 20);
    }
    at = (end - initrd->size) & ~0xfffull;
    if (at < floor) {
        return vmm_fail(err, "--initrd: %s does not fit page aligned: raise --mem", initrd->name);
    }
    memcpy(vmm_mem_at(mem, at, initrd->size), initrd->data, initrd->size);
    put32(zero_page + HDR_RAMDISK_IMAGE, (uint32_t)at);
    put32(zero_page + HDR_RAMDISK_SIZE, (uint32_t)initrd->size);
    return 0;
}

static void fill_e820(const struct vmm_mem *mem, uint8_t *zero_page)
{
    struct vmm_mem_range map[VMM_MEM_RANGES_MAX];
    unsigned n = vmm_mem_map(mem, map);

    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = zero_page + ZP_E820_TABLE + i * ZP_E820_ENTRY_SIZE;

        put64(e, map[i].base);
        put64(e + 8, map[i].size);
        put32(e + 16, (uint32_t)map[i].kind);
    }
    zero_page[ZP_E820_ENTRIES] = (uint8_t)n;
}

static void fill_zero_page(const struct vmm_mem *mem, const struct vmm_load_args *args,
                           const struct bzimage *bz, uint8_t *zp)
{
    uint32_t end = bz->header_end < HDR_ROOM_END ? bz->header_end : HDR_ROOM_END;

    memset(zp, 0, ZP_SIZE);
    memcpy(zp + HDR_START, bz->header + HDR_START, end - HDR_START);
    zp[HDR_TYPE_OF_LOADER] = 0xff; /* a loader without a number of its own */
    put16(zp + HDR_VID_MODE, 0xffff);
    put32(zp + HDR_CMD_LINE_PTR, VMM_CMDLINE_BASE);
    put32(zp + HDR_RAMDISK_IMAGE, 0);
    put32(zp + HDR_RAMDISK_SIZE, 0);
    put64(zp + ZP_ACPI_RSDP_ADDR, args->rsdp);
    fill_e820(mem, zp);
}

/* 2 MiB pages, present and writable, for the first 4 GiB. */
static void fill_page_tables(uint8_t *tables)
{
    uint64_t base = VMM_PAGE_TABLE_BASE;

    put64(tables, (base + 0x1000) | 3);
    for (uint64_t i = 0; i < 4; i++) {
        put64(tables + 0x1000 + i * 8, (base + 0x2000 + i * 0x1000) | 3);
    }
    for (uint64_t i = 0; i < 4 * 512; i++) {
        put64(tables + 0x2000 + i * 8, i << 21 | 0x83);
    }
}

static void fill_start(const struct bzimage *bz, uint8_t *gdt, struct vmm_start *start)
{
    put64(gdt + BOOT_CS, GDT_CODE_64);
    put64(gdt + BOOT_DS, GDT_DATA);
    *start = (struct vmm_start){
        .long_mode = true,
        .code_selector = BOOT_CS,
        .data_selector = BOOT_DS,
        .gdt_base = VMM_GDT_BASE,
        .gdt_limit = BOOT_DS + 7,
        .cr3 = VMM_PAGE_TABLE_BASE,
        .rip = bz->load + ENTRY_64,
        .rsi = VMM_BOOT_INFO_BASE,
    };
}

int vmm_load_linux(const struct vmm_mem *mem, const struct vmm_load_args *args,
                   struct vmm_start *start, struct vmm_err *err)
{
    struct bzimage bz = {0};
    uint8_t *zp;

    if (parse(&args->kernel, &bz, err) != 0 || place_kernel(mem, &args->kernel, &bz, err) != 0 ||
        vmm_load_cmdline(mem, "", args->cmdline, get32(bz.header + HDR_CMDLINE_SIZE), err) != 0 ||
        copy_kernel(mem, &bz, err) != 0) {
        return -1;
    }
    zp = vmm_mem_at(mem, VMM_BOOT_INFO_BASE, ZP_SIZE);
    fill_zero_page(mem, args, &bz, zp);
    if (args->initrd.data != NULL && place_initrd(mem, &args->initrd, &bz, zp, err) != 0) {
        return -1;
    }
    fill_page_tables(vmm_mem_at(mem, VMM_PAGE_TABLE_BASE, VMM_PAGE_TABLE_SIZE));
    fill_start(&bz, vmm_mem_at(mem, VMM_GDT_BASE, 0x1000), start);
    return 0;
}
