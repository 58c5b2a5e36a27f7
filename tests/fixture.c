/* SPDX-License-Identifier: MIT */
/* The shared test fixture, see fixture.h. Linked into every test program of the library. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

/* ---- The recording host ---- */

static uint32_t number_of(const struct fx *fx, const struct vapic *v)
{
    ptrdiff_t n = v - fx->v;

    assert_true(n >= 0 && (uint32_t)n < fx->vcpus);
    return (uint32_t)n;
}

static void record(struct fx *fx, struct fx_event event)
{
    if (fx->silent)
        return;
    pthread_mutex_lock(&fx->log_lock);
    fx->counts[event.kind]++;
    if (fx->logged < FX_LOG_SIZE)
        fx->log[fx->logged++] = event;
    pthread_mutex_unlock(&fx->log_lock);
}

static bool lock_is_mine(struct fx *fx)
{
    bool mine;

    if (fx->silent)
        return false;
    pthread_mutex_lock(&fx->log_lock);
    mine = fx->locked && pthread_equal(fx->lock_owner, pthread_self());
    pthread_mutex_unlock(&fx->log_lock);
    return mine;
}

static void set_lock_owner(struct fx *fx, bool locked)
{
    if (fx->silent)
        return;
    pthread_mutex_lock(&fx->log_lock);
    fx->locked = locked;
    fx->lock_owner = pthread_self();
    pthread_mutex_unlock(&fx->log_lock);
}

static void host_lock(void *ctx)
{
    struct fx *fx = ctx;

    assert_false(lock_is_mine(fx));
    pthread_mutex_lock(&fx->config_lock);
    set_lock_owner(fx, true);
    record(fx, (struct fx_event){.kind = FX_LOCK, .vcpu = VAPIC_NO_INDEX});
}

static void host_unlock(void *ctx)
{
    struct fx *fx = ctx;

    assert_true(fx->silent || lock_is_mine(fx));
    set_lock_owner(fx, false);
    pthread_mutex_unlock(&fx->config_lock);
}

static void host_quiesce(void *ctx)
{
    struct fx *fx = ctx;

    assert_false(lock_is_mine(fx));
    record(fx, (struct fx_event){.kind = FX_QUIESCE, .vcpu = VAPIC_NO_INDEX});
    if (fx->on_quiesce != NULL)
        fx->on_quiesce(fx);
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    struct fx *fx = ctx;
    uint32_t n = number_of(fx, target);

    assert_true(action == VAPIC_ACTION_KICK || action == VAPIC_ACTION_WAKE);
    record(fx, (struct fx_event){.kind = FX_NOTIFY, .vcpu = n, .a = action});
    if (fx->on_notify != NULL)
        fx->on_notify(fx, n, action);
}

static void host_arm(void *ctx, struct vapic *v, struct vapic_deadline deadline)
{
    struct fx *fx = ctx;

    record(fx,
           (struct fx_event){
               .kind = FX_ARM, .vcpu = number_of(fx, v), .a = deadline.clock, .b = deadline.when});
}

static void host_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    struct fx *fx = ctx;
    uint32_t n = number_of(fx, v);

    record(fx, (struct fx_event){.kind = FX_EOI, .vcpu = n, .a = vector});
    if (fx->on_eoi != NULL)
        fx->on_eoi(fx, n, vector);
}

static void host_gsi_ack(void *ctx, uint32_t gsi)
{
    struct fx *fx = ctx;

    record(fx, (struct fx_event){.kind = FX_GSI_ACK, .vcpu = VAPIC_NO_INDEX, .a = gsi});
    if (fx->on_ack != NULL)
        fx->on_ack(fx, gsi);
}

static void host_ioapic_delay(void *ctx, struct vapic_ioapic *io, uint32_t pin, uint64_t ns)
{
    struct fx *fx = ctx;

    record(fx, (struct fx_event){
                   .kind = FX_DELAY, .vcpu = VAPIC_NO_INDEX, .a = pin, .b = ns, .io = io});
    if (fx->on_delay != NULL)
        fx->on_delay(fx, io, pin);
}

static void trace_event(void *ctx, const struct vapic_event *event)
{
    record(ctx, (struct fx_event){.kind = FX_TRACE, .vcpu = event->vcpu, .event = *event});
}

static const struct vapic_host recording_host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
    .arm = host_arm,
    .eoi = host_eoi,
    .gsi_ack = host_gsi_ack,
    .ioapic_delay = host_ioapic_delay,
};

/* ---- Making and ending ---- */

static void *aligned_zero(size_t alignment, size_t size)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, alignment, size == 0 ? alignment : size), 0);
    memset(p, 0, size);
    return p;
}

static void make_vm(struct fx *fx, const struct fx_options *options)
{
    struct vapic_vm_config config = options->config;
    size_t size;

    if (config.max_vcpus == 0)
        config.max_vcpus = fx->vcpus;
    if (config.max_gsis == 0)
        config.max_gsis = options->max_gsis != 0 ? options->max_gsis : 256;
    fx->host = recording_host;
    if (options->no_optional) {
        fx->host.arm = NULL;
        fx->host.eoi = NULL;
        fx->host.gsi_ack = NULL;
        fx->host.ioapic_delay = NULL;
    }
    size = vapic_vm_memory(&config);
    assert_true(size > 0);
    fx->memory = aligned_zero(64, size);
    assert_int_equal(
        vapic_vm_init(&fx->vm, sizeof(fx->vm), &config, &fx->host, fx, fx->memory, size), VAPIC_OK);
}

static void make_vcpu(struct fx *fx, uint32_t n, const struct fx_options *options)
{
    struct vapic *v = &fx->v[n];
    struct vapic_config config = {
        .id = options->ids != NULL ? options->ids[n] : n,
        .features = options->features,
        .bsp = n == 0,
        .version = options->version,
    };

    if (!options->no_features)
        config.features |=
            VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_EOI_SUPPRESS;
    assert_int_equal(vapic_init(v, sizeof(*v), &fx->vm, &config, fx->pages + 4096u * n), VAPIC_OK);
    if (!options->not_added)
        assert_int_equal(vapic_add(v), VAPIC_OK);
    if (options->x2apic)
        assert_int_equal(vapic_load_base(v, vapic_base(v) | APIC_BASE_EXTD), VAPIC_OK);
}

/* From the first vCPU to all others, as firmware does. */
static void start_message(struct fx *fx, uint32_t icr)
{
    vapic_send(&fx->vm, (struct vapic_msg){.icr = icr | APIC_ICR_ALL_EXCL,
                                           .source = vapic_index(&fx->v[0])});
    fx_settle(fx);
}

static void start_all(struct fx *fx, const struct fx_options *options)
{
    if (!options->not_added && !options->parked) {
        start_message(fx, APIC_DM_INIT | APIC_ICR_ASSERT);
        start_message(fx, APIC_DM_SIPI);
    }
    for (uint32_t n = 0; n < fx->vcpus && !options->soft_disabled; n++)
        fx_set(fx, n, APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_VECTOR);
}

struct fx *fx_new(const struct fx_options *options)
{
    static const struct fx_options defaults;
    struct fx *fx = aligned_zero(64, sizeof(*fx));

    if (options == NULL)
        options = &defaults;
    fx->vcpus = options->vcpus != 0 ? options->vcpus : 1;
    fx->v = aligned_zero(64, fx->vcpus * sizeof(struct vapic));
    fx->pages = aligned_zero(4096, fx->vcpus * (size_t)4096);
    fx->now = (struct vapic_now){.ns = 1000000, .tsc = 1000000};
    pthread_mutex_init(&fx->config_lock, NULL);
    pthread_mutex_init(&fx->log_lock, NULL);
    make_vm(fx, options);
    for (uint32_t n = 0; n < fx->vcpus; n++)
        make_vcpu(fx, n, options);
    start_all(fx, options);
    fx_forget(fx);
    fx->silent = options->silent;
    return fx;
}

void fx_settle(struct fx *fx)
{
    for (uint32_t n = 0; n < fx->vcpus; n++) {
        while (fx_peek(fx, n, VAPIC_CAN_INIT).event != VAPIC_CPU_NONE)
            continue;
        vapic_exit(&fx->v[n], (uint8_t)vapic_read_cr8(&fx->v[n]), true);
    }
}

void fx_equal_at(uint64_t actual, uint64_t expected, const char *file, int line, const char *format,
                 ...)
{
    char text[160];
    va_list args;

    if (actual == expected)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    print_error("%s: %#llx, expected %#llx\n", text, (unsigned long long)actual,
                (unsigned long long)expected);
    _fail(file, line);
}

void fx_free(struct fx *fx)
{
    pthread_mutex_destroy(&fx->config_lock);
    pthread_mutex_destroy(&fx->log_lock);
    free(fx->memory);
    free(fx->pages);
    free(fx->v);
    free(fx);
}

struct vapic_ioapic *fx_ioapic(struct fx *fx, uint32_t pins, uint32_t gsi_base, uint8_t version)
{
    struct vapic_ioapic_config config = {.pins = pins, .gsi_base = gsi_base, .version = version};
    struct vapic_ioapic *io = aligned_zero(64, sizeof(*io));
    struct vapic_pin *array = aligned_zero(64, (pins != 0 ? pins : 24) * sizeof(*array));

    assert_int_equal(vapic_ioapic_init(io, sizeof(*io), &fx->vm, &config, array), VAPIC_OK);
    return io;
}

void fx_ioapic_free(struct vapic_ioapic *io)
{
    free(io->pins);
    free(io);
}

/* ---- What happened ---- */

uint32_t fx_count(struct fx *fx, enum fx_kind kind)
{
    uint32_t count;

    pthread_mutex_lock(&fx->log_lock);
    count = fx->counts[kind];
    pthread_mutex_unlock(&fx->log_lock);
    return count;
}

struct fx_event fx_nth(struct fx *fx, enum fx_kind kind, uint32_t n)
{
    struct fx_event found = {.kind = FX_KINDS};
    uint32_t seen = 0;

    pthread_mutex_lock(&fx->log_lock);
    for (uint32_t i = 0; i < fx->logged && found.kind == FX_KINDS; i++) {
        if (fx->log[i].kind == kind && seen++ == n)
            found = fx->log[i];
    }
    pthread_mutex_unlock(&fx->log_lock);
    if (found.kind != kind)
        fail_msg("only %u events of kind %d were logged, number %u was asked for", seen, (int)kind,
                 n);
    return found;
}

void fx_forget(struct fx *fx)
{
    pthread_mutex_lock(&fx->log_lock);
    memset(fx->counts, 0, sizeof(fx->counts));
    fx->logged = 0;
    pthread_mutex_unlock(&fx->log_lock);
}

void fx_trace(struct fx *fx)
{
    vapic_trace(&fx->vm, trace_event, fx);
}

/* ---- A guest's accesses ---- */

static uint32_t msr_of(uint32_t offset)
{
    return MSR_X2APIC_FIRST + offset / 16;
}

static bool is_x2apic(const struct fx *fx, uint32_t n)
{
    return (vapic_base(&fx->v[n]) & APIC_BASE_EXTD) != 0;
}

uint32_t fx_read(struct fx *fx, uint32_t n, uint32_t offset)
{
    uint32_t value = 0xA5A5A5A5;

    vapic_mmio_read(&fx->v[n], offset, &value, sizeof(value), fx->now);
    return value;
}

void fx_write(struct fx *fx, uint32_t n, uint32_t offset, uint32_t value)
{
    vapic_mmio_write(&fx->v[n], offset, &value, sizeof(value), fx->now);
}

int fx_rdmsr(struct fx *fx, uint32_t n, uint32_t msr, uint64_t *value)
{
    return vapic_msr_read(&fx->v[n], msr, value, fx->now);
}

int fx_wrmsr(struct fx *fx, uint32_t n, uint32_t msr, uint64_t value)
{
    return vapic_msr_write(&fx->v[n], msr, value, fx->now);
}

uint32_t fx_get(struct fx *fx, uint32_t n, uint32_t offset)
{
    uint64_t value = 0;

    if (!is_x2apic(fx, n))
        return fx_read(fx, n, offset);
    assert_int_equal(fx_rdmsr(fx, n, msr_of(offset), &value), VAPIC_OK);
    return (uint32_t)value;
}

void fx_set(struct fx *fx, uint32_t n, uint32_t offset, uint32_t value)
{
    if (is_x2apic(fx, n))
        assert_int_equal(fx_wrmsr(fx, n, msr_of(offset), value), VAPIC_OK);
    else
        fx_write(fx, n, offset, value);
}

void fx_icr(struct fx *fx, uint32_t n, uint32_t low, uint32_t dest)
{
    if (is_x2apic(fx, n)) {
        assert_int_equal(fx_wrmsr(fx, n, msr_of(APIC_ICR), (uint64_t)dest << 32 | low), VAPIC_OK);
        return;
    }
    fx_write(fx, n, APIC_ICR2, dest << 24);
    fx_write(fx, n, APIC_ICR, low);
}

void fx_eoi(struct fx *fx, uint32_t n)
{
    fx_set(fx, n, APIC_EOI, 0);
}

/* ---- The run loop ---- */

struct vapic_entry fx_peek(struct fx *fx, uint32_t n, uint32_t can)
{
    struct vapic_entry entry;

    memset(&entry, 0xA5, sizeof(entry));
    vapic_enter(&fx->v[n], can, fx->now, &entry);
    return entry;
}

struct vapic_entry fx_step(struct fx *fx, uint32_t n, uint32_t can)
{
    struct vapic_entry entry = fx_peek(fx, n, can);

    if (entry.inject != VAPIC_INJECT_NONE)
        vapic_commit(&fx->v[n], &entry);
    vapic_exit(&fx->v[n], entry.cr8, true);
    return entry;
}

int fx_take(struct fx *fx, uint32_t n)
{
    struct vapic_entry entry = fx_step(fx, n, VAPIC_CAN_IRQ | VAPIC_IF);

    return entry.inject == VAPIC_INJECT_VECTOR ? entry.vector : -1;
}

int fx_take_eoi(struct fx *fx, uint32_t n)
{
    int vector = fx_take(fx, n);

    if (vector >= 0)
        fx_eoi(fx, n);
    return vector;
}

bool fx_bit(struct fx *fx, uint32_t n, uint32_t base, uint8_t vector)
{
    return (fx_get(fx, n, base + (vector >> 5) * 16u) >> (vector & 31)) & 1;
}

/* ---- I/O APIC registers ---- */

uint32_t fx_io_read(struct vapic_ioapic *io, uint32_t index)
{
    vapic_ioapic_write(io, IOAPIC_REGSEL, index, 4);
    return (uint32_t)vapic_ioapic_read(io, IOAPIC_IOWIN, 4);
}

void fx_io_write(struct vapic_ioapic *io, uint32_t index, uint32_t value)
{
    vapic_ioapic_write(io, IOAPIC_REGSEL, index, 4);
    vapic_ioapic_write(io, IOAPIC_IOWIN, value, 4);
}

void fx_rte_write(struct vapic_ioapic *io, uint32_t pin, uint64_t rte)
{
    fx_io_write(io, IOAPIC_REG_RTE + 2 * pin + 1, (uint32_t)(rte >> 32));
    fx_io_write(io, IOAPIC_REG_RTE + 2 * pin, (uint32_t)rte);
}

uint64_t fx_rte_read(struct vapic_ioapic *io, uint32_t pin)
{
    uint64_t low = fx_io_read(io, IOAPIC_REG_RTE + 2 * pin);

    return low | (uint64_t)fx_io_read(io, IOAPIC_REG_RTE + 2 * pin + 1) << 32;
}
