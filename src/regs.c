/* SPDX-License-Identifier: MIT */
/*
 * The register file as one table, and the other tables that describe the library to its users:
 * knobs and results. Nothing here decides anything; the code that does reads these rows.
 */
#include "internal.h"

#define X_RW  (VAPIC_X_R | VAPIC_X_W)
#define X2_RW (VAPIC_X2_R | VAPIC_X2_W)
#define RW    (X_RW | X2_RW)
#define RO    (VAPIC_X_R | VAPIC_X2_R)
#define WO    (VAPIC_X_W | VAPIC_X2_W)

/*
 * [SDM3 T12-1] [SDM3 T12-6] [APM2 T16-2]. LVT bits 12 (delivery status) and 14 (remote IRR) are
 * read-only, so they are neither writable nor reserved. What depends on the vCPU's features (SVR
 * bit 12, timer mode bit 18) is writable here and masked by the code. Rows are ordered by offset.
 */
const struct vapic_reg vapic_reg_rows[] = {
    /* name, offset, count, access, need, writable, ones, reserved, reset, init */
    {"ID", APIC_ID, 1, X_RW | VAPIC_X2_R, 0, 0xFF000000, 0, 0, 0, 0},
    {"LVR", APIC_LVR, 1, RO, 0, 0, 0, 0, 0, 0},
    {"TPR", APIC_TPR, 1, RW, 0, 0xFF, 0, 0xFFFFFF00, 0, 0},
    {"APR", APIC_APR, 1, RO, VAPIC_NEED_AMD_IN_X2APIC, 0, 0, 0, 0, 0},
    {"PPR", APIC_PPR, 1, RO, 0, 0, 0, 0, 0, 0},
    {"EOI", APIC_EOI, 1, WO, 0, 0, 0, 0xFFFFFFFF, 0, 0},
    {"RRR", APIC_RRR, 1, VAPIC_X_R, 0, 0, 0, 0, 0, 0},
    {"LDR", APIC_LDR, 1, X_RW | VAPIC_X2_R, 0, 0xFF000000, 0, 0, 0, 0},
    {"DFR", APIC_DFR, 1, X_RW, 0, 0xF0000000, 0x0FFFFFFF, 0, 0xFFFFFFFF, 0xFFFFFFFF},
    {"SVR", APIC_SVR, 1, RW, 0, 0x13FF, 0, 0xFFFFEC00, 0xFF, 0xFF},
    {"ISR", APIC_ISR, 8, RO, 0, 0, 0, 0, 0, 0},
    {"TMR", APIC_TMR, 8, RO, 0, 0, 0, 0, 0, 0},
    {"IRR", APIC_IRR, 8, RO, 0, 0, 0, 0, 0, 0},
    {"ESR", APIC_ESR, 1, RW, 0, 0, 0, 0, 0, 0},
    {"LVT_CMCI", APIC_LVT_CMCI, 1, RW, VAPIC_NEED_CMCI, 0x107FF, 0, 0xFFFEE800, 0x10000, 0x10000},
    {"ICR", APIC_ICR, 1, RW, 0, 0xFFFFEFFF, 0, APIC_ICR_X2_RESERVED, 0, 0},
    {"ICR2", APIC_ICR2, 1, X_RW, 0, 0xFF000000, 0, 0, 0, 0},
    {"LVT_TIMER", APIC_LVT_TIMER, 1, RW, 0, 0x700FF, 0, 0xFFF8EF00, 0x10000, 0x10000},
    {"LVT_THERMAL", APIC_LVT_THERMAL, 1, RW, VAPIC_NEED_THERMAL, 0x107FF, 0, 0xFFFEE800, 0x10000,
     0x10000},
    {"LVT_PMC", APIC_LVT_PMC, 1, RW, VAPIC_NEED_PMC, 0x107FF, 0, 0xFFFEE800, 0x10000, 0x10000},
    {"LVT_LINT0", APIC_LVT_LINT0, 1, RW, 0, 0x1A7FF, 0, 0xFFFE0800, 0x10000, 0x10000},
    {"LVT_LINT1", APIC_LVT_LINT1, 1, RW, 0, 0x1A7FF, 0, 0xFFFE0800, 0x10000, 0x10000},
    {"LVT_ERROR", APIC_LVT_ERROR, 1, RW, 0, 0x100FF, 0, 0xFFFEEF00, 0x10000, 0x10000},
    {"TMICT", APIC_TMICT, 1, RW, 0, 0xFFFFFFFF, 0, 0, 0, 0},
    {"TMCCT", APIC_TMCCT, 1, RO, 0, 0, 0, 0, 0, 0},
    {"TDCR", APIC_TDCR, 1, RW, 0, 0xB, 0, 0xFFFFFFF4, 0, 0},
    {"SELF_IPI", APIC_SELF_IPI, 1, VAPIC_X2_W, 0, 0, 0, 0xFFFFFF00, 0, 0},
    {"EAFR", APIC_EAFR, 1, RO, VAPIC_NEED_AMD_EXT, 0, 0, 0, 0x00040007, 0x00040007},
    {"EACR", APIC_EACR, 1, RW, VAPIC_NEED_AMD_EXT, 0x7, 0, 0xFFFFFFF8, 0, 0},
    {"SEOI", APIC_SEOI, 1, RW, VAPIC_NEED_AMD_EXT, 0xFF, 0, 0xFFFFFF00, 0, 0},
    {"IER", APIC_IER, 8, RW, VAPIC_NEED_AMD_EXT, 0xFFFFFFFF, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF},
    {"EILVT", APIC_EILVT, 4, RW, VAPIC_NEED_AMD_EXT, 0x107FF, 0, 0xFFFEE800, 0, 0},
};

#define ROWS (sizeof(vapic_reg_rows) / sizeof(vapic_reg_rows[0]))

/* Row + 1 of each 16-byte slot of the page up to 530h, 0 for a reserved one. */
#define ROW(n) ((n) + 1)
const uint8_t vapic_reg_slots[] = {
    [APIC_ID >> 4] = ROW(0),
    [APIC_LVR >> 4] = ROW(1),
    [APIC_TPR >> 4] = ROW(2),
    [APIC_APR >> 4] = ROW(3),
    [APIC_PPR >> 4] = ROW(4),
    [APIC_EOI >> 4] = ROW(5),
    [APIC_RRR >> 4] = ROW(6),
    [APIC_LDR >> 4] = ROW(7),
    [APIC_DFR >> 4] = ROW(8),
    [APIC_SVR >> 4] = ROW(9),
    [APIC_ISR >> 4] = ROW(10),
    ROW(10),
    ROW(10),
    ROW(10),
    ROW(10),
    ROW(10),
    ROW(10),
    ROW(10),
    [APIC_TMR >> 4] = ROW(11),
    ROW(11),
    ROW(11),
    ROW(11),
    ROW(11),
    ROW(11),
    ROW(11),
    ROW(11),
    [APIC_IRR >> 4] = ROW(12),
    ROW(12),
    ROW(12),
    ROW(12),
    ROW(12),
    ROW(12),
    ROW(12),
    ROW(12),
    [APIC_ESR >> 4] = ROW(13),
    [APIC_LVT_CMCI >> 4] = ROW(14),
    [APIC_ICR >> 4] = ROW(15),
    [APIC_ICR2 >> 4] = ROW(16),
    [APIC_LVT_TIMER >> 4] = ROW(17),
    [APIC_LVT_THERMAL >> 4] = ROW(18),
    [APIC_LVT_PMC >> 4] = ROW(19),
    [APIC_LVT_LINT0 >> 4] = ROW(20),
    [APIC_LVT_LINT1 >> 4] = ROW(21),
    [APIC_LVT_ERROR >> 4] = ROW(22),
    [APIC_TMICT >> 4] = ROW(23),
    [APIC_TMCCT >> 4] = ROW(24),
    [APIC_TDCR >> 4] = ROW(25),
    [APIC_SELF_IPI >> 4] = ROW(26),
    [APIC_EAFR >> 4] = ROW(27),
    [APIC_EACR >> 4] = ROW(28),
    [APIC_SEOI >> 4] = ROW(29),
    [APIC_IER >> 4] = ROW(30),
    ROW(30),
    ROW(30),
    ROW(30),
    ROW(30),
    ROW(30),
    ROW(30),
    ROW(30),
    [APIC_EILVT >> 4] = ROW(31),
    ROW(31),
    ROW(31),
    ROW(31),
};

_Static_assert(ROWS == 32, "vapic_reg_slots names every row of vapic_reg_rows");

const struct vapic_reg *vapic_reg_row(uint32_t n)
{
    return n < ROWS ? &vapic_reg_rows[n] : NULL;
}

const struct vapic_reg *vapic_reg_at(uint32_t offset)
{
    return offset & 15 ? NULL : reg_at(offset);
}

static const struct vapic_knob_info knobs[] = {
#define VAPIC_X(name, manual, kvm, text) {#name, text, manual, kvm},
    VAPIC_KNOBS(VAPIC_X)
#undef VAPIC_X
};

_Static_assert(VAPIC_KNOB_COUNT <= 32, "knobs are bits of a uint32_t");

const struct vapic_knob_info *vapic_knob_info(uint32_t index)
{
    return index < VAPIC_KNOB_COUNT ? &knobs[index] : NULL;
}

struct result_text {
    int value;
    const char *text;
};

static const struct result_text results[] = {
#define VAPIC_X(name, value, text) {value, text},
    VAPIC_RESULTS(VAPIC_X)
#undef VAPIC_X
};

const char *vapic_result_text(int result)
{
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
        if (results[i].value == result)
            return results[i].text;
    return "unknown result";
}

uint32_t vapic_api_version(void)
{
    return VAPIC_API_VERSION;
}
