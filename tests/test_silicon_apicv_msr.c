/* SPDX-License-Identifier: MIT */
/*
 * MSRs 800h to 8FFh under every set of controls, read and written; the MSR bitmap; MOV to and from
 * CR8 [SDM3 31.5] [SDM3 31.3] [SDM3 26.6.9] [SDM3 27.1.3].
 */
#include "silicon_vmx.h"

static const struct {
    const char *name;
    uint32_t controls;
} sets[] = {
    {"VX2", TS | VX2 | BITMAPS},
    {"VX2+ARV", TS | VX2 | ARV | BITMAPS},
    {"VX2+VID", TS | VX2 | VID | BITMAPS},
    {"VX2+ARV+VID", TS | VX2 | ARV | VID | BITMAPS},
    {"VX2+ARV+VID+IPIV", X2APIC_FULL | IPIV},
    {"ARV+VID without VX2", TS | ARV | VID | BITMAPS},
    {"VX2+ARV+VID, no secondary", TS | VX2 | ARV | VID | BITMAPS | NO_SEC},
};

enum { SETS = sizeof(sets) / sizeof(sets[0]) };

static bool virtualizes(uint32_t controls, uint32_t bit)
{
    return (controls & VX2) && (controls & bit) == bit && !(controls & NO_SEC);
}

static void fill_page(struct vmx *x)
{
    for (uint32_t o = 0; o < 0x1000; o += 4)
        *vmx_word(x, 0, o) = o << 16 | 0x31;
}

static void start(struct vmx *x, uint32_t controls)
{
    vmx_program(x, 0, controls);
    vmx_set(x, 0, 0x0810, 0);
    vmx_set(x, 0, 0x401C, 0);
    vmx_enter(x, 0);
}

/* Every index, read: the page answers or the host's APIC does, and nothing is #GP. */
static void all_reads(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned s = 0; s < SETS; s++) {
        for (uint32_t msr = 0x800; msr <= 0x8FF; msr++) {
            uint32_t offset = (msr - 0x800) * 16;
            bool page = virtualizes(sets[s].controls, ARV) ||
                        (virtualizes(sets[s].controls, 0) && msr == 0x808);
            uint64_t value = 0xABCDEF;
            enum vapic_sil_result result;

            fill_page(&x);
            start(&x, sets[s].controls);
            result = vapic_sil_rdmsr(&x.cpu[0], msr, &value);
            if (result != (page ? VAPIC_SIL_DONE : VAPIC_SIL_NATIVE))
                fail_msg("%s: RDMSR %03x gives %d", sets[s].name, msr, result);
            if (page)
                assert_int_equal(value, (uint64_t)*vmx_word(&x, 0, offset + 4) << 32 |
                                            *vmx_word(&x, 0, offset));
            assert_int_equal(x.cpu[0].guest.rip, VMX_RIP + (page ? 2 : 0));
            vmx_leave(&x, 0);
        }
    }
    vmx_free(&x);
}

/* Which write is virtualized under which controls. */
static bool special(uint32_t controls, uint32_t msr)
{
    switch (msr) {
    case 0x808:
        return virtualizes(controls, 0);
    case 0x80B:
    case 0x83F:
        return virtualizes(controls, VID);
    case 0x830:
        return virtualizes(controls, IPIV);
    default:
        return false;
    }
}

/* Every index, written with 0. */
static void all_writes(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned s = 0; s < SETS; s++) {
        for (uint32_t msr = 0x800; msr <= 0x8FF; msr++) {
            uint32_t offset = (msr - 0x800) * 16;
            bool page = special(sets[s].controls, msr);
            bool exits = page && (msr == 0x83F || msr == 0x830);
            uint32_t upper;
            enum vapic_sil_result result;

            fill_page(&x);
            memset(vmx_word(&x, 0, 0x100), 0, 0x180);
            start(&x, sets[s].controls);
            upper = *vmx_word(&x, 0, offset + 4);
            result = vapic_sil_wrmsr(&x.cpu[0], msr, 0);
            if (!page) {
                if (result != VAPIC_SIL_NATIVE)
                    fail_msg("%s: WRMSR %03x gives %d", sets[s].name, msr, result);
                assert_int_equal(*vmx_word(&x, 0, offset + 4), upper);
                vmx_leave(&x, 0);
                continue;
            }
            assert_int_equal(result, exits ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
            assert_int_equal(*vmx_word(&x, 0, offset), 0);
            assert_int_equal(*vmx_word(&x, 0, offset + 4), 0); /* 8 bytes are stored */
            if (exits) {
                vmx_assert_exit(&x, 0, 56, offset);
                assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + 2);
            } else {
                assert_int_equal(x.cpu[0].guest.rip, VMX_RIP + 2);
                vmx_leave(&x, 0);
            }
        }
    }
    vmx_free(&x);
}

/* Bits that are #GP(0), and those that are not: one at a time. Nothing is stored then. */
static void reserved_bits(void **state)
{
    static const struct {
        uint32_t msr;
        uint64_t allowed;
    } cases[] = {
        {0x808, 0xFF},
        {0x80B, 0},
        {0x83F, 0xFF},
        {0x830, 0xFFFFFFFF000CDFFF}, /* all but 31:20, 17:16 and 13 */
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned bit = 0; bit < 64; bit++) {
            uint32_t offset = (cases[i].msr - 0x800) * 16;
            uint64_t value = UINT64_C(1) << bit;
            bool gp = !(cases[i].allowed >> bit & 1);

            memset(vmx_word(&x, 0, 0), 0, 4096);
            start(&x, X2APIC_FULL | IPIV);
            if (gp) {
                assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], cases[i].msr, value), VAPIC_SIL_GP);
                assert_int_equal(*vmx_word(&x, 0, offset), 0);
                assert_int_equal(*vmx_word(&x, 0, offset + 4), 0);
                assert_int_equal(x.cpu[0].guest.rip, VMX_RIP);
                vmx_leave(&x, 0);
                continue;
            }
            assert_int_not_equal(vapic_sil_wrmsr(&x.cpu[0], cases[i].msr, value), VAPIC_SIL_GP);
            assert_int_equal(*vmx_word(&x, 0, offset), (uint32_t)value);
            assert_int_equal(*vmx_word(&x, 0, offset + 4), value >> 32);
            if (x.cpu[0].in_guest)
                vmx_leave(&x, 0);
        }
    }
    vmx_free(&x);
}

/* No virtualized access needs the host's APIC in x2APIC mode. */
static void host_in_xapic_mode(void **state)
{
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .xapic_host = true};
    uint64_t value;
    struct vmx x;

    (void)state;
    vmx_new_with(&x, &config);
    start(&x, TS | VX2 | VID | BITMAPS);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x808, 0x20), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x83F, 0x31), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], 0x808, &value), VAPIC_SIL_DONE);
    assert_int_equal(value, 0x20);
    assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], 0x803, &value), VAPIC_SIL_NATIVE);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80F, 0x1FF), VAPIC_SIL_NATIVE);
    vmx_free(&x);
}

/* A self-IPI by MSR 83Fh, with a vector of each class. */
static void self_ipi(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned vector = 0; vector < 256; vector++) {
        memset(vmx_word(&x, 0, 0), 0, 4096);
        start(&x, X2APIC_FULL);
        if (vector < 16) {
            assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x83F, vector), VAPIC_SIL_EXIT);
            vmx_assert_exit(&x, 0, 56, 0x3F0);
            assert_int_equal(*vmx_word(&x, 0, 0x3F0), vector);
            assert_int_equal(*vmx_word(&x, 0, 0x200), 0);
            continue;
        }
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x83F, vector), VAPIC_SIL_DONE);
        assert_true(vmx_in_set(&x, 0, APIC_IRR, (uint8_t)vector));
        vmx_assert_delivers(&x, 0, vector);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
        vmx_leave(&x, 0);
        vmx_assert_status(&x, 0, 0, 0);
    }
    vmx_free(&x);
}

/* ---- The bitmap ---- */

static void bitmap_bit(struct vmx *x, uint32_t base, uint32_t bit)
{
    memset(x->memory + VMX_BITMAP, 0, 4096);
    x->memory[VMX_BITMAP + base + bit / 8] = (uint8_t)(1u << bit % 8);
}

static void bitmap(void **state)
{
    static const struct {
        uint32_t base, msr;
        bool write;
    } cases[] = {
        {0x000, 0x800, false},      {0x800, 0x800, true},      {0x000, 0x8FF, false},
        {0x800, 0x830, true},       {0x000, 0x1FFF, false},    {0x000, 0, false},
        {0x400, 0xC0000080, false}, {0xC00, 0xC0001FFF, true}, {0x800, 0x10, true},
    };
    struct vmx x;
    uint64_t value;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bitmap_bit(&x, cases[i].base, cases[i].msr & 0x1FFF);
        start(&x, X2APIC_FULL);
        if (cases[i].write) {
            assert_int_not_equal(vapic_sil_rdmsr(&x.cpu[0], cases[i].msr, &value), VAPIC_SIL_EXIT);
            x.cpu[0].guest.rip = VMX_RIP;
            assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], cases[i].msr, 0), VAPIC_SIL_EXIT);
        } else {
            assert_int_not_equal(vapic_sil_wrmsr(&x.cpu[0], cases[i].msr, 0), VAPIC_SIL_EXIT);
            x.cpu[0].guest.rip = VMX_RIP;
            assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], cases[i].msr, &value), VAPIC_SIL_EXIT);
        }
        vmx_assert_exit(&x, 0, cases[i].write ? 32 : 31, 0);
        assert_int_equal(vmx_get(&x, 0, 0x440C), 2);
        assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP); /* fault-like */
    }
    vmx_free(&x);
}

/* Without bitmaps, and outside of both ranges with them, everything exits. */
static void always_intercepted(void **state)
{
    static const struct {
        uint32_t controls, msr;
    } cases[] = {
        {X2APIC_FULL & ~BITMAPS, 0x808}, {X2APIC_FULL & ~BITMAPS, 0x8FF}, {X2APIC_FULL, 0x2000},
        {X2APIC_FULL, 0xBFFFFFFF},       {X2APIC_FULL, 0xC0002000},
    };
    struct vmx x;
    uint64_t value;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start(&x, cases[i].controls);
        assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], cases[i].msr, &value), VAPIC_SIL_EXIT);
        vmx_assert_exit(&x, 0, 31, 0);
        start(&x, cases[i].controls);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], cases[i].msr, 0), VAPIC_SIL_EXIT);
        vmx_assert_exit(&x, 0, 32, 0);
    }
    vmx_free(&x);
}

/* MSRs that are not the APIC's are nobody's business here. */
static void other_msrs(void **state)
{
    struct vmx x;
    uint64_t value;

    (void)state;
    vmx_new(&x);
    start(&x, X2APIC_FULL | IPIV);
    assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], 0x1B, &value), VAPIC_SIL_NATIVE);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x900, 0), VAPIC_SIL_NATIVE);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x7FF, 0), VAPIC_SIL_NATIVE);
    vmx_free(&x);
}

/* Privilege comes first, also before interception. */
static void user_mode(void **state)
{
    static const uint32_t controls[] = {X2APIC_FULL, X2APIC_FULL & ~BITMAPS,
                                        X2APIC_FULL | CR8LD | CR8ST | HLTX};
    struct vmx x;
    uint64_t value;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 3; i++) {
        vmx_program(&x, 0, controls[i]);
        vmx_set(&x, 0, 0x4818, 3 << 5);
        vmx_enter(&x, 0);
        assert_int_equal(x.cpu[0].guest.cpl, 3);
        assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], 0x808, &value), VAPIC_SIL_GP);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x808, 0), VAPIC_SIL_GP);
        assert_int_equal(vapic_sil_read_cr8(&x.cpu[0], &value), VAPIC_SIL_GP);
        assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], 0), VAPIC_SIL_GP);
        assert_int_equal(vapic_sil_hlt(&x.cpu[0]), VAPIC_SIL_GP);
        assert_int_equal(x.cpu[0].guest.rip, VMX_RIP);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* ---- CR8 ---- */

static void cr8(void **state)
{
    struct vmx x;
    uint64_t value = 99;

    (void)state;
    vmx_new(&x);
    for (unsigned tpr = 0; tpr < 16; tpr++) {
        *vmx_word(&x, 0, 0x080) = 0xFF;
        start(&x, TS);
        assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], tpr), VAPIC_SIL_DONE);
        assert_int_equal(*vmx_word(&x, 0, 0x080), tpr << 4);
        assert_int_equal(vapic_sil_read_cr8(&x.cpu[0], &value), VAPIC_SIL_DONE);
        assert_int_equal(value, tpr);
        assert_int_equal(x.cpu[0].guest.rip, VMX_RIP + 8);
        *vmx_word(&x, 0, 0x080) = 0xA500000F | tpr << 4; /* only bits 7:4 are the TPR's class */
        assert_int_equal(vapic_sil_read_cr8(&x.cpu[0], &value), VAPIC_SIL_DONE);
        assert_int_equal(value, tpr);
        vmx_leave(&x, 0);
    }
    for (unsigned bit = 4; bit < 64; bit++) {
        start(&x, TS);
        assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], UINT64_C(1) << bit), VAPIC_SIL_GP);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* CR8 exiting goes before the TPR shadow; without either it is the host's TPR. */
static void cr8_exits(void **state)
{
    static const struct {
        uint32_t controls;
        enum vapic_sil_result load, store;
    } cases[] = {
        {TS, VAPIC_SIL_DONE, VAPIC_SIL_DONE},
        {TS | CR8LD, VAPIC_SIL_EXIT, VAPIC_SIL_DONE},
        {TS | CR8ST, VAPIC_SIL_DONE, VAPIC_SIL_EXIT},
        {CR8LD | CR8ST, VAPIC_SIL_EXIT, VAPIC_SIL_EXIT},
        {0, VAPIC_SIL_NATIVE, VAPIC_SIL_NATIVE},
    };
    struct vmx x;
    uint64_t value;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start(&x, cases[i].controls);
        assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], 3), cases[i].load);
        if (cases[i].load == VAPIC_SIL_EXIT) {
            vmx_assert_exit(&x, 0, 28, 0x08);
            assert_int_equal(vmx_get(&x, 0, 0x440C), 4);
        } else {
            vmx_leave(&x, 0);
        }
        start(&x, cases[i].controls);
        assert_int_equal(vapic_sil_read_cr8(&x.cpu[0], &value), cases[i].store);
        if (cases[i].store == VAPIC_SIL_EXIT)
            vmx_assert_exit(&x, 0, 28, 0x18);
        else
            vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* All thresholds and classes, by each way to write the TPR: exit 43 iff below, also when the value
 * is the same as before [SDM3 31.1.2]. */
static void threshold(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned way = 0; way < 3; way++) {
        for (unsigned i = 0; i < 256; i++) {
            unsigned tpr = i >> 4, limit = i & 15;
            enum vapic_sil_result expected = tpr < limit ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE;
            enum vapic_sil_result result = VAPIC_SIL_GP;
            unsigned length = way == 0 ? 4 : way == 1 ? 6 : 2;

            *vmx_word(&x, 0, 0x080) = 0xF0;
            vmx_program(&x, 0, way == 2 ? TS | VX2 | BITMAPS : TS | VAA);
            vmx_set(&x, 0, 0x401C, limit);
            vmx_enter(&x, 0);
            *vmx_word(&x, 0, 0x080) = tpr << 4;
            if (way == 0)
                result = vapic_sil_write_cr8(&x.cpu[0], tpr);
            else if (way == 1)
                result = vmx_write(&x, 0, 0x080, tpr << 4 | 0x5500);
            else
                result = vapic_sil_wrmsr(&x.cpu[0], 0x808, tpr << 4);
            assert_int_equal(result, expected);
            assert_int_equal(*vmx_word(&x, 0, 0x080), tpr << 4);
            if (expected == VAPIC_SIL_EXIT) {
                vmx_assert_exit(&x, 0, 43, 0);
                assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + length);
            } else {
                vmx_leave(&x, 0);
            }
        }
    }
    vmx_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_reads),          cmocka_unit_test(all_writes),
        cmocka_unit_test(reserved_bits),      cmocka_unit_test(host_in_xapic_mode),
        cmocka_unit_test(self_ipi),           cmocka_unit_test(bitmap),
        cmocka_unit_test(always_intercepted), cmocka_unit_test(other_msrs),
        cmocka_unit_test(user_mode),          cmocka_unit_test(cr8),
        cmocka_unit_test(cr8_exits),          cmocka_unit_test(threshold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
