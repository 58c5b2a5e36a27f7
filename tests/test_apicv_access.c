/* SPDX-License-Identifier: MIT */
/*
 * APICv and the guest's accesses: every register, by MMIO and by MSR, active and not, with and
 * without IPI virtualization, gives what the library alone gives. Where the silicon cannot be made
 * to do so stands in one table, and each row of it must show. Then the exits by themselves.
 */
#include "apicv_bench.h"

/* ---- Two machines that do the same ---- */

struct pair {
    struct ax *hw, *sw;
};

struct setting {
    const char *name;
    unsigned with;
    bool inhibited;
    bool mapped; /* the access page all the same: what is left is the TPR shadow */
};

static const struct setting settings[] = {
    {"xAPIC", 0, false, true},
    {"xAPIC, IPI virtualization", WITH_IPIV, false, true},
    {"xAPIC, inhibited", WITH_IPIV, true, false},
    {"xAPIC, inhibited, page mapped", WITH_IPIV, true, true},
    {"x2APIC", WITH_X2APIC, false, true},
    {"x2APIC, IPI virtualization", WITH_X2APIC | WITH_IPIV, false, true},
    {"x2APIC, inhibited", WITH_X2APIC | WITH_IPIV, true, false},
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* 91h in service, 51h and (level-triggered) 71h pending, registers with something in them. */
static void prepare(struct ax *ax)
{
    ax_ipi(ax, 0, 0x41, 1);
    ax_write(ax, 0, APIC_LVT_TIMER, APIC_LVT_MASKED | 0x33);
    ax_write(ax, 0, APIC_LVT_ERROR, 0x34);
    ax_write(ax, 0, APIC_TPR, 0x20);
    ax_write(ax, 0, APIC_TDCR, 0xB);
    ax_write(ax, 0, APIC_TMICT, 1000);
    ax_post(ax, 0, 0x91, false);
    ax_run(ax, 0);
    ax_if(ax, 0, false);
    ax_post(ax, 0, 0x51, false);
    ax_post(ax, 0, 0x71, true);
    ax_settle(ax);
    ax_forget(ax);
}

static struct pair make_pair(const struct setting *s)
{
    struct pair p = {machine(s->with, 2), machine((s->with & WITH_X2APIC) | WITHOUT_ACCEL, 2)};

    if (s->inhibited)
        inhibit(p.hw, true);
    p.hw->page_mapped = s->mapped;
    prepare(p.hw);
    prepare(p.sw);
    return p;
}

static void free_pair(struct pair p)
{
    ax_free(p.hw);
    ax_free(p.sw);
}

static uint64_t visible(struct ax *ax, uint32_t n, uint32_t offset)
{
    struct vapic *v = &ax->v[n]->apic;
    uint64_t value = 0;

    if (!(vapic_base(v) & APIC_BASE_EXTD))
        vapic_mmio_read(v, offset, &value, 4, ax->now);
    else if (vapic_msr_read(v, MSR_X2APIC_FIRST + (offset >> 4), &value, ax->now) != VAPIC_OK)
        value = 0xBAD;
    return value;
}

static void clear_errors(struct ax *ax, uint32_t n)
{
    struct vapic *v = &ax->v[n]->apic;
    uint32_t zero = 0;

    if (vapic_base(v) & APIC_BASE_EXTD)
        vapic_msr_write(v, MSR_X2APIC_FIRST + (APIC_ESR >> 4), 0, ax->now);
    else
        vapic_mmio_write(v, APIC_ESR, &zero, 4, ax->now);
}

/* The offset of the first register that a guest would see to differ; -1: none. */
static int difference(struct pair p)
{
    ax_settle(p.hw);
    ax_settle(p.sw);
    for (uint32_t n = 0; n < 2; n++) {
        ax_leave(p.hw, n);
        clear_errors(p.hw, n);
        clear_errors(p.sw, n);
        for (uint32_t offset = 0x20; offset < 0x400; offset += 16)
            if (visible(p.hw, n, offset) != visible(p.sw, n, offset))
                return (int)(n << 12 | offset);
    }
    if (ax_count(p.hw, AX_DELIVERED) != ax_count(p.sw, AX_DELIVERED) ||
        ax_count(p.hw, AX_EOI) != ax_count(p.sw, AX_EOI) ||
        ax_count(p.hw, AX_NMI) != ax_count(p.sw, AX_NMI))
        return 0;
    return -1;
}

/* ---- Whole registers: no difference anywhere ---- */

static void reads(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        struct pair p = make_pair(&settings[i]);

        for (uint32_t offset = 0; offset < 0x1000; offset += 16) {
            uint64_t hw = 0, sw = 0;
            enum ax_result result = ax_try_read(p.sw, 0, offset, &sw);

            if (ax_try_read(p.hw, 0, offset, &hw) != result || hw != sw)
                fail_msg("%s: read of %#x: %#llx, not %#llx", settings[i].name, offset,
                         (unsigned long long)hw, (unsigned long long)sw);
        }
        assert_int_equal(difference(p), -1);
        free_pair(p);
    }
}

static void check_write(const struct setting *s, uint32_t offset, uint64_t value)
{
    struct pair p = make_pair(s);
    enum ax_result result = ax_try_write(p.sw, 0, offset, value);
    int where;

    if (ax_try_write(p.hw, 0, offset, value) != result)
        fail_msg("%s: write of %#llx to %#x", s->name, (unsigned long long)value, offset);
    where = difference(p);
    if (where >= 0)
        fail_msg("%s: after a write of %#llx to %#x, %#x differs", s->name,
                 (unsigned long long)value, offset, (unsigned)where);
    free_pair(p);
}

static void writes(void **state)
{
    static const uint64_t values[] = {0, 0xFFFFFFFF, 0x61, 0x1000000FE, 0x0100000000000061};

    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        bool x2 = (settings[i].with & WITH_X2APIC) != 0;

        /* Above 3F0h there is nothing but reserved slots. */
        for (uint32_t offset = 0; offset < 0x1000; offset += offset < 0x400 ? 0x10 : 0x1F0)
            for (size_t k = 0; k < (x2 ? 5 : 3); k++)
                check_write(&settings[i], offset, values[k]);
    }
}

/* ICR: each mode, trigger, destination mode and shorthand. */
static void icr_writes(void **state)
{
    static const uint32_t dests[] = {0, 1, 2, 0xFF};

    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        for (uint32_t form = 0; form < 8 * 2 * 4 * 2; form++) {
            uint32_t mode = form & 7, logical = form >> 3 & 1, shorthand = form >> 4 & 3;
            uint32_t icr = 0x61 | mode << 8 | logical << 11 | shorthand << 18 |
                           (form >> 6 ? APIC_ICR_LEVEL | APIC_ICR_ASSERT : 0);
            struct pair p = make_pair(&settings[i]);
            int where;

            ax_ipi(p.hw, 0, icr, dests[form % 4]);
            ax_ipi(p.sw, 0, icr, dests[form % 4]);
            where = difference(p);
            if (where >= 0)
                fail_msg("%s: ICR %#x: %#x differs", settings[i].name, icr, (unsigned)where);
            free_pair(p);
        }
    }
}

static void cr8(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        struct pair p = make_pair(&settings[i]);

        for (uint8_t value = 0; value < 16; value++) {
            ax_write_cr8(p.hw, 0, value);
            ax_write_cr8(p.sw, 0, value);
            assert_int_equal(ax_read_cr8(p.hw, 0), value);
            assert_int_equal(difference(p), -1);
        }
        free_pair(p);
    }
}

/* RDMSR gives 8 bytes of the page: the upper ones must be zero but for ICR's. */
static void no_upper_halves_in_the_page(void **state)
{
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        struct pair p = make_pair(&settings[i]);

        for (uint32_t offset = 0; offset < 0x400; offset += 16)
            ax_try_write(p.hw, 0, offset, offset == APIC_SELF_IPI ? 0 : 0x61);
        for (uint32_t offset = 0; offset < 0x1000; offset += 4)
            if (offset & 15)
                assert_int_equal(ax_page(p.hw, 0, offset), 0);
        free_pair(p);
    }
}

/* ---- Odd accesses ---- */

/*
 * What the silicon does and no software can undo: a write that begins at the register's first byte
 * cannot be told from a whole one when its exit comes, or has none; ICR's low word is not known any
 * more as it was. By setting: ACTIVE, or the TPR shadow alone. Real APICs take whole registers only
 * [SDM3 12.4.1], and no guest relies on anything else.
 */
enum { ACTIVE = 1, SHADOW = 2, BOTH = 3 };

static const struct {
    uint16_t slot;
    uint8_t at, size;
    uint8_t when;
} deviations[] = {
    {APIC_TPR, 0, 1, BOTH},     {APIC_TPR, 0, 2, BOTH},         {APIC_EOI, 0, 1, BOTH},
    {APIC_EOI, 0, 2, BOTH},     {APIC_EOI, 0, 8, SHADOW},       {APIC_EOI, 0, 16, SHADOW},
    {APIC_SVR, 0, 1, ACTIVE},   {APIC_SVR, 0, 2, ACTIVE},       {APIC_ICR, 0, 1, ACTIVE},
    {APIC_ICR, 0, 2, ACTIVE},   {APIC_ICR, 1, 1, ACTIVE},       {APIC_ICR, 1, 2, ACTIVE},
    {APIC_ICR, 2, 1, ACTIVE},   {APIC_ICR, 2, 2, ACTIVE},       {APIC_ICR, 3, 1, ACTIVE},
    {APIC_ICR2, 3, 1, ACTIVE},  {APIC_ICR2, 2, 2, ACTIVE},      {APIC_TMICT, 0, 1, ACTIVE},
    {APIC_TMICT, 0, 2, ACTIVE}, {APIC_LVT_ERROR, 0, 1, ACTIVE}, {APIC_LVT_ERROR, 0, 2, ACTIVE},
};

static bool deviates(const struct setting *s, uint32_t slot, uint32_t at, uint32_t size)
{
    for (size_t i = 0; i < sizeof(deviations) / sizeof(deviations[0]); i++)
        if (deviations[i].slot == slot && deviations[i].at == at && deviations[i].size == size)
            return s->mapped && deviations[i].when & (s->inhibited ? SHADOW : ACTIVE);
    return false;
}

static enum ax_result odd_access(struct ax *ax, bool write, uint32_t offset, uint8_t size,
                                 uint64_t *value)
{
    struct ax_op op = {AX_MMIO, write, size, APIC_DEFAULT_BASE + offset, *value};
    enum ax_result result = ax_execute(ax, 0, &op);

    *value = op.value;
    return result;
}

static void check_odd_write(const struct setting *s, uint32_t slot, uint32_t at, uint8_t size)
{
    struct pair p = make_pair(s);
    uint64_t hw = 0xA5C3A5C3A5C3A5C3, sw = hw;
    bool expected = deviates(s, slot, at, size);

    odd_access(p.hw, true, slot + at, size, &hw);
    odd_access(p.sw, true, slot + at, size, &sw);
    if ((difference(p) >= 0) != expected)
        fail_msg("%s: a write of %u bytes at %#x %s", s->name, size, slot + at,
                 expected ? "should show its deviation" : "differs");
    free_pair(p);
}

static void odd_writes(void **state)
{
    static const uint16_t slots[] = {APIC_ID,        APIC_LVR,   APIC_TPR, APIC_EOI, APIC_LDR,
                                     APIC_DFR,       APIC_SVR,   APIC_ESR, APIC_ICR, APIC_ICR2,
                                     APIC_LVT_ERROR, APIC_TMICT, APIC_ISR, APIC_PPR};
    static const uint8_t sizes[] = {1, 2, 4, 8, 16};

    (void)state;
    for (size_t i = 1; i < 4; i++) /* xAPIC mode, active and not */
        for (size_t r = 0; r < sizeof(slots) / sizeof(slots[0]); r++)
            for (uint32_t at = 0; at < 16; at++)
                for (size_t k = 0; k < sizeof(sizes); k++)
                    if ((at != 0 || sizes[k] != 4) && at + sizes[k] <= 16)
                        check_odd_write(&settings[i], slots[r], at, sizes[k]);
}

static void odd_reads(void **state)
{
    static const uint8_t sizes[] = {1, 2, 4, 8};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct pair p = make_pair(&settings[i]);

        for (uint32_t offset = 0; offset < 0x400; offset++) {
            for (size_t k = 0; k < sizeof(sizes); k++) {
                uint64_t hw = 0, sw = 0;

                if ((offset & 15) + sizes[k] > 16)
                    continue;
                odd_access(p.hw, false, offset, sizes[k], &hw);
                odd_access(p.sw, false, offset, sizes[k], &sw);
                if (hw != sw)
                    fail_msg("%s: %u bytes at %#x", settings[i].name, sizes[k], offset);
            }
        }
        assert_int_equal(difference(p), -1);
        free_pair(p);
    }
}

/* ---- The exits by themselves ---- */

static void arguments_of_exits(void **state)
{
    static const struct {
        bool x2apic;
        uint32_t reason;
        uint64_t qualification;
        int result;
    } rows[] = {
        {false, VMX_EXIT_TPR_THRESHOLD, 0, VAPIC_OK},
        {false, VMX_EXIT_EXTINT, 0, VAPIC_E_ARG},
        {false, VMX_EXIT_EPT_VIOLATION, 0, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_ACCESS, APIC_ISR, VAPIC_EMULATE},
        {false, VMX_EXIT_APIC_ACCESS, APICV_ACCESS_WRITE << 12 | APIC_ISR, VAPIC_EMULATE},
        {false, VMX_EXIT_APIC_ACCESS, APICV_ACCESS_FETCH << 12, VAPIC_EMULATE},
        {false, VMX_EXIT_APIC_ACCESS, APICV_ACCESS_EVENT << 12, VAPIC_EMULATE},
        {false, VMX_EXIT_APIC_ACCESS, 4 << 12, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_ACCESS, 9 << 12, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_ACCESS, APICV_ACCESS_PHYS_EVENT << 12, VAPIC_EMULATE},
        {false, VMX_EXIT_APIC_ACCESS, APICV_ACCESS_PHYS_INSTR << 12, VAPIC_EMULATE},
        {false, VMX_EXIT_VIRTUALIZED_EOI, 0x100, VAPIC_E_ARG},
        {false, VMX_EXIT_VIRTUALIZED_EOI, 0x61, VAPIC_OK},
        {false, VMX_EXIT_APIC_WRITE, 0x10000 | APIC_SVR, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_WRITE, APIC_ISR, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_WRITE, APIC_LVR, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_WRITE, APIC_SELF_IPI, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_WRITE, APIC_SVR + 4, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_WRITE, APIC_LVT_CMCI, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_WRITE, APIC_TMCCT, VAPIC_E_ARG},
        {false, VMX_EXIT_APIC_WRITE, APIC_SVR, VAPIC_OK},
        {true, VMX_EXIT_APIC_WRITE, APIC_SVR, VAPIC_E_ARG},
        {true, VMX_EXIT_APIC_WRITE, APIC_TPR, VAPIC_E_ARG},
        {true, VMX_EXIT_APIC_WRITE, APIC_SELF_IPI, VAPIC_OK},
        {true, VMX_EXIT_APIC_WRITE, APIC_ICR, VAPIC_OK},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax *ax = machine(rows[i].x2apic ? WITH_X2APIC : 0, 1);

        reenter(ax, 0);
        ax_leave(ax, 0);
        if (vapic_apicv_exit(&ax->v[0]->apic, rows[i].reason, rows[i].qualification, ax->now) !=
            rows[i].result)
            fail_msg("row %zu", i);
        ax_free(ax);
    }
}

static void exits_need_apicv(void **state)
{
    struct ax *none = machine(WITHOUT_ACCEL, 1);
    struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_AVIC}};
    struct ax *amd = ax_new(&o);

    (void)state;
    assert_int_equal(vapic_apicv_exit(&none->v[0]->apic, VMX_EXIT_TPR_THRESHOLD, 0, none->now),
                     VAPIC_E_ARG);
    assert_int_equal(vapic_apicv_exit(&amd->v[0]->apic, VMX_EXIT_TPR_THRESHOLD, 0, amd->now),
                     VAPIC_E_ARG);
    ax_free(none);
    ax_free(amd);
}

/* Not accelerated, an EOI exits before anything has happened; no decoding is needed. */
static void the_short_way_of_an_eoi(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    inhibit(ax, true);
    ax->page_mapped = true; /* of a VM in which only this vCPU is not active */
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    ax_eoi(ax, 0);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_APIC_ACCESS), 1);
    assert_false(ax_page_bit(ax, 0, APIC_ISR, 0x51));
    assert_int_equal(ax->v[0]->apic.stats.eois, 1);
    ax_free(ax);
}

/* While accelerated it is the second write of an instruction, or the like: not what it seems. */
static void no_short_way_while_active(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    reenter(ax, 0);
    ax_leave(ax, 0);
    assert_int_equal(vapic_apicv_exit(&ax->v[0]->apic, VMX_EXIT_APIC_ACCESS,
                                      APICV_ACCESS_WRITE << 12 | APIC_EOI, ax->now),
                     VAPIC_EMULATE);
    ax_free(ax);
}

/* A processor that has APIC-register virtualization without virtual-interrupt delivery. */
static void an_eoi_write_exit(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_post(ax, 0, 0x51, false);
    ax_run(ax, 0);
    ax_leave(ax, 0);
    memset(ax->v[0]->page + APIC_EOI, 0x77, 4); /* as the guest's write left it */
    assert_int_equal(vapic_apicv_exit(&ax->v[0]->apic, VMX_EXIT_APIC_WRITE, APIC_EOI, ax->now),
                     VAPIC_OK);
    assert_false(ax_page_bit(ax, 0, APIC_ISR, 0x51));
    assert_int_equal(ax_page(ax, 0, APIC_EOI), 0);
    assert_true(ax_enter(ax, 0));
    assert_int_equal(svi(ax, 0), 0);
    ax_free(ax);
}

static void an_illegal_self_ipi(void **state)
{
    struct ax *ax = machine(WITH_X2APIC, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    ax_write(ax, 0, APIC_SELF_IPI, 7);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_APIC_WRITE), 1);
    assert_int_equal(ax_page(ax, 0, APIC_SELF_IPI), 0);
    ax_write(ax, 0, APIC_ESR, 0);
    assert_int_equal(ax_read(ax, 0, APIC_ESR), APIC_ESR_SEND_ILLEGAL);
    ax_free(ax);
}

/* The raw value is in the page when the exit comes; the guest never reads it back. */
static void written_values_are_sanitized(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_write(ax, 0, APIC_LVT_LINT1, 0xFFFFFFFF);
    assert_int_equal(ax_page(ax, 0, APIC_LVT_LINT1), 0x0001A7FF);
    ax_write(ax, 0, APIC_DFR, 0);
    assert_int_equal(ax_page(ax, 0, APIC_DFR), 0x0FFFFFFF);
    ax_write(ax, 0, APIC_TDCR, 0xFFFFFFFF);
    assert_int_equal(ax_page(ax, 0, APIC_TDCR), 0xB);
    ax_write(ax, 0, APIC_SVR, 0xFF); /* masks every LVT entry */
    ax_write(ax, 0, APIC_LVT_TIMER, 0x41);
    assert_int_equal(ax_page(ax, 0, APIC_LVT_TIMER), APIC_LVT_MASKED | 0x41);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(writes),
        cmocka_unit_test(icr_writes),
        cmocka_unit_test(cr8),
        cmocka_unit_test(no_upper_halves_in_the_page),
        cmocka_unit_test(odd_writes),
        cmocka_unit_test(odd_reads),
        cmocka_unit_test(arguments_of_exits),
        cmocka_unit_test(exits_need_apicv),
        cmocka_unit_test(the_short_way_of_an_eoi),
        cmocka_unit_test(no_short_way_while_active),
        cmocka_unit_test(an_eoi_write_exit),
        cmocka_unit_test(an_illegal_self_ipi),
        cmocka_unit_test(written_values_are_sanitized),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
