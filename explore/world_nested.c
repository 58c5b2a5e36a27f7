/* SPDX-License-Identifier: MIT */
/*
 * The nested part of a world: L1 is a hypervisor, and its L2 has an APIC. L1 is scripted: its
 * memory is a few pages (WORLD_L1_*), its control blocks 12 are constant, and what its code does is
 * a step of a program. What L0 does is the documented loop of nested.h. Called by the run loop, the
 * guest and the other actors.
 *
 * vCPU n of L1 runs vCPU n of L2. When L2 is left for an interrupt of L1's, L1 takes that and
 * enters L2 again, until L2 itself has come to G_LEAVE. L1 intercepts interrupts, and not HLT.
 *
 * Accounts. An interrupt for L2 that was sent is due until L2 takes it; in the end, nothing is due
 * at an L2 that is current, and what waits in L1 lies where L1 will find it: in IRR, or in the
 * descriptor with the notification told.
 */
#include "world_parts.h"

#include "vapic/arch/apic.h"

#include <string.h>

#define CONTROL_BLOCK_CHECK(condition) world_require(condition, #condition)
#include "../tests/control_block.h"

#define L1_GPA     0x10000000ull
#define L2_TAG     32u /* ASIDs and VPIDs of L2: these and up */
#define FIRST      0x40u
#define LAST       0x5Fu
#define RUNNING_HI (1u << 30) /* AVIC_PHYSICAL_RUNNING and _VALID in an entry's high word */
#define VALID_HI   (1u << 31)
#define SECONDARY  (VMX_SEC_X2APIC | VMX_SEC_APIC_REGISTER | VMX_SEC_INTERRUPT_DELIVERY)

static bool amd(const struct world *w)
{
    return w->vendor == &world_amd;
}

static uint8_t *l1_page(const struct world *w, uint32_t page)
{
    return w->l1 + page * PAGE;
}

static uint64_t l1_gpa(uint32_t page)
{
    return L1_GPA + page * (uint64_t)PAGE;
}

/* Vectors of L2's are all in one word. */
static uint32_t *irr(const struct world_vcpu *v)
{
    return (uint32_t *)(void *)(l1_page(v->w, WORLD_L1_APIC(v->n)) + APIC_IRR + 16 * (FIRST / 32));
}

static uint32_t *descriptor(const struct world_vcpu *v)
{
    return (uint32_t *)(void *)(l1_page(v->w, WORLD_L1_PIDS) + PID_SIZE * v->n);
}

static uint32_t *entry(const struct world_vcpu *v)
{
    return (uint32_t *)(void *)(l1_page(v->w, WORLD_L1_TABLE) + 8 * v->n);
}

static uint32_t vector_bit_of(uint32_t vector)
{
    world_require(vector >= FIRST && vector <= LAST, "a vector of L2's");
    return 1u << (vector & 31);
}

/* ---- L0's callbacks ---- */

static uint32_t page_of(const struct world *w, uint64_t gpa)
{
    (void)w;
    if (gpa < L1_GPA || gpa >= l1_gpa(WORLD_L1_PAGES))
        return WORLD_L1_PAGES;
    return (uint32_t)((gpa - L1_GPA) / PAGE);
}

static bool host_pin(void *ctx, uint64_t gpa, struct vapic_l1_page *pin)
{
    struct world *w = ctx;
    uint32_t page = page_of(w, gpa);

    if (page == WORLD_L1_PAGES || ex_read(&w->l1_gone[page], "is the page there?"))
        return false;
    w->l1_pins[page]++;
    *pin = (struct vapic_l1_page){l1_page(w, page), world_hpa(w, l1_page(w, page))};
    return true;
}

static bool names(uint64_t pointer, uint64_t hpa)
{
    return (pointer & AVIC_ADDRESS) == hpa;
}

static bool cpu_uses(const struct world_vcpu *v, uint64_t hpa)
{
    const struct vapic_sil_cpu *cpu = v->cpu;

    if (cpu == NULL || !cpu->in_guest || !in_l2(v))
        return false;
    return names(v->l2s.uses[0], hpa) || names(v->l2s.uses[1], hpa);
}

/* Valid entries of L0's tables. What else lies there has the top bit clear. */
static bool table_names(const struct world *w, uint64_t hpa)
{
    for (size_t i = 0; i < w->nested_size / sizeof(uint64_t); i++)
        if (w->nested_memory[i] & AVIC_PHYSICAL_VALID && names(w->nested_memory[i], hpa))
            return true;
    return false;
}

static void host_unpin(void *ctx, uint64_t gpa, const struct vapic_l1_page *pin)
{
    struct world *w = ctx;
    uint32_t page = page_of(w, gpa);

    world_require(page < WORLD_L1_PAGES && w->l1_pins[page] > 0, "a pinned page");
    if (--w->l1_pins[page] > 0)
        return;
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++)
        if (cpu_uses(&w->v[n], pin->hpa))
            EX_BROKEN(PINNED, "page %u of L1's is given back while L2 of vCPU %u uses it", page, n);
    if (amd(w) && table_names(w, pin->hpa))
        EX_BROKEN(PINNED, "page %u of L1's is given back, and a table names it", page);
}

static bool host_track(void *ctx, uint64_t gpa, bool on)
{
    struct world *w = ctx;

    world_require(page_of(w, gpa) == WORLD_L1_TABLE, "L1's table");
    ex_write(&w->tracked, on, "table tracked");
    return true;
}

static struct world_vcpu *vcpu_of(struct vapic *v)
{
    return (struct world_vcpu *)(void *)v;
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    vmcs_set_bits(&vcpu_of(v)->vmcs02, field, mask, value);
}

static uint16_t host_interrupt_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    return (uint16_t)vmcs_get(&vcpu_of(v)->vmcs02, VMCS_GUEST_INTERRUPT_STATUS);
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    struct world *w = ctx;

    if (!amd(w)) {
        vapic_pass_to_bitmap(pass, vcpu_of(v)->l2s.msrs02);
        return;
    }
    vapic_pass_to_msrpm(pass, vcpu_of(v)->l2s.msrs02);
    vmcb_dirty(vcpu_of(v)->vmcb02, VMCB_CLEAN_PERMISSION);
}

static const struct vapic_nested_host nested_host = {
    .size = sizeof(struct vapic_nested_host),
    .pin = host_pin,
    .unpin = host_unpin,
    .track = host_track,
    .control = host_control,
    .interrupt_status = host_interrupt_status,
    .intercept = host_intercept,
};

/* ---- L1's memory, control blocks ---- */

static void make_l1(struct world_vcpu *v)
{
    struct world *w = v->w;
    uint8_t *page = l1_page(w, WORLD_L1_APIC(v->n));
    uint64_t *table = (uint64_t *)(void *)l1_page(w, WORLD_L1_TABLE);
    uint64_t control = (uint64_t)L1_NOTIFY << PID_NV_SHIFT | (uint64_t)PID_NDST_XAPIC(v->n)
                                                                 << PID_NDST_SHIFT;
    uint32_t id = v->l2s.x2 ? v->n : v->n << 24, dfr = UINT32_MAX;

    memcpy(page + APIC_ID, &id, sizeof(id));
    memcpy(page + APIC_DFR, &dfr, sizeof(dfr));
    memcpy((uint8_t *)descriptor(v) + PID_CONTROL, &control, sizeof(control));
    table[v->n] =
        amd(w) ? AVIC_PHYSICAL_VALID | AVIC_PHYSICAL_RUNNING | l1_gpa(WORLD_L1_APIC(v->n)) | v->n
               : (l1_gpa(WORLD_L1_PIDS) + PID_SIZE * v->n) | APICV_PID_ENTRY_VALID;
    ex_name_array(page + APIC_IRR, 0x80, 0x10, ex_text("l2-%u.IRR", v->n));
    ex_name_array(descriptor(v), 32, 4, ex_text("l2-%u.PIR", v->n));
    ex_name((uint8_t *)descriptor(v) + PID_CONTROL, 8, ex_text("l2-%u.PID", v->n));
    ex_name(&v->l2s.lib.pending, 4, ex_text("l2-%u.latch", v->n));
    ex_name(&v->l2s.lib.again, 4, ex_text("l2-%u.look-again", v->n));
    ex_name(&v->l2s.lib.posted, sizeof(v->l2s.lib.posted), ex_text("l2-%u.L0-PID", v->n));
    ex_name(&v->apic.nested_vector, 4, ex_text("v%u.nested-vector", v->n));
}

static void make_12_amd(struct world_vcpu *v)
{
    uint8_t *vmcb = v->l2s.vmcb12;

    vmcb_set64(vmcb, VMCB_INT_CTL,
               VMCB_V_INTR_MASKING | VMCB_V_AVIC | (v->l2s.x2 ? VMCB_V_X2AVIC : 0));
    vmcb_set32(vmcb, VMCB_INTERCEPT3, VMCB_I3_INTR);
    vmcb_set64(vmcb, VMCB_NP_ENABLE, VMCB_NP_ENABLED);
    vmcb_set64(vmcb, VMCB_AVIC_BAR, APIC_DEFAULT_BASE);
    vmcb_set64(vmcb, VMCB_AVIC_BACKING, l1_gpa(WORLD_L1_APIC(v->n)));
    vmcb_set64(vmcb, VMCB_AVIC_LOGICAL, l1_gpa(WORLD_L1_LOGICAL(v->n)));
    vmcb_set64(vmcb, VMCB_AVIC_PHYSICAL, l1_gpa(WORLD_L1_TABLE) | (v->w->spec->vcpu_count - 1));
    vmcb_create(v->vmcb02, v->l2s.msrs02, world_hpa(v->w, v->l2s.msrs02), L2_TAG + v->n);
    vmcb_set64(v->vmcb02, VMCB_RFLAGS, VMCB_RFLAGS_IF | 2);
}

static void make_12_intel(struct world_vcpu *v)
{
    bool ipiv = (v->w->features & VAPIC_ACCEL_IPIV) != 0;

    v->l2s.vmcs12 = (struct vapic_vmcs12){
        .pin = VMX_PIN_EXTINT_EXITING | VMX_PIN_POSTED_INTERRUPTS,
        .primary = VMX_PRI_TPR_SHADOW | VMX_PRI_SECONDARY | VMX_PRI_MSR_BITMAPS |
                   (ipiv ? VMX_PRI_TERTIARY : 0),
        .secondary = SECONDARY,
        .tertiary = ipiv ? VMX_TER_IPI_VIRTUALIZATION : 0,
        .exit = VMX_EXC_ACK_INTERRUPT,
        .notification_vector = L1_NOTIFY,
        .last_pid_index = (uint16_t)(v->w->spec->vcpu_count - 1),
        .virtual_apic = l1_gpa(WORLD_L1_APIC(v->n)),
        .pid = l1_gpa(WORLD_L1_PIDS) + PID_SIZE * v->n,
        .pid_table = l1_gpa(WORLD_L1_TABLE),
    };
    memset(v->l2s.msrs02, 0xFF, PAGE);
    vmcs_create(&v->vmcs02, world_hpa(v->w, v->l2s.msrs02), world_hpa(v->w, v->w->scratch),
                L2_TAG + v->n);
    vmcs_set(&v->vmcs02, VMCS_EPTP, 0x2000);
    vmcs_set(&v->vmcs02, VMCS_GUEST_RIP, 0x1000);
    vmcs_set_bits(&v->vmcs02, VMCS_GUEST_RFLAGS, VMX_RFLAGS_IF, VMX_RFLAGS_IF);
}

void world_attach_l2(struct world_vcpu *v)
{
    struct vapic_nested_vcpu_config config = {.vmcb02 = v->vmcb02};

    v->l2s.x2 = !amd(v->w) || v->w->features & VAPIC_ACCEL_X2AVIC;
    make_l1(v);
    if (amd(v->w))
        make_12_amd(v);
    else
        make_12_intel(v);
    world_require(vapic_nested_attach(&v->apic, &v->l2s.lib, sizeof(v->l2s.lib), &config) ==
                      VAPIC_OK,
                  "a vCPU's nested support");
}

static uint32_t offered(const struct world *w)
{
    if (amd(w))
        return VAPIC_NESTED_AVIC | (w->features & VAPIC_ACCEL_X2AVIC ? VAPIC_NESTED_X2AVIC : 0);
    return VAPIC_NESTED_APICV | VAPIC_NESTED_POSTED |
           (w->features & VAPIC_ACCEL_IPIV ? VAPIC_NESTED_IPIV : 0);
}

size_t world_take_nested(struct world *w, void *memory)
{
    struct vapic_nested_config config = {
        .features = offered(w),
        .strategy = w->spec->nested == WORLD_SHADOW ? VAPIC_NESTED_SHADOW : VAPIC_NESTED_DUMMY,
        .tables = 1,
        .entries = WORLD_VCPUS,
        .notify_vector = NESTED_VECTOR,
    };
    struct vapic_accel_config accel = {.kind = w->accel.kind,
                                       .features = w->accel.features,
                                       .max_id = WORLD_VCPUS - 1,
                                       .notify_vector = NOTIFY_VECTOR,
                                       .wakeup_vector = WAKEUP_VECTOR};
    size_t size = vapic_nested_memory(&config, &accel);

    world_require(size != 0, "nested support");
    if (memory == NULL)
        return size;
    w->nested_memory = memory;
    w->nested_size = size;
    world_require(vapic_nested_init(&w->nested, sizeof(w->nested), &w->vm, &config, &nested_host,
                                    memory, size) == VAPIC_OK,
                  "nested support of the VM");
    return size;
}

/* ---- Into L2, out of it ---- */

static struct vapic_nested_view view_of(const struct world_vcpu *v)
{
    static const struct vapic_msr_pass all = {{~0ull, ~0ull, ~0ull, ~0ull},
                                              {~0ull, ~0ull, ~0ull, ~0ull}};

    return (struct vapic_nested_view){.vmcb12 = v->l2s.vmcb12,
                                      .vmcs12 = amd(v->w) ? NULL : &v->l2s.vmcs12,
                                      .pass = &all,
                                      .l1_if = true};
}

/* L1, before it enters L2: what was posted goes into IRR, as SDM's algorithm has it. */
static void l1_harvest(struct world_vcpu *v)
{
    uint32_t *pid = descriptor(v), bits;

    if (!(ex_read(&pid[PID_CONTROL / 4], "L1: ON?") & PID_ON))
        return;
    ex_add(&pid[PID_CONTROL / 4], -(uint32_t)PID_ON, "L1: clears ON");
    bits = ex_swap(&pid[FIRST / 32], 0, "L1: takes PIR");
    ex_add(irr(v), bits & ~ex_read(irr(v), "L1: IRR"), "L1: into IRR");
}

static void l1_raise_rvi(struct world_vcpu *v)
{
    uint32_t bits = ex_read(irr(v), "L1: IRR"), top;

    if (bits == 0)
        return;
    top = FIRST + 31u - (uint32_t)__builtin_clz(bits);
    v->l2s.vmcs12.interrupt_status =
        (uint16_t)VMX_STATUS_MAKE(top, VMX_STATUS_SVI(v->l2s.vmcs12.interrupt_status));
}

static bool has_memory(void *arg)
{
    struct world *w = arg;

    for (uint32_t i = 0; i < WORLD_L1_PAGES; i++)
        if (ex_read(&w->l1_gone[i], "is the memory there?"))
            return false;
    return true;
}

static void wait_for_memory(struct world_vcpu *v)
{
    world_call_end(v->w);
    ex_may_end(true);
    ex_wait(has_memory, v->w, "in user space, memory is missing");
    ex_may_end(false);
    world_call_begin(v->w);
}

static void vmrun(struct world_vcpu *v)
{
    struct vapic_nested_view view = view_of(v);

    if (!amd(v->w)) {
        l1_harvest(v);
        l1_raise_rvi(v);
    }
    ex_note("enters L2");
    v->l2 = true;
    v->l2s.controls[0] = 0;
    v->l2s.last = NULL;
    if (vapic_nested_enter(&v->apic, &view) == VAPIC_OK)
        return;
    v->l2 = false;
    wait_for_memory(v); /* and executes the instruction again */
}

void world_restore_l2(struct world_vcpu *v)
{
    struct vapic_nested_view view = view_of(v);

    v->l2 = true;
    v->l2s.inside = true;
    world_require(vapic_nested_restore(&v->apic, &view, true) == VAPIC_OK, "a vCPU in L2");
}

static void leave_l2(struct world_vcpu *v)
{
    struct vapic_nested_left left;

    vapic_nested_leave(&v->apic, &left);
    v->l2s.vmcs12.interrupt_status = left.interrupt_status;
    v->l2 = false;
    v->l2s.notified = false;
    vapic_nested_exit(&v->apic);
    ex_note("in L1");
}

/* "Acknowledge interrupt on exit": L1 has the vector from the exit. */
static void acknowledge(struct world_vcpu *v)
{
    int vector = vapic_nested_acknowledge(&v->apic);

    if (vector < 0 || vector > 255)
        return;
    ex_note("takes %02Xh from the exit", vector);
    world_delivered(v, (uint8_t)vector);
    v->eois++;
    ex_add(&v->deliveries, 1, "takes an interrupt");
}

bool world_l2_turn(struct world_vcpu *v)
{
    if (v->entry.nested == VAPIC_NESTED_STOP) {
        wait_for_memory(v);
        return true;
    }
    if (!v->entry.runnable || v->entry.nested != VAPIC_NESTED_LEAVE)
        return false;
    vapic_exit(&v->apic, v->entry.cr8, true);
    ex_write(&v->watched, 0, "exit");
    leave_l2(v);
    if (!amd(v->w))
        acknowledge(v);
    return true;
}

/* ---- 02 ---- */

static void check_controls(struct world_vcpu *v)
{
    static const uint32_t fields[4] = {VMCS_PIN_CONTROLS, VMCS_SECONDARY_CONTROLS,
                                       VMCS_TERTIARY_CONTROLS, VMCS_TPR_THRESHOLD};
    bool first = v->l2s.controls[0] == 0;

    for (uint32_t i = 0; i < 4; i++) {
        uint64_t value = vmcs_get(&v->vmcs02, fields[i]);

        if (first)
            v->l2s.controls[i] = value;
        else if (value != v->l2s.controls[i])
            EX_BROKEN(CONTROLS, "vCPU %u: field %#x of vmcs02 has changed: %#llx, was %#llx", v->n,
                      fields[i], (unsigned long long)value, (unsigned long long)v->l2s.controls[i]);
    }
    if ((vmcs_get(&v->vmcs02, VMCS_SECONDARY_CONTROLS) & SECONDARY) != SECONDARY)
        EX_BROKEN(CONTROLS, "vCPU %u: vmcs02 has not what vmcs12 asks for", v->n);
}

static void check_pinned(struct world_vcpu *v, uint32_t slot, uint64_t pointer)
{
    const struct world *w = v->w;

    v->l2s.uses[slot] = pointer;
    for (uint32_t i = 0; i < WORLD_L1_PAGES; i++)
        if (names(pointer, world_hpa(w, l1_page(w, i))) && w->l1_pins[i] == 0)
            EX_BROKEN(PINNED, "vCPU %u enters L2, which has page %u of L1's: not pinned", v->n, i);
}

static enum vapic_sil_result enter_amd(struct world_vcpu *v)
{
    uint64_t mode = VMCB_V_AVIC | (v->l2s.x2 ? VMCB_V_X2AVIC : 0);

    if ((vmcb_get64(v->vmcb02, VMCB_INT_CTL) & (VMCB_V_AVIC | VMCB_V_X2AVIC)) != mode)
        EX_BROKEN(CONTROLS, "vCPU %u: vmcb02 has not the AVIC that vmcb12 asks for", v->n);
    check_pinned(v, 0, vmcb_get64(v->vmcb02, VMCB_AVIC_BACKING));
    check_pinned(v, 1, vmcb_get64(v->vmcb02, VMCB_AVIC_LOGICAL));
    vmcb_set32(v->vmcb02, VMCB_CLEAN, 0);
    vmcb_set64(v->vmcb02, VMCB_EVENTINJ, 0);
    if (v->cpu != v->l2s.last)
        v->vmcb02[VMCB_TLB_CONTROL] = VMCB_TLB_ASID;
    v->l2s.last = v->cpu;
    return vapic_sil_vmrun(v->cpu, world_hpa(v->w, v->vmcb02));
}

static enum vapic_sil_result enter_intel(struct world_vcpu *v)
{
    check_controls(v);
    check_pinned(v, 0, vmcs_get(&v->vmcs02, VMCS_VIRTUAL_APIC));
    check_pinned(v, 1, vmcs_get(&v->vmcs02, VMCS_PID));
    vmcs_set(&v->vmcs02, VMCS_ENTRY_INTR_INFO, 0);
    vmcs_set(&v->vmcs02, VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE);
    vmcs_set(&v->vmcs02, VMCS_GUEST_INTERRUPTIBILITY, 0);
    if (v->cpu != v->l2s.last)
        vapic_sil_flush(v->cpu, APIC_DEFAULT_BASE);
    v->l2s.last = v->cpu;
    return vapic_sil_vmentry(v->cpu, &v->vmcs02);
}

enum vapic_sil_result world_enter_l2(struct world_vcpu *v)
{
    return amd(v->w) ? enter_amd(v) : enter_intel(v);
}

/* ---- L1's software ---- */

/* It posts by the descriptor and notifies, or by IRR and the doorbell. Which vCPU's doorbell the
 * library is told of does not matter: the ID in it does. */
static void l1_posts(struct world_vcpu *to, uint32_t vector)
{
    uint32_t bit = vector_bit_of(vector), *pid = descriptor(to), high;

    if (!amd(to->w)) {
        ex_add(&pid[FIRST / 32], bit, "L1: posts");
        if (ex_read(&pid[PID_CONTROL / 4], "L1: ON, SN?") & (PID_ON | PID_SN))
            return;
        ex_add(&pid[PID_CONTROL / 4], PID_ON, "L1: sets ON");
        world_act(to, vapic_post(&to->apic, L1_NOTIFY, false, NULL));
        return;
    }
    ex_add(irr(to), bit, "L1: posts");
    high = ex_read(&entry(to)[1], "L1: running?");
    if (high & RUNNING_HI)
        vapic_nested_doorbell(&to->apic, to->n);
    else
        ex_write(&to->l2s.woken, 1, "L1: wakes");
}

static void l1_writes(struct world_vcpu *of, uint32_t word, uint32_t value, const char *what)
{
    ex_write(&entry(of)[word], value, what);
    if (ex_read(&of->w->tracked, "L1's table tracked?"))
        vapic_nested_written(&of->w->vm, l1_gpa(WORLD_L1_TABLE) + 8 * of->n + 4 * word, 4);
}

static void l1_runs(struct world_vcpu *v, bool running)
{
    l1_writes(v, 1, running ? VALID_HI | RUNNING_HI : VALID_HI, "L1: IsRunning");
}

static bool l1_woken(void *arg)
{
    return ex_read(&((struct world_vcpu *)arg)->l2s.woken, "L1: woken?") != 0;
}

/* As the host does it, one level up: not running first, then a look at what is pending. */
static void l1_sleeps(struct world_vcpu *v)
{
    l1_runs(v, false);
    if (ex_read(irr(v), "L1: anything pending?") == 0) {
        v->l2s.asleep = true;
        world_call_end(v->w);
        ex_may_end(true);
        ex_wait(l1_woken, v, "L1 has put L2 to sleep");
        ex_may_end(false);
        world_call_begin(v->w);
        v->l2s.asleep = false;
    }
    l1_runs(v, true);
}

bool world_l1_leaves(const struct world_vcpu *v)
{
    if (!v->w->spec->nested || v->l2)
        return false;
    return v->l2s.inside || v->op->kind == WORLD_VMRUN || v->op->kind == WORLD_L1_RUNS ||
           v->op->kind == WORLD_L1_SLEEP;
}

bool world_serve_l1(struct world_vcpu *v)
{
    if (in_l2(v) && v->op->kind == WORLD_LEAVE) {
        v->l2s.inside = false;
        v->op++;
        leave_l2(v);
        return true;
    }
    if (!world_l1_leaves(v))
        return false;
    if (v->l2s.inside) {
        vmrun(v);
        return true;
    }
    switch ((enum world_op_kind)(v->op++)->kind) {
    case WORLD_VMRUN:
        v->l2s.inside = true;
        vmrun(v);
        break;
    case WORLD_L1_RUNS:
        l1_runs(v, v->op[-1].b != 0);
        break;
    default:
        l1_sleeps(v);
        break;
    }
    return true;
}

/* ---- Exits of L2 ---- */

/* L1's answer to an IPI that its L2 could not send. */
static void l1_answers(struct world_vcpu *v, const struct world_op *op, uint32_t id)
{
    if (!v->w->spec->reflects)
        EX_BROKEN(REFLECTED, "L1 of vCPU %u is told of an IPI of its L2's", v->n);
    for (uint32_t n = 0; n < v->w->spec->vcpu_count; n++) {
        struct world_vcpu *to = &v->w->v[n];

        if (!(op->to >> n & 1))
            continue;
        if (!amd(v->w))
            l1_posts(to, op->a);
        else if (id == AVIC_IPI_NOT_RUNNING)
            ex_write(&to->l2s.woken, 1, "L1: wakes");
    }
}

static enum handled reflect(struct world_vcpu *v, struct insn *insn, uint32_t id)
{
    const struct world_op *op = v->op;

    if (op->kind != WORLD_ICR || insn == NULL)
        EX_BROKEN(CONTROLS, "vCPU %u: an exit for L1 that its L2 has not asked for", v->n);
    world_end_insn(v, insn);
    leave_l2(v);
    l1_answers(v, op, id);
    return HANDLED_RETRY;
}

static enum handled exit_amd(struct world_vcpu *v, struct insn *insn)
{
    uint64_t code = vmcb_get64(v->vmcb02, VMCB_EXITCODE),
             info2 = vmcb_get64(v->vmcb02, VMCB_EXITINFO2);
    struct vapic_reflect why;
    int result;

    v->vmcb02[VMCB_TLB_CONTROL] = VMCB_TLB_NOTHING;
    if (code == SVM_EXIT_HLT)
        return world_emulate(v, insn);
    if (code == SVM_EXIT_INTR)
        return HANDLED_RETRY;
    result =
        vapic_nested_avic_exit(&v->apic, code, vmcb_get64(v->vmcb02, VMCB_EXITINFO1), info2, &why);
    if (result == VAPIC_REFLECT)
        return reflect(v, insn, (uint32_t)(why.info2 >> AVIC_IPI_ID_SHIFT));
    if (result != VAPIC_OK)
        EX_BROKEN(CONTROLS, "vCPU %u: exit %#llx of L2", v->n, (unsigned long long)code);
    return HANDLED_DONE;
}

static void host_interrupt(struct world_vcpu *v)
{
    uint64_t info = vmcs_get(&v->vmcs02, VMCS_EXIT_INTR_INFO);

    if (info & VMX_INFO_VALID)
        world_handle_interrupt(v->w, (uint32_t)(v->cpu - v->w->cpu), (uint8_t)info);
}

static enum handled exit_intel(struct world_vcpu *v, struct insn *insn)
{
    uint32_t reason = (uint32_t)vmcs_get(&v->vmcs02, VMCS_EXIT_REASON);
    struct vapic_reflect why;
    int result;

    if (reason == VMX_EXIT_HLT)
        return world_emulate(v, insn);
    if (reason == VMX_EXIT_EXTINT) {
        host_interrupt(v);
        return HANDLED_RETRY;
    }
    if (reason == VMX_EXIT_WRMSR && v->op->kind == WORLD_ICR) /* L1 lets ICR exit */
        return reflect(v, insn, 0);
    result = vapic_nested_apicv_exit(&v->apic, reason,
                                     vmcs_get(&v->vmcs02, VMCS_EXIT_QUALIFICATION), &why);
    if (result == VAPIC_REFLECT)
        return reflect(v, insn, 0);
    if (result != VAPIC_OK)
        EX_BROKEN(CONTROLS, "vCPU %u: exit %u of L2", v->n, reason);
    return HANDLED_DONE;
}

enum handled world_exit_l2(struct world_vcpu *v, struct insn *insn)
{
    return amd(v->w) ? exit_amd(v, insn) : exit_intel(v, insn);
}

void world_l2_notify(struct world_vcpu *v)
{
    uint32_t id;

    if (!ex_dropped("nested notification") && vapic_doorbell_id(&v->apic, &id))
        vapic_sil_interrupt(&v->w->silicon, id, NESTED_VECTOR);
}

/* ---- Accounts ---- */

static void sent_to(struct world_vcpu *v, uint32_t vector, bool maybe)
{
    vector_bit_of(vector);
    v->l2s.sent[vector]++;
    if (!maybe)
        set_bit(v->l2s.due, (uint8_t)vector);
}

void world_l2_sent(struct world_vcpu *v, const struct world_op *op)
{
    if (op->kind != WORLD_ICR || v->phase != 1)
        return;
    for (uint32_t n = 0; n < WORLD_VCPUS; n++)
        if (op->to >> n & 1)
            sent_to(&v->w->v[n], op->a & 0xFF, op->maybe);
    v->phase = 2;
}

void world_l2_delivered(struct world_vcpu *v, uint8_t vector)
{
    struct world_l2 *l2 = &v->l2s;

    ex_note("L2 takes %02Xh", vector);
    if (l2->sent[vector] == 0)
        EX_BROKEN(INVENTED, "L2 of vCPU %u takes %02Xh, which nobody sent", v->n, vector);
    if (l2->taken[vector] >= l2->sent[vector])
        EX_BROKEN(TWICE, "L2 of vCPU %u takes %02Xh once more than it was sent", v->n, vector);
    l2->taken[vector]++;
    clear_bit(l2->due, vector);
    l2->eois++;
    ex_add(&v->deliveries, 1, "L2 takes an interrupt");
}

/* L2 is not current, and `bit` is due. */
static bool l1_finds(const struct world_vcpu *v, uint32_t bit)
{
    if (*irr(v) & bit)
        return !v->l2s.asleep;
    return !amd(v->w) && descriptor(v)[FIRST / 32] & bit && v->l2s.notified;
}

static void check_due(struct world_vcpu *v, uint8_t vector)
{
    bool pending = (*irr(v) & vector_bit_of(vector)) != 0;

    if (pending && v->l2s.taken[vector] >= v->l2s.sent[vector])
        EX_BROKEN(TWICE, "%02Xh is pending at L2 of vCPU %u once more than it was sent", vector,
                  v->n);
    if (!bit_of(v->l2s.due, vector))
        return;
    if (v->l2 && has_memory(v->w))
        EX_BROKEN(LOST, "L2 of vCPU %u is current, and never takes %02Xh", v->n, vector);
    if (!v->l2 && !l1_finds(v, vector_bit_of(vector)))
        EX_BROKEN(LOST, "L1 of vCPU %u does not learn of %02Xh for its L2", v->n, vector);
}

static void check_page(const struct world *w, uint32_t page)
{
    const uint8_t *at = l1_page(w, page) + APIC_IRR;

    if (w->l1_pins[page] != 0)
        EX_BROKEN(PINNED, "page %u of L1's is gone, and pinned", page);
    for (uint32_t i = 0; i < 0x80; i++)
        if (at[i] != 0)
            EX_BROKEN(PINNED, "page %u of L1's is gone, and was written", page);
}

/* A shadow's entry says running of nobody who is not loaded. */
static void check_shadow(const struct world_vcpu *v)
{
    const struct world *w = v->w;
    uint64_t own = world_hpa(w, l1_page(w, WORLD_L1_APIC(v->n)));
    bool loaded = v->where != NOWHERE && !v->asleep && !v->stopped;

    for (size_t i = 0; amd(w) && i < w->nested_size / sizeof(uint64_t); i++) {
        uint64_t value = w->nested_memory[i];

        if (value & AVIC_PHYSICAL_VALID && names(value, own) && value & AVIC_PHYSICAL_RUNNING &&
            !loaded)
            EX_BROKEN(CONTROLS, "the shadow says running of vCPU %u, which is not", v->n);
    }
}

void world_l2_check(struct world_vcpu *v)
{
    for (uint32_t vector = FIRST; vector <= LAST; vector++)
        check_due(v, (uint8_t)vector);
    check_shadow(v);
    for (uint32_t i = 0; i < WORLD_L1_PAGES; i++)
        if (v->w->l1_gone[i])
            check_page(v->w, i);
}

/* vmcs01 when L1 is entered is what it would be without any L2. */
void world_check_01(const struct world_vcpu *v)
{
    uint8_t svi = VMX_STATUS_SVI(vmcs_get(&v->vmcs, VMCS_GUEST_INTERRUPT_STATUS));
    bool delivers = (vmcs_get(&v->vmcs, VMCS_SECONDARY_CONTROLS) & VMX_SEC_INTERRUPT_DELIVERY) != 0;
    uint32_t highest = 0;

    if (amd(v->w))
        return;
    if (delivers != vapic_active(&v->apic))
        EX_BROKEN(CONTROLS, "vCPU %u: vmcs01 is not what the library says", v->n);
    for (uint32_t vector = 0; vector < 256; vector++)
        if (bit_of(v->ref.isr, (uint8_t)vector))
            highest = vector;
    if (delivers && svi != highest)
        EX_BROKEN(CONTROLS, "vCPU %u: SVI of vmcs01 is %02Xh, should be %02Xh", v->n, svi, highest);
}

/* ---- Others ---- */

static void take_away(struct world *w, uint32_t page)
{
    static const uint8_t something_else[64];

    ex_write(&w->l1_gone[page], 1, "page is gone");
    vapic_nested_unmap(&w->vm, l1_gpa(page), PAGE);
    ex_write_block(l1_page(w, page) + APIC_IRR, something_else, 64, "other use");
    ex_write_block(l1_page(w, page) + APIC_IRR + 64, something_else, 64, "other use");
    if (w->l1_pins[page] != 0)
        EX_BROKEN(PINNED, "page %u of L1's is pinned after its unmapping", page);
}

void world_l2_step(struct world *w, const struct world_op *op)
{
    struct world_vcpu *v = &w->v[op->v];

    switch ((enum world_op_kind)op->kind) {
    case WORLD_L2_POST:
        sent_to(v, op->a, false);
        l1_posts(v, op->a);
        break;
    case WORLD_ENTRY:
        if (amd(w))
            l1_writes(v, 1, op->b != 0 ? VALID_HI | RUNNING_HI : 0, "L1: entry");
        else
            l1_writes(v, 0,
                      op->b != 0 ? (uint32_t)(l1_gpa(WORLD_L1_PIDS) + PID_SIZE * v->n) |
                                       (uint32_t)APICV_PID_ENTRY_VALID
                                 : 0,
                      "L1: entry");
        break;
    case WORLD_FREE:
        take_away(w, op->a);
        break;
    default:
        check_page(w, op->a);
        ex_write(&w->l1_gone[op->a], 0, "a page is there");
        break;
    }
}
