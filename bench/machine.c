/* SPDX-License-Identifier: MIT */
/* The benchmarks' virtual machine, see machine.h. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>

/* The callbacks are named host_*: measure.py leaves them out of the counts by that name. */

static void host_nothing(void *ctx)
{
    (void)ctx;
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct machine *m = ctx;

    (void)target;
    (void)action;
    m->notified++;
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
    .lock = host_nothing,
    .unlock = host_nothing,
    .quiesce = host_nothing,
    .notify = host_notify,
    .arm = host_arm,
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
    must(vapic_add(v) == VAPIC_OK, "vapic_add");
    vapic_send(&m->vm, sipi);
    enter_exit(m, n);
    must(vapic_activity(v) == VAPIC_RUNNING, "starting a vCPU");
    if (m->x2apic)
        must(vapic_load_base(v, vapic_base(v) | APIC_BASE_EXTD) == VAPIC_OK, "x2APIC mode");
    machine_write(m, n, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
}

struct machine *machine_new(uint32_t vcpus, bool x2apic)
{
    struct machine *m = calloc(1, sizeof(*m));

    must(m != NULL, "allocating memory");
    m->vcpus = vcpus;
    m->x2apic = x2apic;
    m->now = (struct vapic_now){1000000, 1000000};
    m->v = allocate(64, sizeof(*m->v) * vcpus);
    m->pages = allocate(APIC_PAGE_SIZE, APIC_PAGE_SIZE * (size_t)vcpus);
    make_vm(m);
    for (uint32_t n = 0; n < vcpus; n++)
        start(m, n);
    return m;
}

void machine_free(struct machine *m)
{
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
