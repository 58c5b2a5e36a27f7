/* SPDX-License-Identifier: MIT */
/*
 * A bench for the Intel half of the silicon model: some processors, each with a VMCS, a
 * virtual-APIC page and a posted-interrupt descriptor, in one megabyte of memory.
 *
 * A test says which controls it wants as a sum of the letters that the manuals' readers use (TS,
 * ARV, VID, ...), enters, and asks what came of it. Static functions: every test program has them
 * to itself.
 */
#ifndef VAPIC_TESTS_SILICON_VMX_H
#define VAPIC_TESTS_SILICON_VMX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/atomic.h"
#include "vapic/silicon.h"

#define VMX_FN static __attribute__((unused))

/* Controls. */
enum {
    TS = 1 << 0,    /* TPR shadow */
    VAA = 1 << 1,   /* virtualize APIC accesses */
    VX2 = 1 << 2,   /* virtualize x2APIC mode */
    ARV = 1 << 3,   /* APIC-register virtualization */
    VID = 1 << 4,   /* virtual-interrupt delivery, and with it EIE */
    PPI = 1 << 5,   /* process posted interrupts, and with it AIE */
    IPIV = 1 << 6,  /* IPI virtualization */
    EIE = 1 << 7,   /* external-interrupt exiting */
    AIE = 1 << 8,   /* acknowledge interrupt on exit */
    IWE = 1 << 9,   /* interrupt-window exiting */
    HLTX = 1 << 10, /* HLT exiting */
    BITMAPS = 1 << 11,
    CR8LD = 1 << 12,
    CR8ST = 1 << 13,
    NO_SEC = 1 << 14, /* secondary controls are programmed but not activated */
    NO_EIE = 1 << 15, /* VID without EIE */
    NO_AIE = 1 << 16, /* PPI without AIE */
    VPID = 1 << 17,   /* VPID 1 + the processor's number */
    NO_TER = 1 << 18, /* tertiary controls are programmed but not activated */
    XAPIC_FULL = TS | VAA | ARV | VID | PPI,
    X2APIC_FULL = TS | VX2 | ARV | VID | PPI | BITMAPS,
};

/* The memory, host-physical. Guest-physical addresses are the same, but for the APIC page. */
enum {
    VMX_CPUS = 4,
    VMX_MEMORY = 0x100000,
    VMX_PAGE = 0x10000,   /* virtual-APIC pages */
    VMX_PID = 0x20000,    /* descriptors */
    VMX_TABLE = 0x21000,  /* PID-pointer table, 512 entries */
    VMX_BITMAP = 0x22000, /* MSR bitmap */
    VMX_ACCESS = 0x30000, /* APIC-access page */
    VMX_GUEST = 0x40000,  /* ordinary memory of the guest */
    VMX_RIP = 0x1000,     /* where guests start */
    VMX_NV = 0xF2,        /* notification vector */
};
#define VMX_APIC UINT64_C(0xFEE00000)
/* All memory is there a second time, so that an address beyond the processor's width is refused for
 * that reason only. */
#define VMX_AGAIN (UINT64_C(1) << 40)

struct vmx {
    struct vapic_sil m;
    struct vapic_sil_cpu *cpus[16];
    struct vapic_sil_cpu cpu[VMX_CPUS];
    struct vapic_sil_vmcs vmcs[VMX_CPUS];
    uint8_t *memory;
    bool absent, read_only; /* what the walk says of the APIC page */
    uint64_t apic_hpa;      /* where it leads */
    unsigned walks, signals;
    void (*on_point)(struct vmx *x, enum vapic_sil_point point);
    unsigned points[VAPIC_SIL_POINTS];
};

static void *vmx_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct vmx *x = ctx;

    hpa &= ~VMX_AGAIN;
    return hpa < VMX_MEMORY && size <= VMX_MEMORY - hpa ? x->memory + hpa : NULL;
}

static bool vmx_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                     struct vapic_sil_page *page)
{
    struct vmx *x = ctx;

    (void)cpu;
    x->walks++;
    if (gpa != VMX_APIC) {
        *page = (struct vapic_sil_page){.hpa = gpa, .present = true, .writable = true};
        return gpa < VMX_MEMORY;
    }
    page->hpa = x->apic_hpa;
    page->present = !x->absent;
    page->writable = !x->read_only;
    return true;
}

static void vmx_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    struct vmx *x = ctx;

    (void)cpu;
    vapic_add32(&x->signals, 1, VAPIC_RELAXED);
}

static void vmx_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct vmx *x = ctx;

    (void)cpu;
    vapic_add32(&x->points[point], 1, VAPIC_RELAXED);
    if (x->on_point)
        x->on_point(x, point);
}

/* Processors 0 to 3 have the host's APIC IDs 1, 2, 3, 4, so that nobody mixes up the two. */
VMX_FN uint32_t vmx_host_id(unsigned n)
{
    return n + 1;
}

VMX_FN void vmx_set(struct vmx *x, unsigned n, uint32_t field, uint64_t value)
{
    assert_true(vapic_sil_vmwrite(&x->vmcs[n], field, value));
}

VMX_FN uint64_t vmx_get(const struct vmx *x, unsigned n, uint32_t field)
{
    uint64_t value = 0xDEAD;

    assert_true(vapic_sil_vmread(&x->vmcs[n], field, &value));
    return value;
}

VMX_FN uint64_t *vmx_pid(struct vmx *x, unsigned n)
{
    return (uint64_t *)(void *)(x->memory + VMX_PID + PID_SIZE * n);
}

VMX_FN uint32_t *vmx_word(struct vmx *x, unsigned n, uint32_t offset)
{
    return (uint32_t *)(void *)(x->memory + VMX_PAGE + 0x1000u * n + offset);
}

VMX_FN bool vmx_in_set(struct vmx *x, unsigned n, uint32_t set, uint8_t vector)
{
    return vapic_load32(vmx_word(x, n, set + vector / 32 * 16), VAPIC_RELAXED) >> vector % 32 & 1;
}

VMX_FN void vmx_set_vector(struct vmx *x, unsigned n, uint32_t set, uint8_t vector)
{
    *vmx_word(x, n, set + vector / 32 * 16) |= 1u << vector % 32;
}

VMX_FN void vmx_new_with(struct vmx *x, const struct vapic_sil_config *config)
{
    struct vapic_sil_host host = {.size = sizeof(host),
                                  .memory = vmx_memory,
                                  .walk = vmx_walk,
                                  .signal = vmx_signal,
                                  .point = vmx_point};

    memset(x, 0, sizeof(*x));
    x->memory = aligned_alloc(4096, VMX_MEMORY);
    assert_non_null(x->memory);
    memset(x->memory, 0, VMX_MEMORY);
    x->apic_hpa = VMX_ACCESS;
    assert_true(vapic_sil_init(&x->m, config, &host, x, x->cpus, 16));
    for (unsigned n = 0; n < VMX_CPUS; n++) {
        uint64_t ndst = config->xapic_host ? PID_NDST_XAPIC(vmx_host_id(n)) : vmx_host_id(n);

        assert_true(vapic_sil_cpu_init(&x->cpu[n], &x->m, vmx_host_id(n)));
        vapic_sil_vmcs_init(&x->vmcs[n]);
        vmx_pid(x, n)[4] = ndst << PID_NDST_SHIFT | (uint64_t)VMX_NV << PID_NV_SHIFT;
        ((uint64_t *)(void *)(x->memory + VMX_TABLE))[n] = (VMX_PID + PID_SIZE * n) | 1;
    }
}

VMX_FN void vmx_new(struct vmx *x)
{
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL};

    vmx_new_with(x, &config);
}

VMX_FN void vmx_free(struct vmx *x)
{
    free(x->memory);
    x->memory = NULL;
}

/* `to` when the controls have all bits of `from`. */
static uint32_t vmx_map(uint32_t controls, uint32_t from, uint32_t to)
{
    return (controls & from) == from ? to : 0;
}

static void vmx_program_controls(struct vmx *x, unsigned n, uint32_t c)
{
    bool eie = (c & (EIE | VID)) && !(c & NO_EIE);
    bool aie = (c & (AIE | PPI)) && !(c & NO_AIE);
    uint32_t pin = VMX_PIN_MUST | (eie ? 1u << 0 : 0) | vmx_map(c, PPI, 1u << 7);
    uint32_t primary = VMX_PRI_MUST | vmx_map(c, IWE, 1u << 2) | vmx_map(c, HLTX, 1u << 7) |
                       vmx_map(c, CR8LD, 1u << 19) | vmx_map(c, CR8ST, 1u << 20) |
                       vmx_map(c, TS, 1u << 21) | vmx_map(c, BITMAPS, 1u << 28);
    uint32_t secondary = vmx_map(c, VAA, 1u << 0) | vmx_map(c, VX2, 1u << 4) |
                         vmx_map(c, VPID, 1u << 5) | vmx_map(c, ARV, 1u << 8) |
                         vmx_map(c, VID, 1u << 9);

    primary |= c & NO_SEC ? 0 : 1u << 31;
    primary |= (c & IPIV) && !(c & NO_TER) ? 1u << 17 : 0;
    vmx_set(x, n, 0x4000, pin);
    vmx_set(x, n, 0x4002, primary);
    vmx_set(x, n, 0x401E, secondary);
    vmx_set(x, n, 0x2034, c & IPIV ? 1u << 4 : 0);
    vmx_set(x, n, 0x400C, VMX_EXC_MUST | (aie ? 1u << 15 : 0));
}

/* Programs the VMCS of processor n: these controls, the bench's addresses, a guest with IF=1. */
VMX_FN void vmx_program(struct vmx *x, unsigned n, uint32_t controls)
{
    vmx_program_controls(x, n, controls);
    vmx_set(x, n, 0x0000, controls & VPID ? n + 1 : 0);
    vmx_set(x, n, 0x0002, VMX_NV);
    vmx_set(x, n, 0x0008, 511);
    vmx_set(x, n, 0x2004, VMX_BITMAP);
    vmx_set(x, n, 0x2012, VMX_PAGE + 0x1000 * n);
    vmx_set(x, n, 0x2014, VMX_ACCESS);
    vmx_set(x, n, 0x2016, VMX_PID + PID_SIZE * n);
    vmx_set(x, n, 0x2042, VMX_TABLE);
    vmx_set(x, n, 0x681E, VMX_RIP);
    vmx_set(x, n, 0x6820, 0x202);
}

VMX_FN void vmx_enter(struct vmx *x, unsigned n)
{
    assert_int_equal(vapic_sil_vmentry(&x->cpu[n], &x->vmcs[n]), VAPIC_SIL_DONE);
}

VMX_FN void vmx_start(struct vmx *x, unsigned n, uint32_t controls)
{
    vmx_program(x, n, controls);
    vmx_enter(x, n);
}

VMX_FN struct vapic_sil_access vmx_access(enum vapic_sil_access_kind kind, uint32_t offset,
                                          unsigned size, uint64_t value)
{
    return (struct vapic_sil_access){
        .gpa = VMX_APIC + offset, .kind = kind, .size = (uint8_t)size, .length = 6, .value = value};
}

VMX_FN enum vapic_sil_result vmx_write(struct vmx *x, unsigned n, uint32_t offset, uint32_t value)
{
    struct vapic_sil_access a = vmx_access(VAPIC_SIL_WRITE, offset, 4, value);

    return vapic_sil_access(&x->cpu[n], &a);
}

VMX_FN enum vapic_sil_result vmx_read(struct vmx *x, unsigned n, uint32_t offset, uint64_t *value)
{
    struct vapic_sil_access a = vmx_access(VAPIC_SIL_READ, offset, 4, 0);
    enum vapic_sil_result result = vapic_sil_access(&x->cpu[n], &a);

    *value = a.value;
    return result;
}

/* The last exit had this reason and qualification, and left host mode behind it. */
#define vmx_assert_exit(x, n, reason, qualification)                                               \
    do {                                                                                           \
        assert_false((x)->cpu[n].in_guest);                                                        \
        assert_int_equal(vmx_get(x, n, 0x4402), reason);                                           \
        assert_int_equal(vmx_get(x, n, 0x6400), qualification);                                    \
    } while (0)

#define vmx_assert_status(x, n, rvi, svi)                                                          \
    assert_int_equal(vmx_get(x, n, 0x0810), (unsigned)(svi) << 8 | (unsigned)(rvi))

/* The next boundary delivers `vec`, and IF is cleared as by an interrupt gate. */
#define vmx_assert_delivers(x, n, vec)                                                             \
    do {                                                                                           \
        uint8_t vector_ = 0;                                                                       \
                                                                                                   \
        assert_int_equal(vapic_sil_boundary(&(x)->cpu[n], &vector_), VAPIC_SIL_DELIVER);           \
        assert_int_equal(vector_, vec);                                                            \
        (x)->cpu[n].guest.interrupt_flag = false;                                                  \
    } while (0)

#define vmx_assert_boundary(x, n, result)                                                          \
    do {                                                                                           \
        uint8_t vector_ = 0;                                                                       \
                                                                                                   \
        assert_int_equal(vapic_sil_boundary(&(x)->cpu[n], &vector_), result);                      \
    } while (0)

/* Leaves by an exit that means nothing, so that the VMCS can be looked at. */
VMX_FN void vmx_leave(struct vmx *x, unsigned n)
{
    uint8_t vector;

    assert_int_not_equal(vapic_sil_boundary(&x->cpu[n], &vector), VAPIC_SIL_EXIT);
    vapic_sil_leave(&x->cpu[n], VMX_EXIT_CPUID, 0, 2);
    assert_false(x->cpu[n].in_guest);
}

#endif
