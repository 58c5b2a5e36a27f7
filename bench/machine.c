/* SPDX-License-Identifier: MIT */
/* The benchmarks' virtual machine, see machine.h. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The callbacks are named host_*: measure.py leaves them out of the counts by that name. */

static void host_nothing(void *ctx)
{
    (void)ctx;
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct machine *m = ctx;

    (void)target;
    m->action = action;
    m->notified++;
}

static void host_lock(void *ctx)
{
    struct machine *m = ctx;

    m->locks++;
}

static void host_spin(void *ctx, uint32_t *word)
{
    (void)word;
    host_lock(ctx);
}

static void host_spun(void *ctx, uint32_t *word)
{
    (void)ctx;
    (void)word;
}

static uint64_t host_physical(void *ctx, const void *memory)
{
    (void)ctx;
    return (uint64_t)(uintptr_t)memory;
}

static void host_page(void *ctx, bool mapped)
{
    (void)ctx;
    (void)mapped;
}

static void host_flush(void *ctx, struct vapic *v)
{
    (void)ctx;
    (void)v;
}

static void host_intercept(void *ctx, struct vapic *v, const struct vapic_msr_pass *pass)
{
    (void)ctx;
    (void)v;
    (void)pass;
}

static void host_control(void *ctx, struct vapic *v, uint32_t field, uint64_t mask, uint64_t value)
{
    (void)ctx;
    (void)v;
    (void)field;
    (void)mask;
    (void)value;
}

/* Nothing requested, nothing in service: as after the guest has handled everything. */
static uint16_t host_interrupt_status(void *ctx, struct vapic *v)
{
    (void)ctx;
    (void)v;
    return 0;
}

static void host_arm(void *ctx, struct vapic *v, struct vapic_deadline deadline)
{
    struct machine *m = ctx;

    (void)v;
    (void)deadline;
    m->armed++;
}

static const struct vapic_host host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_nothing,
    .quiesce = host_nothing,
    .notify = host_notify,
    .arm = host_arm,
    .physical = host_physical,
    .kick_all = host_nothing,
    .access_page = host_page,
    .flush = host_flush,
    .intercept = host_intercept,
    .control = host_control,
    .interrupt_status = host_interrupt_status,
    .spin_lock = host_spin,
    .spin_unlock = host_spun,
};

static void must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "hotpaths: %s failed\n", what);
    exit(1);
}

static void *allocate(size_t alignment, size_t size)
{
    void *memory = aligned_alloc(alignment, (size + alignment - 1) & ~(alignment - 1));

    must(memory != NULL, "allocating memory");
    return memory;
}

/* Configured as a hypervisor would by default, with the wider MSI format that many vCPUs need. */
static void make_vm(struct machine *m)
{
    struct vapic_vm_config config = {
        .max_vcpus = m->vcpus,
        .max_gsis = 24,
        .msi_dest = m->vcpus > 256 ? VAPIC_MSI_DEST_15 : VAPIC_MSI_DEST_8,
    };
    size_t size = vapic_vm_memory(&config);

    must(size != 0, "vapic_vm_memory");
    m->memory = allocate(64, size);
    must(vapic_vm_init(&m->vm, sizeof(m->vm), &config, &host, m, m->memory, size) == VAPIC_OK,
         "vapic_vm_init");
}

static void make_accel(struct machine *m)
{
    struct vapic_accel_config config = {
        .kind = m->kind,
        .features = VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC,
        .max_id = m->vcpus - 1,
        .notify_vector = 0xF2,
        .wakeup_vector = 0xF1,
    };
    size_t size = vapic_accel_memory(&config);

    must(size != 0, "vapic_accel_memory");
    m->tables = allocate(APIC_PAGE_SIZE, size);
    m->av = allocate(64, sizeof(*m->av) * m->vcpus);
    m->pcpus = allocate(64, sizeof(*m->pcpus) * m->vcpus);
    m->vmcbs = allocate(APIC_PAGE_SIZE, APIC_PAGE_SIZE * (size_t)m->vcpus);
    memset(m->vmcbs, 0, APIC_PAGE_SIZE * (size_t)m->vcpus);
    must(vapic_accel_init(&m->accel, sizeof(m->accel), &m->vm, &config, m->tables, size) ==
             VAPIC_OK,
         "vapic_accel_init");
}

static void attach(struct machine *m, uint32_t n)
{
    struct vapic_accel_vcpu_config config = {.vmcb = m->vmcbs + APIC_PAGE_SIZE * (size_t)n};

    if (m->kind == VAPIC_ACCEL_NONE)
        return;
    must(vapic_accel_attach(&m->v[n], &m->av[n], sizeof(m->av[n]), &config) == VAPIC_OK,
         "vapic_accel_attach");
    must(vapic_pcpu_init(&m->pcpus[n], sizeof(m->pcpus[n]), n) == VAPIC_OK, "vapic_pcpu_init");
    vapic_load(&m->v[n], &m->pcpus[n]);
}

static void enter_exit(struct machine *m, uint32_t n)
{
    vapic_enter(&m->v[n], MACHINE_CAN, m->now, &m->entry);
    vapic_exit(&m->v[n], m->entry.cr8, true);
}

static void start(struct machine *m, uint32_t n)
{
    struct vapic *v = &m->v[n];
    struct vapic_config config = {
        .id = n,
        .bsp = n == 0,
        .features = VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_EOI_SUPPRESS,
    };
    struct vapic_msg sipi = {APIC_DM_SIPI | APIC_ICR_ASSERT | 0x10, n, VAPIC_FROM_DEVICE, 0};

    must(vapic_init(v, sizeof(*v), &m->vm, &config, m->pages + APIC_PAGE_SIZE * (size_t)n) ==
             VAPIC_OK,
         "vapic_init");
    attach(m, n);
    must(vapic_add(v) == VAPIC_OK, "vapic_add");
    vapic_send(&m->vm, sipi);
    enter_exit(m, n);
    must(vapic_activity(v) == VAPIC_RUNNING, "starting a vCPU");
    if (m->x2apic)
        must(vapic_load_base(v, vapic_base(v) | APIC_BASE_EXTD) == VAPIC_OK, "x2APIC mode");
    machine_write(m, n, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
}

/* What was put off until the next entry is done; nobody has anything to decide any more. */
static void settle(struct machine *m)
{
    for (uint32_t n = 0; n < m->vcpus; n++) {
        enter_exit(m, n);
        must(vapic_active(&m->v[n]) == (m->kind != VAPIC_ACCEL_NONE), "accelerating a vCPU");
    }
}

struct machine *machine_new(uint32_t vcpus, bool x2apic, enum vapic_accel_kind kind)
{
    struct machine *m = calloc(1, sizeof(*m));

    must(m != NULL, "allocating memory");
    m->vcpus = vcpus;
    m->x2apic = x2apic;
    m->kind = kind;
    m->now = (struct vapic_now){1000000, 1000000};
    m->v = allocate(64, sizeof(*m->v) * vcpus);
    m->pages = allocate(APIC_PAGE_SIZE, APIC_PAGE_SIZE * (size_t)vcpus);
    make_vm(m);
    if (kind != VAPIC_ACCEL_NONE)
        make_accel(m);
    for (uint32_t n = 0; n < vcpus; n++)
        start(m, n);
    settle(m);
    return m;
}

void machine_free(struct machine *m)
{
    free(m->tables);
    free(m->vmcbs);
    free(m->pcpus);
    free(m->av);
    free(m->memory);
    free(m->pages);
    free(m->v);
    free(m);
}

void machine_write(struct machine *m, uint32_t n, uint32_t offset, uint32_t value)
{
    if (m->x2apic)
        must(vapic_msr_write(&m->v[n], MSR_X2APIC_FIRST + (offset >> 4), value, m->now) == VAPIC_OK,
             "an MSR write");
    else
        vapic_mmio_write(&m->v[n], offset, &value, sizeof(value), m->now);
}

uint32_t machine_read(struct machine *m, uint32_t n, uint32_t offset)
{
    uint64_t wide = 0;
    uint32_t value = 0;

    if (!m->x2apic) {
        vapic_mmio_read(&m->v[n], offset, &value, sizeof(value), m->now);
        return value;
    }
    must(vapic_msr_read(&m->v[n], MSR_X2APIC_FIRST + (offset >> 4), &wide, m->now) == VAPIC_OK,
         "an MSR read");
    return (uint32_t)wide;
}
