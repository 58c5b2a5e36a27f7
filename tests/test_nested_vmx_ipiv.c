/* SPDX-License-Identifier: MIT */
/*
 * Nested IPI virtualization: L2's IPIs by way of L1's PID-pointer table. With the strategy DUMMY
 * each exits and is posted by software; with SHADOW the processor finds L0's descriptor of a vCPU
 * in L2. L1's table and descriptors hold what L1 likes.
 */
#include "nested_vmx_bench.h"

static const enum vapic_nested_strategy strategies[] = {VAPIC_NESTED_DUMMY, VAPIC_NESTED_SHADOW};

#define FOR_BOTH(s) for (uint32_t s##_ = 0, s = strategies[0]; s##_ < 2; s = strategies[++s##_ & 1])

static struct vb *machine(enum vapic_nested_strategy strategy, uint32_t vcpus)
{
    return vb_new(&(struct vb_options){
        .x2apic = true, .strategy = strategy, .vcpus = vcpus, .phys_bits = 40});
}

/* All vCPUs but the last are in L2. */
static struct vb *in_l2(enum vapic_nested_strategy strategy, uint32_t vcpus)
{
    struct vb *b = machine(strategy, vcpus);

    for (uint32_t n = 0; n + 1 < vcpus; n++)
        vb_vmcs12(b, n);
    for (uint32_t n = 0; n + 1 < vcpus; n++)
        vb_to_l2(b, n);
    return b;
}

/* L1's software writes an entry of its table. */
static void write_entry(struct vb *b, uint32_t index, uint64_t entry)
{
    vb_table(b)[index] = entry;
    vapic_nested_written(&b->vm, vb_gpa(VB_TABLE) + 8 * index, 8);
}

static uint64_t valid(uint64_t gpa)
{
    return gpa | APICV_PID_ENTRY_VALID;
}

/* Exits of all vCPUs in L2. */
static uint32_t exits(const struct vb *b)
{
    uint32_t count = 0;

    for (uint32_t n = 0; n < b->vcpus; n++)
        for (uint32_t i = 0; i < b->v[n]->exit_count; i++)
            count += b->v[n]->exits[i] >> 8;
    return count;
}

static void forget(struct vb *b)
{
    for (uint32_t n = 0; n < b->vcpus; n++)
        b->v[n]->exit_count = b->v[n]->delivered_count = 0;
}

/* An IPI of L2's; what the library says of its exit. DONE: there was none. */
static int ipi(struct vb *b, uint32_t n, uint32_t icr, uint32_t dest)
{
    struct vapic_reflect r;

    if (vb_icr(b, n, icr, dest) == VAPIC_SIL_DONE)
        return VAPIC_OK;
    return vb_exit(b, n, &r);
}

/* ---- From L2 to L2 ---- */

static void an_ipi_between_vcpus_in_l2(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        forget(b);
        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], 0x151), 1);
        assert_int_equal(exits(b), s == VAPIC_NESTED_DUMMY ? 1 : 0);
        vb_free(b);
    }
}

/* Less than 10 exits for 1000 IPIs between vCPUs that run. */
static void exits_for_1000_ipis(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);
        uint32_t count = 0;

        for (uint32_t i = 0; i < 1000; i++) {
            forget(b);
            assert_int_equal(ipi(b, i & 1, 0x51, 1 - (i & 1)), VAPIC_OK);
            vb_run(b, 1 - (i & 1));
            assert_int_equal(vb_times(b->v[1 - (i & 1)], 0x151), 1);
            assert_int_equal(vapic_sil_wrmsr(&b->cpus[1 - (i & 1)], 0x80B, 0), VAPIC_SIL_DONE);
            count += exits(b);
        }
        if (s == VAPIC_NESTED_SHADOW)
            assert_int_equal(count, 0);
        else
            assert_int_equal(count, 1000);
        vb_free(b);
    }
}

static void an_ipi_to_oneself(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        assert_int_equal(ipi(b, 0, 0x51, 0), VAPIC_OK);
        vb_run(b, 0);
        assert_int_equal(vb_times(b->v[0], 0x151), 1);
        assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x83F, 0x61), VAPIC_SIL_DONE);
        vb_run(b, 0);
        assert_int_equal(vb_times(b->v[0], 0x161), 1);
        vb_free(b);
    }
}

/* The target's vCPU runs L1: it gets the notification that L1's descriptor asks for. */
static void an_ipi_to_a_vcpu_that_runs_l1(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        vb_to_l1(b, 1);
        assert_true(vb_enter(b, 1));
        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], VB_NV12), 1);
        assert_int_equal(vb_pid(b, 1)->pir[1], 1u << 0x11);
        assert_int_equal(vb_pid(b, 1)->control & PID_ON, PID_ON);
        assert_int_equal(ipi(b, 0, 0x61, 1), VAPIC_OK); /* ON: no second notification */
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], VB_NV12), 1);
        vb_free(b);
    }
}

/* L1 has suppressed notifications: its vCPU has lost its processor, in L1's eyes. */
static void an_ipi_to_a_descriptor_with_sn(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        vb_to_l1(b, 1);
        assert_true(vb_enter(b, 1));
        vb_pid(b, 1)->control |= PID_SN;
        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
        vb_run(b, 1);
        assert_int_equal(b->v[1]->delivered_count, 0);
        assert_int_equal(vb_pid(b, 1)->pir[1], 1u << 0x11);
        assert_int_equal(vb_pid(b, 1)->control & PID_ON, 0);
        vb_free(b);
    }
}

static void an_ipi_to_l2_that_sleeps(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        assert_true(vb_halt(b, 1));
        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
        vb_handlers(b, 1); /* the wake-up vector, where a processor has sent it */
        assert_true(b->v[1]->woken);
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], 0x151), 1);
        vb_free(b);
    }
}

/* L0 has taken the vCPU's thread off its processor. */
static void an_ipi_to_l2_that_is_preempted(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        vb_leave(b, 1);
        vapic_put(&b->v[1]->apic);
        forget(b);
        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
        assert_int_equal(vapic_sil_take_interrupt(&b->cpus[1]), -1);
        vapic_load(&b->v[1]->apic, &b->pcpus[1]);
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], 0x151), 1);
        vb_free(b);
    }
}

/* Software posts into L1's descriptor, although vmcs02 names another one. */
static void l1s_software_and_l2s_ipis_at_once(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
        vb_post(b, 2, 1, 0x61);
        vb_run(b, 1);
        assert_true(vb_enter(b, 1));
        assert_int_equal(vb_times(b->v[1], 0x161), 1);
        assert_int_equal(vapic_sil_wrmsr(&b->cpus[1], 0x80B, 0), VAPIC_SIL_DONE);
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], 0x151), 1);
        vb_free(b);
    }
}

/* ---- What the processor does not virtualize is L1's ---- */

static void what_ipi_virtualization_does_not_do_is_l1s(void **state)
{
    static const uint32_t icrs[] = {
        0x0A,           /* vector below 16 */
        0x100 | 0x51,   /* lowest priority */
        0x400,          /* NMI */
        0x800 | 0x51,   /* logical */
        0x8000 | 0x51,  /* level */
        0x40000 | 0x51, /* shorthand: self, by 830h */
        0x80000 | 0x51, /* all */
        0x1000 | 0x51,  /* busy bit */
    };

    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        for (uint32_t i = 0; i < sizeof(icrs) / sizeof(icrs[0]); i++)
            assert_int_equal(ipi(b, 0, icrs[i], 1), VAPIC_REFLECT);
        for (uint32_t i = 0; i < 4; i++)
            assert_int_equal(vb_pid(b, 1)->pir[i] | vb_pid(b, 0)->pir[i], 0);
        vb_free(b);
    }
}

/* ---- Hostile tables ---- */

static void hostile_entries(void **state)
{
    static const uint64_t entries[] = {
        0,
        UINT64_MAX,
        ~UINT64_C(0x3F), /* not valid */
        VB_RAM | 3,      /* reserved bits */
        VB_RAM | 0x21,
        (UINT64_C(1) << 40) | 1, /* beyond MAXPHYADDR */
        (UINT64_C(1) << 52) | 1,
        0x1001,                            /* no memory */
        VB_HPA | 1,                        /* L0's own, by its host address */
        (VB_RAM + VB_PAGES * VB_PAGE) | 1, /* just behind */
        (VB_RAM - 64) | 1,                 /* just before */
        ((UINT64_C(1) << 40) - 64) | 1,
    };

    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        for (uint32_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
            write_entry(b, 1, entries[i]);
            assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_REFLECT);
        }
        assert_int_equal(ipi(b, 0, 0x51, VB_VCPUS), VAPIC_REFLECT); /* beyond the last index */
        assert_int_equal(ipi(b, 0, 0x51, UINT32_MAX), VAPIC_REFLECT);
        vb_free(b);
    }
}

/* The last index that can be, a table at the end of L1's memory, an entry behind it. */
static void a_table_at_the_end_of_memory(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = machine(s, 2);
        struct vapic_vmcs12 *c = &b->v[0]->vmcs12;
        uint32_t last = VB_PAGES - 1;

        vb_vmcs12(b, 0);
        c->pid_table = vb_gpa(last);
        c->last_pid_index = 0xFFFF;
        assert_int_equal(vb_launch(b, 0), VAPIC_OK);
        *(uint64_t *)(void *)(vb_l1(b, last) + 8 * 511) = valid(vb_gpa(VB_DESCRIPTORS));
        assert_int_equal(ipi(b, 0, 0x51, 511), VAPIC_OK);
        vb_run(b, 0);
        assert_int_equal(vb_times(b->v[0], 0x151), 1);
        assert_int_equal(ipi(b, 0, 0x51, 512), VAPIC_REFLECT);
        assert_int_equal(ipi(b, 0, 0x51, 0xFFFF), VAPIC_REFLECT);
        vb_free(b);
    }
}

/* Descriptor, table and register page in one page, or one inside the other. */
static void overlapping_pages(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = machine(s, 2);
        struct vapic_vmcs12 *c = &b->v[0]->vmcs12;

        vb_vmcs12(b, 0);
        c->virtual_apic = c->pid_table = vb_gpa(VB_FREE);
        c->pid = vb_gpa(VB_FREE) + APIC_IRR; /* PIR is VIRR */
        for (uint32_t i = 0; i < 64; i++)
            *vb_word(b, VB_FREE, 8 * i) = (uint32_t)valid(c->pid);
        if (vb_launch(b, 0) == VAPIC_OK) {
            for (uint32_t i = 0; i < 4 && vb_enter(b, 0); i++) {
                ipi(b, 0, 0x51, i);
                vb_post(b, 1, 0, 0x61);
                vb_leave(b, 0);
            }
            vb_to_l1(b, 0);
        }
        vb_free(b);
    }
}

/* The table becomes other data while peers send by it. */
static void a_table_page_that_is_freed_and_reused(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);
        uint32_t seed = 7;

        for (uint32_t round = 0; round < 50; round++) {
            for (uint32_t i = 0; i < 512; i++) {
                seed = seed * 1664525 + 1013904223;
                vb_table(b)[i] = (uint64_t)seed << 32 | seed;
                if (seed >> 30 == 0)
                    vb_table(b)[i] = valid(vb_gpa(seed >> 16 & 63) + (seed & 0xFC0));
            }
            vapic_nested_written(&b->vm, vb_gpa(VB_TABLE), VB_PAGE);
            forget(b);
            for (uint32_t dest = 0; dest < 4; dest++) {
                int result = vb_enter(b, 0) ? ipi(b, 0, 0x20 + (seed >> 20 & 0xBF), dest) : 0;

                assert_true(result == VAPIC_OK || result == VAPIC_REFLECT);
                vb_leave(b, 0);
                forget(b);
            }
        }
        vb_free(b);
    }
}

/* The table's page goes away: IPIs exit, and L1 sees them. */
static void a_table_page_that_is_unmapped(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        b->gone[VB_TABLE] = true;
        vapic_nested_unmap(&b->vm, vb_gpa(VB_TABLE), VB_PAGE);
        assert_int_equal(b->pins[VB_TABLE], 0);
        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_REFLECT);
        b->gone[VB_TABLE] = false;
        assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], 0x151), 1);
        vb_free(b);
    }
}

/* L1's own destination and vector may be anything: nobody there, a broadcast, illegal. */
static void hostile_descriptors(void **state)
{
    static const uint64_t controls[] = {
        UINT64_C(0x0000007700720000), /* nobody */
        UINT64_C(0xFFFFFFFF00720000), /* everybody */
        UINT64_C(0x0000000000000000), /* vector 0 */
        UINT64_C(0x00000000000F0000),
        UINT64_C(0xFFFFFFFFFFFFFFFC), /* reserved bits */
        UINT64_MAX,
    };

    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = in_l2(s, 3);

        vb_to_l1(b, 1);
        for (uint32_t i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
            vb_pid(b, 1)->control = controls[i];
            assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
            vb_leave(b, 0);
            vapic_write_cr8(&b->v[0]->apic, 15); /* what comes back waits */
            assert_true(vb_enter(b, 0));
        }
        vb_free(b);
    }
}

/* xAPIC form of NDST where L1's own APICs are in xAPIC mode; ICR by MMIO. */
static void l1_in_xapic_mode(void **state)
{
    (void)state;
    FOR_BOTH(s)
    {
        struct vb *b = vb_new(&(struct vb_options){.strategy = s, .vcpus = 3, .xapic_host = true});
        struct vapic_sil_access access = {.gpa = APIC_DEFAULT_BASE + APIC_ICR2,
                                          .kind = VAPIC_SIL_WRITE,
                                          .size = 4,
                                          .length = 3,
                                          .value = 1u << 24};
        struct vapic_reflect r;

        for (uint32_t n = 0; n < 2; n++) {
            vb_vmcs12(b, n);
            b->v[n]->vmcs12.secondary ^= VMX_SEC_X2APIC | VMX_SEC_APIC_ACCESSES;
            assert_int_equal(vb_launch(b, n), VAPIC_OK);
        }
        assert_true(vb_enter(b, 1));
        assert_true(vb_enter(b, 0));
        assert_int_equal(vapic_sil_access(&b->cpus[0], &access), VAPIC_SIL_DONE);
        access.gpa = APIC_DEFAULT_BASE + APIC_ICR;
        access.value = 0x51;
        if (vapic_sil_access(&b->cpus[0], &access) == VAPIC_SIL_EXIT) {
            vb_exited(b->v[0]);
            assert_int_equal(vb_exit(b, 0, &r), VAPIC_OK);
        }
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], 0x151), 1);
        vb_to_l1(b, 1);
        assert_true(vb_enter(b, 0));
        access.value = 0x61;
        assert_int_equal(vapic_sil_access(&b->cpus[0], &access), VAPIC_SIL_EXIT);
        vb_exited(b->v[0]);
        assert_int_equal(vb_exit(b, 0, &r), VAPIC_OK);
        vb_run(b, 1);
        assert_int_equal(vb_times(b->v[1], VB_NV12), 1);
        vb_free(b);
    }
}

/* ---- Shadows ---- */

static void a_shadow_leads_only_to_who_is_in_l2(void **state)
{
    struct vb *b = in_l2(VAPIC_NESTED_SHADOW, 3);
    const uint64_t *hardware = vb_sil_memory(b, vmcs_get(&b->v[0]->vmcs02, VMCS_PID_TABLE), 8);

    (void)state;
    assert_int_equal(hardware[0], valid(vb_hpa(b, &b->v[0]->nested.posted)));
    assert_int_equal(hardware[1], valid(vb_hpa(b, &b->v[1]->nested.posted)));
    assert_int_equal(hardware[2], 0);
    assert_int_equal(vmcs_get(&b->v[1]->vmcs02, VMCS_PID), vb_hpa(b, &b->v[1]->nested.posted));
    vb_to_l1(b, 1);
    assert_int_equal(hardware[1], 0);
    assert_int_equal(vb_launch(b, 1), VAPIC_OK);
    assert_int_equal(hardware[1], valid(vb_hpa(b, &b->v[1]->nested.posted)));
    write_entry(b, 1, 0);
    assert_int_equal(hardware[1], 0);
    write_entry(b, 2, valid(b->v[1]->vmcs12.pid));
    assert_int_equal(hardware[2], valid(vb_hpa(b, &b->v[1]->nested.posted)));
    vb_free(b);
}

static struct vb *point_machine;
static uint32_t point_place;

/* The sender's processor has the descriptor, and has not posted yet: L2 is left meanwhile. */
static void leave_now(struct vb *b, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    if (cpu != &b->cpus[0] || point != (enum vapic_sil_point)point_place)
        return;
    b->on_point = NULL;
    vb_to_l1(b, 1);
    point_machine = b;
}

/* At each of the sender's steps, and whatever the target does then: it is L1's notification, and
 * the vector is in L1's descriptor, or L2 has had it before it was left. */
static void late(uint32_t place, bool asleep)
{
    struct vb *b = in_l2(VAPIC_NESTED_SHADOW, 3);
    uint32_t notified;

    point_place = place;
    point_machine = NULL;
    b->on_point = leave_now;
    assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
    b->on_point = NULL;
    assert_ptr_equal(point_machine, b);
    if (asleep)
        vb_halt(b, 1);
    vb_handlers(b, 1);
    vb_run(b, 1);
    notified = vb_times(b->v[1], VB_NV12);
    if (notified == 0)
        assert_true(vb_virr(b, 1, 0x51));
    else
        assert_int_equal(vb_pid(b, 1)->pir[1], 1u << 0x11);
    assert_int_equal(vb_launch(b, 1), VAPIC_OK);
    if (notified)
        vb_post(b, 2, 1, 0x51); /* L1 sends itself the notification, as hypervisors do */
    vb_run(b, 1);
    assert_int_equal(vb_times(b->v[1], 0x151), 1);
    vb_free(b);
}

static void l2_is_left_while_a_processor_sends(void **state)
{
    (void)state;
    for (uint32_t place = VAPIC_SIL_POINT_RESOLVED; place <= VAPIC_SIL_POINT_FOUND; place++) {
        late(place, false);
        late(place, true);
    }
}

/* What came too late for one L2 does not get into another one. */
/* Who has left for the kick is back at once, and sends while the target is being removed, whose
 * descriptor is no longer the library's afterwards. */
static void send_to_removed(struct vb *b)
{
    b->on_kicked = NULL;
    assert_int_equal(vb_icr(b, 0, 0x51, 1), VAPIC_SIL_EXIT);
}

/* Where L0's descriptor leads is the scheduler's word alone, in the middle of any other call. */
static void entering_does_not_redirect_posts(void **state)
{
    struct vb *b = machine(VAPIC_NESTED_SHADOW, 2);
    struct vb_vcpu *c = b->v[0];
    uint64_t there;

    (void)state;
    vapic_put(&c->apic);
    vapic_load(&c->apic, &b->pcpus[1]);
    there = c->nested.posted.control;
    assert_int_equal(PID_NDST(there), VB_ID(1));
    /* As an entering thread sees it that has read where it was before it was moved. */
    c->accel.pcpu = &b->pcpus[0];
    vb_vmcs12(b, 0);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_int_equal(c->nested.posted.control, there);
    vb_to_l1(b, 0);
    vb_free(b);
}

static void a_removed_vcpu_is_found_by_nobody(void **state)
{
    struct vb *b = machine(VAPIC_NESTED_SHADOW, 2);
    struct vb_vcpu *c = b->v[1];

    (void)state;
    vb_vmcs12(b, 0);
    vb_vmcs12(b, 1);
    vb_to_l2(b, 0);
    vb_to_l2(b, 1);
    assert_int_equal(vb_icr(b, 0, 0x61, 1), VAPIC_SIL_DONE);
    vb_run(b, 1);
    vb_leave(b, 1);
    vapic_put(&c->apic);
    b->on_kicked = send_to_removed;
    assert_int_equal(vapic_remove(&c->apic), VAPIC_OK);
    assert_null(b->on_kicked);
    assert_int_equal(c->nested.posted.pir[1], 0);
    b->vcpus = 1;
    vb_free(b);
}

static void a_late_post_does_not_reach_another_l2(void **state)
{
    struct vb *b = in_l2(VAPIC_NESTED_SHADOW, 3);
    struct vapic_pid *other = vb_pid(b, 3);

    (void)state;
    vb_to_l1(b, 1);
    vapic_sil_interrupt(&b->silicon, VB_ID(1), VB_NESTED);
    b->v[1]->nested.posted.pir[1] = 1u << 0x11; /* by a processor that had the address */
    b->v[1]->nested.posted.control |= PID_ON;
    b->v[1]->vmcs12.pid = vb_gpa(VB_DESCRIPTORS) + 3 * 64;
    b->v[1]->vmcs12.virtual_apic = vb_gpa(VB_FREE);
    assert_int_equal(vb_launch(b, 1), VAPIC_OK);
    vb_run(b, 1);
    assert_int_equal(vb_times(b->v[1], 0x151), 0);
    assert_int_equal(other->pir[1], 0);
    assert_int_equal(vb_pid(b, 1)->pir[1], 1u << 0x11);
    vb_free(b);
}

/* Posted after the last look, with the notification gone by in the host: the entry is not made. */
static void sent_between_the_look_and_the_entry(void **state)
{
    struct vb *b = in_l2(VAPIC_NESTED_SHADOW, 3);

    (void)state;
    vb_leave(b, 1);
    assert_true(vb_prepare(b->v[1], VB_CAN));
    assert_false(vapic_posted(&b->v[1]->apic));
    assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
    vb_handlers(b, 1);
    assert_true(vapic_posted(&b->v[1]->apic));
    vb_leave(b, 1);
    vb_run(b, 1);
    assert_int_equal(vb_times(b->v[1], 0x151), 1);
    vb_free(b);
}

/* On the way to sleep; of a class that does not end HLT, so that ON must be cleared for the next.
 */
static void sent_on_the_way_to_sleep(void **state)
{
    struct vb *b = in_l2(VAPIC_NESTED_SHADOW, 3);
    struct vb_vcpu *c = b->v[1];

    (void)state;
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[1], 0x808, 0x50), VAPIC_SIL_DONE);
    vb_leave(b, 1);
    vapic_halt(&c->apic);
    vapic_enter(&c->apic, VB_CAN, b->now, &c->entry);
    assert_false(c->entry.runnable);
    assert_int_equal(ipi(b, 0, 0x5F, 1), VAPIC_OK);
    vb_handlers(b, 1);
    assert_false(vapic_block(&c->apic));
    assert_true(vb_halt(b, 1));
    assert_int_equal(ipi(b, 0, 0x61, 1), VAPIC_OK);
    vb_handlers(b, 1);
    assert_true(c->woken);
    vb_run(b, 1);
    assert_int_equal(vb_times(c, 0x161), 1);
    vb_free(b);
}

/* L2 has been left, and L1 goes to sleep: what a processor posts now is L1's to hear of. */
static void a_late_post_to_l1_on_the_way_to_sleep(void **state)
{
    struct vb *b = in_l2(VAPIC_NESTED_SHADOW, 3);
    struct vb_vcpu *c = b->v[1];

    (void)state;
    vb_to_l1(b, 1);
    vapic_halt(&c->apic);
    vapic_enter(&c->apic, VB_CAN, b->now, &c->entry);
    assert_false(c->entry.runnable);
    c->nested.posted.pir[1] = 1u << 0x11; /* by a processor that had the address */
    c->nested.posted.control |= PID_ON;
    assert_false(vapic_block(&c->apic));
    vb_run(b, 1);
    assert_int_equal(vb_times(c, VB_NV12), 1);
    assert_int_equal(vb_pid(b, 1)->pir[1], 1u << 0x11);
    vb_free(b);
}

/* More tables than shadows: who finds none runs as with DUMMY. */
static void more_tables_than_shadows(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){
        .x2apic = true, .strategy = VAPIC_NESTED_SHADOW, .vcpus = 4, .tables = 1});

    (void)state;
    for (uint32_t n = 0; n < 3; n++)
        vb_vmcs12(b, n);
    vb_table(b)[512 - 1] = 0;
    memcpy(vb_l1(b, VB_FREE), vb_l1(b, VB_TABLE), VB_PAGE);
    b->v[2]->vmcs12.pid_table = vb_gpa(VB_FREE);
    for (uint32_t n = 0; n < 3; n++)
        assert_int_equal(vb_launch(b, n), VAPIC_OK);
    assert_non_null(b->v[0]->nested.shadow);
    assert_null(b->v[2]->nested.shadow);
    assert_int_equal(vmcs_get(&b->v[2]->vmcs02, VMCS_PID), vb_hpa(b, vb_pid(b, 2)));
    assert_true(vb_enter(b, 0) && vb_enter(b, 2));
    assert_int_equal(ipi(b, 0, 0x51, 2), VAPIC_OK);
    assert_int_equal(ipi(b, 2, 0x61, 0), VAPIC_OK);
    vb_run(b, 2);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[2], 0x151), 1);
    assert_int_equal(vb_times(b->v[0], 0x161), 1);
    vb_free(b);
}

/* L1 makes its table longer between two entries. */
static void a_table_that_grows(void **state)
{
    struct vb *b = machine(VAPIC_NESTED_SHADOW, 3);

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        vb_vmcs12(b, n);
        b->v[n]->vmcs12.last_pid_index = 0;
        vb_table(b)[1] = 0;
        assert_int_equal(vb_launch(b, n), VAPIC_OK);
        assert_true(vb_enter(b, n));
    }
    assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_REFLECT);
    vb_to_l1(b, 0);
    write_entry(b, 1, valid(b->v[1]->vmcs12.pid));
    b->v[0]->vmcs12.last_pid_index = 1;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    forget(b);
    assert_int_equal(ipi(b, 0, 0x51, 1), VAPIC_OK);
    assert_int_equal(exits(b), 0);
    vb_run(b, 1);
    assert_int_equal(vb_times(b->v[1], 0x151), 1);
    vb_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ipi_between_vcpus_in_l2),
        cmocka_unit_test(exits_for_1000_ipis),
        cmocka_unit_test(an_ipi_to_oneself),
        cmocka_unit_test(an_ipi_to_a_vcpu_that_runs_l1),
        cmocka_unit_test(an_ipi_to_a_descriptor_with_sn),
        cmocka_unit_test(an_ipi_to_l2_that_sleeps),
        cmocka_unit_test(an_ipi_to_l2_that_is_preempted),
        cmocka_unit_test(l1s_software_and_l2s_ipis_at_once),
        cmocka_unit_test(what_ipi_virtualization_does_not_do_is_l1s),
        cmocka_unit_test(hostile_entries),
        cmocka_unit_test(a_table_at_the_end_of_memory),
        cmocka_unit_test(overlapping_pages),
        cmocka_unit_test(a_table_page_that_is_freed_and_reused),
        cmocka_unit_test(a_table_page_that_is_unmapped),
        cmocka_unit_test(hostile_descriptors),
        cmocka_unit_test(l1_in_xapic_mode),
        cmocka_unit_test(a_shadow_leads_only_to_who_is_in_l2),
        cmocka_unit_test(l2_is_left_while_a_processor_sends),
        cmocka_unit_test(entering_does_not_redirect_posts),
        cmocka_unit_test(a_removed_vcpu_is_found_by_nobody),
        cmocka_unit_test(a_late_post_does_not_reach_another_l2),
        cmocka_unit_test(sent_between_the_look_and_the_entry),
        cmocka_unit_test(sent_on_the_way_to_sleep),
        cmocka_unit_test(a_late_post_to_l1_on_the_way_to_sleep),
        cmocka_unit_test(more_tables_than_shadows),
        cmocka_unit_test(a_table_that_grows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
