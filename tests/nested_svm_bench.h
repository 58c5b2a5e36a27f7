/* SPDX-License-Identifier: MIT */
/*
 * A bench for what nested.h does on AMD: an L0 with as little of a hypervisor as possible, whose
 * L2s run on the silicon model. L1 is not there at all: the test writes its memory, its VMCBs and
 * its tables, as well-behaved or as hostile as it likes, and sees what L1 would see.
 *
 * L1's memory is SB_PAGES pages whose places in the host have nothing to do with their addresses.
 * Beside the machine there is an "ideal" one, whose host-physical memory is L1's: what a processor
 * would do if it ran L1's VMCB itself.
 *
 * sb_new() makes what works: everybody's entry valid and running, a flat logical ID for each. L1's
 * APIC IDs are 0, 1, ...; the processors' are SB_HOST_ID(n).
 */
#ifndef VAPIC_TESTS_NESTED_SVM_BENCH_H
#define VAPIC_TESTS_NESTED_SVM_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control_block.h"
#include "vapic/nested.h"
#include "vapic/silicon.h"

#define SB_PAGES      64u /* of L1's memory; SB_SCATTER and it have no common divisor */
#define SB_SCATTER    11u
#define SB_HOST       0x100000000ull /* host-physical address of the arena */
#define SB_ARENA      (1024u * 4096u)
#define SB_RAM        0x40000000ull /* L1-physical address of L1's memory */
#define SB_GPA(page)  (SB_RAM + (uint64_t)(page)*4096u)
#define SB_NOWHERE    0x7000000ull /* L1 has no memory there */
#define SB_VCPUS      4u
#define SB_HOST_ID(n) ((n) + 8u)
#define SB_KICK       0xF0u

/* Pages of L1's memory. */
enum { SB_TABLE = 0, SB_LOGICAL = 8, SB_BACKING = 16, SB_ACCESS = 24, SB_FREE = 32 };

struct sb_vcpu {
    struct vapic apic; /* first */
    struct vapic_accel_vcpu accel;
    struct vapic_nested_vcpu nested;
    struct sb *sb;
    uint32_t n;
    uint8_t *page, *vmcb01, *vmcb02, *msrpm02;
    uint8_t vmcb12[4096];
    struct vapic_msr_pass pass12, pass02; /* what L1 lets pass; what host.intercept() said */
    struct vapic_sil_cpu *cpu;
    struct vapic_entry entry;
    uint32_t can;
    bool l1_if, entered;
    struct vapic_reflect exit; /* L2's last exit */
    int result;                /* of vapic_nested_avic_exit() for it */
    struct vapic_reflect reflect;
    uint32_t doorbells, wakes, kicks; /* host.notify() */
};

struct sb {
    struct vapic_vm vm;
    struct vapic_accel accel;
    struct vapic_nested nested;
    struct vapic_sil machine, ideal;
    struct vapic_sil_cpu cpu[SB_VCPUS], ideal_cpu[SB_VCPUS];
    struct vapic_sil_cpu *table[SB_HOST_ID(SB_VCPUS)], *ideal_table[SB_VCPUS];
    struct vapic_pcpu pcpu[SB_VCPUS];
    struct sb_vcpu *v[SB_VCPUS];
    uint32_t vcpus;
    bool x2;
    uint8_t *arena;
    size_t used;
    uint8_t *ram;       /* host page 0 of L1's memory */
    uint8_t *ideal_ram; /* where the ideal machine's memory is, in L1's order; NULL: L1's own */
    uint32_t pins[SB_PAGES];
    bool tracked[SB_PAGES], gone[SB_PAGES], locked;
    uint32_t pinned; /* calls of host.pin() */
    void *memory;
    uint32_t ideal_rung; /* doorbells of the ideal machine: a bit per processor */
    /* Hooks; NULL: nothing. */
    void (*on_point)(struct sb *sb, enum vapic_sil_point point);
    void (*on_pin)(struct sb *sb, uint64_t gpa);
    void (*on_quiesce)(struct sb *sb);
};

#define SB_FN __attribute__((unused)) static

/* ---- Memory ---- */

SB_FN uint8_t *sb_page(struct sb *sb, uint32_t page)
{
    return sb->ram + (page * SB_SCATTER + 5) % SB_PAGES * 4096u;
}

SB_FN bool sb_index(uint64_t gpa, uint32_t *page)
{
    *page = (uint32_t)((gpa - SB_RAM) / 4096);
    return gpa >= SB_RAM && gpa < SB_GPA(SB_PAGES);
}

SB_FN void *sb_memory(struct sb *sb, size_t size, size_t align)
{
    size_t at = (sb->used + align - 1) & ~(align - 1);

    assert_true(at + size <= SB_ARENA);
    sb->used = at + size;
    return sb->arena + at;
}

SB_FN uint64_t sb_hpa(struct sb *sb, const void *memory)
{
    assert_true((const uint8_t *)memory >= sb->arena);
    return SB_HOST + (uint64_t)((const uint8_t *)memory - sb->arena);
}

SB_FN uint64_t sb_page_hpa(struct sb *sb, uint32_t page)
{
    return sb_hpa(sb, sb_page(sb, page));
}

SB_FN void *sb_sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct sb *sb = ctx;

    return hpa >= SB_HOST && hpa - SB_HOST + size <= SB_ARENA ? sb->arena + (hpa - SB_HOST) : NULL;
}

SB_FN void *sb_ideal_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct sb *sb = ctx;
    uint32_t page;

    (void)size;
    if (!sb_index(hpa, &page) || sb->gone[page])
        return NULL;
    return (sb->ideal_ram ? sb->ideal_ram + page * 4096u : sb_page(sb, page)) + hpa % 4096;
}

SB_FN bool sb_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa, struct vapic_sil_page *page)
{
    struct sb *sb = ctx;

    if (gpa != APIC_DEFAULT_BASE)
        return false;
    *page = (struct vapic_sil_page){
        cpu->machine == &sb->ideal ? SB_GPA(SB_ACCESS) : sb_page_hpa(sb, SB_ACCESS), true, true};
    return true;
}

SB_FN void sb_ideal_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    ((struct sb *)ctx)->ideal_rung |= 1u << cpu->apic_id;
}

SB_FN void sb_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct sb *sb = ctx;

    (void)cpu;
    if (sb->on_point != NULL)
        sb->on_point(sb, point);
}

/* ---- The host ---- */

SB_FN void sb_lock(void *ctx)
{
    struct sb *sb = ctx;

    assert_false(sb->locked);
    sb->locked = true;
}

SB_FN void sb_unlock(void *ctx)
{
    struct sb *sb = ctx;

    assert_true(sb->locked);
    sb->locked = false;
}

SB_FN void sb_quiesce(void *ctx)
{
    struct sb *sb = ctx;

    assert_false(sb->locked);
    if (sb->on_quiesce != NULL)
        sb->on_quiesce(sb);
}

SB_FN void sb_no_page(void *ctx, bool mapped)
{
    (void)ctx;
    (void)mapped;
}

SB_FN void sb_no_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    (void)v;
}

SB_FN void sb_no_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    (void)v;
    (void)pass;
}

SB_FN void sb_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 0);
    *word = 1;
}

SB_FN void sb_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 1);
    *word = 0;
}

SB_FN uint64_t sb_physical(void *ctx, const void *memory)
{
    return sb_hpa(ctx, memory);
}

SB_FN void sb_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct sb *sb = ctx;
    struct sb_vcpu *c = (struct sb_vcpu *)(void *)target;
    uint32_t id;

    c->doorbells += action == VAPIC_ACTION_DOORBELL;
    c->wakes += action == VAPIC_ACTION_WAKE;
    c->kicks += action == VAPIC_ACTION_KICK;
    if (action == VAPIC_ACTION_DOORBELL && vapic_doorbell_id(target, &id))
        vapic_sil_doorbell(&sb->machine, id);
    if (action == VAPIC_ACTION_KICK && vapic_doorbell_id(target, &id))
        vapic_sil_interrupt(&sb->machine, id, SB_KICK);
}

SB_FN void sb_leave(struct sb *sb, uint32_t n);

SB_FN void sb_kick_all(void *ctx)
{
    struct sb *sb = ctx;

    assert_true(sb->locked);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        if (sb->v[n] != NULL && vapic_in_guest(&sb->v[n]->apic))
            sb_leave(sb, n);
}

SB_FN bool sb_pin(void *ctx, uint64_t gpa, struct vapic_l1_page *pin)
{
    struct sb *sb = ctx;
    uint32_t page;

    assert_true(sb->locked);
    assert_int_equal(gpa & 4095, 0);
    if (sb->on_pin != NULL)
        sb->on_pin(sb, gpa);
    if (!sb_index(gpa, &page) || sb->gone[page])
        return false;
    sb->pins[page]++;
    sb->pinned++;
    *pin = (struct vapic_l1_page){sb_page(sb, page), sb_page_hpa(sb, page)};
    return true;
}

SB_FN void sb_unpin(void *ctx, uint64_t gpa, const struct vapic_l1_page *pin)
{
    struct sb *sb = ctx;
    uint32_t page;

    assert_true(sb->locked);
    assert_true(sb_index(gpa, &page));
    assert_ptr_equal(pin->memory, sb_page(sb, page));
    assert_true(sb->pins[page] > 0);
    sb->pins[page]--;
}

SB_FN bool sb_track(void *ctx, uint64_t gpa, bool on)
{
    struct sb *sb = ctx;
    uint32_t page;

    assert_true(sb_index(gpa, &page));
    assert_int_equal(sb->tracked[page], !on);
    sb->tracked[page] = on;
    return true;
}

SB_FN void sb_intercept02(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    struct sb_vcpu *c = (struct sb_vcpu *)(void *)v;

    (void)ctx;
    c->pass02 = *pass;
    vapic_pass_to_msrpm(pass, c->msrpm02);
    vmcb_dirty(c->vmcb02, VMCB_CLEAN_PERMISSION);
}

static const struct vapic_host sb_host = {
    .size = sizeof(struct vapic_host),
    .lock = sb_lock,
    .unlock = sb_unlock,
    .quiesce = sb_quiesce,
    .notify = sb_notify,
    .physical = sb_physical,
    .kick_all = sb_kick_all,
    .access_page = sb_no_page,
    .flush = sb_no_flush,
    .intercept = sb_no_intercept,
    .spin_lock = sb_spin_lock,
    .spin_unlock = sb_spin_unlock,
};

static const struct vapic_nested_host sb_nested_host = {
    .size = sizeof(struct vapic_nested_host),
    .pin = sb_pin,
    .unpin = sb_unpin,
    .track = sb_track,
    .intercept = sb_intercept02,
};

/* ---- L1's memory ---- */

SB_FN uint64_t *sb_entry(struct sb *sb, uint32_t index)
{
    return (uint64_t *)(void *)(sb_page(sb, SB_TABLE + index / 512) + index % 512 * 8);
}

/* L1 writes the entry; what tracks the page is told. */
SB_FN void sb_write_entry(struct sb *sb, uint32_t index, uint64_t value)
{
    *sb_entry(sb, index) = value;
    if (sb->tracked[SB_TABLE + index / 512])
        vapic_nested_written(&sb->vm, SB_GPA(SB_TABLE) + index * 8, 8);
}

SB_FN uint32_t *sb_logical(struct sb *sb, uint32_t slot)
{
    return (uint32_t *)(void *)(sb_page(sb, SB_LOGICAL) + slot * 4);
}

SB_FN uint32_t *sb_reg(struct sb *sb, uint32_t n, uint32_t offset)
{
    return (uint32_t *)(void *)(sb_page(sb, SB_BACKING + n) + offset);
}

SB_FN bool sb_bit(struct sb *sb, uint32_t n, uint32_t base, uint8_t vector)
{
    return *sb_reg(sb, n, base + vector / 32 * 16) >> vector % 32 & 1;
}

SB_FN void sb_set_bit(struct sb *sb, uint32_t n, uint32_t base, uint8_t vector)
{
    *sb_reg(sb, n, base + vector / 32 * 16) |= 1u << vector % 32;
}

SB_FN uint64_t sb_good_entry(uint32_t n)
{
    return AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_RUNNING | SB_GPA(SB_BACKING + n) | n;
}

SB_FN void sb_good_vmcb12(struct sb *sb, uint32_t n)
{
    uint8_t *vmcb = sb->v[n]->vmcb12;

    vmcb_set32(vmcb, VMCB_INTERCEPT3, VMCB_I3_INTR | VMCB_I3_MSR);
    vmcb_set32(vmcb, VMCB_INTERCEPT4, VMCB_I4_VMRUN);
    vmcb_set64(vmcb, VMCB_MSRPM_BASE, SB_GPA(SB_FREE));
    vmcb_set32(vmcb, VMCB_ASID, n + 1);
    vmcb_set64(vmcb, VMCB_NP_ENABLE, VMCB_NP_ENABLED);
    vmcb_set64(vmcb, VMCB_INT_CTL,
               VMCB_V_AVIC | VMCB_V_INTR_MASKING | (sb->x2 ? VMCB_V_X2AVIC : 0));
    vmcb_set64(vmcb, VMCB_AVIC_BAR, APIC_DEFAULT_BASE);
    vmcb_set64(vmcb, VMCB_AVIC_BACKING, SB_GPA(SB_BACKING + n));
    vmcb_set64(vmcb, VMCB_AVIC_LOGICAL, SB_GPA(SB_LOGICAL));
    vmcb_set64(vmcb, VMCB_AVIC_PHYSICAL, SB_GPA(SB_TABLE) | (sb->vcpus - 1));
    vmcb_set64(vmcb, VMCB_RFLAGS, VMCB_RFLAGS_IF | 2);
}

SB_FN void sb_good_memory(struct sb *sb)
{
    for (uint32_t n = 0; n < sb->vcpus; n++) {
        *sb_entry(sb, n) = sb_good_entry(n);
        *sb_logical(sb, n) = AVIC_LOGICAL_VALID | n;
        *sb_reg(sb, n, APIC_ID) = sb->x2 ? n : n << 24;
        *sb_reg(sb, n, APIC_SVR) = 0x1FF;
        *sb_reg(sb, n, APIC_DFR) = APIC_DFR_FLAT;
        *sb_reg(sb, n, APIC_LDR) = sb->x2 ? 1u << n : 1u << (24 + n);
        sb_good_vmcb12(sb, n);
    }
}

/* ---- Making and ending ---- */

struct sb_options {
    uint32_t hardware; /* VAPIC_ACCEL_ masks */
    uint32_t offered;  /* VAPIC_NESTED_ masks */
    enum vapic_nested_strategy strategy;
    bool x2, disabled, no_track;
    uint32_t phys_bits, tables, entries; /* 0: 48, 2, 512 */
};

#define SB_DUMMY (&(struct sb_options){.hardware = VAPIC_ACCEL_IPIV, .offered = VAPIC_NESTED_AVIC})
#define SB_SHADOW                                                                                  \
    (&(struct sb_options){.hardware = VAPIC_ACCEL_IPIV,                                            \
                          .offered = VAPIC_NESTED_AVIC,                                            \
                          .strategy = VAPIC_NESTED_SHADOW})
#define SB_X2(s)                                                                                   \
    (&(struct sb_options){.hardware = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,                       \
                          .offered = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC,                      \
                          .strategy = (s),                                                         \
                          .x2 = true})

SB_FN void sb_make_machines(struct sb *sb, const struct sb_options *o)
{
    static const struct vapic_sil_host host = {
        .size = sizeof(host), .memory = sb_sil_memory, .walk = sb_walk, .point = sb_point};
    static const struct vapic_sil_host ideal = {.size = sizeof(ideal),
                                                .memory = sb_ideal_memory,
                                                .walk = sb_walk,
                                                .signal = sb_ideal_signal};
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_AMD,
                                      .x2avic = (o->hardware & VAPIC_ACCEL_X2AVIC) != 0,
                                      .x2avic_ext = (o->hardware & VAPIC_ACCEL_X2AVIC_EXT) != 0};

    assert_true(vapic_sil_init(&sb->machine, &config, &host, sb, sb->table, SB_HOST_ID(SB_VCPUS)));
    config.x2avic = (o->offered & VAPIC_NESTED_X2AVIC) != 0;
    config.x2avic_ext = (o->offered & VAPIC_NESTED_X2AVIC_EXT) != 0;
    config.phys_bits = o->phys_bits ? o->phys_bits : 48;
    assert_true(vapic_sil_init(&sb->ideal, &config, &ideal, sb, sb->ideal_table, SB_VCPUS));
    for (uint32_t n = 0; n < SB_VCPUS; n++) {
        assert_true(vapic_sil_cpu_init(&sb->cpu[n], &sb->machine, SB_HOST_ID(n)));
        assert_true(vapic_sil_cpu_init(&sb->ideal_cpu[n], &sb->ideal, n));
        assert_int_equal(vapic_pcpu_init(&sb->pcpu[n], sizeof(sb->pcpu[n]), SB_HOST_ID(n)),
                         VAPIC_OK);
    }
}

SB_FN void sb_make_vm(struct sb *sb, const struct sb_options *o)
{
    struct vapic_vm_config vm = {.max_vcpus = SB_VCPUS};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_AVIC,
                                       .features = o->hardware,
                                       .max_id = SB_VCPUS - 1,
                                       .disabled = o->disabled};
    struct vapic_nested_config nested = {.features = o->offered,
                                         .strategy = o->strategy,
                                         .tables = o->tables ? o->tables : 2,
                                         .entries = o->entries ? o->entries : 512};
    struct vapic_nested_host host = sb_nested_host;
    size_t size = vapic_vm_memory(&vm);

    if (o->no_track)
        host.track = NULL;
    sb->memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_int_equal(vapic_vm_init(&sb->vm, sizeof(sb->vm), &vm, &sb_host, sb, sb->memory, size),
                     VAPIC_OK);
    size = vapic_accel_memory(&accel);
    assert_int_equal(vapic_accel_init(&sb->accel, sizeof(sb->accel), &sb->vm, &accel,
                                      sb_memory(sb, size, 4096), size),
                     VAPIC_OK);
    size = vapic_nested_memory(&nested, &accel);
    assert_true(size > 0);
    assert_int_equal(vapic_nested_init(&sb->nested, sizeof(sb->nested), &sb->vm, &nested, &host,
                                       sb_memory(sb, size, 4096), size),
                     VAPIC_OK);
}

SB_FN void sb_make_vcpu(struct sb *sb, uint32_t n, const struct sb_options *o)
{
    struct sb_vcpu *c = sb_memory(sb, sizeof(*c), 64);
    struct vapic_config config = {.id = n,
                                  .features = VAPIC_FEATURE_X2APIC,
                                  .bsp = n == 0,
                                  .phys_bits = (uint8_t)(o->phys_bits ? o->phys_bits : 48)};

    sb->v[n] = c;
    c->sb = sb;
    c->n = n;
    c->cpu = &sb->cpu[n];
    c->l1_if = true;
    c->can = VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_IF;
    c->page = sb_memory(sb, 4096, 4096);
    c->vmcb01 = sb_memory(sb, 4096, 4096);
    c->vmcb02 = sb_memory(sb, 4096, 4096);
    c->msrpm02 = sb_memory(sb, SVM_MSRPM_SIZE, 4096);
    vmcb_create(c->vmcb02, c->msrpm02, sb_hpa(sb, c->msrpm02), n + 1);
    for (uint32_t i = 0; i < 4; i++)
        c->pass12.read[i] = c->pass12.write[i] = ~0ull;
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &sb->vm, &config, c->page), VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel),
                                        &(struct vapic_accel_vcpu_config){.vmcb = c->vmcb01}),
                     VAPIC_OK);
    assert_int_equal(vapic_nested_attach(&c->apic, &c->nested, sizeof(c->nested),
                                         &(struct vapic_nested_vcpu_config){.vmcb02 = c->vmcb02}),
                     VAPIC_OK);
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    vapic_load(&c->apic, &sb->pcpu[n]);
    assert_int_equal(vapic_load_activity(&c->apic, VAPIC_RUNNING), VAPIC_OK);
    vapic_mmio_write(&c->apic, APIC_SVR, &(uint32_t){0x1FF}, 4, (struct vapic_now){0});
}

SB_FN struct sb *sb_new(const struct sb_options *o)
{
    struct sb *sb = calloc(1, sizeof(*sb));

    assert_non_null(sb);
    sb->arena = aligned_alloc(4096, SB_ARENA);
    assert_non_null(sb->arena);
    memset(sb->arena, 0, SB_ARENA);
    sb->ram = sb_memory(sb, SB_PAGES * 4096u, 4096);
    sb->vcpus = SB_VCPUS;
    sb->x2 = o->x2;
    sb_make_machines(sb, o);
    sb_make_vm(sb, o);
    for (uint32_t n = 0; n < sb->vcpus; n++)
        sb_make_vcpu(sb, n, o);
    sb_good_memory(sb);
    return sb;
}

/* Every pin was given back, and nothing is watched any more. */
SB_FN void sb_free(struct sb *sb)
{
    for (uint32_t n = 0; n < sb->vcpus; n++) {
        if (sb->v[n]->entered)
            sb_leave(sb, n);
        vapic_put(&sb->v[n]->apic);
        assert_int_equal(vapic_remove(&sb->v[n]->apic), VAPIC_OK);
    }
    vapic_nested_fini(&sb->nested);
    memset(&sb->nested, 0xA5, sizeof(sb->nested)); /* its memory is the caller's again */
    vapic_nested_written(&sb->vm, SB_GPA(0), SB_PAGES * 4096ull);
    vapic_nested_unmap(&sb->vm, SB_GPA(0), SB_PAGES * 4096ull);
    vapic_accel_fini(&sb->accel);
    for (uint32_t i = 0; i < SB_PAGES; i++) {
        assert_int_equal(sb->pins[i], 0);
        assert_false(sb->tracked[i]);
    }
    free(sb->memory);
    free(sb->arena);
    free(sb);
}

/* ---- L0's run loop ---- */

SB_FN int sb_nested_enter(struct sb *sb, uint32_t n)
{
    struct sb_vcpu *c = sb->v[n];
    struct vapic_nested_view view = {.vmcb12 = c->vmcb12, .pass = &c->pass12, .l1_if = c->l1_if};

    vmcb_set32(c->vmcb02, VMCB_INTERCEPT_CR, vmcb_get32(c->vmcb12, VMCB_INTERCEPT_CR));
    vmcb_set64(c->vmcb02, VMCB_RFLAGS, VMCB_RFLAGS_IF | 2);
    return vapic_nested_enter(&c->apic, &view);
}

/* The look before an entry; false: it is not made. */
SB_FN bool sb_look(struct sb *sb, uint32_t n)
{
    struct sb_vcpu *c = sb->v[n];

    vapic_enter(&c->apic, c->can, (struct vapic_now){0}, &c->entry);
    return c->entry.runnable;
}

/* Into L2, which must be possible. Another L2's VMCB was there before, as far as VMRUN knows. */
SB_FN void sb_run(struct sb *sb, uint32_t n)
{
    struct sb_vcpu *c = sb->v[n];

    assert_true(sb_look(sb, n));
    vmcb_set32(c->vmcb02, VMCB_CLEAN, 0);
    assert_int_equal(vapic_sil_vmrun(c->cpu, sb_hpa(sb, c->vmcb02)), VAPIC_SIL_DONE);
    c->vmcb02[VMCB_TLB_CONTROL] = VMCB_TLB_NOTHING;
    c->entered = true;
}

SB_FN void sb_start(struct sb *sb, uint32_t n)
{
    assert_int_equal(sb_nested_enter(sb, n), VAPIC_OK);
    sb_run(sb, n);
}

SB_FN void sb_start_all(struct sb *sb)
{
    for (uint32_t n = 0; n < sb->vcpus; n++)
        sb_start(sb, n);
}

/* The processor is in the host. */
SB_FN void sb_outside(struct sb *sb, uint32_t n)
{
    struct sb_vcpu *c = sb->v[n];

    c->entered = false;
    vapic_exit(&c->apic, 0, true);
    vapic_nested_ran(&c->apic);
}

SB_FN void sb_leave(struct sb *sb, uint32_t n)
{
    struct sb_vcpu *c = sb->v[n];

    if (c->cpu->in_guest)
        vapic_sil_leave(c->cpu, SVM_EXIT_INTR, 0, 0);
    sb_outside(sb, n);
}

/* Out of L2, into L1. */
SB_FN void sb_nested_exit(struct sb *sb, uint32_t n, struct vapic_nested_left *left)
{
    struct sb_vcpu *c = sb->v[n];
    struct vapic_nested_left ignored;

    if (c->entered)
        sb_leave(sb, n);
    vapic_nested_leave(&c->apic, left ? left : &ignored);
    vapic_nested_exit(&c->apic);
}

/* L2 has exited: L0 asks the library, and goes on if L1 need not know. */
SB_FN void sb_handle(struct sb *sb, uint32_t n)
{
    struct sb_vcpu *c = sb->v[n];

    c->exit = (struct vapic_reflect){vmcb_get64(c->vmcb02, VMCB_EXITCODE),
                                     vmcb_get64(c->vmcb02, VMCB_EXITINFO1),
                                     vmcb_get64(c->vmcb02, VMCB_EXITINFO2)};
    sb_outside(sb, n);
    c->result =
        vapic_nested_avic_exit(&c->apic, c->exit.code, c->exit.info1, c->exit.info2, &c->reflect);
    if (c->result == VAPIC_OK)
        sb_run(sb, n);
}

/* ---- L2's instructions ---- */

SB_FN enum vapic_sil_result sb_store(struct vapic_sil_cpu *cpu, uint32_t offset, uint32_t value)
{
    struct vapic_sil_access a = {.gpa = APIC_DEFAULT_BASE + offset,
                                 .kind = VAPIC_SIL_WRITE,
                                 .size = 4,
                                 .length = 3,
                                 .value = value};

    return vapic_sil_access(cpu, &a);
}

SB_FN enum vapic_sil_result sb_icr(struct vapic_sil_cpu *cpu, bool x2, uint32_t low, uint32_t dest)
{
    if (x2)
        return vapic_sil_wrmsr(cpu, MSR_X2APIC_FIRST + (APIC_ICR >> 4), (uint64_t)dest << 32 | low);
    assert_int_equal(sb_store(cpu, APIC_ICR2, dest << 24), VAPIC_SIL_DONE);
    return sb_store(cpu, APIC_ICR, low);
}

/* L2 sends; true: it exited. Results are in sb->v[n]. */
SB_FN bool sb_ipi(struct sb *sb, uint32_t n, uint32_t low, uint32_t dest)
{
    if (sb_icr(sb->v[n]->cpu, sb->x2, low, dest) != VAPIC_SIL_EXIT)
        return false;
    sb_handle(sb, n);
    return true;
}

SB_FN bool sb_write(struct sb *sb, uint32_t n, uint32_t offset, uint32_t value)
{
    enum vapic_sil_result result =
        sb->x2 ? vapic_sil_wrmsr(sb->v[n]->cpu, MSR_X2APIC_FIRST + (offset >> 4), value)
               : sb_store(sb->v[n]->cpu, offset, value);

    if (result != VAPIC_SIL_EXIT)
        return false;
    sb_handle(sb, n);
    return true;
}

/* The vector that the next boundary delivers; -1: nothing, -2: exit. */
SB_FN int sb_take(struct sb *sb, uint32_t n)
{
    uint8_t vector = 0;

    switch (vapic_sil_boundary(sb->v[n]->cpu, &vector)) {
    case VAPIC_SIL_DELIVER:
        return vector;
    case VAPIC_SIL_EXIT:
        sb_outside(sb, n);
        return -2;
    default:
        return -1;
    }
}

SB_FN void sb_reflected_at(struct sb *sb, uint32_t n, uint32_t low, uint32_t high, uint32_t id,
                           uint32_t index, int line)
{
    const struct sb_vcpu *c = sb->v[n];

    if (c->result != VAPIC_REFLECT || c->reflect.code != SVM_EXIT_AVIC_INCOMPLETE ||
        c->reflect.info1 != ((uint64_t)high << 32 | low) ||
        c->reflect.info2 != ((uint64_t)id << 32 | index))
        fail_msg("line %d: result %d, code %#llx, %#llx, %#llx", line, c->result,
                 (unsigned long long)c->reflect.code, (unsigned long long)c->reflect.info1,
                 (unsigned long long)c->reflect.info2);
}
#define sb_reflected(sb, n, low, high, id, index)                                                  \
    sb_reflected_at(sb, n, low, high, id, index, __LINE__)

#endif
