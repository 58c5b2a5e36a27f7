/* SPDX-License-Identifier: MIT */
/* The Intel half of nested_fixture.h: what a VMLAUNCH loop does around the library, in L0 and in
 * L1, and L0's emulation of VMLAUNCH, VMRESUME and VM exits. */
#include "nested_fixture_private.h"

#include <string.h>

#define EPTP02  0x2000u
#define VPIDS02 32u /* of L0's for L2: these and up */
#define SECONDARY                                                                                  \
    (VMX_SEC_APIC_ACCESSES | VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY)
#define GARBAGE 0x5A5A5000u

/* Guest state that goes from 12 to 02 and back. */
static const uint32_t guest_state[] = {
    VMCS_GUEST_RIP,
    VMCS_GUEST_RFLAGS,
    VMCS_GUEST_SS_RIGHTS,
    VMCS_GUEST_INTERRUPTIBILITY,
};

static void copy_state(struct vapic_sil_vmcs *to, const struct vapic_sil_vmcs *from)
{
    for (uint32_t i = 0; i < sizeof(guest_state) / sizeof(guest_state[0]); i++)
        vmcs_set(to, guest_state[i], vmcs_get(from, guest_state[i]));
}

static bool has(const struct vapic_sil_vmcs *vmcs, uint32_t field, uint64_t bit)
{
    return (vmcs_get(vmcs, field) & bit) != 0;
}

static bool has_secondary(const struct vapic_sil_vmcs *vmcs, uint32_t bit)
{
    return has(vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_SECONDARY) &&
           has(vmcs, VMCS_SECONDARY_CONTROLS, bit);
}

static bool has_ipiv(const struct vapic_sil_vmcs *vmcs)
{
    return has(vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_TERTIARY) &&
           has(vmcs, VMCS_TERTIARY_CONTROLS, VMX_TER_IPI_VIRTUALIZATION);
}

/* ---- L0's control blocks ---- */

static struct vapic_sil_vmcs *current(struct nx_l1 *c)
{
    return c->l2 ? &c->vmcs02 : &c->vmcs01;
}

void nx_intel_control(struct nx_l1 *c, uint32_t field, uint64_t mask, uint64_t value, bool l2)
{
    vmcs_set_bits(l2 ? &c->vmcs02 : &c->vmcs01, field, mask, value);
}

uint16_t nx_intel_status(struct nx_l1 *c, bool l2)
{
    return (uint16_t)vmcs_get(l2 ? &c->vmcs02 : &c->vmcs01, VMCS_GUEST_INTERRUPT_STATUS);
}

static void intel_create(struct nx_l1 *c)
{
    struct nx *nx = c->nx;
    uint64_t access = nx_host_hpa(nx, nx->scratch);

    c->msrpm01 = nx_host_memory(nx, NX_PAGE, NX_PAGE);
    c->msrpm02 = nx_host_memory(nx, NX_PAGE, NX_PAGE);
    memset(c->msrpm01, 0xFF, NX_PAGE);
    memset(c->msrpm02, 0xFF, NX_PAGE);
    vmcs_create(&c->vmcs01, nx_host_hpa(nx, c->msrpm01), access, c->n + 1);
    vmcs_create(&c->vmcs02, nx_host_hpa(nx, c->msrpm02), access, VPIDS02 + c->n);
    vmcs_set(&c->vmcs02, VMCS_EPTP, EPTP02);
    vmcs_set(&c->vmcs01, VMCS_GUEST_RIP, 0x1000);
}

static uint32_t event_of(const struct nx_l1 *c)
{
    if (c->injected == VAPIC_INJECT_VECTOR)
        return VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | c->vector;
    return c->l2 ? (uint32_t)c->event12 : 0;
}

static bool window(const struct nx_l1 *c)
{
    return c->entry.irq_window ||
           (c->l2 && has(&c->vmcs12, VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW));
}

static enum vapic_sil_result intel_enter(struct nx_l1 *c)
{
    struct vapic_sil_cpu **last = c->l2 ? &c->last02 : &c->last01;
    bool open = c->l2 ? nx_current(c)->guest_if : nx_l1_open(c);
    enum vapic_sil_result result;

    vmcs_set(current(c), VMCS_ENTRY_INTR_INFO, event_of(c));
    vmcs_set_bits(current(c), VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW,
                  window(c) ? VMX_PRI_INTERRUPT_WINDOW : 0);
    vmcs_set_bits(current(c), VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, open ? VMX_RFLAGS_IF : 0);
    vmcs_set(current(c), VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE);
    if (c->cpu != *last && *last != NULL) /* INVVPID: that processor's cache is of before */
        vapic_sil_flush(c->cpu, APIC_DEFAULT_BASE);
    *last = c->cpu;
    result = vapic_sil_vmentry(c->cpu, current(c));
    if (result == VAPIC_SIL_INVALID)
        fail_msg("L1's vCPU %u: entry of %s fails", c->n, c->l2 ? "02" : "01");
    return result;
}

/* The TPR shadow lies in the page. */
static uint8_t intel_cr8(struct nx_l1 *c)
{
    return (uint8_t)vapic_read_cr8(&c->apic);
}

static void intel_why(struct nx_l1 *c, struct vapic_reflect *why)
{
    why->code = vmcs_get(current(c), VMCS_EXIT_REASON);
    why->info1 = vmcs_get(current(c), VMCS_EXIT_QUALIFICATION);
    why->info2 = vmcs_get(current(c), VMCS_EXIT_LENGTH);
}

static void intel_flush(struct nx_l1 *c)
{
    vapic_sil_flush(c->cpu, APIC_DEFAULT_BASE);
}

static void intel_intercept(struct nx_l1 *c, const struct vapic_msr_pass *pass, bool l2)
{
    vapic_pass_to_bitmap(pass, l2 ? c->msrpm02 : c->msrpm01);
}

static void advance(struct vapic_sil_vmcs *vmcs)
{
    uint64_t length = vmcs_get(vmcs, VMCS_EXIT_LENGTH);

    vmcs_set(vmcs, VMCS_GUEST_RIP, vmcs_get(vmcs, VMCS_GUEST_RIP) + length);
}

/* What the exit left undone; an instruction that faults does not move on. */
static enum nx_result emulate(struct nx_l1 *c, struct nx_op *op)
{
    enum nx_result result = nx_emulate(c, op);

    if (result == NX_DONE)
        advance(current(c));
    return result;
}

/* "Acknowledge interrupt on exit" has taken the vector from the local APIC. */
static enum nx_result host_interrupt(struct nx_l1 *c)
{
    uint64_t info = vmcs_get(current(c), VMCS_EXIT_INTR_INFO);

    if (info & VMX_INFO_VALID)
        nx_handle_interrupt(c->nx, c->cpu, (uint8_t)info);
    return NX_RETRY;
}

/* ---- Exits of L1 ---- */

static enum nx_result apic_exit(struct nx_l1 *c, const struct vapic_reflect *why, struct nx_op *op)
{
    int result = vapic_apicv_exit(&c->apic, (uint32_t)why->code, why->info1, c->nx->now);

    if (result == VAPIC_EMULATE)
        return emulate(c, op);
    if (result == VAPIC_ADVANCE)
        advance(&c->vmcs01);
    else
        assert_int_equal(result, VAPIC_OK);
    return op != NULL ? NX_DONE : NX_RETRY;
}

static enum nx_result intel_exit(struct nx_l1 *c, const struct vapic_reflect *why, struct nx_op *op)
{
    switch (why->code) {
    case VMX_EXIT_TPR_THRESHOLD:
    case VMX_EXIT_APIC_ACCESS:
    case VMX_EXIT_VIRTUALIZED_EOI:
    case VMX_EXIT_APIC_WRITE:
        return apic_exit(c, why, op);
    case VMX_EXIT_HLT:
    case VMX_EXIT_RDMSR:
    case VMX_EXIT_WRMSR:
    case VMX_EXIT_EPT_VIOLATION:
        return emulate(c, op);
    case VMX_EXIT_EXTINT:
        return host_interrupt(c);
    case VMX_EXIT_INTERRUPT_WINDOW:
        return NX_RETRY;
    default:
        fail_msg("L1's vCPU %u: exit %llu", c->n, (unsigned long long)why->code);
        return NX_STUCK;
    }
}

/* ---- Exits of L2 ---- */

/* L1's bitmap, in L1's memory. */
static bool msr_exits(const struct nx_l1 *c, uint32_t msr, bool write)
{
    const uint8_t *map;

    if (!has(&c->vmcs12, VMCS_PRIMARY_CONTROLS, VMX_PRI_MSR_BITMAPS) || msr > 0x1FFF)
        return true;
    map = nx_at(c->nx, vmcs_get(&c->vmcs12, VMCS_MSR_BITMAP));
    assert_non_null(map);
    map += write ? APICV_MSR_BITMAP_WRITE_LOW : APICV_MSR_BITMAP_READ_LOW;
    return (map[APICV_MSR_BITMAP_BYTE(msr)] & APICV_MSR_BITMAP_BIT(msr)) != 0;
}

static bool wants(const struct nx_l1 *c, const struct vapic_reflect *why, const struct nx_op *op)
{
    switch (why->code) {
    case VMX_EXIT_HLT:
        return has(&c->vmcs12, VMCS_PRIMARY_CONTROLS, VMX_PRI_HLT_EXITING);
    case VMX_EXIT_RDMSR:
    case VMX_EXIT_WRMSR:
        assert_non_null(op);
        return msr_exits(c, (uint32_t)op->address, op->write);
    case VMX_EXIT_CR_ACCESS:
        return has(&c->vmcs12, VMCS_PRIMARY_CONTROLS,
                   why->info1 & VMX_CR_MOV_FROM ? VMX_PRI_CR8_STORE : VMX_PRI_CR8_LOAD);
    case VMX_EXIT_EPT_VIOLATION:
        return !c->nx->options.pass_through; /* else L1 has mapped its own APIC there */
    default:
        return true;
    }
}

static bool apic_exit_l2(struct nx_l1 *c, struct vapic_reflect *why, const struct nx_op *op,
                         enum nx_result *result)
{
    struct vapic_reflect reflect;
    int done = vapic_nested_apicv_exit(&c->apic, (uint32_t)why->code, why->info1, &reflect);

    if (done == VAPIC_REFLECT) {
        why->code = reflect.code;
        why->info1 = reflect.info1;
        return true;
    }
    assert_true(done == VAPIC_OK || done == VAPIC_E_MEMORY);
    *result = op != NULL ? NX_DONE : NX_RETRY;
    if (done == VAPIC_E_MEMORY) {
        nx_stop(c);
        *result = NX_STUCK;
    }
    return false;
}

static bool intel_exit_l2(struct nx_l1 *c, struct vapic_reflect *why, struct nx_op *op,
                          enum nx_result *result)
{
    *result = NX_RETRY;
    switch (why->code) {
    case VMX_EXIT_TPR_THRESHOLD:
    case VMX_EXIT_APIC_ACCESS:
    case VMX_EXIT_VIRTUALIZED_EOI:
    case VMX_EXIT_APIC_WRITE:
        return apic_exit_l2(c, why, op, result);
    case VMX_EXIT_EXTINT:
        *result = host_interrupt(c);
        return false;
    case VMX_EXIT_INTERRUPT_WINDOW:
        return has(&c->vmcs12, VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW);
    default:
        break;
    }
    if (wants(c, why, op))
        return true;
    *result = emulate(c, op);
    c->halted = why->code == VMX_EXIT_HLT;
    return false;
}

/* ---- VMLAUNCH by L1 ---- */

static struct vapic_vmcs12 view_of(const struct vapic_sil_vmcs *vmcs)
{
    struct vapic_vmcs12 view = {
        .pin = (uint32_t)vmcs_get(vmcs, VMCS_PIN_CONTROLS),
        .primary = (uint32_t)vmcs_get(vmcs, VMCS_PRIMARY_CONTROLS),
        .secondary = (uint32_t)vmcs_get(vmcs, VMCS_SECONDARY_CONTROLS),
        .exit = (uint32_t)vmcs_get(vmcs, VMCS_EXIT_CONTROLS),
        .tertiary = vmcs_get(vmcs, VMCS_TERTIARY_CONTROLS),
        .notification_vector = (uint16_t)vmcs_get(vmcs, VMCS_NOTIFICATION_VECTOR),
        .last_pid_index = (uint16_t)vmcs_get(vmcs, VMCS_LAST_PID_INDEX),
        .interrupt_status = (uint16_t)vmcs_get(vmcs, VMCS_GUEST_INTERRUPT_STATUS),
        .tpr_threshold = (uint32_t)vmcs_get(vmcs, VMCS_TPR_THRESHOLD),
        .virtual_apic = vmcs_get(vmcs, VMCS_VIRTUAL_APIC),
        .apic_access = vmcs_get(vmcs, VMCS_APIC_ACCESS),
        .pid = vmcs_get(vmcs, VMCS_PID),
        .pid_table = vmcs_get(vmcs, VMCS_PID_TABLE),
    };

    for (uint32_t i = 0; i < 4; i++)
        view.eoi_exit[i] = vmcs_get(vmcs, VMCS_EOI_EXIT0 + 2 * i);
    return view;
}

static void pass12(const struct nx_l1 *c, struct vapic_msr_pass *pass)
{
    memset(pass, 0, sizeof(*pass));
    for (uint32_t i = 0; i < 256; i++) {
        pass->read[i / 64] |= (uint64_t)!msr_exits(c, MSR_X2APIC_FIRST + i, false) << (i % 64);
        pass->write[i / 64] |= (uint64_t)!msr_exits(c, MSR_X2APIC_FIRST + i, true) << (i % 64);
    }
}

/* All of 02 that is not the virtual APIC's. */
static void build02(struct nx_l1 *c)
{
    uint64_t vpid = vmcs_get(&c->vmcs12, VMCS_VPID);
    bool shadow = has(&c->vmcs12, VMCS_PRIMARY_CONTROLS, VMX_PRI_TPR_SHADOW);

    copy_state(&c->vmcs02, &c->vmcs12);
    if (c->null_view && !shadow) /* CR8 is L1's, or L1 wants to see it */
        vmcs_set_bits(&c->vmcs02, VMCS_PRIMARY_CONTROLS, VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE,
                      VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE);
    if (vpid != c->asid12)
        vapic_sil_flush(c->cpu, APIC_DEFAULT_BASE);
    c->asid12 = vpid;
}

static int fail_entry(struct nx_l1 *c, int result)
{
    struct vapic_sil_vmcs *to = nx_at(c->nx, c->gpa12);

    c->l2 = false;
    vmcs_set(to, VMCS_INSTRUCTION_ERROR, VMX_ERROR_CONTROLS);
    return result;
}

static int intel_nested_enter(struct nx_l1 *c)
{
    struct vapic_msr_pass pass;
    struct vapic_vmcs12 vmcs12;
    struct vapic_nested_view view = {.vmcs12 = &vmcs12, .pass = &pass};
    uint32_t event;
    int result;

    assert_non_null(nx_at(c->nx, c->gpa12));
    memcpy(&c->vmcs12, nx_at(c->nx, c->gpa12), sizeof(c->vmcs12));
    c->null_view = !c->nx->has_nested || c->nx->options.null_view;
    build02(c);
    vmcs12 = view_of(&c->vmcs12);
    pass12(c, &pass);
    c->l2 = true;
    result = vapic_nested_enter(&c->apic, c->null_view ? NULL : &view);
    if (result != VAPIC_OK)
        return fail_entry(c, result);
    event = (uint32_t)vmcs_get(&c->vmcs12, VMCS_ENTRY_INTR_INFO);
    c->event12 = event & VMX_INFO_VALID ? event : 0;
    c->halted = c->event12 == 0 && vmcs_get(&c->vmcs12, VMCS_GUEST_ACTIVITY) == VMX_ACTIVITY_HLT;
    if (c->halted) { /* there is no first instruction before which L2 could not be left */
        vapic_halt(&c->apic);
        vapic_nested_ran(&c->apic);
    }
    return VAPIC_OK;
}

static void intel_sync(struct nx_l1 *c)
{
    if (has_secondary(&c->vmcs12, VMX_SEC_INTERRUPT_DELIVERY))
        vmcs_set(&c->vmcs12, VMCS_GUEST_INTERRUPT_STATUS, nx_intel_status(c, true));
}

static int intel_restore(struct nx_l1 *c, bool ran)
{
    struct vapic_msr_pass pass;
    struct vapic_vmcs12 vmcs12 = view_of(&c->vmcs12);
    struct vapic_nested_view view = {.vmcs12 = &vmcs12, .pass = &pass};

    pass12(c, &pass);
    return vapic_nested_restore(&c->apic, c->null_view ? NULL : &view, ran);
}

/* ---- VM exit to L1 ---- */

static void tell_exit(struct nx_l1 *c, struct vapic_sil_vmcs *to, const struct vapic_reflect *why)
{
    vmcs_set(to, VMCS_GUEST_ACTIVITY, c->halted ? VMX_ACTIVITY_HLT : VMX_ACTIVITY_ACTIVE);
    c->halted = false;
    vmcs_set(to, VMCS_EXIT_REASON, why->code);
    vmcs_set(to, VMCS_EXIT_QUALIFICATION, why->info1);
    vmcs_set(to, VMCS_EXIT_LENGTH, why->info2);
    vmcs_set(to, VMCS_EXIT_INTR_INFO, 0);
    vmcs_set(to, VMCS_IDT_VECTORING, c->event12);
    vmcs_set_bits(to, VMCS_ENTRY_INTR_INFO, VMX_INFO_VALID, 0);
}

/* An interrupt of L1's, with 01 current again. */
static void acknowledge(struct nx_l1 *c, struct vapic_sil_vmcs *to)
{
    int vector;

    if (!has(to, VMCS_EXIT_CONTROLS, VMX_EXC_ACK_INTERRUPT))
        return;
    vector = vapic_nested_acknowledge(&c->apic);
    assert_int_not_equal(vector, VAPIC_NESTED_EXTINT);
    if (vector >= 0)
        vmcs_set(to, VMCS_EXIT_INTR_INFO,
                 VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | (uint32_t)vector);
}

static void intel_nested_leave(struct nx_l1 *c, const struct vapic_reflect *why)
{
    struct vapic_sil_vmcs *to = nx_at(c->nx, c->gpa12);
    struct vapic_nested_left left;

    assert_non_null(to);
    vapic_nested_leave(&c->apic, &left);
    copy_state(to, &c->vmcs02);
    if (has_secondary(to, VMX_SEC_INTERRUPT_DELIVERY))
        vmcs_set(to, VMCS_GUEST_INTERRUPT_STATUS, left.interrupt_status);
    tell_exit(c, to, why);
    c->l2 = false;
    vapic_nested_exit(&c->apic);
    if (why->code == VMX_EXIT_EXTINT)
        acknowledge(c, to);
}

static bool intel_intercepts(const struct nx_l1 *c)
{
    return has(&c->vmcs12, VMCS_PIN_CONTROLS, VMX_PIN_EXTINT_EXITING);
}

static bool intel_masked(const struct nx_l1 *c)
{
    (void)c;
    return false;
}

/* ---- What the processor is told ---- */

static void intel_scramble(struct nx_l1 *c)
{
    static const uint32_t fields[] = {VMCS_VIRTUAL_APIC, VMCS_APIC_ACCESS, VMCS_PID,
                                      VMCS_PID_TABLE,    VMCS_EOI_EXIT0,   VMCS_EOI_EXIT1,
                                      VMCS_EOI_EXIT2,    VMCS_EOI_EXIT3};
    struct vapic_sil_vmcs *vmcs = &c->vmcs02;

    if (c->null_view) /* nothing of it is the library's */
        return;
    for (uint32_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        vmcs_set(vmcs, fields[i], GARBAGE);
    vmcs_set(vmcs, VMCS_GUEST_INTERRUPT_STATUS, 0xA5A5);
    vmcs_set(vmcs, VMCS_TPR_THRESHOLD, 7);
    vmcs_set(vmcs, VMCS_NOTIFICATION_VECTOR, 0x5A);
    vmcs_set(vmcs, VMCS_LAST_PID_INDEX, 0x5A);
    vmcs_set_bits(vmcs, VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS,
                  ~vmcs_get(vmcs, VMCS_PIN_CONTROLS));
    vmcs_set_bits(vmcs, VMCS_SECONDARY_CONTROLS, SECONDARY,
                  ~vmcs_get(vmcs, VMCS_SECONDARY_CONTROLS));
    memset(c->msrpm02, 0, NX_PAGE);
}

static void check_table(struct nx *nx, const struct vapic_sil_vmcs *vmcs)
{
    uint64_t table = vmcs_get(vmcs, VMCS_PID_TABLE);

    for (uint32_t i = 0; i <= vmcs_get(vmcs, VMCS_LAST_PID_INDEX); i++) {
        const uint64_t *entry = nx_sil_memory(nx, table + 8ull * i, 8);

        assert_true(nx_is_host(nx, table + 8ull * i)); /* never L1's own */
        if (*entry & APICV_PID_ENTRY_VALID && !nx_is_host(nx, *entry & ~APICV_PID_ENTRY_FLAGS))
            fail_msg("entry %u leads to %#llx", i, (unsigned long long)*entry);
    }
}

static void check_page(struct nx *nx, uint64_t hpa)
{
    assert_true(nx_safe(nx, hpa));
    assert_non_null(nx_page_at(nx, hpa));
}

static void check_controls(const struct nx_l1 *c)
{
    const struct vapic_sil_vmcs *now = &c->vmcs02, *l1s = &c->vmcs12;

    assert_int_equal(has(now, VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS),
                     has(l1s, VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS));
    assert_int_equal(has(now, VMCS_PRIMARY_CONTROLS, VMX_PRI_TPR_SHADOW),
                     has(l1s, VMCS_PRIMARY_CONTROLS, VMX_PRI_TPR_SHADOW));
    for (uint32_t bit = 0; bit < 10; bit++)
        if (SECONDARY >> bit & 1)
            assert_int_equal(has_secondary(now, 1u << bit), has_secondary(l1s, 1u << bit));
    assert_int_equal(has_ipiv(now), has_ipiv(l1s));
}

static void check02(struct nx *nx, const struct nx_l1 *c)
{
    const struct vapic_sil_vmcs *vmcs = &c->vmcs02;

    if (!c->null_view)
        check_controls(c);
    if (has(vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_TPR_SHADOW))
        check_page(nx, vmcs_get(vmcs, VMCS_VIRTUAL_APIC));
    if (has_secondary(vmcs, VMX_SEC_APIC_ACCESSES))
        check_page(nx, vmcs_get(vmcs, VMCS_APIC_ACCESS));
    if (has(vmcs, VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS)) {
        assert_true(nx_safe(nx, vmcs_get(vmcs, VMCS_PID)));
        assert_int_equal(vmcs_get(vmcs, VMCS_NOTIFICATION_VECTOR), NX_NESTED_VECTOR);
    }
}

/* Also: 01 names L1's APIC only, 02 L2's only. */
static void intel_check(struct nx *nx, const struct nx_l1 *c)
{
    const struct vapic_sil_vmcs *vmcs = c->l2 ? &c->vmcs02 : &c->vmcs01;

    if (c->l2)
        check02(nx, c);
    else
        assert_int_equal(vmcs_get(vmcs, VMCS_VIRTUAL_APIC), nx_host_hpa(nx, c->page));
    if (has_ipiv(vmcs))
        check_table(nx, vmcs);
}

static bool intel_names(struct nx *nx, const struct nx_l1 *c, uint64_t hpa)
{
    const struct vapic_sil_vmcs *vmcs = &c->vmcs02;

    (void)nx;
    return (has(vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_TPR_SHADOW) &&
            vmcs_get(vmcs, VMCS_VIRTUAL_APIC) == hpa) ||
           (has_secondary(vmcs, VMX_SEC_APIC_ACCESSES) &&
            vmcs_get(vmcs, VMCS_APIC_ACCESS) == hpa) ||
           (has(vmcs, VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS) &&
            vmcs_get(vmcs, VMCS_PID) / NX_PAGE == hpa / NX_PAGE);
}

/* ---- L1 ---- */

/* What L1's libvapic wants in vmcs12; NX_L2_APICV is what L1 makes of it that does without posted
 * interrupts. */
void nx_intel_control12(struct nx_l2_vcpu *c, uint32_t field, uint64_t mask, uint64_t value)
{
    if (field == VMCS_PIN_CONTROLS && c->nx->options.l2 == NX_L2_APICV)
        value &= ~(uint64_t)VMX_PIN_POSTED_INTERRUPTS;
    vmcs_set_bits(&c->vmcs, field, mask, value);
}

static void intel_create12(struct nx_l2_vcpu *c)
{
    const struct nx_options *o = &c->nx->options;
    struct nx *nx = c->nx;

    c->msrpm = nx_l1_memory(nx, NX_PAGE, NX_PAGE);
    memset(c->msrpm, 0xFF, NX_PAGE);
    c->gpa12 = nx_gpa(nx, &c->vmcs);
    vmcs_create(&c->vmcs, nx_gpa(nx, c->msrpm), nx_gpa(nx, nx->l2_scratch), c->n + 1);
    vmcs_set(&c->vmcs, VMCS_GUEST_RIP, 0x1000);
    if (o->hlt_inside)
        vmcs_set_bits(&c->vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_HLT_EXITING, 0);
    if (o->intr_inside)
        vmcs_set_bits(&c->vmcs, VMCS_PIN_CONTROLS, VMX_PIN_EXTINT_EXITING, 0);
    if (o->no_ack)
        vmcs_set_bits(&c->vmcs, VMCS_EXIT_CONTROLS, VMX_EXC_ACK_INTERRUPT, 0);
    if (o->pass_through)
        for (uint32_t msr = MSR_X2APIC_FIRST; msr <= MSR_X2APIC_LAST; msr++) {
            c->msrpm[APICV_MSR_BITMAP_BYTE(msr)] = 0;
            c->msrpm[APICV_MSR_BITMAP_WRITE_LOW + APICV_MSR_BITMAP_BYTE(msr)] = 0;
        }
    else if (o->l2 == NX_L2_NONE)
        vmcs_set_bits(&c->vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE,
                      UINT64_MAX);
}

static void intel_prepare12(struct nx_l2_vcpu *c)
{
    uint32_t event = VMX_INFO_VALID | VMX_INFO_TYPE_EXTERNAL | c->entry.vector;

    vmcs_set(&c->vmcs, VMCS_ENTRY_INTR_INFO, c->injected == VAPIC_INJECT_VECTOR ? event : 0);
    vmcs_set_bits(&c->vmcs, VMCS_PRIMARY_CONTROLS, VMX_PRI_INTERRUPT_WINDOW,
                  c->entry.irq_window ? VMX_PRI_INTERRUPT_WINDOW : 0);
    vmcs_set_bits(&c->vmcs, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, c->guest_if ? VMX_RFLAGS_IF : 0);
    vmcs_set(&c->vmcs, VMCS_GUEST_INTERRUPTIBILITY, 0);
    if (c->l1_wants_flush || c->on != c->last) { /* INVVPID by L1, which L0 emulates */
        nx_leave(c->nx, (uint32_t)c->on);
        vapic_sil_flush(c->nx->l1[c->on]->cpu, APIC_DEFAULT_BASE);
    }
    c->l1_wants_flush = false;
    c->last = c->on;
}

static uint8_t intel_cr8_12(struct nx_l2_vcpu *c)
{
    return (uint8_t)vapic_read_cr8(&c->apic);
}

static enum nx_result emulate12(struct nx_l2_vcpu *c, struct nx_op *op)
{
    enum nx_result result = nx_emulate12(c, op);

    if (result == NX_DONE)
        advance(&c->vmcs);
    return result;
}

static enum nx_result apic_exit12(struct nx_l2_vcpu *c, uint32_t reason, struct nx_op *op)
{
    int result =
        vapic_apicv_exit(&c->apic, reason, vmcs_get(&c->vmcs, VMCS_EXIT_QUALIFICATION), c->nx->now);

    if (result == VAPIC_EMULATE)
        return emulate12(c, op);
    if (result == VAPIC_ADVANCE)
        advance(&c->vmcs);
    else
        assert_int_equal(result, VAPIC_OK);
    return op != NULL ? NX_DONE : NX_RETRY;
}

static enum nx_result interrupt12(struct nx_l2_vcpu *c)
{
    uint64_t info = vmcs_get(&c->vmcs, VMCS_EXIT_INTR_INFO);

    if (info & VMX_INFO_VALID)
        nx_l1_handler(c->nx->l1[c->on], (uint8_t)info, false);
    return NX_RETRY;
}

static enum nx_result intel_exit12(struct nx_l2_vcpu *c, struct nx_op *op)
{
    uint32_t reason = (uint32_t)vmcs_get(&c->vmcs, VMCS_EXIT_REASON);

    switch (reason) {
    case VMX_EXIT_TPR_THRESHOLD:
    case VMX_EXIT_APIC_ACCESS:
    case VMX_EXIT_VIRTUALIZED_EOI:
    case VMX_EXIT_APIC_WRITE:
        return apic_exit12(c, reason, op);
    case VMX_EXIT_HLT:
    case VMX_EXIT_RDMSR:
    case VMX_EXIT_WRMSR:
    case VMX_EXIT_EPT_VIOLATION:
    case VMX_EXIT_CR_ACCESS:
        return emulate12(c, op);
    case VMX_EXIT_EXTINT:
        return interrupt12(c);
    case VMX_EXIT_INTERRUPT_WINDOW:
        return NX_RETRY;
    default:
        fail_msg("L2's vCPU %u: exit %u", c->n, reason);
        return NX_STUCK;
    }
}

static void intel_intercept12(struct nx_l2_vcpu *c, const struct vapic_msr_pass *pass)
{
    vapic_pass_to_bitmap(pass, c->msrpm);
}

const struct nx_vendor nx_intel = {
    .silicon = VAPIC_SIL_INTEL,
    .leave_code = VMX_EXIT_EXTINT,
    .interrupt_code = VMX_EXIT_EXTINT,
    .run_code = VMX_EXIT_VMLAUNCH,
    .create = intel_create,
    .enter = intel_enter,
    .cr8 = intel_cr8,
    .why = intel_why,
    .exit = intel_exit,
    .exit_l2 = intel_exit_l2,
    .nested_enter = intel_nested_enter,
    .nested_leave = intel_nested_leave,
    .sync = intel_sync,
    .restore = intel_restore,
    .intercepts = intel_intercepts,
    .masked = intel_masked,
    .flush = intel_flush,
    .intercept = intel_intercept,
    .scramble = intel_scramble,
    .check = intel_check,
    .names = intel_names,
    .create12 = intel_create12,
    .prepare12 = intel_prepare12,
    .cr8_12 = intel_cr8_12,
    .exit12 = intel_exit12,
    .intercept12 = intel_intercept12,
};
