/* SPDX-License-Identifier: MIT */
/* See diff_machine.h. One lock guards whose turn it is and how far the guest is. */
#include "diff_machine.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "blobs.h"
#include "machine.h"

#define GUEST_MEM    (32ull << 20)
#define BOOT_SECONDS 60
#define RUN_SECONDS  30
#define LOOK_NS      100000000

enum state { BOOTING, IDLE, BUSY, DEAD };

/* For good: only one of the machines hears of a signal, and it may be made anew. */
static atomic_bool signalled;

struct diff_machine {
    struct diff_machine_config config;
    struct vmm_machine *machine;
    struct vmm_machine_result result;
    struct vmm_err why;
    pthread_t thread;
    int null_fd;

    pthread_mutex_t lock;
    pthread_cond_t changed;              /* `state` */
    pthread_cond_t turns[DIFF_CPUS_MAX]; /* it is this processor's turn, or `stop` */
    pthread_cond_t fetched;              /* `state` is BUSY, or `stop` */
    enum state state;
    bool stop;
    bool panicked;
    uint32_t panic;
    uint32_t turn;
    uint32_t msi_address; /* of the processor whose turn it is */
    struct diff_mailbox *mailbox;
};

/* ---------------------------------------------------------------------------------------------- */
/* The guest's ports                                                                              */
/* ---------------------------------------------------------------------------------------------- */

static void after(struct timespec *until, time_t seconds, long ns)
{
    clock_gettime(CLOCK_MONOTONIC, until);
    until->tv_sec += seconds + (until->tv_nsec + ns) / 1000000000;
    until->tv_nsec = (until->tv_nsec + ns) % 1000000000;
}

/*
 * With the lock held. No time limit: a timer at each turn would cost more than the turn. That the
 * machine stops by itself wait_for_guest() notices.
 */
static bool wait_here(struct diff_machine *d, pthread_cond_t *cond)
{
    if (d->stop || vmm_machine_wants(d->machine)) {
        return false;
    }
    pthread_cond_wait(cond, &d->lock);
    return true;
}

static void wake_all(struct diff_machine *d)
{
    pthread_cond_broadcast(&d->fetched);
    for (unsigned c = 0; c < DIFF_CPUS_MAX; c++) {
        pthread_cond_broadcast(&d->turns[c]);
    }
}

static void on_attach(struct diff_machine *d, uint32_t address)
{
    struct diff_mailbox *box = vmm_mem_at(&d->machine->mem, address, sizeof(*box));

    if (box != NULL && box->magic == DIFF_MAGIC) {
        box->cpus = d->config.cpus;
        box->flags = vmm_shadow_is_forgotten() ? DIFF_CAREFUL_CR8 : 0;
        d->mailbox = box;
    }
}

/* Without the lock, so that the one who is woken, and runs at once, need not wait for it. */
static void give_turn(struct diff_machine *d, uint32_t next)
{
    d->turn = next;
    pthread_mutex_unlock(&d->lock);
    pthread_cond_signal(&d->turns[next]);
    pthread_mutex_lock(&d->lock);
}

static void on_turn(struct diff_machine *d, uint32_t value)
{
    uint32_t self = value >> 8 & (DIFF_CPUS_MAX - 1), next = value & 0xff;

    if (next < DIFF_CPUS_MAX) {
        give_turn(d, next);
    }
    while (d->turn != self && wait_here(d, &d->turns[self])) {
    }
}

static void on_fetch(struct diff_machine *d, uint32_t value)
{
    (void)value;
    d->state = IDLE;
    pthread_cond_broadcast(&d->changed);
    while (d->state != BUSY && wait_here(d, &d->fetched)) {
    }
}

static void on_msi_address(struct diff_machine *d, uint32_t value)
{
    d->msi_address = value;
}

static void on_msi_data(struct diff_machine *d, uint32_t value)
{
    vmm_machine_msi(d->machine, d->msi_address, value);
}

static void on_panic(struct diff_machine *d, uint32_t value)
{
    d->panicked = true;
    d->panic = value;
    d->state = DEAD;
    pthread_cond_broadcast(&d->changed);
    while (wait_here(d, &d->fetched)) {
    }
}

static void port_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    static void (*const ports[DIFF_PORT_SIZE / 4])(struct diff_machine *, uint32_t) = {
        on_attach, on_turn, on_fetch, on_msi_address, on_msi_data, on_panic,
    };
    struct diff_machine *d = ctx;

    (void)size;
    pthread_mutex_lock(&d->lock);
    ports[offset / 4](d, (uint32_t)value);
    pthread_mutex_unlock(&d->lock);
}

static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx;
    (void)offset;
    (void)size;
    return UINT64_MAX;
}

static const struct vmm_bus_ops port_ops = {port_read, port_write};

/* ---------------------------------------------------------------------------------------------- */
/* The machine                                                                                    */
/* ---------------------------------------------------------------------------------------------- */

static void *machine_thread(void *arg)
{
    struct diff_machine *d = arg;
    int rc = vmm_machine_run(d->machine, &d->result, &d->why);

    pthread_mutex_lock(&d->lock);
    d->state = DEAD;
    if (rc != 0) {
        d->result.why = VMM_WANT_NOTHING;
    }
    if (rc == 0 && d->result.why == VMM_WANT_SIGNAL) {
        atomic_store(&signalled, true);
    }
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/*
 * False: not within this time. With the lock held. Who is blocked in a port while the machine is
 * to stop has to be woken.
 */
static bool wait_for_guest(struct diff_machine *d, time_t seconds)
{
    struct timespec now, until, look;

    after(&until, seconds, 0);
    while (d->state != IDLE && d->state != DEAD) {
        after(&look, 0, LOOK_NS);
        pthread_cond_timedwait(&d->changed, &d->lock, &look);
        if (vmm_machine_wants(d->machine)) {
            wake_all(d);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > until.tv_sec) {
            return d->state == IDLE || d->state == DEAD;
        }
    }
    return true;
}

static int build(struct diff_machine *d, struct vmm_err *err)
{
    struct vmm_machine_config config = {
        .kernel = {vmm_guest_diff, vmm_guest_diff_size, "diff"},
        .cmdline = "",
        .cpus = d->config.cpus,
        .mem = GUEST_MEM,
        .x2apic = true,
        .tsc_deadline = true,
        .irqchip = d->config.irqchip,
        .accel = d->config.accel,
        .knobs = d->config.knobs,
        .knobs_set = true,
        .in_fd = -1,
        .out_fd = d->null_fd,
    };
    struct vmm_bus_region region = {
        .name = "differential test",
        .base = DIFF_PORT_BASE,
        .len = DIFF_PORT_SIZE,
        .widths = VMM_BUS_W4,
        .ops = &port_ops,
        .ctx = d,
    };

    d->machine = vmm_machine_new(&config, err);
    if (d->machine == NULL) {
        return -1;
    }
    if (vmm_bus_add(&d->machine->ports, &region) != 0) {
        return vmm_fail(err, "the ports of the differential test are taken");
    }
    return 0;
}

static int start(struct diff_machine *d, struct vmm_err *err)
{
    bool idle;

    d->state = BOOTING;
    d->stop = d->panicked = false;
    d->turn = 0;
    d->mailbox = NULL;
    if (build(d, err) != 0) {
        return -1;
    }
    if (pthread_create(&d->thread, NULL, machine_thread, d) != 0) {
        vmm_machine_free(d->machine);
        d->machine = NULL;
        return vmm_fail(err, "cannot start a thread");
    }
    pthread_mutex_lock(&d->lock);
    idle = wait_for_guest(d, BOOT_SECONDS) && d->state == IDLE && d->mailbox != NULL;
    pthread_mutex_unlock(&d->lock);
    if (idle) {
        return 0;
    }
    return vmm_fail(err, atomic_load(&signalled) ? "ended by a signal"
                                                 : "the guest does not start: try --engine rig");
}

static void stop(struct diff_machine *d)
{
    if (d->machine == NULL) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    wake_all(d);
    pthread_mutex_unlock(&d->lock);
    vmm_machine_request(d->machine, VMM_WANT_QUIT, 0);
    pthread_join(d->thread, NULL);
    vmm_machine_free(d->machine);
    d->machine = NULL;
}

void diff_machine_renew(struct diff_machine *d)
{
    stop(d);
}

struct diff_machine *diff_machine_new(const struct diff_machine_config *config, struct vmm_err *err)
{
    struct diff_machine *d = calloc(1, sizeof(*d));
    pthread_condattr_t attr;

    if (d == NULL) {
        vmm_fail(err, "no memory");
        return NULL;
    }
    d->config = *config;
    d->null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->changed, &attr);
    pthread_cond_init(&d->fetched, &attr);
    for (unsigned c = 0; c < DIFF_CPUS_MAX; c++) {
        pthread_cond_init(&d->turns[c], &attr);
    }
    pthread_condattr_destroy(&attr);
    if (start(d, err) != 0) {
        diff_machine_free(d);
        return NULL;
    }
    return d;
}

void diff_machine_free(struct diff_machine *d)
{
    if (d == NULL) {
        return;
    }
    stop(d);
    close(d->null_fd);
    pthread_cond_destroy(&d->changed);
    pthread_cond_destroy(&d->fetched);
    for (unsigned c = 0; c < DIFF_CPUS_MAX; c++) {
        pthread_cond_destroy(&d->turns[c]);
    }
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* ---------------------------------------------------------------------------------------------- */
/* Running a program                                                                              */
/* ---------------------------------------------------------------------------------------------- */

static void keep_log(const struct diff_machine *d, struct diff_log *log)
{
    uint32_t count = d->mailbox->log_count;

    log->count = count < DIFF_LOG_MAX ? count : DIFF_LOG_MAX;
    log->pc = d->mailbox->pc;
    memcpy(log->record, d->mailbox->log, log->count * sizeof(log->record[0]));
}

/* With the lock held; `in_time`: it is idle or dead. */
static void judge(const struct diff_machine *d, bool in_time, struct diff_log *log)
{
    if (atomic_load(&signalled)) {
        log->end = DIFF_END_STOP;
    } else if (!in_time) {
        log->end = DIFF_END_HANG;
        snprintf(log->text, sizeof(log->text), "no end within %d s", RUN_SECONDS);
    } else if (d->state == IDLE) {
        log->end = DIFF_END_DONE;
    } else if (d->panicked) {
        log->end = DIFF_END_CRASH;
        snprintf(log->text, sizeof(log->text), "exception %u at ...%06x", d->panic >> 24,
                 d->panic & 0xffffff);
    } else {
        log->end = DIFF_END_CRASH;
        snprintf(log->text, sizeof(log->text), "%.150s",
                 d->result.why == VMM_WANT_FAIL ? vmm_machine_failure(d->machine)
                                                : "the machine was reset");
        log->text[strcspn(log->text, "\n")] = '\0';
    }
}

/*
 * Some of what a program does ends acceleration for good: that it moves the page, or makes the
 * library withdraw the access page for a vCPU in x2APIC mode. The next one shall find it again.
 */
static bool is_worn(const struct diff_machine *d)
{
    const struct vapic_vm *vm = &d->machine->vm;
    uint32_t inhibits;

    if (d->config.irqchip != VMM_IRQCHIP_VAPIC || d->config.accel == VMM_ACCEL_NONE) {
        return false;
    }
    inhibits = vapic_inhibits(vm).bits;
    return (inhibits >> VAPIC_INHIBIT_APIC_BASE_MODIFIED & 1) != 0 ||
           (inhibits == 0 && !vapic_access_page(vm));
}

int diff_machine_run(struct diff_machine *d, const struct diff_program *p, struct diff_log *log,
                     struct vmm_err *err)
{
    bool in_time;

    log->text[0] = '\0';
    if (atomic_load(&signalled)) {
        log->end = DIFF_END_STOP;
        log->count = log->pc = 0;
        return 0;
    }
    if (d->machine == NULL && start(d, err) != 0) {
        return -1;
    }
    pthread_mutex_lock(&d->lock);
    memcpy(d->mailbox->ops, p->ops, p->count * sizeof(p->ops[0]));
    d->mailbox->op_count = p->count;
    d->state = d->state == IDLE ? BUSY : d->state;
    pthread_cond_signal(&d->fetched);
    in_time = wait_for_guest(d, RUN_SECONDS);
    judge(d, in_time, log);
    keep_log(d, log);
    pthread_mutex_unlock(&d->lock);
    if (log->end != DIFF_END_DONE || is_worn(d)) {
        stop(d);
    }
    return 0;
}
