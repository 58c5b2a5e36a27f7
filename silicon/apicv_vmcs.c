/* SPDX-License-Identifier: MIT */
/*
 * The VMCS: the fields that take part in APIC virtualization, by encoding. Software reaches them
 * with VMREAD and VMWRITE; the model itself by their place (enum apicv_field). Every field can be
 * written, also the read-only ones, as on processors whose IA32_VMX_MISC bit 29 is set.
 */
#include "apicv.h"

#define APICV_FIELD_ENCODING(name) [FIELD_##name] = VMCS_##name,
static const uint16_t encodings[APICV_VMCS_FIELDS] = {APICV_FIELD_LIST(APICV_FIELD_ENCODING)};
#undef APICV_FIELD_ENCODING

/* An encoding's bits 14:13 are the width, bit 0 selects the high half [SDM3 26.11.2]. */
enum width { WIDTH_16, WIDTH_64, WIDTH_32, WIDTH_NATURAL };

static enum width width_of(uint32_t encoding)
{
    return (enum width)(encoding >> 13 & 3);
}

static uint64_t width_mask(enum width width)
{
    static const uint64_t masks[] = {
        [WIDTH_16] = 0xFFFF,
        [WIDTH_64] = UINT64_MAX,
        [WIDTH_32] = UINT32_MAX,
        [WIDTH_NATURAL] = UINT64_MAX,
    };

    return masks[width];
}

static bool is_high(uint32_t encoding)
{
    return (encoding & VMCS_FIELD_HIGH) && width_of(encoding) == WIDTH_64;
}

/* The field's place, APICV_FIELD_COUNT when there is none. */
static unsigned place_of(uint32_t encoding)
{
    uint32_t base = is_high(encoding) ? encoding & ~VMCS_FIELD_HIGH : encoding;
    unsigned i = 0;

    while (i < APICV_FIELD_COUNT && encodings[i] != base)
        i++;
    return i;
}

void vapic_sil_vmcs_init(struct vapic_sil_vmcs *vmcs)
{
    for (unsigned i = 0; i < APICV_FIELD_COUNT; i++)
        vmcs->field[i] = 0;
    vmcs->field[FIELD_PIN_CONTROLS] = VMX_PIN_MUST;
    vmcs->field[FIELD_PRIMARY_CONTROLS] = VMX_PRI_MUST;
    vmcs->field[FIELD_EXIT_CONTROLS] = VMX_EXC_MUST;
    vmcs->field[FIELD_ENTRY_CONTROLS] = VMX_ENTRY_MUST;
}

bool vapic_sil_vmread(const struct vapic_sil_vmcs *vmcs, uint32_t encoding, uint64_t *value)
{
    unsigned place = place_of(encoding);

    if (place == APICV_FIELD_COUNT)
        return false;
    *value = is_high(encoding) ? vmcs->field[place] >> 32 : vmcs->field[place];
    return true;
}

bool vapic_sil_vmwrite(struct vapic_sil_vmcs *vmcs, uint32_t encoding, uint64_t value)
{
    unsigned place = place_of(encoding);

    if (place == APICV_FIELD_COUNT)
        return false;
    if (is_high(encoding))
        vmcs->field[place] = (uint32_t)vmcs->field[place] | value << 32;
    else
        vmcs->field[place] = value & width_mask(width_of(encoding));
    return true;
}
