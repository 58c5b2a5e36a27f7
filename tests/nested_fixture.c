/* SPDX-License-Identifier: MIT */
/* See nested_fixture.h: the machine, memory, pins, the log, making and ending. */
#include "nested_fixture_private.h"

#include <stdlib.h>
#include <string.h>

#define SPARE_CPUS      4u
#define HOST_HPA        0x100000000ull
#define HOST_PAGES      192u
#define RAM_HPA         0x300000000ull
#define LOG_SIZE        65536u
#define NO_VCPU         NX_ANY
#define DEFAULT_TABLES  2u
#define DEFAULT_ENTRIES 512u

/* ---- The log ---- */

static void grow_log(struct nx *nx)
{
    assert_true(nx->log_size < LOG_SIZE); /* nx_forget() more often */
    nx->log_size = nx->log_size != 0 ? 2 * nx->log_size : 256;
    nx->log = realloc(nx->log, nx->log_size * sizeof(*nx->log));
    assert_non_null(nx->log);
}

void nx_log(struct nx *nx, struct nx_event event)
{
    nx->counts[event.kind]++;
    nx->total++;
    if (nx->logged == nx->log_size)
        grow_log(nx);
    nx->log[nx->logged++] = event;
}

uint32_t nx_count(const struct nx *nx, enum nx_kind kind)
{
    return nx->counts[kind];
}

const struct nx_event *nx_nth(const struct nx *nx, enum nx_kind kind, uint32_t at)
{
    for (uint32_t i = 0; i < nx->logged; i++)
        if (nx->log[i].kind == kind && at-- == 0)
            return &nx->log[i];
    return NULL;
}

static uint32_t count_of(const struct nx *nx, enum nx_kind kind, uint32_t n, uint64_t a)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < nx->logged; i++) {
        const struct nx_event *e = &nx->log[i];

        count += e->kind == kind && (n == NX_ANY || e->n == n) && (a == NX_ANY_CODE || e->a == a);
    }
    return count;
}

uint32_t nx_l2_delivered(const struct nx *nx, uint32_t l2, uint8_t vector)
{
    return count_of(nx, NX_L2_DELIVERED, l2, vector);
}

uint32_t nx_l1_delivered(const struct nx *nx, uint32_t l1, uint8_t vector)
{
    return count_of(nx, NX_L1_DELIVERED, l1, vector);
}

uint32_t nx_reflected(const struct nx *nx, uint32_t l1, uint64_t code)
{
    return count_of(nx, NX_REFLECTED, l1, code);
}

uint32_t nx_exits(const struct nx *nx, uint32_t l1, uint64_t code, bool of_l2)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < nx->logged; i++) {
        const struct nx_event *e = &nx->log[i];

        count += e->kind == NX_EXIT && e->l2 == of_l2 && (l1 == NX_ANY || e->n == l1) &&
                 (code == NX_ANY_CODE || e->a == code);
    }
    return count;
}

void nx_forget(struct nx *nx)
{
    memset(nx->counts, 0, sizeof(nx->counts));
    nx->logged = 0;
}

/* ---- Memory. L1's pages lie in the host in reverse order ---- */

static void *take(uint8_t *base, size_t *used, size_t limit, size_t size, size_t align)
{
    size_t at = (*used + align - 1) & ~(align - 1);

    assert_true(at + size <= limit);
    *used = at + size;
    return base + at;
}

void *nx_host_memory(struct nx *nx, size_t size, size_t align)
{
    return take(nx->arena, &nx->arena_used, nx->arena_size, size, align);
}

uint64_t nx_host_hpa(struct nx *nx, const void *memory)
{
    uintptr_t offset = (uintptr_t)memory - (uintptr_t)nx->arena;

    assert_true(offset < nx->arena_size);
    return HOST_HPA + offset;
}

void *nx_l1_memory(struct nx *nx, size_t size, size_t align)
{
    return take(nx->ram, &nx->ram_used, NX_L1_PAGES * (size_t)NX_PAGE, size, align);
}

uint64_t nx_gpa(struct nx *nx, const void *memory)
{
    uintptr_t offset = (uintptr_t)memory - (uintptr_t)nx->ram;

    assert_true(offset < NX_L1_PAGES * (size_t)NX_PAGE);
    return NX_L1_RAM + offset;
}

static bool in_ram(uint64_t gpa)
{
    return gpa >= NX_L1_RAM && gpa < NX_L1_RAM + NX_L1_PAGES * (uint64_t)NX_PAGE;
}

void *nx_at(struct nx *nx, uint64_t gpa)
{
    return in_ram(gpa) ? nx->ram + (gpa - NX_L1_RAM) : NULL;
}

static uint64_t reversed(uint64_t page)
{
    return NX_L1_PAGES - 1 - page;
}

uint64_t nx_hpa(struct nx *nx, uint64_t gpa)
{
    uint64_t offset = gpa - NX_L1_RAM;

    (void)nx;
    assert_true(in_ram(gpa));
    return RAM_HPA + reversed(offset / NX_PAGE) * NX_PAGE + offset % NX_PAGE;
}

bool nx_is_host(struct nx *nx, uint64_t hpa)
{
    return hpa >= HOST_HPA && hpa < HOST_HPA + nx->arena_size;
}

static bool is_ram(uint64_t hpa)
{
    return hpa >= RAM_HPA && hpa < RAM_HPA + NX_L1_PAGES * (uint64_t)NX_PAGE;
}

struct nx_page *nx_page_at(struct nx *nx, uint64_t hpa)
{
    return is_ram(hpa) ? &nx->page[reversed((hpa - RAM_HPA) / NX_PAGE)] : NULL;
}

bool nx_safe(struct nx *nx, uint64_t hpa)
{
    const struct nx_page *page = nx_page_at(nx, hpa);

    return page != NULL ? page->pins != 0 && !page->gone : nx_is_host(nx, hpa);
}

/* Hardware and L0. Never across a page. */
void *nx_sil_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct nx *nx = ctx;

    if (is_ram(hpa))
        return nx->ram + reversed((hpa - RAM_HPA) / NX_PAGE) * NX_PAGE + hpa % NX_PAGE;
    if (!nx_is_host(nx, hpa) || hpa - HOST_HPA + size > nx->arena_size)
        return NULL;
    return nx->arena + (hpa - HOST_HPA);
}

/* ---- Writes by L1's software, as the host's page tables would report them ---- */

static void report(struct nx *nx, uint64_t gpa)
{
    nx_log(nx, (struct nx_event){.kind = NX_WRITTEN, .n = NO_VCPU, .a = gpa, .b = 8});
    if (nx->on_l1 >= 0) /* the write has exited */
        nx_leave(nx, (uint32_t)nx->on_l1);
    vapic_nested_written(&nx->vm, gpa, 8);
}

static void compare(struct nx *nx, uint32_t n)
{
    struct nx_page *page = &nx->page[n];
    const uint8_t *now = nx->ram + (size_t)n * NX_PAGE;

    for (uint32_t at = 0; page->tracked && at < NX_PAGE; at += 8) {
        if (memcmp(page->shadow + at, now + at, 8) == 0)
            continue;
        memcpy(page->shadow + at, now + at, 8);
        report(nx, NX_L1_RAM + (uint64_t)n * NX_PAGE + at);
    }
}

void nx_written(struct nx *nx)
{
    for (uint32_t n = 0; n < NX_L1_PAGES; n++)
        if (nx->page[n].tracked)
            compare(nx, n);
}

/* ---- Invariants ---- */

void nx_check(struct nx *nx)
{
    for (uint32_t i = 0; i < nx->l1_count; i++) {
        const struct nx_l1 *c = nx->l1[i];

        if (c != NULL && c->entered && c->cpu != NULL)
            nx->vendor->check(nx, c);
    }
}

/* ---- Making ---- */

static uint32_t id_of(const uint32_t *ids, uint32_t n)
{
    return ids != NULL ? ids[n] : n;
}

static uint32_t highest(const uint32_t *ids, uint32_t count)
{
    uint32_t id = 0;

    for (uint32_t n = 0; n < count; n++)
        id = id_of(ids, n) > id ? id_of(ids, n) : id;
    return id;
}

static void sil_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct nx *nx = ctx;

    if (nx->on_point != NULL)
        nx->on_point(nx, cpu, point);
}

static void make_silicon(struct nx *nx)
{
    static const struct vapic_sil_host host = {
        .size = sizeof(host), .memory = nx_sil_memory, .walk = nx_walk, .point = sil_point};
    uint32_t features = nx->options.features;
    struct vapic_sil_config config = {.vendor = nx->vendor->silicon,
                                      .x2avic = (features & VAPIC_ACCEL_X2AVIC) != 0,
                                      .x2avic_ext = (features & VAPIC_ACCEL_X2AVIC_EXT) != 0,
                                      .ext_lvt = (features & VAPIC_ACCEL_EXT_LVT) != 0,
                                      .xapic_host = (features & VAPIC_ACCEL_XAPIC_HOST) != 0,
                                      .knobs = nx->options.knobs};

    nx->cpu_count = nx->l1_count + SPARE_CPUS;
    nx->cpus = calloc(nx->cpu_count, sizeof(*nx->cpus));
    nx->pcpus = calloc(nx->cpu_count, sizeof(*nx->pcpus));
    nx->by_id = calloc(NX_HOST_ID(nx->cpu_count), sizeof(struct vapic_sil_cpu *));
    assert_true(
        vapic_sil_init(&nx->silicon, &config, &host, nx, nx->by_id, NX_HOST_ID(nx->cpu_count)));
    for (uint32_t i = 0; i < nx->cpu_count; i++) {
        assert_true(vapic_sil_cpu_init(&nx->cpus[i], &nx->silicon, NX_HOST_ID(i)));
        assert_int_equal(vapic_pcpu_init(&nx->pcpus[i], sizeof(nx->pcpus[i]), NX_HOST_ID(i)),
                         VAPIC_OK);
    }
}

static void *make_vm(struct vapic_vm *vm, const struct vapic_host *host, struct nx *nx,
                     uint32_t vcpus)
{
    struct vapic_vm_config config = {.max_vcpus = vcpus};
    size_t size = vapic_vm_memory(&config);
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);

    assert_true(size > 0);
    assert_int_equal(vapic_vm_init(vm, sizeof(*vm), &config, host, nx, memory, size), VAPIC_OK);
    return memory;
}

static struct vapic_accel_config accel_config(const struct nx *nx)
{
    return (struct vapic_accel_config){.kind = nx->kind,
                                       .features = nx->options.features,
                                       .disabled = nx->options.disabled,
                                       .max_id = highest(nx->options.l1_ids, nx->l1_count),
                                       .notify_vector = NX_NOTIFY_VECTOR,
                                       .wakeup_vector = NX_WAKEUP_VECTOR};
}

static void make_nested(struct nx *nx, const struct vapic_accel_config *accel)
{
    const struct nx_options *o = &nx->options;
    struct vapic_nested_host host = nx_l0_nested_host;
    struct vapic_nested_config config = {
        .features = o->offered,
        .strategy = o->strategy,
        .tables = o->tables != 0 ? o->tables : DEFAULT_TABLES,
        .entries = o->entries != 0 ? o->entries : DEFAULT_ENTRIES,
        .notify_vector = NX_NESTED_VECTOR,
    };
    size_t size = vapic_nested_memory(&config, accel);

    assert_true(size > 0);
    if (o->no_track)
        host.track = NULL;
    assert_int_equal(vapic_nested_init(&nx->nested, sizeof(nx->nested), &nx->vm, &config, &host,
                                       nx_host_memory(nx, size, NX_PAGE), size),
                     VAPIC_OK);
    nx->has_nested = true;
}

static void make_l0(struct nx *nx)
{
    struct vapic_accel_config config = accel_config(nx);
    size_t size = vapic_accel_memory(&config);

    assert_true(size > 0);
    nx->memory = make_vm(&nx->vm, &nx->host, nx, nx->l1_count);
    assert_int_equal(vapic_accel_init(&nx->accel, sizeof(nx->accel), &nx->vm, &config,
                                      nx_host_memory(nx, size, NX_PAGE), size),
                     VAPIC_OK);
    if (nx->options.offered != 0)
        make_nested(nx, &config);
}

static uint32_t l2_features(const struct nx_options *o)
{
    switch (o->l2) {
    case NX_L2_AVIC:
    case NX_L2_IPIV:
        return VAPIC_ACCEL_IPIV;
    case NX_L2_X2AVIC:
        return VAPIC_ACCEL_IPIV | VAPIC_ACCEL_X2AVIC |
               (o->offered & VAPIC_NESTED_X2AVIC_EXT ? VAPIC_ACCEL_X2AVIC_EXT : 0);
    default:
        return 0;
    }
}

/* L1 boots its hypervisor. */
static void make_l1_vm(struct nx *nx)
{
    const struct nx_options *o = &nx->options;
    struct vapic_accel_config config = {.kind = nx->kind,
                                        .features = l2_features(o),
                                        .max_id = highest(o->l2_ids, nx->l2_count),
                                        .notify_vector = NX_L1_NOTIFY_VECTOR,
                                        .wakeup_vector = NX_L1_WAKEUP_VECTOR};
    size_t size;

    nx->l1_vm = calloc(1, sizeof(*nx->l1_vm));
    nx->l1_memory = make_vm(nx->l1_vm, &nx->l1_host, nx, nx->l2_count);
    nx->l2_scratch = nx_l1_memory(nx, NX_PAGE, NX_PAGE);
    if (o->l2 == NX_L2_NONE)
        return;
    if (!o->l1_x2apic)
        config.features |= VAPIC_ACCEL_XAPIC_HOST;
    nx->l1_accel = calloc(1, sizeof(*nx->l1_accel));
    size = vapic_accel_memory(&config);
    assert_true(size > 0);
    assert_int_equal(vapic_accel_init(nx->l1_accel, sizeof(*nx->l1_accel), nx->l1_vm, &config,
                                      nx_l1_memory(nx, size, NX_PAGE), size),
                     VAPIC_OK);
}

#define FEATURES (VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_EOI_SUPPRESS)

static void attach_l1(struct nx *nx, struct nx_l1 *c)
{
    struct vapic_accel_vcpu_config accel = {.vmcb = c->vmcb01};
    struct vapic_nested_vcpu_config nested = {.vmcb02 = c->vmcb02};

    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel), VAPIC_OK);
    if (nx->has_nested)
        assert_int_equal(vapic_nested_attach(&c->apic, &c->nested, sizeof(c->nested), &nested),
                         VAPIC_OK);
    vapic_load(&c->apic, c->pcpu);
}

static void make_l1(struct nx *nx, uint32_t n)
{
    struct nx_l1 *c = nx_host_memory(nx, sizeof(*c), NX_PAGE);
    uint32_t id = id_of(nx->options.l1_ids, n);
    struct vapic_config config = {.id = id, .features = FEATURES, .bsp = n == 0};

    nx->l1[n] = c;
    c->nx = nx;
    c->n = n;
    c->l1_if = true;
    c->runs = -1;
    c->page = nx_host_memory(nx, NX_PAGE, NX_PAGE);
    c->cpu = &nx->cpus[n];
    c->pcpu = &nx->pcpus[n];
    assert_int_equal(vapic_pcpu_init(&c->l1_pcpu, sizeof(c->l1_pcpu), id), VAPIC_OK);
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), &nx->vm, &config, c->page), VAPIC_OK);
    nx->vendor->create(c);
    attach_l1(nx, c);
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    if (nx->options.l1_x2apic)
        assert_int_equal(vapic_load_base(&c->apic, vapic_base(&c->apic) | APIC_BASE_EXTD),
                         VAPIC_OK);
}

static void make_l2(struct nx *nx, uint32_t n)
{
    struct nx_l2_vcpu *c = nx_l1_memory(nx, sizeof(*c), NX_PAGE);
    struct vapic_config config = {
        .id = id_of(nx->options.l2_ids, n), .features = FEATURES, .bsp = n == 0};
    struct vapic_accel_vcpu_config accel = {0};

    nx->l2[n] = c;
    c->nx = nx;
    c->n = n;
    c->on = -1;
    c->last = -1;
    c->guest_if = true;
    c->page = nx_l1_memory(nx, NX_PAGE, NX_PAGE);
    assert_int_equal(vapic_init(&c->apic, sizeof(c->apic), nx->l1_vm, &config, c->page), VAPIC_OK);
    nx->vendor->create12(c);
    accel.vmcb = c->vmcb;
    if (nx->l1_accel != NULL)
        assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel),
                         VAPIC_OK);
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    if (nx->options.l2_x2apic)
        assert_int_equal(vapic_load_base(&c->apic, vapic_base(&c->apic) | APIC_BASE_EXTD),
                         VAPIC_OK);
}

/* From the first vCPU to all others, as firmware does. Nobody is in the guest yet. */
static void start_message(struct vapic_vm *vm, struct vapic *first, uint32_t icr)
{
    vapic_send(vm,
               (struct vapic_msg){.icr = icr | APIC_ICR_ALL_EXCL, .source = vapic_index(first)});
}

static void take_events(struct nx *nx, struct vapic *v)
{
    struct vapic_entry entry;

    do {
        vapic_enter(v, VAPIC_CAN_INIT, nx->now, &entry);
    } while (entry.event != VAPIC_CPU_NONE);
    vapic_exit(v, (uint8_t)vapic_read_cr8(v), true);
}

static void enable(struct nx *nx, struct vapic *v)
{
    uint32_t svr = APIC_SVR_ENABLE | APIC_SVR_VECTOR;

    if (vapic_base(v) & APIC_BASE_EXTD)
        vapic_msr_write(v, MSR_X2APIC_FIRST + (APIC_SVR >> 4), svr, nx->now);
    else
        vapic_mmio_write(v, APIC_SVR, &svr, sizeof(svr), nx->now);
}

static struct vapic *vcpu_at(struct nx *nx, bool l2, uint32_t n)
{
    return l2 ? &nx->l2[n]->apic : &nx->l1[n]->apic;
}

static void start_all(struct nx *nx, bool l2)
{
    struct vapic_vm *vm = l2 ? nx->l1_vm : &nx->vm;
    uint32_t count = l2 ? nx->l2_count : nx->l1_count;
    static const uint32_t messages[] = {APIC_DM_INIT | APIC_ICR_ASSERT, APIC_DM_SIPI};

    for (uint32_t i = 0; i < 2; i++) {
        start_message(vm, vcpu_at(nx, l2, 0), messages[i]);
        for (uint32_t n = 0; n < count; n++)
            take_events(nx, vcpu_at(nx, l2, n));
    }
    for (uint32_t n = 0; n < count; n++)
        enable(nx, vcpu_at(nx, l2, n));
}

static void complete_options(struct nx_options *o)
{
    if (o->vcpus == 0)
        o->vcpus = 2;
    assert_true(o->vcpus <= NX_MAX_L2);
    if (o->l2 == NX_L2_X2AVIC)
        o->l2_x2apic = true;
    assert_true(!o->pass_through || o->l2 == NX_L2_NONE);
}

struct nx *nx_new(const struct nx_options *options)
{
    struct nx *nx = calloc(1, sizeof(*nx));

    assert_non_null(nx);
    nx->options = *options;
    complete_options(&nx->options);
    nx->kind = options->kind;
    nx->vendor = nx->kind == VAPIC_ACCEL_AVIC ? &nx_amd : &nx_intel;
    nx->host = nx_l0_host;
    nx->l1_host = nx_l1_host;
    nx->executing = nx->on_l1 = -1;
    nx->now = (struct vapic_now){.ns = 1000000, .tsc = 1000000};
    nx->l2_count = nx->options.vcpus;
    nx->l1_count = nx->l2_count + 1;
    nx->arena_size = HOST_PAGES * (size_t)NX_PAGE;
    nx->arena = aligned_alloc(NX_PAGE, nx->arena_size);
    nx->ram = aligned_alloc(NX_PAGE, NX_L1_PAGES * (size_t)NX_PAGE);
    memset(nx->arena, 0, nx->arena_size);
    memset(nx->ram, 0, NX_L1_PAGES * (size_t)NX_PAGE);
    nx->scratch = nx_host_memory(nx, NX_PAGE, NX_PAGE);
    make_silicon(nx);
    make_l0(nx);
    for (uint32_t n = 0; n < nx->l1_count; n++)
        make_l1(nx, n);
    start_all(nx, false);
    make_l1_vm(nx);
    for (uint32_t n = 0; n < nx->l2_count; n++)
        make_l2(nx, n);
    start_all(nx, true);
    for (uint32_t n = 0; n < nx->l2_count; n++)
        nx_l1_schedule(nx, n, n);
    nx_settle(nx);
    nx_forget(nx);
    return nx;
}

/* ---- Ending ---- */

static void check_pages(const struct nx *nx)
{
    assert_int_equal(nx->pins, 0);
    for (uint32_t n = 0; n < NX_L1_PAGES; n++) {
        assert_int_equal(nx->page[n].pins, 0);
        assert_false(nx->page[n].tracked);
    }
}

void nx_free(struct nx *nx)
{
    for (uint32_t n = 0; n < nx->l1_count; n++) {
        struct nx_l1 *c = nx->l1[n];

        if (c->cpu != NULL)
            nx_deschedule(nx, n);
        if (c->blocked)
            vapic_unblock(&c->apic);
        c->l2 = false;
        vapic_nested_abandon(&c->apic);
        assert_int_equal(vapic_remove(&c->apic), VAPIC_OK);
    }
    if (nx->has_nested)
        vapic_nested_fini(&nx->nested);
    vapic_accel_fini(&nx->accel);
    check_pages(nx);
    for (uint32_t n = 0; n < NX_L1_PAGES; n++)
        free(nx->page[n].shadow);
    free(nx->l1_accel);
    free(nx->l1_memory);
    free(nx->l1_vm);
    free(nx->cpus);
    free(nx->pcpus);
    free(nx->by_id);
    free(nx->memory);
    free(nx->arena);
    free(nx->ram);
    free(nx->log);
    free(nx);
}

/* ---- The pages ---- */

static uint32_t word(const uint8_t *page, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, page + offset, sizeof(value));
    return value;
}

uint32_t nx_l1_page(const struct nx *nx, uint32_t l1, uint32_t offset)
{
    return word(nx->l1[l1]->page, offset);
}

uint32_t nx_l2_page(const struct nx *nx, uint32_t l2, uint32_t offset)
{
    return word(nx->l2[l2]->page, offset);
}

static bool bit(const uint8_t *page, uint32_t base, uint8_t vector)
{
    return (word(page, base + (vector >> 5) * 16u) >> (vector & 31)) & 1;
}

bool nx_l1_bit(const struct nx *nx, uint32_t l1, uint32_t base, uint8_t vector)
{
    return bit(nx->l1[l1]->page, base, vector);
}

bool nx_l2_bit(const struct nx *nx, uint32_t l2, uint32_t base, uint8_t vector)
{
    return bit(nx->l2[l2]->page, base, vector);
}
