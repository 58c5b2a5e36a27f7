/* SPDX-License-Identifier: MIT */
/*
 * The back end for Intel's APICv: which controls vmcs01 gets, which MSRs exit, what an entry needs,
 * and the PID-pointer table. Owns vapic_accel_vcpu.told and the table; called by accel.c only.
 *
 *      APIC is         TPR shadow  APIC accesses  x2APIC mode  the rest (*)  MSRs that pass
 *      disabled        1           0              0            0             none
 *      in xAPIC mode   1           1              0            if active     none
 *      in x2APIC mode  1           0              1            if active     TPR; if active, all
 *                                                                            that is right
 *      (*) process posted interrupts, APIC-register virtualization, virtual-interrupt delivery,
 *          IPI virtualization
 *
 * The page has TPR in it whether or not the vCPU is active, so the TPR shadow is never off, and CR8
 * never exits. What the host must have set by itself: external-interrupt exiting, acknowledge
 * interrupt on exit, EPT (and VPID), MSR bitmaps, the APIC-access address; HLT exiting as it likes.
 *
 * Everything is written by difference to what vmcs01 was last told. So there is no list of who has
 * to remember which change: whatever was put off (because L2 was current, because the vCPU was not
 * active) differs still when it can be written, and is written then.
 */
#include "apicv.h"
#include "../fabric.h"
#include "../mutant.h"

/* ---- Controls ---- */

/* Ours in each field; the other bits are the host's. */
static const struct {
    uint32_t field;
    uint64_t mask;
} fields[APICV_FIELD_COUNT] = {
    [APICV_FIELD_PIN] = {VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS},
    [APICV_FIELD_PRIMARY] = {VMCS_PRIMARY_CONTROLS,
                             VMX_PRI_TPR_SHADOW | VMX_PRI_CR8_LOAD | VMX_PRI_CR8_STORE},
    /* One field, one write: APIC accesses and x2APIC mode must never be 1 together. */
    [APICV_FIELD_SECONDARY] = {VMCS_SECONDARY_CONTROLS, VMX_SEC_APIC_ACCESSES | VMX_SEC_X2APIC |
                                                            VMX_SEC_APIC_REGISTER |
                                                            VMX_SEC_INTERRUPT_DELIVERY},
    [APICV_FIELD_TERTIARY] = {VMCS_TERTIARY_CONTROLS, VMX_TER_IPI_VIRTUALIZATION},
    [APICV_FIELD_THRESHOLD] = {VMCS_TPR_THRESHOLD, 0xFFFFFFFF},
    [APICV_FIELD_EOI] = {VMCS_EOI_EXIT0, UINT64_MAX},
    [APICV_FIELD_EOI + 1] = {VMCS_EOI_EXIT1, UINT64_MAX},
    [APICV_FIELD_EOI + 2] = {VMCS_EOI_EXIT2, UINT64_MAX},
    [APICV_FIELD_EOI + 3] = {VMCS_EOI_EXIT3, UINT64_MAX},
};

static void control(struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    v->vm->host.control(v->vm->ctx, v, field, mask, value);
}

void vapic_apicv_tell(struct vapic *v, uint32_t field, uint64_t value)
{
    if (v->accel->told.field[field] == value)
        return;
    v->accel->told.field[field] = value;
    control(v, fields[field].field, fields[field].mask, value);
}

static uint64_t secondary(const struct vapic *v)
{
    uint64_t bits = 0;

    if (is_active(v))
        bits = VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY;
    if (in_x2apic(v))
        bits |= VMX_SEC_X2APIC;
    else if (apic_enabled(v))
        bits |= VMX_SEC_APIC_ACCESSES;
    return bits;
}

static uint32_t last_index(const struct vapic_accel *accel)
{
    return accel->max_id < APICV_PID_TABLE_MAX ? accel->max_id : APICV_PID_TABLE_MAX - 1;
}

/* Whatever never changes; and the others to a known state. [SDM3 26.6] */
static void tell_constants(struct vapic *v)
{
    struct vapic_accel *accel = v->vm->accel;
    struct vapic_host *host = &v->vm->host;
    void *ctx = v->vm->ctx;
    uint64_t gates = VMX_PRI_SECONDARY | (has_ipiv(v) ? VMX_PRI_TERTIARY : 0);

    control(v, VMCS_PRIMARY_CONTROLS, gates, gates);
    control(v, VMCS_VIRTUAL_APIC, UINT64_MAX, host->physical(ctx, v->page));
    control(v, VMCS_PID, UINT64_MAX, host->physical(ctx, &v->pid));
    control(v, VMCS_NOTIFICATION_VECTOR, 0xFFFF, accel->notify_vector);
    control(v, VMCS_GUEST_INTERRUPT_STATUS, 0xFFFF, 0);
    if (has_ipiv(v)) {
        control(v, VMCS_PID_TABLE, UINT64_MAX, accel->physical_hpa);
        control(v, VMCS_LAST_PID_INDEX, 0xFFFF, last_index(accel));
    }
    for (uint32_t i = 0; i < APICV_FIELD_COUNT; i++) {
        v->accel->told.field[i] = 0;
        /* Without IPI virtualization the field may not exist. */
        if (i != APICV_FIELD_TERTIARY || has_ipiv(v))
            control(v, fields[i].field, fields[i].mask, 0);
    }
}

/* ---- x2APIC MSRs that do not exit ---- */

/*
 * A read gets what the page holds, and never #GP. So the page must hold the register as the guest
 * would read it, and the register must exist and be readable: what counts down (TMCCT), what is
 * write-only or absent exits. PPR is right: the processor keeps it. [SDM3 31.5]
 */
static void pass_reads(const struct vapic *v, uint64_t set[4])
{
    const struct vapic_reg *row;

    for (uint32_t n = 0; (row = vapic_reg_row(n)) != NULL; n++) {
        if (!(row->access & VAPIC_X2_R) || !has_reg(v, row) || row->offset == APIC_TMCCT ||
            row->offset == APIC_APR)
            continue;
        for (uint32_t i = 0; i < row->count; i++)
            vapic_pass_slot(set, (row->offset + 16 * i) >> 4);
    }
}

/* A write that hardware does not virtualize would program the host's own APIC. [SDM3 31.5] */
static void pass_writes(const struct vapic *v, uint64_t set[4])
{
    vapic_pass_slot(set, APIC_EOI >> 4);
    vapic_pass_slot(set, APIC_SELF_IPI >> 4);
    if (has_ipiv(v))
        vapic_pass_slot(set, APIC_ICR >> 4);
}

static struct vapic_msr_pass passed(const struct vapic *v)
{
    struct vapic_msr_pass p = {{0}, {0}};

    if (!in_x2apic(v))
        return p;
    /* The TPR shadow works in x2APIC mode without anything else. */
    vapic_pass_slot(p.read, APIC_TPR >> 4);
    vapic_pass_slot(p.write, APIC_TPR >> 4);
    if (is_active(v)) {
        pass_reads(v, p.read);
        pass_writes(v, p.write);
    }
    return p;
}

static void put_bits(uint8_t *bytes, const uint64_t passing[4])
{
    for (uint32_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t) ~(passing[i / 8] >> 8 * (i % 8));
}

void vapic_pass_to_bitmap(const struct vapic_msr_pass *p, void *bitmap)
{
    uint8_t *bytes = (uint8_t *)bitmap + APICV_MSR_BITMAP_BYTE(MSR_X2APIC_FIRST);

    put_bits(bytes + APICV_MSR_BITMAP_READ_LOW, p->read);
    put_bits(bytes + APICV_MSR_BITMAP_WRITE_LOW, p->write);
}

/* ---- Mode and activity ---- */

/* vmcs01 becomes what mode and activity ask for. It is current. */
static void tell_mode(struct vapic *v)
{
    bool active = is_active(v), mapped;
    struct vapic_msr_pass pass = passed(v);

    if (!v->accel->told.valid)
        tell_constants(v);
    mapped = (v->accel->told.field[APICV_FIELD_SECONDARY] & VMX_SEC_APIC_ACCESSES) != 0;
    vapic_apicv_tell(v, APICV_FIELD_PIN, active ? VMX_PIN_POSTED_INTERRUPTS : 0);
    vapic_apicv_tell(v, APICV_FIELD_PRIMARY, VMX_PRI_TPR_SHADOW);
    vapic_apicv_tell(v, APICV_FIELD_SECONDARY, secondary(v));
    if (has_ipiv(v))
        vapic_apicv_tell(v, APICV_FIELD_TERTIARY, active ? VMX_TER_IPI_VIRTUALIZATION : 0);
    if (active || !MUTANT(MSRS_STAY_OPEN))
        vapic_accel_tell_pass(v, &pass);
    /* A translation from before may lead to ordinary memory [SDM3 31.4.6]. */
    if (!mapped && v->accel->told.field[APICV_FIELD_SECONDARY] & VMX_SEC_APIC_ACCESSES &&
        !MUTANT(NO_FLUSH))
        v->vm->host.flush(v->vm->ctx, v);
}

static void refresh(struct vapic *v, bool was_active)
{
    /* told.field[] says what was */
    if (MUTANT(NESTED_EXIT_FORGETS) && was_active == is_active(v) && v->accel->told.valid)
        return;
    /* L2's control block is current: nested_exit() catches up. */
    if (!v->accel->in_l2 || MUTANT(CONTROL_WRITES_L2))
        tell_mode(v);
}

/* ---- Entry ---- */

/* What an APIC that is software disabled holds in IRR is not delivered [SDM3 12.4.7.2]. */
static uint8_t requesting(const struct vapic *v)
{
    int vector = -1;

    if (sw_enabled(v) || knob(v->vm, VAPIC_KNOB_DELIVER_SOFT_DISABLED))
        vector = highest_vector(v, APIC_IRR, v->irr_words);
    return vector < 0 ? 0 : (uint8_t)vector;
}

/*
 * RVI: what was harvested since the last exit, whatever the hardware had there. SVI is the
 * hardware's, who cleared and set ISR bits along with it, unless software has done so. It must be
 * right before the guest's next EOI, which clears vector SVI and not the highest of ISR.
 * [SDM3 31.2.1]
 */
static void load_status(struct vapic *v)
{
    struct vapic_vm *vm = v->vm;
    uint16_t old = vm->host.interrupt_status(vm->ctx, v);
    uint8_t svi = VMX_STATUS_SVI(old);
    uint32_t status;

    if (v->isr_touched && !MUTANT(SVI_STALE)) {
        int highest = highest_vector(v, APIC_ISR, v->isr_words);

        svi = highest < 0 ? 0 : (uint8_t)highest;
        v->isr_touched = false;
    }
    status = VMX_STATUS_MAKE(MUTANT(RVI_STALE) ? VMX_STATUS_RVI(old) : requesting(v), svi);
    if (status != old)
        control(v, VMCS_GUEST_INTERRUPT_STATUS, 0xFFFF, status);
}

/*
 * The order of an entry: mode and activity (refresh), then what is posted (vapic_enter), and only
 * then this. The bitmap comes after the harvest, for a level-triggered vector may just have come
 * into IRR; and a bitmap that was not loaded while the vCPU was not active is loaded here, because
 * it differs. RVI comes last: it is made from all that is in IRR now.
 */
static void load_delivery(struct vapic *v)
{
    vapic_apicv_load_eoi_exits(v);
    load_status(v);
}

static void enter(struct vapic *v, const struct vapic_entry *entry)
{
    if (v->accel->in_l2 || !entry->runnable || entry->event != VAPIC_CPU_NONE)
        return;
    /* Exit 43 is for who must inject by software. With virtual-interrupt delivery it never comes,
     * and in x2APIC mode VM entry fails for a threshold above TPR's class: it never is. */
    vapic_apicv_tell(v, APICV_FIELD_THRESHOLD, is_active(v) ? 0 : entry->tpr_threshold);
    if (is_active(v))
        load_delivery(v);
}

/* The processor keeps TPR in the page itself, and RVI and SVI in vmcs01. */
static void leave(struct vapic *v)
{
    (void)v;
}

/* SVI and the bitmap after the controls, and all of it now: L1 may be entered before anything else
 * happens that would have it written. */
static void nested_exit(struct vapic *v)
{
    tell_mode(v);
    if (MUTANT(NESTED_SVI_FORGOTTEN))
        v->isr_touched = false;
    if (is_active(v))
        load_delivery(v);
}

/* ---- The PID-pointer table [SDM3 31.1.6] ---- */

size_t vapic_apicv_memory(const struct vapic_accel_config *config)
{
    uint32_t entries = 1;

    if (config->notify_vector < APIC_FIRST_VECTOR || config->wakeup_vector < APIC_FIRST_VECTOR ||
        config->notify_vector == config->wakeup_vector || config->max_id == APIC_DEST_ALL_32)
        return 0;
    if (config->features & VAPIC_ACCEL_IPIV)
        entries = config->max_id < APICV_PID_TABLE_MAX ? config->max_id + 1 : APICV_PID_TABLE_MAX;
    return (entries * sizeof(uint64_t) + APIC_PAGE_SIZE - 1) & ~(size_t)(APIC_PAGE_SIZE - 1);
}

void vapic_apicv_place(struct vapic_accel *accel, void *memory)
{
    accel->physical_table = memory;
    accel->physical_hpa = accel->vm->host.physical(accel->vm->ctx, memory);
    /* An ID beyond the table costs its vCPU exits for the IPIs to it, nothing else. */
    accel->table_limit = UINT32_MAX;
}

/* Does another APIC in xAPIC mode answer to the same 8-bit ID? */
static bool shares_xid(const struct vapic_vm *vm, uint32_t index, uint8_t xid)
{
    return vapic_load16(&vm->by_xid[xid], VAPIC_RELAXED) != index + 1 ||
           vapic_load16(&vm->slots[index].next[LINK_XID], VAPIC_RELAXED) != 0;
}

/*
 * May the hardware post into the vCPU's descriptor whatever a guest sends to the physical ID that
 * is its own? Only if software would do the same: the APIC accepts, and it alone answers to this
 * ID. (With the knob UNIQUE_ID a VM in which it does not is accelerated all the same, and software
 * chooses.) The hardware knows nothing of broadcasts, so in a VM with an APIC in xAPIC mode, where
 * FFh is one, that ID must exit. Entries are written under the configuration lock, after the map.
 */
static bool table_may_lead_to(const struct vapic_vm *vm, uint32_t index, uint32_t id)
{
    const uint64_t must = IDENT_ADDED | IDENT_ENABLED | IDENT_SW;
    uint64_t ident = load_ident(vm, index);

    if ((ident & must) != must || (id == APIC_DEST_ALL_8 && vm->xapic_count != 0))
        return false;
    if (id > 0xFF && knob(vm, VAPIC_KNOB_X2APIC_ALIASES_XAPIC))
        return false;
    if (ident & IDENT_X2APIC)
        return !(ident & IDENT_ODD);
    if (id > 0xFF)
        return ident_xid(ident) == (uint8_t)id && knob(vm, VAPIC_KNOB_WIDE_XAPIC);
    return ident_xid(ident) == id && !shares_xid(vm, index, (uint8_t)id);
}

static void set_entry(struct vapic *v, bool valid)
{
    struct vapic_accel *accel = v->vm->accel;
    uint64_t entry = 0;

    if (!has_ipiv(v) || v->id > last_index(accel))
        return;
    if (valid)
        entry = v->vm->host.physical(v->vm->ctx, &v->pid) | APICV_PID_ENTRY_VALID;
    /* One store: the hardware of other vCPUs reads it at any time. */
    vapic_store64(&accel->physical_table[v->id], entry, VAPIC_RELEASE);
}

static void update_entry(struct vapic *v)
{
    set_entry(v, table_may_lead_to(v->vm, v->index, v->id));
}

/* `v` has come, gone or changed: so may have what decides about entry 255, and about the one whose
 * 8-bit ID is the low byte of a wide ID. */
static void update_others(struct vapic *v)
{
    const uint32_t ids[] = {APIC_DEST_ALL_8, v->id & 0xFF};

    for (uint32_t i = 0; i < 2; i++) {
        struct vapic *other = vapic_by_id(v->vm, ids[i]);

        if (other != NULL && other != v && other->accel != NULL)
            update_entry(other);
    }
}

static void identity(struct vapic *v)
{
    update_entry(v);
    update_others(v);
    /* Which routes lead here has changed too. */
    vapic_store32(&v->accel->scanned, v->accel->scanned - 1, VAPIC_RELAXED);
}

static void attach(struct vapic *v)
{
    vapic_posted_attach(v);
}

/* accel.c waits for processors that are in the middle of an IPI which they resolved before. */
static void detach(struct vapic *v)
{
    if (!MUTANT(REMOVED_BUT_VALID))
        set_entry(v, false);
    update_others(v);
    vapic_posted_detach(v);
}

/* x2APIC and xAPIC are virtualized by controls of their own. */
static bool hybrid(const struct vapic_accel *accel)
{
    (void)accel;
    return false;
}

#define VAPIC_X(name, number, avic, apicv, text) | ((apicv) ? 1u << (number) : 0u)

const struct vapic_backend vapic_apicv_backend = {
    .honours = 0u VAPIC_INHIBITS(VAPIC_X),
    .hybrid = hybrid,
    .attach = attach,
    .refresh = refresh,
    .enter = enter,
    .exit = leave,
    .load = vapic_posted_load,
    .put = vapic_posted_put,
    .nested_exit = nested_exit,
    .identity = identity,
    .detach = detach,
};

#undef VAPIC_X
