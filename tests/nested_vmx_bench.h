/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the VMX half of nested.h share: a small L0 on the silicon model. L1 is not a
 * guest here but the test: it writes L1's memory and vmcs12 as it likes, in ways that no sane
 * hypervisor would. (nested_fixture.h has an L1 that is one.) Every processor belongs to one vCPU,
 * which runs L1 (vmcs01) or L2 (vmcs02).
 *
 * L1's memory is VB_PAGES pages from VB_RAM on; its pages lie in the host in another order.
 * Static functions: every test program has them to itself.
 */
#ifndef VAPIC_TESTS_NESTED_VMX_BENCH_H
#define VAPIC_TESTS_NESTED_VMX_BENCH_H

#include <stdlib.h>

#include "control_block.h"
#include "vapic/nested.h"
#include "vapic/silicon.h"

#define VB_FN        static __attribute__((unused))
#define VB_VCPUS     4u
#define VB_PAGE      4096u
#define VB_PAGES     32u
#define VB_RAM       UINT64_C(0x40000000)
#define VB_HPA       UINT64_C(0x7000000)
#define VB_ARENA     (160u * VB_PAGE)
#define VB_ID(n)     ((n) + 8u)
#define VB_KICK      0xF0u
#define VB_NOTIFY    0xF1u
#define VB_WAKEUP    0xF2u
#define VB_NESTED    0xF3u
#define VB_NV12      0x72u /* L1's notification vector, unless a test says otherwise */
#define VB_EXITS     64u
#define VB_DELIVERED 64u

/* Pages of L1's that vb_vmcs12() uses. */
enum { VB_APIC = 0, VB_ACCESS = 4, VB_DESCRIPTORS = 5, VB_TABLE = 6, VB_FREE = 7 };

struct vb;

struct vb_vcpu {
    struct vapic apic; /* first */
    struct vapic_accel_vcpu accel;
    struct vapic_nested_vcpu nested;
    struct vb *b;
    uint32_t n;
    uint8_t *page, *bitmap01, *bitmap02;
    struct vapic_sil_vmcs vmcs01, vmcs02;
    struct vapic_vmcs12 vmcs12;
    struct vapic_msr_pass pass;
    bool l2, entered, blocked, woken;
    struct vapic_entry entry;
    uint32_t delivered[VB_DELIVERED]; /* vectors through L1's IDT, or 100h + L2's */
    uint32_t delivered_count;
    uint32_t exits[VB_EXITS]; /* basic reasons; of L2's exits 100h more */
    uint32_t exit_count;
    uint32_t controls01, controls02, passes01, passes02, flushes;
    enum vapic_action told; /* last host.notify() */
    uint32_t failed;        /* VM entries that failed */
};

struct vb_options {
    uint32_t features;    /* VAPIC_ACCEL_ masks */
    uint32_t offered;     /* VAPIC_NESTED_ masks; 0: everything */
    bool nothing_offered; /* ... not even that */
    enum vapic_nested_strategy strategy;
    bool x2apic, xapic_host;
    uint32_t vcpus; /* 0: 2 */
    uint8_t phys_bits;
    uint32_t tables, entries; /* 0: 2, 512 */
};

struct vb {
    struct vapic_vm vm;
    struct vapic_accel accel;
    struct vapic_nested nested;
    struct vapic_sil silicon;
    struct vapic_sil_cpu cpus[VB_VCPUS];
    struct vapic_sil_cpu *by_id[16];
    struct vapic_pcpu pcpus[VB_VCPUS];
    struct vb_vcpu *v[VB_VCPUS];
    uint32_t vcpus;
    struct vb_options options;
    struct vapic_now now;
    bool locked, page_mapped;
    uint32_t locks, kicks, pins[VB_PAGES], all_pins, tracked[VB_PAGES];
    bool gone[VB_PAGES];
    uint8_t *arena, *ram, *scratch;
    size_t used;
    void *vm_memory;
    uint64_t eois; /* host.eoi(): how often */
    /* Hooks; NULL: nothing. */
    void (*on_point)(struct vb *b, struct vapic_sil_cpu *cpu, enum vapic_sil_point point);
    void (*on_quiesce)(struct vb *b);
    void (*on_kicked)(struct vb *b);
};

/* ---- Memory ---- */

VB_FN void *vb_memory(struct vb *b, size_t size, size_t align)
{
    size_t at = (b->used + align - 1) & ~(align - 1);

    assert_true(at + size <= VB_ARENA);
    b->used = at + size;
    return b->arena + at;
}

VB_FN uint64_t vb_hpa(const struct vb *b, const void *memory)
{
    uintptr_t offset = (uintptr_t)memory - (uintptr_t)b->arena;

    assert_true(offset < VB_ARENA);
    return VB_HPA + offset;
}

/* L1's page number `page`, and its L1-physical address. */
VB_FN uint8_t *vb_l1(struct vb *b, uint32_t page)
{
    return b->ram + (size_t)((page * 13 + 5) % VB_PAGES) * VB_PAGE;
}

VB_FN uint64_t vb_gpa(uint32_t page)
{
    return VB_RAM + (uint64_t)page * VB_PAGE;
}

VB_FN uint32_t *vb_word(struct vb *b, uint32_t page, uint32_t offset)
{
    return (uint32_t *)(void *)(vb_l1(b, page) + offset);
}

/* L2's register page of vCPU n. */
VB_FN uint32_t vb_l2(struct vb *b, uint32_t n, uint32_t offset)
{
    return *vb_word(b, VB_APIC + n, offset);
}

VB_FN bool vb_virr(struct vb *b, uint32_t n, uint8_t vector)
{
    return vb_l2(b, n, APIC_IRR + (vector >> 5) * 16u) >> (vector & 31) & 1;
}

/* L1's descriptor of vCPU n. */
VB_FN struct vapic_pid *vb_pid(struct vb *b, uint32_t n)
{
    return (struct vapic_pid *)(void *)(vb_l1(b, VB_DESCRIPTORS) + 64 * n);
}

VB_FN uint64_t *vb_table(struct vb *b)
{
    return (uint64_t *)(void *)vb_l1(b, VB_TABLE);
}

VB_FN bool vb_page_of(uint64_t gpa, uint32_t *page)
{
    *page = (uint32_t)((gpa - VB_RAM) / VB_PAGE);
    return gpa >= VB_RAM && gpa - VB_RAM < VB_PAGES * (uint64_t)VB_PAGE;
}

static void *vb_sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct vb *b = ctx;

    return hpa < VB_HPA || hpa - VB_HPA + size > VB_ARENA ? NULL : b->arena + (hpa - VB_HPA);
}

/* Only the APIC's page: L1's own access page, or the one that vmcs12 names. */
static bool vb_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa, struct vapic_sil_page *page)
{
    struct vb *b = ctx;
    struct vb_vcpu *c = b->v[cpu - b->cpus];

    if (gpa != APIC_DEFAULT_BASE || (!c->l2 && !b->page_mapped))
        return false;
    *page = (struct vapic_sil_page){
        c->l2 ? vmcs_get(&c->vmcs02, VMCS_APIC_ACCESS) : vb_hpa(b, b->scratch), true, true};
    return page->hpa != 0;
}

static void vb_sil_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct vb *b = ctx;

    if (b->on_point != NULL)
        b->on_point(b, cpu, point);
}

/* ---- Host ---- */

static struct vb_vcpu *vb_of(struct vapic *v)
{
    return (struct vb_vcpu *)(void *)v;
}

static void vb_lock(void *ctx)
{
    struct vb *b = ctx;

    assert_false(b->locked);
    b->locked = true;
    b->locks++;
}

static void vb_unlock(void *ctx)
{
    struct vb *b = ctx;

    assert_true(b->locked);
    b->locked = false;
}

static void vb_quiesce(void *ctx)
{
    struct vb *b = ctx;

    assert_false(b->locked);
    if (b->on_quiesce != NULL)
        b->on_quiesce(b);
}

VB_FN void vb_act(struct vb *b, uint32_t n, enum vapic_action action)
{
    struct vb_vcpu *c = b->v[n];
    uint32_t id;

    c->told = action;
    if (action == VAPIC_ACTION_WAKE)
        c->woken = true;
    else if (action == VAPIC_ACTION_KICK)
        vapic_sil_interrupt(&b->silicon, VB_ID(n), VB_KICK);
    else if (action != VAPIC_ACTION_NONE && vapic_doorbell_id(&c->apic, &id))
        vapic_sil_interrupt(&b->silicon, id, action == VAPIC_ACTION_NESTED ? VB_NESTED : VB_NOTIFY);
}

static void vb_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    vb_act(ctx, vb_of(target)->n, action);
}

static void vb_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    struct vb *b = ctx;

    (void)v;
    (void)vector;
    b->eois++;
}

static uint64_t vb_physical(void *ctx, const void *memory)
{
    return vb_hpa(ctx, memory);
}

static void vb_leave(struct vb *b, uint32_t n);

static void vb_kick_all(void *ctx)
{
    struct vb *b = ctx;

    assert_true(b->locked);
    b->kicks++;
    for (uint32_t n = 0; n < b->vcpus; n++)
        if (b->v[n] != NULL)
            vb_leave(b, n);
    if (b->on_kicked != NULL)
        b->on_kicked(b);
}

static void vb_access_page(void *ctx, bool mapped)
{
    struct vb *b = ctx;

    b->page_mapped = mapped;
}

static void vb_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    assert_false(vb_of(v)->l2); /* it is L1's translations that are meant */
    vb_of(v)->flushes++;
    vapic_sil_flush(&vb_of(v)->b->cpus[vb_of(v)->n], APIC_DEFAULT_BASE);
}

static void vb_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    vb_of(v)->passes01++;
    vapic_pass_to_bitmap(pass, vb_of(v)->bitmap01);
}

static void vb_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    assert_false(vb_of(v)->l2);
    assert_int_equal(value & ~mask, 0);
    vb_of(v)->controls01++;
    vmcs_set_bits(&vb_of(v)->vmcs01, field, mask, value);
}

static uint16_t vb_interrupt_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    assert_false(vb_of(v)->l2);
    return (uint16_t)vmcs_get(&vb_of(v)->vmcs01, VMCS_GUEST_INTERRUPT_STATUS);
}

static void vb_spin_lock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 0);
    *word = 1;
}

static void vb_spin_unlock(void *ctx, uint32_t *word)
{
    (void)ctx;
    assert_int_equal(*word, 1);
    *word = 0;
}

static bool vb_pin(void *ctx, uint64_t gpa, struct vapic_l1_page *pin)
{
    struct vb *b = ctx;
    uint32_t page;

    assert_true(b->locked);
    assert_int_equal(gpa % VB_PAGE, 0);
    if (!vb_page_of(gpa, &page) || b->gone[page])
        return false;
    b->pins[page]++;
    b->all_pins++;
    *pin = (struct vapic_l1_page){vb_l1(b, page), vb_hpa(b, vb_l1(b, page))};
    return true;
}

static void vb_unpin(void *ctx, uint64_t gpa, const struct vapic_l1_page *pin)
{
    struct vb *b = ctx;
    uint32_t page;

    assert_true(b->locked);
    assert_true(vb_page_of(gpa, &page));
    assert_ptr_equal(pin->memory, vb_l1(b, page));
    assert_true(b->pins[page] > 0);
    b->pins[page]--;
    b->all_pins--;
}

static bool vb_track(void *ctx, uint64_t gpa, bool on)
{
    struct vb *b = ctx;
    uint32_t page;

    assert_true(vb_page_of(gpa, &page));
    b->tracked[page] += on ? 1 : UINT32_MAX;
    return true;
}

static void vb_control02(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    assert_true(vb_of(v)->l2);
    assert_int_equal(value & ~mask, 0);
    vb_of(v)->controls02++;
    vmcs_set_bits(&vb_of(v)->vmcs02, field, mask, value);
}

static uint16_t vb_status02(void *ctx, struct vapic *v)
{
    (void)ctx;
    assert_true(vb_of(v)->l2);
    return (uint16_t)vmcs_get(&vb_of(v)->vmcs02, VMCS_GUEST_INTERRUPT_STATUS);
}

static void vb_intercept02(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    assert_true(vb_of(v)->l2);
    vb_of(v)->passes02++;
    vapic_pass_to_bitmap(pass, vb_of(v)->bitmap02);
}

/* ---- Making and ending ---- */

static void vb_make_silicon(struct vb *b)
{
    static const struct vapic_sil_host host = {
        .size = sizeof(host), .memory = vb_sil_memory, .walk = vb_walk, .point = vb_sil_point};
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL,
                                      .xapic_host = b->options.xapic_host};

    assert_true(vapic_sil_init(&b->silicon, &config, &host, b, b->by_id, 16));
    for (uint32_t n = 0; n < VB_VCPUS; n++) {
        assert_true(vapic_sil_cpu_init(&b->cpus[n], &b->silicon, VB_ID(n)));
        assert_int_equal(vapic_pcpu_init(&b->pcpus[n], sizeof(b->pcpus[n]), VB_ID(n)), VAPIC_OK);
    }
}

static void vb_make_vm(struct vb *b)
{
    static const struct vapic_host host = {.size = sizeof(host),
                                           .lock = vb_lock,
                                           .unlock = vb_unlock,
                                           .quiesce = vb_quiesce,
                                           .notify = vb_notify,
                                           .eoi = vb_eoi,
                                           .physical = vb_physical,
                                           .kick_all = vb_kick_all,
                                           .access_page = vb_access_page,
                                           .flush = vb_flush,
                                           .intercept = vb_intercept,
                                           .control = vb_control,
                                           .interrupt_status = vb_interrupt_status,
                                           .spin_lock = vb_spin_lock,
                                           .spin_unlock = vb_spin_unlock};
    struct vapic_vm_config config = {.max_vcpus = VB_VCPUS, .max_gsis = 32};
    struct vapic_accel_config accel = {
        .kind = VAPIC_ACCEL_APICV,
        .features = b->options.features | (b->options.xapic_host ? VAPIC_ACCEL_XAPIC_HOST : 0u) |
                    VAPIC_ACCEL_IPIV,
        .max_id = VB_VCPUS - 1,
        .notify_vector = VB_NOTIFY,
        .wakeup_vector = VB_WAKEUP};
    size_t size = vapic_vm_memory(&config), accel_size = vapic_accel_memory(&accel);

    b->vm_memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_int_equal(vapic_vm_init(&b->vm, sizeof(b->vm), &config, &host, b, b->vm_memory, size),
                     VAPIC_OK);
    assert_int_equal(vapic_accel_init(&b->accel, sizeof(b->accel), &b->vm, &accel,
                                      vb_memory(b, accel_size, VB_PAGE), accel_size),
                     VAPIC_OK);
}

#define VB_ALL (VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV)

static void vb_make_nested(struct vb *b)
{
    static const struct vapic_nested_host host = {.size = sizeof(host),
                                                  .pin = vb_pin,
                                                  .unpin = vb_unpin,
                                                  .track = vb_track,
                                                  .control = vb_control02,
                                                  .interrupt_status = vb_status02,
                                                  .intercept = vb_intercept02};
    const struct vb_options *o = &b->options;
    struct vapic_nested_config config = {.features =
                                             o->offered || o->nothing_offered ? o->offered : VB_ALL,
                                         .strategy = o->strategy,
                                         .tables = o->tables ? o->tables : 2,
                                         .entries = o->entries ? o->entries : 512,
                                         .notify_vector = VB_NESTED};
    struct vapic_accel_config accel = {.kind = VAPIC_ACCEL_APICV,
                                       .features = VAPIC_ACCEL_IPIV,
                                       .max_id = VB_VCPUS - 1,
                                       .notify_vector = VB_NOTIFY,
                                       .wakeup_vector = VB_WAKEUP};
    size_t size = vapic_nested_memory(&config, &accel);

    assert_int_not_equal(size, 0);
    assert_int_equal(vapic_nested_init(&b->nested, sizeof(b->nested), &b->vm, &config, &host,
                                       vb_memory(b, size, VB_PAGE), size),
                     VAPIC_OK);
}

static void vb_start(struct vb_vcpu *c)
{
    vapic_reset(&c->apic);
    if (c->n != 0)
        assert_int_equal(vapic_load_activity(&c->apic, VAPIC_RUNNING), VAPIC_OK);
    if (c->b->options.x2apic)
        assert_int_equal(vapic_load_base(&c->apic, vapic_base(&c->apic) | APIC_BASE_EXTD),
                         VAPIC_OK);
    if (c->b->options.x2apic)
        assert_int_equal(vapic_msr_write(&c->apic, 0x80F, 0x1FF, c->b->now), VAPIC_OK);
    else
        vapic_mmio_write(&c->apic, APIC_SVR, &(uint32_t){0x1FF}, 4, c->b->now);
}

static void vb_make_vcpu(struct vb *b, uint32_t n)
{
    struct vb_vcpu *c = vb_memory(b, sizeof(*c), 64);
    struct vapic_config config = {.id = n,
                                  .features = VAPIC_FEATURE_X2APIC,
                                  .bsp = n == 0,
                                  .phys_bits = b->options.phys_bits};

    b->v[n] = c;
    c->b = b;
    c->n = n;
    c->page = vb_memory(b, VB_PAGE, VB_PAGE);
    c->bitmap01 = vb_memory(b, VB_PAGE, VB_PAGE);
    c->bitmap02 = vb_memory(b, VB_PAGE, VB_PAGE);
    memset(c->bitmap01, 0xFF, VB_PAGE);
    memset(c->bitmap02, 0xFF, VB_PAGE);
    vmcs_create(&c->vmcs01, vb_hpa(b, c->bitmap01), vb_hpa(b, b->scratch), 2 * n + 1);
    vmcs_create(&c->vmcs02, vb_hpa(b, c->bitmap02), 0, 2 * n + 2);
    vmcs_set_bits(&c->vmcs01, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, VMX_RFLAGS_IF);
    vmcs_set_bits(&c->vmcs02, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, VMX_RFLAGS_IF);
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &b->vm, &config, c->page), VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), NULL), VAPIC_OK);
    assert_int_equal(vapic_nested_attach(&c->apic, &c->nested, sizeof(c->nested), NULL), VAPIC_OK);
    assert_int_equal(c->nested.posted.control, PID_SN); /* nowhere yet */
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    vapic_load(&c->apic, &b->pcpus[n]);
    vb_start(c);
}

VB_FN struct vb *vb_new(const struct vb_options *options)
{
    struct vb *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    b->options = *options;
    b->vcpus = options->vcpus ? options->vcpus : 2;
    b->arena = aligned_alloc(VB_PAGE, VB_ARENA);
    memset(b->arena, 0, VB_ARENA);
    b->ram = vb_memory(b, VB_PAGES * VB_PAGE, VB_PAGE);
    b->scratch = vb_memory(b, VB_PAGE, VB_PAGE);
    vb_make_silicon(b);
    vb_make_vm(b);
    vb_make_nested(b);
    for (uint32_t n = 0; n < b->vcpus; n++)
        vb_make_vcpu(b, n);
    return b;
}

/* Every pin comes back. */
VB_FN void vb_free(struct vb *b)
{
    for (uint32_t n = 0; n < b->vcpus; n++) {
        vb_leave(b, n);
        vapic_put(&b->v[n]->apic);
        assert_int_equal(vapic_remove(&b->v[n]->apic), VAPIC_OK);
        b->v[n] = NULL;
    }
    vb_lock(b);
    vb_unlock(b);
    vapic_nested_fini(&b->nested);
    vapic_accel_fini(&b->accel);
    assert_int_equal(b->all_pins, 0);
    for (uint32_t i = 0; i < VB_PAGES; i++)
        assert_int_equal(b->tracked[i], 0);
    free(b->vm_memory);
    free(b->arena);
    free(b);
}

/* ---- Running ---- */

static struct vapic_sil_vmcs *vb_vmcs(struct vb_vcpu *c)
{
    return c->l2 ? &c->vmcs02 : &c->vmcs01;
}

static void vb_delivered(struct vb_vcpu *c, uint8_t vector)
{
    assert_true(c->delivered_count < VB_DELIVERED);
    c->delivered[c->delivered_count++] = vector + (c->l2 ? 0x100u : 0);
}

VB_FN uint32_t vb_times(const struct vb_vcpu *c, uint32_t vector)
{
    uint32_t times = 0;

    for (uint32_t i = 0; i < c->delivered_count; i++)
        times += c->delivered[i] == vector;
    return times;
}

static void vb_handlers(struct vb *b, uint32_t n)
{
    int vector;

    while ((vector = vapic_sil_take_interrupt(&b->cpus[n])) >= 0)
        if (vector == VB_WAKEUP)
            vapic_wakeup(&b->vm, &b->pcpus[n]);
}

static void vb_exited(struct vb_vcpu *c)
{
    uint64_t info = vmcs_get(vb_vmcs(c), VMCS_EXIT_INTR_INFO);
    uint32_t reason = (uint32_t)vmcs_get(vb_vmcs(c), VMCS_EXIT_REASON);

    assert_true(c->exit_count < VB_EXITS);
    c->exits[c->exit_count++] = reason + (c->l2 ? 0x100u : 0);
    c->entered = false;
    vapic_exit(&c->apic, 0, true);
    vapic_nested_ran(&c->apic);
    if (reason == VMX_EXIT_EXTINT && info & VMX_INFO_VALID && (uint8_t)info == VB_WAKEUP)
        vapic_wakeup(&c->b->vm, &c->b->pcpus[c->n]);
    vb_handlers(c->b, c->n);
}

static void vb_leave(struct vb *b, uint32_t n)
{
    struct vb_vcpu *c = b->v[n];

    if (!c->entered)
        return;
    if (!b->cpus[n].in_guest) { /* after vapic_enter(), before the entry */
        c->entered = false;
        vapic_exit(&c->apic, 0, false);
        return;
    }
    vapic_sil_leave(&b->cpus[n], VMX_EXIT_EXTINT, 0, 0);
    vb_exited(c);
}

#define VB_CAN (VAPIC_CAN_IRQ | VAPIC_CAN_NMI | VAPIC_CAN_INIT | VAPIC_IF)

/* vapic_enter() and what it asks for, up to the entry. False: it is not entered. */
static bool vb_prepare(struct vb_vcpu *c, uint32_t can)
{
    if (c->blocked) {
        vapic_unblock(&c->apic);
        c->blocked = c->woken = false;
    }
    do
        vapic_enter(&c->apic, can, c->b->now, &c->entry);
    while (c->entry.event != VAPIC_CPU_NONE);
    if (!c->entry.runnable)
        return false;
    c->entered = true;
    if (c->entry.nested != VAPIC_NESTED_LEAVE)
        return true;
    vb_leave(c->b, c->n);
    return false;
}

static void vb_inject(struct vb_vcpu *c)
{
    uint32_t info = 0;

    if (c->entry.inject == VAPIC_INJECT_VECTOR) {
        vapic_commit(&c->apic, &c->entry);
        info = VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | c->entry.vector;
    }
    vmcs_set(vb_vmcs(c), VMCS_ENTRY_INTR_INFO, info);
}

/* Enters L1 or L2; false: c->entry says why not. */
VB_FN bool vb_enter_with(struct vb *b, uint32_t n, uint32_t can)
{
    struct vb_vcpu *c = b->v[n];
    enum vapic_sil_result result;

    if (c->entered)
        return true;
    do {
        if (!vb_prepare(c, can))
            return false;
        if (vapic_posted(&c->apic))
            vb_leave(b, n);
    } while (!c->entered);
    vb_inject(c);
    result = vapic_sil_vmentry(&b->cpus[n], vb_vmcs(c));
    if (result == VAPIC_SIL_DONE)
        return true;
    c->failed++;
    c->entered = false;
    vapic_exit(&c->apic, 0, false);
    return false;
}

VB_FN bool vb_enter(struct vb *b, uint32_t n)
{
    return vb_enter_with(b, n, VB_CAN);
}

/* Up to an exit or until nothing is to be delivered; false: it has left the guest. */
VB_FN bool vb_boundary(struct vb *b, uint32_t n)
{
    struct vb_vcpu *c = b->v[n];
    enum vapic_sil_result result;
    uint8_t vector = 0;

    if (!vb_enter(b, n))
        return false;
    while ((result = vapic_sil_boundary(&b->cpus[n], &vector)) == VAPIC_SIL_DELIVER)
        vb_delivered(c, vector);
    if (result == VAPIC_SIL_NOTHING)
        return true;
    vb_exited(c);
    return false;
}

/* The same again and again, while it only exits for interrupts of the host's. */
VB_FN void vb_run(struct vb *b, uint32_t n)
{
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t before = b->v[n]->exit_count;

        if (vb_boundary(b, n) || b->v[n]->exit_count == before)
            return;
    }
    fail_msg("vCPU %u exits without end", n);
}

/* HLT of whoever runs: sleeps; false: something has come. */
VB_FN bool vb_halt(struct vb *b, uint32_t n)
{
    struct vb_vcpu *c = b->v[n];

    vb_leave(b, n);
    vapic_halt(&c->apic);
    vapic_enter(&c->apic, VB_CAN, b->now, &c->entry);
    if (c->entry.runnable || c->entry.nested != VAPIC_NESTED_STAY) {
        c->entered = c->entry.runnable;
        vb_leave(b, n);
        return false;
    }
    c->blocked = vapic_block(&c->apic);
    return c->blocked;
}

/* ---- L2 ---- */

/* What L1 asks for: everything, or without some of it. */
VB_FN void vb_vmcs12(struct vb *b, uint32_t n)
{
    struct vapic_vmcs12 *c = &b->v[n]->vmcs12;

    *c = (struct vapic_vmcs12){
        .pin = VMX_PIN_EXTINT_EXITING | VMX_PIN_POSTED_INTERRUPTS,
        .primary = VMX_PRI_TPR_SHADOW | VMX_PRI_SECONDARY | VMX_PRI_TERTIARY | VMX_PRI_MSR_BITMAPS,
        .secondary = VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY,
        .exit = VMX_EXC_ACK_INTERRUPT,
        .tertiary = VMX_TER_IPI_VIRTUALIZATION,
        .notification_vector = VB_NV12,
        .last_pid_index = VB_VCPUS - 1,
        .virtual_apic = vb_gpa(VB_APIC + n),
        .apic_access = vb_gpa(VB_ACCESS),
        .pid = vb_gpa(VB_DESCRIPTORS) + 64 * n,
        .pid_table = vb_gpa(VB_TABLE),
    };
    memset(&b->v[n]->pass, 0xFF, sizeof(b->v[n]->pass));
    vb_table(b)[n] = c->pid | APICV_PID_ENTRY_VALID;
    vb_pid(b, n)->control = (uint64_t)VB_NV12 << PID_NV_SHIFT |
                            (uint64_t)(b->options.x2apic ? n : PID_NDST_XAPIC(n)) << PID_NDST_SHIFT;
}

/* VMLAUNCH of L1's: the result of vapic_nested_enter(). */
VB_FN int vb_launch(struct vb *b, uint32_t n)
{
    struct vb_vcpu *c = b->v[n];
    struct vapic_nested_view view = {.vmcs12 = &c->vmcs12, .pass = &c->pass};
    int result;

    vb_leave(b, n);
    assert_false(c->l2);
    c->l2 = true;
    result = vapic_nested_enter(&c->apic, &view);
    c->l2 = result == VAPIC_OK;
    return result;
}

/* vb_vmcs12(), VMLAUNCH, and into L2. */
VB_FN void vb_to_l2(struct vb *b, uint32_t n)
{
    vb_vmcs12(b, n);
    assert_int_equal(vb_launch(b, n), VAPIC_OK);
    assert_true(vb_enter(b, n));
}

/* L2 is left: what goes to vmcs12. */
VB_FN struct vapic_nested_left vb_to_l1(struct vb *b, uint32_t n)
{
    struct vb_vcpu *c = b->v[n];
    struct vapic_nested_left left;

    vb_leave(b, n);
    assert_true(c->l2);
    vapic_nested_leave(&c->apic, &left);
    c->l2 = false;
    c->vmcs12.interrupt_status = left.interrupt_status;
    vapic_nested_exit(&c->apic);
    return left;
}

/* An exit of L2 that is the library's to judge. */
VB_FN int vb_exit(struct vb *b, uint32_t n, struct vapic_reflect *reflect)
{
    struct vb_vcpu *c = b->v[n];

    return vapic_nested_apicv_exit(&c->apic, (uint32_t)vmcs_get(&c->vmcs02, VMCS_EXIT_REASON),
                                   vmcs_get(&c->vmcs02, VMCS_EXIT_QUALIFICATION), reflect);
}

/* L2 writes ICR in x2APIC mode. DONE: without an exit. */
VB_FN enum vapic_sil_result vb_icr(struct vb *b, uint32_t n, uint32_t icr, uint32_t dest)
{
    enum vapic_sil_result result;

    assert_true(vb_enter(b, n));
    result = vapic_sil_wrmsr(&b->cpus[n], 0x830, (uint64_t)dest << 32 | icr);
    if (result == VAPIC_SIL_EXIT)
        vb_exited(b->v[n]);
    return result;
}

/* L1's software posts for L2 of vCPU n, and vCPU `from` sends the notification. */
VB_FN void vb_post(struct vb *b, uint32_t from, uint32_t n, uint8_t vector)
{
    struct vapic_pid *pid = vb_pid(b, n);
    struct vapic *v = &b->v[from]->apic;

    pid->pir[vector >> 6] |= UINT64_C(1) << (vector & 63);
    pid->control |= PID_ON;
    vb_leave(b, from);
    if (b->options.x2apic) {
        assert_int_equal(vapic_msr_write(v, 0x830, (uint64_t)n << 32 | VB_NV12, b->now), VAPIC_OK);
        return;
    }
    vapic_mmio_write(v, APIC_ICR2, &(uint32_t){n << 24}, 4, b->now);
    vapic_mmio_write(v, APIC_ICR, &(uint32_t){VB_NV12}, 4, b->now);
}

#endif
