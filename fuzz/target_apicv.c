/* SPDX-License-Identifier: MIT */
/*
 * Intel's silicon on control blocks and tables that nobody honest has filled: VMCS fields,
 * PID-pointer table, posted-interrupt descriptors, virtual-APIC pages, MSR bitmaps, and remapping
 * entries in any state, changed while guests run. The model must stay in its memory, end, and say
 * what became of each access; a delivered vector is in service.
 *
 * An input is a head (knobs of the model, controls) and then operations.
 */
#include "sil.h"

#define HEAD   8u
#define PAGES  0x1000u /* virtual-APIC pages, four */
#define PIDS   0x5000u
#define TABLE  0x6000u /* 512 pointers */
#define BITMAP 0x7000u
#define ACCESS 0x8000u
#define IRTES  0x9000u
#define MSRS   0xA000u
#define NOTIFY 0xF2u

static struct fuzz_sil sil;
static uint8_t image[FUZZ_SIL_MEMORY];
static bool is_made;

static struct vapic_sil_vmcs vmcs_of[2];

static void put64(uint32_t at, uint64_t value)
{
    memcpy(image + at, &value, sizeof(value));
}

static void make(void)
{
    for (uint32_t n = 0; n < 4; n++) {
        image[PAGES + n * 0x1000 + APIC_ID] = (uint8_t)n;
        put64(PAGES + n * 0x1000 + APIC_SVR, 0x1FF);
        put64(PIDS + 64 * n + PID_CONTROL,
              (uint64_t)(n + 1) << PID_NDST_SHIFT | (uint64_t)NOTIFY << PID_NV_SHIFT);
        put64(TABLE + 8 * n, (PIDS + 64 * n) | APICV_PID_ENTRY_VALID);
    }
    is_made = true;
}

static void set_field(struct vapic_sil_vmcs *vmcs, uint32_t field, uint64_t value)
{
    fuzz_check(vapic_sil_vmwrite(vmcs, field, value), "no field %#x", field);
}

/* The usual sets of controls, by two bits of the head. */
static void program(struct vapic_sil_vmcs *vmcs, uint32_t n, uint64_t head)
{
    bool x2 = head >> 16 & 1, ipiv = head >> 17 & 1;
    uint32_t secondary = (x2 ? VMX_SEC_X2APIC : VMX_SEC_APIC_ACCESSES) | VMX_SEC_APIC_REGISTER |
                         VMX_SEC_INTERRUPT_DELIVERY;

    vapic_sil_vmcs_init(vmcs);
    set_field(vmcs, VMCS_PIN_CONTROLS,
              VMX_PIN_MUST | VMX_PIN_EXTINT_EXITING | VMX_PIN_POSTED_INTERRUPTS);
    set_field(vmcs, VMCS_PRIMARY_CONTROLS,
              VMX_PRI_MUST | VMX_PRI_TPR_SHADOW | VMX_PRI_SECONDARY | VMX_PRI_MSR_BITMAPS |
                  (ipiv ? VMX_PRI_TERTIARY : 0));
    set_field(vmcs, VMCS_SECONDARY_CONTROLS, secondary);
    set_field(vmcs, VMCS_TERTIARY_CONTROLS, ipiv ? VMX_TER_IPI_VIRTUALIZATION : 0);
    set_field(vmcs, VMCS_EXIT_CONTROLS, VMX_EXC_MUST | VMX_EXC_ACK_INTERRUPT);
    set_field(vmcs, VMCS_NOTIFICATION_VECTOR, NOTIFY);
    set_field(vmcs, VMCS_LAST_PID_INDEX, 511);
    set_field(vmcs, VMCS_MSR_BITMAP, BITMAP);
    set_field(vmcs, VMCS_VIRTUAL_APIC, PAGES + n * 0x1000);
    set_field(vmcs, VMCS_APIC_ACCESS, ACCESS);
    set_field(vmcs, VMCS_PID, PIDS + 64 * n);
    set_field(vmcs, VMCS_PID_TABLE, TABLE);
    set_field(vmcs, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF | 2);
}

static void set_config(struct vapic_sil_config *config, uint64_t head)
{
    config->knobs.eoi_icr_reads_need_arv = head & 1;
    config->knobs.ipiv_without_vid = head >> 1 & 1;
    config->knobs.ipiv_ff_broadcast_exits = head >> 2 & 1;
    config->knobs.ipiv_last_entry_unchecked = head >> 3 & 1;
    config->knobs.ppi_needs_no_secondary = head >> 4 & 1;
    config->knobs.no_length_on_apic_access = head >> 5 & 1;
    config->knobs.shadow_gates_notification = head >> 6 & 1;
    config->knobs.entry_keeps_vtpr_bytes = head >> 7 & 1;
    config->xapic_host = head >> 8 & 1;
    config->phys_bits = head >> 9 & 1 ? 40 : 0;
}

/* ---- Operations ---- */

static void op_field(struct fuzz_sil *s)
{
    static const uint16_t fields[] = {
        VMCS_PIN_CONTROLS,
        VMCS_PRIMARY_CONTROLS,
        VMCS_SECONDARY_CONTROLS,
        VMCS_TERTIARY_CONTROLS,
        VMCS_EXIT_CONTROLS,
        VMCS_ENTRY_CONTROLS,
        VMCS_VPID,
        VMCS_NOTIFICATION_VECTOR,
        VMCS_LAST_PID_INDEX,
        VMCS_GUEST_INTERRUPT_STATUS,
        VMCS_MSR_BITMAP,
        VMCS_VIRTUAL_APIC,
        VMCS_APIC_ACCESS,
        VMCS_PID,
        VMCS_EPTP,
        VMCS_EOI_EXIT0,
        VMCS_EOI_EXIT1,
        VMCS_EOI_EXIT2,
        VMCS_EOI_EXIT3,
        VMCS_PID_TABLE,
        VMCS_ENTRY_INTR_INFO,
        VMCS_TPR_THRESHOLD,
        VMCS_GUEST_INTERRUPTIBILITY,
        VMCS_GUEST_ACTIVITY,
        VMCS_GUEST_RFLAGS,
        VMCS_GUEST_RIP,
        VMCS_ENTRY_MSR_LOAD,
        VMCS_ENTRY_MSR_LOAD_COUNT,
        VMCS_GUEST_SS_RIGHTS,
        VMCS_ENTRY_LENGTH,
    };
    uint32_t field = s->op.who & 0x80 ? s->op.where : fields[s->op.where % (sizeof(fields) / 2)];
    uint64_t value = (uint64_t)(s->op.who & 8 ? s->high : 0) << 32 | s->op.value, now = 0;

    if (!s->now->in_guest && s->op.who & 4 && vapic_sil_vmread(&vmcs_of[s->n], field, &now))
        value ^= now;
    if (!s->now->in_guest)
        vapic_sil_vmwrite(&vmcs_of[s->n], field, value);
}

static void op_pid(struct fuzz_sil *s)
{
    memcpy(fuzz_sil_at(s, PIDS + (s->op.where & 0x3F) * 4u, 4), &s->op.value, 4);
}

static void op_pointer(struct fuzz_sil *s)
{
    uint64_t entry = (uint64_t)(s->op.who & 4 ? s->high : 0) << 32 | s->op.value;

    memcpy(fuzz_sil_at(s, TABLE + (s->op.where & 0x1FF) * 8u, 8), &entry, 8);
}

static void op_register(struct fuzz_sil *s)
{
    uint32_t at = PAGES + (s->op.who & 0xC) * 0x400u + (s->op.where & 0x3FF) * 4u;

    memcpy(fuzz_sil_at(s, at, 4), &s->op.value, 4);
}

static void op_enter(struct fuzz_sil *s)
{
    enum vapic_sil_result result;

    if (s->now->in_guest)
        return;
    result = vapic_sil_vmentry(s->now, &vmcs_of[s->n]);
    fuzz_check((result == VAPIC_SIL_DONE) == s->now->in_guest, "VM entry: %d", (int)result);
}

/* A whole aligned register by MMIO: write of `value`. */
static void op_write(struct fuzz_sil *s)
{
    struct vapic_sil_access access = {.kind = VAPIC_SIL_WRITE,
                                      .size = 4,
                                      .length = 3,
                                      .gpa = APIC_DEFAULT_BASE + (s->op.where & 0xFF) * 16u,
                                      .value = s->op.value};

    vapic_sil_access(s->now, &access);
}

static void op_icr(struct fuzz_sil *s)
{
    vapic_sil_wrmsr(s->now, 0x830, (uint64_t)s->op.where << 32 | s->op.value);
}

static void op_boundary(struct fuzz_sil *s)
{
    /* What the entry injects, or is the host's and does not exit, is not in service. */
    const uint64_t *host = s->now->physical;
    bool entry = s->now->apicv.entry_event != 0 || (host[0] | host[1] | host[2] | host[3]) != 0;
    uint64_t page = 0;
    uint8_t vector = 0;
    uint32_t word;

    if (!fuzz_sil_boundary(s, &vector) || entry)
        return;
    vapic_sil_vmread(&vmcs_of[s->n], VMCS_VIRTUAL_APIC, &page);
    memcpy(&word, fuzz_sil_at(s, page + APIC_ISR + 16u * (vector / 32u), 4), 4);
    fuzz_check(word >> vector % 32 & 1, "vector %#x delivered, not in service", vector);
    fuzz_check(s->now->svi == vector, "vector %#x delivered, SVI %#x", vector, s->now->svi);
}

static void op_host(struct fuzz_sil *s)
{
    if ((s->op.where & 3) == 0) /* a doorbell is AMD's: a notification instead */
        vapic_sil_interrupt(&s->machine, s->op.value & 15, NOTIFY);
    else
        fuzz_sil_host(s);
}

static void op_irte(struct fuzz_sil *s)
{
    uint64_t word = (uint64_t)s->high << 32 | s->op.value;

    if (s->op.who & 8) /* posted, into a descriptor of ours */
        word = s->op.where & 1 ? 0
                               : VTD_IRTE_PRESENT | VTD_IRTE_POSTED |
                                     (uint64_t)(s->op.value & 0xFF) << VTD_IRTE_VECTOR_SHIFT |
                                     (uint64_t)((PIDS >> 6) + (s->op.value >> 8 & 7))
                                         << VTD_IRTE_PID_LOW_SHIFT |
                                     (s->op.value & 0x1000 ? VTD_IRTE_URGENT : 0);
    memcpy(fuzz_sil_at(s, IRTES + 8u * (s->op.where & 15), 8), &word, 8);
}

static void op_msi(struct fuzz_sil *s)
{
    const uint64_t *entry = fuzz_sil_at(s, IRTES + 16u * (s->op.where & 7), 16);
    enum vapic_sil_msi result = vapic_sil_vtd_msi(&s->machine, entry, (uint16_t)s->op.value);

    fuzz_check(result <= VAPIC_SIL_MSI_FAULT, "message: %d", (int)result);
}

static void op_page(struct fuzz_sil *s)
{
    s->apic_page = (struct vapic_sil_page){s->op.value & 0x1F000, s->op.where & 1, s->op.where & 2};
    if (s->op.where & 4)
        s->apic_page.hpa = ACCESS;
}

static const fuzz_sil_op ops[] = {
    op_field,      op_field,     op_pid,          op_pointer,     op_register,     fuzz_sil_poke,
    fuzz_sil_high, op_enter,     op_enter,        fuzz_sil_leave, fuzz_sil_access, op_write,
    op_icr,        fuzz_sil_msr, fuzz_sil_cr8,    op_boundary,    fuzz_sil_flags,  fuzz_sil_hlt,
    op_host,       op_irte,      op_msi,          op_page,        op_write,        op_icr,
    op_boundary,   op_enter,     fuzz_sil_access,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vapic_sil_config config = {.vendor = VAPIC_SIL_INTEL};
    struct fuzz_input in = {data, size};
    uint64_t head = fuzz_u64(&in);

    if (!is_made)
        make();
    set_config(&config, head);
    fuzz_sil_init(&sil, image, &config);
    sil.apic_page.hpa = ACCESS;
    program(&vmcs_of[0], 0, head);
    program(&vmcs_of[1], 1, head);
    fuzz_sil_run(&sil, &in, ops, sizeof(ops) / sizeof(ops[0]));
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate(data, size, max_size, seed, HEAD);
}
