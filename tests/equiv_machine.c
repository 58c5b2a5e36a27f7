/* SPDX-License-Identifier: MIT */
/*
 * One operation on one of the two machines, and what happens to the accelerated one besides: its
 * vCPUs move between processors, and reasons for inhibition come and go, also at the moments at
 * which that is dangerous.
 *
 * A toggle between the post and the look at the target is another actor's. When the sender is a
 * device or a vCPU outside the guest, it can be played from within: nobody has to wait for the
 * sender. When it is a processor in the middle of an instruction, host.kick_all() has to wait until
 * that vCPU has left the guest; so the toggle runs on a thread of its own, which takes turns with
 * the test's: exactly one of them runs at a time, and nothing depends on the machine's mood.
 */
#include "equiv.h"

#include "../src/mutant.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

static struct equiv *current;
static bool inside; /* a hook is at work: what it causes is not disturbed again */

/* ---- Devices behind an IOMMU: one per vCPU ---- */

static struct {
    struct vapic_sil_amd_iommu amd;
    struct vapic_irte irte[EQ_VCPUS];
    uint64_t words[EQ_VCPUS][2] __attribute__((aligned(16)));
    uint64_t log[64];
} iommu;

static uint8_t irte_vector(uint32_t n)
{
    return (uint8_t)(0x73 + 0x20 * n);
}

static void attach_amd(struct ax *ax)
{
    /* Remapped, the host would get an interrupt; the destination is nobody's. */
    static const uint64_t remapped[2] = {AMD_IRTE_VALID | 0xFFFull << AMD_IRTE_DEST_LOW_SHIFT,
                                         0xE0};

    iommu.amd =
        (struct vapic_sil_amd_iommu){.machine = &ax->silicon, .log = iommu.log, .entries = 64};
    for (uint32_t n = 0; n < EQ_VCPUS; n++) {
        iommu.irte[n] = (struct vapic_irte){0};
        memset(iommu.words[n], 0, sizeof(iommu.words[n]));
        assert_int_equal(vapic_irte_attach(&iommu.irte[n], &ax->v[n]->apic, irte_vector(n),
                                           remapped, iommu.words[n]),
                         VAPIC_OK);
    }
}

static void attach_intel(struct ax *ax)
{
    vapic_device_attached(&ax->vm);
    for (uint32_t n = 0; n < EQ_VCPUS; n++)
        assert_int_equal(
            vapic_vtd_irte(&ax->v[n]->apic, irte_vector(n), (uint16_t)n, iommu.words[n]), VAPIC_OK);
}

static void read_ga_log(struct ax *ax)
{
    while (iommu.amd.head != iommu.amd.tail) {
        vapic_ga_log(&ax->platform, iommu.log[iommu.amd.head]);
        iommu.amd.head = (iommu.amd.head + 1) % iommu.amd.entries;
    }
}

/* The wake-up vector's handler, on processors that run no guest now. */
static void take_wakeups(struct ax *ax)
{
    for (uint32_t i = 0; i < ax->cpu_count; i++) {
        int vector;

        if (ax->cpus[i].in_guest)
            continue;
        while ((vector = vapic_sil_take_interrupt(&ax->cpus[i])) >= 0)
            if (vector == AX_WAKEUP_VECTOR)
                vapic_wakeup(&ax->vm, &ax->pcpus[i]);
    }
}

static void device_message(struct equiv *e, struct ax *ax, uint32_t n)
{
    enum vapic_sil_msi result;

    if (ax == e->ref) {
        ax_post(ax, n, irte_vector(n), false);
        return;
    }
    if (!eq_is_amd(e)) {
        assert_int_equal(vapic_sil_vtd_msi(&ax->silicon, iommu.words[n], (uint16_t)n),
                         VAPIC_SIL_MSI_POSTED);
        take_wakeups(ax);
        return;
    }
    result = vapic_sil_amd_msi(&iommu.amd, iommu.words[n], (uint16_t)n);
    assert_true(result == VAPIC_SIL_MSI_POSTED || result == VAPIC_SIL_MSI_LOGGED ||
                result == VAPIC_SIL_MSI_REMAPPED);
    if (result == VAPIC_SIL_MSI_REMAPPED)
        ax_post(ax, n, irte_vector(n), false);
    read_ga_log(ax);
}

/* ---- Making ---- */

/* Whichever input the 8259 is wired to: it has no other interrupt. */
static int acknowledge(struct ax *ax, uint32_t n)
{
    vapic_set_lint(&ax->v[n]->apic, 0, false);
    vapic_set_lint(&ax->v[n]->apic, 1, false);
    return 0x20;
}

static struct ax *make(const struct equiv *e, enum ax_mode_index mode)
{
    struct ax_options options = ax_options_for(mode, EQ_VCPUS);
    struct ax *ax;

    options.x2apic = e->epoch.x2apic;
    options.config.max_gsis = 24;
    if (ax_modes[mode].kind == VAPIC_ACCEL_AVIC)
        options.accel.vm_tag = 1;
    ax = ax_new(&options);
    ax_ioapic(ax);
    ax->on_inta = acknowledge;
    return ax;
}

static void hardware_point(struct ax *ax, struct vapic_sil_cpu *cpu, enum vapic_sil_point point);
static void toggle_waits(struct ax *ax);
static void lock_is_taken(struct ax *ax);

static struct kept {
    struct ax *ref, *acc;
    struct ax_copy *ref_copy, *acc_copy;
    uint8_t iommu[sizeof(iommu)];
} kept[AX_MODES][2]; /* by mode, and whether it starts in x2APIC mode */

static void keep(const struct equiv *e)
{
    struct kept *k = &kept[e->mode][e->epoch.x2apic];

    *k = (struct kept){
        .ref = e->ref,
        .acc = e->acc,
        .ref_copy = ax_save(e->ref),
        .acc_copy = ax_save(e->acc),
    };
    memcpy(k->iommu, &iommu, sizeof(iommu));
}

static bool set_back(struct equiv *e)
{
    const struct kept *k = &kept[e->mode][e->epoch.x2apic];

    if (k->ref == NULL)
        return false;
    e->ref = k->ref;
    e->acc = k->acc;
    ax_restore(e->ref, k->ref_copy);
    ax_restore(e->acc, k->acc_copy);
    memcpy(&iommu, k->iommu, sizeof(iommu));
    return true;
}

static void make_machines(struct equiv *e)
{
    inside = true;
    e->ref = make(e, AX_MODE_NONE);
    e->acc = make(e, e->mode);
    if (eq_is_amd(e))
        attach_amd(e->acc);
    else
        attach_intel(e->acc);
    e->acc->on_point = hardware_point;
    e->acc->on_wait = toggle_waits;
    e->acc->on_contended = lock_is_taken;
    inside = false;
    eq_settle(e, e->ref);
    eq_settle(e, e->acc);
    ax_forget(e->ref);
    ax_forget(e->acc);
}

void eq_make(struct equiv *e)
{
    memset(e->paused, 0, sizeof(e->paused));
    e->reasons = 0;
    if (e->keeps && set_back(e))
        return;
    make_machines(e);
    if (e->keeps)
        keep(e);
}

void eq_free(struct equiv *e)
{
    if (e->keeps)
        return;
    inside = true;
    if (eq_is_amd(e))
        for (uint32_t n = 0; n < EQ_VCPUS; n++)
            vapic_irte_detach(&iommu.irte[n]);
    ax_free(e->ref);
    ax_free(e->acc);
    e->ref = e->acc = NULL;
    inside = false;
}

/* ---- Operations ---- */

static bool is_guests(enum eq_kind kind)
{
    return kind == EQ_MMIO || kind == EQ_MSR || kind == EQ_CR8 || kind == EQ_IPI ||
           kind == EQ_HLT || kind == EQ_IF;
}

static struct eq_outcome execute(struct ax *ax, uint32_t n, struct ax_op op)
{
    struct eq_outcome outcome = {.result = ax_execute(ax, n, &op)};

    if (!op.write && outcome.result == AX_DONE)
        outcome.value =
            op.size == 0 || op.size >= 8 ? op.value : op.value & ((1ull << 8 * op.size) - 1);
    return outcome;
}

static struct eq_outcome send_ipi(struct equiv *e, struct ax *ax, const struct eq_op *op)
{
    uint64_t base = vapic_base(eq_vcpu(e, op->vcpu));
    uint64_t page = base & ~UINT64_C(0xFFF);
    struct ax_op high = {AX_MMIO, true, 4, page + APIC_ICR2, op->value >> 32 << 24};
    struct ax_op low = {AX_MMIO, true, 4, page + APIC_ICR, (uint32_t)op->value};

    if (base & APIC_BASE_EXTD)
        return execute(ax, op->vcpu, (struct ax_op){AX_MSR, true, 0, 0x830, op->value});
    execute(ax, op->vcpu, high);
    return execute(ax, op->vcpu, low);
}

static struct eq_outcome guest_operation(struct equiv *e, struct ax *ax, const struct eq_op *op)
{
    uint32_t n = op->vcpu;
    /* Where the reference's page is: it is the guest that says so. */
    uint64_t page = vapic_base(eq_vcpu(e, n)) & ~UINT64_C(0xFFF);

    if (e->paused[n])
        return (struct eq_outcome){.result = AX_STUCK};
    switch ((enum eq_kind)op->kind) {
    case EQ_MMIO:
        return execute(ax, n,
                       (struct ax_op){AX_MMIO, op->write, op->size, page + op->where, op->value});
    case EQ_MSR:
        return execute(ax, n, (struct ax_op){AX_MSR, op->write, 0, op->where, op->value});
    case EQ_CR8:
        return execute(ax, n, (struct ax_op){AX_CR8, op->write, 0, 0, op->value});
    case EQ_IPI:
        return send_ipi(e, ax, op);
    case EQ_HLT:
        return execute(ax, n, (struct ax_op){AX_HLT, true, 0, 0, 0});
    default:
        break;
    }
    if (vapic_activity(&ax->v[n]->apic) == VAPIC_RUNNING)
        ax_if(ax, n, op->value != 0);
    return (struct eq_outcome){.result = AX_DONE};
}

static void write_rte(struct ax *ax, uint32_t pin, uint64_t entry)
{
    vapic_ioapic_write(&ax->io, 0x00, 0x11 + 2 * pin, 4);
    vapic_ioapic_write(&ax->io, 0x10, entry >> 32, 4);
    vapic_ioapic_write(&ax->io, 0x00, 0x10 + 2 * pin, 4);
    vapic_ioapic_write(&ax->io, 0x10, (uint32_t)entry, 4);
}

static void start(struct ax *ax, uint32_t n)
{
    struct vapic_sent sent = vapic_send(&ax->vm, (struct vapic_msg){
                                                     .icr = APIC_DM_SIPI | APIC_ICR_ASSERT | 8,
                                                     .dest = n,
                                                     .source = VAPIC_FROM_DEVICE,
                                                 });

    if (sent.accepted == 1)
        ax_act(ax, ((struct ax_vcpu *)(void *)vapic_at(&ax->vm, sent.target))->n,
               (enum vapic_action)sent.action);
}

static void tick(struct ax *ax, uint64_t ns)
{
    ax->now.ns += ns;
    ax->now.tsc += ns;
    for (uint32_t n = 0; n < EQ_VCPUS; n++)
        ax_act(ax, n, vapic_timer_expired(&ax->v[n]->apic));
}

static uint32_t free_processor(const struct ax *ax, uint32_t from)
{
    for (uint32_t i = 0; i < ax->cpu_count; i++) {
        uint32_t cpu = (from + i) % ax->cpu_count;
        bool taken = false;

        for (uint32_t n = 0; n < EQ_VCPUS; n++)
            taken |= ax->v[n]->cpu == &ax->cpus[cpu];
        if (!taken)
            return cpu;
    }
    return 0;
}

static void resume(struct equiv *e, struct ax *ax, uint32_t n)
{
    if (ax == e->ref)
        e->paused[n] = false;
    else if (ax->v[n]->cpu == NULL)
        ax_load(ax, n, free_processor(ax, eq_below(&e->other, ax->cpu_count)));
}

static void pause_vcpu(struct equiv *e, struct ax *ax, uint32_t n)
{
    if (ax == e->ref)
        e->paused[n] = true;
    else if (ax->v[n]->cpu != NULL)
        ax_put(ax, n);
}

static void host_operation(struct equiv *e, struct ax *ax, const struct eq_op *op)
{
    struct vapic *v = &ax->v[op->vcpu]->apic;

    switch ((enum eq_kind)op->kind) {
    case EQ_POST:
        ax_post(ax, op->vcpu, (uint8_t)op->value, op->write);
        break;
    case EQ_MSI:
        vapic_msi(&ax->vm, op->where, (uint32_t)op->value);
        break;
    case EQ_IRTE:
        device_message(e, ax, op->vcpu);
        break;
    case EQ_PIN:
        vapic_gsi_set(&ax->vm, op->where, 0, op->value != 0);
        break;
    case EQ_RTE:
        write_rte(ax, op->where, op->value);
        break;
    case EQ_NMI:
        ax_act(ax, op->vcpu, vapic_nmi(v));
        break;
    case EQ_LINT:
        ax_act(ax, op->vcpu, vapic_set_lint(v, op->where, op->value != 0));
        break;
    case EQ_TICK:
        tick(ax, op->value);
        break;
    case EQ_START:
        start(ax, op->vcpu);
        break;
    case EQ_PAUSE:
        pause_vcpu(e, ax, op->vcpu);
        break;
    case EQ_RESUME:
        resume(e, ax, op->vcpu);
        break;
    default:
        break;
    }
}

struct eq_outcome eq_apply(struct equiv *e, struct ax *ax, const struct eq_op *op)
{
    if (is_guests((enum eq_kind)op->kind))
        return guest_operation(e, ax, op);
    host_operation(e, ax, op);
    return (struct eq_outcome){.result = AX_DONE};
}

/* ---- Toggles ---- */

static struct {
    pthread_t thread;
    sem_t go, back;
    struct vapic_vm *vm;
    enum vapic_inhibit reason;
    bool set, under_way, stop;
} toggler;

static void *toggler_main(void *unused)
{
    (void)unused;
    for (;;) {
        sem_wait(&toggler.go);
        if (toggler.stop)
            return NULL;
        vapic_set_inhibit(toggler.vm, toggler.reason, toggler.set);
        toggler.under_way = false;
        sem_post(&toggler.back);
    }
}

/* The toggler has the turn, until it is done or waits. */
static void let_toggler_run(void)
{
    sem_post(&toggler.go);
    sem_wait(&toggler.back);
}

/* On the toggler's thread: somebody is in the guest still. */
static void toggle_waits(struct ax *ax)
{
    (void)ax;
    sem_post(&toggler.back);
    sem_wait(&toggler.go);
}

static void lock_is_taken(struct ax *ax)
{
    assert_true(toggler.under_way);
    while (ax->locked)
        let_toggler_run();
}

static void finish_toggle(struct equiv *e, uint32_t sender)
{
    if (toggler.under_way)
        ax_leave(e->acc, sender);
    while (toggler.under_way)
        let_toggler_run();
}

static enum vapic_inhibit some_reason(struct equiv *e)
{
    static const enum vapic_inhibit reasons[] = {VAPIC_INHIBIT_BLOCKIRQ, VAPIC_INHIBIT_HYPERV,
                                                 VAPIC_INHIBIT_PIT_REINJ, VAPIC_INHIBIT_SEV};

    return reasons[eq_below(&e->other, eq_is_amd(e) ? 4 : 2)];
}

/* Mostly one reason at a time, and mostly none. */
static void choose_toggle(struct equiv *e)
{
    toggler.reason = some_reason(e);
    if (e->reasons != 0 && eq_chance(&e->other, 80))
        toggler.reason = (enum vapic_inhibit)__builtin_ctz(e->reasons);
    e->reasons ^= 1u << toggler.reason;
    toggler.set = (e->reasons >> toggler.reason) & 1;
    toggler.vm = &e->acc->vm;
}

/* Between vapic_enter() and the entry nobody can be made to leave from here. */
static bool somebody_is_about_to_enter(const struct ax *ax)
{
    for (uint32_t n = 0; n < EQ_VCPUS; n++)
        if (vapic_in_guest(&ax->v[n]->apic) && !(ax->v[n]->entered && ax->v[n]->cpu->in_guest))
            return true;
    return false;
}

static bool may_toggle(struct equiv *e, uint32_t one_in)
{
    return !inside && e->toggling && !toggler.under_way && !e->acc->locked &&
           eq_below(&e->other, one_in) == 0;
}

static void toggle_here(struct equiv *e)
{
    inside = true;
    choose_toggle(e);
    vapic_set_inhibit(toggler.vm, toggler.reason, toggler.set);
    inside = false;
}

static void hardware_point(struct ax *ax, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct equiv *e = current;

    if (e == NULL || ax != e->acc || point != VAPIC_SIL_POINT_POSTED || !may_toggle(e, 16))
        return;
    if (cpu == NULL) {
        e->counts.points_iommu++;
        toggle_here(e);
        return;
    }
    if (ax->executing < 0)
        return;
    e->counts.points_hardware++;
    inside = true;
    choose_toggle(e);
    toggler.under_way = true;
    let_toggler_run();
    inside = false;
}

/*
 * An operation that sends one message. Others (an EOI, a change of the map) may have several pins
 * send the same vector, of which a target that takes the first in between gets one more.
 */
static bool sends_once(const struct equiv *e)
{
    enum eq_kind kind = e->history[e->number % 64].kind;

    return kind == EQ_IPI || kind == EQ_POST || kind == EQ_MSI || kind == EQ_PIN;
}

/* The target is posted to; it may even have gone round once before the sender looks. */
static void software_point(struct vapic *target)
{
    struct equiv *e = current;
    struct ax_vcpu *c = (struct ax_vcpu *)(void *)target;
    bool was_in_guest;

    if (e == NULL || e->acc == NULL || target->vm != &e->acc->vm || !may_toggle(e, 16) ||
        somebody_is_about_to_enter(e->acc))
        return;
    was_in_guest = c->entered; /* so its thread is not in the library, whose call this is */
    e->counts.points_software++;
    toggle_here(e);
    inside = true;
    if (was_in_guest && eq_chance(&e->other, 50) && sends_once(e))
        ax_enter(e->acc, c->n);
    inside = false;
}

static bool move(struct equiv *e, uint32_t n)
{
    struct ax *ax = e->acc;

    if (ax->v[n]->cpu == NULL)
        return false;
    ax_put(ax, n);
    ax_load(ax, n, free_processor(ax, eq_below(&e->other, ax->cpu_count)));
    return true;
}

bool eq_disturb(struct equiv *e)
{
    bool done = false;

    if (may_toggle(e, e->reasons != 0 ? 8 : 60)) {
        e->counts.toggles++;
        toggle_here(e);
        done = true;
    }
    if (e->toggling && eq_below(&e->other, 100) == 0)
        done |= move(e, eq_below(&e->other, EQ_VCPUS));
    if (e->toggling && eq_below(&e->other, 100) == 0) {
        ax_leave(e->acc, eq_below(&e->other, EQ_VCPUS));
        done = true;
    }
    return done;
}

void eq_machine_init(struct equiv *e)
{
    current = e;
    vapic_point = software_point;
    toggler.stop = false;
    toggler.under_way = false;
    sem_init(&toggler.go, 0, 0);
    sem_init(&toggler.back, 0, 0);
    pthread_create(&toggler.thread, NULL, toggler_main, NULL);
}

void eq_machine_end(struct equiv *e)
{
    (void)e;
    toggler.stop = true;
    sem_post(&toggler.go);
    pthread_join(toggler.thread, NULL);
    vapic_point = NULL;
    current = NULL;
}

/* ---- Settling ---- */

void eq_settle(struct equiv *e, struct ax *ax)
{
    uint64_t before;
    uint32_t rounds = 0;

    if (ax == e->acc)
        finish_toggle(e, e->op.vcpu);
    do {
        before = ax->total;
        for (uint32_t n = 0; n < EQ_VCPUS; n++)
            if (!e->paused[n])
                ax_run(ax, n);
        if (ax == e->acc && !eq_is_amd(e))
            take_wakeups(ax);
        assert_true(++rounds < 1000);
    } while (ax->total != before);
}
