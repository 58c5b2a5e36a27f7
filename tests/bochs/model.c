/* SPDX-License-Identifier: MIT */
/*
 * A case on the silicon model (model.h). The program in Bochs is a host and a guest that runs
 * instructions; here both are played: the guest's instructions by the calls of vapic/silicon.h, the
 * host's part by the same rules that l1.c follows.
 *
 * What reaches the processor's own registers ("native") is answered as a processor does whose local
 * APIC is in xAPIC mode: its x2APIC MSRs do not exist, CR8 is a register of four bits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "vapic/arch/apic.h"
#include "vapic/silicon.h"

enum { PAGE = 4096, WORDS = PAGE / 4, APIC_ID_HOST = 3, VECTOR_GP = 13, VECTOR_PF = 14 };

/* Memory, host-physical and guest-physical: a few pages. */
enum page {
    PAGE_VIRTUAL,
    PAGE_ACCESS,
    PAGE_BITMAP_CLEAR,
    PAGE_BITMAP_SET,
    PAGE_DESCRIPTOR,
    PAGE_STACK,
    PAGE_MSRS,
    MODEL_PAGES
};
#define HPA(page) ((uint64_t)0x100000 + (uint64_t)(page)*PAGE)

/* Where the guest is. Between them lies nothing: only what moves RIP does. */
enum { RIP_START = 0x1000, RIP_OP = 0x2000, RIP_HANDLER = 0x3000, LENGTH_ACCESS = 3 };

struct model {
    struct vapic_sil m;
    struct vapic_sil_cpu *cpus[8];
    struct vapic_sil_cpu cpu;
    struct vapic_sil_vmcs vmcs;
    struct apicv_case c;
    struct outcome outcome;
    unsigned next;
    uint64_t before, behind, stack;
    uint64_t walked; /* the page-table entry that a translation needs; 0: nothing special */
    uint64_t cr8;    /* the processor's own */
    unsigned phys_bits;
    unsigned quirks;
    bool modifies; /* a read-modify-write is at its first half */
    uint8_t held;  /* QUIRK_EXTERNAL_IF: a physical interrupt that waits for IF */
    uint32_t memory[MODEL_PAGES][WORDS] __attribute__((aligned(4096)));
};

/* What became of an operation. */
enum step { STEP_DONE, STEP_VALUE, STEP_EXIT };

static void *memory(void *ctx, uint64_t hpa, size_t size)
{
    struct model *model = ctx;

    if (hpa < HPA(0) || hpa - HPA(0) > sizeof(model->memory) - size)
        return NULL;
    return (uint8_t *)model->memory + (hpa - HPA(0));
}

static bool walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa, struct vapic_sil_page *page)
{
    const struct model *model = ctx;
    const uint32_t ept = C_EPT | C_SEC;
    bool limited = gpa == HPA(PAGE_ACCESS) && (model->c.controls & ept) == ept;

    (void)cpu;
    page->hpa = gpa;
    page->present = !limited || model->c.ept != EPT_ABSENT;
    page->writable = !limited || model->c.ept == EPT_ALL;
    return true;
}

struct model *model_new(unsigned phys_bits)
{
    const struct vapic_sil_config config = {
        .vendor = VAPIC_SIL_INTEL,
        .phys_bits = phys_bits,
        .knobs = {.eoi_icr_reads_need_arv = true,
                  .entry_keeps_vtpr_bytes = true,
                  .shadow_gates_notification = true},
    };
    const struct vapic_sil_host host = {.size = sizeof(host), .memory = memory, .walk = walk};
    struct model *model = aligned_alloc(PAGE, (sizeof(*model) + PAGE - 1) / PAGE * PAGE);

    if (!model)
        return NULL;
    memset(model, 0, sizeof(*model));
    model->phys_bits = phys_bits;
    if (!vapic_sil_init(&model->m, &config, &host, model, model->cpus, 8) ||
        !vapic_sil_cpu_init(&model->cpu, &model->m, APIC_ID_HOST)) {
        free(model);
        return NULL;
    }
    vapic_sil_vmcs_init(&model->vmcs);
    memset((uint8_t *)model->memory[PAGE_BITMAP_SET] + 0x100, 0xFF, 0x20);
    memset((uint8_t *)model->memory[PAGE_BITMAP_SET] + 0x900, 0xFF, 0x20);
    return model;
}

void model_free(struct model *model)
{
    free(model);
}

/* ---- The VMCS ---- */

static void set(struct model *model, uint32_t field, uint64_t value)
{
    if (!vapic_sil_vmwrite(&model->vmcs, field, value)) {
        fprintf(stderr, "the model has no VMCS field %Xh\n", field);
        abort();
    }
}

static uint64_t get(const struct model *model, uint32_t field)
{
    uint64_t value = 0;

    if (!vapic_sil_vmread(&model->vmcs, field, &value)) {
        fprintf(stderr, "the model has no VMCS field %Xh\n", field);
        abort();
    }
    return value;
}

static uint32_t map(uint32_t controls, uint32_t from, uint32_t to)
{
    return controls & from ? to : 0;
}

static void set_controls(struct model *model)
{
    uint32_t n = model->c.controls;

    set(model, VMCS_PIN_CONTROLS,
        VMX_PIN_MUST | map(n, C_EIE, VMX_PIN_EXTINT_EXITING) |
            map(n, C_PPI, VMX_PIN_POSTED_INTERRUPTS));
    set(model, VMCS_PRIMARY_CONTROLS,
        VMX_PRI_MUST | map(n, C_TS, VMX_PRI_TPR_SHADOW) | map(n, C_SEC, VMX_PRI_SECONDARY) |
            map(n, C_BM, VMX_PRI_MSR_BITMAPS) | map(n, C_IWE, VMX_PRI_INTERRUPT_WINDOW) |
            map(n, C_HLT, VMX_PRI_HLT_EXITING) | map(n, C_CRL, VMX_PRI_CR8_LOAD) |
            map(n, C_CRS, VMX_PRI_CR8_STORE));
    set(model, VMCS_SECONDARY_CONTROLS,
        map(n, C_VAA, VMX_SEC_APIC_ACCESSES) | map(n, C_VX2, VMX_SEC_X2APIC) |
            map(n, C_ARV, VMX_SEC_APIC_REGISTER) | map(n, C_VID, VMX_SEC_INTERRUPT_DELIVERY) |
            map(n, C_EPT, VMX_SEC_EPT));
    set(model, VMCS_EXIT_CONTROLS, VMX_EXC_MUST | map(n, C_AIE, VMX_EXC_ACK_INTERRUPT));
}

static uint64_t spoilt(const struct model *model, enum page page, enum case_spoil align,
                       enum case_spoil width)
{
    if (model->c.spoil == align)
        return HPA(page) + 8;
    return model->c.spoil == width ? HPA(page) | UINT64_C(1) << model->phys_bits : HPA(page);
}

static void set_case(struct model *model)
{
    const struct apicv_case *c = &model->c;
    enum page bitmap = c->controls & C_BITS ? PAGE_BITMAP_SET : PAGE_BITMAP_CLEAR;

    set(model, VMCS_VIRTUAL_APIC,
        spoilt(model, PAGE_VIRTUAL, SPOIL_VAPIC_ALIGN, SPOIL_VAPIC_WIDTH));
    set(model, VMCS_APIC_ACCESS,
        spoilt(model, PAGE_ACCESS, SPOIL_ACCESS_ALIGN, SPOIL_ACCESS_WIDTH));
    set(model, VMCS_MSR_BITMAP, spoilt(model, bitmap, SPOIL_BITMAP_ALIGN, SPOIL_BITMAP_WIDTH));
    set(model, VMCS_PID, spoilt(model, PAGE_DESCRIPTOR, SPOIL_PID_ALIGN, SPOIL_PID_WIDTH));
    set(model, VMCS_NOTIFICATION_VECTOR, c->spoil == SPOIL_VECTOR ? 0x1F2 : 0xF2);
    set(model, VMCS_ENTRY_MSR_LOAD, HPA(PAGE_MSRS));
    set(model, VMCS_ENTRY_MSR_LOAD_COUNT, c->load_msr ? 1 : 0);
    model->memory[PAGE_MSRS][0] = c->load_msr;
    set(model, VMCS_GUEST_RFLAGS, 2 | (c->interrupt_flag ? VMX_RFLAGS_IF : 0));
    set(model, VMCS_GUEST_ACTIVITY, c->halted ? VMX_ACTIVITY_HLT : VMX_ACTIVITY_ACTIVE);
    set(model, VMCS_GUEST_INTERRUPT_STATUS, VMX_STATUS_MAKE(c->rvi, c->svi));
    for (unsigned i = 0; i < 4; i++)
        set(model, VMCS_EOI_EXIT0 + 2 * i, c->eoi_exit[i]);
}

static void set_entry(struct model *model)
{
    set_controls(model);
    set(model, VMCS_TPR_THRESHOLD, model->c.threshold);
    set(model, VMCS_GUEST_RIP, RIP_START);
    set(model, VMCS_GUEST_RFLAGS, get(model, VMCS_GUEST_RFLAGS) & ~(uint64_t)VMX_RFLAGS_RF);
    set(model, VMCS_GUEST_SS_RIGHTS, model->c.user ? 0xC0F3 : 0xC093);
    set(model, VMCS_GUEST_INTERRUPTIBILITY, model->c.blocking);
    set(model, VMCS_ENTRY_INTR_INFO, model->c.inject ? VMX_INFO_VALID | model->c.inject : 0);
    set(model, VMCS_GUEST_PENDING_DEBUG, 0);
}

/* ---- Exits ---- */

static bool quirk(const struct model *model, enum quirk q)
{
    return model->quirks >> q & 1;
}

/* What Bochs says of an exit otherwise. */
static void imitate_exit(const struct model *model, struct outcome_exit *exit)
{
    unsigned type = exit->reason == VMX_EXIT_APIC_ACCESS ? APICV_QUAL_TYPE(exit->qualification) : 0;

    if (quirk(model, QUIRK_FRAME_RF) && exit->vectoring >> 31)
        exit->resume = true;
    if (quirk(model, QUIRK_FRAME_VECTOR))
        exit->vectoring &= ~(uint32_t)VMX_INFO_VECTOR;
    if (quirk(model, QUIRK_WALK_TYPE) && type >= APICV_ACCESS_PHYS_EVENT)
        exit->qualification = (model->walked & APICV_QUAL_OFFSET) |
                              (type == APICV_ACCESS_PHYS_EVENT ? APICV_ACCESS_EVENT : 0)
                                  << APICV_QUAL_TYPE_SHIFT;
    if (quirk(model, QUIRK_HALT_SAVED) &&
        (exit->reason == VMX_EXIT_EXTINT || exit->reason == VMX_EXIT_INTERRUPT_WINDOW))
        exit->halted = false;
    if (quirk(model, QUIRK_RMW_TYPE) && model->modifies && type == APICV_ACCESS_WRITE)
        exit->qualification &= APICV_QUAL_OFFSET;
    if (quirk(model, QUIRK_RMW_EPT) && model->modifies && exit->reason == VMX_EXIT_EPT_VIOLATION)
        exit->qualification &= ~(uint64_t)VMX_EPT_QUAL_READ;
}

static enum step note_exit(struct model *model)
{
    struct outcome_exit exit = {
        .reason = (uint32_t)get(model, VMCS_EXIT_REASON),
        .qualification = get(model, VMCS_EXIT_QUALIFICATION),
        .length = (uint32_t)get(model, VMCS_EXIT_LENGTH),
        .intr_info = (uint32_t)get(model, VMCS_EXIT_INTR_INFO),
        .vectoring = (uint32_t)get(model, VMCS_IDT_VECTORING),
        .rip = get(model, VMCS_GUEST_RIP),
        .before = model->before,
        .behind = model->behind,
        .blocking = (uint8_t)get(model, VMCS_GUEST_INTERRUPTIBILITY),
        .resume = get(model, VMCS_GUEST_RFLAGS) & VMX_RFLAGS_RF,
        .halted = get(model, VMCS_GUEST_ACTIVITY) == VMX_ACTIVITY_HLT,
        .gpa = get(model, VMCS_GUEST_PHYSICAL_ADDRESS) - HPA(PAGE_ACCESS),
    };

    imitate_exit(model, &exit);
    outcome_exit(&model->outcome, &exit);
    return STEP_EXIT;
}

static enum step exception(struct model *model, unsigned vector)
{
    vapic_sil_leave(&model->cpu, EXIT_EXCEPTION, 0, 0);
    outcome_exception(&model->outcome, vector);
    return STEP_EXIT;
}

/* ---- Instruction boundaries ---- */

/* The frame of an interrupt in 64-bit mode: five words below the aligned stack pointer. A stack
 * whose page-table entry is in the page comes no further than that. */
static bool push_frame(struct model *model)
{
    uint64_t top = model->stack & ~UINT64_C(15);
    struct vapic_sil_access walked = {
        .gpa = model->walked, .kind = VAPIC_SIL_TABLE_READ, .size = 8, .more = true};

    if (model->walked)
        return vapic_sil_access(&model->cpu, &walked) == VAPIC_SIL_DONE;

    for (unsigned i = 1; i <= 5; i++) {
        struct vapic_sil_access push = {
            .gpa = top - 8 * i, .kind = VAPIC_SIL_EVENT_WRITE, .size = 8, .more = i < 5};

        if (vapic_sil_access(&model->cpu, &push) != VAPIC_SIL_DONE)
            return false;
    }
    return true;
}

static bool physical_pending(const struct model *model)
{
    const uint64_t *set = model->cpu.physical;

    return (set[0] | set[1] | set[2] | set[3]) != 0;
}

/* A halt that Bochs does not end although the model would, nothing else being there to end it. */
static bool sleeps_on(const struct model *model)
{
    const struct vapic_sil_cpu *cpu = &model->cpu;
    bool window = model->c.controls & C_IWE;

    if (!cpu->guest.halted || !cpu->guest.interrupt_flag || !vapic_sil_waiting(cpu))
        return false;
    if (cpu->apicv.below || physical_pending(model))
        return false;
    return quirk(model, window ? QUIRK_HALT_WINDOW : QUIRK_HALT_VIRTUAL);
}

/* The interrupt that was held back is there now. */
static void release(struct model *model)
{
    if (model->held)
        vapic_sil_interrupt(&model->m, APIC_ID_HOST, model->held);
    model->held = 0;
}

/* In Bochs an instruction or a gate that clears IF opens the way to an exit 1 that waited, too, and
 * a virtual interrupt that is recognized comes first, as if IF were 1. */
static void release_by_clearing(struct model *model)
{
    struct vapic_sil_cpu *cpu = &model->cpu;

    if (!model->held || !(model->c.controls & C_EIE))
        return;
    release(model);
    cpu->guest.interrupt_flag = !(model->c.controls & C_IWE) && vapic_sil_waiting(cpu);
}

/* Pushes the frame and comes to the handler's first boundary, with interrupts disabled. */
static enum step enter_handler(struct model *model)
{
    enum vapic_sil_result result;
    uint8_t vector;

    do {
        if (!push_frame(model))
            return note_exit(model);
        if (model->walked)
            return exception(model, VECTOR_PF);
        model->cpu.guest.interrupt_flag = false;
        model->cpu.guest.rip = RIP_HANDLER;
        release_by_clearing(model);
        result = vapic_sil_boundary(&model->cpu, &vector);
    } while (result == VAPIC_SIL_DELIVER); /* only where release_by_clearing() set IF */
    return result == VAPIC_SIL_EXIT ? note_exit(model) : STEP_DONE;
}

/* The handler's IRET enables interrupts again. */
static enum step deliver(struct model *model, uint8_t vector)
{
    uint64_t rip = model->cpu.guest.rip;

    if (enter_handler(model) == STEP_EXIT)
        return STEP_EXIT;
    outcome_delivery(&model->outcome, vector);
    model->cpu.guest.interrupt_flag = true;
    model->cpu.guest.rip = rip;
    return STEP_DONE;
}

static enum step sleep_out(struct model *model)
{
    vapic_sil_leave(&model->cpu, EXIT_TIMER, 0, 0);
    return note_exit(model);
}

/* Everything that comes between two instructions; the preemption timer ends a halt that nothing
 * else ends. */
static enum step boundary(struct model *model)
{
    for (;;) {
        uint8_t vector;

        if (model->cpu.guest.interrupt_flag && !model->cpu.apicv.entry_event)
            release(model);
        if (sleeps_on(model))
            return sleep_out(model);
        switch (vapic_sil_boundary(&model->cpu, &vector)) {
        case VAPIC_SIL_DELIVER:
            if (deliver(model, vector) == STEP_EXIT)
                return STEP_EXIT;
            break;
        case VAPIC_SIL_EXIT:
            return note_exit(model);
        default:
            if (!model->cpu.guest.halted)
                return STEP_DONE;
            return sleep_out(model);
        }
    }
}

/* ---- Operations ---- */

static void note_ends(struct model *model, unsigned length)
{
    model->before = RIP_OP;
    model->behind = RIP_OP + length;
    model->cpu.guest.rip = RIP_OP;
}

/* An instruction that the model completed (or not); what follows it. */
static enum step finish(struct model *model, enum vapic_sil_result result)
{
    switch (result) {
    case VAPIC_SIL_DONE:
        return boundary(model);
    case VAPIC_SIL_EXIT:
        return note_exit(model);
    case VAPIC_SIL_GP:
    case VAPIC_SIL_NATIVE:
        return exception(model, VECTOR_GP);
    default:
        fprintf(stderr, "the model refused an operation\n");
        abort();
    }
}

static uint64_t page_at(const struct case_op *op)
{
    return HPA(PAGE_ACCESS) + op->at;
}

/* QUIRK_ODD_OFFSET: the bytes get into the page, and exit 56 follows. */
static bool odd_write(struct model *model, const struct case_op *op, uint64_t value)
{
    uint32_t n = model->c.controls, slot = op->at & ~15u;
    bool odd = (slot == APIC_EOI || slot == APIC_ICR) && (op->at & 15) && (op->at & 15) < 4;

    if (!quirk(model, QUIRK_ODD_OFFSET) || !odd || (op->at & 3) + op->size > 4)
        return false;
    if ((n & (C_VAA | C_VID)) != (C_VAA | C_VID) || (n & C_ARV))
        return false;
    memcpy((uint8_t *)model->memory[PAGE_VIRTUAL] + op->at, &value, op->size);
    model->cpu.guest.rip = model->behind;
    vapic_sil_leave(&model->cpu, VMX_EXIT_APIC_WRITE, op->at, 0);
    return true;
}

static enum step access_once(struct model *model, enum vapic_sil_access_kind kind,
                             const struct case_op *op, uint64_t *value)
{
    struct vapic_sil_access access = {
        .gpa = page_at(op),
        .kind = kind,
        .size = op->size,
        .length = LENGTH_ACCESS,
        .value = *value,
    };
    enum vapic_sil_result result = vapic_sil_access(&model->cpu, &access);

    *value = access.value;
    return finish(model, result);
}

/* Reads at `from`, then writes at `to` in the same instruction. */
static enum step access_twice(struct model *model, const struct case_op *op, uint64_t from,
                              bool modify)
{
    struct vapic_sil_access access = {
        .gpa = from,
        .kind = VAPIC_SIL_READ,
        .size = op->size,
        .length = LENGTH_ACCESS,
        .more = true,
        .modify = modify,
    };
    enum vapic_sil_result result = vapic_sil_access(&model->cpu, &access);

    model->modifies = modify;
    if (result != VAPIC_SIL_DONE)
        return finish(model, result);
    model->modifies = false;
    access.gpa = page_at(op);
    access.kind = VAPIC_SIL_WRITE;
    access.more = false;
    access.modify = false;
    access.value |= modify ? op->value : 0;
    if (odd_write(model, op, access.value))
        return note_exit(model);
    return finish(model, vapic_sil_access(&model->cpu, &access));
}

static enum step op_read(struct model *model, const struct case_op *op, uint64_t *value)
{
    *value = 0;
    return access_once(model, VAPIC_SIL_READ, op, value) == STEP_EXIT ? STEP_EXIT : STEP_VALUE;
}

static enum step op_write(struct model *model, const struct case_op *op, uint64_t *value)
{
    if (odd_write(model, op, op->value))
        return note_exit(model);
    *value = op->value;
    return access_once(model, VAPIC_SIL_WRITE, op, value);
}

static enum step op_or(struct model *model, const struct case_op *op, uint64_t *value)
{
    enum step step;

    (void)value;
    step = access_twice(model, op, page_at(op), true);
    model->modifies = false;
    return step;
}

static enum step op_movs(struct model *model, const struct case_op *op, uint64_t *value)
{
    (void)value;
    return access_twice(model, op, HPA(PAGE_ACCESS) + op->value, false);
}

static enum step op_rdmsr(struct model *model, const struct case_op *op, uint64_t *value)
{
    note_ends(model, 2);
    return finish(model, vapic_sil_rdmsr(&model->cpu, op->at, value)) == STEP_EXIT ? STEP_EXIT
                                                                                   : STEP_VALUE;
}

static enum step op_wrmsr(struct model *model, const struct case_op *op, uint64_t *value)
{
    uint32_t *page = model->memory[PAGE_VIRTUAL];
    const uint32_t was[] = {page[APIC_SELF_IPI / 4], page[APIC_SELF_IPI / 4 + 1]};
    const uint32_t eoi = page[APIC_EOI / 4 + 1];
    enum vapic_sil_result result;

    (void)value;
    note_ends(model, 2);
    result = vapic_sil_wrmsr(&model->cpu, op->at, op->value);
    if (result == VAPIC_SIL_DONE && quirk(model, QUIRK_SELF_IPI_PAGE))
        memcpy(&page[APIC_SELF_IPI / 4], was, sizeof(was));
    if (quirk(model, QUIRK_EOI_PAGE))
        page[APIC_EOI / 4 + 1] = eoi;
    return finish(model, result);
}

static enum step op_read_cr8(struct model *model, const struct case_op *op, uint64_t *value)
{
    enum vapic_sil_result result;

    (void)op;
    note_ends(model, 4);
    result = vapic_sil_read_cr8(&model->cpu, value);
    if (result == VAPIC_SIL_NATIVE) {
        *value = model->cr8;
        return STEP_VALUE;
    }
    return finish(model, result) == STEP_EXIT ? STEP_EXIT : STEP_VALUE;
}

static enum step op_write_cr8(struct model *model, const struct case_op *op, uint64_t *value)
{
    enum vapic_sil_result result;

    (void)value;
    note_ends(model, 4);
    result = vapic_sil_write_cr8(&model->cpu, op->value);
    if (result != VAPIC_SIL_NATIVE || op->value > 15)
        return finish(model, result);
    model->cr8 = op->value;
    return STEP_DONE;
}

static enum step set_flag(struct model *model, bool flag, unsigned length)
{
    note_ends(model, length);
    model->cpu.guest.interrupt_flag = flag;
    model->cpu.guest.rip = model->behind;
    if (!flag)
        release_by_clearing(model);
    return boundary(model);
}

static enum step op_sti(struct model *model, const struct case_op *op, uint64_t *value)
{
    (void)op;
    (void)value;
    return set_flag(model, true, 2);
}

static enum step op_cli(struct model *model, const struct case_op *op, uint64_t *value)
{
    (void)op;
    (void)value;
    return set_flag(model, false, 1);
}

static enum step op_hlt(struct model *model, const struct case_op *op, uint64_t *value)
{
    (void)value;
    note_ends(model, 1);
    if (op->at) {
        model->cpu.guest.shadow = !model->cpu.guest.interrupt_flag;
        model->cpu.guest.interrupt_flag = true;
    }
    return finish(model, vapic_sil_hlt(&model->cpu));
}

static enum step op_push(struct model *model, const struct case_op *op, uint64_t *value)
{
    enum step step;

    (void)value;
    model->stack = page_at(op);
    step = set_flag(model, true, 2);
    model->stack = HPA(PAGE_STACK) + PAGE;
    return step;
}

/* Not present, when it can be read: the page holds no page-table entries. */
static enum step op_walk(struct model *model, const struct case_op *op, uint64_t *value)
{
    struct vapic_sil_access access = {.gpa = page_at(op),
                                      .kind = VAPIC_SIL_TABLE_READ,
                                      .size = 8,
                                      .length = LENGTH_ACCESS,
                                      .more = true};
    enum vapic_sil_result result;
    enum step step;

    (void)value;
    model->walked = page_at(op);
    result = vapic_sil_access(&model->cpu, &access);
    step = result == VAPIC_SIL_EXIT ? note_exit(model) : exception(model, VECTOR_PF);
    model->walked = 0;
    return step;
}

static enum step op_walk_push(struct model *model, const struct case_op *op, uint64_t *value)
{
    enum step step;

    (void)value;
    model->walked = page_at(op);
    step = set_flag(model, true, 2);
    model->walked = 0;
    return step;
}

/* Ordinary memory to the guest. */
static enum step op_store(struct model *model, const struct case_op *op, uint64_t *value)
{
    struct vapic_sil_access access = {.gpa = HPA(PAGE_VIRTUAL) + op->at,
                                      .kind = VAPIC_SIL_WRITE,
                                      .size = 4,
                                      .length = LENGTH_ACCESS,
                                      .value = op->value};

    (void)value;
    return finish(model, vapic_sil_access(&model->cpu, &access));
}

static enum step (*const operations[OP_CODES])(struct model *model, const struct case_op *op,
                                               uint64_t *value) = {
    [OP_READ] = op_read,
    [OP_WRITE] = op_write,
    [OP_OR] = op_or,
    [OP_MOVS] = op_movs,
    [OP_RDMSR] = op_rdmsr,
    [OP_WRMSR] = op_wrmsr,
    [OP_READ_CR8] = op_read_cr8,
    [OP_WRITE_CR8] = op_write_cr8,
    [OP_STI] = op_sti,
    [OP_CLI] = op_cli,
    [OP_HLT] = op_hlt,
    [OP_PUSH] = op_push,
    [OP_WALK] = op_walk,
    [OP_WALK_PUSH] = op_walk_push,
    [OP_STORE] = op_store,
};

/* The guest has a few instructions before its first operation: they end blocking. */
static enum step first_instruction(struct model *model)
{
    if (!model->cpu.guest.shadow)
        return STEP_DONE;
    model->cpu.guest.shadow = false;
    return boundary(model);
}

/* From an entry to an exit that is not the case's end: true. */
static bool run_guest(struct model *model)
{
    if (boundary(model) == STEP_EXIT)
        return true;
    if (first_instruction(model) == STEP_EXIT)
        return true;
    while (model->next < model->c.count) {
        const struct case_op *op = &model->c.ops[model->next++];
        uint64_t value = 0;

        note_ends(model, LENGTH_ACCESS);
        switch (operations[op->code](model, op, &value)) {
        case STEP_EXIT:
            return true;
        case STEP_VALUE:
            outcome_value(&model->outcome, value);
            break;
        default:
            outcome_done(&model->outcome);
            break;
        }
    }
    vapic_sil_leave(&model->cpu, EXIT_VMCALL, 0, 3);
    return false;
}

/* ---- The host ---- */

static void drain(struct model *model)
{
    while (vapic_sil_take_interrupt(&model->cpu) >= 0)
        ;
}

/* QUIRK_EXTERNAL_IF: what was not taken is held back anew. */
static void hold(struct model *model)
{
    bool open = get(model, VMCS_GUEST_RFLAGS) & VMX_RFLAGS_IF;
    int vector;

    if (!quirk(model, QUIRK_EXTERNAL_IF) || open)
        return;
    vector = vapic_sil_take_interrupt(&model->cpu);
    if (vector >= 0)
        model->held = (uint8_t)vector;
}

/* One entry and exit; false when the case is over. */
static bool enter(struct model *model)
{
    hold(model);
    model->before = model->behind = 0;
    switch (vapic_sil_vmentry(&model->cpu, &model->vmcs)) {
    case VAPIC_SIL_INVALID:
        outcome_entry_error(&model->outcome, (unsigned)get(model, VMCS_INSTRUCTION_ERROR));
        return false;
    case VAPIC_SIL_EXIT:
        outcome_entry_exit(&model->outcome, (uint32_t)get(model, VMCS_EXIT_REASON),
                           get(model, VMCS_EXIT_QUALIFICATION));
        return false;
    default:
        break;
    }
    if (!run_guest(model))
        return false;
    if (get(model, VMCS_EXIT_REASON) == EXIT_EXTERNAL)
        drain(model);
    model->c.inject = model->c.blocking = 0;
    case_after_exit(&model->c, (uint32_t)get(model, VMCS_EXIT_REASON));
    set(model, VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE);
    return true;
}

static void note_pages(struct model *model)
{
    for (uint32_t i = 0; i < WORDS; i++)
        if (model->memory[PAGE_VIRTUAL][i] != case_page_word(&model->c, 4 * i))
            outcome_word(&model->outcome, 'p', 4 * i, model->memory[PAGE_VIRTUAL][i]);
    for (uint32_t i = 0; i < WORDS; i++)
        if (model->memory[PAGE_ACCESS][i] != case_access_word(4 * i))
            outcome_word(&model->outcome, 'a', 4 * i, model->memory[PAGE_ACCESS][i]);
}

static void interrupt(struct model *model)
{
    model->held = model->c.physical;
    if (model->held && !quirk(model, QUIRK_EXTERNAL_IF)) {
        vapic_sil_interrupt(&model->m, APIC_ID_HOST, model->held);
        model->held = 0;
    }
}

const struct outcome *model_run(struct model *model, uint32_t n, unsigned quirks)
{
    case_make(n, &model->c);
    model->quirks = quirks;
    outcome_begin(&model->outcome);
    for (uint32_t i = 0; i < WORDS; i++) {
        model->memory[PAGE_VIRTUAL][i] = case_page_word(&model->c, 4 * i);
        model->memory[PAGE_ACCESS][i] = case_access_word(4 * i);
    }
    model->next = 0;
    model->cr8 = 0;
    model->stack = HPA(PAGE_STACK) + PAGE;
    set_case(model);
    interrupt(model);
    for (unsigned i = 0; i < CASE_ENTRIES; i++) {
        set_entry(model);
        if (!enter(model))
            break;
    }
    drain(model);
    if ((model->c.controls & (C_SEC | C_VID)) == (C_SEC | C_VID))
        outcome_status(&model->outcome, (uint16_t)get(model, VMCS_GUEST_INTERRUPT_STATUS));
    note_pages(model);
    return &model->outcome;
}
