/* SPDX-License-Identifier: MIT */
/* Building, booting and stopping the machine; see machine.h. */
#include "machine.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "acpi.h"

/* IDs 0 to 254; 255 is the broadcast. */
#define XAPIC_CPUS       255u

#define CONSOLE_DRAIN_MS 2000u
#define JOIN_SECONDS     60

#define TRIPLE_FAULT     "triple fault; its registers:"
#define TRIPLE_FAULT_LOST                                                                          \
    "triple fault, in which KVM lost the registers; those of its last exit before:"

/* ---------------------------------------------------------------------------------------------- */
/* Requests                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

/* The first request wins, but for a reset, which gives way to anything that ends the machine. */
void vmm_machine_request(struct vmm_machine *m, enum vmm_want want, int code)
{
    uint64_t now = 0;
    uint64_t word = (uint64_t)want | (uint64_t)(uint32_t)code << 32;

    while (!atomic_compare_exchange_weak(&m->want, &now, word)) {
        if (now != VMM_WANT_NOTHING && (now != VMM_WANT_RESET || want == VMM_WANT_RESET)) {
            return;
        }
    }
    for (unsigned i = 0; i < m->cpus_made; i++) {
        vmm_vcpu_prod(&m->cpu[i]);
    }
    pthread_mutex_lock(&m->want_lock);
    pthread_cond_broadcast(&m->wanted);
    pthread_mutex_unlock(&m->want_lock);
}

static uint64_t wait_for_request(struct vmm_machine *m)
{
    pthread_mutex_lock(&m->want_lock);
    while (atomic_load(&m->want) == 0) {
        pthread_cond_wait(&m->wanted, &m->want_lock);
    }
    pthread_mutex_unlock(&m->want_lock);
    return atomic_load(&m->want);
}

/* Does this vCPU show the state that KVM gives it after a shutdown on AMD? */
static bool regs_are_lost(const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    return regs->rip == 0xfff0 && sregs->cs.base == 0xffff0000u;
}

void vmm_machine_fail(struct vmm_machine *m, struct vmm_vcpu *v, const char *what)
{
    char text[sizeof(m->failure) - 200];
    struct vmm_kvm_regs now;

    memset(&now, 0, sizeof(now));
    if (vmm_kvm_save_regs(v->fd, &now) != 0) {
        snprintf(text, sizeof(text), "  (not readable: %s)\n", strerror(errno));
    } else if (regs_are_lost(&now.regs, &now.sregs) && m->kvm.sync_regs) {
        vmm_kvm_print_regs(&v->before, NULL, text, sizeof(text));
        what = strcmp(what, TRIPLE_FAULT) == 0 ? TRIPLE_FAULT_LOST : what;
    } else {
        vmm_kvm_print_regs(&now.regs, &now.sregs, text, sizeof(text));
    }
    pthread_mutex_lock(&m->want_lock);
    if (m->failure[0] == '\0') {
        snprintf(m->failure, sizeof(m->failure), "vCPU %u: %s\n%s", v->index, what, text);
    }
    pthread_mutex_unlock(&m->want_lock);
    vmm_machine_request(m, VMM_WANT_FAIL, 0);
}

/*
 * On hardware every triple fault resets the machine; a user wants to see the ones that are bugs. A
 * guest that means it has emptied its IDT, or has set the BIOS's reset flag before. (KVM on AMD
 * loses the IDT in the fault, so the second sign is needed there.)
 */
void vmm_machine_triple_fault(struct vmm_machine *m, struct vmm_vcpu *v)
{
    const uint8_t *flag = vmm_mem_at(&m->mem, VMM_BDA_RESET_FLAG, 2);
    unsigned value = flag[0] | (unsigned)flag[1] << 8;
    struct vmm_kvm_regs now;
    bool empty_idt = vmm_kvm_save_regs(v->fd, &now) == 0 && now.sregs.idt.limit == 0;

    if (empty_idt || value == VMM_BDA_RESET_COLD || value == VMM_BDA_RESET_WARM) {
        vmm_machine_request(m, VMM_WANT_RESET, 0);
    } else {
        vmm_machine_fail(m, v, TRIPLE_FAULT);
    }
}

static void on_power(void *ctx, enum vmm_power_request request, int code)
{
    static const enum vmm_want wants[] = {
        [VMM_POWER_OFF] = VMM_WANT_OFF,
        [VMM_POWER_RESET] = VMM_WANT_RESET,
        [VMM_POWER_DEBUG_EXIT] = VMM_WANT_DEBUG_EXIT,
        [VMM_POWER_QUIT] = VMM_WANT_QUIT,
    };

    vmm_machine_request(ctx, wants[request], code);
}

static void on_signal(void *ctx, uint32_t events)
{
    struct vmm_machine *m = ctx;
    struct signalfd_siginfo info;

    (void)events;
    if (read(m->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        vmm_machine_request(m, VMM_WANT_SIGNAL, (int)info.ssi_signo);
    }
}

/* ---------------------------------------------------------------------------------------------- */
/* What libvapic calls                                                                            */
/* ---------------------------------------------------------------------------------------------- */

static void host_lock(void *ctx)
{
    pthread_mutex_lock(&((struct vmm_machine *)ctx)->config_lock);
}

static void host_unlock(void *ctx)
{
    pthread_mutex_unlock(&((struct vmm_machine *)ctx)->config_lock);
}

/* vCPUs are only removed when every thread that calls the library has been joined. */
static void host_quiesce(void *ctx)
{
    (void)ctx;
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    (void)ctx;
    /* The APIC is the first member of its vCPU. */
    vmm_vcpu_act((struct vmm_vcpu *)target, action);
}

static void host_ioapic_delay(void *ctx, struct vapic_ioapic *io, uint32_t pin, uint64_t delay_ns)
{
    struct vmm_machine *m = ctx;

    (void)io;
    vmm_timer_arm(&m->pauses[pin].timer, vmm_clock_mono(&vmm_clock_host) + delay_ns);
}

static void on_pause_over(void *ctx)
{
    struct vmm_pin_pause *pause = ctx;

    vapic_ioapic_resume(&pause->machine->ioapic, pause->pin);
}

static const struct vapic_host host = {
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
    .ioapic_delay = host_ioapic_delay,
};

/* ---------------------------------------------------------------------------------------------- */
/* Interrupt wires                                                                                */
/* ---------------------------------------------------------------------------------------------- */

/*
 * Wire n goes to input n of the 8259 pair and to pin n of the I/O APIC; wire 0, the PIT, to pin 2
 * instead, as the MADT says. Wire 2 has no 8259 input and shares pin 2 as a source of its own.
 */
static void on_wire(void *ctx, unsigned gsi, bool level)
{
    struct vmm_machine *m = ctx;

    if (gsi < 16) {
        vmm_pic_set_line(&m->devices.pic, gsi, level);
    }
    if (vapic_gsi_set(&m->vm, gsi == 0 ? 2 : gsi, gsi == 2 ? 1 : 0, level) > 0) {
        atomic_fetch_add_explicit(&m->ioapic_interrupts, 1, memory_order_relaxed);
    }
}

/* The 8259's INTR is wired to LINT0 of the boot processor. */
static void on_intr(void *ctx, bool level)
{
    struct vmm_machine *m = ctx;

    vmm_vcpu_act(&m->cpu[0], vapic_set_lint(&m->cpu[0].apic, 0, level));
}

uint8_t vmm_machine_acknowledge_pic(struct vmm_machine *m)
{
    return vmm_pic_ack(&m->devices.pic);
}

/* ---------------------------------------------------------------------------------------------- */
/* Building                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

static int check_cpus(const struct vmm_machine *m, struct vmm_err *err)
{
    unsigned limit = m->kvm.max_cpus < m->kvm.max_id ? m->kvm.max_cpus : m->kvm.max_id;

    if (limit > VAPIC_MAX_VCPUS) {
        limit = VAPIC_MAX_VCPUS;
    }
    if (m->config.cpus > limit) {
        return vmm_fail(err, "--cpus: %u is too many: this host's KVM takes %u", m->config.cpus,
                        limit);
    }
    return 0;
}

static int make_vm(struct vmm_machine *m, struct vmm_err *err)
{
    struct vapic_vm_config config = {
        .max_vcpus = m->config.cpus,
        .msi_dest = m->config.x2apic ? VAPIC_MSI_DEST_15 : VAPIC_MSI_DEST_8,
        .bus_ns = VMM_APIC_BUS_NS,
        .max_gsis = VMM_IOAPIC_PINS,
        .count_received = m->config.count,
    };
    struct vapic_ioapic_config io = {.pins = VMM_IOAPIC_PINS};
    size_t size = vapic_vm_memory(&config);
    int rc;

    m->vm_memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    if (m->vm_memory == NULL) {
        return vmm_fail(err, "no memory for %u APICs", m->config.cpus);
    }
    rc = vapic_vm_init(&m->vm, sizeof(m->vm), &config, &host, m, m->vm_memory, size);
    if (rc == VAPIC_OK) {
        rc = vapic_ioapic_init(&m->ioapic, sizeof(m->ioapic), &m->vm, &io, m->pins);
    }
    if (rc != VAPIC_OK) {
        return vmm_fail(err, "libvapic: %s", vapic_result_text(rc));
    }
    if (m->config.trace != NULL) {
        vapic_trace(&m->vm, vmm_trace_event, m->config.trace);
    }
    return 0;
}

static int make_cpu(struct vmm_machine *m, unsigned i, struct vmm_err *err)
{
    struct vmm_vcpu *v = &m->cpu[i];
    struct vapic_config config = {
        .id = i,
        .features = (m->config.x2apic ? VAPIC_FEATURE_X2APIC : 0) |
                    (m->config.tsc_deadline ? VAPIC_FEATURE_TSC_DEADLINE : 0) |
                    (vmm_kvm_is_amd(&m->kvm) ? VAPIC_FEATURE_AMD : 0),
        .bsp = i == 0,
        .phys_bits = (uint8_t)vmm_kvm_phys_bits(&m->kvm),
    };
    int rc;

    v->machine = m;
    v->index = i;
    v->fd = -1;
    v->page = m->pages + (size_t)i * APIC_PAGE_SIZE;
    rc = vapic_init(&v->apic, sizeof(v->apic), &m->vm, &config, v->page);
    if (rc == VAPIC_OK) {
        rc = vapic_add(&v->apic);
    }
    if (rc != VAPIC_OK) {
        return vmm_fail(err, "libvapic: vCPU %u: %s", i, vapic_result_text(rc));
    }
    if (m->vectors != NULL) {
        vapic_count_vectors(&v->apic, m->vectors[i]);
    }
    return 0;
}

static int make_cpus(struct vmm_machine *m, struct vmm_err *err)
{
    size_t bytes = m->config.cpus * sizeof(*m->cpu);
    void *pages = mmap(NULL, (size_t)m->config.cpus * APIC_PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    m->pages = pages != MAP_FAILED ? pages : NULL;
    m->cpu = aligned_alloc(_Alignof(struct vmm_vcpu), bytes);
    if (m->config.count) {
        m->vectors = calloc(m->config.cpus, sizeof(*m->vectors));
    }
    if (m->pages == NULL || m->cpu == NULL || (m->config.count && m->vectors == NULL)) {
        return vmm_fail(err, "no memory for %u vCPUs: lower --cpus", m->config.cpus);
    }
    memset(m->cpu, 0, bytes);
    for (unsigned i = 0; i < m->config.cpus; i++) {
        if (make_cpu(m, i, err) != 0) {
            return -1;
        }
        m->cpus_made = i + 1;
    }
    return 0;
}

static int make_devices(struct vmm_machine *m, struct vmm_err *err)
{
    struct vmm_env *env = &m->devices.env;
    struct vmm_devices_config config = {
        .ram_below_4g = m->mem.low,
        .ram_above_4g = m->mem.high,
        .cpus = m->config.cpus,
        .max_cpus = m->config.cpus,
        .pm_timer_bits = VMM_ACPI_PM_TIMER_BITS,
        .pic_output = {m, on_intr},
    };
    int rc;

    pthread_mutex_init(&env->lock, NULL);
    vmm_bus_init(&m->ports, VMM_BUS_LAST_PORT);
    env->clock = vmm_clock_host;
    env->loop = &m->loop;
    env->ports = &m->ports;
    env->irq = (struct vmm_irq_sink){m, on_wire};
    env->power = (struct vmm_power){m, on_power};
    vmm_console_init(&m->console, env, &m->devices.serial, m->config.in_fd, m->config.out_fd,
                     m->config.escapes);
    config.serial = vmm_console_backend(&m->console);
    rc = vmm_devices_init(&m->devices, &config);
    if (rc != 0) {
        return vmm_fail(err, "cannot set up the devices: %s", strerror(-rc));
    }
    m->devices_made = true;
    return 0;
}

static int make_loop(struct vmm_machine *m, struct vmm_err *err)
{
    int rc = vmm_evloop_init(&m->loop, &vmm_clock_host);

    if (rc == 0) {
        m->loop_made = true;
        for (uint32_t i = 0; i < VMM_IOAPIC_PINS && rc == 0; i++) {
            m->pauses[i].machine = m;
            m->pauses[i].pin = i;
            rc = vmm_timer_init(&m->pauses[i].timer, &m->loop, on_pause_over, &m->pauses[i]);
        }
    }
    return rc == 0 ? 0 : vmm_fail(err, "cannot set up the event loop: %s", strerror(-rc));
}

/* SIGINT, SIGTERM and SIGHUP become events; every thread started later has them blocked too. */
static int make_signals(struct vmm_machine *m, struct vmm_err *err)
{
    sigset_t set;
    int rc;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (m->signal_fd < 0 || vmm_vcpu_install_kick() != 0) {
        return vmm_fail(err, "cannot set up signals: %s", strerror(errno));
    }
    rc = vmm_watch_add(&m->signal_watch, &m->loop, m->signal_fd, EPOLLIN, on_signal, m);
    return rc == 0 ? 0 : vmm_fail(err, "cannot watch signals: %s", strerror(-rc));
}

static int build(struct vmm_machine *m, struct vmm_err *err)
{
    if (vmm_kvm_open(&m->kvm, err) != 0 || check_cpus(m, err) != 0 ||
        vmm_mem_init(&m->mem, m->config.mem, err) != 0 || make_vm(m, err) != 0 ||
        make_cpus(m, err) != 0 || make_loop(m, err) != 0 || make_devices(m, err) != 0) {
        return -1;
    }
    return make_signals(m, err);
}

struct vmm_machine *vmm_machine_new(const struct vmm_machine_config *config, struct vmm_err *err)
{
    struct vmm_machine *m = aligned_alloc(_Alignof(struct vmm_machine), sizeof(*m));

    if (m == NULL) {
        vmm_fail(err, "no memory for a machine");
        return NULL;
    }
    memset(m, 0, sizeof(*m));
    m->config = *config;
    m->kvm.fd = -1;
    m->vm_fd = -1;
    m->signal_fd = -1;
    pthread_mutex_init(&m->config_lock, NULL);
    pthread_mutex_init(&m->want_lock, NULL);
    pthread_cond_init(&m->wanted, NULL);
    m->cpu_config = (struct vmm_kvm_cpu_config){
        .cpus = config->cpus,
        .x2apic = config->x2apic,
        .tsc_deadline = config->tsc_deadline,
        .bus_hz = 1000000000u / VMM_APIC_BUS_NS,
    };
    if (build(m, err) != 0) {
        vmm_machine_free(m);
        return NULL;
    }
    return m;
}

void vmm_machine_free(struct vmm_machine *m)
{
    if (m->stuck) {
        return;
    }
    if (m->loop_made) {
        vmm_evloop_stop(&m->loop);
    }
    if (m->devices_made) {
        vmm_devices_fini(&m->devices);
    }
    if (m->loop_made) {
        for (unsigned i = 0; i < VMM_IOAPIC_PINS; i++) {
            vmm_timer_fini(&m->pauses[i].timer);
        }
        vmm_watch_remove(&m->signal_watch);
        vmm_evloop_fini(&m->loop);
    }
    for (unsigned i = 0; i < m->cpus_made; i++) {
        vapic_remove(&m->cpu[i].apic);
    }
    if (m->signal_fd >= 0) {
        close(m->signal_fd);
    }
    if (m->pages != NULL) {
        munmap(m->pages, (size_t)m->config.cpus * APIC_PAGE_SIZE);
    }
    free(m->cpu);
    free(m->vectors);
    free(m->vm_memory);
    vmm_mem_fini(&m->mem);
    if (m->kvm.fd >= 0) {
        vmm_kvm_close(&m->kvm);
    }
    free(m);
}

/* ---------------------------------------------------------------------------------------------- */
/* Booting                                                                                        */
/* ---------------------------------------------------------------------------------------------- */

static int load_guest(struct vmm_machine *m, struct vmm_start *start, struct vmm_err *err)
{
    struct vmm_load_args args = {
        .kernel = m->config.kernel,
        .initrd = m->config.initrd,
        .cmdline = m->config.cmdline,
    };
    uint32_t *ids = malloc(m->config.cpus * sizeof(*ids));
    struct vmm_acpi_config acpi = {.apic_ids = ids, .cpus = m->config.cpus};
    int rc;

    if (ids == NULL) {
        return vmm_fail(err, "no memory for the ACPI tables");
    }
    for (unsigned i = 0; i < m->config.cpus; i++) {
        ids[i] = i;
    }
    rc = vmm_mem_clear(&m->mem, err);
    if (rc == 0) {
        rc = vmm_acpi_build(&m->mem, &acpi, &args.rsdp, err);
    }
    if (rc == 0) {
        rc = vmm_load(&m->mem, &args, start, err);
    }
    free(ids);
    return rc;
}

static void close_vm(struct vmm_machine *m)
{
    for (unsigned i = 0; i < m->cpus_made; i++) {
        vmm_vcpu_close(&m->cpu[i]);
    }
    if (m->vm_fd >= 0) {
        close(m->vm_fd);
        m->vm_fd = -1;
    }
}

static int open_vm(struct vmm_machine *m, const struct vmm_start *start, struct vmm_err *err)
{
    m->vm_fd = vmm_kvm_create_vm(&m->kvm, &m->mem, err);
    if (m->vm_fd < 0) {
        return -1;
    }
    for (unsigned i = 0; i < m->config.cpus; i++) {
        if (vmm_vcpu_open(&m->cpu[i], m->vm_fd, err) != 0) {
            return -1;
        }
    }
    if (vmm_kvm_start(m->cpu[0].fd, start) != 0) {
        return vmm_fail(err, "/dev/kvm: cannot set the start registers: %s", strerror(errno));
    }
    return 0;
}

/*
 * Every vCPU thread leaves its loop once it sees a request, unless KVM does not return from a run.
 * Then nothing that it uses may be freed.
 */
static int join_cpus(struct vmm_machine *m, struct vmm_err *err)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += JOIN_SECONDS;
    for (unsigned i = 0; i < m->config.cpus; i++) {
        if (!m->cpu[i].joinable) {
            continue;
        }
        if (pthread_timedjoin_np(m->cpu[i].thread, NULL, &until) != 0) {
            m->stuck = true;
            return vmm_fail(err, "/dev/kvm: vCPU %u does not come back: use --engine rig", i);
        }
        m->cpu[i].joinable = false;
    }
    return 0;
}

static int start_cpus(struct vmm_machine *m, struct vmm_err *err)
{
    pthread_attr_t attr;
    int rc = 0;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    for (unsigned i = 0; i < m->config.cpus && rc == 0; i++) {
        struct vmm_vcpu *v = &m->cpu[i];

        rc = pthread_create(&v->thread, &attr, vmm_vcpu_thread, v);
        v->joinable = rc == 0;
    }
    pthread_attr_destroy(&attr);
    if (rc != 0) {
        vmm_machine_request(m, VMM_WANT_QUIT, 0);
        join_cpus(m, err);
        return vmm_fail(err, "cannot start %u vCPU threads: %s: lower --cpus", m->config.cpus,
                        strerror(rc));
    }
    return 0;
}

/* The vCPUs are gone: everything else goes back to its state at power-on. */
static void reset(struct vmm_machine *m)
{
    vmm_devices_reset(&m->devices);
    vapic_ioapic_reset(&m->ioapic);
    for (unsigned i = 0; i < m->config.cpus; i++) {
        vapic_reset(&m->cpu[i].apic);
    }
}

/* A register of a vCPU's APIC, by whichever way its mode offers. Before the vCPU runs. */
static void write_apic(struct vmm_vcpu *v, uint32_t reg, uint32_t value)
{
    const struct vapic_now now = {vmm_clock_mono(&vmm_clock_host), 0};

    if ((vapic_base(&v->apic) & APIC_BASE_EXTD) != 0) {
        vapic_msr_write(&v->apic, MSR_X2APIC_FIRST + (reg >> 4), value, now);
    } else {
        vapic_mmio_write(&v->apic, reg, &value, sizeof(value), now);
    }
}

/*
 * How firmware hands over. When an APIC ID needs more than 8 bits, every processor is in x2APIC
 * mode: otherwise ID 257 would answer to 1 until the guest switches it. The boot processor is in
 * virtual wire mode: the 8259s reach it through LINT0, NMIs through LINT1 [SDM3 12.5.1].
 */
static int hand_over(struct vmm_machine *m, struct vmm_err *err)
{
    int rc = VAPIC_OK;

    for (unsigned i = 0; i < m->config.cpus && m->config.cpus > XAPIC_CPUS && rc == VAPIC_OK; i++) {
        uint64_t base = vapic_base(&m->cpu[i].apic);

        rc = vapic_load_base(&m->cpu[i].apic, base | APIC_BASE_EXTD);
    }
    if (rc != VAPIC_OK) {
        return vmm_fail(err, "libvapic: x2APIC mode: %s", vapic_result_text(rc));
    }
    write_apic(&m->cpu[0], APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_VECTOR);
    write_apic(&m->cpu[0], APIC_LVT_LINT0, APIC_DM_EXTINT);
    write_apic(&m->cpu[0], APIC_LVT_LINT1, APIC_DM_NMI);
    return 0;
}

/* One boot, from loading to the request that ends it. */
static int boot(struct vmm_machine *m, uint64_t *want, struct vmm_err *err)
{
    struct vmm_start start;
    int rc = load_guest(m, &start, err);

    if (rc == 0) {
        rc = hand_over(m, err);
    }
    if (rc == 0) {
        rc = open_vm(m, &start, err);
    }
    if (rc == 0) {
        rc = start_cpus(m, err);
    }
    if (rc == 0) {
        m->boots++;
        *want = wait_for_request(m);
        rc = join_cpus(m, err);
    }
    if (!m->stuck) {
        close_vm(m);
    }
    return rc;
}

static int run_boots(struct vmm_machine *m, struct vmm_machine_result *result, struct vmm_err *err)
{
    uint64_t want = VMM_WANT_RESET;

    do {
        if (boot(m, &want, err) != 0) {
            return -1;
        }
        if (want == VMM_WANT_RESET) {
            reset(m);
        }
        /* Fails, with the new request in `want`, when the machine shall end after all. */
    } while (want == VMM_WANT_RESET && atomic_compare_exchange_strong(&m->want, &want, 0));
    result->why = (enum vmm_want)(uint32_t)want;
    result->code = (int)(want >> 32);
    result->used_x2apic =
        m->cpu[0].ever_x2apic || (vapic_base(&m->cpu[0].apic) & APIC_BASE_EXTD) != 0;
    return 0;
}

static double seconds_now(void)
{
    return (double)vmm_clock_mono(&vmm_clock_host) / 1e9;
}

int vmm_machine_run(struct vmm_machine *m, struct vmm_machine_result *result, struct vmm_err *err)
{
    double begin = seconds_now();
    int rc = vmm_evloop_start(&m->loop);

    *result = (struct vmm_machine_result){0};
    if (rc == 0) {
        rc = vmm_console_start(&m->console);
    }
    if (rc != 0) {
        return vmm_fail(err, "cannot start the console: %s", strerror(-rc));
    }
    rc = run_boots(m, result, err);
    m->seconds = seconds_now() - begin;
    vmm_console_stop(&m->console, CONSOLE_DRAIN_MS);
    return rc;
}

const char *vmm_machine_failure(const struct vmm_machine *m)
{
    return m->failure;
}

void vmm_machine_stats(struct vmm_machine *m, struct vmm_stats *stats, struct vmm_vcpu_stats *cpu)
{
    for (unsigned i = 0; i < m->config.cpus; i++) {
        cpu[i] = m->cpu[i].stats;
        vapic_get_stats(&m->cpu[i].apic, &cpu[i].apic);
    }
    *stats = (struct vmm_stats){
        .cpu = cpu,
        .cpus = m->config.cpus,
        .vectors = (const uint64_t(*)[256])m->vectors,
        .ioapic_interrupts = atomic_load(&m->ioapic_interrupts),
        .boots = m->boots,
        .seconds = m->seconds,
        .engine = "kvm",
    };
}
