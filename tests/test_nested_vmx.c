/* SPDX-License-Identifier: MIT */
/* Nested APICv: the checks of vmcs12, what vmcs02 gets, and that L1's own control block follows
 * whatever happened to L1's APIC while L2 was current. */
#include "nested_vmx_bench.h"

/* ---- The checks [SDM3 28.2.1.1] ---- */

struct change {
    const char *name;
    void (*make)(struct vapic_vmcs12 *c);
    int result;
};

#define CHANGE(name, body)                                                                         \
    static void name(struct vapic_vmcs12 *c)                                                       \
    {                                                                                              \
        body;                                                                                      \
    }

CHANGE(nothing, (void)c)
CHANGE(page_unaligned, c->virtual_apic |= 0x10)
CHANGE(page_too_wide, c->virtual_apic = UINT64_C(1) << 40)
CHANGE(page_absent, c->virtual_apic = 0x5000)
CHANGE(no_shadow, c->primary &= ~VMX_PRI_TPR_SHADOW)
CHANGE(no_shadow_x2apic_only, c->primary &= ~VMX_PRI_TPR_SHADOW; c->tertiary = 0; c->pin &= ~0x80u;
       c->secondary = VMX_SEC_X2APIC)
CHANGE(no_shadow_registers_only, c->primary &= ~VMX_PRI_TPR_SHADOW; c->tertiary = 0;
       c->pin &= ~0x80u; c->secondary = VMX_SEC_APIC_REGISTER)
CHANGE(no_shadow_ipiv_only, c->primary &= ~VMX_PRI_TPR_SHADOW; c->pin &= ~0x80u; c->secondary = 0)
CHANGE(no_shadow_at_all, c->primary &= ~VMX_PRI_TPR_SHADOW; c->tertiary = 0; c->pin &= ~0x80u;
       c->secondary = 0; c->virtual_apic = UINT64_MAX)
CHANGE(both_modes, c->secondary |= VMX_SEC_APIC_ACCESSES)
CHANGE(accesses, c->secondary |= VMX_SEC_APIC_ACCESSES; c->secondary &= ~VMX_SEC_X2APIC)
CHANGE(accesses_unaligned, accesses(c); c->apic_access |= 4)
CHANGE(accesses_too_wide, accesses(c); c->apic_access = UINT64_C(1) << 40)
CHANGE(accesses_absent, accesses(c); c->apic_access = 0xFEE00000)
CHANGE(accesses_off, c->apic_access = UINT64_MAX)
CHANGE(delivery_without_exiting, c->pin &= ~VMX_PIN_EXTINT_EXITING)
CHANGE(posting_without_delivery, c->secondary &= ~VMX_SEC_INTERRUPT_DELIVERY)
CHANGE(posting_without_acknowledge, c->exit = 0)
CHANGE(posting_without_secondary, c->primary &= ~VMX_PRI_SECONDARY)
CHANGE(vector_255, c->notification_vector = 255)
CHANGE(vector_0, c->notification_vector = 0)
CHANGE(vector_256, c->notification_vector = 256)
CHANGE(descriptor_unaligned, c->pid |= 32)
CHANGE(descriptor_too_wide, c->pid = UINT64_C(1) << 40)
CHANGE(descriptor_absent, c->pid = 0x5000)
CHANGE(descriptor_off, c->pin &= ~0x80u; c->pid = UINT64_MAX; c->notification_vector = 0xFFFF)
CHANGE(table_unaligned, c->pid_table |= 4)
CHANGE(table_mid_page, c->pid_table += 8)
CHANGE(table_too_wide, c->pid_table = UINT64_C(1) << 40)
CHANGE(table_end_too_wide, c->pid_table = (UINT64_C(1) << 40) - 8; c->last_pid_index = 1)
CHANGE(table_end_fits, c->pid_table = (UINT64_C(1) << 40) - 8; c->last_pid_index = 0)
CHANGE(table_off, c->primary &= ~VMX_PRI_TERTIARY; c->pid_table = UINT64_MAX)
CHANGE(threshold_any_with_delivery, c->tpr_threshold = UINT32_MAX)
CHANGE(plain_shadow, c->secondary = 0; c->tertiary = 0; c->pin = 0)
CHANGE(threshold_16, plain_shadow(c); c->tpr_threshold = 16)
CHANGE(threshold_above_vtpr, plain_shadow(c); c->tpr_threshold = 1)
CHANGE(threshold_above_but_accesses, plain_shadow(c); c->secondary = VMX_SEC_APIC_ACCESSES;
       c->tpr_threshold = 15)
CHANGE(secondary_inactive, c->primary &= ~VMX_PRI_SECONDARY; c->pin = 0; c->tertiary = 0;
       c->secondary = UINT32_MAX)

#define C_BAD VAPIC_E_CONTROLS

static const struct change changes[] = {
    {"everything", nothing, VAPIC_OK},
    {"virtual-APIC address unaligned", page_unaligned, C_BAD},
    {"virtual-APIC address beyond MAXPHYADDR", page_too_wide, C_BAD},
    {"no memory at the virtual-APIC address", page_absent, VAPIC_E_MEMORY},
    {"delivery without TPR shadow", no_shadow, C_BAD},
    {"x2APIC mode without TPR shadow", no_shadow_x2apic_only, C_BAD},
    {"register virtualization without TPR shadow", no_shadow_registers_only, C_BAD},
    {"IPI virtualization without TPR shadow", no_shadow_ipiv_only, C_BAD},
    {"nothing at all, bad address not used", no_shadow_at_all, VAPIC_OK},
    {"APIC accesses and x2APIC mode", both_modes, C_BAD},
    {"APIC accesses", accesses, VAPIC_OK},
    {"APIC-access address unaligned", accesses_unaligned, C_BAD},
    {"APIC-access address beyond MAXPHYADDR", accesses_too_wide, C_BAD},
    {"no memory at the APIC-access address", accesses_absent, VAPIC_E_MEMORY},
    {"bad APIC-access address not used", accesses_off, VAPIC_OK},
    {"delivery without external-interrupt exiting", delivery_without_exiting, C_BAD},
    {"posted interrupts without delivery", posting_without_delivery, C_BAD},
    {"posted interrupts without acknowledge on exit", posting_without_acknowledge, C_BAD},
    {"posted interrupts without secondary controls", posting_without_secondary, C_BAD},
    {"notification vector 255", vector_255, VAPIC_OK},
    {"notification vector 0", vector_0, VAPIC_OK},
    {"notification vector 256", vector_256, C_BAD},
    {"descriptor unaligned", descriptor_unaligned, C_BAD},
    {"descriptor beyond MAXPHYADDR", descriptor_too_wide, C_BAD},
    {"no memory at the descriptor", descriptor_absent, VAPIC_E_MEMORY},
    {"bad descriptor not used", descriptor_off, VAPIC_OK},
    {"PID-pointer table unaligned", table_unaligned, C_BAD},
    {"PID-pointer table within a page", table_mid_page, VAPIC_OK},
    {"PID-pointer table beyond MAXPHYADDR", table_too_wide, C_BAD},
    {"PID-pointer table ends beyond MAXPHYADDR", table_end_too_wide, C_BAD},
    {"PID-pointer table just fits, without memory", table_end_fits, VAPIC_OK},
    {"bad PID-pointer table not used", table_off, VAPIC_OK},
    {"any threshold with delivery", threshold_any_with_delivery, VAPIC_OK},
    {"TPR shadow alone", plain_shadow, VAPIC_OK},
    {"threshold above 15", threshold_16, C_BAD},
    {"threshold above VTPR", threshold_above_vtpr, C_BAD},
    {"threshold above VTPR, with APIC accesses", threshold_above_but_accesses, VAPIC_OK},
    {"secondary controls not activated", secondary_inactive, VAPIC_OK},
};

static void check_all(enum vapic_nested_strategy strategy)
{
    for (uint32_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct vb *b = vb_new(&(struct vb_options){.phys_bits = 40, .strategy = strategy});
        int result;

        vb_vmcs12(b, 0);
        changes[i].make(&b->v[0]->vmcs12);
        result = vb_launch(b, 0);
        if (result != changes[i].result)
            fail_msg("%s: %d", changes[i].name, result);
        assert_int_equal(vapic_nested_state(&b->v[0]->apic),
                         result == VAPIC_OK ? VAPIC_NESTED_ENTERING : VAPIC_NESTED_L1);
        /* L1 (or L2) runs; 02 was good for the processor. */
        assert_true(vb_enter(b, 0));
        vb_free(b);
    }
}

static void what_a_processor_refuses_is_refused(void **state)
{
    (void)state;
    check_all(VAPIC_NESTED_DUMMY);
    check_all(VAPIC_NESTED_SHADOW);
}

static int offered(uint32_t features, void (*make)(struct vapic_vmcs12 *c))
{
    struct vb *b = vb_new(&(struct vb_options){.offered = features, .nothing_offered = true});
    int result;

    vb_vmcs12(b, 0);
    make(&b->v[0]->vmcs12);
    result = vb_launch(b, 0);
    vb_free(b);
    return result;
}

CHANGE(no_ipiv, c->tertiary = 0)
CHANGE(no_posting, c->tertiary = 0; c->pin &= ~VMX_PIN_POSTED_INTERRUPTS)

static void what_is_not_offered_is_refused(void **state)
{
    const uint32_t apicv = VAPIC_NESTED_APICV, posted = apicv | VAPIC_NESTED_POSTED;

    (void)state;
    assert_int_equal(offered(VB_ALL, nothing), VAPIC_OK);
    assert_int_equal(offered(posted, nothing), VAPIC_E_CONTROLS);
    assert_int_equal(offered(posted, no_ipiv), VAPIC_OK);
    assert_int_equal(offered(apicv, no_ipiv), VAPIC_E_CONTROLS);
    assert_int_equal(offered(apicv, no_posting), VAPIC_OK);
    assert_int_equal(offered(0, no_posting), VAPIC_E_CONTROLS);
    assert_int_equal(offered(0, plain_shadow), VAPIC_E_CONTROLS);
    assert_int_equal(offered(0, no_shadow_at_all), VAPIC_OK);
}

static void configurations(void **state)
{
    struct vapic_accel_config accel = {
        .kind = VAPIC_ACCEL_APICV, .notify_vector = 0xF1, .wakeup_vector = 0xF2};
    struct vapic_nested_config c = {.features = VB_ALL,
                                    .notify_vector = 0xF3,
                                    .tables = 1,
                                    .entries = 4096,
                                    .strategy = VAPIC_NESTED_SHADOW};

    (void)state;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0); /* L0 has no IPI virtualization */
    accel.features = VAPIC_ACCEL_IPIV;
    assert_int_not_equal(vapic_nested_memory(&c, &accel), 0);
    c.entries = 4097;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.entries = 512;
    c.tables = 0;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.strategy = VAPIC_NESTED_DUMMY;
    assert_int_not_equal(vapic_nested_memory(&c, &accel), 0);
    c.notify_vector = 0xF2;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.notify_vector = 15;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.notify_vector = 0xF3;
    c.features = VAPIC_NESTED_APICV | VAPIC_NESTED_IPIV;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.features = VAPIC_NESTED_POSTED;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
    c.features = VAPIC_NESTED_AVIC;
    assert_int_equal(vapic_nested_memory(&c, &accel), 0);
}

/* ---- vmcs02 ---- */

static uint64_t get02(struct vb *b, uint32_t field)
{
    return vmcs_get(&b->v[0]->vmcs02, field);
}

static uint64_t get01(struct vb *b, uint32_t field)
{
    return vmcs_get(&b->v[0]->vmcs01, field);
}

static uint64_t hpa_of(struct vb *b, uint32_t page)
{
    return vb_hpa(b, vb_l1(b, page));
}

static void vmcs02_is_made_from_vmcs12(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){0});
    struct vapic_vmcs12 *c = &b->v[0]->vmcs12;

    (void)state;
    vb_vmcs12(b, 0);
    accesses(c);
    c->interrupt_status = 0x4131;
    c->tpr_threshold = 7;
    for (uint32_t i = 0; i < 4; i++)
        c->eoi_exit[i] = UINT64_C(0x1122334455667788) << i;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_int_equal(get02(b, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS, 0x80);
    assert_int_equal(get02(b, VMCS_PRIMARY_CONTROLS) &
                         (VMX_PRI_TPR_SHADOW | VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE),
                     VMX_PRI_TPR_SHADOW);
    assert_int_equal(get02(b, VMCS_SECONDARY_CONTROLS) & 0x311,
                     VMX_SEC_APIC_ACCESSES | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY);
    assert_int_equal(get02(b, VMCS_SECONDARY_CONTROLS) & VMX_SEC_EPT, VMX_SEC_EPT); /* L0's */
    assert_int_equal(get02(b, VMCS_TERTIARY_CONTROLS), VMX_TER_IPI_VIRTUALIZATION);
    assert_int_equal(get02(b, VMCS_VIRTUAL_APIC), hpa_of(b, VB_APIC));
    assert_int_equal(get02(b, VMCS_APIC_ACCESS), hpa_of(b, VB_ACCESS));
    assert_int_equal(get02(b, VMCS_PID), hpa_of(b, VB_DESCRIPTORS));
    assert_int_equal(get02(b, VMCS_NOTIFICATION_VECTOR), VB_NESTED);
    assert_int_equal(get02(b, VMCS_TPR_THRESHOLD), 7);
    assert_int_equal(get02(b, VMCS_GUEST_INTERRUPT_STATUS), 0x4131);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(get02(b, VMCS_EOI_EXIT0 + 2 * i), c->eoi_exit[i]);
    assert_true(vb_enter(b, 0));
    vb_free(b);
}

/* The descriptor's address within its page goes along. */
static void a_descriptor_within_a_page(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.vcpus = 4});

    (void)state;
    vb_to_l2(b, 3);
    assert_int_equal(vmcs_get(&b->v[3]->vmcs02, VMCS_PID), hpa_of(b, VB_DESCRIPTORS) + 3 * 64);
    vb_free(b);
}

/* Without the TPR shadow MOV CR8 must exit, and nothing of L1's own controls shines through. */
static void without_a_tpr_shadow_cr8_exits(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){0});
    uint64_t value;

    (void)state;
    assert_true(vb_enter(b, 0)); /* L1 is active */
    vb_vmcs12(b, 0);
    no_shadow_at_all(&b->v[0]->vmcs12);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_int_equal(get02(b, VMCS_PRIMARY_CONTROLS) &
                         (VMX_PRI_TPR_SHADOW | VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE),
                     VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE);
    assert_int_equal(get02(b, VMCS_SECONDARY_CONTROLS) & 0x311, 0);
    assert_int_equal(get02(b, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS, 0);
    assert_true(vb_enter(b, 0));
    assert_int_equal(vapic_sil_read_cr8(&b->cpus[0], &value), VAPIC_SIL_EXIT);
    vb_exited(b->v[0]);
    vb_free(b);
}

static bool passes(struct vb *b, uint32_t msr, bool write)
{
    const uint8_t *bytes = b->v[0]->bitmap02 + APICV_MSR_BITMAP_BYTE(msr) +
                           (write ? APICV_MSR_BITMAP_WRITE_LOW : APICV_MSR_BITMAP_READ_LOW);

    return !(*bytes & APICV_MSR_BITMAP_BIT(msr));
}

static uint32_t passing(struct vb *b, bool write)
{
    uint32_t count = 0;

    for (uint32_t msr = 0x800; msr < 0x900; msr++)
        count += passes(b, msr, write);
    return count;
}

/* Launches with these secondary controls and L1's bitmap open for everything. */
static struct vb *open_bitmap(uint32_t secondary, bool ipiv)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});
    struct vapic_vmcs12 *c = &b->v[0]->vmcs12;

    assert_true(vb_enter(b, 0)); /* L1's own MSRs are open */
    vb_vmcs12(b, 0);
    c->secondary = secondary;
    if (!(secondary & VMX_SEC_INTERRUPT_DELIVERY))
        c->pin &= ~VMX_PIN_POSTED_INTERRUPTS;
    if (!ipiv)
        c->tertiary = 0;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    return b;
}

static void msrs_pass_only_where_l2s_page_answers(void **state)
{
    struct vb *b = open_bitmap(0, false);

    (void)state;
    assert_int_equal(passing(b, false) + passing(b, true), 0);
    vb_free(b);
    b = open_bitmap(VMX_SEC_APIC_ACCESSES | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY,
                    true);
    assert_int_equal(passing(b, false) + passing(b, true), 0);
    vb_free(b);
    b = open_bitmap(VMX_SEC_X2APIC, false);
    assert_true(passes(b, 0x808, false) && passes(b, 0x808, true));
    assert_int_equal(passing(b, false) + passing(b, true), 2);
    vb_free(b);
    b = open_bitmap(VMX_SEC_X2APIC | VMX_SEC_INTERRUPT_DELIVERY, false);
    assert_true(passes(b, 0x80B, true) && passes(b, 0x83F, true));
    assert_int_equal(passing(b, false), 1);
    assert_int_equal(passing(b, true), 3);
    vb_free(b);
    b = open_bitmap(VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY, true);
    assert_int_equal(passing(b, false), 256);
    assert_int_equal(passing(b, true), 4);
    assert_true(passes(b, 0x830, true));
    vb_free(b);
}

/* What L1 intercepts exits, whatever vmcs01 has open. */
static void msrs_that_l1_intercepts_exit(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});

    (void)state;
    assert_true(vb_enter(b, 0));
    vb_vmcs12(b, 0);
    memset(&b->v[0]->pass, 0, sizeof(b->v[0]->pass));
    b->v[0]->pass.read[0] = 1u << 8;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(passes(b, 0x808, false));
    assert_int_equal(passing(b, false) + passing(b, true), 1);
    vb_to_l1(b, 0);
    memset(&b->v[0]->pass, 0xFF, sizeof(b->v[0]->pass));
    b->v[0]->vmcs12.primary &= ~VMX_PRI_MSR_BITMAPS; /* every MSR exits to L1 */
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_int_equal(passing(b, false) + passing(b, true), 0);
    vb_free(b);
}

/* ---- L1's APIC changes while L2 is current ---- */

static void inhibit(struct vb *b, bool set)
{
    assert_int_equal(vapic_set_inhibit(&b->vm, VAPIC_INHIBIT_BLOCKIRQ, set), VAPIC_OK);
}

static void l2_uses_apicv_though_l1_is_inhibited(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});

    (void)state;
    inhibit(b, true);
    vb_to_l2(b, 0);
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x83F, 0x51), VAPIC_SIL_DONE);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    assert_int_equal(b->v[0]->exit_count, 0);
    vb_free(b);
}

/* vmcs02 as a whole, but for what the processor writes. */
static struct vapic_sil_vmcs snapshot(struct vb *b)
{
    struct vapic_sil_vmcs copy = b->v[0]->vmcs02;

    vmcs_set(&copy, VMCS_EXIT_REASON, 0);
    vmcs_set(&copy, VMCS_EXIT_INTR_INFO, 0);
    vmcs_set(&copy, VMCS_EXIT_QUALIFICATION, 0);
    vmcs_set(&copy, VMCS_EXIT_LENGTH, 0);
    vmcs_set(&copy, VMCS_GUEST_RIP, 0);
    return copy;
}

static void l2_runs_while_l1s_apicv_is_toggled_1000_times(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});
    struct vapic_sil_vmcs before, after;
    uint32_t told01, told02;

    (void)state;
    assert_true(vb_enter(b, 0));
    vb_to_l2(b, 0);
    before = snapshot(b);
    told01 = b->v[0]->controls01;
    told02 = b->v[0]->controls02;
    for (uint32_t i = 0; i < 1000; i++) {
        inhibit(b, i % 2 == 0);
        b->v[0]->exit_count = 0;
        assert_true(vb_enter(b, 0));
        assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_STAY);
    }
    assert_int_equal(b->v[0]->failed, 0);
    assert_int_equal(b->v[0]->controls01, told01);
    assert_int_equal(b->v[0]->controls02, told02);
    after = snapshot(b);
    assert_memory_equal(&before, &after, sizeof(before));
    vb_to_l1(b, 0);
    assert_int_equal(b->v[0]->controls01, told01); /* on again: nothing differs */
    vb_to_l2(b, 0);
    inhibit(b, true);
    assert_true(vb_enter(b, 0));
    vb_to_l1(b, 0);
    assert_int_equal(get01(b, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS, 0);
    assert_true(vb_enter(b, 0));
    vb_free(b);
}

/* [1] of the scenarios: vmcs12 without a TPR shadow, and L1's acceleration comes while L2 runs. */
static void l1_is_not_blamed_for_l0s_update(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){0});

    (void)state;
    inhibit(b, true);
    assert_true(vb_enter(b, 0));
    vb_vmcs12(b, 0);
    no_shadow_at_all(&b->v[0]->vmcs12);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_enter(b, 0));
    inhibit(b, false);
    assert_true(vb_enter(b, 0));
    assert_int_equal(b->v[0]->failed, 0);
    vb_to_l1(b, 0);
    assert_int_equal(get01(b, VMCS_SECONDARY_CONTROLS) & 0x311,
                     VMX_SEC_APIC_ACCESSES | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY);
    assert_int_equal(get01(b, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS, 0x80);
    assert_true(vb_enter(b, 0));
    vb_free(b);
}

static void take_in_service(struct vb *b, uint8_t vector)
{
    vb_leave(b, 0);
    vb_act(b, 0, vapic_post(&b->v[0]->apic, vector, false, NULL));
    vb_run(b, 0);
    vb_leave(b, 0);
}

static void to_unvirtualized_l2(struct vb *b)
{
    vb_vmcs12(b, 0);
    no_shadow_at_all(&b->v[0]->vmcs12);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_enter(b, 0));
    vb_leave(b, 0);
}

/* [3]: an EOI of L2's on L1's APIC is in SVI of vmcs01, and nowhere in vmcs02. */
static void eois_passed_through_are_in_svi(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){0});

    (void)state;
    assert_true(vb_enter(b, 0));
    take_in_service(b, 0x60);
    assert_int_equal(get01(b, VMCS_GUEST_INTERRUPT_STATUS), 0x6000);
    vb_act(b, 0, vapic_post(&b->v[0]->apic, 0x40, false, NULL)); /* held back */
    to_unvirtualized_l2(b);
    vapic_mmio_write(&b->v[0]->apic, APIC_EOI, &(uint32_t){0}, 4, b->now);
    assert_int_equal(get02(b, VMCS_GUEST_INTERRUPT_STATUS), 0);
    vb_to_l1(b, 0);
    assert_int_equal(get01(b, VMCS_GUEST_INTERRUPT_STATUS), 0x0040);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[0], 0x40), 1);
    vb_free(b);
}

/* N12: ISR and SVI agree after any mix of pass-through EOIs, acknowledgements and toggles. */
static void svi_after_any_mix(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){0});
    uint32_t seed = 1;

    (void)state;
    assert_true(vb_enter(b, 0));
    for (uint32_t i = 0; i < 300; i++) {
        struct vapic *v = &b->v[0]->apic;
        uint32_t highest = 0;

        b->v[0]->exit_count = b->v[0]->delivered_count = 0;
        take_in_service(b, (uint8_t)(0x30 + i * 7 % 0xB0));
        b->v[0]->exit_count = b->v[0]->delivered_count = 0;
        to_unvirtualized_l2(b);
        for (uint32_t k = 0; k < 4; k++) {
            seed = seed * 1664525 + 1013904223;
            if (seed >> 30 & 1)
                vapic_mmio_write(v, APIC_EOI, &(uint32_t){0}, 4, b->now);
            else
                inhibit(b, seed >> 31);
            vapic_enter(v, VAPIC_CAN_INIT, b->now, &b->v[0]->entry);
            vapic_exit(v, 0, false);
        }
        inhibit(b, false);
        vb_to_l1(b, 0);
        vapic_enter(v, VAPIC_CAN_INIT, b->now, &b->v[0]->entry);
        vapic_exit(v, 0, false);
        for (uint32_t word = 0; word < 8; word++) {
            uint32_t value;

            memcpy(&value, b->v[0]->page + APIC_ISR + 16 * word, sizeof(value));
            if (value != 0)
                highest = 32 * word + 31 - (uint32_t)__builtin_clz(value);
        }
        assert_int_equal(get01(b, VMCS_GUEST_INTERRUPT_STATUS) >> 8, highest);
    }
    vb_free(b);
}

/* The mode of L1's APIC changes under L2: at the exit vmcs01 has it, its MSRs and the flush. */
static void a_change_of_mode_waits_for_the_exit(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){0});
    struct vapic *v = &b->v[0]->apic;

    (void)state;
    assert_true(vb_enter(b, 0));
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    b->v[0]->flushes = b->v[0]->passes01 = 0;
    assert_int_equal(vapic_load_base(v, vapic_base(v) | APIC_BASE_EXTD), VAPIC_OK);
    assert_true(vb_enter(b, 0));
    assert_int_equal(b->v[0]->passes01, 0);
    vb_to_l1(b, 0);
    assert_int_equal(get01(b, VMCS_SECONDARY_CONTROLS) & 0x11, VMX_SEC_X2APIC);
    assert_int_equal(b->v[0]->passes01, 1);
    assert_int_equal(b->v[0]->flushes, 0);
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    vapic_reset(v); /* host: back to xAPIC mode */
    b->v[0]->l2 = true;
    assert_int_equal(b->v[0]->flushes, 0);
    vb_to_l1(b, 0);
    assert_int_equal(get01(b, VMCS_SECONDARY_CONTROLS) & 0x11, VMX_SEC_APIC_ACCESSES);
    assert_int_equal(b->v[0]->flushes, 1);
    vb_free(b);
}

/* N4: after L2 vmcs01 is what it would be without: compared with a vCPU that never nests. */
static void vmcs01_is_what_a_vcpu_has_that_never_nests(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});
    struct vb *other = vb_new(&(struct vb_options){.x2apic = true});
    struct vb *both[2] = {b, other};

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(vb_enter(both[i], 0));
        take_in_service(both[i], 0x51);
    }
    vb_to_l2(b, 0);
    for (uint32_t i = 0; i < 2; i++) {
        inhibit(both[i], true);
        vb_enter(both[i], 0);
        vb_leave(both[i], 0);
        vapic_eoi(&both[i]->v[0]->apic);
        inhibit(both[i], false);
        assert_true(vapic_msr_write(&both[i]->v[0]->apic, 0x808, 0x20, both[i]->now) == VAPIC_OK);
    }
    vb_to_l1(b, 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(vb_enter(both[i], 0));
        vb_leave(both[i], 0);
    }
    static const uint32_t fields[] = {VMCS_PIN_CONTROLS,        VMCS_PRIMARY_CONTROLS,
                                      VMCS_SECONDARY_CONTROLS,  VMCS_TERTIARY_CONTROLS,
                                      VMCS_TPR_THRESHOLD,       VMCS_EOI_EXIT0,
                                      VMCS_EOI_EXIT1,           VMCS_EOI_EXIT2,
                                      VMCS_EOI_EXIT3,           VMCS_GUEST_INTERRUPT_STATUS,
                                      VMCS_NOTIFICATION_VECTOR, VMCS_LAST_PID_INDEX};

    for (uint32_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        assert_int_equal(get01(b, fields[i]), get01(other, fields[i]));
    assert_memory_equal(b->v[0]->bitmap01, other->v[0]->bitmap01, VB_PAGE);
    vb_free(b);
    vb_free(other);
}

/* The threshold of L1, while it is inhibited, after L2 has changed L1's TPR. */
static void the_threshold_of_vmcs01_follows(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});

    (void)state;
    inhibit(b, true);
    assert_true(vb_enter(b, 0));
    to_unvirtualized_l2(b);
    assert_int_equal(vapic_write_cr8(&b->v[0]->apic, 9), VAPIC_OK);
    vapic_post(&b->v[0]->apic, 0x51, false, NULL);
    assert_true(vb_enter(b, 0));
    assert_int_equal(get02(b, VMCS_TPR_THRESHOLD), 0);
    vb_to_l1(b, 0);
    assert_true(vb_enter(b, 0));
    assert_int_equal(get01(b, VMCS_TPR_THRESHOLD), 5);
    vb_free(b);
}

/* [40]: L0's I/O APIC changes for L1; L2's bitmap stays, and L1's has it at the exit. */
static void eoi_exits_of_l1_do_not_reach_l2(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});
    bool accepted;

    (void)state;
    assert_true(vb_enter(b, 0));
    vb_to_l2(b, 0);
    vb_act(b, 0, vapic_post(&b->v[0]->apic, 0x31, true, &accepted)); /* level triggered */
    vb_leave(b, 0);
    vapic_write_cr8(&b->v[0]->apic, 15); /* held back: no exit to L1 */
    vapic_enter(&b->v[0]->apic, VAPIC_CAN_INIT, b->now, &b->v[0]->entry);
    vapic_exit(&b->v[0]->apic, 0, false);
    assert_int_equal(get02(b, VMCS_EOI_EXIT0), 0);
    vb_to_l1(b, 0);
    assert_int_equal(get01(b, VMCS_EOI_EXIT0), UINT64_C(1) << 0x31);
    vb_free(b);
}

/* ---- Restore ---- */

static void restored_straight_into_l2(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});
    struct vb_vcpu *c = b->v[0];
    struct vapic_nested_view view = {.vmcs12 = &c->vmcs12, .pass = &c->pass};

    (void)state;
    /* It has never run: the update of its creation is pending, and L1 is inhibited. */
    inhibit(b, true);
    vb_vmcs12(b, 0);
    c->vmcs12.interrupt_status = 0x51;
    *vb_word(b, VB_APIC, APIC_IRR + 0x20) = 1u << 0x11;
    c->l2 = true;
    for (uint32_t i = 0; i < VB_PAGES; i++)
        b->gone[i] = true; /* memory comes later */
    assert_int_equal(vapic_nested_restore(&c->apic, &view, true), VAPIC_OK);
    assert_int_equal(vapic_nested_state(&c->apic), VAPIC_NESTED_RESTORED);
    assert_int_equal(b->all_pins + c->controls01 + c->controls02, 0);
    assert_false(vb_enter(b, 0));
    assert_int_equal(c->entry.nested, VAPIC_NESTED_STOP);
    memset(b->gone, 0, sizeof(b->gone));
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vapic_nested_state(&c->apic), VAPIC_NESTED_L2);
    assert_int_equal(vb_times(c, 0x151), 1);
    assert_int_equal(c->controls01, 0);
    inhibit(b, false);
    assert_true(vb_enter(b, 0));
    vb_to_l1(b, 0);
    assert_int_equal(get01(b, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS, 0x80);
    assert_int_equal(get01(b, VMCS_VIRTUAL_APIC), vb_hpa(b, c->page));
    assert_true(vb_enter(b, 0));
    vb_free(b);
}

/* Left before it ever ran: vmcs12 has what it had. */
static void restored_and_left_at_once(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){0});
    struct vb_vcpu *c = b->v[0];
    struct vapic_nested_view view = {.vmcs12 = &c->vmcs12, .pass = &c->pass};

    (void)state;
    vb_vmcs12(b, 0);
    c->vmcs12.interrupt_status = 0x4151;
    c->l2 = true;
    assert_int_equal(vapic_nested_restore(&c->apic, &view, false), VAPIC_OK);
    assert_int_equal(vb_to_l1(b, 0).interrupt_status, 0x4151);
    assert_int_equal(b->all_pins, 0);
    assert_true(vb_enter(b, 0));
    assert_int_equal(vapic_nested_restore(&c->apic, &(struct vapic_nested_view){0}, false),
                     VAPIC_E_ARG);
    vb_free(b);
}

/* ---- Memory ---- */

/* [7]: L2's page goes while it sleeps, or runs: a stop, and no touch of what is gone. */
static void a_page_that_goes_stops_l2(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true});

    (void)state;
    vb_to_l2(b, 0);
    assert_true(vb_halt(b, 0));
    b->gone[VB_APIC] = true;
    vapic_nested_unmap(&b->vm, vb_gpa(VB_APIC), VB_PAGE);
    assert_int_equal(b->pins[VB_APIC], 0);
    vb_post(b, 1, 0, 0x51);
    assert_false(vb_enter(b, 0));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_STOP);
    assert_false(vb_enter(b, 0));
    b->gone[VB_APIC] = false;
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    b->gone[VB_DESCRIPTORS] = true;
    vapic_nested_unmap(&b->vm, vb_gpa(VB_DESCRIPTORS), VB_PAGE);
    assert_false(vb_enter(b, 0));
    vb_to_l1(b, 0);
    assert_true(vb_enter(b, 0));
    vb_free(b);
}

/* ... and is left before it has found out, with something latched, or with an IPI to be sent. */
static void l2_is_left_whose_pages_have_gone(void **state)
{
    struct vapic_reflect r;

    (void)state;
    for (uint32_t page = 0; page < 2; page++) {
        struct vb *b = vb_new(&(struct vb_options){.x2apic = true});
        uint32_t gone = page ? VB_DESCRIPTORS : VB_APIC;

        vb_to_l2(b, 0);
        assert_int_equal(vb_icr(b, 0, 0x51, 1), VAPIC_SIL_EXIT);
        vb_post(b, 1, 0, 0x61);
        b->gone[gone] = true;
        vapic_nested_unmap(&b->vm, vb_gpa(gone), VB_PAGE);
        assert_int_equal(b->pins[gone], 0);
        assert_int_equal(vb_exit(b, 0, &r), page ? VAPIC_REFLECT : VAPIC_E_MEMORY);
        assert_int_equal(vb_to_l1(b, 0).interrupt_status, 0);
        assert_true(vb_enter(b, 0));
        vb_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_processor_refuses_is_refused),
        cmocka_unit_test(what_is_not_offered_is_refused),
        cmocka_unit_test(configurations),
        cmocka_unit_test(vmcs02_is_made_from_vmcs12),
        cmocka_unit_test(a_descriptor_within_a_page),
        cmocka_unit_test(without_a_tpr_shadow_cr8_exits),
        cmocka_unit_test(msrs_pass_only_where_l2s_page_answers),
        cmocka_unit_test(msrs_that_l1_intercepts_exit),
        cmocka_unit_test(l2_uses_apicv_though_l1_is_inhibited),
        cmocka_unit_test(l2_runs_while_l1s_apicv_is_toggled_1000_times),
        cmocka_unit_test(l1_is_not_blamed_for_l0s_update),
        cmocka_unit_test(eois_passed_through_are_in_svi),
        cmocka_unit_test(svi_after_any_mix),
        cmocka_unit_test(a_change_of_mode_waits_for_the_exit),
        cmocka_unit_test(vmcs01_is_what_a_vcpu_has_that_never_nests),
        cmocka_unit_test(the_threshold_of_vmcs01_follows),
        cmocka_unit_test(eoi_exits_of_l1_do_not_reach_l2),
        cmocka_unit_test(restored_straight_into_l2),
        cmocka_unit_test(restored_and_left_at_once),
        cmocka_unit_test(a_page_that_goes_stops_l2),
        cmocka_unit_test(l2_is_left_whose_pages_have_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
