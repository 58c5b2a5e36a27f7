/* SPDX-License-Identifier: MIT */
/*
 * VMCS fields, the checks of VM entry, and what VM entry loads and VM exit saves [SDM3 26.11.2]
 * [SDM3 26.4.2] [SDM3 26.8.2] [SDM3 28.3.2.5] [SDM3 29.2] [SDM3 29.3] [SDM3 32.4]
 * [SDM3 28.2.1.1] [SDM3 28.7.7].
 */
#include "silicon_vmx.h"

/* ---- The VMCS ---- */

/* Every field that there is, with its width in bits. */
static const struct {
    uint16_t encoding;
    uint8_t width;
} fields[] = {
    {0x0000, 16}, {0x0002, 16}, {0x0008, 16}, {0x0810, 16}, {0x2004, 64}, {0x200A, 64},
    {0x2012, 64}, {0x2014, 64}, {0x2016, 64}, {0x201A, 64}, {0x201C, 64}, {0x201E, 64},
    {0x2020, 64}, {0x2022, 64}, {0x2034, 64}, {0x2042, 64}, {0x2400, 64}, {0x4000, 32},
    {0x4002, 32}, {0x400C, 32}, {0x4012, 32}, {0x4014, 32}, {0x4016, 32}, {0x4018, 32},
    {0x401A, 32}, {0x401C, 32}, {0x401E, 32}, {0x4400, 32}, {0x4402, 32}, {0x4404, 32},
    {0x4406, 32}, {0x4408, 32}, {0x440A, 32}, {0x440C, 32}, {0x4818, 32}, {0x4824, 32},
    {0x4826, 32}, {0x6400, 63}, {0x681E, 63}, {0x6820, 63}, {0x6822, 63}, /* 63: natural */
};

enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

static void vmcs_fields(void **state)
{
    struct vapic_sil_vmcs vmcs;
    uint64_t value;

    (void)state;
    assert_int_equal(FIELDS, APICV_VMCS_FIELDS);
    vapic_sil_vmcs_init(&vmcs);
    for (unsigned i = 0; i < FIELDS; i++)
        assert_true(vapic_sil_vmwrite(&vmcs, fields[i].encoding, 0xFEDCBA9876543210 + i));
    for (unsigned i = 0; i < FIELDS; i++) {
        uint64_t all = 0xFEDCBA9876543210 + i;
        uint64_t mask = fields[i].width == 16   ? 0xFFFF
                        : fields[i].width == 32 ? 0xFFFFFFFF
                                                : UINT64_MAX;

        assert_true(vapic_sil_vmread(&vmcs, fields[i].encoding, &value));
        assert_int_equal(value, all & mask);
        if (fields[i].width == 64) {
            assert_true(vapic_sil_vmread(&vmcs, fields[i].encoding + 1, &value));
            assert_int_equal(value, all >> 32);
            assert_true(vapic_sil_vmwrite(&vmcs, fields[i].encoding + 1, 0x12345));
            assert_true(vapic_sil_vmread(&vmcs, fields[i].encoding, &value));
            assert_int_equal(value, (all & 0xFFFFFFFF) | UINT64_C(0x1234500000000));
        } else {
            assert_false(vapic_sil_vmread(&vmcs, fields[i].encoding + 1, &value));
        }
    }
}

static void vmcs_unknown(void **state)
{
    static const uint32_t unknown[] = {0x0004, 0x2000, 0x2001, 0x400E, 0x6C00, 0xFFFF, 0x12012};
    struct vapic_sil_vmcs vmcs;
    uint64_t value;

    (void)state;
    vapic_sil_vmcs_init(&vmcs);
    for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_false(vapic_sil_vmread(&vmcs, unknown[i], &value));
        assert_false(vapic_sil_vmwrite(&vmcs, unknown[i], 1));
    }
}

/* A VMCS as it is made enters: no feature, hence nothing to be wrong. */
static void vmcs_init(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_enter(&x, 0);
    vmx_free(&x);
}

/* ---- The checks ---- */

/* One field of a good VMCS is changed; does it enter? */
struct check {
    uint32_t controls;
    uint32_t field;
    uint64_t value;
    bool good;
};

#define FULL   (XAPIC_FULL | BITMAPS)
#define BEYOND (UINT64_C(1) << 48)

static const struct check checks[] = {
    {FULL | IPIV, 0x0810, 0xFFFF, true},
    /* MSR bitmap */
    {FULL, 0x2004, VMX_BITMAP | 1, false},
    {FULL, 0x2004, VMX_BITMAP | 0x800, false},
    {FULL, 0x2004, BEYOND, false},
    {FULL, 0x2004, 0x7FFFF000, false}, /* the host has no memory there */
    {FULL & ~BITMAPS, 0x2004, UINT64_MAX, true},
    /* virtual-APIC page */
    {FULL, 0x2012, VMX_PAGE | 1, false},
    {FULL, 0x2012, VMX_PAGE | 0x800, false},
    {FULL, 0x2012, BEYOND | VMX_PAGE, false},
    {FULL, 0x2012, 0x7FFFF000, false},
    {VAA, 0x2012, UINT64_MAX, true},
    {0, 0x2012, UINT64_MAX, true},
    /* TPR threshold */
    {TS | VAA, 0x401C, 0xF, true},
    {TS | VAA, 0x401C, 0x10, false},
    {TS | VAA, 0x401C, 0x80000000, false},
    {TS | VAA | ARV, 0x401C, 0x10, false},
    {TS | VAA | VID, 0x401C, 0xFFFFFFFF, true},
    {TS | VID, 0x401C, 0x10, true},
    {TS | VAA | VID | NO_SEC, 0x401C, 0x10, false},
    {VAA, 0x401C, 0xFFFFFFFF, true},
    /* ... against VTPR, which is 5xh here, without VAA and VID */
    {TS, 0x401C, 5, true},
    {TS, 0x401C, 6, false},
    {TS | VX2, 0x401C, 6, false},
    {TS | VX2 | VID, 0x401C, 6, true},
    {TS | VAA, 0x401C, 6, true},
    {TS | VAA | NO_SEC, 0x401C, 6, false},
    /* APIC-access page */
    {VAA, 0x2014, VMX_ACCESS | 1, false},
    {VAA, 0x2014, BEYOND, false},
    {VAA, 0x2014, 0x7FFFF000, true}, /* it is never touched */
    {TS | VX2, 0x2014, UINT64_MAX, true},
    {VAA | NO_SEC, 0x2014, UINT64_MAX, true},
    /* notification vector */
    {FULL, 0x0002, 0, true},
    {FULL, 0x0002, 15, true},
    {FULL, 0x0002, 255, true},
    {FULL, 0x0002, 256, false},
    {FULL, 0x0002, 0x8000, false},
    {FULL & ~PPI, 0x0002, 256, true},
    /* descriptor */
    {FULL, 0x2016, VMX_PID | 1, false},
    {FULL, 0x2016, VMX_PID | 0x20, false},
    {FULL, 0x2016, BEYOND | VMX_PID, false},
    {FULL, 0x2016, 0x7FFFF000, false},
    {FULL & ~PPI, 0x2016, UINT64_MAX, true},
    /* PID-pointer table; 512 entries */
    {FULL | IPIV, 0x2042, VMX_TABLE | 1, false},
    {FULL | IPIV, 0x2042, VMX_TABLE | 4, false},
    {FULL | IPIV, 0x2042, VMX_TABLE | 8, true},
    {FULL | IPIV, 0x2042, BEYOND, false},
    {FULL | IPIV, 0x2042, BEYOND - 8 * 512, true},
    {FULL | IPIV, 0x2042, BEYOND - 8 * 511, false},
    {FULL | IPIV | NO_TER, 0x2042, UINT64_MAX, true},
    {FULL, 0x2042, UINT64_MAX, true},
    /* VM-entry MSR-load area */
    {0, 0x4014, 513, false},
    {0, 0x200A, UINT64_MAX, true}, /* no entries */
    /* bits that must be 1, bits that may be */
    {FULL, 0x4000, 0x16, false}, /* VID without EIE, PPI without VID ... */
    {0, 0x4000, 0x16, true},
    {0, 0x4000, 0x14, false},
    {0, 0x4000, 0x116, false},
    {0, 0x4000, 0x7E, true},
    {0, 0x4002, 0x04006172, true},
    {0, 0x4002, 0x04006170, false},
    {0, 0x4002, 0x04006173, false},
    {0, 0x401E, 1u << 29, false},
    {NO_SEC, 0x401E, 1u << 29, true},
    {IPIV | TS, 0x2034, 1u << 8, false},
    {IPIV | TS | NO_TER, 0x2034, UINT64_MAX, true},
    {0, 0x400C, 0x00036DFB, true},
    {0, 0x400C, 0x00036DFA, false},
    {0, 0x4012, 0x000011FB, true},
    {0, 0x4012, 0x000011F9, false},
    {0, 0x4012, 0x010011FB, false},
};

static void assert_entry(struct vmx *x, bool good, unsigned which)
{
    enum vapic_sil_result result;

    vmx_set(x, 0, 0x4400, 0xDEAD);
    vmx_set(x, 0, 0x4402, 0xBEEF);
    result = vapic_sil_vmentry(&x->cpu[0], &x->vmcs[0]);
    if (result != (good ? VAPIC_SIL_DONE : VAPIC_SIL_INVALID))
        fail_msg("case %u: entry gives %d", which, result);
    assert_int_equal(x->cpu[0].in_guest, good);
    assert_int_equal(vmx_get(x, 0, 0x4400), good ? 0xDEAD : 7);
    assert_int_equal(vmx_get(x, 0, 0x4402), 0xBEEF); /* not an exit */
}

static void entry_checks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        struct vmx x;

        vmx_new(&x);
        *vmx_word(&x, 0, 0x080) = 0x5F;
        vmx_program(&x, 0, checks[i].controls);
        vmx_set(&x, 0, checks[i].field, checks[i].value);
        assert_entry(&x, checks[i].good, i);
        vmx_free(&x);
    }
}

/* Which controls go together: all 2048 combinations, against the rules said once more. */
static void control_combinations(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 2048; i++) {
        bool ts = i & 1, vaa = i & 2, vx2 = i & 4, arv = i & 8, vid = i & 16, eie = i & 32;
        bool ppi = i & 64, aie = i & 128, ipiv = i & 256, sec = i & 512, ter = i & 1024;
        uint32_t c = (ts ? TS : 0) | (vaa ? VAA : 0) | (vx2 ? VX2 : 0) | (arv ? ARV : 0) |
                     (vid ? VID : 0) | (eie ? EIE : NO_EIE) | (ppi ? PPI : 0) |
                     (aie ? AIE : NO_AIE) | (ipiv ? IPIV : 0) | (sec ? 0 : NO_SEC) |
                     (ter ? 0 : NO_TER);
        bool good = true;

        vaa &= sec, vx2 &= sec, arv &= sec, vid &= sec, ipiv &= ter;
        good &= ts || !(vx2 || arv || vid || ipiv);
        good &= !(vx2 && vaa);
        good &= !vid || eie;
        good &= !ppi || (vid && aie);
        vmx_program(&x, 0, c);
        assert_entry(&x, good, i);
        vapic_sil_leave(&x.cpu[0], VMX_EXIT_CPUID, 0, 2);
    }
    vmx_free(&x);
}

static void absent_controls(void **state)
{
    static const struct {
        struct vapic_sil_config config;
        uint32_t controls;
        bool good;
    } cases[] = {
        {{.absent_pin = 1u << 7}, XAPIC_FULL, false},
        {{.absent_pin = 1u << 7}, XAPIC_FULL & ~PPI, true},
        {{.absent_primary = 1u << 21}, TS, false},
        {{.absent_primary = 1u << 21}, 0, true},
        {{.absent_secondary = 1u << 9}, XAPIC_FULL & ~PPI, false},
        {{.absent_secondary = 1u << 9}, TS | VAA | ARV, true},
        {{.absent_secondary = 1u << 9}, TS | VID | NO_SEC, true},
        {{.absent_tertiary = 1u << 4}, XAPIC_FULL | IPIV, false},
        {{.absent_tertiary = 1u << 4}, XAPIC_FULL | IPIV | NO_TER, true},
        {{.absent_primary = 1u << 17}, XAPIC_FULL | IPIV, false},
        {{.phys_bits = 36}, XAPIC_FULL, true},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vapic_sil_config config = cases[i].config;
        struct vmx x;

        config.vendor = VAPIC_SIL_INTEL;
        vmx_new_with(&x, &config);
        vmx_program(&x, 0, cases[i].controls);
        assert_entry(&x, cases[i].good, i);
        vmx_free(&x);
    }
}

static void physical_width(void **state)
{
    for (unsigned bits = 36; bits <= 52; bits += 4) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .phys_bits = bits};
        struct vmx x;

        vmx_new_with(&x, &config);
        vmx_program(&x, 0, VAA);
        vmx_set(&x, 0, 0x2014, (UINT64_C(1) << bits) - 4096);
        assert_entry(&x, true, bits);
        vmx_leave(&x, 0);
        vmx_set(&x, 0, 0x2014, UINT64_C(1) << bits);
        assert_entry(&x, false, bits);
        vmx_free(&x);
    }
    (void)state;
}

/* The same for what must have memory behind it: there is some at both addresses. */
static void physical_width_of_memory(void **state)
{
    static const struct {
        uint16_t field;
        uint64_t address;
    } cases[] = {{0x2004, VMX_BITMAP}, {0x2012, VMX_PAGE}, {0x2016, VMX_PID}, {0x2042, VMX_TABLE}};

    for (unsigned i = 0; i < 8; i++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .phys_bits = 40 + (i & 1)};
        struct vmx x;

        vmx_new_with(&x, &config);
        vmx_program(&x, 0, FULL | IPIV);
        vmx_set(&x, 0, cases[i / 2].field, VMX_AGAIN | cases[i / 2].address);
        assert_entry(&x, i & 1, i);
        vmx_free(&x);
    }
    (void)state;
}

/* The knobs of the checks, both ways. */
static void knobs(void **state)
{
    for (unsigned on = 0; on < 2; on++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL,
                                          .knobs = {.ipiv_last_entry_unchecked = on,
                                                    .ppi_needs_no_secondary = on,
                                                    .entry_keeps_vtpr_bytes = on}};
        struct vmx x;

        vmx_new_with(&x, &config);
        vmx_program(&x, 0, XAPIC_FULL | IPIV);
        vmx_set(&x, 0, 0x2042, BEYOND - 8);
        assert_entry(&x, on, 0);
        if (on)
            vmx_leave(&x, 0);

        vmx_program(&x, 0, XAPIC_FULL | NO_SEC);
        assert_entry(&x, on, 1);
        if (on) { /* the control acts as 0: an interrupt with the vector is an exit */
            vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
            vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
            vmx_assert_exit(&x, 0, 1, 0);
        }

        *vmx_word(&x, 0, 0x080) = 0x11223344;
        vmx_program(&x, 0, XAPIC_FULL);
        assert_entry(&x, true, 2);
        assert_int_equal(*vmx_word(&x, 0, 0x080), on ? 0x11223344 : 0x44);
        vmx_free(&x);
    }
    (void)state;
}

/* The page's bytes are cleared only when the checks pass, and only with the TPR shadow. */
static void vtpr_bytes(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    *vmx_word(&x, 0, 0x080) = 0x11223344;
    vmx_program(&x, 0, TS | VX2 | VAA);
    assert_entry(&x, false, 0);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x11223344);
    vmx_program(&x, 0, VAA);
    assert_entry(&x, true, 0);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x11223344);
    vmx_free(&x);
}

/* ---- MSR loading ---- */

static void msr_load(void **state)
{
    static const struct {
        uint32_t msrs[3];
        uint64_t area;
        unsigned bad; /* number of the entry that fails */
    } cases[] = {
        {{0x10, 0x7FF, 0x900}, VMX_GUEST, 0},       {{0x10, 0x800, 0x900}, VMX_GUEST, 2},
        {{0x8FF, 0x800, 0x900}, VMX_GUEST, 1},      {{0x10, 0x7FF, 0x830}, VMX_GUEST, 3},
        {{0x10, 0x7FF, 0x900}, VMX_MEMORY - 32, 3}, /* the area leaves memory */
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vmx x;

        vmx_new(&x);
        for (unsigned n = 0; n < 3 && cases[i].area + 16 * n < VMX_MEMORY; n++)
            memcpy(x.memory + cases[i].area + 16 * n, &cases[i].msrs[n], 4);
        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x200A, cases[i].area);
        vmx_set(&x, 0, 0x4014, 3);
        vmx_set(&x, 0, 0x4402, 0);
        assert_int_equal(vapic_sil_vmentry(&x.cpu[0], &x.vmcs[0]),
                         cases[i].bad ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
        assert_int_equal(x.cpu[0].in_guest, !cases[i].bad);
        assert_int_equal(vmx_get(&x, 0, 0x4402), cases[i].bad ? 0x80000022 : 0);
        assert_int_equal(vmx_get(&x, 0, 0x6400), cases[i].bad);
        vmx_free(&x);
    }
}

static void msr_load_address(void **state)
{
    static const uint64_t bad[] = {VMX_GUEST + 8, BEYOND};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 2; i++) {
        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x4014, 1);
        vmx_set(&x, 0, 0x200A, bad[i]);
        assert_entry(&x, false, i);
    }
    vmx_free(&x);
}

/* ---- What is loaded and saved ---- */

static void guest_state(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x681E, 0x123456789A);
    vmx_set(&x, 0, 0x6820, 0x10202);
    vmx_set(&x, 0, 0x4818, 0xC0F3);
    vmx_set(&x, 0, 0x4824, 0x2 | 0x8);
    vmx_set(&x, 0, 0x6822, 0x4000);
    vmx_enter(&x, 0);
    assert_int_equal(x.cpu[0].guest.rip, 0x123456789A);
    assert_int_equal(x.cpu[0].guest.cpl, 3);
    assert_true(x.cpu[0].guest.interrupt_flag);
    assert_true(x.cpu[0].guest.shadow);
    assert_false(x.cpu[0].guest.halted);
    vapic_sil_leave(&x.cpu[0], 10, 0x55, 2);
    vmx_assert_exit(&x, 0, 10, 0x55);
    assert_int_equal(vmx_get(&x, 0, 0x440C), 2);
    assert_int_equal(vmx_get(&x, 0, 0x6820), 0x202); /* RF: 0 by an instruction that exits */
    assert_int_equal(vmx_get(&x, 0, 0x4818), 0xC0F3);
    assert_int_equal(vmx_get(&x, 0, 0x4824), 0x2 | 0x8);
    assert_int_equal(vmx_get(&x, 0, 0x4826), 0);
    assert_int_equal(vmx_get(&x, 0, 0x6822), 0);
    vmx_set(&x, 0, 0x6820, 0x10202);
    vmx_enter(&x, 0);
    vapic_sil_leave(&x.cpu[0], 52, 0, 0);
    assert_int_equal(vmx_get(&x, 0, 0x6820), 0x10202); /* RF: as it was, by the timer */

    vmx_enter(&x, 0);
    x.cpu[0].guest = (struct vapic_sil_guest){.rip = 0x77, .cpl = 1, .shadow = false};
    vapic_sil_leave(&x.cpu[0], 48, 0x181, 0xABC000);
    vmx_assert_exit(&x, 0, 48, 0x181);
    assert_int_equal(vmx_get(&x, 0, 0x2400), 0xABC000);
    assert_int_equal(vmx_get(&x, 0, 0x681E), 0x77);
    assert_int_equal(vmx_get(&x, 0, 0x6820), 0x10002);
    assert_int_equal(vmx_get(&x, 0, 0x4818), 0xC0B3);
    assert_int_equal(vmx_get(&x, 0, 0x4824), 0x8);

    vmx_set(&x, 0, 0x6820, 0x202);
    vmx_enter(&x, 0);
    x.cpu[0].guest.shadow = true; /* a STI of the guest's own */
    x.cpu[0].guest.halted = true;
    vapic_sil_leave(&x.cpu[0], 10, 0, 2);
    assert_int_equal(vmx_get(&x, 0, 0x4824), 0x1 | 0x8);
    assert_int_equal(vmx_get(&x, 0, 0x4826), 1);
    assert_int_equal(vmx_get(&x, 0, 0x6820), 0x202);
    vmx_free(&x);
}

/* A completed instruction ends the shadow and RF. */
static void instruction_ends_shadow(void **state)
{
    struct vapic_sil_access a = {.gpa = VMX_GUEST, .kind = VAPIC_SIL_READ, .size = 8, .length = 3};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x4824, 0x2);
    vmx_set(&x, 0, 0x6820, 0x10202);
    vmx_enter(&x, 0);
    assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_DONE);
    assert_false(x.cpu[0].guest.shadow);
    vmx_leave(&x, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4824), 0);
    assert_int_equal(vmx_get(&x, 0, 0x6820), 0x202);
    assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + 3);
    vmx_free(&x);
}

/* Exits 43, 45 and 56 do not clear the pending debug exceptions, others do [SDM3 29.3.4]. */
static void pending_debug(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, TS | VAA);
    vmx_set(&x, 0, 0x6822, 0x4000);
    vmx_set(&x, 0, 0x401C, 5);
    vmx_enter(&x, 0);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 43, 0);
    assert_int_equal(vmx_get(&x, 0, 0x6822), 0x4000);

    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x0810, 0x5100);
    vmx_set(&x, 0, 0x201E, UINT64_C(1) << 0x11);
    vmx_enter(&x, 0);
    assert_int_equal(vmx_write(&x, 0, 0x0B0, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 45, 0x51);
    assert_int_equal(vmx_get(&x, 0, 0x6822), 0x4000);
    vmx_enter(&x, 0);
    assert_int_equal(vmx_write(&x, 0, 0x0F0, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x0F0);
    assert_int_equal(vmx_get(&x, 0, 0x6822), 0x4000);
    vmx_enter(&x, 0);
    assert_int_equal(vmx_write(&x, 0, 0x030, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 44, 0x1030);
    assert_int_equal(vmx_get(&x, 0, 0x6822), 0);
    vmx_free(&x);
}

/* Guest interrupt status is loaded and saved with VID only. */
static void interrupt_status(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x0810, 0x5131);
    vmx_enter(&x, 0);
    assert_int_equal(x.cpu[0].rvi, 0x31);
    assert_int_equal(x.cpu[0].svi, 0x51);
    x.cpu[0].guest.interrupt_flag = false;
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x10, 0), VAPIC_SIL_EXIT);
    vmx_assert_status(&x, 0, 0x31, 0x51);

    vmx_program(&x, 0, TS | VAA | ARV);
    vmx_set(&x, 0, 0x0810, 0x7161);
    *vmx_word(&x, 0, 0x0A0) = 0x99;
    vmx_enter(&x, 0);
    assert_int_equal(x.cpu[0].rvi, 0x31);
    assert_false(x.cpu[0].recognized);
    vmx_leave(&x, 0);
    vmx_assert_status(&x, 0, 0x61, 0x71);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x99); /* no PPR virtualization either */
    vmx_free(&x);
}

/* ---- TPR threshold at entry ---- */

static void threshold_at_entry(void **state)
{
    static const struct {
        uint32_t controls, threshold, tpr, activity;
        bool exits;
    } cases[] = {
        {TS | VAA, 6, 0x5F, 0, true},    {TS | VAA, 5, 0x5F, 0, false},
        {TS | VAA, 6, 0x5F, 1, true},    {TS | VAA | ARV, 6, 0x5F, 0, true},
        {TS | VAA, 6, 0x5F, 2, false},   {TS | VAA, 6, 0x5F, 3, false},
        {XAPIC_FULL, 6, 0x5F, 0, false}, {VAA, 6, 0x5F, 0, false},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        *vmx_word(&x, 0, 0x080) = cases[i].tpr;
        vmx_program(&x, 0, cases[i].controls);
        vmx_set(&x, 0, 0x401C, cases[i].threshold);
        vmx_set(&x, 0, 0x4826, cases[i].activity);
        vmx_set(&x, 0, 0x6820, 0x2); /* IF=0 does not block it */
        vmx_enter(&x, 0);
        vmx_assert_boundary(&x, 0, cases[i].exits ? VAPIC_SIL_EXIT : VAPIC_SIL_NOTHING);
        if (cases[i].exits) {
            vmx_assert_exit(&x, 0, 43, 0);
            assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP);
            assert_int_equal(vmx_get(&x, 0, 0x4826), cases[i].activity); /* awake later */
        } else {
            vapic_sil_leave(&x.cpu[0], 10, 0, 0);
            assert_int_equal(vmx_get(&x, 0, 0x4826), cases[i].activity);
        }
    }
    vmx_free(&x);
}

/* The injected event comes first, then the exit. */
static void threshold_after_injection(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, TS | VAA);
    vmx_set(&x, 0, 0x401C, 5);
    vmx_set(&x, 0, 0x4016, 0x80000041);
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 0x41);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 43, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4016), 0x41); /* the valid bit is cleared by the exit */
    vmx_free(&x);
}

/* ---- Calls at the wrong time ---- */

static void misuse(void **state)
{
    struct vapic_sil_config amd = {.vendor = VAPIC_SIL_AMD};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x4400, 0xDEAD);
    assert_int_equal(vapic_sil_vmentry(&x.cpu[0], &x.vmcs[0]), VAPIC_SIL_INVALID);
    assert_int_equal(vmx_get(&x, 0, 0x4400), 0xDEAD);
    assert_true(x.cpu[0].in_guest);
    vmx_leave(&x, 0);
    vmx_set(&x, 0, 0x4402, 0xBEEF);
    vapic_sil_leave(&x.cpu[0], 10, 0, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4402), 0xBEEF);
    vmx_free(&x);

    vmx_new_with(&x, &amd);
    vmx_program(&x, 0, XAPIC_FULL);
    assert_int_equal(vapic_sil_vmentry(&x.cpu[0], &x.vmcs[0]), VAPIC_SIL_INVALID);
    assert_false(x.cpu[0].in_guest);
    vmx_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vmcs_fields),
        cmocka_unit_test(vmcs_unknown),
        cmocka_unit_test(vmcs_init),
        cmocka_unit_test(entry_checks),
        cmocka_unit_test(control_combinations),
        cmocka_unit_test(absent_controls),
        cmocka_unit_test(physical_width),
        cmocka_unit_test(physical_width_of_memory),
        cmocka_unit_test(knobs),
        cmocka_unit_test(vtpr_bytes),
        cmocka_unit_test(msr_load),
        cmocka_unit_test(msr_load_address),
        cmocka_unit_test(guest_state),
        cmocka_unit_test(instruction_ends_shadow),
        cmocka_unit_test(pending_debug),
        cmocka_unit_test(interrupt_status),
        cmocka_unit_test(threshold_at_entry),
        cmocka_unit_test(threshold_after_injection),
        cmocka_unit_test(misuse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
