/* SPDX-License-Identifier: MIT */
/*
 * APICv, posted interrupts and IPI virtualization for L2: the checks of vmcs12, and what vmcs02
 * gets of it.
 *
 *      vmcs02                         comes from
 *      posted interrupts, TPR shadow, vmcs12
 *      APIC accesses, x2APIC mode,
 *      register virtualization,
 *      interrupt delivery, IPIV
 *      CR8-load, CR8-store exiting    vmcs12; both where it has no TPR shadow: CR8 is L1's then
 *      virtual-APIC, APIC-access      host addresses of the pages that vmcs12 names
 *      descriptor                     L1's own; with a shadow of the PID-pointer table L0's, whose
 *                                     NV and NDST are the host's (vmx_post.c)
 *      notification vector            the host's: vapic_nested_config.notify_vector
 *      PID-pointer table              the shadow, or a table in which no entry is valid
 *      TPR threshold, EOI exits,      vmcs12
 *      RVI and SVI (at the start)
 *      MSRs 800h-8FFh that pass       those that L1 lets pass, and only where the processor then
 *                                     uses L2's page
 *
 * Nothing here depends on L1's APIC: whatever becomes of that, vmcs02 is a function of vmcs12.
 * What L1 may change while its L2 runs is checked where it is used; VTPR, which a processor
 * compares with the threshold, by the processor: if a VM entry of vmcs02 fails for it, L1 is to
 * blame.
 */
#include "vmx.h"

#define SECONDARY_BITS                                                                             \
    (VMX_SEC_APIC_ACCESSES | VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY)
#define PRIMARY_BITS (VMX_PRI_TPR_SHADOW | VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE | VMX_PRI_SECONDARY)

/* ---- The checks that need no memory [SDM3 28.2.1.1] ---- */

static bool tpr_shadow(const struct vapic_vmcs12 *c)
{
    return (c->primary & VMX_PRI_TPR_SHADOW) != 0;
}

/* What L1 was not offered is a reserved bit. */
static bool offered(const struct vapic *v, const struct vapic_vmcs12 *c)
{
    uint32_t features = nested_vm(v)->config.features;

    if (!(features & VAPIC_NESTED_APICV) && (tpr_shadow(c) || c->secondary & SECONDARY_BITS))
        return false;
    if (!(features & VAPIC_NESTED_POSTED) && vmx_posts(c))
        return false;
    return features & VAPIC_NESTED_IPIV || !vmx_sends(c);
}

static bool shadow_ok(const struct vapic *v, const struct vapic_vmcs12 *c)
{
    if (!tpr_shadow(c))
        /* That IPI virtualization needs it too is inferred: it reads the virtual-APIC page. */
        return !vmx_secondary(c, VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER |
                                     VMX_SEC_INTERRUPT_DELIVERY) &&
               !vmx_sends(c);
    if (!vmx_address_ok(v, c->virtual_apic, APIC_PAGE_SIZE - 1))
        return false;
    return vmx_delivers(c) || c->tpr_threshold <= 15;
}

static bool accesses_ok(const struct vapic *v, const struct vapic_vmcs12 *c)
{
    if (!vmx_secondary(c, VMX_SEC_APIC_ACCESSES))
        return true;
    return !vmx_secondary(c, VMX_SEC_X2APIC) &&
           vmx_address_ok(v, c->apic_access, APIC_PAGE_SIZE - 1);
}

static bool posting_ok(const struct vapic *v, const struct vapic_vmcs12 *c)
{
    if (vmx_delivers(c) && !(c->pin & VMX_PIN_EXTINT_EXITING))
        return false;
    if (!vmx_posts(c))
        return true;
    return vmx_delivers(c) && c->exit & VMX_EXC_ACK_INTERRUPT && c->notification_vector <= 255 &&
           vmx_address_ok(v, c->pid, PID_SIZE - 1);
}

static bool sending_ok(const struct vapic *v, const struct vapic_vmcs12 *c)
{
    const uint64_t size = sizeof(uint64_t);

    return !vmx_sends(c) || (vmx_address_ok(v, c->pid_table, size - 1) &&
                             vmx_address_ok(v, c->pid_table + size * c->last_pid_index, 0));
}

/* Does vmcs02 name L0's descriptor, which the shadow leads to? */
static bool uses_posted(const struct vapic_nested_vcpu *nv)
{
    return nv->shadow != NULL && vmx_posts(&nv->vmcs12);
}

/* The controls in effect: without their activation the further ones count as zero [SDM3 26.6.2]. */
static struct vapic_vmcs12 effective(const struct vapic_vmcs12 *view)
{
    struct vapic_vmcs12 c = *view;

    if (!(c.primary & VMX_PRI_SECONDARY))
        c.secondary = 0;
    if (!(c.primary & VMX_PRI_TERTIARY))
        c.tertiary = 0;
    return c;
}

static int take(struct vapic *v, const struct vapic_nested_view *view)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    struct vapic_vmcs12 c;

    if (view->vmcs12 == NULL)
        return VAPIC_E_ARG;
    c = effective(view->vmcs12);
    if (!offered(v, &c) || !shadow_ok(v, &c) || !accesses_ok(v, &c) || !posting_ok(v, &c) ||
        !sending_ok(v, &c))
        return VAPIC_E_CONTROLS;
    /* What was posted by way of the old address belongs there. */
    if (uses_posted(nv) && (c.pid != nv->vmcs12.pid || !vmx_posts(&c)))
        vapic_vmx_drain(v);
    if (c.last_pid_index != nv->vmcs12.last_pid_index)
        nv->mapped = false; /* the shadow may have to follow more entries */
    nv->vmcs12 = c;
    nv->pass = (struct vapic_msr_pass){{0}, {0}};
    if (view->pass != NULL && c.primary & VMX_PRI_MSR_BITMAPS)
        nv->pass = *view->pass;
    nv->virtualized = true;
    return VAPIC_OK;
}

/* ---- Pages and table ---- */

static void pages(const struct vapic *v, uint64_t gpa[VAPIC_NESTED_PINS])
{
    const struct vapic_vmcs12 *c = &v->accel->nested->vmcs12;

    for (uint32_t i = 0; i < VAPIC_NESTED_PINS; i++)
        gpa[i] = NESTED_NO_PAGE;
    if (tpr_shadow(c))
        gpa[VMX_SLOT_APIC] = c->virtual_apic;
    if (vmx_secondary(c, VMX_SEC_APIC_ACCESSES))
        gpa[VMX_SLOT_ACCESS] = c->apic_access;
    if (vmx_posts(c))
        gpa[VMX_SLOT_DESCRIPTOR] = c->pid & ~(uint64_t)(APIC_PAGE_SIZE - 1);
}

/* The one check that reads the virtual-APIC page: with APIC accesses an exit comes in its place. */
static int check_memory(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    const struct vapic_vmcs12 *c = &nv->vmcs12;

    if (!tpr_shadow(c) || vmx_delivers(c) || vmx_secondary(c, VMX_SEC_APIC_ACCESSES))
        return VAPIC_OK;
    return c->tpr_threshold > (vapic_load32(vmx_page_word(nv, APIC_TPR), VAPIC_RELAXED) >> 4 & 15)
               ? VAPIC_E_CONTROLS
               : VAPIC_OK;
}

static uint64_t table(const struct vapic *v)
{
    const struct vapic_vmcs12 *c = &v->accel->nested->vmcs12;

    return vmx_sends(c) ? c->pid_table : NESTED_NO_PAGE;
}

/* A table that does not begin with a page, or that L1 has no memory for, has no shadow. */
static int use_table(struct vapic *v)
{
    const struct vapic_vmcs12 *c = &v->accel->nested->vmcs12;

    if (!vmx_sends(c) || (c->pid_table & (APIC_PAGE_SIZE - 1)) != 0 ||
        vapic_shadow_use(v, c->pid_table, c->last_pid_index + 1u) != VAPIC_OK)
        vapic_shadow_unuse(v);
    return VAPIC_OK;
}

/* ---- vmcs02 ---- */

static void write_controls(struct vapic *v, const struct vapic_vmcs12 *c)
{
    uint32_t primary = c->primary & PRIMARY_BITS & ~VMX_PRI_SECONDARY;

    /* Without the TPR shadow MOV CR8 would reach the host's APIC. */
    if (!tpr_shadow(c))
        primary = VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE;
    vmx_control(v, VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS,
                c->pin & VMX_PIN_POSTED_INTERRUPTS);
    vmx_control(v, VMCS_PRIMARY_CONTROLS, PRIMARY_BITS, primary | VMX_PRI_SECONDARY);
    vmx_control(v, VMCS_SECONDARY_CONTROLS, SECONDARY_BITS, c->secondary & SECONDARY_BITS);
    if (!has_ipiv(v)) /* the field may not exist */
        return;
    vmx_control(v, VMCS_PRIMARY_CONTROLS, VMX_PRI_TERTIARY, VMX_PRI_TERTIARY);
    vmx_control(v, VMCS_TERTIARY_CONTROLS, VMX_TER_IPI_VIRTUALIZATION,
                c->tertiary & VMX_TER_IPI_VIRTUALIZATION);
}

static void write_posting(struct vapic *v, const struct vapic_nested_vcpu *nv)
{
    uint64_t l1s =
        nested_pin(nv, VMX_SLOT_DESCRIPTOR)->hpa + (nv->vmcs12.pid & (APIC_PAGE_SIZE - 1));

    vmx_control(v, VMCS_PID, UINT64_MAX, uses_posted(nv) ? nv->posted_hpa : l1s);
    vmx_control(v, VMCS_NOTIFICATION_VECTOR, 0xFFFF, nested_vm(v)->config.notify_vector);
}

/* A last index of 0 is as good as L1's where no entry is valid: either way the IPI exits. */
static void write_sending(struct vapic *v, const struct vapic_nested_vcpu *nv)
{
    bool shadowed = nv->shadow != NULL;

    vmx_control(v, VMCS_PID_TABLE, UINT64_MAX,
                shadowed ? nv->shadow->hpa : nested_vm(v)->dummy_hpa);
    vmx_control(v, VMCS_LAST_PID_INDEX, 0xFFFF, shadowed ? nv->vmcs12.last_pid_index : 0);
}

static void write_addresses(struct vapic *v, const struct vapic_nested_vcpu *nv)
{
    const struct vapic_vmcs12 *c = &nv->vmcs12;

    if (tpr_shadow(c))
        vmx_control(v, VMCS_VIRTUAL_APIC, UINT64_MAX, nested_pin(nv, VMX_SLOT_APIC)->hpa);
    if (vmx_secondary(c, VMX_SEC_APIC_ACCESSES))
        vmx_control(v, VMCS_APIC_ACCESS, UINT64_MAX, nested_pin(nv, VMX_SLOT_ACCESS)->hpa);
    if (vmx_posts(c))
        write_posting(v, nv);
    if (vmx_sends(c))
        write_sending(v, nv);
}

static void write_delivery(struct vapic *v, const struct vapic_vmcs12 *c, bool first)
{
    bool delivers = vmx_delivers(c);

    vmx_control(v, VMCS_TPR_THRESHOLD, UINT32_MAX, tpr_shadow(c) ? c->tpr_threshold : 0);
    for (uint32_t i = 0; i < 4; i++)
        vmx_control(v, VMCS_EOI_EXIT0 + 2 * i, UINT64_MAX, delivers ? c->eoi_exit[i] : 0);
    if (first)
        vmx_control(v, VMCS_GUEST_INTERRUPT_STATUS, 0xFFFF, delivers ? c->interrupt_status : 0);
}

static void pass_as_l1(uint64_t to[4], const uint64_t from[4], uint32_t offset)
{
    uint32_t slot = offset >> 4;

    to[slot >> 6] |= from[slot >> 6] & UINT64_C(1) << (slot & 63);
}

/*
 * An MSR that passed without being virtualized would be the host's [SDM3 31.5]. With register
 * virtualization every read gets what the page holds, never #GP, as L1 has asked for; without
 * virtualized accesses the MSRs are those of L1's APIC, and the host emulates them.
 */
static struct vapic_msr_pass passed(const struct vapic_nested_vcpu *nv)
{
    const struct vapic_vmcs12 *c = &nv->vmcs12;
    struct vapic_msr_pass p = {{0}, {0}};

    if (!vmx_secondary(c, VMX_SEC_X2APIC))
        return p;
    pass_as_l1(p.read, nv->pass.read, APIC_TPR);
    for (uint32_t i = 0; i < 4 && vmx_secondary(c, VMX_SEC_APIC_REGISTER); i++)
        p.read[i] = nv->pass.read[i];
    pass_as_l1(p.write, nv->pass.write, APIC_TPR);
    if (vmx_delivers(c)) {
        pass_as_l1(p.write, nv->pass.write, APIC_EOI);
        pass_as_l1(p.write, nv->pass.write, APIC_SELF_IPI);
    }
    if (vmx_sends(c))
        pass_as_l1(p.write, nv->pass.write, APIC_ICR);
    return p;
}

/*
 * Which hardware senders find L2, by way of shadows, and which of L1's IPIs are notifications. A
 * sender that finds `named` set kicks, for the processor would look into the other descriptor. When
 * it changes while L2 is current the vCPU is outside: the next vapic_enter() looks at both.
 */
static void tell_senders(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    const struct vapic_vmcs12 *c = &nv->vmcs12;
    bool named = uses_posted(nv);

    vapic_store32(&nv->named, named, VAPIC_SEQ_CST);
    if (named || nv->key != SHADOW_NOBODY)
        vapic_shadow_name(nested_vm(v), nv, named ? c->pid : SHADOW_NOBODY, 0);
    vapic_store32(&v->nested_vector, vmx_posts(c) ? c->notification_vector : 0, VAPIC_SEQ_CST);
}

static void write(struct vapic *v, bool first)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    struct vapic_msr_pass pass = passed(nv);

    write_controls(v, &nv->vmcs12);
    write_addresses(v, nv);
    write_delivery(v, &nv->vmcs12, first);
    nested_vm(v)->host.intercept(v->vm->ctx, v, &pass);
    if (nv->shadow != NULL)
        vapic_shadow_entered(nv->shadow);
    /* Again, because something had changed: senders know of L2 already. */
    if (v->accel->in_l2 && nv->state != VAPIC_NESTED_RESTORED)
        tell_senders(v);
}

/* ---- Entering and leaving ---- */

/* L0's descriptor says where the vCPU is loaded at all times, by load() and put(). Nobody else may
 * write that: a preemption notifier in the middle would be overwritten. */
static void publish(struct vapic *v)
{
    tell_senders(v);
}

static void enter(struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    uint16_t status;
    uint8_t rvi;

    if (!vapic_nested_posted(v))
        return;
    if (!vmx_delivers(&nv->vmcs12)) { /* of an L2 before this one */
        vapic_xchg32(&v->accel->nested->pending, 0, VAPIC_SEQ_CST);
        return;
    }
    status = vmx_status(v);
    rvi = vapic_vmx_collect(v, VMX_STATUS_RVI(status));
    if (rvi != VMX_STATUS_RVI(status))
        vmx_control(v, VMCS_GUEST_INTERRUPT_STATUS, 0xFFFF,
                    VMX_STATUS_MAKE(rvi, VMX_STATUS_SVI(status)));
}

/* A notification that came before the exit has been processed before it, as by a processor. */
static uint16_t last_status(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    struct vapic_vm *vm = v->vm;
    uint16_t status = vmx_status(v);
    uint8_t rvi = VMX_STATUS_RVI(status);

    if (!nv->mapped || !vapic_nested_posted(v))
        return status;
    /* With the lock held no page goes away; what has gone, or is about to, is not touched. */
    vm->host.lock(vm->ctx);
    if (vmx_pinned(nv, VMX_SLOT_APIC) &&
        (!vmx_posts(&nv->vmcs12) || vmx_pinned(nv, VMX_SLOT_DESCRIPTOR)))
        rvi = vapic_vmx_collect(v, rvi);
    vm->host.unlock(vm->ctx);
    return (uint16_t)VMX_STATUS_MAKE(rvi, VMX_STATUS_SVI(status));
}

static void peek(struct vapic *v, struct vapic_nested_left *left)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    if (vmx_delivers(&nv->vmcs12))
        left->interrupt_status = nv->started ? vmx_status(v) : nv->vmcs12.interrupt_status;
}

static void leave(struct vapic *v, struct vapic_nested_left *left)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    if (MUTANT(NESTED_LATCH_READ_EARLY) && left != NULL && vmx_delivers(&nv->vmcs12)) {
        left->interrupt_status = nv->started ? last_status(v) : nv->vmcs12.interrupt_status;
        left = NULL;
    }
    /* Withdrawn first: who posts from now on finds L1. SEQ_CST: then what came before. */
    if (!MUTANT(NESTED_VECTOR_STAYS))
        vapic_store32(&v->nested_vector, 0, VAPIC_SEQ_CST);
    if (nv->key != SHADOW_NOBODY)
        vapic_shadow_name(nested_vm(v), nv, SHADOW_NOBODY, 0);
    vapic_store32(&nv->named, false, VAPIC_SEQ_CST);
    if (left == NULL || !vmx_delivers(&nv->vmcs12))
        return;
    /* What has not run leaves vmcs12 as it was. */
    left->interrupt_status = nv->started ? last_status(v) : nv->vmcs12.interrupt_status;
}

/* ---- Interrupts for L1 ---- */

static bool l1_intercepts(const struct vapic *v)
{
    return (v->accel->nested->vmcs12.pin & VMX_PIN_EXTINT_EXITING) != 0;
}

/* Neither IF nor STI keeps them back [SDM3 26.6.1]. */
static bool l1_open(const struct vapic *v, uint32_t can)
{
    (void)v;
    (void)can;
    return true;
}

/*
 * A notification in L1's IRR: it came while L1 ran, and waits; or L1 has sent it to itself. A
 * processor that finds it when L2 runs ends it in the local APIC at once [SDM3 31.6]; a
 * level-triggered one would have to be told to I/O APICs, and is L1's interrupt here.
 */
static bool consume(struct vapic *v, int vector)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    if (!vmx_posts(&nv->vmcs12) || (uint32_t)vector != nv->vmcs12.notification_vector ||
        vector_bit(v, APIC_TMR, (uint32_t)vector))
        return false;
    clear_reg_bits(v, APIC_IRR + ((uint32_t)vector >> 5) * 16u, 1u << (vector & 31));
    vapic_lapic_recount(v);
    vapic_store32(&nv->pending, 1, VAPIC_SEQ_CST);
    return true;
}

static bool l2_due(const struct vapic *v)
{
    /* The cast: host.interrupt_status() may be told who asks, and nothing is written. */
    return vmx_delivers(&v->accel->nested->vmcs12) &&
           vapic_vmx_due(v, vmx_status((struct vapic *)(uintptr_t)v));
}

static void detach(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    vapic_store32(&v->nested_vector, 0, VAPIC_SEQ_CST);
    if (nv->key != SHADOW_NOBODY)
        vapic_shadow_name(nested_vm(v), nv, SHADOW_NOBODY, 0);
    vapic_shadow_unuse(v);
}

/* ---- The VM ---- */

#define FEATURES (VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED | VAPIC_NESTED_IPIV)

static bool features_ok(const struct vapic_nested_config *c, const struct vapic_accel_config *accel)
{
    if (c->features & ~(uint32_t)FEATURES)
        return false;
    if (c->features & VAPIC_NESTED_POSTED && !(c->features & VAPIC_NESTED_APICV))
        return false;
    return !(c->features & VAPIC_NESTED_IPIV) ||
           (c->features & VAPIC_NESTED_POSTED && accel->features & VAPIC_ACCEL_IPIV);
}

static bool vector_ok(const struct vapic_nested_config *c, const struct vapic_accel_config *accel)
{
    return !(c->features & VAPIC_NESTED_POSTED) ||
           (c->notify_vector >= APIC_FIRST_VECTOR && c->notify_vector != accel->notify_vector &&
            c->notify_vector != accel->wakeup_vector);
}

static bool has_shadows(const struct vapic_nested_config *c)
{
    return c->features & VAPIC_NESTED_IPIV && c->strategy == VAPIC_NESTED_SHADOW;
}

static bool strategy_ok(const struct vapic_nested_config *c)
{
    if (c->strategy != VAPIC_NESTED_DUMMY && c->strategy != VAPIC_NESTED_SHADOW)
        return false;
    return !has_shadows(c) || (c->tables > 0 && c->tables <= VAPIC_MAX_VCPUS && c->entries > 0 &&
                               c->entries <= SHADOW_FRAMES * (APIC_PAGE_SIZE / sizeof(uint64_t)));
}

static size_t memory(const struct vapic_nested_config *config,
                     const struct vapic_accel_config *accel)
{
    if (!features_ok(config, accel) || !vector_ok(config, accel) || !strategy_ok(config))
        return 0;
    return APIC_PAGE_SIZE + (has_shadows(config) ? vapic_shadow_memory(config) : 0);
}

static void place(struct vapic_nested *n, void *memory)
{
    n->dummy_hpa = n->vm->host.physical(n->vm->ctx, memory);
    if (has_shadows(&n->config))
        vapic_shadow_place(n, (uint8_t *)memory + APIC_PAGE_SIZE);
}

const struct nested_ops vapic_nested_vmx = {
    .take = take,
    .pages = pages,
    .check_memory = check_memory,
    .table = table,
    .use_table = use_table,
    .write = write,
    .publish = publish,
    .enter = enter,
    .asleep = enter,
    .leave = leave,
    .peek = peek,
    .l1_intercepts = l1_intercepts,
    .l1_open = l1_open,
    .consume = consume,
    .l2_due = l2_due,
    .late = vapic_vmx_late,
    .load = vapic_vmx_load,
    .put = vapic_vmx_put,
    .written = vapic_shadow_written,
    .unmap = vapic_shadow_unmap,
    .detach = detach,
    .memory = memory,
    .place = place,
    .fini = vapic_shadow_fini,
};
