/* SPDX-License-Identifier: MIT */
/*
 * AVIC and x2AVIC for L2: what is taken over of 12, what 02 gets, and what L1 gets back. Called
 * through struct nested_ops.
 *
 * Whose fields of 02. The library's: int_ctl bits 31, 30, 24, V_TPR, V_IRQ with its priority,
 * V_IGN_TPR and vector; 098h, 0E0h, 0F0h, 0F8h; intercepts of CR8 are added, and TLB_CONTROL is
 * raised, where needed; the clean bits of what was changed. All others are the host's.
 *
 * Bits 31 and 30 follow from 12 alone, never from L1's own AVIC: inhibited or not, L2 keeps what L1
 * gave it. L1's AVIC on the other hand is off while 02 is current (reason NESTED), for a processor
 * has one doorbell, and looks at the backing page of the VMCB that it runs.
 *
 * V_INTR_MASKING is always set in 02: it is L0's own. Where it is clear in 12 L2's IF gates L1's
 * interrupts, which is l1_open()'s business, and without AVIC L2's CR8 is the TPR of L1's APIC, so
 * that its accesses exit.
 *
 * V_IRQ, where L2 has no AVIC, is L2's own: a window that the host opens in its place
 * (vapic_entry.irq_window) lasts until the next vapic_enter(), which puts L2's back.
 *
 * The logical table of xAVIC needs no translation, its entries being indices; with a shadow the
 * processor reads L1's own. An index from it above MAX_INDEX is refused by the processor like any
 * other; did one not look, it would find an entry of L0's, since the shadow's memory reaches beyond
 * every 8-bit index. With the dummy it reads a table of L0's without a valid entry: the IPI exits
 * anyway.
 */
#include "svm.h"
#include "../bytes.h"
#include "shadow.h"

#define MODE_BITS (VMCB_V_AVIC | VMCB_V_X2AVIC)
#define V_IRQ_ALL (VMCB_V_IRQ | VMCB_V_INTR_PRIO | VMCB_V_IGN_TPR | VMCB_V_VECTOR)

/* ---- 02: the owner's memory while the vCPU is outside the guest ---- */

static uint8_t *field_of(const struct vapic *v, uint32_t field)
{
    return (uint8_t *)v->accel->nested->vmcb02 + field;
}

static uint64_t get64(const struct vapic *v, uint32_t field)
{
    return vapic_load64((const uint64_t *)(const void *)field_of(v, field), VAPIC_RELAXED);
}

/* Only what differs: an untouched field keeps its clean bit, and the processor its copy. */
static bool set64(const struct vapic *v, uint32_t field, uint64_t value, uint32_t clean)
{
    uint32_t *bits = (uint32_t *)(void *)field_of(v, VMCB_CLEAN);

    if (get64(v, field) == value)
        return false;
    vapic_store64((uint64_t *)(void *)field_of(v, field), value, VAPIC_RELAXED);
    vapic_store32(bits, vapic_load32(bits, VAPIC_RELAXED) & ~clean, VAPIC_RELAXED);
    return true;
}

static void set_bits(const struct vapic *v, uint32_t field, uint64_t mask, uint64_t value,
                     uint32_t clean)
{
    set64(v, field, (get64(v, field) & ~mask) | (value & mask), clean);
}

/* ---- 12 ---- */

/* As on a processor that has what L1 was offered: bits that it does not know mean nothing. */
static uint64_t known_bits(const struct vapic *v, uint64_t int_ctl)
{
    return nested_vm(v)->config.features & VAPIC_NESTED_AVIC ? int_ctl : int_ctl & ~MODE_BITS;
}

/* Reserved bits, and all of it below the end of the physical addresses [APM2 15.29.4]. */
static bool legal_pointer(const struct vapic *v, uint64_t pointer, uint64_t reserved,
                          uint64_t pages)
{
    uint64_t last = (pointer & AVIC_ADDRESS) + pages * APIC_PAGE_SIZE - 1;

    return (pointer & (reserved | AVIC_ADDRESS_HIGH)) == 0 && last >> v->phys_bits == 0;
}

static uint32_t max_index(const struct vapic_nested_vcpu *nv)
{
    return (uint32_t)(nv->vmcb12.physical & AVIC_MAX_INDEX);
}

static bool legal_pointers(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    if (!legal_pointer(v, nv->vmcb12.backing, AVIC_ADDRESS_LOW, 1) ||
        !legal_pointer(v, nv->vmcb12.physical, 0, (max_index(nv) >> 9) + 1))
        return false;
    /* x2AVIC does not look at the others. */
    return svm_x2avic(nv) || (legal_pointer(v, nv->vmcb12.logical, AVIC_ADDRESS_LOW, 1) &&
                              (nv->vmcb12.bar & AVIC_ADDRESS_HIGH) == 0);
}

static uint32_t highest_index(const struct vapic *v, bool x2)
{
    if (!x2)
        return AVIC_MAX_INDEX_X1;
    return nested_vm(v)->config.features & VAPIC_NESTED_X2AVIC_EXT ? AVIC_MAX_INDEX_X2_EXT
                                                                   : AVIC_MAX_INDEX_X2;
}

/* [APM2 15.29.4.1], and AVIC's need of nested paging. */
static bool legal(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    bool x2 = (nv->vmcb12.int_ctl & VMCB_V_X2AVIC) != 0;

    if (!svm_avic(nv))
        return !x2;
    /* Only a record of another host can have that. */
    if (!(nested_vm(v)->config.features & VAPIC_NESTED_AVIC))
        return false;
    if (x2 && !(nested_vm(v)->config.features & VAPIC_NESTED_X2AVIC))
        return false;
    return nv->vmcb12.nested_paging && max_index(nv) <= highest_index(v, x2) && legal_pointers(v);
}

static int retake(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;

    nv->window = false;
    if (!legal(v))
        return VAPIC_E_CONTROLS;
    nv->virtualized = true;
    return VAPIC_OK;
}

static int take(struct vapic *v, const struct vapic_nested_view *view)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    const uint8_t *vmcb = view->vmcb12;

    if (vmcb == NULL)
        return VAPIC_E_ARG;
    nv->vmcb12.int_ctl = known_bits(v, get_le(vmcb + VMCB_INT_CTL, 8));
    nv->vmcb12.bar = get_le(vmcb + VMCB_AVIC_BAR, 8);
    nv->vmcb12.backing = get_le(vmcb + VMCB_AVIC_BACKING, 8);
    nv->vmcb12.logical = get_le(vmcb + VMCB_AVIC_LOGICAL, 8);
    nv->vmcb12.physical = get_le(vmcb + VMCB_AVIC_PHYSICAL, 8);
    nv->vmcb12.intercept3 = (uint32_t)get_le(vmcb + VMCB_INTERCEPT3, 4);
    nv->vmcb12.nested_paging = (get_le(vmcb + VMCB_NP_ENABLE, 8) & VMCB_NP_ENABLED) != 0;
    nv->pass = view->pass != NULL ? *view->pass : (struct vapic_msr_pass){{0}, {0}};
    nv->l1_if = view->l1_if;
    return retake(v);
}

static void pages(const struct vapic *v, uint64_t gpa[VAPIC_NESTED_PINS])
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    for (uint32_t i = 0; i < VAPIC_NESTED_PINS; i++)
        gpa[i] = NESTED_NO_PAGE;
    if (!svm_avic(nv))
        return;
    gpa[SVM_BACKING] = nv->vmcb12.backing;
    gpa[SVM_PHYSICAL] = nv->vmcb12.physical & AVIC_ADDRESS;
    if (!svm_x2avic(nv))
        gpa[SVM_LOGICAL] = nv->vmcb12.logical;
}

/* With MAX_INDEX: another one is another table. */
static uint64_t table(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    bool shadowed = nested_vm(v)->config.strategy == VAPIC_NESTED_SHADOW && svm_avic(nv);

    return shadowed ? nv->vmcb12.physical : NESTED_NO_PAGE;
}

static int use_table(struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t at = table(v);

    if (at == NESTED_NO_PAGE)
        return vapic_shadow_use(v, NESTED_NO_PAGE, 0);
    return vapic_shadow_use(v, at & AVIC_ADDRESS, max_index(nv) + 1);
}

/* ---- MSRs ---- */

/*
 * What x2AVIC virtualizes in one way or another, exits 402h included [APM2 15.29.9.1]. The others
 * raise #GP there, and so they exit, although nothing of the host's could be reached in that mode:
 * it is for the host to raise it. Without x2AVIC an MSR that does not exit is the host's own.
 */
static const struct {
    uint16_t first, last;
    bool read, write;
} virtualized[] = {
    {APIC_ID, APIC_LVR, true, false},
    {APIC_TPR, APIC_TPR, true, true},
    {APIC_APR, APIC_PPR, true, false},
    {APIC_EOI, APIC_EOI, false, true},
    {APIC_LDR, APIC_LDR, true, false},
    {APIC_SVR, APIC_SVR, true, true},
    {APIC_ISR, APIC_IRR + 0x70, true, false},
    {APIC_ESR, APIC_ESR, true, true},
    {APIC_ICR, APIC_ICR, true, true},
    {APIC_LVT_TIMER, APIC_TMICT, true, true},
    {APIC_TMCCT, APIC_TMCCT, true, false},
    {APIC_TDCR, APIC_TDCR, true, true},
    {APIC_SELF_IPI, APIC_SELF_IPI, false, true},
    {APIC_EAFR, APIC_EAFR, true, false},
    {APIC_EACR, APIC_SEOI, true, true},
    {APIC_IER, APIC_IER + 0x70, true, true},
    {APIC_EILVT, APIC_EILVT + 0x30, true, true},
};

static void by_x2avic(struct vapic_msr_pass *pass)
{
    for (size_t i = 0; i < sizeof(virtualized) / sizeof(virtualized[0]); i++)
        for (uint32_t at = virtualized[i].first; at <= virtualized[i].last; at += 16) {
            if (virtualized[i].read)
                vapic_pass_slot(pass->read, at >> 4);
            if (virtualized[i].write)
                vapic_pass_slot(pass->write, at >> 4);
        }
}

static void tell_pass(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    struct vapic_msr_pass pass = {{0}, {0}};
    bool same = nv->told.valid;

    if (svm_x2avic(nv))
        by_x2avic(&pass);
    for (uint32_t i = 0; i < 4; i++) {
        pass.read[i] &= nv->pass.read[i];
        pass.write[i] &= nv->pass.write[i];
        same = same && pass.read[i] == nv->told.pass.read[i] &&
               pass.write[i] == nv->told.pass.write[i];
    }
    if (same)
        return;
    nv->told.valid = true;
    nv->told.pass = pass;
    nested_vm(v)->host.intercept(v->vm->ctx, v, &pass);
}

/* ---- 02 ---- */

/* Translations of L2's APIC page lead to the registers that were there when they were made. */
static void flush(const struct vapic *v)
{
    uint8_t *control = field_of(v, VMCB_TLB_CONTROL);

    if (*control == VMCB_TLB_NOTHING)
        *control = VMCB_TLB_ASID;
}

static uint64_t physical_table(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t hpa = nv->shadow != NULL ? nv->shadow->hpa : nested_vm(v)->dummy_hpa;

    return hpa | max_index(nv);
}

static uint64_t logical_table(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    const struct vapic_l1_page *own = nested_pin(nv, SVM_LOGICAL);

    if (nv->shadow != NULL && own->memory != NULL)
        return own->hpa;
    return nested_vm(v)->dummy_logical_hpa;
}

/* True: what an access to L2's APIC page leads to has changed. */
static bool write_pointers(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t backing = nested_pin(nv, SVM_BACKING)->hpa;
    bool moved = set64(v, VMCB_AVIC_BAR, nv->vmcb12.bar, VMCB_CLEAN_AVIC);

    moved |= set64(v, VMCB_AVIC_BACKING, backing, VMCB_CLEAN_AVIC);
    set64(v, VMCB_AVIC_LOGICAL, logical_table(v), VMCB_CLEAN_AVIC);
    set64(v, VMCB_AVIC_PHYSICAL, physical_table(v), VMCB_CLEAN_AVIC);
    return moved;
}

/* L2's CR8 is the TPR of L1's APIC. */
static bool cr8_is_l1s(const struct vapic_nested_vcpu *nv)
{
    return !svm_avic(nv) && !(nv->vmcb12.int_ctl & VMCB_V_INTR_MASKING);
}

/* The manual leaves open which clean bit covers 31:30 of int_ctl; both are dropped. AVIC ignores
 * V_IRQ; nobody is to find in 02 what was not in force. */
static void write(struct vapic *v, bool first)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t mode = nv->vmcb12.int_ctl & MODE_BITS, start = nv->vmcb12.int_ctl & VMCB_V_TPR;
    bool moved = ((get64(v, VMCB_INT_CTL) ^ mode) & MODE_BITS) != 0;

    if (!svm_avic(nv))
        start |= nv->vmcb12.int_ctl & V_IRQ_ALL;
    set_bits(v, VMCB_INT_CTL, MODE_BITS | VMCB_V_INTR_MASKING, mode | VMCB_V_INTR_MASKING,
             VMCB_CLEAN_TPR | VMCB_CLEAN_AVIC);
    if (first)
        set_bits(v, VMCB_INT_CTL, VMCB_V_TPR | V_IRQ_ALL, start, VMCB_CLEAN_TPR);
    if (svm_avic(nv))
        moved |= write_pointers(v);
    if (moved)
        flush(v);
    if (cr8_is_l1s(nv))
        set_bits(v, VMCB_INTERCEPT_CR, VMCB_CR8_READ | VMCB_CR8_WRITE, ~0ull,
                 VMCB_CLEAN_INTERCEPTS);
    if (nv->state == VAPIC_NESTED_RESTORED) /* the host's map is that of a new 02 */
        nv->told.valid = false;
    tell_pass(v);
    if (nv->shadow != NULL)
        vapic_shadow_entered(nv->shadow);
}

/* Senders find L2 by the state alone: what they may need is in L1's tables. */
static void publish(struct vapic *v)
{
    (void)v;
}

/* What the processor may go by from now on; compared after an exit, see svm_exit.c. */
static void note_tables(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    const struct vapic_l1_page *logical = nested_pin(nv, SVM_LOGICAL);

    nv->idled = vapic_load32(&nv->shadow->idled, VAPIC_ACQUIRE);
    for (uint32_t i = 0; logical->memory != NULL && i < VAPIC_NESTED_LOGICAL; i++)
        nv->logical_seen[i] = svm_word(logical, 4 * i);
}

/* Messages for L2 are in its page, and VMRUN looks there. Only a V_IRQ of L1's is to be kept. */
static void enter(struct vapic *v)
{
    struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t now = get64(v, VMCB_INT_CTL);

    if (nv->shadow != NULL)
        note_tables(v);
    if (svm_avic(nv))
        return;
    /* The processor clears it when L2 takes the interrupt. */
    if (!nv->window)
        nv->vmcb12.int_ctl = (nv->vmcb12.int_ctl & ~VMCB_V_IRQ) | (now & VMCB_V_IRQ);
    set_bits(v, VMCB_INT_CTL, V_IRQ_ALL, nv->vmcb12.int_ctl, VMCB_CLEAN_TPR);
}

/* A 02 that was never written says nothing of L2. */
static void leave(struct vapic *v, struct vapic_nested_left *left)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    uint64_t own = nv->vmcb12.int_ctl, now = nv->started ? get64(v, VMCB_INT_CTL) : own;

    if (left == NULL)
        return;
    left->int_ctl_mask = VMCB_V_TPR;
    if (!svm_avic(nv))
        left->int_ctl_mask |= VMCB_V_IRQ;
    if (nv->window)
        now = (now & ~VMCB_V_IRQ) | (own & VMCB_V_IRQ);
    left->int_ctl = now & left->int_ctl_mask;
}

/* ---- Interrupts: L1's, L2's ---- */

static bool l1_intercepts(const struct vapic *v)
{
    return (v->accel->nested->vmcb12.intercept3 & VMCB_I3_INTR) != 0;
}

/* A shadow of L2's blocks no exit [APM2 15.21.1]. */
static bool l1_open(const struct vapic *v, uint32_t can)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;

    if (nv->vmcb12.int_ctl & VMCB_V_INTR_MASKING)
        return nv->l1_if;
    return (can & (VAPIC_IF | VAPIC_CAN_IRQ)) != 0;
}

/* Else L1's IF is as it was at VMRUN for as long as L2 runs. */
static bool l1_window(const struct vapic *v)
{
    return !(v->accel->nested->vmcb12.int_ctl & VMCB_V_INTR_MASKING);
}

static bool v_irq_due(uint64_t int_ctl)
{
    uint64_t priority = (int_ctl & VMCB_V_INTR_PRIO) >> VMCB_V_INTR_PRIO_SHIFT;

    return int_ctl & VMCB_V_IRQ && (int_ctl & VMCB_V_IGN_TPR || priority > (int_ctl & VMCB_V_TPR));
}

/* The class of the highest vector of the eight words at `base`; 0 for none, and for those below 16,
 * which are never delivered. */
static uint32_t highest_class(const struct vapic_l1_page *page, uint32_t base)
{
    for (uint32_t n = 8; n-- > 0;) {
        uint32_t bits = svm_word(page, base + 16 * n);

        if (bits != 0)
            return (32 * n + highest_bit(bits)) >> 4;
    }
    return 0;
}

/* As the processor would evaluate it: V_TPR gates, whatever the page says of TPR and PPR. */
static bool l2_due(const struct vapic *v)
{
    const struct vapic_nested_vcpu *nv = v->accel->nested;
    const struct vapic_l1_page *page = nested_pin(nv, SVM_BACKING);
    uint64_t control = get64(v, VMCB_INT_CTL);
    /* 02's has been taken meanwhile, perhaps; but not by L2 where it was a window of the host's. */
    uint64_t own = nv->window ? nv->vmcb12.int_ctl : control;
    uint32_t irr, isr;

    if (!svm_avic(nv))
        return v_irq_due((control & VMCB_V_TPR) | (own & V_IRQ_ALL));
    irr = highest_class(page, APIC_IRR);
    isr = highest_class(page, APIC_ISR);
    return irr > (control & VMCB_V_TPR) && irr > isr;
}

/* ---- The scheduler ---- */

static void name(struct vapic *v, uint64_t key, uint32_t where)
{
    struct vapic_nested *n = nested_vm(v);

    if (n->shadows != NULL)
        vapic_shadow_name(n, v->accel->nested, key, where);
}

static void load(struct vapic *v)
{
    name(v, v->id, v->accel->pcpu->apic_id + 1);
}

static void put(struct vapic *v, bool blocking)
{
    (void)blocking;
    name(v, v->id, 0);
}

static void detach(struct vapic *v)
{
    name(v, SHADOW_NOBODY, 0);
    vapic_shadow_unuse(v);
}

/* ---- The VM ---- */

static bool implies(uint32_t set, uint32_t a, uint32_t b)
{
    return !(set & a) || set & b;
}

static bool possible(uint32_t features, uint32_t hardware)
{
    const uint32_t known = VAPIC_NESTED_AVIC | VAPIC_NESTED_X2AVIC | VAPIC_NESTED_X2AVIC_EXT;

    return (features & ~known) == 0 && implies(features, VAPIC_NESTED_X2AVIC, VAPIC_NESTED_AVIC) &&
           implies(features, VAPIC_NESTED_X2AVIC_EXT, VAPIC_NESTED_X2AVIC) &&
           (!(features & VAPIC_NESTED_X2AVIC) || hardware & VAPIC_ACCEL_X2AVIC) &&
           (!(features & VAPIC_NESTED_X2AVIC_EXT) || hardware & VAPIC_ACCEL_X2AVIC_EXT);
}

/* The dummy is as large as the largest table that L1 may have: MAX_INDEX is L1's. */
static size_t dummy_size(uint32_t features)
{
    uint32_t last = features & VAPIC_NESTED_X2AVIC_EXT ? AVIC_MAX_INDEX_X2_EXT : AVIC_MAX_INDEX_X2;

    return (last + 1) * sizeof(uint64_t);
}

#define TABLES_MOST 4096u

static size_t memory(const struct vapic_nested_config *config,
                     const struct vapic_accel_config *accel)
{
    bool shadow = config->strategy == VAPIC_NESTED_SHADOW;

    if (!possible(config->features, accel->features) ||
        (!shadow && config->strategy != VAPIC_NESTED_DUMMY))
        return 0;
    if (shadow && (config->tables == 0 || config->tables > TABLES_MOST || config->entries == 0 ||
                   config->entries > AVIC_MAX_INDEX_X2_EXT + 1))
        return 0;
    return dummy_size(config->features) + 2 * APIC_PAGE_SIZE + vapic_shadow_memory(config);
}

/*
 * The dummy's entries are valid, or a broadcast would pass by them in silence; not running, so that
 * every IPI exits; and they lead to a page at which nobody looks. [APM2 15.29.6]
 */
static void place(struct vapic_nested *n, void *memory_)
{
    size_t size = dummy_size(n->config.features);
    uint8_t *at = memory_;
    uint64_t *entry = memory_;

    n->dummy_hpa = n->vm->host.physical(n->vm->ctx, at);
    n->dummy_logical_hpa = n->vm->host.physical(n->vm->ctx, at + size);
    n->scratch = at + size + APIC_PAGE_SIZE;
    n->scratch_hpa = n->vm->host.physical(n->vm->ctx, n->scratch);
    for (size_t i = 0; i < size / sizeof(*entry); i++)
        entry[i] = AVIC_PHYSICAL_VALID | n->scratch_hpa;
    vapic_shadow_place(n, at + size + 2 * APIC_PAGE_SIZE);
}

const struct nested_ops vapic_nested_svm = {
    .take = take,
    .retake = retake,
    .pages = pages,
    .table = table,
    .use_table = use_table,
    .write = write,
    .publish = publish,
    .enter = enter,
    .leave = leave,
    .peek = leave, /* it changes nothing */
    .l1_intercepts = l1_intercepts,
    .l1_open = l1_open,
    .l1_window = l1_window,
    .l2_due = l2_due,
    .load = load,
    .put = put,
    .written = vapic_shadow_written,
    .unmap = vapic_shadow_unmap,
    .detach = detach,
    .memory = memory,
    .place = place,
    .fini = vapic_shadow_fini,
};
