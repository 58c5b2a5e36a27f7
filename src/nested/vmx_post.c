/* SPDX-License-Identifier: MIT */
/*
 * Interrupts that were posted for L2. There are two descriptors:
 *
 *      L1's    in L1's memory; L1's software posts there, and so does the library for IPIs that
 *              L2's processor has not sent. Its NV and NDST are L1's.
 *      L0's    vapic_nested_vcpu.posted; processors post there that find it by a shadow of L1's
 *              PID-pointer table. NV, NDST and SN are the host's, as in the vCPU's own descriptor
 *              (posted.c), with the notification vector of vmcs02.
 *
 * vmcs02 names one of them, and the processor empties that one when the notification comes. What
 * else there is, and what came when the processor was not in L2, is taken over here: into VIRR of
 * L2's page, and RVI. L1's descriptor is looked at when a notification has been latched
 * (vapic_nested_vcpu.pending), L0's when its ON is set.
 *
 * A processor that has read the shadow's entry before L2 was left may post into L0's descriptor
 * after it. Nobody takes that over then, so ON stays set, and whichever of vapic_enter(),
 * vapic_block() and the wake-up handler comes first has it brought to L1's descriptor, with the
 * notification that the sender would have sent there.
 */
#include "vmx.h"

/* ---- Into VIRR ---- */

static void add_to_virr(const struct vapic_nested_vcpu *nv, uint32_t word, uint32_t bits)
{
    /* SEQ_CST as the processor's; L1 may be looking. */
    if (bits != 0)
        vapic_or32(vmx_page_word(nv, APIC_IRR + 16 * word), bits, VAPIC_SEQ_CST);
}

static uint8_t highest_of(uint32_t word, uint64_t bits)
{
    return (uint8_t)(64 * word + 63u - (uint32_t)__builtin_clzll(bits));
}

/* ON first: what is posted after it was cleared sets it again. The highest vector taken; 0: none.
 */
static uint8_t harvest(const struct vapic_nested_vcpu *nv, struct vapic_pid *pid)
{
    uint8_t top = 0;

    if (!(vapic_and64(&pid->control, ~(uint64_t)PID_ON, VAPIC_SEQ_CST) & PID_ON))
        return 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t bits = vapic_xchg64(&pid->pir[i], 0, VAPIC_SEQ_CST);

        add_to_virr(nv, 2 * i, (uint32_t)bits);
        add_to_virr(nv, 2 * i + 1, (uint32_t)(bits >> 32));
        if (bits != 0)
            top = highest_of(i, bits);
    }
    return top;
}

static struct vapic_pid *at(const struct vapic_l1_page *page, uint64_t gpa)
{
    return (struct vapic_pid *)(void *)((uint8_t *)page->memory + (gpa & (APIC_PAGE_SIZE - 1)));
}

static struct vapic_pid *l1s_descriptor(const struct vapic_nested_vcpu *nv)
{
    return at(nested_pin(nv, VMX_SLOT_DESCRIPTOR), nv->vmcs12.pid);
}

static uint8_t higher(uint8_t a, uint8_t b)
{
    return a > b ? a : b;
}

uint8_t vapic_vmx_collect(struct vapic *v, uint8_t rvi)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    rvi = higher(rvi, harvest(nv, &nv->posted));
    if (vapic_xchg32(&nv->pending, 0, VAPIC_SEQ_CST) != 0 && vmx_posts(&nv->vmcs12))
        rvi = higher(rvi, harvest(nv, l1s_descriptor(nv)));
    return rvi;
}

/* ---- The end of HLT ---- */

/* What an announced descriptor would add; 0: nothing. */
static uint8_t highest_in(const struct vapic_pid *pid)
{
    uint8_t top = 0;

    if (!(vapic_load64(&pid->control, VAPIC_SEQ_CST) & PID_ON))
        return 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t bits = vapic_load64(&pid->pir[i], VAPIC_ACQUIRE);

        if (bits != 0)
            top = highest_of(i, bits);
    }
    return top;
}

/* PPR as VM entry makes it [SDM3 31.1.3]: VPPR in the page may be of before a change of VTPR. */
static uint8_t priority(const struct vapic_nested_vcpu *nv, uint16_t status)
{
    uint8_t tpr = (uint8_t)vapic_load32(vmx_page_word(nv, APIC_TPR), VAPIC_RELAXED);

    return higher(tpr & 0xF0, VMX_STATUS_SVI(status) & 0xF0);
}

bool vapic_vmx_due(const struct vapic *v, uint16_t status)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    uint8_t top = higher(VMX_STATUS_RVI(status), highest_in(&nv->posted));

    if (vmx_posts(&nv->vmcs12) && vapic_load32(&nv->pending, VAPIC_SEQ_CST) != 0)
        top = higher(top, highest_in(l1s_descriptor(nv)));
    return (top & 0xF0) > priority(nv, status);
}

/* ---- Into L1's descriptor ---- */

#define ATTEMPTS 64u

/*
 * As a processor does with ON and SN at once [SDM3 31.1.6]; true: the notification is to be sent.
 * L1's processors may change the word in a loop, for ever: one notification too many harms nobody.
 */
static bool announce(struct vapic_pid *pid, uint64_t *control)
{
    *control = vapic_load64(&pid->control, VAPIC_SEQ_CST);
    for (uint32_t i = 0; i < ATTEMPTS; i++) {
        if (*control & (PID_ON | PID_SN))
            return false;
        if (vapic_cas64(&pid->control, control, *control | PID_ON, VAPIC_SEQ_CST))
            return true;
    }
    *control = vapic_or64(&pid->control, PID_ON, VAPIC_SEQ_CST);
    return true;
}

/* NDST has the form of the mode that L1's own APICs are in. */
static void notify(struct vapic *v, uint64_t control)
{
    uint32_t dest = PID_NDST(control);

    if (!apic_enabled(v))
        return;
    if (!in_x2apic(v))
        dest = PID_NDST_XAPIC_ID(dest);
    vapic_lapic_send(v, PID_NV(control), dest);
}

bool vapic_vmx_post(struct vapic *v, uint64_t gpa, const uint64_t bits[4])
{
    struct vapic_nested *n = nested_vm(v);
    struct vapic_vm *vm = v->vm;
    uint64_t page = gpa & ~(uint64_t)(APIC_PAGE_SIZE - 1), control = 0;
    struct vapic_l1_page pin;
    bool pinned, asked = false;

    vm->host.lock(vm->ctx);
    pinned = n->host.pin(vm->ctx, page, &pin);
    if (pinned) {
        struct vapic_pid *pid = at(&pin, gpa);

        for (uint32_t i = 0; i < 4; i++)
            if (bits[i] != 0)
                vapic_or64(&pid->pir[i], bits[i], VAPIC_SEQ_CST);
        asked = announce(pid, &control);
        n->host.unpin(vm->ctx, page, &pin);
    }
    vm->host.unlock(vm->ctx);
    if (asked)
        notify(v, control);
    return pinned;
}

/* ---- L0's descriptor ---- */

void vapic_vmx_late(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t bits[4], any = 0;

    vapic_and64(&nv->posted.control, ~(uint64_t)PID_ON, VAPIC_SEQ_CST);
    for (uint32_t i = 0; i < 4; i++) {
        bits[i] = vapic_xchg64(&nv->posted.pir[i], 0, VAPIC_SEQ_CST);
        any |= bits[i];
    }
    if (any != 0 && vmx_posts(&nv->vmcs12))
        vapic_vmx_post(v, nv->vmcs12.pid, bits);
}

void vapic_vmx_drain(struct vapic *v)
{
    struct vapic_vm *vm = v->vm;

    vm->host.lock(vm->ctx);
    vm->host.kick_all(vm->ctx);
    vm->host.unlock(vm->ctx);
    vapic_vmx_late(v);
}

/* One read-modify-write, for ON may come in between; the value before. SEQ_CST: protocol "block"
 * (posted.c). */
static uint64_t change(struct vapic_nested_vcpu *nv, uint64_t clear, uint64_t set)
{
    uint64_t seen = vapic_load64(&nv->posted.control, VAPIC_RELAXED);

    while (!vapic_cas64(&nv->posted.control, &seen, (seen & ~clear) | set, VAPIC_SEQ_CST))
        ;
    return seen;
}

static bool shadows(const struct vapic *v)
{
    return nested_vm(v)->shadows != NULL;
}

static uint64_t addressed(const struct vapic *v, uint8_t vector)
{
    return vapic_posted_ndst(v, v->accel->pcpu) | (uint64_t)vector << PID_NV_SHIFT;
}

static bool anything_in(const struct vapic_pid *pid)
{
    uint64_t any = 0;

    for (uint32_t i = 0; i < 4; i++)
        any |= vapic_load64(&pid->pir[i], VAPIC_ACQUIRE);
    return any != 0;
}

void vapic_vmx_load(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t before;

    if (!shadows(v))
        return;
    before = change(nv, PID_NDST_MASK | PID_NV_MASK | PID_SN,
                    addressed(v, nested_vm(v)->config.notify_vector));
    if (before & PID_SN && anything_in(&nv->posted))
        vapic_or64(&nv->posted.control, PID_ON, VAPIC_SEQ_CST);
}

/* vapic_posted_put() has put the vCPU on the list of its processor: it knows of IPI virtualization,
 * without which there are no shadows. */
void vapic_vmx_put(struct vapic *v, bool blocking)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    if (!shadows(v))
        return;
    if (!blocking || !(in_nested(v) ? nv->can_irq : v->accel->can_irq))
        change(nv, 0, PID_SN);
    else
        change(nv, PID_NDST_MASK | PID_NV_MASK | PID_SN, addressed(v, v->vm->accel->wakeup_vector));
}
