/* SPDX-License-Identifier: MIT */
/*
 * What implementers of hypervisors fall into, one test each, and the combinations of controls that
 * a hypervisor's own test suite would go through; each against the model as a whole [SDM3 31].
 */
#include "silicon_vmx.h"

static void start(struct vmx *x, uint32_t controls, unsigned status)
{
    vmx_program(x, 0, controls);
    vmx_set(x, 0, 0x0810, status);
    vmx_set(x, 0, 0x401C, 0);
    vmx_set(x, 0, 0x4826, 0);
    vmx_enter(x, 0);
}

static void clear_page(struct vmx *x)
{
    memset(vmx_word(x, 0, 0), 0, 4096);
}

/* PPR is not readable by MMIO, by MSR it is. */
static void ppr_mmio_and_msr(void **state)
{
    uint64_t value;
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, VAA | TS | ARV, 0);
    assert_int_equal(vmx_read(&x, 0, 0x0A0, &value), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 44, 0x0A0);
    *vmx_word(&x, 0, 0x080) = 0x40;
    start(&x, X2APIC_FULL, 0);
    assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], 0x80A, &value), VAPIC_SIL_DONE);
    assert_int_equal(value, 0x40);
    vmx_free(&x);
}

/* A byte written beside TPR changes the page and nothing else. */
static void byte_beside_tpr(void **state)
{
    struct vapic_sil_access a = vmx_access(VAPIC_SIL_WRITE, 0x081, 1, 0x99);
    struct vmx x;

    (void)state;
    vmx_new(&x);
    *vmx_word(&x, 0, 0x080) = 0x50;
    start(&x, XAPIC_FULL, 0x41);
    assert_int_equal(vapic_sil_access(&x.cpu[0], &a), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x081);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0x9950);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x50);
    vmx_free(&x);
}

/* The EOI in three sets of controls. */
static void eoi_three_ways(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, VAA | TS, 0);
    assert_int_equal(vmx_write(&x, 0, 0x0B0, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 44, 0x10B0);
    assert_int_equal(vmx_get(&x, 0, 0x440C), 6);
    assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP);

    vmx_set_vector(&x, 0, APIC_ISR, 0x51);
    start(&x, VAA | TS | ARV, 0x5100);
    assert_int_equal(vmx_write(&x, 0, 0x0B0, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x0B0);
    assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + 6);
    vmx_assert_status(&x, 0, 0, 0x51);
    assert_true(vmx_in_set(&x, 0, APIC_ISR, 0x51));

    start(&x, VAA | TS | VID, 0x5100);
    assert_int_equal(vmx_write(&x, 0, 0x0B0, 0), VAPIC_SIL_DONE);
    vmx_leave(&x, 0);
    vmx_assert_status(&x, 0, 0, 0);
    assert_false(vmx_in_set(&x, 0, APIC_ISR, 0x51));
    vmx_free(&x);
}

/* 310h keeps its upper byte and tells nobody. */
static void icr_high(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, XAPIC_FULL, 0);
    assert_int_equal(vmx_write(&x, 0, 0x310, 0xABCDEF01), VAPIC_SIL_DONE);
    assert_int_equal(*vmx_word(&x, 0, 0x310), 0xAB000000);
    vmx_free(&x);
}

/* RVI alone is enough; after the EOI nothing is left of it. */
static void rvi_without_irr(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, XAPIC_FULL, 0x60);
    vmx_assert_delivers(&x, 0, 0x60);
    assert_true(vmx_in_set(&x, 0, APIC_ISR, 0x60));
    assert_int_equal(x.cpu[0].rvi, 0);
    assert_int_equal(vmx_write(&x, 0, 0x0B0, 0), VAPIC_SIL_DONE);
    vmx_leave(&x, 0);
    vmx_assert_status(&x, 0, 0, 0);
    vmx_free(&x);
}

/* Equal classes: not recognized, until CR8 is lowered. */
static void equal_classes(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned tpr = 0x30; tpr <= 0x3F; tpr++) {
        clear_page(&x);
        *vmx_word(&x, 0, 0x080) = tpr;
        start(&x, XAPIC_FULL, 0x31);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], 2), VAPIC_SIL_DONE);
        vmx_assert_delivers(&x, 0, 0x31);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* The low nibble of PPR: TPR's, if TPR wins; else 0. */
static void ppr_low_nibble(void **state)
{
    static const struct {
        unsigned tpr, svi, ppr;
    } cases[] = {{0x35, 0x00, 0x35}, {0x20, 0x35, 0x30}, {0x3F, 0x35, 0x3F}, {0x30, 0x3F, 0x30}};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 4; i++) {
        *vmx_word(&x, 0, 0x080) = cases[i].tpr;
        start(&x, XAPIC_FULL, cases[i].svi << 8);
        assert_int_equal(*vmx_word(&x, 0, 0x0A0), cases[i].ppr);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* MSR writes that are #GP change nothing. */
static void faulting_writes(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set_vector(&x, 0, APIC_ISR, 0x51);
    start(&x, X2APIC_FULL, 0x5100);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 1), VAPIC_SIL_GP);
    assert_int_equal(x.cpu[0].svi, 0x51);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x808, 0x100), VAPIC_SIL_GP);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0);
    vmx_free(&x);
}

/* Reads that real x2APICs refuse: the page answers, also what is in the slots' upper halves. */
static void reads_of_anything(void **state)
{
    static const uint32_t msrs[] = {0x800, 0x80B, 0x83F, 0x8FF};
    uint64_t value;
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 4; i++) {
        *vmx_word(&x, 0, (msrs[i] & 0xFF) << 4) = 0x1000 + i;
        *vmx_word(&x, 0, ((msrs[i] & 0xFF) << 4) + 4) = 0xBAD;
    }
    start(&x, TS | VX2 | ARV | BITMAPS, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], msrs[i], &value), VAPIC_SIL_DONE);
        assert_int_equal(value, UINT64_C(0xBAD00001000) + i);
    }
    vmx_free(&x);
}

/* Without primary bit 31 nothing of it is there, and nothing of it is checked. */
static void no_secondary_controls(void **state)
{
    uint64_t value = 0;
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, VAA | VX2 | ARV | VID | NO_EIE | NO_SEC | BITMAPS);
    vmx_enter(&x, 0);
    assert_int_equal(vmx_write(&x, 0, 0x080, 0x1234567), VAPIC_SIL_DONE);
    assert_int_equal(vmx_read(&x, 0, 0x080, &value), VAPIC_SIL_DONE);
    assert_int_equal(value, 0x1234567);
    assert_int_equal(*vmx_word(&x, 0, 0x080), 0);
    assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], 0x808, &value), VAPIC_SIL_NATIVE);
    vmx_free(&x);
}

/* EOI-exit bits and a second interrupt: seen through the whole of two deliveries. */
static void exit_45_first(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set(&x, 0, 0x201E, UINT64_C(1) << 0x21);
    vmx_set_vector(&x, 0, APIC_IRR, 0x35);
    start(&x, X2APIC_FULL, 0x61);
    vmx_assert_delivers(&x, 0, 0x61);
    x.cpu[0].guest.interrupt_flag = true;
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 45, 0x61);
    vmx_assert_status(&x, 0, 0x35, 0);
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 0x35);
    vmx_free(&x);
}

/* The guest empties IRR and SVI behind the processor's back: RVI still has it. */
static void stores_behind_the_back(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_set_vector(&x, 0, APIC_IRR, 0x61);
    start(&x, XAPIC_FULL, 0x61);
    x.cpu[0].guest.interrupt_flag = false;
    struct vapic_sil_access store = {.gpa = VMX_PAGE + APIC_IRR + 0x30,
                                     .kind = VAPIC_SIL_WRITE,
                                     .size = 4,
                                     .length = 3,
                                     .value = 0};
    assert_int_equal(vapic_sil_access(&x.cpu[0], &store), VAPIC_SIL_DONE);
    assert_false(vmx_in_set(&x, 0, APIC_IRR, 0x61));
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_delivers(&x, 0, 0x61);
    vmx_free(&x);
}

/* Software's harvest: PIR before ON loses what comes in between; ON before PIR does not. The poster
 * comes at the worst moment. */
static unsigned notified_after_harvest(struct vmx *x, bool on_first)
{
    uint64_t *pid = vmx_pid(x, 1);

    vmx_program(x, 0, X2APIC_FULL | IPIV);
    vmx_enter(x, 0);
    pid[1] = 0;
    pid[4] |= PID_ON;
    if (on_first)
        pid[4] &= ~(uint64_t)PID_ON;
    else
        pid[1] = 0; /* the harvest: nothing there yet */
    assert_int_equal(vapic_sil_wrmsr(&x->cpu[0], 0x830, 0x100000051), VAPIC_SIL_DONE);
    if (on_first)
        pid[1] = 0; /* the harvest takes the vector along */
    else
        pid[4] &= ~(uint64_t)PID_ON;
    vmx_leave(x, 0);
    /* Safe: PIR is empty, or somebody knows that it is not. */
    return pid[1] == 0 || vapic_sil_take_interrupt(&x->cpu[1]) == VMX_NV;
}

static void harvest_order(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    assert_true(notified_after_harvest(&x, true));
    assert_int_equal(vapic_sil_take_interrupt(&x.cpu[1]), VMX_NV);
    assert_false(notified_after_harvest(&x, false)); /* the mistake is visible here */
    vmx_free(&x);
}

/* SN is set: a device fills PIR and leaves ON as it is; loading has to look at PIR. */
static void preempted_and_posted(void **state)
{
    uint64_t pid = VMX_PID + PID_SIZE;
    _Alignas(16) uint64_t irte[2] = {1 | 1u << 15 | 0x51u << 16 | pid >> 6 << 38, 0};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_pid(&x, 1)[4] |= PID_SN;
    assert_int_equal(vapic_sil_vtd_msi(&x.m, irte, 0), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(vmx_pid(&x, 1)[4] & PID_ON, 0);
    assert_int_equal(vmx_pid(&x, 1)[1], UINT64_C(1) << 0x11);
    vmx_pid(&x, 1)[4] &= ~(uint64_t)PID_SN;
    vmx_start(&x, 1, XAPIC_FULL);
    vmx_assert_boundary(&x, 1, VAPIC_SIL_NOTHING); /* asleep in PIR */
    assert_int_equal(vapic_sil_vtd_msi(&x.m, irte, 0), VAPIC_SIL_MSI_POSTED);
    vmx_assert_delivers(&x, 1, 0x51);
    vmx_free(&x);
}

/* A vector posted between the last look and the change to the wake-up vector: ON in the value that
 * the change saw. */
static void blocked_and_posted(void **state)
{
    uint64_t *control;
    uint64_t seen;
    struct vmx x;

    (void)state;
    vmx_new(&x);
    control = &vmx_pid(&x, 1)[4];
    vmx_start(&x, 0, X2APIC_FULL | IPIV);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_DONE);
    seen = *control;
    assert_true(
        vapic_cas64(control, &seen, (seen & ~PID_NV_MASK) | UINT64_C(0xE1) << 16, VAPIC_SEQ_CST));
    assert_int_equal(seen & PID_ON, PID_ON);
    assert_int_equal(vapic_sil_take_interrupt(&x.cpu[1]), VMX_NV);
    /* And after it: the wake-up vector is sent. */
    *control &= ~(uint64_t)PID_ON;
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000061), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_take_interrupt(&x.cpu[1]), 0xE1);
    vmx_free(&x);
}

/* A write to a register that has side effects: the value is in the page when the exit comes. */
static void id_register(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    *vmx_word(&x, 0, 0x020) = 0x03000000;
    start(&x, XAPIC_FULL, 0);
    assert_int_equal(vmx_write(&x, 0, 0x020, 0x07000000), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x020);
    assert_int_equal(*vmx_word(&x, 0, 0x020), 0x07000000);
    vmx_free(&x);
}

/* ICR writes that exit have happened: the RIP is past them. */
static void icr_exits_are_complete(void **state)
{
    static const uint32_t icrs[] = {0x00040051, 0x00000451, 0x00000851, 0x00001051};
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < 4; i++) {
        start(&x, X2APIC_FULL | IPIV, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, UINT64_C(7) << 32 | icrs[i]),
                         VAPIC_SIL_EXIT);
        vmx_assert_exit(&x, 0, 56, 0x300);
        assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + 2);
        assert_int_equal(*vmx_word(&x, 0, 0x300), icrs[i]);
        assert_int_equal(*vmx_word(&x, 0, 0x304), 7);
        assert_int_equal(*vmx_word(&x, 0, 0x310), 0);
    }
    vmx_free(&x);
}

/* ---- Two VMCSs on one processor ---- */

/* A second VMCS, as of a nested guest, has its own page, its own status, its own notification
 * vector; a notification for the other one is an exit, and nothing of it is touched. */
static void two_vmcs(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, XAPIC_FULL, 0x41);
    x.cpu[0].guest.interrupt_flag = false;
    vmx_leave(&x, 0);
    vmx_assert_status(&x, 0, 0x41, 0);

    vmx_program(&x, 1, X2APIC_FULL);
    vmx_set(&x, 1, 0x0002, 0xF0);
    assert_int_equal(vapic_sil_vmentry(&x.cpu[0], &x.vmcs[1]), VAPIC_SIL_DONE);
    assert_int_equal(x.cpu[0].rvi, 0);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    vmx_pid(&x, 1)[1] = UINT64_C(1) << 0x11;
    vapic_sil_interrupt(&x.m, vmx_host_id(0), 0xF0);
    vmx_assert_delivers(&x, 0, 0x51);
    assert_true(vmx_in_set(&x, 1, APIC_ISR, 0x51));
    assert_false(vmx_in_set(&x, 0, APIC_ISR, 0x51));
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    assert_int_equal(vmx_get(&x, 1, 0x4404), 0x80000000 | VMX_NV);
    vmx_assert_status(&x, 1, 0, 0x51);
    vmx_assert_status(&x, 0, 0x41, 0);

    vmx_set(&x, 0, 0x6820, 0x202);
    vmx_enter(&x, 0);
    vmx_assert_delivers(&x, 0, 0x41);
    vmx_free(&x);
}

/* ---- Combinations of controls ---- */

enum expected { RAM, ACCESS_EXIT, TPR_ONLY, REGISTERS, ENTRY_FAILS };

static const struct {
    uint32_t controls;
    enum expected expected;
} matrix[] = {
    {VAA, ACCESS_EXIT},
    {VAA | TS, TPR_ONLY},
    {VAA | TS | ARV, REGISTERS},
    {VAA | ARV | VX2 | NO_SEC, RAM},
    {VAA | TS | ARV | VX2 | NO_SEC, RAM},
    {TS | ARV | VX2, RAM},
    {VAA | ARV, ENTRY_FAILS},
    {VX2, ENTRY_FAILS},
    {ARV | VX2, ENTRY_FAILS},
    {VAA | TS | VX2, ENTRY_FAILS},
    {VAA | TS | ARV | VX2, ENTRY_FAILS},
};

/* Registers that are virtualized with ARV: r readable, w writable; by slot 00h to 3Fh. */
static const char readable[] = "..rr....r..r.rrrrrrrrrrrrrrrrrrrrrrrrrrrr.......rrrrrrrrr.....r.";
static const char writable[] = "..w.....w..w.www........................w.......wwwwwwwww.....w.";

/* What a slot's access must give: 0 done, 44, or 56. */
static unsigned exit_of(enum expected expected, unsigned slot, bool write)
{
    switch (expected) {
    case ACCESS_EXIT:
        return 44;
    case TPR_ONLY:
        return slot == 8 ? 0 : 44;
    case REGISTERS:
        if (!write)
            return readable[slot] == 'r' ? 0 : 44;
        if (writable[slot] != 'w')
            return 44;
        return slot == 8 || slot == 0x31 ? 0 : 56;
    default:
        return 0;
    }
}

static void matrix_slot(struct vmx *x, unsigned row, unsigned slot)
{
    for (unsigned write = 0; write < 2; write++) {
        unsigned reason = exit_of(matrix[row].expected, slot, write);
        uint64_t value = 0;
        enum vapic_sil_result result;

        start(x, matrix[row].controls, 0);
        if (write)
            result = vmx_write(x, 0, slot << 4, 0xFF00FF0F);
        else
            result = vmx_read(x, 0, slot << 4, &value);
        assert_int_equal(result, reason ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
        if (reason == 44)
            vmx_assert_exit(x, 0, 44, (uint64_t)write << 12 | slot << 4);
        else if (reason == 56)
            vmx_assert_exit(x, 0, 56, slot << 4);
        else
            vmx_leave(x, 0);
        if (reason == 56)
            assert_int_equal(*vmx_word(x, 0, slot << 4), 0xFF00FF0F);
    }
}

static void mmio_matrix(void **state)
{
    struct vmx x;

    (void)state;
    assert_int_equal(sizeof(readable), 65);
    assert_int_equal(sizeof(writable), 65);
    vmx_new(&x);
    for (unsigned row = 0; row < sizeof(matrix) / sizeof(matrix[0]); row++) {
        if (matrix[row].expected == ENTRY_FAILS) {
            vmx_program(&x, 0, matrix[row].controls);
            assert_int_equal(vapic_sil_vmentry(&x.cpu[0], &x.vmcs[0]), VAPIC_SIL_INVALID);
            assert_int_equal(vmx_get(&x, 0, 0x4400), 7);
            continue;
        }
        for (unsigned slot = 0; slot < 64; slot++)
            matrix_slot(&x, row, slot);
    }
    vmx_free(&x);
}

/* The MSRs: which reads the page answers, which of the three special writes are special. */
static void msr_matrix(void **state)
{
    static const struct {
        uint32_t controls;
        bool reads, tpr, vid;
    } rows[] = {
        {TS | VX2 | ARV | VID | BITMAPS, true, true, true},
        {TS | VX2 | ARV | BITMAPS, true, true, false},
        {TS | VX2 | VID | BITMAPS, false, true, true},
        {TS | VX2 | ARV | VID | BITMAPS | NO_SEC, false, false, false},
        {TS | ARV | VID | BITMAPS, false, false, false},
    };
    uint64_t value;
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        clear_page(&x);
        start(&x, rows[i].controls, 0);
        for (uint32_t msr = 0x800; msr <= 0x8FF; msr++)
            assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], msr, &value),
                             rows[i].reads || (rows[i].tpr && msr == 0x808) ? VAPIC_SIL_DONE
                                                                            : VAPIC_SIL_NATIVE);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x808, 0x10),
                         rows[i].tpr ? VAPIC_SIL_DONE : VAPIC_SIL_NATIVE);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0),
                         rows[i].vid ? VAPIC_SIL_DONE : VAPIC_SIL_NATIVE);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80F, 0x1FF), VAPIC_SIL_NATIVE);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x83F, 0),
                         rows[i].vid ? VAPIC_SIL_EXIT : VAPIC_SIL_NATIVE);
        if (rows[i].vid)
            vmx_assert_exit(&x, 0, 56, 0x3F0);
        else
            vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

/* Every vector sent to itself is delivered once. */
static void vid_self_ipis(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, TS | VX2 | VID | BITMAPS, 0);
    for (unsigned vector = 0x21; vector < 256; vector++) {
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x83F, vector), VAPIC_SIL_DONE);
        vmx_assert_delivers(&x, 0, vector);
        x.cpu[0].guest.interrupt_flag = true;
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    }
    vmx_leave(&x, 0);
    vmx_assert_status(&x, 0, 0, 0);
    vmx_free(&x);
}

/* RVI and a lower one in IRR: two deliveries, both bits clear after. */
static void vid_two_pending(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned high = 0x31; high < 256; high += 16) {
        for (unsigned low = 0x21; low < high; low += 16) {
            clear_page(&x);
            vmx_set_vector(&x, 0, APIC_IRR, (uint8_t)low);
            vmx_set_vector(&x, 0, APIC_IRR, (uint8_t)high);
            start(&x, TS | VX2 | VID | BITMAPS, high);
            vmx_assert_delivers(&x, 0, high);
            x.cpu[0].guest.interrupt_flag = true;
            vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
            assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
            vmx_assert_delivers(&x, 0, low);
            assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x80B, 0), VAPIC_SIL_DONE);
            vmx_leave(&x, 0);
            vmx_assert_status(&x, 0, 0, 0);
            assert_false(vmx_in_set(&x, 0, APIC_IRR, (uint8_t)low));
            assert_false(vmx_in_set(&x, 0, APIC_IRR, (uint8_t)high));
        }
    }
    vmx_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ppr_mmio_and_msr),
        cmocka_unit_test(byte_beside_tpr),
        cmocka_unit_test(eoi_three_ways),
        cmocka_unit_test(icr_high),
        cmocka_unit_test(rvi_without_irr),
        cmocka_unit_test(equal_classes),
        cmocka_unit_test(ppr_low_nibble),
        cmocka_unit_test(faulting_writes),
        cmocka_unit_test(reads_of_anything),
        cmocka_unit_test(no_secondary_controls),
        cmocka_unit_test(exit_45_first),
        cmocka_unit_test(stores_behind_the_back),
        cmocka_unit_test(harvest_order),
        cmocka_unit_test(preempted_and_posted),
        cmocka_unit_test(blocked_and_posted),
        cmocka_unit_test(id_register),
        cmocka_unit_test(icr_exits_are_complete),
        cmocka_unit_test(two_vmcs),
        cmocka_unit_test(mmio_matrix),
        cmocka_unit_test(msr_matrix),
        cmocka_unit_test(vid_self_ipis),
        cmocka_unit_test(vid_two_pending),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
