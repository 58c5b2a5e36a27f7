/* SPDX-License-Identifier: MIT */
/*
 * The VMCB as the manual prints it. The library and the model take its layout from one header, so
 * a wrong offset there would agree with itself everywhere else: here it meets numbers of the
 * manual's tables, which are written out.
 */
#include "silicon_fixture.h"

struct row {
    const char *name;
    uint64_t is, printed;
};

#define ROW(name, printed)                                                                         \
    {                                                                                              \
#name, name, printed                                                                       \
    }

static void check(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sf_equal(rows[i].is, rows[i].printed, "%s", rows[i].name);
}

#define CHECK(rows) check(rows, sizeof(rows) / sizeof(rows[0]))

/* [APM2 B] [APM2 B.1] */
static void control_area(void **state)
{
    static const struct row rows[] = {
        ROW(VMCB_INTERCEPT_CR, 0x000),  ROW(VMCB_INTERCEPT_DR, 0x004),
        ROW(VMCB_INTERCEPT_EXC, 0x008), ROW(VMCB_INTERCEPT3, 0x00C),
        ROW(VMCB_INTERCEPT4, 0x010),    ROW(VMCB_INTERCEPT5, 0x014),
        ROW(VMCB_IOPM_BASE, 0x040),     ROW(VMCB_MSRPM_BASE, 0x048),
        ROW(VMCB_TSC_OFFSET, 0x050),    ROW(VMCB_ASID, 0x058),
        ROW(VMCB_TLB_CONTROL, 0x05C),   ROW(VMCB_INT_CTL, 0x060),
        ROW(VMCB_INT_STATE, 0x068),     ROW(VMCB_EXITCODE, 0x070),
        ROW(VMCB_EXITINFO1, 0x078),     ROW(VMCB_EXITINFO2, 0x080),
        ROW(VMCB_EXITINTINFO, 0x088),   ROW(VMCB_NP_ENABLE, 0x090),
        ROW(VMCB_AVIC_BAR, 0x098),      ROW(VMCB_EVENTINJ, 0x0A8),
        ROW(VMCB_N_CR3, 0x0B0),         ROW(VMCB_CLEAN, 0x0C0),
        ROW(VMCB_NRIP, 0x0C8),          ROW(VMCB_AVIC_BACKING, 0x0E0),
        ROW(VMCB_AVIC_LOGICAL, 0x0F0),  ROW(VMCB_AVIC_PHYSICAL, 0x0F8),
    };

    (void)state;
    CHECK(rows);
}

/* Bits within words of the control area. */
static void control_bits(void **state)
{
    static const struct row rows[] = {
        ROW(VMCB_CR8_READ, 1u << 8),
        ROW(VMCB_CR8_WRITE, 1u << 24),
        ROW(VMCB_I3_INTR, 1u << 0),
        ROW(VMCB_I3_NMI, 1u << 1),
        ROW(VMCB_I3_SMI, 1u << 2),
        ROW(VMCB_I3_INIT, 1u << 3),
        ROW(VMCB_I3_VINTR, 1u << 4),
        ROW(VMCB_I3_IRET, 1u << 20),
        ROW(VMCB_I3_HLT, 1u << 24),
        ROW(VMCB_I3_MSR, 1u << 28),
        ROW(VMCB_I3_SHUTDOWN, 1u << 31),
        ROW(VMCB_I4_VMRUN, 1u << 0),
        ROW(VMCB_I5_IDLE_HLT, 1u << 6),
        ROW(VMCB_V_TPR, 0xF),
        ROW(VMCB_V_IRQ, 1ull << 8),
        ROW(VMCB_V_GIF, 1ull << 9),
        ROW(VMCB_V_NMI, 1ull << 11),
        ROW(VMCB_V_NMI_MASK, 1ull << 12),
        ROW(VMCB_V_INTR_PRIO, 0xFull << 16),
        ROW(VMCB_V_IGN_TPR, 1ull << 20),
        ROW(VMCB_V_INTR_MASKING, 1ull << 24),
        ROW(VMCB_V_GIF_ENABLE, 1ull << 25),
        ROW(VMCB_V_NMI_ENABLE, 1ull << 26),
        ROW(VMCB_V_X2AVIC, 1ull << 30),
        ROW(VMCB_V_AVIC, 1ull << 31),
        ROW(VMCB_V_VECTOR, 0xFFull << 32),
    };

    (void)state;
    CHECK(rows);
}

/* The state save area begins at 400h. [APM2 B.2] */
static void state_save_area(void **state)
{
    static const struct row rows[] = {
        ROW(VMCB_CPL, 0x400 + 0x0CB),   ROW(VMCB_EFER, 0x400 + 0x0D0),
        ROW(VMCB_CR4, 0x400 + 0x148),   ROW(VMCB_CR3, 0x400 + 0x150),
        ROW(VMCB_CR0, 0x400 + 0x158),   ROW(VMCB_RFLAGS, 0x400 + 0x170),
        ROW(VMCB_RIP, 0x400 + 0x178),   ROW(VMCB_RSP, 0x400 + 0x1D8),
        ROW(VMCB_RAX, 0x400 + 0x1F8),   ROW(VMCB_SIZE, 0x1000),
        ROW(VMCB_RFLAGS_IF, 1ull << 9),
    };

    (void)state;
    CHECK(rows);
}

/* [APM2 C] */
static void exit_codes(void **state)
{
    static const struct row rows[] = {
        ROW(SVM_EXIT_CR8_READ, 0x008),
        ROW(SVM_EXIT_CR8_WRITE, 0x018),
        ROW(SVM_EXIT_EXCEPTION, 0x040),
        ROW(SVM_EXIT_INTR, 0x060),
        ROW(SVM_EXIT_NMI, 0x061),
        ROW(SVM_EXIT_VINTR, 0x064),
        ROW(SVM_EXIT_HLT, 0x078),
        ROW(SVM_EXIT_MSR, 0x07C),
        ROW(SVM_EXIT_TASK_SWITCH, 0x07D),
        ROW(SVM_EXIT_SHUTDOWN, 0x07F),
        ROW(SVM_EXIT_IDLE_HLT, 0x0A6),
        ROW(SVM_EXIT_NPF, 0x400),
        ROW(SVM_EXIT_AVIC_INCOMPLETE, 0x401),
        ROW(SVM_EXIT_AVIC_NOACCEL, 0x402),
        ROW(SVM_EXIT_INVALID, UINT64_MAX),
    };

    (void)state;
    CHECK(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_area),
        cmocka_unit_test(control_bits),
        cmocka_unit_test(state_save_area),
        cmocka_unit_test(exit_codes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
