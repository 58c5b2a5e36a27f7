/* SPDX-License-Identifier: MIT */
/*
 * VT-d interrupt remapping table entries, posted and remapped: every field, every reserved bit, the
 * check of the requester, the protocol of ON and SN with the urgent bit, destinations of the host
 * [SDM3 12.12.10.2].
 */
#include "silicon_vmx.h"

enum { SOURCE = 0x1234, VECTOR = 0x71 };

struct irte {
    _Alignas(16) uint64_t word[2];
};

/* Posted: vector 71h into the descriptor of processor 1. */
static struct irte posted(void)
{
    uint64_t pid = VMX_PID + PID_SIZE;

    return (struct irte){{1 | 1u << 15 | VECTOR << 16 | pid >> 6 << 38, pid >> 32 << 32}};
}

/* Remapped: vector 71h, fixed, physical, to the processor with this host ID. */
static struct irte remapped(uint32_t dest)
{
    return (struct irte){{1 | VECTOR << 16 | (uint64_t)dest << 32, 0}};
}

static enum vapic_sil_msi msi(struct vmx *x, const struct irte *irte)
{
    return vapic_sil_vtd_msi(&x->m, irte->word, SOURCE);
}

static bool pir_has(struct vmx *x, unsigned n, unsigned vector)
{
    return vmx_pid(x, n)[vector / 64] >> vector % 64 & 1;
}

/* Which processors got the vector: a bit each. What they got is taken. */
static unsigned reached(struct vmx *x, int vector)
{
    unsigned set = 0;

    for (unsigned n = 0; n < VMX_CPUS; n++)
        set |= vapic_sil_take_interrupt(&x->cpu[n]) == vector ? 1u << n : 0;
    return set;
}

/* ---- Posted ---- */

static void posts(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned vector = 0; vector < 256; vector++) {
        struct irte irte = posted();

        irte.word[0] = (irte.word[0] & ~UINT64_C(0xFF0000)) | vector << 16;
        assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_POSTED);
        assert_true(pir_has(&x, 1, vector));
        assert_int_equal(vmx_pid(&x, 1)[4] & PID_ON, PID_ON);
        /* ON was set by the first: one notification in all */
        assert_int_equal(reached(&x, VMX_NV), vector ? 0 : 1u << 1);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(vmx_pid(&x, 1)[i], UINT64_MAX);
    assert_int_equal(x.points[VAPIC_SIL_POINT_POSTED], 256);
    vmx_free(&x);
}

static void urgency(void **state)
{
    static const struct {
        unsigned flags; /* ON 1, SN 2 */
        bool urgent, notifies;
    } cases[] = {
        {0, false, true}, {1, false, false}, {2, false, false}, {3, false, false},
        {0, true, true},  {1, true, false},  {2, true, true},   {3, true, false},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t control = (vmx_pid(&x, 1)[4] & ~UINT64_C(3)) | cases[i].flags;
        struct irte irte = posted();

        irte.word[0] |= cases[i].urgent ? 1u << 14 : 0;
        vmx_pid(&x, 1)[4] = control;
        vmx_pid(&x, 1)[1] = 0;
        assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_POSTED);
        assert_true(pir_has(&x, 1, VECTOR));
        assert_int_equal(vmx_pid(&x, 1)[4], control | (cases[i].notifies ? PID_ON : 0));
        assert_int_equal(reached(&x, VMX_NV), cases[i].notifies ? 1u << 1 : 0);
    }
    vmx_free(&x);
}

/* The address straddles the two words. */
static void descriptor_address(void **state)
{
    static const struct {
        uint64_t address;
        enum vapic_sil_msi result;
    } cases[] = {
        {VMX_PID, VAPIC_SIL_MSI_POSTED},
        {VMX_PID + 0xC0, VAPIC_SIL_MSI_POSTED},
        {0x7FFF0000, VAPIC_SIL_MSI_FAULT},                  /* no memory */
        {0x100000000 | VMX_PID, VAPIC_SIL_MSI_FAULT},       /* none there either */
        {UINT64_C(1) << 48 | VMX_PID, VAPIC_SIL_MSI_FAULT}, /* beyond the width */
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t address = cases[i].address;
        struct irte irte = {
            {1 | 1u << 15 | VECTOR << 16 | (address & 0xFFFFFFC0) >> 6 << 38, address >> 32 << 32}};

        memset(x.memory + VMX_PID, 0, 4 * PID_SIZE);
        assert_int_equal(msi(&x, &irte), cases[i].result);
        assert_int_equal(*(uint64_t *)(void *)(x.memory + (address & 0xFFFC0) + 8) != 0,
                         cases[i].result == VAPIC_SIL_MSI_POSTED);
        irte.word[0] |= 2; /* fault processing disabled */
        assert_int_equal(msi(&x, &irte), cases[i].result == VAPIC_SIL_MSI_POSTED
                                             ? VAPIC_SIL_MSI_POSTED
                                             : VAPIC_SIL_MSI_BLOCKED);
    }
    vmx_free(&x);
}

static void descriptor_width(void **state)
{
    for (unsigned bits = 40; bits <= 41; bits++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .phys_bits = bits};
        struct irte irte = posted();
        struct vmx x;

        vmx_new_with(&x, &config);
        irte.word[1] |= VMX_AGAIN;
        assert_int_equal(msi(&x, &irte), bits == 41 ? VAPIC_SIL_MSI_POSTED : VAPIC_SIL_MSI_FAULT);
        assert_int_equal(pir_has(&x, 1, VECTOR), bits == 41);
        vmx_free(&x);
    }
    (void)state;
}

/* ---- Bits of the entry ---- */

static bool in(uint64_t value, unsigned bit)
{
    return value >> bit & 1;
}

/* One bit at a time is turned on; reserved ones are faults, and nothing is posted or sent then. */
static void reserved_bits(void **state)
{
    /* Bits that have a meaning: posted, remapped with 32-bit IDs, remapped with 8-bit IDs. */
    static const uint64_t low[] = {0xFFFFFFC000FFCF03, 0xFFFFFFFF00FF8FFF, 0x0000FF0000FF8FFF};
    static const uint64_t high[] = {0xFFFFFFFF000FFFFF, 0xFFFFF, 0xFFFFF};
    static const uint64_t left_alone = 0xFF8000; /* IM and the vector make it something else */

    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .xapic_host = kind == 2};

        for (unsigned bit = 0; bit < 128; bit++) {
            uint64_t known = bit < 64 ? low[kind] : high[kind];
            struct irte irte = kind == 0 ? posted() : remapped(0);
            enum vapic_sil_msi result;
            struct vmx x;

            if (bit < 64 && in(left_alone, bit))
                continue;
            vmx_new_with(&x, &config);
            irte.word[bit / 64] |= UINT64_C(1) << bit % 64;
            result = msi(&x, &irte);
            if (!in(known, bit % 64)) {
                if (result != VAPIC_SIL_MSI_FAULT)
                    fail_msg("kind %u: bit %u gives %d", kind, bit, result);
                assert_int_equal(vmx_pid(&x, 1)[1], 0);
                assert_int_equal(x.signals, 0);
                irte.word[0] |= 2;
                assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_BLOCKED);
            } else if (bit >= 84 || bit < 64) { /* not the address, not the requester's check */
                if (kind > 0)
                    assert_int_equal(result, VAPIC_SIL_MSI_REMAPPED);
            }
            vmx_free(&x);
        }
    }
}

static void not_present(void **state)
{
    struct irte irte = posted();
    struct vmx x;

    (void)state;
    vmx_new(&x);
    irte.word[0] &= ~UINT64_C(1);
    assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_BLOCKED);
    irte = remapped(vmx_host_id(1));
    irte.word[0] &= ~UINT64_C(1);
    assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_BLOCKED);
    assert_int_equal(x.signals, 0);
    assert_int_equal(vmx_pid(&x, 1)[1], 0);
    vmx_free(&x);
}

/* SVT and SQ against requesters that differ in one place. */
static void requesters(void **state)
{
    static const struct {
        unsigned svt, sq;
        uint16_t sid, source;
        bool ok;
    } cases[] = {
        {0, 0, 0x0000, 0xFFFF, true},  {1, 0, 0x1234, 0x1234, true},  {1, 0, 0x1234, 0x1235, false},
        {1, 0, 0x1234, 0x9234, false}, {1, 1, 0x1230, 0x1234, true},  {1, 1, 0x1230, 0x1232, false},
        {1, 1, 0x1230, 0x1231, false}, {1, 2, 0x1230, 0x1236, true},  {1, 2, 0x1230, 0x1231, false},
        {1, 3, 0x1230, 0x1237, true},  {1, 3, 0x1230, 0x1238, false}, {2, 0, 0x1214, 0x1200, true},
        {2, 0, 0x1214, 0x14FF, true},  {2, 0, 0x1214, 0x1100, false}, {2, 0, 0x1214, 0x1500, false},
        {3, 0, 0x1234, 0x1234, false},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct irte irte = posted();
        enum vapic_sil_msi result;

        irte.word[1] |= cases[i].sid | cases[i].sq << 16 | cases[i].svt << 18;
        result = vapic_sil_vtd_msi(&x.m, irte.word, cases[i].source);
        assert_int_equal(result, cases[i].ok ? VAPIC_SIL_MSI_POSTED : VAPIC_SIL_MSI_FAULT);
    }
    vmx_free(&x);
}

/* ---- Remapped ---- */

/* The processors have the host's IDs 1 to 4; sets of them are by number, 0 to 3. */
static void remapped_destinations(void **state)
{
    enum { LOGICAL = 4, HINT = 8, LOWEST = 1 << 5 };
    static const struct {
        bool xapic;
        uint64_t bits;
        uint32_t dest;
        unsigned reached;
    } cases[] = {
        {false, 0, 2, 1u << 1},
        {false, 0, 9, 0},
        {false, 0, 0xFFFFFFFF, 15},
        {false, LOGICAL, 0x00000006, 3}, /* cluster 0, members 1 and 2 */
        {false, LOGICAL, 0x00000001, 0}, /* member 0 is not there */
        {false, LOGICAL, 0x00010006, 0}, /* another cluster */
        {false, LOGICAL, 0xFFFFFFFF, 15},
        {false, LOGICAL | HINT, 0x0000001E, 1},
        {false, LOGICAL | LOWEST, 0x0000001C, 1u << 1},
        {false, 3 << 5, 2, 0}, /* other delivery modes have no vector */
        {true, 0, 3 << 8, 1u << 2},
        {true, 0, 0xFF << 8, 15},
        {true, LOGICAL, 0x14 << 8, 1u << 1 | 1u << 3},
        {true, LOGICAL, 0x01 << 8, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .xapic_host = cases[i].xapic};
        struct irte irte = remapped(cases[i].dest);
        struct vmx x;

        vmx_new_with(&x, &config);
        irte.word[0] |= cases[i].bits;
        assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_REMAPPED);
        assert_int_equal(reached(&x, VECTOR), cases[i].reached);
        vmx_free(&x);
    }
}

/* A processor beyond the flat model's eight is no member of a logical destination. */
static void remapped_flat_limit(void **state)
{
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .xapic_host = true};
    struct irte irte = remapped(0xFE << 8);
    struct vapic_sil_cpu ninth;
    struct vmx x;

    (void)state;
    vmx_new_with(&x, &config);
    assert_true(vapic_sil_cpu_init(&ninth, &x.m, 9));
    irte.word[0] |= 4;
    assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_REMAPPED);
    assert_int_equal(reached(&x, VECTOR), 15);
    assert_int_equal(vapic_sil_take_interrupt(&ninth), -1);
    vmx_free(&x);
}

/* ---- All the way ---- */

/* From the device into a running guest; and into a halted one. */
static void into_the_guest(void **state)
{
    struct irte irte = posted();
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 1, XAPIC_FULL);
    assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_POSTED);
    vmx_assert_delivers(&x, 1, VECTOR);
    x.cpu[1].guest.interrupt_flag = true;
    assert_int_equal(vmx_write(&x, 1, 0x0B0, 0), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_hlt(&x.cpu[1]), VAPIC_SIL_DONE);
    vmx_assert_boundary(&x, 1, VAPIC_SIL_NOTHING);
    assert_int_equal(msi(&x, &irte), VAPIC_SIL_MSI_POSTED);
    vmx_assert_delivers(&x, 1, VECTOR);
    assert_int_equal(x.signals, 2);
    vmx_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts),
        cmocka_unit_test(urgency),
        cmocka_unit_test(descriptor_address),
        cmocka_unit_test(descriptor_width),
        cmocka_unit_test(reserved_bits),
        cmocka_unit_test(not_present),
        cmocka_unit_test(requesters),
        cmocka_unit_test(remapped_destinations),
        cmocka_unit_test(remapped_flat_limit),
        cmocka_unit_test(into_the_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
