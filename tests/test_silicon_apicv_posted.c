/* SPDX-License-Identifier: MIT */
/*
 * Posted-interrupt processing and IPI virtualization: the descriptor's bits, who gets a
 * notification, which IPIs are virtualized and which exit [SDM3 31.6] [SDM3 31.1.6].
 */
#include "silicon_vmx.h"

static void pir_set(struct vmx *x, unsigned n, unsigned vector)
{
    vmx_pid(x, n)[vector / 64] |= UINT64_C(1) << vector % 64;
}

static bool pir_has(struct vmx *x, unsigned n, unsigned vector)
{
    return vmx_pid(x, n)[vector / 64] >> vector % 64 & 1;
}

static bool pir_empty(struct vmx *x, unsigned n)
{
    const uint64_t *pid = vmx_pid(x, n);

    return !(pid[0] | pid[1] | pid[2] | pid[3]);
}

static void start(struct vmx *x, unsigned n, uint32_t controls, unsigned rvi)
{
    vmx_program(x, n, controls);
    vmx_set(x, n, 0x0810, rvi);
    vmx_set(x, n, 0x4826, 0);
    vmx_enter(x, n);
}

/* ---- Processing ---- */

/* All TPR classes against posted vectors, running and halted: delivered, or moved to IRR. */
static void process_against_tpr(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned vector = 16; vector < 256; vector += 7) {
        for (unsigned i = 0; i < 32; i++) {
            unsigned tpr = i >> 1;
            bool halted = i & 1, delivers = vector >> 4 > tpr;

            memset(vmx_word(&x, 0, 0), 0, 4096);
            *vmx_word(&x, 0, 0x080) = tpr << 4;
            start(&x, 0, XAPIC_FULL, 0);
            if (halted)
                assert_int_equal(vapic_sil_hlt(&x.cpu[0]), VAPIC_SIL_DONE);
            pir_set(&x, 0, vector);
            vmx_pid(&x, 0)[4] |= PID_ON;
            vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
            if (delivers)
                vmx_assert_delivers(&x, 0, vector);
            vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
            assert_int_equal(x.cpu[0].guest.halted, halted && !delivers);
            assert_true(pir_empty(&x, 0));
            assert_int_equal(vmx_pid(&x, 0)[4] & PID_ON, 0);
            assert_int_equal(vmx_in_set(&x, 0, APIC_IRR, (uint8_t)vector), !delivers);
            vmx_leave(&x, 0);
            vmx_assert_status(&x, 0, delivers ? 0 : vector, delivers ? vector : 0);
            assert_int_equal(vapic_sil_take_interrupt(&x.cpu[0]), -1); /* ended in the host */
        }
    }
    vmx_free(&x);
}

/* Every bit of PIR reaches its bit of IRR, and no other; RVI is the top. */
static void harvest_is_complete(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    *vmx_word(&x, 0, 0x080) = 0xF0;
    start(&x, 0, XAPIC_FULL, 0);
    for (unsigned i = 0; i < 4; i++)
        vmx_pid(&x, 0)[i] = UINT64_C(0x0123456789ABCDEF) * (i + 1);
    vmx_set_vector(&x, 0, APIC_IRR, 0x22);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t word = UINT64_C(0x0123456789ABCDEF) * (vector / 64 + 1);
        bool posted = word >> vector % 64 & 1;

        assert_int_equal(vmx_in_set(&x, 0, APIC_IRR, (uint8_t)vector), posted || vector == 0x22);
    }
    assert_int_equal(x.cpu[0].rvi, 192 + 58); /* 4 * 0123456789ABCDEFh has bit 58 on top */
    assert_true(pir_empty(&x, 0));
    vmx_free(&x);
}

/* Only ON is cleared; RVI is not lowered; bytes 40 to 63 are software's. */
static void other_bits_survive(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    *vmx_word(&x, 0, 0x080) = 0xF0;
    start(&x, 0, XAPIC_FULL, 0x91);
    pir_set(&x, 0, 0x31);
    vmx_pid(&x, 0)[4] = UINT64_C(0x123456AB00F3FFFF);
    for (unsigned i = 5; i < 8; i++)
        vmx_pid(&x, 0)[i] = i;
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV); /* the VMCS counts, not NV */
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_int_equal(vmx_pid(&x, 0)[4], UINT64_C(0x123456AB00F3FFFE));
    for (unsigned i = 5; i < 8; i++)
        assert_int_equal(vmx_pid(&x, 0)[i], i);
    assert_int_equal(x.cpu[0].rvi, 0x91);
    vmx_free(&x);
}

/* A notification with nothing to tell is consumed; it makes an evaluation. */
static void empty_notification(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, XAPIC_FULL, 0x41);
    x.cpu[0].guest.interrupt_flag = false;
    *vmx_word(&x, 0, 0x0A0) = 0x90; /* by software: the evaluation takes it as it is */
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    assert_true(x.cpu[0].recognized);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_false(x.cpu[0].recognized);
    assert_int_equal(*vmx_word(&x, 0, 0x0A0), 0x90);
    vmx_leave(&x, 0);
    assert_int_equal(vapic_sil_take_interrupt(&x.cpu[0]), -1);
    vmx_free(&x);
}

/* IF does not gate the processing. Whether STI and MOV SS do is up to the processor: a knob. */
static void processing_is_not_blocked(void **state)
{
    for (unsigned on = 0; on < 2; on++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL,
                                          .knobs = {.shadow_gates_notification = on}};
        struct vmx x;

        vmx_new_with(&x, &config);
        start(&x, 0, XAPIC_FULL, 0);
        x.cpu[0].guest.interrupt_flag = false;
        pir_set(&x, 0, 0x41);
        vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        assert_true(vmx_in_set(&x, 0, APIC_IRR, 0x41));

        x.cpu[0].guest.shadow = true;
        pir_set(&x, 0, 0x51);
        vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        assert_int_equal(vmx_in_set(&x, 0, APIC_IRR, 0x51), !on);
        x.cpu[0].guest.shadow = false;
        vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
        assert_true(vmx_in_set(&x, 0, APIC_IRR, 0x51));
        vmx_free(&x);
    }
    (void)state;
}

/* While the interrupt window is watched for, processing goes on and nothing is recognized. */
static void processing_under_interrupt_window(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, XAPIC_FULL | IWE, 0);
    x.cpu[0].guest.interrupt_flag = false;
    pir_set(&x, 0, 0x41);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_true(vmx_in_set(&x, 0, APIC_IRR, 0x41));
    assert_false(x.cpu[0].recognized);
    x.cpu[0].guest.interrupt_flag = true;
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 7, 0);
    vmx_assert_status(&x, 0, 0x41, 0);
    vmx_free(&x);
}

/* Another vector, and the notification vector in host mode, are interrupts like any other. */
static void not_a_notification(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, XAPIC_FULL, 0);
    pir_set(&x, 0, 0x41);
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV - 1);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 1, 0);
    assert_int_equal(vmx_get(&x, 0, 0x4404), 0x80000000 | (VMX_NV - 1));
    assert_true(pir_has(&x, 0, 0x41));

    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    assert_int_equal(vapic_sil_take_interrupt(&x.cpu[0]), VMX_NV);
    assert_true(pir_has(&x, 0, 0x41));
    start(&x, 0, XAPIC_FULL, 0); /* VM entry does not look at PIR */
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_true(pir_has(&x, 0, 0x41));
    vmx_leave(&x, 0);

    start(&x, 0, XAPIC_FULL & ~PPI, 0); /* not enabled: an exit */
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_EXIT);
    assert_true(pir_has(&x, 0, 0x41));
    vmx_free(&x);
}

/* Any vector from 0 to 255 can be the notification vector. */
static void notification_vectors(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned nv = 0; nv < 256; nv++) {
        memset(vmx_word(&x, 0, 0), 0, 4096);
        vmx_program(&x, 0, XAPIC_FULL);
        vmx_set(&x, 0, 0x0810, 0);
        vmx_set(&x, 0, 0x0002, nv);
        vmx_enter(&x, 0);
        pir_set(&x, 0, 0x41);
        vapic_sil_interrupt(&x.m, vmx_host_id(0), (uint8_t)nv);
        vmx_assert_delivers(&x, 0, 0x41);
        vmx_leave(&x, 0);
    }
    vmx_free(&x);
}

static void repost(struct vmx *x, enum vapic_sil_point point)
{
    if (point != VAPIC_SIL_POINT_CLEARED)
        return;
    pir_set(x, 0, 0x51);
    vmx_pid(x, 0)[4] |= PID_ON;
    vapic_sil_interrupt(&x->m, vmx_host_id(0), VMX_NV);
}

/* A storm: every processing finds a new notification. The boundary comes to an end. */
static void notifications_without_end(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    *vmx_word(&x, 0, 0x080) = 0xF0;
    start(&x, 0, XAPIC_FULL, 0);
    x.on_point = repost;
    repost(&x, VAPIC_SIL_POINT_CLEARED);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING);
    assert_true(x.points[VAPIC_SIL_POINT_CLEARED] > 1);
    x.on_point = NULL;
    assert_int_equal(vapic_sil_write_cr8(&x.cpu[0], 0), VAPIC_SIL_DONE);
    vmx_assert_delivers(&x, 0, 0x51);
    vmx_free(&x);
}

/* Someone posts between the clearing of ON and the harvest: it notifies again, nothing is lost. */
static void post_between_clear_and_harvest(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, XAPIC_FULL, 0);
    x.on_point = repost;
    pir_set(&x, 0, 0x41);
    vmx_pid(&x, 0)[4] |= PID_ON;
    vapic_sil_interrupt(&x.m, vmx_host_id(0), VMX_NV);
    vmx_assert_delivers(&x, 0, 0x51); /* harvested with the first */
    x.on_point = NULL;
    assert_int_equal(vmx_pid(&x, 0)[4] & PID_ON, PID_ON);
    vmx_assert_boundary(&x, 0, VAPIC_SIL_NOTHING); /* the second notification finds nothing */
    assert_int_equal(vmx_pid(&x, 0)[4] & PID_ON, 0);
    assert_int_equal(x.cpu[0].rvi, 0x41);
    vmx_free(&x);
}

/* ---- IPI virtualization: which writes ---- */

enum outcome { SENT, SELF, WRITE_EXIT, GP };

/* Guest of processor 0 writes the ICR; 1 to 3 have descriptors, 3's entry is changed by the case.
 */
struct ipi {
    uint32_t icr, target;
    enum outcome xapic, x2apic;
};

static const struct ipi ipis[] = {
    {0x00000051, 1, SENT, SENT},
    {0x00004051, 1, SENT, SENT},             /* the level bit is ignored */
    {0x00000010, 1, SENT, SENT},             /* the lowest legal vector */
    {0x000000FF, 2, SENT, SENT},             /* the highest */
    {0x00000051, 0, SENT, SENT},             /* to itself, by number */
    {0x0000000F, 1, WRITE_EXIT, WRITE_EXIT}, /* illegal vector */
    {0x00000000, 1, WRITE_EXIT, WRITE_EXIT},
    {0x00000051, 200, WRITE_EXIT, WRITE_EXIT}, /* no entry */
    {0x00000151, 1, WRITE_EXIT, WRITE_EXIT},   /* lowest priority */
    {0x00000200, 1, WRITE_EXIT, WRITE_EXIT},   /* SMI */
    {0x00000451, 1, WRITE_EXIT, WRITE_EXIT},   /* NMI */
    {0x00000500, 1, WRITE_EXIT, WRITE_EXIT},   /* INIT */
    {0x00000699, 1, WRITE_EXIT, WRITE_EXIT},   /* SIPI */
    {0x00000851, 1, WRITE_EXIT, WRITE_EXIT},   /* logical */
    {0x00001051, 1, WRITE_EXIT, WRITE_EXIT},   /* bit 12 */
    {0x00008051, 1, WRITE_EXIT, WRITE_EXIT},   /* level-triggered */
    {0x00040051, 1, SELF, WRITE_EXIT},         /* shorthand self: MMIO only */
    {0x00044851, 1, SELF, WRITE_EXIT},
    {0x00080051, 1, WRITE_EXIT, WRITE_EXIT}, /* all */
    {0x000C0051, 1, WRITE_EXIT, WRITE_EXIT}, /* all but self */
    {0x00002051, 1, WRITE_EXIT, GP},         /* reserved bits */
    {0x00010051, 1, WRITE_EXIT, GP},
    {0x00020051, 1, WRITE_EXIT, GP},
    {0x00100051, 1, WRITE_EXIT, GP},
    {0x80000051, 1, WRITE_EXIT, GP},
};

static void assert_sent(struct vmx *x, uint32_t target, uint8_t vector)
{
    assert_true(pir_has(x, target, vector));
    assert_int_equal(vmx_pid(x, target)[4] & PID_ON, PID_ON);
    assert_int_equal(x->cpu[0].notifications_sent, 1);
    vapic_sil_leave(&x->cpu[0], 10, 0, 0);
    assert_int_equal(vapic_sil_take_interrupt(&x->cpu[target]), VMX_NV);
}

static void assert_ipi(struct vmx *x, const struct ipi *ipi, enum outcome expected,
                       enum vapic_sil_result result)
{
    switch (expected) {
    case SENT:
        assert_int_equal(result, VAPIC_SIL_DONE);
        assert_sent(x, ipi->target, (uint8_t)ipi->icr);
        return;
    case SELF:
        assert_int_equal(result, VAPIC_SIL_DONE);
        assert_true(vmx_in_set(x, 0, APIC_IRR, (uint8_t)ipi->icr));
        break;
    case WRITE_EXIT:
        assert_int_equal(result, VAPIC_SIL_EXIT);
        vmx_assert_exit(x, 0, 56, 0x300);
        break;
    case GP:
        assert_int_equal(result, VAPIC_SIL_GP);
        break;
    }
    for (unsigned n = 0; n < VMX_CPUS; n++)
        assert_true(pir_empty(x, n));
    assert_int_equal(x->cpu[0].notifications_sent, 0);
}

static void ipis_by_mmio(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(ipis) / sizeof(ipis[0]); i++) {
        enum vapic_sil_result result;
        struct vmx x;

        vmx_new(&x);
        start(&x, 0, XAPIC_FULL | IPIV, 0);
        assert_int_equal(vmx_write(&x, 0, 0x310, ipis[i].target << 24), VAPIC_SIL_DONE);
        result = vmx_write(&x, 0, 0x300, ipis[i].icr);
        assert_ipi(&x, &ipis[i], ipis[i].xapic, result);
        assert_int_equal(*vmx_word(&x, 0, 0x300), ipis[i].icr); /* stored in any case */
        if (result == VAPIC_SIL_EXIT)
            assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + 12);
        vmx_free(&x);
    }
}

static void ipis_by_msr(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(ipis) / sizeof(ipis[0]); i++) {
        uint64_t icr = (uint64_t)ipis[i].target << 32 | ipis[i].icr;
        bool stored = ipis[i].x2apic != GP;
        enum vapic_sil_result result;
        struct vmx x;

        vmx_new(&x);
        start(&x, 0, X2APIC_FULL | IPIV, 0);
        *vmx_word(&x, 0, 0x310) = 0x02000000; /* plays no part */
        result = vapic_sil_wrmsr(&x.cpu[0], 0x830, icr);
        assert_ipi(&x, &ipis[i], ipis[i].x2apic, result);
        assert_int_equal(*vmx_word(&x, 0, 0x300), stored ? ipis[i].icr : 0);
        assert_int_equal(*vmx_word(&x, 0, 0x304), stored ? ipis[i].target : 0);
        if (result == VAPIC_SIL_EXIT)
            assert_int_equal(vmx_get(&x, 0, 0x681E), VMX_RIP + 2);
        vmx_free(&x);
    }
}

/* What was written is read back as 64 bits. */
static void icr_reads_back(void **state)
{
    uint64_t value;
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, X2APIC_FULL | IPIV, 0);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x200000061), VAPIC_SIL_DONE);
    assert_int_equal(vapic_sil_rdmsr(&x.cpu[0], 0x830, &value), VAPIC_SIL_DONE);
    assert_int_equal(value, 0x200000061);
    assert_true(pir_has(&x, 2, 0x61));
    vmx_free(&x);
}

/* Without IPI virtualization an IPI with a destination exits; its MSR is the host's. */
static void ipis_not_virtualized(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, XAPIC_FULL, 0);
    *vmx_word(&x, 0, 0x310) = 1u << 24;
    assert_int_equal(vmx_write(&x, 0, 0x300, 0x51), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x300);
    start(&x, 0, XAPIC_FULL | IPIV | NO_TER, 0);
    assert_int_equal(vmx_write(&x, 0, 0x300, 0x51), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x300);
    start(&x, 0, X2APIC_FULL, 0);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_NATIVE);
    assert_true(pir_empty(&x, 1));
    vmx_free(&x);
}

/* ---- The table ---- */

static void table_entries(void **state)
{
    static const struct {
        uint64_t entry;
        bool sent;
    } cases[] = {
        {VMX_PID + 0xC0 + 1, true},
        {VMX_PID + 0xC0, false},     /* not valid */
        {VMX_PID + 0xC0 + 3, false}, /* bits 5:1 */
        {VMX_PID + 0xC0 + 33, false},
        {(UINT64_C(1) << 48) + VMX_PID + 0xC0 + 1, false}, /* beyond the width */
        {0x7FFF0001, false},                               /* no memory */
        {0, false},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ((uint64_t *)(void *)(x.memory + VMX_TABLE))[3] = cases[i].entry;
        start(&x, 0, X2APIC_FULL | IPIV, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x300000051),
                         cases[i].sent ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
        assert_int_equal(pir_has(&x, 3, 0x51), cases[i].sent);
        vmx_pid(&x, 3)[1] = 0;
        if (cases[i].sent)
            vmx_leave(&x, 0);
        else
            vmx_assert_exit(&x, 0, 56, 0x300);
    }
    vmx_free(&x);
}

/* A descriptor's address within and beyond the physical width; there is memory at both. */
static void descriptor_width(void **state)
{
    for (unsigned bits = 40; bits <= 41; bits++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .phys_bits = bits};
        bool sent = bits == 41;
        struct vmx x;

        vmx_new_with(&x, &config);
        ((uint64_t *)(void *)(x.memory + VMX_TABLE))[3] = (VMX_AGAIN + VMX_PID + 0xC0) | 1;
        start(&x, 0, X2APIC_FULL | IPIV, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x300000051),
                         sent ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
        assert_int_equal(pir_has(&x, 3, 0x51), sent);
        vmx_free(&x);
    }
    (void)state;
}

static void last_index(void **state)
{
    static const struct {
        uint64_t last;
        uint32_t target;
        bool sent;
    } cases[] = {
        {1, 1, true},
        {1, 2, false},
        {0, 0, true},
        {0, 1, false},
        {0xFFFF, 0x10000, false},
        {511, 0xFFFFFFFF, false},
    };
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        vmx_program(&x, 0, X2APIC_FULL | IPIV);
        vmx_set(&x, 0, 0x0008, cases[i].last);
        vmx_enter(&x, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, (uint64_t)cases[i].target << 32 | 0x51),
                         cases[i].sent ? VAPIC_SIL_DONE : VAPIC_SIL_EXIT);
        if (cases[i].sent) {
            assert_true(pir_has(&x, cases[i].target, 0x51));
            vmx_leave(&x, 0);
        }
    }
    vmx_free(&x);
}

/* The table reaches out of the host's memory. */
static void table_without_memory(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    vmx_program(&x, 0, X2APIC_FULL | IPIV);
    vmx_set(&x, 0, 0x2042, VMX_MEMORY - 8);
    vmx_enter(&x, 0);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_EXIT);
    vmx_assert_exit(&x, 0, 56, 0x300);
    vmx_free(&x);
}

/* Destination FFh by MMIO: an index like any other, or, with the knob, an exit. */
static void destination_ff(void **state)
{
    for (unsigned on = 0; on < 2; on++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL,
                                          .knobs = {.ipiv_ff_broadcast_exits = on}};
        struct vmx x;

        vmx_new_with(&x, &config);
        ((uint64_t *)(void *)(x.memory + VMX_TABLE))[255] = (VMX_PID + 0x80) | 1;
        start(&x, 0, XAPIC_FULL | IPIV, 0);
        *vmx_word(&x, 0, 0x310) = 0xFF000000;
        assert_int_equal(vmx_write(&x, 0, 0x300, 0x51), on ? VAPIC_SIL_EXIT : VAPIC_SIL_DONE);
        assert_int_equal(pir_has(&x, 2, 0x51), !on);
        vmx_free(&x);

        vmx_new_with(&x, &config); /* not so in x2APIC mode */
        ((uint64_t *)(void *)(x.memory + VMX_TABLE))[255] = (VMX_PID + 0x80) | 1;
        start(&x, 0, X2APIC_FULL | IPIV, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, UINT64_C(0xFF00000051)), VAPIC_SIL_DONE);
        assert_true(pir_has(&x, 2, 0x51));
        vmx_free(&x);
    }
    (void)state;
}

/* ---- Notification ---- */

/* ON and SN decide; PIR is written in any case. */
static void on_and_sn(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    for (unsigned flags = 0; flags < 4; flags++) {
        uint64_t control = (vmx_pid(&x, 1)[4] & ~UINT64_C(3)) | flags;
        unsigned sent = x.cpu[0].notifications_sent;

        vmx_pid(&x, 1)[0] = vmx_pid(&x, 1)[1] = 0;
        vmx_pid(&x, 1)[4] = control;
        start(&x, 0, X2APIC_FULL | IPIV, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_DONE);
        vmx_leave(&x, 0);
        assert_true(pir_has(&x, 1, 0x51));
        assert_int_equal(vmx_pid(&x, 1)[4], flags ? control : control | PID_ON);
        assert_int_equal(x.cpu[0].notifications_sent, sent + !flags);
        assert_int_equal(vapic_sil_take_interrupt(&x.cpu[1]), flags ? -1 : VMX_NV);
    }
    vmx_free(&x);
}

/* NDST by the host's mode, whatever the guest's is; NV of the descriptor, also a wake-up vector. */
static void destinations(void **state)
{
    for (unsigned xapic = 0; xapic < 2; xapic++) {
        struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL, .xapic_host = xapic};
        struct vmx x;

        vmx_new_with(&x, &config);
        vmx_pid(&x, 1)[4] = (uint64_t)(xapic ? 4 << 8 : 4) << 32 | UINT64_C(0xE1) << 16;
        for (unsigned mode = 0; mode < 2; mode++) {
            start(&x, 0, (mode ? X2APIC_FULL : XAPIC_FULL) | IPIV, 0);
            *vmx_word(&x, 0, 0x310) = 1u << 24;
            if (mode)
                assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_DONE);
            else
                assert_int_equal(vmx_write(&x, 0, 0x300, 0x51), VAPIC_SIL_DONE);
            vmx_leave(&x, 0);
            assert_int_equal(vapic_sil_take_interrupt(&x.cpu[3]), 0xE1);
            assert_int_equal(vapic_sil_take_interrupt(&x.cpu[1]), -1);
            vmx_pid(&x, 1)[4] &= ~(uint64_t)PID_ON;
        }
        /* A destination of all ones is everybody. */
        vmx_pid(&x, 1)[4] |= (xapic ? UINT64_C(0xFF00) : UINT64_C(0xFFFFFFFF)) << 32;
        start(&x, 0, X2APIC_FULL | IPIV, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_DONE);
        vapic_sil_leave(&x.cpu[0], 10, 0, 0);
        for (unsigned n = 0; n < VMX_CPUS; n++)
            assert_int_equal(vapic_sil_take_interrupt(&x.cpu[n]), 0xE1);
        /* Nobody there: nothing happens. */
        vmx_pid(&x, 1)[4] = UINT64_C(0xE1) << 16;
        start(&x, 0, X2APIC_FULL | IPIV, 0);
        assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_DONE);
        vmx_free(&x);
    }
    (void)state;
}

/* To itself by number: through its own descriptor and a notification to itself. */
static void ipi_to_itself(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, X2APIC_FULL | IPIV, 0);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x51), VAPIC_SIL_DONE);
    assert_true(pir_has(&x, 0, 0x51));
    vmx_assert_delivers(&x, 0, 0x51);
    vmx_free(&x);
}

/* From one guest to the other, both running; the points in their order, the signal last. */
static void points_in_order(void **state)
{
    struct vmx x;

    (void)state;
    vmx_new(&x);
    start(&x, 0, X2APIC_FULL | IPIV, 0);
    start(&x, 1, X2APIC_FULL | IPIV, 0);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x100000051), VAPIC_SIL_DONE);
    assert_int_equal(x.points[VAPIC_SIL_POINT_RESOLVED], 1);
    assert_int_equal(x.points[VAPIC_SIL_POINT_POSTED], 1);
    assert_int_equal(x.points[VAPIC_SIL_POINT_FOUND], 1);
    assert_int_equal(x.points[VAPIC_SIL_POINT_CLEARED], 0);
    assert_int_equal(x.signals, 1);
    vmx_assert_delivers(&x, 1, 0x51);
    assert_int_equal(x.points[VAPIC_SIL_POINT_CLEARED], 1);
    vmx_free(&x);
}

/* A host without the optional callbacks. */
static void no_callbacks(void **state)
{
    struct vapic_sil_host host;
    struct vmx x;

    (void)state;
    vmx_new(&x);
    host = x.m.host;
    host.point = NULL;
    host.signal = NULL;
    x.m.host = host;
    start(&x, 0, X2APIC_FULL | IPIV, 0);
    assert_int_equal(vapic_sil_wrmsr(&x.cpu[0], 0x830, 0x51), VAPIC_SIL_DONE);
    vmx_assert_delivers(&x, 0, 0x51);
    vmx_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(process_against_tpr),
        cmocka_unit_test(harvest_is_complete),
        cmocka_unit_test(other_bits_survive),
        cmocka_unit_test(empty_notification),
        cmocka_unit_test(processing_is_not_blocked),
        cmocka_unit_test(processing_under_interrupt_window),
        cmocka_unit_test(not_a_notification),
        cmocka_unit_test(notification_vectors),
        cmocka_unit_test(notifications_without_end),
        cmocka_unit_test(post_between_clear_and_harvest),
        cmocka_unit_test(ipis_by_mmio),
        cmocka_unit_test(ipis_by_msr),
        cmocka_unit_test(icr_reads_back),
        cmocka_unit_test(ipis_not_virtualized),
        cmocka_unit_test(table_entries),
        cmocka_unit_test(descriptor_width),
        cmocka_unit_test(last_index),
        cmocka_unit_test(table_without_memory),
        cmocka_unit_test(destination_ff),
        cmocka_unit_test(on_and_sn),
        cmocka_unit_test(destinations),
        cmocka_unit_test(ipi_to_itself),
        cmocka_unit_test(points_in_order),
        cmocka_unit_test(no_callbacks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
