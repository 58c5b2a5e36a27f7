/* SPDX-License-Identifier: MIT */
/*
 * AMD: nested paging of the APIC page, redirection to the backing page, and cached translations,
 * stale ones above all. [APM2 15.25.6] [APM2 15.29.3.1]
 */
#include "silicon_fixture.h"

/* A register, or what else the guest of processor 0 finds there. */
static uint32_t read_word(struct sf *sf, uint32_t offset)
{
    uint32_t value = 0;

    assert_int_equal(sf_read(sf, 0, offset, &value), VAPIC_SIL_DONE);
    return value;
}

/* ---- Nested paging ---- */

enum { PRESENT = 1, WRITABLE = 2 };

static void permission_check(void **state)
{
    static const struct {
        enum vapic_sil_access_kind kind;
        uint32_t page;
        uint64_t error; /* 0: no fault */
        bool modify;
    } rows[] = {
        {VAPIC_SIL_READ, PRESENT | WRITABLE, 0, true},
        {VAPIC_SIL_READ, PRESENT, 1ull << 32 | 7, true},
        {VAPIC_SIL_READ, PRESENT | WRITABLE, 0, false},
        {VAPIC_SIL_READ, PRESENT, 0, false},
        {VAPIC_SIL_READ, 0, 1ull << 32 | 4, false},
        {VAPIC_SIL_WRITE, PRESENT | WRITABLE, 0, false},
        {VAPIC_SIL_WRITE, PRESENT, 1ull << 32 | 7, false},
        {VAPIC_SIL_WRITE, 0, 1ull << 32 | 6, false},
        {VAPIC_SIL_FETCH, PRESENT, 0, false},
        {VAPIC_SIL_FETCH, 0, 1ull << 32 | 0x14, false},
        {VAPIC_SIL_TABLE_READ, 0, 1ull << 33 | 4, false},
        {VAPIC_SIL_TABLE_WRITE, PRESENT, 1ull << 33 | 7, false},
        {VAPIC_SIL_EVENT_WRITE, PRESENT, 1ull << 32 | 7, false},
    };

    (void)state;
    for (int avic = 0; avic < 2; avic++) {
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            struct sf *sf = sf_new(NULL, false);
            struct vapic_sil_access a = {.gpa = APIC_DEFAULT_BASE + 0xD0,
                                         .kind = rows[i].kind,
                                         .size = 4,
                                         .length = 4,
                                         .modify = rows[i].modify};

            sf->apic_page.present = rows[i].page & PRESENT;
            sf->apic_page.writable = rows[i].page & WRITABLE;
            sf_int_ctl(sf, 0, 0, avic ? 0 : VMCB_V_AVIC);
            sf_run(sf, 0);
            vapic_sil_access(&sf->cpu[0], &a);
            if (rows[i].error)
                sf_exit(sf, 0, 0x400, rows[i].error, APIC_DEFAULT_BASE + 0xD0);
            else
                assert_true(sf->cpu[0].in_guest ||
                            sf_vmcb(sf, 0, VMCB_EXITCODE) == SVM_EXIT_AVIC_NOACCEL);
            sf_free(sf);
        }
    }
}

/* The backing page is used, not what the nested tables name; and only for data. Knob
 * fetch_redirected. */
static void redirection(void **state)
{
    static const enum vapic_sil_access_kind kinds[] = {
        VAPIC_SIL_READ,  VAPIC_SIL_FETCH,       VAPIC_SIL_TABLE_READ,
        VAPIC_SIL_WRITE, VAPIC_SIL_TABLE_WRITE, VAPIC_SIL_EVENT_WRITE};

    (void)state;
    for (int i = 0; i < 12; i++) {
        struct vapic_sil_config config = {.knobs.fetch_redirected = i & 1};
        struct sf *sf = sf_new(&config, false);
        enum vapic_sil_access_kind kind = kinds[i / 2];
        struct vapic_sil_access a = {
            .gpa = APIC_DEFAULT_BASE + 0x40, .kind = kind, .size = 4, .value = 3};
        uint32_t *scratch = sf_memory(sf, SF_SCRATCH + 0x40);
        bool table = kind == VAPIC_SIL_TABLE_READ || kind == VAPIC_SIL_TABLE_WRITE;
        bool redirected = !table && (kind != VAPIC_SIL_FETCH || i & 1);

        sf_set_reg(sf, 0, 0x40, 1);
        *scratch = 2;
        sf_run(sf, 0);
        assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
        if (kind == VAPIC_SIL_WRITE || kind == VAPIC_SIL_TABLE_WRITE ||
            kind == VAPIC_SIL_EVENT_WRITE) {
            sf_equal(*scratch, redirected ? 2 : 3, "scratch, kind %d", kind);
            sf_equal(sf_reg(sf, 0, 0x40), redirected ? 3 : 1, "page, kind %d", kind);
        } else {
            sf_equal(a.value, redirected ? 1 : 2, "kind %d", kind);
        }
        sf_free(sf);
    }
}

/* In x2AVIC and without AVIC the page is memory like any other. */
static void page_without_xavic(void **state)
{
    (void)state;
    for (int x2 = 0; x2 < 2; x2++) {
        struct sf *sf = sf_new(NULL, x2);

        if (!x2)
            sf_int_ctl(sf, 0, 0, VMCB_V_AVIC);
        sf_run(sf, 0);
        assert_int_equal(sf_write(sf, 0, APIC_ID, 0x1234), VAPIC_SIL_DONE);
        sf_equal(read_word(sf, APIC_ID), 0x1234, "scratch");
        sf_equal(*(uint32_t *)sf_memory(sf, SF_SCRATCH + APIC_ID), 0x1234, "scratch");
        sf_equal(sf_reg(sf, 0, APIC_ID), 0, "backing page");
        sf_free(sf);
    }
}

/* APIC_BAR moved: the new page is the registers, the old one is memory. */
static void moved_apic_page(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    struct vapic_sil_access a = {.gpa = SF_RAM + 0x30, .kind = VAPIC_SIL_READ, .size = 4};

    (void)state;
    sf_set_vmcb(sf, 0, VMCB_AVIC_BAR, SF_RAM);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
    sf_equal(a.value, 0x80050010, "version");
    sf_equal(read_word(sf, APIC_LVR), 0, "memory");
    sf_free(sf);
}

/* Memory that is not there: ones, and swallowed writes. */
static void holes_in_memory(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    static const uint8_t sizes[] = {1, 2, 4, 8, 16};

    (void)state;
    sf_int_ctl(sf, 0, 0, VMCB_V_AVIC);
    sf->apic_page.hpa = 0x10000000;
    sf_run(sf, 0);
    for (size_t i = 0; i < 5; i++) {
        struct vapic_sil_access a = {
            .gpa = APIC_DEFAULT_BASE, .kind = VAPIC_SIL_WRITE, .size = sizes[i]};

        assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
        a.kind = VAPIC_SIL_READ;
        assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
        sf_equal(a.value, ~0ull >> (sizes[i] < 8 ? 64 - 8 * sizes[i] : 0), "size %u", sizes[i]);
    }
    sf_free(sf);
}

/* Knob pointers_unchecked: a backing page that is nowhere holds no interrupts. */
static void backing_page_nowhere(void **state)
{
    struct vapic_sil_config config = {.knobs.pointers_unchecked = true};
    struct sf *sf = sf_new(&config, false);

    (void)state;
    sf_set_vmcb(sf, 0, VMCB_AVIC_BACKING, 1ull << 50);
    sf_run(sf, 0);
    assert_int_equal(sf_write(sf, 0, APIC_ICR, APIC_ICR_SELF | 0x40), VAPIC_SIL_DONE);
    assert_int_equal(sf_write(sf, 0, APIC_EOI, 0), VAPIC_SIL_DONE);
    assert_int_equal(sf_take(sf, 0), -1);
    sf_free(sf);
}

/* ---- Cached translations ---- */

/* CPUID. */
static void leave(struct sf *sf)
{
    vapic_sil_leave(&sf->cpu[0], 0x72, 0, 0);
}

/* vCPU 1 on processor 0. */
static void run_other(struct sf *sf)
{
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[0], SF_VMCB + 0x1000), VAPIC_SIL_DONE);
}

static void translations_are_cached(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    for (int i = 0; i < 3; i++)
        read_word(sf, APIC_LVR);
    sf_equal(sf->walks, 1, "walks");
    vapic_sil_flush(&sf->cpu[0], SF_RAM);
    read_word(sf, APIC_LVR);
    sf_equal(sf->walks, 1, "another page's flush");
    vapic_sil_flush(&sf->cpu[0], APIC_DEFAULT_BASE + 0x80);
    read_word(sf, APIC_LVR);
    sf_equal(sf->walks, 2, "after its own");
    sf_free(sf);
}

/* Fetches and table walks neither use what data accesses have cached nor leave anything. */
static void other_walks_are_not_cached(void **state)
{
    static const enum vapic_sil_access_kind kinds[] = {VAPIC_SIL_FETCH, VAPIC_SIL_TABLE_READ};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sf *sf = sf_new(NULL, false);
        struct vapic_sil_access a = {
            .gpa = APIC_DEFAULT_BASE + APIC_LVR, .kind = kinds[i], .size = 4};

        sf_run(sf, 0);
        for (uint32_t round = 1; round < 3; round++) {
            assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
            sf_equal(a.value, 0, "scratch page, kind %d", kinds[i]);
            sf_equal(read_word(sf, APIC_LVR), 0x80050010, "version");
            sf_equal(sf->walks, round + 1, "walks");
        }
        sf_free(sf);
    }
}

/* A page that was read-only when it was cached is looked up again for a write. */
static void read_only_translation(void **state)
{
    struct sf *sf = sf_new(NULL, false);
    struct vapic_sil_access a = {.gpa = SF_RAM, .kind = VAPIC_SIL_READ, .size = 4};

    (void)state;
    sf->ram_read_only = true;
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
    a.kind = VAPIC_SIL_WRITE;
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x400, 1ull << 32 | 7, SF_RAM);
    sf->ram_read_only = false;
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
    sf_free(sf);
}

/* More pages than the cache has room for. */
static void translations_are_replaced(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i <= VAPIC_SIL_TLB; i++) {
            struct vapic_sil_access a = {
                .gpa = SF_RAM + i * 0x1000, .kind = VAPIC_SIL_READ, .size = 4};

            *(uint32_t *)sf_memory(sf, a.gpa) = i + 1;
            assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE);
            sf_equal(a.value, i + 1, "page %u", i);
        }
    }
    sf_equal(sf->walks, 2 * (VAPIC_SIL_TLB + 1), "walks");
    sf_free(sf);
}

/* How a stale translation may be got rid of. [APM2 15.16.2] */
enum cure { NOTHING, TLB_ALL, TLB_ASID, TLB_ASID_NON_GLOBAL, OTHER_ASID, FLUSH, CURES };

static void apply(struct sf *sf, enum cure cure, uint32_t n)
{
    static const uint8_t controls[] = {0, 1, 3, 7};

    if (cure <= TLB_ASID_NON_GLOBAL)
        sf_set_vmcb(sf, n, VMCB_ASID,
                    (sf_vmcb(sf, n, VMCB_ASID) & 0xFFFFFFFF) | (uint64_t)controls[cure] << 32);
    else if (cure == OTHER_ASID)
        sf_set_vmcb32(sf, n, VMCB_ASID, 77);
    else
        vapic_sil_flush(&sf->cpu[0], APIC_DEFAULT_BASE);
}

/* Trap 24, and enabling: who is told to flush sees the truth, who is not sees the past. */
static void trap_24_toggles_need_flushes(void **state)
{
    static const struct {
        uint64_t before, after;
        bool sees_registers; /* once it is right */
    } toggles[] = {
        {VMCB_V_AVIC, VMCB_V_AVIC | VMCB_V_X2AVIC, false},
        {VMCB_V_AVIC, 0, false},
        {0, VMCB_V_AVIC, true},
        {VMCB_V_AVIC | VMCB_V_X2AVIC, VMCB_V_AVIC, true},
    };

    (void)state;
    for (uint32_t i = 0; i < 4 * CURES; i++) {
        struct sf *sf = sf_new(NULL, false);
        bool registers = toggles[i / CURES].sees_registers;

        sf_set_reg(sf, 0, APIC_LDR, 0xAA000000);
        sf_int_ctl(sf, 0, toggles[i / CURES].before, VMCB_V_AVIC | VMCB_V_X2AVIC);
        sf_run(sf, 0);
        sf_equal(read_word(sf, APIC_LDR), registers ? 0 : 0xAA000000, "before");
        leave(sf);
        sf_int_ctl(sf, 0, toggles[i / CURES].after, VMCB_V_AVIC | VMCB_V_X2AVIC);
        apply(sf, i % CURES, 0);
        sf_run(sf, 0);
        sf_equal(read_word(sf, APIC_LDR), registers == (i % CURES != NOTHING) ? 0xAA000000 : 0,
                 "toggle %u, cure %u", i / CURES, i % CURES);
        sf_free(sf);
    }
}

/* What a guest can do with a translation that outlives xAVIC: write its own IRR, for one. */
static void stale_translation_is_a_hole(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    read_word(sf, APIC_LVR);
    leave(sf);
    sf_int_ctl(sf, 0, VMCB_V_X2AVIC, 0);
    sf_run(sf, 0);
    assert_int_equal(sf_write(sf, 0, APIC_IRR + 0x20, 1), VAPIC_SIL_DONE);
    assert_true(sf_bit(sf, 0, APIC_IRR, 0x40));
    sf_free(sf);
}

/* Two vCPUs on one processor under one ASID. */
static void shared_asid(void **state)
{
    (void)state;
    for (uint32_t cure = 0; cure < CURES; cure++) {
        struct sf *sf = sf_new(NULL, false);

        sf_set_vmcb32(sf, 1, VMCB_ASID, sf_vmcb32(sf, 0, VMCB_ASID));
        sf_run(sf, 0);
        sf_equal(read_word(sf, APIC_ID), 0, "vCPU 0");
        leave(sf);
        apply(sf, cure, 1);
        run_other(sf);
        sf_equal(read_word(sf, APIC_ID), cure == NOTHING ? 0 : 1 << 24, "vCPU 1, cure %u", cure);
        sf_free(sf);
    }
}

/* A flush of one ASID leaves the others. */
static void flush_by_asid(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    read_word(sf, APIC_LVR);
    leave(sf);
    apply(sf, TLB_ASID, 1);
    run_other(sf);
    leave(sf);
    sf_run(sf, 0);
    read_word(sf, APIC_LVR);
    sf_equal(sf->walks, 1, "walks");
    sf_free(sf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permission_check),
        cmocka_unit_test(redirection),
        cmocka_unit_test(page_without_xavic),
        cmocka_unit_test(moved_apic_page),
        cmocka_unit_test(holes_in_memory),
        cmocka_unit_test(backing_page_nowhere),
        cmocka_unit_test(translations_are_cached),
        cmocka_unit_test(other_walks_are_not_cached),
        cmocka_unit_test(read_only_translation),
        cmocka_unit_test(translations_are_replaced),
        cmocka_unit_test(trap_24_toggles_need_flushes),
        cmocka_unit_test(stale_translation_is_a_hole),
        cmocka_unit_test(shared_asid),
        cmocka_unit_test(flush_by_asid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
