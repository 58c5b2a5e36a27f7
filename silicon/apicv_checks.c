/* SPDX-License-Identifier: MIT */
/*
 * VM entry, first half: which controls are in effect, and the checks on them [SDM3 28.2.1.1]. Each
 * check stands for itself in a table; a check looks only at what its governing control, in effect,
 * makes meaningful, so that a disabled feature's fields may hold anything.
 *
 * Called by apicv_entry.c.
 */
#include "apicv.h"

struct check {
    const struct vapic_sil *m;
    const struct vapic_sil_vmcs *vmcs;
    const struct apicv_controls *c;
};

static uint64_t field(const struct check *k, enum apicv_field f)
{
    return k->vmcs->field[f];
}

static bool tpr_shadow(const struct check *k)
{
    return (k->c->primary & VMX_PRI_TPR_SHADOW) != 0;
}

static bool secondary(const struct check *k, uint32_t bit)
{
    return (k->c->secondary & bit) != 0;
}

static bool posting(const struct check *k)
{
    return (k->c->pin & VMX_PIN_POSTED_INTERRUPTS) != 0;
}

static bool ipiv(const struct check *k)
{
    return (k->c->tertiary & VMX_TER_IPI_VIRTUALIZATION) != 0;
}

/*
 * Secondary controls act as 0 without primary bit 31, tertiary ones without bit 17. Processing of
 * posted interrupts is a pin-based control; whether it needs bit 31 is told in two ways, and the
 * knob picks the other one: there it acts as 0.
 */
void vapic_sil_apicv_controls(const struct vapic_sil *m, const struct vapic_sil_vmcs *vmcs,
                              struct apicv_controls *c)
{
    c->pin = (uint32_t)vmcs->field[FIELD_PIN_CONTROLS];
    c->primary = (uint32_t)vmcs->field[FIELD_PRIMARY_CONTROLS];
    c->secondary = 0;
    c->tertiary = 0;
    if (c->primary & VMX_PRI_SECONDARY)
        c->secondary = (uint32_t)vmcs->field[FIELD_SECONDARY_CONTROLS];
    else if (m->config.knobs.ppi_needs_no_secondary)
        c->pin &= ~VMX_PIN_POSTED_INTERRUPTS;
    if (c->primary & VMX_PRI_TERTIARY)
        c->tertiary = vmcs->field[FIELD_TERTIARY_CONTROLS];
}

bool vapic_sil_apicv_address_ok(const struct vapic_sil *m, uint64_t address, uint64_t low_bits)
{
    return !(address & low_bits) && vapic_sil_legal(m, address);
}

/* A whole page (or line) that the controls in use refer to. */
static bool block_ok(const struct check *k, enum apicv_field f, size_t size)
{
    uint64_t address = field(k, f);

    return vapic_sil_apicv_address_ok(k->m, address, size - 1) &&
           vapic_sil_memory(k->m, address, size) != NULL;
}

static bool reserved(uint64_t value, uint64_t must, uint64_t may)
{
    return (value & must) != must || (value & ~may) != 0;
}

static bool reserved_controls(const struct check *k)
{
    const struct vapic_sil_config *config = &k->m->config;

    return reserved(field(k, FIELD_PIN_CONTROLS), VMX_PIN_MUST,
                    VMX_PIN_MAY & ~config->absent_pin) ||
           reserved(k->c->primary, VMX_PRI_MUST, VMX_PRI_MAY & ~config->absent_primary) ||
           reserved(k->c->secondary, 0, VMX_SEC_MAY & ~config->absent_secondary) ||
           reserved(k->c->tertiary, 0, VMX_TER_MAY & ~config->absent_tertiary) ||
           reserved(field(k, FIELD_EXIT_CONTROLS), VMX_EXC_MUST, VMX_EXC_MAY) ||
           reserved(field(k, FIELD_ENTRY_CONTROLS), VMX_ENTRY_MUST, VMX_ENTRY_MAY);
}

static bool bad_msr_bitmap(const struct check *k)
{
    return (k->c->primary & VMX_PRI_MSR_BITMAPS) && !block_ok(k, FIELD_MSR_BITMAP, 4096);
}

static bool bad_virtual_apic(const struct check *k)
{
    return tpr_shadow(k) && !block_ok(k, FIELD_VIRTUAL_APIC, 4096);
}

static bool bad_threshold(const struct check *k)
{
    return tpr_shadow(k) && !secondary(k, VMX_SEC_INTERRUPT_DELIVERY) &&
           field(k, FIELD_TPR_THRESHOLD) > 15;
}

/* Reads the page: the one check that depends on memory. With VAA the exit comes instead. */
static bool threshold_above_tpr(const struct check *k)
{
    const uint32_t *tpr;

    if (!tpr_shadow(k) || secondary(k, VMX_SEC_INTERRUPT_DELIVERY | VMX_SEC_APIC_ACCESSES))
        return false;
    tpr = vapic_sil_memory(k->m, field(k, FIELD_VIRTUAL_APIC) + APIC_TPR, sizeof(*tpr));
    return field(k, FIELD_TPR_THRESHOLD) > (vapic_load32(tpr, VAPIC_RELAXED) >> 4 & 15);
}

/* That IPI virtualization needs the TPR shadow is inferred from the others. */
static bool no_shadow_for(const struct check *k)
{
    return !tpr_shadow(k) &&
           (secondary(k, VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY) ||
            ipiv(k));
}

/* The access page itself is never read or written: there need be no memory. */
static bool bad_access_page(const struct check *k)
{
    return secondary(k, VMX_SEC_APIC_ACCESSES) &&
           !vapic_sil_apicv_address_ok(k->m, field(k, FIELD_APIC_ACCESS), 4095);
}

static bool both_modes(const struct check *k)
{
    return secondary(k, VMX_SEC_X2APIC) && secondary(k, VMX_SEC_APIC_ACCESSES);
}

static bool delivery_without_exiting(const struct check *k)
{
    return secondary(k, VMX_SEC_INTERRUPT_DELIVERY) && !(k->c->pin & VMX_PIN_EXTINT_EXITING);
}

static bool posting_alone(const struct check *k)
{
    return posting(k) && (!secondary(k, VMX_SEC_INTERRUPT_DELIVERY) ||
                          !(field(k, FIELD_EXIT_CONTROLS) & VMX_EXC_ACK_INTERRUPT));
}

static bool bad_notification_vector(const struct check *k)
{
    return posting(k) && field(k, FIELD_NOTIFICATION_VECTOR) > 255;
}

static bool bad_descriptor(const struct check *k)
{
    return posting(k) && !block_ok(k, FIELD_PID, PID_SIZE);
}

static bool bad_pid_table(const struct check *k)
{
    uint64_t table = field(k, FIELD_PID_TABLE);
    uint64_t last = table + 8 * field(k, FIELD_LAST_PID_INDEX);

    if (!ipiv(k))
        return false;
    if (!vapic_sil_apicv_address_ok(k->m, table, 7))
        return true;
    return !k->m->config.knobs.ipiv_last_entry_unchecked &&
           !vapic_sil_apicv_address_ok(k->m, last, 0);
}

/* More than 512 entries have no defined behaviour on a processor that does not say otherwise. */
static bool bad_msr_load(const struct check *k)
{
    uint64_t count = field(k, FIELD_ENTRY_MSR_LOAD_COUNT);

    return count > 512 ||
           (count && !vapic_sil_apicv_address_ok(k->m, field(k, FIELD_ENTRY_MSR_LOAD), 15));
}

/* Order matters in one place: the page is read only when its address is known to be good. */
static bool (*const checks[])(const struct check *k) = {
    reserved_controls,
    bad_msr_bitmap,
    bad_virtual_apic,
    bad_threshold,
    threshold_above_tpr,
    no_shadow_for,
    bad_access_page,
    both_modes,
    delivery_without_exiting,
    posting_alone,
    bad_notification_vector,
    bad_descriptor,
    bad_pid_table,
    bad_msr_load,
};

bool vapic_sil_apicv_checks(const struct vapic_sil *m, const struct vapic_sil_vmcs *vmcs,
                            const struct apicv_controls *c)
{
    struct check k = {m, vmcs, c};

    for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        if (checks[i](&k))
            return false;
    return true;
}
