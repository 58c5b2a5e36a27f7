/* SPDX-License-Identifier: MIT */
/*
 * AVIC's access table: one cell per register, direction and mode. The expected outcome of each cell
 * is written here a second time, as letters, from [APM2 15.29.4] and [APM2 16.11]; the model's own
 * table is not looked at.
 *
 *      .  allowed: plain read or write of the backing page
 *      A  accelerated write (what it does is tested cell by cell below)
 *      T  trap exit 402h: value stored, RIP past the instruction
 *      F  fault exit 402h: nothing stored, RIP at the instruction
 *      G  #GP(0), nothing stored, no exit
 */
#include "silicon_fixture.h"

/* Columns: xAVIC read, xAVIC write, x2AVIC read, x2AVIC write. */
struct cells {
    uint16_t first, last;
    const char *want;
};

static const struct cells table[] = {
    {0x000, 0x010, "..GG"},                         /* reserved: memory in xAVIC */
    {0x020, 0x020, ".T.G"},                         /* ID */
    {0x030, 0x030, ".F.G"},                         /* version */
    {0x040, 0x070, "..GG"}, {0x080, 0x080, ".A.A"}, /* TPR */
    {0x090, 0x090, "FFFG"},                         /* APR */
    {0x0A0, 0x0A0, ".F.G"},                         /* PPR */
    {0x0B0, 0x0B0, ".AGA"},                         /* EOI */
    {0x0C0, 0x0C0, ".TGG"},                         /* remote read */
    {0x0D0, 0x0D0, ".T.G"},                         /* LDR */
    {0x0E0, 0x0E0, ".TGG"},                         /* DFR */
    {0x0F0, 0x0F0, ".T.T"},                         /* SVR */
    {0x100, 0x170, ".F.G"},                         /* ISR */
    {0x180, 0x1F0, ".F.G"},                         /* TMR */
    {0x200, 0x270, ".F.G"},                         /* IRR */
    {0x280, 0x280, ".T.T"},                         /* ESR */
    {0x290, 0x2F0, "..GG"},                         /* 2F0h: CMCI elsewhere */
    {0x300, 0x300, ".A.A"},                         /* ICR */
    {0x310, 0x310, "..GG"}, {0x320, 0x320, ".T.T"}, /* LVT timer */
    {0x330, 0x330, ".T.T"}, {0x340, 0x340, ".T.T"}, {0x350, 0x350, ".T.T"},
    {0x360, 0x360, ".T.T"}, {0x370, 0x370, ".T.T"}, /* LVT error */
    {0x380, 0x380, ".T.T"},                         /* initial count */
    {0x390, 0x390, "FFFG"},                         /* current count */
    {0x3A0, 0x3D0, "..GG"}, {0x3E0, 0x3E0, ".T.T"}, /* divide configuration */
    {0x3F0, 0x3F0, "..GA"},                         /* SELF_IPI */
    {0x400, 0x400, "FFFG"},                         /* extended feature */
    {0x410, 0x420, "FFFF"},                         /* extended control, specific EOI */
    {0x430, 0x470, "..GG"}, {0x480, 0x4F0, "FFFF"}, /* interrupt enable */
    {0x500, 0x530, ".T.T"},                         /* extended LVTs, with ext_lvt; else FFFF */
    {0x540, 0xFF0, "FFGG"},
};
#define ROWS (sizeof(table) / sizeof(table[0]))

enum { X1_READ, X1_WRITE, X2_READ, X2_WRITE };

#define BEFORE 0x00000010u /* in the page before; legal for each register's reserved bits */
#define VALUE  0x00000001u /* written */

/* A value that x2APIC's reserved bits allow, other than what is there. */
static uint32_t value_for(uint32_t offset)
{
    return offset == 0x0B0 || offset == 0x280 ? 0 : VALUE;
}

static char want_at(const struct cells *row, int column, bool ext_lvt)
{
    return row->first == 0x500 && !ext_lvt ? 'F' : row->want[column];
}

/* ---- One cell ---- */

struct scene {
    struct sf *sf;
    uint32_t offset;
    bool write, x2;
    uint32_t before;
    uint64_t rip; /* after a complete instruction */
    enum vapic_sil_result result;
    uint64_t got;
};

static void play(struct scene *s)
{
    struct sf *sf = s->sf;
    uint32_t value = value_for(s->offset), got = 0;

    sf_set_vmcb(sf, 0, VMCB_RIP, SF_RIP);
    sf_run(sf, 0);
    sf_set_reg(sf, 0, s->offset, s->before); /* after VMRUN: some of these are IRR or ISR */
    s->got = ~0ull;
    if (s->x2 && s->write)
        s->result = vapic_sil_wrmsr(&sf->cpu[0], 0x800 + s->offset / 16, value);
    else if (s->x2)
        s->result = vapic_sil_rdmsr(&sf->cpu[0], 0x800 + s->offset / 16, &s->got);
    else if (s->write)
        s->result = sf_write(sf, 0, s->offset, value);
    else
        s->result = sf_read(sf, 0, s->offset, &got);
    if (!s->x2)
        s->got = got;
    s->rip = SF_RIP + (s->x2 ? 2 : 3);
}

static void expect_noaccel(struct scene *s, bool trap)
{
    struct sf *sf = s->sf;

    sf_equal(s->result, VAPIC_SIL_EXIT, "%03x", s->offset);
    sf_exit(sf, 0, 0x402, s->offset | (s->write ? 1ull << 32 : 0), 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), trap ? s->rip : SF_RIP, "RIP of %03x", s->offset);
    sf_equal(sf_reg(sf, 0, s->offset), trap ? value_for(s->offset) : s->before, "%03x in the page",
             s->offset);
}

static void expect_done(struct scene *s, bool stored)
{
    struct sf *sf = s->sf;

    sf_equal(s->result, VAPIC_SIL_DONE, "%03x", s->offset);
    sf_equal(sf->cpu[0].guest.rip, s->rip, "RIP of %03x", s->offset);
    sf_equal(sf_reg(sf, 0, s->offset), stored ? value_for(s->offset) : s->before,
             "%03x in the page", s->offset);
    if (!s->write)
        sf_equal(s->got, s->before, "value of %03x", s->offset);
}

static void expect_gp(struct scene *s)
{
    sf_equal(s->result, VAPIC_SIL_GP, "%03x", s->offset);
    sf_equal(s->sf->cpu[0].guest.rip, SF_RIP, "RIP of %03x", s->offset);
    sf_equal(s->sf->cpu[0].in_guest, true, "%03x", s->offset);
    sf_equal(sf_reg(s->sf, 0, s->offset), s->before, "%03x in the page", s->offset);
}

static void expect(struct scene *s, char want)
{
    switch (want) {
    case '.':
        expect_done(s, s->write);
        break;
    case 'A': /* the value is one that leads to no exit, but for ICR and SELF_IPI: vector 1 */
        if (s->offset == 0x300 || s->offset == 0x3F0)
            sf_equal(sf_vmcb(s->sf, 0, VMCB_EXITCODE), 0x401, "%03x", s->offset);
        else
            expect_done(s, true);
        sf_equal(sf_reg(s->sf, 0, s->offset), value_for(s->offset), "%03x stored", s->offset);
        break;
    case 'T':
    case 'F':
        expect_noaccel(s, want == 'T');
        break;
    default:
        assert_int_equal(want, 'G');
        expect_gp(s);
        break;
    }
}

static void walk_table(bool ext_lvt)
{
    for (int column = 0; column < 4; column++) {
        struct vapic_sil_config config = {.x2avic = true, .ext_lvt = ext_lvt};
        uint32_t cells = 0;

        for (size_t r = 0; r < ROWS; r++) {
            for (uint32_t offset = table[r].first; offset <= table[r].last; offset += 0x10) {
                struct scene s = {.sf = sf_new(&config, column >= X2_READ),
                                  .offset = offset,
                                  .write = column == X1_WRITE || column == X2_WRITE,
                                  .x2 = column >= X2_READ,
                                  .before = BEFORE};

                play(&s);
                expect(&s, want_at(&table[r], column, ext_lvt));
                cells++;
                sf_free(s.sf);
            }
        }
        assert_int_equal(cells, 256); /* every slot of the page, every MSR of the range */
    }
}

/* [APM2 15.29.4] */
static void every_cell(void **state)
{
    (void)state;
    walk_table(true);
}

static void every_cell_without_extended_lvts(void **state)
{
    (void)state;
    walk_table(false);
}

/* ---- x2APIC's own rules, before AVIC's table [APM2 16.11] ---- */

/* Which bits of each writable MSR may be one. */
static const struct {
    uint32_t msr;
    uint64_t writable;
} msr_bits[] = {
    {0x808, 0xFF},
    {0x80B, 0},
    {0x80F, 0x3FF},
    {0x828, 0},
    {0x830, 0xFFFFFFFF000CCFFF}, /* bit 12 (busy) has a test of its own */
    {0x832, 0x310FF},            /* bit 18 would be TSC-deadline: trap 30 */
    {0x833, 0x117FF},
    {0x834, 0x117FF},
    {0x835, 0x1F7FF},
    {0x836, 0x1F7FF},
    {0x837, 0x117FF},
    {0x838, 0xFFFFFFFF},
    {0x83E, 0xB},
    {0x83F, 0xFF},
    {0x850, 0x117FF},
    {0x853, 0x117FF},
};

static void reserved_bits_of_msrs(void **state)
{
    struct vapic_sil_config config = {.x2avic = true, .ext_lvt = true};

    (void)state;
    for (size_t i = 0; i < sizeof(msr_bits) / sizeof(msr_bits[0]); i++) {
        for (int bit = 0; bit < 64; bit++) {
            struct sf *sf = sf_new(&config, true);
            uint32_t offset = (msr_bits[i].msr - 0x800) * 16;
            bool legal = msr_bits[i].writable >> bit & 1;
            enum vapic_sil_result result;

            sf_run(sf, 0);
            sf_set_reg(sf, 0, offset, 0x10);
            result = vapic_sil_wrmsr(&sf->cpu[0], msr_bits[i].msr, 1ull << bit);
            sf_equal(result == VAPIC_SIL_GP, !legal, "MSR %x bit %d", msr_bits[i].msr, bit);
            if (!legal)
                sf_equal(sf_reg(sf, 0, offset), 0x10, "MSR %x bit %d: page", msr_bits[i].msr, bit);
            sf_free(sf);
        }
    }
}

/* Trap 33: and no IPI. Trap 30, 32 are cells above. */
static void trap_33_icr_reserved_bits(void **state)
{
    static const uint8_t bits[] = {13, 16, 17, 20, 21, 25, 31};

    (void)state;
    for (size_t i = 0; i < sizeof(bits); i++) {
        struct sf *sf = sf_new(NULL, true);

        sf_set_reg(sf, 0, APIC_ICR, 0x1234);
        sf_set_reg(sf, 0, APIC_ICR2, 0x5678);
        sf_run(sf, 0);
        sf_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x830, 1ull << 32 | 1u << bits[i] | 0x40),
                 VAPIC_SIL_GP, "bit %u", bits[i]);
        sf_equal(sf_reg(sf, 0, APIC_ICR), 0x1234, "bit %u", bits[i]);
        sf_equal(sf_reg(sf, 0, APIC_ICR2), 0x5678, "bit %u", bits[i]);
        assert_false(sf_bit(sf, 1, APIC_IRR, 0x40));
        sf_free(sf);
    }
}

/* Knob x2_busy_dropped. */
static void busy_bit_of_x2avic(void **state)
{
    struct vapic_sil_config config = {.x2avic = true};

    (void)state;
    for (int dropped = 0; dropped < 2; dropped++) {
        struct sf *sf;

        config.knobs.x2_busy_dropped = dropped;
        sf = sf_new(&config, true);
        sf_run(sf, 0);
        assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x830, 1ull << 32 | 0x1040),
                         dropped ? VAPIC_SIL_DONE : VAPIC_SIL_GP);
        sf_equal(sf_reg(sf, 0, APIC_ICR), dropped ? 0x40 : 0, "ICR");
        assert_int_equal(sf_bit(sf, 1, APIC_IRR, 0x40), dropped);
        sf_free(sf);
    }
}

/* Knob avic_before_x2apic: where AVIC's table alone names an exit, it is taken. */
static void avic_table_first(void **state)
{
    static const struct {
        uint32_t msr;
        bool write;
        uint64_t value;
        char want;
    } rows[] = {
        {0x802, true, 1, 'T'},     {0x803, true, 1, 'F'},        {0x809, true, 1, 'F'},
        {0x820, true, 1, 'F'},     {0x832, true, 1u << 18, 'T'}, {0x80C, true, 1, 'T'},
        {0x840, true, 1, 'F'},     {0x8FF, false, 0, 'F'},       {0x8FF, true, 0, 'F'},
        {0x80B, false, 0, 'G'},    {0x800, false, 0, 'G'},       {0x831, true, 0, 'G'},
        {0x808, true, 0x100, 'G'},
    };
    struct vapic_sil_config config = {.x2avic = true, .knobs.avic_before_x2apic = true};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sf *sf = sf_new(&config, true);
        uint64_t value = 0, info = (rows[i].msr - 0x800) * 16u;
        enum vapic_sil_result result;

        sf_run(sf, 0);
        if (rows[i].write)
            result = vapic_sil_wrmsr(&sf->cpu[0], rows[i].msr, rows[i].value);
        else
            result = vapic_sil_rdmsr(&sf->cpu[0], rows[i].msr, &value);
        sf_equal(result, rows[i].want == 'G' ? VAPIC_SIL_GP : VAPIC_SIL_EXIT, "%x", rows[i].msr);
        if (rows[i].want != 'G') {
            sf_exit(sf, 0, 0x402, info | (rows[i].write ? 1ull << 32 : 0), 0);
            sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + (rows[i].want == 'T' ? 2 : 0), "%x",
                     rows[i].msr);
        }
        if (rows[i].want == 'T')
            sf_equal(sf_reg(sf, 0, (uint32_t)info), rows[i].value, "%x", rows[i].msr);
        sf_free(sf);
    }
}

/* Trap 36: ICR is two words of the page, 300h and 310h. */
static void icr_is_split(void **state)
{
    struct sf *sf = sf_new(NULL, true);
    uint64_t value = 0;

    (void)state;
    sf_run(sf, 0);
    sf_set_reg(sf, 0, 0x304, 0x77777777);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x830, 0x0000000200000041), VAPIC_SIL_DONE);
    sf_equal(sf_reg(sf, 0, 0x300), 0x41, "low");
    sf_equal(sf_reg(sf, 0, 0x310), 2, "high");
    sf_equal(sf_reg(sf, 0, 0x304), 0x77777777, "304h");
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x830, &value), VAPIC_SIL_DONE);
    sf_equal(value, 0x0000000200000041, "RDMSR");
    sf_free(sf);
}

/* ---- The permission map and privilege come first [APM2 15.11] ---- */

static void msr_intercept_comes_first(void **state)
{
    (void)state;
    for (uint32_t msr = 0x800; msr < 0x900; msr++) {
        for (int write = 0; write < 2; write++) {
            struct sf *sf = sf_new(NULL, true);
            uint64_t value = 0;

            sf_intercept_msr(sf, 0, msr, !write, write);
            sf_run(sf, 0);
            if (write)
                sf_equal(vapic_sil_wrmsr(&sf->cpu[0], msr, ~0ull), VAPIC_SIL_EXIT, "%x", msr);
            else
                sf_equal(vapic_sil_rdmsr(&sf->cpu[0], msr, &value), VAPIC_SIL_EXIT, "%x", msr);
            sf_exit(sf, 0, 0x7C, (uint64_t)write, 0);
            sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP, "RIP");
            sf_equal(sf_vmcb(sf, 0, VMCB_NRIP), SF_RIP + 2, "next RIP");
            sf_free(sf);
        }
    }
}

/* The other direction's bit does not matter. */
static void msr_intercept_by_direction(void **state)
{
    struct sf *sf = sf_new(NULL, true);
    uint64_t value = 0;

    (void)state;
    sf_intercept_msr(sf, 0, 0x808, false, true);
    sf_intercept_msr(sf, 0, 0x80B, true, false);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x808, &value), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x808, 0), VAPIC_SIL_EXIT);
    sf_free(sf);
}

static void user_mode_gets_gp(void **state)
{
    struct sf *sf = sf_new(NULL, true);
    uint64_t value = 0;

    (void)state;
    sf_set_vmcb32(sf, 0, VMCB_CPL - 3, 3u << 24);
    sf_intercept_msr(sf, 0, 0x808, true, true);
    sf_run(sf, 0);
    sf_equal(sf->cpu[0].guest.cpl, 3, "CPL");
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x808, &value), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x808, 0), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_read_cr8(&sf->cpu[0], &value), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 0), VAPIC_SIL_GP);
    assert_int_equal(vapic_sil_hlt(&sf->cpu[0]), VAPIC_SIL_GP);
    sf_free(sf);
}

/* Trap 22: with bit 30 clear the access reaches the host's APIC. */
static void trap_22_hole_in_the_interception(void **state)
{
    static const uint64_t modes[] = {0, VMCB_V_AVIC};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct sf *sf = sf_new(NULL, false);
        uint64_t value = 0;

        sf_int_ctl(sf, 0, modes[i], VMCB_V_AVIC);
        sf_run(sf, 0);
        assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x802, &value), VAPIC_SIL_NATIVE);
        assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x830, 0x40), VAPIC_SIL_NATIVE);
        sf_free(sf);
    }
}

/* Trap 42; and the ranges of the map. */
static void other_msrs(void **state)
{
    static const uint32_t msrs[] = {0x01B, 0x6E0, 0xC0000080, 0xC001011B};
    struct sf *sf = sf_new(NULL, true);
    uint64_t value = 0;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        sf_run(sf, 0);
        sf_equal(vapic_sil_wrmsr(&sf->cpu[0], msrs[i], 0), VAPIC_SIL_NATIVE, "%x", msrs[i]);
        sf_intercept_msr(sf, 0, msrs[i], true, true);
        sf_equal(vapic_sil_wrmsr(&sf->cpu[0], msrs[i], 0), VAPIC_SIL_EXIT, "%x", msrs[i]);
        sf_run(sf, 0);
        sf_equal(vapic_sil_rdmsr(&sf->cpu[0], msrs[i], &value), VAPIC_SIL_EXIT, "%x", msrs[i]);
    }
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x40000000, &value), VAPIC_SIL_EXIT);
    sf_set_vmcb32(sf, 0, VMCB_INTERCEPT3, 0);
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x01B, &value), VAPIC_SIL_NATIVE);
    sf_free(sf);
}

/* ---- MMIO: what is not an aligned 32-bit access ---- */

static void odd_sizes_are_memory(void **state)
{
    static const struct {
        uint32_t offset;
        uint8_t size;
    } odd[] = {{0x080, 1}, {0x080, 2}, {0x081, 1},  {0x084, 4},  {0x088, 8},  {0x080, 8},
               {0x0B0, 2}, {0x082, 4}, {0x0F0, 16}, {0x300, 64}, {0x020, 32}, {0x08F, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        struct sf *sf = sf_new(NULL, false);
        struct vapic_sil_access a = {.gpa = APIC_DEFAULT_BASE + odd[i].offset,
                                     .kind = VAPIC_SIL_WRITE,
                                     .size = odd[i].size,
                                     .length = 3,
                                     .value = 0xA1A2A3A4A5A6A7A8};
        uint64_t mask = odd[i].size < 8 ? (1ull << (8 * odd[i].size)) - 1 : ~0ull;

        sf_run(sf, 0);
        sf_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE, "%03x size %u", odd[i].offset,
                 odd[i].size);
        sf_equal(sf->cpu[0].guest.rip, SF_RIP + 3, "RIP");
        sf_equal(sf->cpu[0].svm.int_ctl & VMCB_V_TPR, 0, "V_TPR");
        a.kind = VAPIC_SIL_READ;
        a.value = 0;
        if (odd[i].size < 8) /* what lies behind is not part of it */
            sf->memory[SF_BACKING + odd[i].offset + odd[i].size] = 0x5A;
        sf_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_DONE, "read");
        sf_equal(a.value, 0xA1A2A3A4A5A6A7A8 & mask, "%03x size %u", odd[i].offset, odd[i].size);
        if (odd[i].size == 64)
            sf_equal(sf_reg(sf, 0, 0x338), 0, "beyond 8 bytes");
        sf_free(sf);
    }
}

/* Knob odd_mmio_faults. */
static void odd_sizes_fault(void **state)
{
    struct vapic_sil_config config = {.knobs.odd_mmio_faults = true};
    struct sf *sf = sf_new(&config, false);
    struct vapic_sil_access a = {
        .gpa = APIC_DEFAULT_BASE + 0x84, .kind = VAPIC_SIL_WRITE, .size = 4, .length = 3};

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 1ull << 32 | 0x80, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP, "RIP");
    sf_free(sf);
}

static void nonsense_is_refused(void **state)
{
    static const struct {
        uint64_t gpa;
        uint8_t size;
    } bad[] = {{SF_RAM, 0}, {SF_RAM, 3}, {SF_RAM, 128}, {SF_RAM + 0xFFF, 2}, {SF_RAM + 0xFC1, 64}};
    struct sf *sf = sf_new(NULL, false);
    uint64_t value = 0;

    (void)state;
    for (int in_guest = 0; in_guest < 2; in_guest++) {
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            struct vapic_sil_access a = {.gpa = bad[i].gpa, .size = bad[i].size};

            assert_int_equal(vapic_sil_access(&sf->cpu[0], &a), VAPIC_SIL_INVALID);
        }
        if (!in_guest) {
            assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x802, &value), VAPIC_SIL_INVALID);
            assert_int_equal(vapic_sil_wrmsr(&sf->cpu[0], 0x808, 0), VAPIC_SIL_INVALID);
            assert_int_equal(vapic_sil_read_cr8(&sf->cpu[0], &value), VAPIC_SIL_INVALID);
            assert_int_equal(vapic_sil_write_cr8(&sf->cpu[0], 0), VAPIC_SIL_INVALID);
            assert_int_equal(vapic_sil_hlt(&sf->cpu[0]), VAPIC_SIL_INVALID);
            assert_int_equal(sf_take(sf, 0), -2);
            assert_false(vapic_sil_waiting(&sf->cpu[0]));
            sf_run(sf, 0);
        }
    }
    assert_int_equal(vapic_sil_hlt(&sf->cpu[0]), VAPIC_SIL_DONE); /* halted: nothing executes */
    assert_int_equal(vapic_sil_rdmsr(&sf->cpu[0], 0x802, &value), VAPIC_SIL_INVALID);
    sf_free(sf);
}

/* ---- Instructions with several accesses ---- */

static enum vapic_sil_result part(struct sf *sf, uint64_t gpa, enum vapic_sil_access_kind kind,
                                  uint32_t value, bool more)
{
    struct vapic_sil_access a = {
        .gpa = gpa, .kind = kind, .size = 4, .length = 5, .more = more, .value = value};

    return vapic_sil_access(&sf->cpu[0], &a);
}

static void effects_wait_for_the_last_access(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(part(sf, APIC_DEFAULT_BASE + 0x80, VAPIC_SIL_WRITE, 0x55, true),
                     VAPIC_SIL_DONE);
    sf_equal(sf->cpu[0].guest.rip, SF_RIP, "RIP");
    sf_equal(sf->cpu[0].svm.int_ctl & VMCB_V_TPR, 0, "V_TPR before");
    assert_int_equal(part(sf, SF_RAM, VAPIC_SIL_WRITE, 1, false), VAPIC_SIL_DONE);
    sf_equal(sf->cpu[0].guest.rip, SF_RIP + 5, "RIP");
    sf_equal(sf->cpu[0].svm.int_ctl & VMCB_V_TPR, 5, "V_TPR after");

    assert_int_equal(part(sf, APIC_DEFAULT_BASE + 0xF0, VAPIC_SIL_WRITE, 0x1FF, true),
                     VAPIC_SIL_DONE);
    assert_int_equal(part(sf, SF_RAM + 4, VAPIC_SIL_READ, 0, false), VAPIC_SIL_EXIT);
    sf_exit(sf, 0, 0x402, 1ull << 32 | 0xF0, 0);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + 10, "RIP");
    sf_free(sf);
}

/* An instruction that exits half-way leaves no effect for a later one. */
static void effects_end_with_the_instruction(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(part(sf, APIC_DEFAULT_BASE + 0x80, VAPIC_SIL_WRITE, 0x55, true),
                     VAPIC_SIL_DONE);
    assert_int_equal(part(sf, 0x5000, VAPIC_SIL_WRITE, 0, false), VAPIC_SIL_EXIT);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP, "RIP");
    sf_run(sf, 0);
    assert_int_equal(part(sf, SF_RAM, VAPIC_SIL_WRITE, 0, false), VAPIC_SIL_DONE);
    sf_equal(sf->cpu[0].svm.int_ctl & VMCB_V_TPR, 0, "V_TPR");
    sf_free(sf);
}

/* The read of a read-modify-write faults: the instruction has done nothing. */
static void read_modify_write(void **state)
{
    struct sf *sf = sf_new(NULL, false);

    (void)state;
    sf_run(sf, 0);
    assert_int_equal(part(sf, APIC_DEFAULT_BASE + 0x80, VAPIC_SIL_READ, 0, true), VAPIC_SIL_DONE);
    assert_int_equal(part(sf, APIC_DEFAULT_BASE + 0x80, VAPIC_SIL_WRITE, 0x20, false),
                     VAPIC_SIL_DONE);
    sf_equal(sf->cpu[0].guest.rip, SF_RIP + 5, "RIP");
    assert_int_equal(part(sf, APIC_DEFAULT_BASE + 0x390, VAPIC_SIL_READ, 0, true), VAPIC_SIL_EXIT);
    sf_equal(sf_vmcb(sf, 0, VMCB_RIP), SF_RIP + 5, "RIP at the instruction");
    sf_free(sf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell),
        cmocka_unit_test(every_cell_without_extended_lvts),
        cmocka_unit_test(reserved_bits_of_msrs),
        cmocka_unit_test(trap_33_icr_reserved_bits),
        cmocka_unit_test(busy_bit_of_x2avic),
        cmocka_unit_test(avic_table_first),
        cmocka_unit_test(icr_is_split),
        cmocka_unit_test(msr_intercept_comes_first),
        cmocka_unit_test(msr_intercept_by_direction),
        cmocka_unit_test(user_mode_gets_gp),
        cmocka_unit_test(trap_22_hole_in_the_interception),
        cmocka_unit_test(other_msrs),
        cmocka_unit_test(odd_sizes_are_memory),
        cmocka_unit_test(odd_sizes_fault),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(effects_wait_for_the_last_access),
        cmocka_unit_test(effects_end_with_the_instruction),
        cmocka_unit_test(read_modify_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
