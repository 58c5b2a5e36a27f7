/* SPDX-License-Identifier: MIT */
/*
 * Which x2APIC MSRs a guest may touch without an exit under x2AVIC, and AMD's MSR permission map.
 */
#include "avic.h"

/*
 * Only what the processor does right by itself. Left out although it would not be refused: reads
 * that end in a fault exit anyway (APR, current count), which by an intercept need no decoding; and
 * writes that trap, where an intercept comes before the processor's own checks of reserved bits and
 * leaves those to the library, the TSC-deadline bit of the timer's LVT among them [APM2 15.29.9.2].
 */
static const struct {
    uint16_t first;
    uint8_t count;
    bool read, write;
} passed[] = {
    {APIC_ID, 1, true, false},        {APIC_LVR, 1, true, false},
    {APIC_TPR, 1, true, true},        {APIC_PPR, 1, true, false},
    {APIC_EOI, 1, false, true},       {APIC_LDR, 1, true, false},
    {APIC_SVR, 1, true, false},       {APIC_ISR, 24, true, false}, /* and TMR, IRR */
    {APIC_ESR, 1, true, false},       {APIC_ICR, 1, true, true},
    {APIC_LVT_TIMER, 7, true, false}, /* to the initial count */
    {APIC_TDCR, 1, true, false},      {APIC_SELF_IPI, 1, false, true},
};

/*
 * None unless x2AVIC is in force: with int_ctl bit 30 clear an MSR that is not intercepted is that
 * of the host's own APIC. A register that this vCPU lacks stays intercepted: it raises #GP, where
 * the processor would read the page.
 */
void vapic_avic_pass(const struct vapic *v, struct vapic_msr_pass *pass)
{
    *pass = (struct vapic_msr_pass){{0}, {0}};
    if (!avic_in_x2avic(v))
        return;
    for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
        for (uint32_t n = 0; n < passed[i].count; n++) {
            uint32_t slot = (passed[i].first >> 4) + n;

            if (!has_reg(v, reg_at(slot << 4)))
                continue;
            if (passed[i].read)
                vapic_pass_slot(pass->read, slot);
            if (passed[i].write)
                vapic_pass_slot(pass->write, slot);
        }
    }
}

static bool is_set(const uint64_t words[4], uint32_t bit)
{
    return (words[bit >> 6] >> (bit & 63)) & 1;
}

void vapic_pass_to_msrpm(const struct vapic_msr_pass *pass, void *msrpm)
{
    uint8_t *map = msrpm;

    for (uint32_t n = 0; n <= MSR_X2APIC_LAST - MSR_X2APIC_FIRST; n++) {
        uint32_t at = (uint32_t)svm_msrpm_bit(MSR_X2APIC_FIRST + n);
        uint8_t exits =
            (uint8_t)((is_set(pass->read, n) ? 0 : 1) | (is_set(pass->write, n) ? 0 : 2));

        map[at >> 3] = (uint8_t)((map[at >> 3] & ~(3u << (at & 7))) | exits << (at & 7));
    }
}
