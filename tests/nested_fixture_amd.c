/* SPDX-License-Identifier: MIT */
/* The AMD half of nested_fixture.h: what a VMRUN loop does around the library, in L0 and in L1, and
 * L0's emulation of VMRUN and #VMEXIT. */
#include "nested_fixture_private.h"

#include <string.h>

#define ASIDS02 32u /* of L0's for L2: these and up */
#define MODE    (VMCB_V_AVIC | VMCB_V_X2AVIC)
/* What of int_ctl is not AVIC's and 02 takes from 12; V_INTR_MASKING is always on. */
#define FROM12 (VMCB_V_TPR | VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR | VMCB_V_VECTOR)

/* ---- L0's control blocks ---- */

static uint8_t *current(const struct nx_l1 *c)
{
    return c->l2 ? c->vmcb02 : c->vmcb01;
}

static void amd_create(struct nx_l1 *c)
{
    struct nx *nx = c->nx;

    c->vmcb01 = nx_host_memory(nx, VMCB_SIZE, NX_PAGE);
    c->vmcb02 = nx_host_memory(nx, VMCB_SIZE, NX_PAGE);
    c->vmcb12 = nx_host_memory(nx, VMCB_SIZE, NX_PAGE);
    c->msrpm01 = nx_host_memory(nx, SVM_MSRPM_SIZE, NX_PAGE);
    c->msrpm02 = nx_host_memory(nx, SVM_MSRPM_SIZE, NX_PAGE);
    vmcb_create(c->vmcb01, c->msrpm01, nx_host_hpa(nx, c->msrpm01), c->n + 1);
    vmcb_create(c->vmcb02, c->msrpm02, nx_host_hpa(nx, c->msrpm02), ASIDS02 + c->n);
}

static void amd_flush(struct nx_l1 *c)
{
    c->vmcb01[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
}

/* A dummy virtual interrupt of the highest priority, to exit when L1 opens the window. */
static void request_window(struct nx_l1 *c, bool wanted)
{
    uint64_t control =
        vmcb_get64(c->vmcb01, VMCB_INT_CTL) & ~(VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR);
    uint32_t intercepts = vmcb_get32(c->vmcb01, VMCB_INTERCEPT3) & ~VMCB_I3_VINTR;

    if (wanted) {
        control |= VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR;
        intercepts |= VMCB_I3_VINTR;
        assert_int_equal(control & VMCB_V_AVIC, 0);
    }
    vmcb_set64(c->vmcb01, VMCB_INT_CTL, control);
    vmcb_set32(c->vmcb01, VMCB_INTERCEPT3, intercepts);
    vmcb_dirty(c->vmcb01, VMCB_CLEAN_TPR | VMCB_CLEAN_INTERCEPTS);
}

static void prepare01(struct nx_l1 *c)
{
    bool window = c->entry.irq_window;

    if (window || vmcb_get32(c->vmcb01, VMCB_INTERCEPT3) & VMCB_I3_VINTR)
        request_window(c, window);
    vmcb_set64(c->vmcb01, VMCB_RFLAGS, nx_l1_open(c) ? VMCB_RFLAGS_IF | 2 : 2);
    assert_int_equal(vmcb_get64(c->vmcb01, VMCB_INT_CTL) & VMCB_V_TPR, c->entry.cr8);
}

/* Without an intercept of INTR there is no window to be asked for in V_IRQ, which is L1's: the
 * instruction that opens it is watched instead (nx_l2_if()). */
static void prepare02(struct nx_l1 *c)
{
    vmcb_set64(c->vmcb02, VMCB_RFLAGS, nx_current(c)->guest_if ? VMCB_RFLAGS_IF | 2 : 2);
}

static uint64_t event_of(const struct nx_l1 *c)
{
    if (c->injected == VAPIC_INJECT_VECTOR)
        return VMCB_EVENT_VALID | VMCB_EVENT_INTR | c->vector;
    return c->l2 ? c->event12 : 0;
}

static enum vapic_sil_result amd_enter(struct nx_l1 *c)
{
    struct vapic_sil_cpu **last = c->l2 ? &c->last02 : &c->last01;
    uint8_t *vmcb = current(c);
    enum vapic_sil_result result;

    if (c->l2)
        prepare02(c);
    else
        prepare01(c);
    vmcb_set64(vmcb, VMCB_EVENTINJ, event_of(c));
    if (c->cpu != *last) { /* what it has cached is of an earlier time [APM2 15.15.2] */
        vmcb_set32(vmcb, VMCB_CLEAN, 0);
        vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
    }
    *last = c->cpu;
    result = vapic_sil_vmrun(c->cpu, nx_host_hpa(c->nx, vmcb));
    /* What is not touched until the next entry is as the processor has it. */
    vmcb_set32(vmcb, VMCB_CLEAN, 0xFFFFFFFF);
    vmcb[VMCB_TLB_CONTROL] = VMCB_TLB_NOTHING;
    return result;
}

static uint8_t amd_cr8(struct nx_l1 *c)
{
    return (uint8_t)(vmcb_get64(c->vmcb01, VMCB_INT_CTL) & VMCB_V_TPR);
}

static void amd_why(struct nx_l1 *c, struct vapic_reflect *why)
{
    const uint8_t *vmcb = current(c);

    why->code = vmcb_get64(vmcb, VMCB_EXITCODE);
    why->info1 = vmcb_get64(vmcb, VMCB_EXITINFO1);
    why->info2 = vmcb_get64(vmcb, VMCB_EXITINFO2);
}

static void amd_intercept(struct nx_l1 *c, const struct vapic_msr_pass *pass, bool l2)
{
    vapic_pass_to_msrpm(pass, l2 ? c->msrpm02 : c->msrpm01);
    vmcb_dirty(l2 ? c->vmcb02 : c->vmcb01, VMCB_CLEAN_PERMISSION);
}

/* ---- Exits of L1 ---- */

static enum nx_result amd_exit(struct nx_l1 *c, const struct vapic_reflect *why, struct nx_op *op)
{
    int result;

    switch (why->code) {
    case SVM_EXIT_AVIC_INCOMPLETE:
    case SVM_EXIT_AVIC_NOACCEL:
        result = vapic_avic_exit(&c->apic, why->code, why->info1, why->info2, c->nx->now);
        if (result == VAPIC_EMULATE)
            return nx_emulate(c, op);
        assert_int_equal(result, VAPIC_OK);
        return NX_DONE;
    case SVM_EXIT_NPF:
    case SVM_EXIT_MSR:
    case SVM_EXIT_CR8_WRITE:
    case SVM_EXIT_HLT:
        return nx_emulate(c, op);
    case SVM_EXIT_INTR:
    case SVM_EXIT_VINTR:
        return NX_RETRY;
    default:
        fail_msg("L1's vCPU %u: exit %#llx", c->n, (unsigned long long)why->code);
        return NX_STUCK;
    }
}

/* ---- Exits of L2 ---- */

static bool intercepts3(const struct nx_l1 *c, uint32_t bit)
{
    return (vmcb_get32(c->vmcb12, VMCB_INTERCEPT3) & bit) != 0;
}

/* L1's permission map, in L1's memory. */
static const uint8_t *msrpm12(const struct nx_l1 *c)
{
    const uint8_t *map = nx_at(c->nx, vmcb_get64(c->vmcb12, VMCB_MSRPM_BASE));

    assert_non_null(map);
    return map;
}

static bool msr_exits(const struct nx_l1 *c, uint32_t msr, bool write)
{
    int32_t bit = svm_msrpm_bit(msr);

    if (!intercepts3(c, VMCB_I3_MSR))
        return false;
    if (bit < 0)
        return true;
    bit += write;
    return msrpm12(c)[bit / 8] >> (bit % 8) & 1;
}

static bool wants(const struct nx_l1 *c, uint64_t code, const struct nx_op *op)
{
    switch (code) {
    case SVM_EXIT_HLT:
        return intercepts3(c, VMCB_I3_HLT);
    case SVM_EXIT_MSR:
        assert_non_null(op);
        return msr_exits(c, (uint32_t)op->address, op->write);
    case SVM_EXIT_CR8_READ:
        return vmcb_get32(c->vmcb12, VMCB_INTERCEPT_CR) & VMCB_CR8_READ;
    case SVM_EXIT_CR8_WRITE:
        return vmcb_get32(c->vmcb12, VMCB_INTERCEPT_CR) & VMCB_CR8_WRITE;
    case SVM_EXIT_NPF:
        return !c->nx->options.pass_through; /* else L1 has mapped its own APIC there */
    default:
        return true;
    }
}

static bool avic_exit(struct nx_l1 *c, struct vapic_reflect *why, enum nx_result *result)
{
    struct vapic_reflect reflect;
    int done = vapic_nested_avic_exit(&c->apic, why->code, why->info1, why->info2, &reflect);

    if (done == VAPIC_E_MEMORY)
        nx_stop(c);
    *result = done == VAPIC_OK ? NX_DONE : NX_STUCK;
    if (done != VAPIC_REFLECT) {
        assert_true(done == VAPIC_OK || done == VAPIC_E_MEMORY);
        return false;
    }
    *why = reflect;
    return true;
}

static bool amd_exit_l2(struct nx_l1 *c, struct vapic_reflect *why, struct nx_op *op,
                        enum nx_result *result)
{
    switch (why->code) {
    case SVM_EXIT_AVIC_INCOMPLETE:
    case SVM_EXIT_AVIC_NOACCEL:
        return avic_exit(c, why, result);
    case SVM_EXIT_INTR:
        *result = NX_RETRY;
        return false;
    default:
        break;
    }
    if (wants(c, why->code, op))
        return true;
    /* L1 lets it pass, and x2AVIC has no such register. */
    if (why->code == SVM_EXIT_MSR && vmcb_get64(c->vmcb12, VMCB_INT_CTL) & VMCB_V_X2AVIC)
        *result = NX_GP;
    else
        *result = nx_emulate(c, op);
    return false;
}

/* ---- VMRUN by L1 ---- */

static bool avic12(const struct nx_l1 *c)
{
    return (vmcb_get64(c->vmcb12, VMCB_INT_CTL) & VMCB_V_AVIC) != 0;
}

static bool masking12(const struct nx_l1 *c)
{
    return (vmcb_get64(c->vmcb12, VMCB_INT_CTL) & VMCB_V_INTR_MASKING) != 0;
}

static void pass12(const struct nx_l1 *c, struct vapic_msr_pass *pass)
{
    memset(pass, 0, sizeof(*pass));
    for (uint32_t i = 0; i < 256; i++) {
        pass->read[i / 64] |= (uint64_t)!msr_exits(c, MSR_X2APIC_FIRST + i, false) << (i % 64);
        pass->write[i / 64] |= (uint64_t)!msr_exits(c, MSR_X2APIC_FIRST + i, true) << (i % 64);
    }
}

/* All of 02 that is not AVIC's. */
static void build02(struct nx_l1 *c)
{
    uint8_t *to = c->vmcb02;
    const uint8_t *from = c->vmcb12;
    uint32_t cr = vmcb_get32(from, VMCB_INTERCEPT_CR);
    uint64_t asid = vmcb_get32(from, VMCB_ASID);

    if (!avic12(c) && !masking12(c)) /* CR8 is L1's */
        cr |= VMCB_CR8_READ | VMCB_CR8_WRITE;
    vmcb_set32(to, VMCB_INTERCEPT_CR, cr);
    vmcb_set32(to, VMCB_INTERCEPT3,
               vmcb_get32(from, VMCB_INTERCEPT3) | VMCB_I3_INTR | VMCB_I3_NMI | VMCB_I3_HLT |
                   VMCB_I3_MSR);
    vmcb_set32(to, VMCB_INTERCEPT4, vmcb_get32(from, VMCB_INTERCEPT4) | VMCB_I4_VMRUN);
    vmcb_set64(to, VMCB_INT_CTL, (vmcb_get64(from, VMCB_INT_CTL) & FROM12) | VMCB_V_INTR_MASKING);
    vmcb_set64(to, VMCB_INT_STATE, vmcb_get64(from, VMCB_INT_STATE));
    vmcb_set64(to, VMCB_RIP, vmcb_get64(from, VMCB_RIP));
    to[VMCB_CPL] = from[VMCB_CPL];
    vmcb_set64(to, VMCB_NP_ENABLE, VMCB_NP_ENABLED);
    if (asid != c->asid12 || from[VMCB_TLB_CONTROL] != VMCB_TLB_NOTHING)
        to[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
    c->asid12 = asid;
    vmcb_set32(to, VMCB_CLEAN, 0);
}

/* [APM2 15.5.1], as far as it is not the library's. */
static bool legal12(const struct nx_l1 *c)
{
    return (vmcb_get32(c->vmcb12, VMCB_INTERCEPT4) & VMCB_I4_VMRUN) != 0 &&
           vmcb_get32(c->vmcb12, VMCB_ASID) != 0;
}

static int fail_vmrun(struct nx_l1 *c, int result)
{
    c->l2 = false;
    vmcb_set64(nx_at(c->nx, c->gpa12), VMCB_EXITCODE, SVM_EXIT_INVALID);
    return result;
}

static int amd_nested_enter(struct nx_l1 *c)
{
    struct vapic_msr_pass pass;
    struct vapic_nested_view view = {.vmcb12 = c->vmcb12, .pass = &pass, .l1_if = c->l1_if};
    uint64_t event;
    int result;

    assert_non_null(nx_at(c->nx, c->gpa12));
    memcpy(c->vmcb12, nx_at(c->nx, c->gpa12), VMCB_SIZE);
    if (!legal12(c))
        return fail_vmrun(c, VAPIC_E_CONTROLS);
    build02(c);
    pass12(c, &pass);
    c->l2 = true;
    c->null_view = !c->nx->has_nested || c->nx->options.null_view;
    result = vapic_nested_enter(&c->apic, c->null_view ? NULL : &view);
    if (result != VAPIC_OK)
        return fail_vmrun(c, result);
    event = vmcb_get64(c->vmcb12, VMCB_EVENTINJ);
    c->event12 = event & VMCB_EVENT_VALID ? event : 0;
    return VAPIC_OK;
}

#define LIVE (VMCB_V_TPR | VMCB_V_IRQ)

static void amd_sync(struct nx_l1 *c)
{
    uint64_t live = vmcb_get64(c->vmcb02, VMCB_INT_CTL) & LIVE;

    vmcb_set64(c->vmcb12, VMCB_INT_CTL, (vmcb_get64(c->vmcb12, VMCB_INT_CTL) & ~LIVE) | live);
}

static int amd_restore(struct nx_l1 *c, bool ran)
{
    struct vapic_msr_pass pass;
    struct vapic_nested_view view = {.vmcb12 = c->vmcb12, .pass = &pass, .l1_if = c->l1_if};

    pass12(c, &pass);
    return vapic_nested_restore(&c->apic, c->null_view ? NULL : &view, ran);
}

/* ---- #VMEXIT to L1 ---- */

static void amd_nested_leave(struct nx_l1 *c, const struct vapic_reflect *why)
{
    uint8_t *to = nx_at(c->nx, c->gpa12);
    struct vapic_nested_left left;
    uint64_t control;

    assert_non_null(to);
    vapic_nested_leave(&c->apic, &left);
    control = (vmcb_get64(to, VMCB_INT_CTL) & ~LIVE) | (vmcb_get64(c->vmcb02, VMCB_INT_CTL) & LIVE);
    control = (control & ~left.int_ctl_mask) | (left.int_ctl & left.int_ctl_mask);
    vmcb_set64(to, VMCB_INT_CTL, control);
    vmcb_set64(to, VMCB_INT_STATE, vmcb_get64(c->vmcb02, VMCB_INT_STATE));
    vmcb_set64(to, VMCB_RIP, vmcb_get64(c->vmcb02, VMCB_RIP));
    vmcb_set64(to, VMCB_RFLAGS, vmcb_get64(c->vmcb02, VMCB_RFLAGS));
    vmcb_set64(to, VMCB_NRIP, vmcb_get64(c->vmcb02, VMCB_NRIP));
    to[VMCB_CPL] = c->vmcb02[VMCB_CPL];
    vmcb_set64(to, VMCB_EVENTINJ, vmcb_get64(to, VMCB_EVENTINJ) & ~VMCB_EVENT_VALID);
    vmcb_set64(to, VMCB_EXITINTINFO, c->event12);
    vmcb_set64(to, VMCB_EXITCODE, why->code);
    vmcb_set64(to, VMCB_EXITINFO1, why->info1);
    vmcb_set64(to, VMCB_EXITINFO2, why->info2);
    c->l2 = false;
    vapic_nested_exit(&c->apic);
}

static bool amd_intercepts(const struct nx_l1 *c)
{
    return intercepts3(c, VMCB_I3_INTR);
}

static bool amd_masked(const struct nx_l1 *c)
{
    return masking12(c) ? !c->l1_if : !c->nx->l2[c->runs]->guest_if;
}

/* ---- What the processor is told ---- */

static void amd_scramble(struct nx_l1 *c)
{
    uint64_t control = vmcb_get64(c->vmcb02, VMCB_INT_CTL);

    if (c->null_view) /* nothing of it is the library's */
        return;
    vmcb_set64(c->vmcb02, VMCB_INT_CTL, control ^ MODE);
    vmcb_set64(c->vmcb02, VMCB_AVIC_BAR, 0x5A5A5000);
    vmcb_set64(c->vmcb02, VMCB_AVIC_BACKING, 0x5A5A5000);
    vmcb_set64(c->vmcb02, VMCB_AVIC_LOGICAL, 0x5A5A5000);
    vmcb_set64(c->vmcb02, VMCB_AVIC_PHYSICAL, 0x5A5A5000);
    memset(c->msrpm02, 0, SVM_MSRPM_SIZE);
    vmcb_set32(c->vmcb02, VMCB_CLEAN, 0);
}

/* Is a processor with this host APIC ID given to one of L1's vCPUs? */
static bool is_loaded(const struct nx *nx, uint64_t id)
{
    for (uint32_t n = 0; n < nx->l1_count; n++)
        if (nx->l1[n]->cpu != NULL && nx->l1[n]->cpu->apic_id == id)
            return true;
    return false;
}

static uint64_t entry_at(struct nx *nx, uint64_t table, uint32_t index)
{
    const uint64_t *entry = nx_sil_memory(nx, (table & AVIC_ADDRESS) + 8ull * index, 8);

    assert_non_null(entry);
    return *entry;
}

static void check_table(struct nx *nx, uint64_t table)
{
    for (uint32_t i = 0; i <= (table & AVIC_MAX_INDEX); i++) {
        uint64_t entry;

        assert_true(nx_is_host(nx, (table & AVIC_ADDRESS) + 8ull * i)); /* never L1's own */
        entry = entry_at(nx, table, i);
        if (!(entry & AVIC_PHYSICAL_VALID))
            continue;
        if (!nx_safe(nx, entry & AVIC_PHYSICAL_BACKING))
            fail_msg("entry %u leads to %#llx", i, (unsigned long long)entry);
        if (entry & AVIC_PHYSICAL_RUNNING && !is_loaded(nx, entry & AVIC_PHYSICAL_HOST_ID))
            fail_msg("entry %u runs on %#llx", i, (unsigned long long)entry);
    }
}

static const struct nx_l1 *by_id(const struct nx *nx, uint64_t id)
{
    for (uint32_t n = 0; n < nx->l1_count; n++)
        if (vapic_id(&nx->l1[n]->apic) == id)
            return nx->l1[n];
    return NULL;
}

/* What a shadow may say of what L1 has written. */
static void check_entry(struct nx *nx, uint32_t i, uint64_t hardware, uint64_t l1s)
{
    uint64_t page = l1s & AVIC_PHYSICAL_BACKING;
    const struct nx_l1 *named = by_id(nx, l1s & AVIC_PHYSICAL_HOST_ID);
    bool runs = l1s & AVIC_PHYSICAL_VALID && l1s & AVIC_PHYSICAL_RUNNING && named != NULL &&
                named->cpu != NULL && named->cpu->apic_id == (hardware & AVIC_PHYSICAL_HOST_ID);

    if (!(hardware & AVIC_PHYSICAL_VALID) || nx_is_host(nx, hardware & AVIC_PHYSICAL_BACKING))
        return;
    assert_non_null(nx_at(nx, page));
    assert_int_equal(hardware & AVIC_PHYSICAL_BACKING, nx_hpa(nx, page));
    if (hardware & AVIC_PHYSICAL_RUNNING && !runs)
        fail_msg("entry %u is %#llx, and L1's %#llx", i, (unsigned long long)hardware,
                 (unsigned long long)l1s);
}

static void check_shadow(struct nx *nx, const struct nx_l1 *c)
{
    uint64_t table = vmcb_get64(c->vmcb02, VMCB_AVIC_PHYSICAL);
    uint64_t l1s = vmcb_get64(c->vmcb12, VMCB_AVIC_PHYSICAL);

    for (uint32_t i = 0; i <= (table & AVIC_MAX_INDEX); i++) {
        const uint64_t *entry = nx_at(nx, (l1s & AVIC_ADDRESS) + 8ull * i);

        if (entry != NULL)
            check_entry(nx, i, entry_at(nx, table, i), *entry);
    }
}

static void check02(struct nx *nx, const struct nx_l1 *c, uint64_t control)
{
    bool x2 = (control & VMCB_V_X2AVIC) != 0;
    uint64_t offered = 0;

    if (!c->null_view && nx->options.offered & VAPIC_NESTED_AVIC)
        offered = VMCB_V_AVIC | (nx->options.offered & VAPIC_NESTED_X2AVIC ? VMCB_V_X2AVIC : 0);
    assert_int_equal(control & MODE, vmcb_get64(c->vmcb12, VMCB_INT_CTL) & offered);
    if (!(control & VMCB_V_AVIC))
        return;
    assert_true(nx_safe(nx, vmcb_get64(c->vmcb02, VMCB_AVIC_BACKING)));
    assert_non_null(nx_page_at(nx, vmcb_get64(c->vmcb02, VMCB_AVIC_BACKING)));
    if (!x2)
        assert_true(nx_safe(nx, vmcb_get64(c->vmcb02, VMCB_AVIC_LOGICAL)));
    check_shadow(nx, c);
}

/* Also: 01 names L1's APIC only, 02 L2's only. */
static void amd_check(struct nx *nx, const struct nx_l1 *c)
{
    const uint8_t *vmcb = current(c);
    uint64_t control = vmcb_get64(vmcb, VMCB_INT_CTL);

    if (c->l2)
        check02(nx, c, control);
    else
        assert_int_equal(vmcb_get64(vmcb, VMCB_AVIC_BACKING), nx_host_hpa(nx, c->page));
    if (control & VMCB_V_AVIC)
        check_table(nx, vmcb_get64(vmcb, VMCB_AVIC_PHYSICAL));
}

static bool amd_names(struct nx *nx, const struct nx_l1 *c, uint64_t hpa)
{
    uint64_t table = vmcb_get64(c->vmcb02, VMCB_AVIC_PHYSICAL);

    if (!(vmcb_get64(c->vmcb02, VMCB_INT_CTL) & VMCB_V_AVIC))
        return false;
    if (vmcb_get64(c->vmcb02, VMCB_AVIC_BACKING) == hpa ||
        vmcb_get64(c->vmcb02, VMCB_AVIC_LOGICAL) == hpa)
        return true;
    for (uint32_t i = 0; i <= (table & AVIC_MAX_INDEX); i++) {
        uint64_t entry = entry_at(nx, table, i);

        if (entry & AVIC_PHYSICAL_VALID && (entry & AVIC_PHYSICAL_BACKING) == hpa)
            return true;
    }
    return false;
}

/* ---- L1 ---- */

static void amd_create12(struct nx_l2_vcpu *c)
{
    const struct nx_options *o = &c->nx->options;
    uint32_t off = (o->hlt_inside ? VMCB_I3_HLT : 0) | (o->intr_inside ? VMCB_I3_INTR : 0);

    c->vmcb = nx_l1_memory(c->nx, VMCB_SIZE, NX_PAGE);
    c->msrpm = nx_l1_memory(c->nx, SVM_MSRPM_SIZE, NX_PAGE);
    c->gpa12 = nx_gpa(c->nx, c->vmcb);
    vmcb_create(c->vmcb, c->msrpm, nx_gpa(c->nx, c->msrpm), c->n + 1);
    vmcb_set32(c->vmcb, VMCB_INTERCEPT3, vmcb_get32(c->vmcb, VMCB_INTERCEPT3) & ~off);
    if (o->pass_through) {
        for (uint32_t msr = MSR_X2APIC_FIRST; msr <= MSR_X2APIC_LAST; msr++)
            c->msrpm[svm_msrpm_bit(msr) / 8] &= (uint8_t) ~(3u << (svm_msrpm_bit(msr) % 8));
        return;
    }
    vmcb_set64(c->vmcb, VMCB_INT_CTL, VMCB_V_INTR_MASKING);
    if (o->l2 == NX_L2_NONE)
        vmcb_set32(c->vmcb, VMCB_INTERCEPT_CR, VMCB_CR8_WRITE);
}

/* The dummy interrupt of a window, in vmcb12. */
static void window12(struct nx_l2_vcpu *c, bool wanted)
{
    uint64_t control =
        vmcb_get64(c->vmcb, VMCB_INT_CTL) & ~(VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR);
    uint32_t intercepts = vmcb_get32(c->vmcb, VMCB_INTERCEPT3) & ~VMCB_I3_VINTR;

    if (wanted) {
        control |= VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR;
        intercepts |= VMCB_I3_VINTR;
        assert_int_equal(control & VMCB_V_AVIC, 0);
    }
    vmcb_set64(c->vmcb, VMCB_INT_CTL, control);
    vmcb_set32(c->vmcb, VMCB_INTERCEPT3, intercepts);
}

static void amd_prepare12(struct nx_l2_vcpu *c)
{
    bool window = c->entry.irq_window;
    uint64_t event = VMCB_EVENT_VALID | VMCB_EVENT_INTR | c->entry.vector;
    uint64_t control;

    vmcb_set64(c->vmcb, VMCB_EVENTINJ, c->injected == VAPIC_INJECT_VECTOR ? event : 0);
    if (window || vmcb_get32(c->vmcb, VMCB_INTERCEPT3) & VMCB_I3_VINTR)
        window12(c, window);
    vmcb_set64(c->vmcb, VMCB_RFLAGS, c->guest_if ? VMCB_RFLAGS_IF | 2 : 2);
    control = vmcb_get64(c->vmcb, VMCB_INT_CTL);
    if (c->nx->l1_accel != NULL)
        assert_int_equal(control & VMCB_V_TPR, c->entry.cr8);
    else
        control = (control & ~VMCB_V_TPR) | c->entry.cr8;
    if (c->nx->options.no_v_intr_masking)
        control &= ~VMCB_V_INTR_MASKING;
    vmcb_set64(c->vmcb, VMCB_INT_CTL, control);
    c->vmcb[VMCB_TLB_CONTROL] =
        c->l1_wants_flush || c->on != c->last ? VMCB_TLB_ASID : VMCB_TLB_NOTHING;
    c->l1_wants_flush = false;
    c->last = c->on;
}

static uint8_t amd_cr8_12(struct nx_l2_vcpu *c)
{
    return (uint8_t)(vmcb_get64(c->vmcb, VMCB_INT_CTL) & VMCB_V_TPR);
}

static enum nx_result amd_exit12(struct nx_l2_vcpu *c, struct nx_op *op)
{
    uint64_t code = vmcb_get64(c->vmcb, VMCB_EXITCODE);
    int result;

    switch (code) {
    case SVM_EXIT_AVIC_INCOMPLETE:
    case SVM_EXIT_AVIC_NOACCEL:
        result = vapic_avic_exit(&c->apic, code, vmcb_get64(c->vmcb, VMCB_EXITINFO1),
                                 vmcb_get64(c->vmcb, VMCB_EXITINFO2), c->nx->now);
        if (result == VAPIC_EMULATE)
            return nx_emulate12(c, op);
        assert_int_equal(result, VAPIC_OK);
        return NX_DONE;
    case SVM_EXIT_NPF:
    case SVM_EXIT_MSR:
    case SVM_EXIT_CR8_WRITE:
    case SVM_EXIT_HLT:
        return nx_emulate12(c, op);
    case SVM_EXIT_INTR:
    case SVM_EXIT_VINTR:
        return NX_RETRY;
    default:
        fail_msg("L2's vCPU %u: exit %#llx", c->n, (unsigned long long)code);
        return NX_STUCK;
    }
}

static void amd_intercept12(struct nx_l2_vcpu *c, const struct vapic_msr_pass *pass)
{
    vapic_pass_to_msrpm(pass, c->msrpm);
}

const struct nx_vendor nx_amd = {
    .silicon = VAPIC_SIL_AMD,
    .leave_code = SVM_EXIT_INTR,
    .interrupt_code = SVM_EXIT_INTR,
    .run_code = SVM_EXIT_VMRUN,
    .create = amd_create,
    .enter = amd_enter,
    .cr8 = amd_cr8,
    .why = amd_why,
    .exit = amd_exit,
    .exit_l2 = amd_exit_l2,
    .nested_enter = amd_nested_enter,
    .nested_leave = amd_nested_leave,
    .sync = amd_sync,
    .restore = amd_restore,
    .intercepts = amd_intercepts,
    .masked = amd_masked,
    .flush = amd_flush,
    .intercept = amd_intercept,
    .scramble = amd_scramble,
    .check = amd_check,
    .names = amd_names,
    .create12 = amd_create12,
    .prepare12 = amd_prepare12,
    .cr8_12 = amd_cr8_12,
    .exit12 = amd_exit12,
    .intercept12 = amd_intercept12,
};
