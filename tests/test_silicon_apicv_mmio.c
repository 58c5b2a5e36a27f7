/* SPDX-License-Identifier: MIT */
/*
 * Accesses to the APIC-access page: every slot of the page, read and written, under every set of
 * controls that makes a difference; sizes and alignment; operations of several accesses; fetches,
 * page walks and events; translations [SDM3 31.4] [SDM3 31.4.2] [SDM3 31.4.3.1] [SDM3 31.4.3.2]
 * [SDM3 29.2.1].
 */
#include "silicon_vmx.h"

/* ---- Every slot ---- */

/*
 * What becomes of an aligned 4-byte access, written down from the manual's prose and not from the
 * model: X exit 44, P the page answers, W write to the page and exit 56; and of writes T TPR
 * virtualization, E EOI virtualization, I the ICR's checks, H only bits 31:24 stay.
 */
struct row {
    uint32_t first, last;
    const char *cells; /* reads: TS, +VID, +ARV; writes: TS, +VID, +ARV, +ARV+VID */
};

static const struct row rows[] = {
    {0x000, 0x010, "XXX XXXX"}, /* reserved */
    {0x020, 0x020, "XXP XXWW"}, /* ID */
    {0x030, 0x030, "XXP XXXX"}, /* version */
    {0x040, 0x070, "XXX XXXX"}, /* reserved */
    {0x080, 0x080, "PPP TTTT"}, /* TPR */
    {0x090, 0x090, "XXX XXXX"}, /* APR */
    {0x0A0, 0x0A0, "XXX XXXX"}, /* PPR */
    {0x0B0, 0x0B0, "XPP XEWE"}, /* EOI */
    {0x0C0, 0x0C0, "XXX XXXX"}, /* RRD */
    {0x0D0, 0x0D0, "XXP XXWW"}, /* LDR */
    {0x0E0, 0x0E0, "XXP XXWW"}, /* DFR */
    {0x0F0, 0x0F0, "XXP XXWW"}, /* SVR */
    {0x100, 0x170, "XXP XXXX"}, /* ISR */
    {0x180, 0x1F0, "XXP XXXX"}, /* TMR */
    {0x200, 0x270, "XXP XXXX"}, /* IRR */
    {0x280, 0x280, "XXP XXWW"}, /* ESR */
    {0x290, 0x2E0, "XXX XXXX"}, /* reserved */
    {0x2F0, 0x2F0, "XXX XXXX"}, /* CMCI */
    {0x300, 0x300, "XPP XIWI"}, /* ICR low */
    {0x310, 0x310, "XXP XXHH"}, /* ICR high */
    {0x320, 0x370, "XXP XXWW"}, /* LVTs */
    {0x380, 0x380, "XXP XXWW"}, /* initial count */
    {0x390, 0x390, "XXX XXXX"}, /* current count */
    {0x3A0, 0x3D0, "XXX XXXX"}, /* reserved */
    {0x3E0, 0x3E0, "XXP XXWW"}, /* divide */
    {0x3F0, 0x3F0, "XXX XXXX"}, /* self-IPI */
    {0x400, 0xFF0, "XXX XXXX"}, /* reserved */
};

/* Sets of controls, and which letter of a row's reads and writes holds; -1: all X. */
static const struct column {
    uint32_t controls;
    int read, write;
} columns[] = {
    {VAA, -1, -1},
    {VAA | TS, 0, 4},
    {VAA | TS | VID, 1, 5},
    {VAA | TS | ARV, 2, 6},
    {VAA | TS | ARV | VID, 2, 7},
    {VAA | TS | ARV | VID | PPI | IPIV, 2, 7},
};

static const struct row *row_of(uint32_t offset)
{
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (offset >= rows[i].first && offset <= rows[i].last)
            return &rows[i];
    fail_msg("no row for %03x", offset);
    return NULL;
}

/* Every dword of the page has a value of its own, but for the sets of vectors, which are empty. */
static void fill_page(struct vmx *x)
{
    for (uint32_t o = 0; o < 0x1000; o += 4)
        *vmx_word(x, 0, o) = o >= 0x100 && o < 0x280 ? 0 : 0xA5000000 | o << 8 | 0x31;
}

static void assert_page(struct vmx *x, const uint8_t *before, uint32_t except, uint32_t value)
{
    for (uint32_t o = 0; o < 0x1000; o += 4) {
        uint32_t expected;

        memcpy(&expected, before + o, 4);
        expected = o == except ? value : expected;
        if (*vmx_word(x, 0, o) != expected)
            fail_msg("%03x: page has %08x, not %08x", o, *vmx_word(x, 0, o), expected);
    }
}

static void assert_exit_44(struct vmx *x, uint32_t offset, unsigned type)
{
    vmx_assert_exit(x, 0, 44, (uint64_t)type << 12 | offset);
    assert_int_equal(vmx_get(x, 0, 0x681E), VMX_RIP); /* fault-like */
    assert_int_equal(vmx_get(x, 0, 0x440C), 6);
    assert_int_equal(vmx_get(x, 0, 0x4408), 0);
    assert_int_equal(vmx_get(x, 0, 0x6820) & 0x10000, 0x10000); /* RF */
}

static void assert_exit_56(struct vmx *x, uint32_t offset)
{
    vmx_assert_exit(x, 0, 56, offset);
    assert_int_equal(vmx_get(x, 0, 0x681E), VMX_RIP + 6); /* trap-like */
    assert_int_equal(vmx_get(x, 0, 0x6820) & 0x10000, 0);
}

static void assert_no_exit(struct vmx *x)
{
    assert_true(x->cpu[0].in_guest);
    assert_int_equal(x->cpu[0].guest.rip, VMX_RIP + 6);
}

static void check_read(struct vmx *x, uint32_t controls, uint32_t offset, char expected)
{
    uint8_t before[4096];
    uint64_t value = 0;
    enum vapic_sil_result result;

    fill_page(x);
    *vmx_word(x, 0, offset) = 0x13570031 | offset << 12; /* also where the sets of vectors are */
    vmx_start(x, 0, controls);
    memcpy(before, vmx_word(x, 0, 0), sizeof(before));
    result = vmx_read(x, 0, offset, &value);
    if (expected == 'X') {
        assert_int_equal(result, VAPIC_SIL_EXIT);
        assert_exit_44(x, offset, 0);
    } else {
        uint32_t there;

        assert_int_equal(result, VAPIC_SIL_DONE);
        memcpy(&there, before + offset, 4);
        assert_int_equal(value, there);
        assert_no_exit(x);
        vmx_leave(x, 0);
    }
    assert_page(x, before, 0x1000, 0);
}

/* A value that ends in exit 56 at 300h: the shorthand is 10b. */
#define WRITTEN 0x5A580041u

static void check_effect(struct vmx *x, uint32_t offset, char expected, uint32_t *stored)
{
    switch (expected) {
    case 'W':
    case 'I':
        assert_exit_56(x, offset);
        return;
    case 'H':
        *stored = WRITTEN & 0xFF000000;
        break;
    case 'T':
        *stored = WRITTEN & 0xFF;
        break;
    case 'E':
        *stored = 0;
        assert_int_equal(x->cpu[0].svi, 0);
        assert_false(vmx_in_set(x, 0, APIC_ISR, 0x51));
        break;
    default:
        fail_msg("cell '%c'?", expected);
    }
    assert_no_exit(x);
}

static void check_write(struct vmx *x, uint32_t controls, uint32_t offset, char expected)
{
    uint32_t stored = WRITTEN;
    uint8_t before[4096];
    enum vapic_sil_result result;

    fill_page(x);
    vmx_set(x, 0, 0x401C, 0); /* threshold */
    vmx_program(x, 0, controls);
    vmx_set(x, 0, 0x0810, 0x5100);
    vmx_set_vector(x, 0, APIC_ISR, 0x51);
    vmx_enter(x, 0);
    memcpy(before, vmx_word(x, 0, 0), sizeof(before));
    result = vmx_write(x, 0, offset, WRITTEN);
    if (expected == 'X') {
        assert_int_equal(result, VAPIC_SIL_EXIT);
        assert_exit_44(x, offset, 1);
        assert_page(x, before, 0x1000, 0);
        return;
    }
    assert_int_equal(result, x->cpu[0].in_guest ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
    check_effect(x, offset, expected, &stored);
    *vmx_word(x, 0, 0x0A0) = *(uint32_t *)(void *)(before + 0x0A0);
    if (expected == 'E')
        memset(before + 0x100, 0, 0x80);
    assert_page(x, before, offset, stored);
    if (x->cpu[0].in_guest)
        vmx_leave(x, 0);
}

/* The cells are many: one test each for reads and writes of a column. */
static void every_slot(const struct column *column, bool write)
{
    struct vmx x;
    int letter = write ? column->write : column->read;

    vmx_new(&x);
    for (uint32_t offset = 0; offset < 0x1000; offset += 0x10) {
        char expected = letter < 0 ? 'X' : row_of(offset)->cells[letter];

        if (write)
            check_write(&x, column->controls, offset, expected);
        else
            check_read(&x, column->controls, offset, expected);
    }
    vmx_free(&x);
}

#define COLUMN_TEST(name, number)                                                                  \
    static void read_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        every_slot(&columns[number], false);                                                       \
    }                                                                                              \
    static void write_##name(void **state)                                                         \
    {                                                                                              \
        (void)state;                                                                               \
        every_slot(&columns[number], true);                                                        \
    }

COLUMN_TEST(no_tpr_shadow, 0)
COLUMN_TEST(tpr_shadow, 1)
COLUMN_TEST(delivery_only, 2)
COLUMN_TEST(registers_only, 3)
COLUMN_TEST(registers_and_delivery, 4)
COLUMN_TEST(everything, 5)

/* The manual's older editions: reads of EOI and ICR exit without APIC-register virtualization. */
static void knob_eoi_icr_reads(void **state)
{
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL,
                                      .knobs = {.eoi_icr_reads_need_arv = true}};
    struct vmx x;

    (void)state;
    vmx_new_with(&x, &config);
    check_read(&x, VAA | TS | VID, 0x0B0, 'X');
    check_read(&x, VAA | TS | VID, 0x300, 'X');
    check_read(&x, VAA | TS | VID, 0x080, 'P');
    check_read(&x, VAA | TS | VID | ARV, 0x0B0, 'P');
    check_read(&x, VAA | TS | VID | ARV, 0x300, 'P');
    check_write(&x, VAA | TS | VID, 0x0B0, 'E');
    check_write(&x, VAA | TS | VID, 0x300, 'I');
    vmx_free(&x);
}

/* IPI virtualization alone does not virtualize 300h, unless the knob says so. */
static void knob_ipiv_without_vid(void **state)
{
    for (unsigned on = 0; on < 2; on++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL,
                                          .knobs = {.ipiv_without_vid = on}};
        struct vmx x;

        vmx_new_with(&x, &config);
        check_write(&x, VAA | TS | IPIV, 0x300, on ? 'I' : 'X');
        check_write(&x, VAA | TS | IPIV, 0x310, 'X');
        check_read(&x, VAA | TS | IPIV, 0x300, 'X');
        vmx_start(&x, 0, VAA | TS | IPIV);
        *vmx_word(&x, 0, 0x310) = 2u << 24;
        assert_int_equal(vmx_write(&x, 0, 0x300, 0x61), on ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
        assert_int_equal(vmx_pid(&x, 2)[1], on ? UINT64_C(1) << 0x21 : 0);
        vmx_free(&x);
    }
    (void)state;
}

static void knob_length(void **state)
{
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL,
                                      .knobs = {.no_length_on_apic_access = true}};
    struct vmx x;

    (void)state;
    vmx_new_with(&x, &config);
    vmx_start(&x, 0, VAA | TS);
    assert_int_equal(vmx_write(&x, 0, 0x0B0, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 44, 0x10B0);
    assert_int_equal(vmx_get(&x, 0, 0x440C), 0);
    vmx_free(&x);
}

/* ---- Sizes and alignment ---- */

/* Expected of an access of `size` at byte `at` of the slot; reads and writes are alike but for what
 * comes after a write. */
static bool in_low_dword(unsigned at, unsigned size)
{
    return at < 4 && size <= 4 && at + size <= 4;
}

static void check_size(struct vmx *x, bool arv, uint32_t slot, unsigned at, unsigned size)
{
    uint32_t controls = VAA | TS | VID | (arv ? ARV : 0);
    bool ok = in_low_dword(at, size) && (arv || at == 0);
    uint8_t before[4096];
    struct vapic_sil_access a;

    for (unsigned write = 0; write < 2; write++) {
        enum vapic_sil_access_kind kind = write ? VAPIC_SIL_WRITE : VAPIC_SIL_READ;

        memset(vmx_word(x, 0, 0), 0, 4096);
        *vmx_word(x, 0, slot) = 0x44332211;
        vmx_start(x, 0, controls);
        *vmx_word(x, 0, slot) = 0x44332211; /* entry clears bytes of VTPR */
        memcpy(before, vmx_word(x, 0, 0), sizeof(before));
        a = vmx_access(kind, slot + at, size, 0x000C08A9); /* 300h: exit 56 */
        vapic_sil_access(&x->cpu[0], &a);
        if (!ok) {
            assert_exit_44(x, slot + at, write);
            assert_page(x, before, 0x1000, 0);
            continue;
        }
        if (!write)
            assert_int_equal(a.value, (0x44332211u >> 8 * at) & (0xFFFFFFFFu >> (32 - 8 * size)));
        if (x->cpu[0].in_guest)
            vmx_leave(x, 0);
    }
}

/* One slot of each class, at every byte, in every size. */
static void sizes(void **state)
{
    static const uint32_t slots[] = {0x080, 0x0B0, 0x300};
    static const unsigned widths[] = {1, 2, 4, 8, 16};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned s = 0; s < 3; s++)
        for (unsigned w = 0; w < 5; w++)
            for (unsigned at = 0; at < 16; at++) {
                check_size(&x, true, slots[s], at, widths[w]);
                check_size(&x, false, slots[s], at, widths[w]);
            }
    vmx_free(&x);
}

static void wide_accesses(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned size = 8; size <= 64; size *= 2) {
        struct vapic_sil_access a = vmx_access(VAPIC_SIL_READ, 0x080, size, 0);

        vmx_start(&x, 0, VAA | TS | ARV | VID);
        assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
        assert_exit_44(&x, 0x080, 0);
    }
    vmx_free(&x);
}

/* Narrow writes: the merged dword is in the page; exact offsets have effects, odd ones exit. */
static void narrow_writes(void **state)
{
    static const struct {
        uint32_t offset;
        unsigned size;
        uint32_t value, before, after;
        uint32_t exit; /* qualification of exit 56; 0: none */
    } cases[] = {
        {0x080, 1, 0x20, 0x00000031, 0x00000020, 0},     /* TPR */
        {0x080, 2, 0x9920, 0x00000031, 0x00000020, 0},   /* bytes 3:1 are cleared */
        {0x081, 1, 0x77, 0x00000031, 0x00007731, 0x081}, /* not normalized */
        {0x082, 2, 0x7766, 0x00000031, 0x77660031, 0x082},
        {0x083, 1, 0x77, 0x00000031, 0x77000031, 0x083},
        {0x0B0, 1, 0x55, 0x00000000, 0x00000000, 0}, /* a full EOI */
        {0x0B1, 1, 0x55, 0x00000000, 0x00005500, 0x0B1},
        {0x300, 1, 0x99, 0x000C0000, 0x000C0099, 0x300}, /* the merged dword counts */
        {0x300, 1, 0x99, 0x00040000, 0x00040099, 0},     /* self-IPI */
        {0x301, 1, 0x08, 0x00040099, 0x00040899, 0x301},
        {0x302, 1, 0x04, 0x00000099, 0x00040099, 0x302},
        {0x310, 1, 0x55, 0x12000000, 0x12000000, 0},
        {0x311, 1, 0x55, 0x12000000, 0x12000000, 0},
        {0x312, 2, 0x3455, 0x12000000, 0x34000000, 0},
        {0x313, 1, 0x56, 0x12000000, 0x56000000, 0},
        {0x0F1, 1, 0x01, 0x000000FF, 0x000001FF, 0x0F1},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vapic_sil_access a =
            vmx_access(VAPIC_SIL_WRITE, cases[i].offset, cases[i].size, cases[i].value);

        memset(vmx_word(&x, 0, 0), 0, 4096);
        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x0810, 0x5100);
        *vmx_word(&x, 0, cases[i].offset & ~15u) = cases[i].before;
        vmx_set_vector(&x, 0, APIC_ISR, 0x51);
        vmx_enter(&x, 0);
        vapic_sil_access(&x.cpu[0], &a);
        assert_int_equal(*vmx_word(&x, 0, cases[i].offset & ~15u), cases[i].after);
        assert_int_equal(vmx_in_set(&x, 0, APIC_ISR, 0x51), cases[i].offset != 0x0B0);
        assert_int_equal(vmx_in_set(&x, 0, APIC_IRR, 0x99),
                         cases[i].offset == 0x300 && !cases[i].exit);
        if (cases[i].exit)
            assert_exit_56(&x, cases[i].exit);
        else
            assert_no_exit(&x);
        if (x.cpu[0].in_guest)
            vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* ---- Operations of several accesses ---- */

struct step {
    enum vapic_sil_access_kind kind;
    uint32_t offset;
    unsigned size;
};

/* All steps but the last have more to come. Returns what the last one gave. */
static enum vapic_sil_result run(struct vmx *x, const struct step *steps, unsigned count)
{
    enum vapic_sil_result result = VAPIC_SIL_DONE;

    for (unsigned i = 0; i < count; i++) {
        struct vapic_sil_access a =
            vmx_access(steps[i].kind, steps[i].offset, steps[i].size, 0x1FF);

        assert_int_equal(result, VAPIC_SIL_DONE);
        a.more = i + 1 < count;
        result = vapic_sil_access(&x->cpu[0], &a);
        if (a.more && result == VAPIC_SIL_DONE)
            assert_int_equal(x->cpu[0].guest.rip, VMX_RIP);
        if (result == VAPIC_SIL_EXIT && i + 1 < count)
            break;
    }
    return result;
}

/* [SDM3 31.4.4] */
static void read_modify_write(void **state)
{
    static const struct step steps[] = {{VAPIC_SIL_READ, 0x0F0, 4}, {VAPIC_SIL_WRITE, 0x0F0, 4}};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, XAPIC_FULL);
    assert_int_equal(run(&x, steps, 2), VAPIC_SIL_EXIT);
    assert_exit_56(&x, 0x0F0);
    assert_int_equal(*vmx_word(&x, 0, 0x0F0), 0x1FF);

    vmx_start(&x, 0, VAA | TS); /* not virtualized: the read exits already */
    assert_int_equal(run(&x, steps, 2), VAPIC_SIL_EXIT);
    assert_exit_44(&x, 0x0F0, 0);
    vmx_free(&x);
}

/* The read of a read-modify-write is an access for writing, to the exits as well. */
static void read_for_write(void **state)
{
    struct vapic_sil_access a = vmx_access(VAPIC_SIL_READ, 0x0A0, 4, 0);
    struct vmx x;

    (void)state;
    vmx_new(&x);
    a.more = a.modify = true;
    vmx_start(&x, 0, XAPIC_FULL);
    assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
    assert_exit_44(&x, 0x0A0, 1);
    x.read_only = true;
    vmx_start(&x, 0, XAPIC_FULL);
    assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 48, 0x1AB); /* read and write of what can be read and executed */
    vmx_free(&x);
}

/* Blocking by STI or MOV SS from before is over after a trap-like exit; a fault-like one keeps it.
 */
static void exits_and_blocking(void **state)
{
    static const struct {
        uint32_t offset, reason, blocking;
    } cases[] = {{0x0F0, 56, 0x8}, {0x030, 44, 0xA}};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 2; i++) {
        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x4824, 0xA);
        vmx_enter(&x, 0);
        assert_int_equal(vmx_write(&x, 0, cases[i].offset, 0), VAPIC_SIL_EXIT);
        assert_int_equal(vmx_get(&x, 0, 0x4402), cases[i].reason);
        assert_int_equal(vmx_get(&x, 0, 0x4824), cases[i].blocking);
    }
    vmx_free(&x);
}

static void repeated_write(void **state)
{
    static const struct step steps[] = {{VAPIC_SIL_WRITE, 0x0F0, 4}, {VAPIC_SIL_WRITE, 0x0F0, 4}};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, XAPIC_FULL);
    assert_int_equal(run(&x, steps, 2), VAPIC_SIL_EXIT);
    assert_exit_56(&x, 0x0F0);
    vmx_free(&x);
}

/* Something else after a write exits; what was written stays, its emulation is lost. */
static void access_after_write(void **state)
{
    static const struct {
        struct step second;
        unsigned type;
    } cases[] = {
        {{VAPIC_SIL_READ, 0x0F0, 4}, 0},  {{VAPIC_SIL_READ, 0x080, 4}, 0},
        {{VAPIC_SIL_WRITE, 0x0E0, 4}, 1}, {{VAPIC_SIL_WRITE, 0x0F0, 2}, 1},
        {{VAPIC_SIL_WRITE, 0x0F1, 1}, 1},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct step steps[] = {{VAPIC_SIL_WRITE, 0x0F0, 4}, cases[i].second};

        memset(vmx_word(&x, 0, 0), 0, 4096);
        vmx_start(&x, 0, XAPIC_FULL);
        assert_int_equal(run(&x, steps, 2), VAPIC_SIL_EXIT);
        assert_exit_44(&x, cases[i].second.offset, cases[i].type);
        assert_int_equal(*vmx_word(&x, 0, 0x0F0), 0x1FF);
        vmx_enter(&x, 0); /* nothing of it is left */
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* A write to the page by an instruction that makes another access. */
static void write_first(struct vmx *x, uint32_t offset, uint32_t value)
{
    struct vapic_sil_access first = vmx_access(VAPIC_SIL_WRITE, offset, 4, value);

    first.more = true;
    assert_int_equal(vapic_sil_access(&x->cpu[0], &first), VAPIC_SIL_DONE);
}

/* A write to the page, then to ordinary memory, as an instruction with two operands makes them:
 * emulation follows the whole operation. */
static void ordinary_memory_last(void **state)
{
    struct vapic_sil_access second = {
        .gpa = VMX_GUEST + 8, .kind = VAPIC_SIL_WRITE, .size = 4, .length = 6, .value = 0x77};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, XAPIC_FULL);
    write_first(&x, 0x0F0, 0x1F0);
    assert_int_equal(vapic_sil_access(&x.cpu[0], &second), VAPIC_SIL_EXIT);
    assert_exit_56(&x, 0x0F0);
    assert_int_equal(x.memory[VMX_GUEST + 8], 0x77);
    vmx_free(&x);
}

/* The operation ends by a fault that the guest takes itself: emulation comes at the boundary,
 * before the handler's first instruction. */
static void fault_after_write(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, XAPIC_FULL);
    write_first(&x, 0x0F0, 0x1F0);
    x.cpu[0].guest.rip = 0x7000; /* of the handler */
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x0F0);
    assert_int_equal(vmx_get(&x, 0, 0x681E), 0x7000);

    vmx_start(&x, 0, XAPIC_FULL); /* the same with a write that has no exit */
    write_first(&x, 0x310, 0x12345678);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(*vmx_word(&x, 0, 0x310), 0x12000000);
    vmx_free(&x);
}

/* ... and by another exit: the emulation is lost. */
static void exit_after_write(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, XAPIC_FULL);
    write_first(&x, 0x0F0, 0x1F0);
    vapic_sil_leave(&x.cpu[0], 14, 0, 3);
    vmx_assert_exit(&x, 0, 14, 0);
    assert_int_equal(vmx_get(&x, 0, 0x440C), 3);
    assert_int_equal(*vmx_word(&x, 0, 0x0F0), 0x1F0);
    vmx_enter(&x, 0);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    vmx_free(&x);
}

/* ---- Other kinds of access ---- */

static void fetches(void **state)
{
    struct vapic_sil_access a = vmx_access(VAPIC_SIL_FETCH, 0x080, 4, 0);
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned full = 0; full < 2; full++) {
        vmx_start(&x, 0, full ? XAPIC_FULL : VAA);
        assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
        assert_exit_44(&x, 0x080, 2);
    }
    vmx_start(&x, 0, XAPIC_FULL);
    a.gpa = VMX_GUEST;
    x.memory[VMX_GUEST] = 0x90;
    assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_DONE);
    assert_int_equal(a.value, 0x90);
    assert_int_equal(x.cpu[0].guest.rip, VMX_RIP); /* the instruction is yet to come */
    vmx_free(&x);
}

/* Page walks use guest-physical addresses: never virtualized [SDM3 31.4.6.1]. */
static void page_walks(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned kind = VAPIC_SIL_TABLE_READ; kind <= VAPIC_SIL_TABLE_WRITE; kind++) {
        struct vapic_sil_access a = vmx_access((enum vapic_sil_access_kind)kind, 0x080, 8, 0);

        vmx_start(&x, 0, XAPIC_FULL);
        assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
        vmx_assert_exit(&x, 0, 44, 0xF000);
        assert_int_equal(vmx_get(&x, 0, 0x4408), 0);

        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x0810, 0x51);
        vmx_enter(&x, 0);
        vmx_assert_delivers(&x, 0, 0x51);
        assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
        vmx_assert_exit(&x, 0, 44, 0xA000);
        assert_int_equal(vmx_get(&x, 0, 0x4408), 0x80000051);
        vmx_set(&x, 0, 0x0810, 0);

        a.gpa = VMX_GUEST;
        vmx_start(&x, 0, XAPIC_FULL);
        assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_DONE);
        assert_int_equal(x.cpu[0].guest.rip, VMX_RIP);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* A frame pushed onto the page: its first push may be virtualized, its second is another write. */
static void event_delivery(void **state)
{
    struct vapic_sil_access push = vmx_access(VAPIC_SIL_EVENT_WRITE, 0x320, 4, 0x10040);
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, XAPIC_FULL);
    vmx_set(&x, 0, 0x0810, 0x51);
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 0x51);
    push.more = true;
    push.length = 0;
    assert_int_equal(vapic_sil_access(&x.cpu[0], &push), VAPIC_SIL_DONE);
    push.gpa = VMX_APIC + 0x330;
    assert_int_equal(vapic_sil_access(&x.cpu[0], &push), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 44, 0x3330);
    assert_int_equal(vmx_get(&x, 0, 0x4408), 0x80000051);
    assert_int_equal(vmx_get(&x, 0, 0x440C), 0);
    assert_int_equal(vmx_get(&x, 0, 0x6820) & 0x10000, 0); /* no RF in event delivery */
    assert_int_equal(*vmx_word(&x, 0, 0x320), 0x10040);
    vmx_assert_status(&x, 0, 0, 0x51); /* delivery had happened as far as the APIC goes */

    vmx_program(&x, 0, XAPIC_FULL); /* a single push: delivery is complete before exit 56 */
    vmx_set(&x, 0, 0x0810, 0x61);
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 0x61);
    push.more = false;
    assert_int_equal(vapic_sil_access(&x.cpu[0], &push), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x330);
    assert_int_equal(vmx_get(&x, 0, 0x4408), 0);
    vmx_free(&x);
}

/* ---- Translations ---- */

/* Bits 7 and 8: the access has a linear address, and is to its translation and not by the walk. */
static void ept_violations(void **state)
{
    static const struct {
        enum vapic_sil_access_kind kind;
        bool absent;
        uint64_t qualification; /* 0: no violation */
    } cases[] = {
        {VAPIC_SIL_READ, true, 0x181},        {VAPIC_SIL_WRITE, true, 0x182},
        {VAPIC_SIL_FETCH, true, 0x184},       {VAPIC_SIL_TABLE_READ, true, 0x081},
        {VAPIC_SIL_TABLE_WRITE, true, 0x082}, {VAPIC_SIL_EVENT_WRITE, true, 0x182},
        {VAPIC_SIL_READ, false, 0},           {VAPIC_SIL_WRITE, false, 0x1AA},
        {VAPIC_SIL_TABLE_WRITE, false, 0xAA}, {VAPIC_SIL_EVENT_WRITE, false, 0x1AA},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vapic_sil_access a = vmx_access(cases[i].kind, 0x080, 4, 0);

        x.absent = cases[i].absent;
        x.read_only = !cases[i].absent;
        vmx_start(&x, 0, XAPIC_FULL);
        vapic_sil_access(&x.cpu[0], &a);
        if (!cases[i].qualification) {
            assert_no_exit(&x);
            vmx_leave(&x, 0);
            continue;
        }
        vmx_assert_exit(&x, 0, 48, cases[i].qualification);
        assert_int_equal(vmx_get(&x, 0, 0x2400), VMX_APIC + 0x080);
        assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP);
    }
    x.absent = x.read_only = false;
    vmx_start(&x, 0, XAPIC_FULL); /* and where the walk knows no page at all */
    struct vapic_sil_access a = {.gpa = 0x7FFF0000, .kind = VAPIC_SIL_READ, .size = 4, .length = 3};
    assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 48, 0x181);
    vmx_free(&x);
}

static void write_done(struct vmx *x, uint32_t offset, uint32_t value)
{
    assert_int_equal(vmx_write(x, 0, offset, value), VAPIC_SIL_DONE);
}

static uint64_t read_done(struct vmx *x, uint32_t offset)
{
    uint64_t value = 0;

    assert_int_equal(vmx_read(x, 0, offset, &value), VAPIC_SIL_DONE);
    return value;
}

/* A page that is made writable needs no flush: a violation is never taken from the cache. */
static void permission_raised(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    x.read_only = true;
    vmx_start(&x, 0, XAPIC_FULL | VPID);
    read_done(&x, 0x080);
    x.read_only = false;
    write_done(&x, 0x080, 0x20);
    assert_int_equal(x.walks, 2);
    write_done(&x, 0x080, 0x30);
    assert_int_equal(x.walks, 2);
    vmx_free(&x);
}

/* Ordinary memory: where VAA is off, where the walk leads elsewhere, where it is not the page. */
static void ordinary_memory(void **state)
{
    static const struct {
        uint32_t controls;
        uint64_t hpa;
    } cases[] = {
        {TS | ARV | VID, VMX_ACCESS},
        {XAPIC_FULL, VMX_GUEST},
        {X2APIC_FULL, VMX_ACCESS},
        {0, VMX_ACCESS},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        vapic_sil_flush(&x.cpu[0], VMX_APIC);
        x.apic_hpa = cases[i].hpa;
        vmx_start(&x, 0, cases[i].controls);
        *vmx_word(&x, 0, 0x0F0) = 0;
        write_done(&x, 0x0F0, 0x1234 + i);
        assert_no_exit(&x);
        assert_int_equal(read_done(&x, 0x0F0), 0x1234 + i);
        assert_int_equal(*(uint32_t *)(void *)(x.memory + cases[i].hpa + 0x0F0), 0x1234 + i);
        assert_int_equal(*vmx_word(&x, 0, 0x0F0), 0);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* A virtualized access never touches the memory of the APIC-access page. */
static void access_page_untouched(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    memset(x.memory + VMX_ACCESS, 0x5C, 4096);
    vmx_start(&x, 0, XAPIC_FULL);
    write_done(&x, 0x080, 0x20);
    assert_int_equal(read_done(&x, 0x080), 0x20);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(x.memory[VMX_ACCESS + i], 0x5C);
    vmx_free(&x);
}

/* With VPIDs, a translation from before VAA was set goes on as if it were not [SDM3 31.4.5]. */
static void stale_translation(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, X2APIC_FULL | VPID);
    read_done(&x, 0x080);
    vmx_leave(&x, 0);
    vmx_start(&x, 0, XAPIC_FULL | VPID);
    write_done(&x, 0x080, 0x30);
    assert_int_equal(x.memory[VMX_ACCESS + 0x080], 0x30); /* plain memory: the stale way */
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0);
    vmx_leave(&x, 0);
    vapic_sil_flush(&x.cpu[0], VMX_APIC);
    vmx_start(&x, 0, XAPIC_FULL | VPID);
    write_done(&x, 0x080, 0x40);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x40);
    vmx_leave(&x, 0);
    /* The other way round VAA=0 holds at once. */
    vmx_start(&x, 0, X2APIC_FULL | VPID);
    write_done(&x, 0x080, 0x50);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x40);
    vmx_free(&x);
}

/* Without VPIDs, VM entry drops the translations of VPID 0 [SDM3 30.4.3.1]. */
static void no_vpid_no_stale_translation(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, X2APIC_FULL);
    read_done(&x, 0x080);
    vmx_leave(&x, 0);
    vmx_start(&x, 0, XAPIC_FULL);
    write_done(&x, 0x080, 0x30);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x30);
    vmx_free(&x);
}

/* Another guest on the same processor: its VPID, or its EPTP, keeps the translations apart. */
static void tags(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, X2APIC_FULL | VPID);
    read_done(&x, 0x080);
    vmx_leave(&x, 0);
    vmx_program(&x, 1, XAPIC_FULL | VPID);
    assert_int_equal(vapic_sil_vmentry(&x.cpu[0], &x.vmcs[1]), VAPIC_SIL_DONE);
    write_done(&x, 0x080, 0x30);
    assert_int_equal(*vmx_word(&x, 1, 0x080), 0x30);
    vapic_sil_leave(&x.cpu[0], VMX_EXIT_CPUID, 0, 2);
    vmx_program(&x, 0, XAPIC_FULL | VPID);
    vmx_set(&x, 0, VMCS_EPTP, 0x5000);
    vmx_enter(&x, 0);
    write_done(&x, 0x080, 0x40);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x40);
    vmx_free(&x);
}

/* The page moved: the old translation leads to what is ordinary memory now, until it is flushed. */
static void access_page_moved(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_start(&x, 0, XAPIC_FULL | VPID);
    write_done(&x, 0x080, 0x10);
    vmx_leave(&x, 0);
    vmx_set(&x, 0, 0x2014, VMX_ACCESS + 0x1000);
    x.apic_hpa = VMX_ACCESS + 0x1000;
    vmx_enter(&x, 0);
    write_done(&x, 0x080, 0x20);
    assert_int_equal(x.memory[VMX_ACCESS + 0x080], 0x20);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x10);
    vapic_sil_flush(&x.cpu[0], VMX_APIC);
    write_done(&x, 0x080, 0x30);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x30);
    vmx_free(&x);
}

#define BOTH(name) cmocka_unit_test(read_##name), cmocka_unit_test(write_##name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(no_tpr_shadow),
        BOTH(tpr_shadow),
        BOTH(delivery_only),
        BOTH(registers_only),
        BOTH(registers_and_delivery),
        BOTH(everything),
        cmocka_unit_test(knob_eoi_icr_reads),
        cmocka_unit_test(knob_ipiv_without_vid),
        cmocka_unit_test(knob_length),
        cmocka_unit_test(sizes),
        cmocka_unit_test(wide_accesses),
        cmocka_unit_test(narrow_writes),
        cmocka_unit_test(read_modify_write),
        cmocka_unit_test(read_for_write),
        cmocka_unit_test(exits_and_blocking),
        cmocka_unit_test(repeated_write),
        cmocka_unit_test(access_after_write),
        cmocka_unit_test(ordinary_memory_last),
        cmocka_unit_test(fault_after_write),
        cmocka_unit_test(exit_after_write),
        cmocka_unit_test(fetches),
        cmocka_unit_test(page_walks),
        cmocka_unit_test(event_delivery),
        cmocka_unit_test(ept_violations),
        cmocka_unit_test(permission_raised),
        cmocka_unit_test(ordinary_memory),
        cmocka_unit_test(access_page_untouched),
        cmocka_unit_test(stale_translation),
        cmocka_unit_test(no_vpid_no_stale_translation),
        cmocka_unit_test(tags),
        cmocka_unit_test(access_page_moved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
