/* SPDX-License-Identifier: MIT */
/*
 * AMD's silicon on tables that nobody honest has filled: physical and logical APIC ID tables,
 * backing pages, VMCBs, permission maps, interrupt remapping entries and GA log, in any state and
 * changed while guests run. The model must stay in its memory, end, and say what became of each
 * access; a delivered vector is in service.
 *
 * An input is a head (knobs of the model, features) and then operations.
 */
#include "sil.h"

#define HEAD     8u
#define VMCB     0x1000u /* two */
#define BACKING  0x3000u /* four */
#define LOGICAL  0x7000u
#define PHYSICAL 0x8000u /* two pages: 1024 entries */
#define MSRPM    0xA000u /* two pages, of both VMCBs */
#define LOG      0xC000u
#define IRTES    0xD000u

static struct fuzz_sil sil;
static uint8_t images[2][FUZZ_SIL_MEMORY]; /* AVIC, x2AVIC */
static bool is_made;

static struct vapic_sil_amd_iommu iommu;

/* ---- The memory, as an honest hypervisor would have filled it ---- */

static void put64(uint8_t *image, uint32_t at, uint64_t value)
{
    memcpy(image + at, &value, sizeof(value));
}

static void put32(uint8_t *image, uint32_t at, uint32_t value)
{
    memcpy(image + at, &value, sizeof(value));
}

static void make_vmcb(uint8_t *image, uint32_t n, bool x2)
{
    uint32_t vmcb = VMCB + n * 0x1000;

    put32(image, vmcb + VMCB_INTERCEPT3, VMCB_I3_INTR | VMCB_I3_MSR);
    put32(image, vmcb + VMCB_INTERCEPT4, VMCB_I4_VMRUN);
    put32(image, vmcb + VMCB_ASID, n + 1);
    put64(image, vmcb + VMCB_MSRPM_BASE, MSRPM);
    put64(image, vmcb + VMCB_INT_CTL, VMCB_V_INTR_MASKING | VMCB_V_AVIC | (x2 ? VMCB_V_X2AVIC : 0));
    put64(image, vmcb + VMCB_NP_ENABLE, VMCB_NP_ENABLED);
    put64(image, vmcb + VMCB_AVIC_BAR, APIC_DEFAULT_BASE);
    put64(image, vmcb + VMCB_AVIC_BACKING, BACKING + n * 0x1000);
    put64(image, vmcb + VMCB_AVIC_LOGICAL, LOGICAL);
    put64(image, vmcb + VMCB_AVIC_PHYSICAL, PHYSICAL | 255);
    put64(image, vmcb + VMCB_RFLAGS, VMCB_RFLAGS_IF | 2);
}

static void make_page(uint8_t *image, uint32_t n, bool x2)
{
    uint32_t page = BACKING + n * 0x1000;

    put32(image, page + APIC_ID, x2 ? n : n << 24);
    put32(image, page + APIC_LVR, 0x80050010);
    put32(image, page + APIC_SVR, 0x1FF);
    put32(image, page + APIC_DFR, APIC_DFR_FLAT);
    put32(image, page + APIC_LDR, x2 ? 1u << n : 1u << (24 + n));
}

static void make(void)
{
    for (uint32_t x2 = 0; x2 < 2; x2++) {
        uint8_t *image = images[x2];

        for (uint32_t n = 0; n < 2; n++)
            make_vmcb(image, n, x2);
        for (uint32_t n = 0; n < 4; n++) {
            make_page(image, n, x2);
            put32(image, LOGICAL + 4 * n, AVIC_LOGICAL_VALID | n);
            put64(image, PHYSICAL + 8 * n,
                  AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_RUNNING | (BACKING + n * 0x1000) | (n + 1));
        }
    }
    is_made = true;
}

/* Each knob is a byte, of which most are bool. */
static void set_knobs(struct vapic_sil_config *config, uint64_t head)
{
    bool *knobs[] = {
        &config->knobs.doorbell_8bit,
        &config->knobs.np_optional,
        &config->knobs.pointers_unchecked,
        &config->knobs.avic_before_x2apic,
        &config->knobs.odd_mmio_faults,
        &config->knobs.vector_before_type,
        &config->knobs.x2_no_broadcast,
        &config->knobs.empty_mask_exits,
        &config->knobs.index_highest,
        &config->knobs.id3_after_post,
        &config->knobs.post_clears_tmr,
        &config->knobs.gate_on_tpr,
        &config->knobs.level_eoi_clears_isr,
        &config->knobs.vintr_intercept,
        &config->knobs.quirk_1235,
        &config->knobs.masks_busy,
        &config->knobs.masks_icr_high,
        &config->knobs.entry255_special,
        &config->knobs.fetch_redirected,
        &config->knobs.idle_hlt_ignores_irr,
        &config->knobs.x2_busy_dropped,
        &config->ext_lvt,
        &config->x2avic_ext,
    };

    for (uint32_t i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++)
        *knobs[i] = head >> i & 1;
    config->knobs.unfixed_id = head >> 24 & 7;
    config->phys_bits = head >> 27 & 1 ? 40 : 0;
    config->x2avic = !(head >> 28 & 1);
}

/* ---- Operations ---- */

static void op_physical(struct fuzz_sil *s)
{
    uint64_t entry = (uint64_t)(s->op.who & 4 ? s->high : 0) << 32 | s->op.value;

    if (s->op.who & 8) /* a plausible one */
        entry = AVIC_PHYSICAL_VALID | (s->op.value & 1 ? AVIC_PHYSICAL_RUNNING : 0) |
                (uint64_t)(s->op.value & 0xF00) << 4 | (s->op.value >> 12 & 15);
    memcpy(fuzz_sil_at(s, PHYSICAL + 8u * (s->op.where & 0x3FF), 8), &entry, 8);
}

static void op_logical(struct fuzz_sil *s)
{
    uint32_t entry = s->op.who & 8 ? AVIC_LOGICAL_VALID | (s->op.value & 0x1FF) : s->op.value;

    memcpy(fuzz_sil_at(s, LOGICAL + 4u * (s->op.where & 0x3FF), 4), &entry, 4);
}

static void op_register(struct fuzz_sil *s)
{
    uint32_t at = BACKING + (s->op.who & 0xC) * 0x400u + (s->op.where & 0xFF) * 16u;

    memcpy(fuzz_sil_at(s, at, 4), &s->op.value, 4);
}

static void op_vmcb(struct fuzz_sil *s)
{
    static const uint16_t fields[] = {
        VMCB_INTERCEPT_CR,  VMCB_INTERCEPT3,  VMCB_INTERCEPT4, VMCB_INTERCEPT5,   VMCB_MSRPM_BASE,
        VMCB_ASID,          VMCB_INT_CTL,     VMCB_INT_STATE,  VMCB_NP_ENABLE,    VMCB_AVIC_BAR,
        VMCB_EVENTINJ,      VMCB_CLEAN,       VMCB_RFLAGS,     VMCB_AVIC_BACKING, VMCB_AVIC_LOGICAL,
        VMCB_AVIC_PHYSICAL, VMCB_TLB_CONTROL, VMCB_CPL,        VMCB_RIP,
    };
    uint32_t at = VMCB + s->n * 0x1000 + fields[s->op.where % (sizeof(fields) / 2)];

    memcpy(fuzz_sil_at(s, at, 4), &s->op.value, 4);
    if (s->op.who & 8)
        memcpy(fuzz_sil_at(s, at + 4, 4), &s->high, 4);
}

static void op_run(struct fuzz_sil *s)
{
    enum vapic_sil_result result;

    if (s->now->in_guest)
        return;
    result = vapic_sil_vmrun(s->now, s->op.who & 0x80 ? s->op.value : VMCB + s->n * 0x1000);
    fuzz_check((result == VAPIC_SIL_DONE) == s->now->in_guest, "VMRUN: %d", (int)result);
}

/* ICR in the way of the mode. */
static void op_icr(struct fuzz_sil *s)
{
    struct vapic_sil_access access = {
        .kind = VAPIC_SIL_WRITE, .size = 4, .length = 3, .gpa = APIC_DEFAULT_BASE + APIC_ICR2};

    if (!s->now->in_guest)
        return;
    if (s->now->svm.int_ctl & VMCB_V_X2AVIC) {
        vapic_sil_wrmsr(s->now, 0x830, (uint64_t)s->op.where << 32 | s->op.value);
        return;
    }
    access.value = (uint32_t)s->op.where << 24;
    if (vapic_sil_access(s->now, &access) != VAPIC_SIL_DONE)
        return;
    access.gpa = APIC_DEFAULT_BASE + APIC_ICR;
    access.value = s->op.value;
    vapic_sil_access(s->now, &access);
}

static void op_boundary(struct fuzz_sil *s)
{
    /* What is injected, or is the host's and not intercepted, is not in service. */
    const uint64_t *host = s->now->physical;
    bool injected = s->now->svm.injected != 0 || (host[0] | host[1] | host[2] | host[3]) != 0;
    bool avic = (s->now->svm.int_ctl & VMCB_V_AVIC) != 0;
    uint8_t vector = 0;
    uint32_t word;

    if (!fuzz_sil_boundary(s, &vector) || injected || !avic || vector == 2)
        return;
    memcpy(&word, fuzz_sil_at(s, s->now->svm.backing + APIC_ISR + 16u * (vector / 32u), 4), 4);
    fuzz_check(s->now->svm.backing >= FUZZ_SIL_MEMORY || word >> vector % 32 & 1,
               "vector %#x delivered, not in service", vector);
}

static void op_irte(struct fuzz_sil *s)
{
    uint64_t word = (uint64_t)s->high << 32 | s->op.value;

    if (s->op.who & 8) /* guest mode, into one of the pages */
        word = s->op.where & 1 ? (uint64_t)(s->op.value & 0xF00) << 4 | (s->op.value & 0xFF) |
                                     (s->op.value & 0x1000 ? (uint64_t)s->high << 32 : 0)
                               : word;
    memcpy(fuzz_sil_at(s, IRTES + 8u * (s->op.where & 15), 8), &word, 8);
}

static void op_msi(struct fuzz_sil *s)
{
    const uint64_t *irte = fuzz_sil_at(s, IRTES + 16u * (s->op.where & 7), 16);
    enum vapic_sil_msi result = vapic_sil_amd_msi(&iommu, irte, (uint16_t)s->op.value);

    fuzz_check(result <= VAPIC_SIL_MSI_FAULT, "message: %d", (int)result);
    fuzz_check(iommu.head < iommu.entries && iommu.tail < iommu.entries, "the log's pointers");
    if (s->op.who & 8)
        iommu.head = iommu.tail;
}

static void op_page(struct fuzz_sil *s)
{
    s->apic_page = (struct vapic_sil_page){s->op.value & 0x1F000, s->op.where & 1, s->op.where & 2};
}

static const fuzz_sil_op ops[] = {
    op_physical,    op_logical,   op_register,     op_vmcb,         fuzz_sil_poke,   fuzz_sil_high,
    op_run,         op_run,       fuzz_sil_leave,  fuzz_sil_access, fuzz_sil_access, op_icr,
    op_icr,         fuzz_sil_msr, fuzz_sil_cr8,    fuzz_sil_msr,    op_boundary,     op_boundary,
    fuzz_sil_flags, fuzz_sil_hlt, fuzz_sil_host,   op_irte,         op_msi,          op_page,
    op_physical,    op_icr,       fuzz_sil_access,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_AMD};
    struct fuzz_input in = {data, size};
    uint64_t head = fuzz_u64(&in);

    if (!is_made)
        make();
    set_knobs(&config, head);
    fuzz_sil_init(&sil, images[head >> 29 & 1 && config.x2avic], &config);
    iommu = (struct vapic_sil_amd_iommu){
        .machine = &sil.machine,
        .log = fuzz_sil_at(&sil, LOG, 8),
        .entries = 8,
        .log_interrupt = head >> 30 & 1,
        .log_dest = head >> 32 & 15,
        .log_vector = (uint8_t)(head >> 40),
    };
    fuzz_sil_run(&sil, &in, ops, sizeof(ops) / sizeof(ops[0]));
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate(data, size, max_size, seed, HEAD);
}
