/* SPDX-License-Identifier: MIT */
/*
 * A world from its table: memory, silicon, the VM with its vCPUs and devices, in the state in which
 * every schedule starts; and its end. Called by the engine through struct ex_scenario.
 */
#include "world_parts.h"

#include "vapic/arch/apic.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Small things ---- */

void world_require(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "world: %s does not hold: the scenario is wrong\n", what);
    abort();
}

uint64_t world_hpa(const struct world *w, const void *memory)
{
    return FIRST_HPA + (uint64_t)((const uint8_t *)memory - (const uint8_t *)w);
}

struct vapic_now world_now(const struct world *w)
{
    uint64_t ns = START_NS + ex_read(&w->time, "time");

    return (struct vapic_now){.ns = ns, .tsc = ns};
}

static void *take(struct world *w, size_t size, size_t align)
{
    size_t at = (w->used + align - 1) & ~(align - 1);

    world_require(at + size <= EX_MEMORY, "room in memory");
    w->used = at + size;
    return (uint8_t *)w + at;
}

/* ---- Silicon ---- */

static const struct {
    enum vapic_accel_kind kind;
    uint32_t features;
} modes[EX_MODES] = {
    [EX_NONE] = {VAPIC_ACCEL_NONE, 0},
    [EX_AVIC] = {VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV},
    [EX_AVIC_NOIPIV] = {VAPIC_ACCEL_AVIC, 0},
    [EX_X2AVIC] = {VAPIC_ACCEL_AVIC, VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC},
    [EX_APICV] = {VAPIC_ACCEL_APICV, 0},
    [EX_APICV_IPIV] = {VAPIC_ACCEL_APICV, VAPIC_ACCEL_IPIV},
};

static void make_silicon(struct world *w)
{
    struct vapic_sil_config config = {
        .vendor = w->vendor->silicon,
        .x2avic = (w->features & VAPIC_ACCEL_X2AVIC) != 0,
        .xapic_host = (w->features & VAPIC_ACCEL_XAPIC_HOST) != 0,
        .knobs = {.quirk_1235 = w->spec->quirk_1235},
    };

    w->scratch = take(w, PAGE, PAGE);
    world_require(vapic_sil_init(&w->silicon, &config, &world_silicon, w, w->by_id, WORLD_CPUS),
                  "silicon");
    for (uint32_t i = 0; i < WORLD_CPUS; i++) {
        world_require(vapic_sil_cpu_init(&w->cpu[i], &w->silicon, i), "a processor");
        vapic_pcpu_init(&w->pcpu[i], sizeof(w->pcpu[i]), i);
    }
}

/* ---- The VM ---- */

static uint32_t highest_id(const struct world_spec *spec)
{
    uint32_t highest = spec->vcpu_count - 1;

    for (uint32_t n = 0; n < spec->vcpu_count; n++)
        highest = spec->vcpu[n].id > highest ? spec->vcpu[n].id : highest;
    return highest;
}

static bool has_pins(const struct world_spec *spec)
{
    return spec->pin[0].vector != 0;
}

static void make_vm(struct world *w)
{
    struct vapic_vm_config config = {
        .max_vcpus = w->spec->vcpu_count,
        .max_gsis = has_pins(w->spec) ? 24 : 0,
        .knobs =
            VAPIC_PROFILE_MANUAL | (w->spec->flags & WORLD_UNIQUE_ID ? VAPIC_KNOB_UNIQUE_ID : 0),
        .knobs_set = true,
    };
    size_t size = vapic_vm_memory(&config);

    world_require(vapic_vm_init(&w->vm, sizeof(w->vm), &config, &world_host, w, take(w, size, 64),
                                size) == VAPIC_OK,
                  "the VM");
}

static void make_accel(struct world *w)
{
    bool log = w->vendor == &world_amd && !(w->spec->flags & WORLD_NO_GA_LOG);
    struct vapic_accel_config config = {
        .kind = modes[w->mode].kind,
        .features = w->features,
        .max_id = highest_id(w->spec),
        .notify_vector = NOTIFY_VECTOR,
        .wakeup_vector = WAKEUP_VECTOR,
        .vm_tag = log ? 1 : 0,
        .platform = log ? &w->platform : NULL,
    };
    size_t size = vapic_accel_memory(&config);

    vapic_platform_init(&w->platform, sizeof(w->platform), &world_host, w);
    w->table = take(w, size, PAGE);
    world_require(vapic_accel_init(&w->accel, sizeof(w->accel), &w->vm, &config, w->table, size) ==
                      VAPIC_OK,
                  "the back end");
}

static void make_nested(struct world *w)
{
    size_t size;

    if (!w->spec->nested)
        return;
    w->l1 = take(w, WORLD_L1_PAGES * PAGE, PAGE);
    size = world_take_nested(w, NULL);
    world_take_nested(w, take(w, size, PAGE));
}

static void write_pin(struct world *w, uint32_t i)
{
    const struct world_pin_spec *spec = &w->spec->pin[i];
    uint32_t low = spec->vector | (spec->level ? RTE_LEVEL : 0) | (spec->masked ? RTE_MASKED : 0);

    if (spec->vector == 0)
        return;
    if (spec->level)
        set_bit(w->level_vectors, spec->vector);
    vapic_ioapic_write(&w->io, 0, 0x11 + 2 * i, 4);
    vapic_ioapic_write(&w->io, 0x10, (uint64_t)w->v[spec->vcpu].id << 24, 4);
    vapic_ioapic_write(&w->io, 0, 0x10 + 2 * i, 4);
    vapic_ioapic_write(&w->io, 0x10, low, 4);
}

static void make_ioapic(struct world *w)
{
    struct vapic_ioapic_config config = {0};

    if (!has_pins(w->spec))
        return;
    world_require(vapic_ioapic_init(&w->io, sizeof(w->io), &w->vm, &config, w->pins) == VAPIC_OK,
                  "the I/O APIC");
    for (uint32_t i = 0; i < WORLD_PINS; i++)
        write_pin(w, i);
}

/* ---- vCPUs ---- */

static void place_vcpu(struct world_vcpu *v)
{
    struct world *w = v->w;

    v->page = take(w, PAGE, PAGE);
    if (w->vendor == NULL)
        return;
    v->msrs = take(w, w->vendor == &world_amd ? SVM_MSRPM_SIZE : PAGE, PAGE);
    if (w->spec->nested)
        v->l2s.msrs02 = take(w, SVM_MSRPM_SIZE, PAGE);
    if (w->vendor != &world_amd)
        return;
    v->vmcb = take(w, VMCB_SIZE, PAGE);
    v->vmcb02 = take(w, VMCB_SIZE, PAGE);
    if (w->spec->nested)
        v->l2s.vmcb12 = take(w, VMCB_SIZE, PAGE);
}

static void *map_pv(void *ctx, struct vapic *v, uint64_t gpa, size_t size)
{
    (void)ctx;
    (void)gpa;
    (void)size;
    return &((struct world_vcpu *)(void *)v)->pv_word;
}

static void make_pv(struct world_vcpu *v)
{
    struct vapic_pv_config config = {.features = VAPIC_PV_EOI | VAPIC_PV_SEND_IPI, .map = map_pv};

    if (!(v->spec->flags & W_PV))
        return;
    world_require(vapic_pv_attach(&v->apic, &v->pv, sizeof(v->pv), &config) == VAPIC_OK &&
                      vapic_pv_msr_write(&v->apic, VAPIC_MSR_KVM_EOI, 0x2000 | VAPIC_PV_ENABLE) ==
                          VAPIC_OK,
                  "paravirtual companions");
}

void world_create_vcpu(struct world_vcpu *v)
{
    struct world *w = v->w;
    struct vapic_config config = {.id = v->id,
                                  .features = VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_EOI_SUPPRESS,
                                  .bsp = v->n == 0};
    struct vapic_accel_vcpu_config accel = {.vmcb = v->vmcb};

    world_require(vapic_init(&v->apic, sizeof(v->apic), &w->vm, &config, v->page) == VAPIC_OK,
                  "a vCPU");
    if (w->vendor != NULL) {
        w->vendor->create(v);
        world_require(vapic_accel_attach(&v->apic, &v->accel, sizeof(v->accel), &accel) == VAPIC_OK,
                      "a vCPU's back end");
        if (w->spec->nested)
            world_attach_l2(v);
    }
    make_pv(v);
    world_require(vapic_add(&v->apic) == VAPIC_OK, "a vCPU's place");
}

static void set_register(struct world_vcpu *v, uint32_t offset, uint32_t value)
{
    if (v->x2apic)
        vapic_msr_write(&v->apic, MSR_X2APIC_FIRST + (offset >> 4), value, world_now(v->w));
    else
        vapic_mmio_write(&v->apic, offset, &value, sizeof(value), world_now(v->w));
}

static void enable(struct world_vcpu *v)
{
    uint32_t svr = APIC_SVR_ENABLE | APIC_SVR_VECTOR;

    if (v->w->spec->flags & WORLD_SUPPRESS)
        svr |= APIC_SVR_EOI_SUPPRESS;
    set_register(v, APIC_SVR, svr);
    if (!v->x2apic && !(v->w->spec->flags & WORLD_NO_LDR))
        set_register(v, APIC_LDR, 1u << (24 + v->n % 8));
    if (v->spec->timer != 0)
        set_register(v, APIC_LVT_TIMER, v->spec->timer);
    set_register(v, APIC_LVT_LINT0, APIC_DM_EXTINT);
}

/* As firmware leaves it. Nobody runs it yet. */
void world_start_vcpu(struct world_vcpu *v)
{
    struct vapic_entry entry;

    if (v->spec->flags & W_X2APIC) {
        world_require(vapic_load_base(&v->apic, vapic_base(&v->apic) | APIC_BASE_EXTD) == VAPIC_OK,
                      "x2APIC mode");
        v->x2apic = true;
    }
    if (v->n != 0)
        vapic_send(&v->w->vm, (struct vapic_msg){.icr = APIC_DM_SIPI | APIC_ICR_ASSERT | 0x10,
                                                 .dest = v->id,
                                                 .source = VAPIC_FROM_DEVICE});
    do
        vapic_enter(&v->apic, VAPIC_CAN_INIT, world_now(v->w), &entry);
    while (entry.event != VAPIC_CPU_NONE);
    vapic_exit(&v->apic, (uint8_t)vapic_read_cr8(&v->apic), true);
    enable(v);
}

/* So that the scenario begins where everything has been taken notice of. */
static void settle_vcpu(struct world_vcpu *v)
{
    if (v->w->vendor != NULL && !(v->spec->flags & W_PREEMPTED))
        world_load(v, v->n);
    vapic_enter(&v->apic, VAPIC_CAN_INIT, world_now(v->w), &v->entry);
    vapic_exit(&v->apic, v->entry.cr8, true);
}

static bool is_ordered(const struct world_spec *spec, uint32_t n)
{
    for (uint32_t i = 0; i < WORLD_ACTORS; i++)
        for (const struct world_op *op = spec->actor[i].ops; op && op->kind != WORLD_END; op++)
            if (op->v == n && (op->kind == WORLD_MOVE || op->kind == WORLD_PREEMPT))
                return true;
    return false;
}

/* The vector with which a step sends to vCPU n, 0 if it does not. */
static uint8_t sends(const struct world_spec *spec, const struct world_op *op, uint32_t n)
{
    if (op->kind == WORLD_DEVICE)
        return spec->irte[op->a].vcpu == n ? spec->irte[op->a].vector : 0;
    if (!(op->to >> n & 1))
        return 0;
    return (uint8_t)(op->kind == WORLD_WRITE ? op->mask : op->a);
}

static bool repeats_in(const struct world_spec *spec, const struct world_op *ops, uint32_t n,
                       uint32_t seen[8])
{
    bool repeats = false;

    for (const struct world_op *op = ops; op && op->kind != WORLD_END; op++) {
        uint8_t vector = sends(spec, op, n);

        repeats |= vector != 0 && bit_of(seen, vector);
        set_bit(seen, vector);
    }
    return repeats;
}

static bool is_sent_twice(const struct world_spec *spec, uint32_t n)
{
    uint32_t seen[8] = {0};
    bool repeats = false;

    for (uint32_t i = 0; i < WORLD_VCPUS; i++)
        repeats |= repeats_in(spec, spec->vcpu[i].ops, n, seen);
    for (uint32_t i = 0; i < WORLD_ACTORS; i++)
        repeats |= repeats_in(spec, spec->actor[i].ops, n, seen);
    return repeats;
}

static void describe_vcpu(struct world_vcpu *v)
{
    static const struct world_op none = {.kind = WORLD_END};

    v->n = (uint32_t)(v - v->w->v);
    v->spec = &v->w->spec->vcpu[v->n];
    v->id = v->spec->id != 0 ? v->spec->id : v->n;
    v->op = v->spec->ops != NULL ? v->spec->ops : &none;
    v->guest_if = !(v->spec->flags & W_CLOSED);
    v->repeats = is_sent_twice(v->w->spec, v->n);
    v->scheduled = is_ordered(v->w->spec, v->n) || v->spec->flags & W_PREEMPTED;
}

static void make_vcpus(struct world *w)
{
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++) {
        w->v[n].w = w;
        describe_vcpu(&w->v[n]);
        place_vcpu(&w->v[n]);
    }
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++) {
        if (w->v[n].spec->flags & W_ABSENT)
            continue;
        world_create_vcpu(&w->v[n]);
        w->v[n].exists = 1;
    }
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++)
        if (w->v[n].exists)
            world_start_vcpu(&w->v[n]);
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++)
        if (w->v[n].exists)
            settle_vcpu(&w->v[n]);
}

/* ---- Devices ---- */

void world_attach(struct world *w, uint32_t i)
{
    static const uint64_t remapped[2] = {AMD_IRTE_VALID | 0xFFFull << AMD_IRTE_DEST_LOW_SHIFT,
                                         0xE0};
    const struct world_irte_spec *spec = &w->spec->irte[i];
    struct vapic *v = &w->v[spec->vcpu].apic;
    int result = VAPIC_OK;

    if (w->vendor == &world_amd)
        result = vapic_irte_attach(&w->irte[i], v, spec->vector, remapped, w->irte_words[i]);
    if (w->vendor == &world_intel) {
        vapic_device_attached(&w->vm);
        result = vapic_vtd_irte(v, spec->vector, (uint16_t)i, w->irte_words[i]);
    }
    world_require(result == VAPIC_OK, "a device's entry");
}

static void make_devices(struct world *w)
{
    w->iommu = (struct vapic_sil_amd_iommu){
        .machine = &w->silicon,
        .log = w->ga_log,
        .entries = w->spec->flags & WORLD_LOG_OF_ONE ? 2 : GA_LOG_SIZE};
    for (uint32_t i = 0; i < WORLD_IRTES; i++)
        if (w->spec->irte[i].vector != 0 && !w->spec->irte[i].later)
            world_attach(w, i);
}

/* ---- Names, for timelines ---- */

static void name_registers(struct world_vcpu *v)
{
    static const struct {
        uint32_t offset;
        const char *name;
    } names[] = {{APIC_TPR, "TPR"}, {APIC_PPR, "PPR"},   {APIC_SVR, "SVR"},
                 {APIC_LDR, "LDR"}, {APIC_DFR, "DFR"},   {APIC_ID, "ID"},
                 {APIC_ICR, "ICR"}, {APIC_ICR2, "ICR2"}, {APIC_EOI, "EOI"}};

    ex_name_array(v->page + APIC_ISR, 0x80, 0x10, ex_text("v%u.ISR", v->n));
    ex_name_array(v->page + APIC_TMR, 0x80, 0x10, ex_text("v%u.TMR", v->n));
    ex_name_array(v->page + APIC_IRR, 0x80, 0x10, ex_text("v%u.IRR", v->n));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        ex_name(v->page + names[i].offset, 4, ex_text("v%u.%s", v->n, names[i].name));
}

static void name_words(struct world_vcpu *v)
{
    ex_name_array(v->apic.pid.pir, sizeof(v->apic.pid.pir), 8, ex_text("v%u.PIR", v->n));
    ex_name(&v->apic.pid.control, 8, ex_text("v%u.PID", v->n));
    ex_name_array(v->apic.level, sizeof(v->apic.level), 8, ex_text("v%u.level", v->n));
    ex_name(&v->apic.events, 4, ex_text("v%u.events", v->n));
    ex_name(&v->apic.presence, 4, ex_text("v%u.presence", v->n));
    ex_name(&v->apic.active, 4, ex_text("v%u.active", v->n));
    ex_name(&v->accel.doorbell, 4, ex_text("v%u.doorbell-id", v->n));
    ex_name(&v->accel.lock, 4, ex_text("v%u.lock", v->n));
    ex_name(&v->where, 4, ex_text("v%u.where", v->n));
    ex_name(&v->woken, 4, ex_text("v%u.woken", v->n));
    ex_name(&v->kicked, 4, ex_text("v%u.kicked", v->n));
    ex_name(&v->watched, 4, ex_text("v%u.watched", v->n));
    ex_name(&v->order, 4, ex_text("v%u.orders", v->n));
    ex_name(&v->stopped, 4, ex_text("v%u.stopped", v->n));
    ex_name(&v->deliveries, 4, ex_text("v%u.taken", v->n));
    ex_name(&v->sends, 4, ex_text("v%u.messages", v->n));
    ex_name(&v->armed, 4, ex_text("v%u.timer-armed", v->n));
}

static void name_world(struct world *w)
{
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++) {
        name_registers(&w->v[n]);
        name_words(&w->v[n]);
    }
    for (uint32_t i = 0; i < WORLD_CPUS && w->vendor != NULL; i++) {
        ex_name(&w->cpu[i].doorbell, 4, ex_text("cpu%u.doorbell", i));
        ex_name_array(w->cpu[i].physical, 32, 8, ex_text("cpu%u.interrupts", i));
        ex_name(&w->pcpu[i].lock, 4, ex_text("cpu%u.list-lock", i));
        ex_name(&w->pcpu[i].blocked, 8, ex_text("cpu%u.list", i));
    }
    for (uint32_t i = 0; i < WORLD_IRTES; i++)
        ex_name_array(w->irte_words[i], 16, 8, ex_text("IRTE%u", i));
    ex_name_array(w->line, sizeof(w->line), 4, "line");
    ex_name(&w->lock, 4, "config-lock");
    ex_name(&w->page_mapped, 4, "access-page");
    ex_name(&w->time, 4, "time");
    ex_name(&w->vm.inhibits, 8, "inhibits");
    ex_name(&w->vm.generation, 4, "generation");
    ex_name(&w->vm.seq, 4, "map.seq");
    ex_name(&w->vm.page_mapped, 4, "page-allowed");
    ex_name_array(w->pins, sizeof(w->pins), sizeof(w->pins[0]), "pin");
    if (w->table != NULL)
        ex_name_array(w->table, PAGE, 8,
                      w->vendor == &world_amd ? "physical-table" : "pid-pointers");
}

/* ---- Actors ---- */

static void make_actors(struct world *w)
{
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++)
        ex_actor(ex_text("vCPU %u", n), world_vcpu_main, &w->v[n]);
    for (uint32_t i = 0; i < WORLD_ACTORS && w->spec->actor[i].name != NULL; i++) {
        struct world_actor_arg *arg = take(w, sizeof(*arg), 16);

        *arg = (struct world_actor_arg){w, w->spec->actor[i].ops};
        ex_actor(w->spec->actor[i].name, world_actor_main, arg);
    }
}

/* What only the vCPU's thread touches: no scheduling points. */
static void make_private(struct world *w)
{
    for (uint32_t n = 0; n < w->spec->vcpu_count; n++) {
        struct world_vcpu *v = &w->v[n];

        if (v->spec->flags & W_ABSENT &&
            !(v->spec->flags & W_IN_L2)) /* its creator touches all of it */
            continue;
        ex_private(&v->vmcs, sizeof(v->vmcs) + sizeof(v->vmcs02), n);
        ex_private(&v->pv, sizeof(v->pv), n);
        if (v->msrs != NULL)
            ex_private(v->msrs, w->vendor == &world_amd ? SVM_MSRPM_SIZE : PAGE, n);
        if (v->vmcb != NULL)
            ex_private(v->vmcb, VMCB_SIZE + VMCB_SIZE, n);
        if (v->l2s.msrs02 != NULL) {
            ex_private(v->l2s.msrs02, SVM_MSRPM_SIZE, n);
            ex_private(w->l1 + WORLD_L1_LOGICAL(n) * PAGE, PAGE, n);
        }
    }
}

static bool has_step(const struct world_spec *spec, enum world_op_kind kind)
{
    for (uint32_t i = 0; i < WORLD_ACTORS; i++)
        for (const struct world_op *op = spec->actor[i].ops; op && op->kind != WORLD_END; op++)
            if (op->kind == kind)
                return true;
    return false;
}

void world_setup(const struct ex_scenario *scenario, void *memory, uint32_t mode)
{
    struct world *w = memory;

    w->spec = scenario->data;
    w->mode = mode;
    w->features = modes[mode].features & ~w->spec->no_features;
    if (w->spec->flags & WORLD_XAPIC_HOST && modes[mode].kind == VAPIC_ACCEL_APICV)
        w->features |= VAPIC_ACCEL_XAPIC_HOST;
    w->quiesces = has_step(w->spec, WORLD_REMOVE) || has_step(w->spec, WORLD_FREE);
    w->ends = has_step(w->spec, WORLD_END_VM);
    w->used = (sizeof(*w) + 63) & ~(size_t)63;
    if (modes[mode].kind != VAPIC_ACCEL_NONE)
        w->vendor = modes[mode].kind == VAPIC_ACCEL_AVIC ? &world_amd : &world_intel;
    if (w->vendor != NULL)
        make_silicon(w);
    make_vm(w);
    if (w->vendor != NULL)
        make_accel(w);
    make_nested(w);
    make_vcpus(w);
    make_ioapic(w);
    make_devices(w);
    for (uint32_t reason = 0; reason < VAPIC_INHIBIT_COUNT; reason++)
        if (w->spec->inhibited >> reason & 1)
            vapic_set_inhibit(&w->vm, (enum vapic_inhibit)reason, true);
    name_world(w);
    make_actors(w);
    make_private(w);
}

/* ---- The end ---- */

void world_check(const struct ex_scenario *scenario, void *memory)
{
    struct world *w = memory;

    (void)scenario;
    world_check_end(w);
    if (w->spec->check != NULL)
        w->spec->check(w);
}

uint32_t world_taken(const struct world *w, uint32_t n, uint8_t vector)
{
    return w->v[n].ref.taken[vector];
}

uint32_t world_nmis(const struct world *w, uint32_t n)
{
    return w->v[n].ref.nmis;
}

struct vapic *world_vcpu(struct world *w, uint32_t n)
{
    return &w->v[n].apic;
}

struct vapic_vm *world_vm(struct world *w)
{
    return &w->vm;
}
