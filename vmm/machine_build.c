/* SPDX-License-Identifier: MIT */
/*
 * Building the machine and taking it apart: what libvapic and the devices call, the interrupt wires
 * between them, and the order in which everything is made; see machine.h.
 */
#include "machine.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "acpi.h"
#include "kvm_irqchip.h"
#include "kvm_pv.h"
#include "vapic/arch/ioapic.h"

/* ---------------------------------------------------------------------------------------------- */
/* What the devices and the user ask for                                                          */
/* ---------------------------------------------------------------------------------------------- */

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
        /* The second one: the way out by the first is blocked, by KVM or the console's reader. */
        if (m->signalled) {
            vmm_term_leave();
            _exit(128 + (int)info.ssi_signo);
        }
        m->signalled = true;
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

static struct vapic_host make_host(void)
{
    struct vapic_host host = {
        .size = sizeof(struct vapic_host),
        .lock = host_lock,
        .unlock = host_unlock,
        .quiesce = host_quiesce,
        .notify = host_notify,
        .ioapic_delay = host_ioapic_delay,
    };

    vmm_accel_fill_host(&host);
    return host;
}

/* ---------------------------------------------------------------------------------------------- */
/* Interrupt wires                                                                                */
/* ---------------------------------------------------------------------------------------------- */

/*
 * Wire n goes to input n of the 8259 pair and to pin n of the I/O APIC; wire 0, the PIT, to pin 2
 * instead, as the MADT says. Wire 2 has no 8259 input and shares pin 2 as a source of its own.
 */
void vmm_machine_wire_to_ioapic(struct vmm_machine *m, unsigned wire, bool level)
{
    vapic_gsi_set(&m->vm, wire == 0 ? 2 : wire, wire == 2 ? 1 : 0, level);
}

static void on_wire(void *ctx, unsigned gsi, bool level)
{
    struct vmm_machine *m = ctx;

    if (m->wires_fd >= 0) {
        if (vmm_irqchip_set_wire(m->wires_fd, gsi, level) != 0) {
            vmm_machine_fail_wire(m, gsi, errno);
        }
        return;
    }
    if (gsi < 16) {
        vmm_pic_set_line(&m->devices.pic, gsi, level);
    }
    vmm_machine_wire_to_ioapic(m, gsi, level);
}

/* The 8259's INTR is wired to LINT0 of the boot processor. */
static void on_intr(void *ctx, bool level)
{
    struct vmm_machine *m = ctx;

    vmm_vcpu_act(&m->cpu[0], vapic_set_lint(&m->cpu[0].apic, 0, level));
}

int vmm_machine_msi(struct vmm_machine *m, uint64_t address, uint32_t data)
{
    return m->irqchip == VMM_IRQCHIP_KERNEL ? vmm_irqchip_msi(m->vm_fd, address, data)
                                            : vapic_msi(&m->vm, address, data);
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
    bool kernel = m->config.irqchip == VMM_IRQCHIP_KERNEL || m->config.switch_ns != 0;
    unsigned max = kernel ? VMM_KERNEL_CPUS : VAPIC_MAX_VCPUS;
    unsigned limit = m->kvm.max_cpus < m->kvm.max_id ? m->kvm.max_cpus : m->kvm.max_id;

    if (limit > max) {
        limit = max;
    }
    if (m->config.cpus > limit) {
        return vmm_fail(err, "--cpus: %u is too many: this host's KVM takes %u", m->config.cpus,
                        limit);
    }
    return 0;
}

/* With more than 255 processors, 255 is one of them, and no broadcast of a device's. */
static uint32_t knobs_for(unsigned cpus)
{
    return cpus > VMM_XAPIC_CPUS ? VAPIC_PROFILE_MANUAL & ~(uint32_t)VAPIC_KNOB_DEVICE_BROADCAST_FF
                                 : VAPIC_PROFILE_MANUAL;
}

/*
 * A machine with acceleration listens to its own events, for the time line of the inhibition, and
 * hands them on; another one is traced only while somebody wants it.
 */
static void on_event(void *ctx, const struct vapic_event *event)
{
    struct vmm_machine *m = ctx;

    if (event->kind == VAPIC_EVENT_APICV_INHIBIT_CHANGED && m->accel != NULL) {
        vmm_timeline_change(&m->accel->timeline, vmm_clock_mono(&vmm_clock_host),
                            (uint32_t)event->arg[2]);
    }
    vmm_trace_event(m->config.trace, event);
}

static int make_vm(struct vmm_machine *m, struct vmm_err *err)
{
    struct vapic_vm_config config = {
        .max_vcpus = m->config.cpus,
        .knobs = m->config.knobs_set ? m->config.knobs : knobs_for(m->config.cpus),
        .knobs_set = true,
        .msi_dest = m->config.x2apic ? VAPIC_MSI_DEST_15 : VAPIC_MSI_DEST_8,
        .bus_ns = VMM_APIC_BUS_NS,
        .max_gsis = VMM_IOAPIC_PINS,
        .count_received = m->config.count,
    };
    /* A guest that meets both models must find the same I/O APIC: KVM's is of version 11h. */
    struct vapic_ioapic_config io = {
        .pins = VMM_IOAPIC_PINS,
        .version = m->config.switch_ns != 0 ? IOAPIC_VERSION_11 : IOAPIC_VERSION_20,
    };
    struct vapic_host host = make_host();
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
    vmm_probes_init(&m->probes, &m->vm, on_event, m,
                    m->config.trace != NULL || m->config.accel != VMM_ACCEL_NONE);
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
    if (rc == VAPIC_OK && m->accel != NULL && vmm_accel_attach(v, err) != 0) {
        return -1;
    }
    if (rc == VAPIC_OK) {
        rc = vmm_pv_attach(v);
    }
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
    if (m->config.accel != VMM_ACCEL_NONE &&
        vmm_accel_make(m, m->config.accel, vmm_disturb_spare(m->config.disturb), err) != 0) {
        return -1;
    }
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
        rc = rc != 0 ? rc : vmm_probes_watch(&m->probes, &m->loop);
    }
    return rc == 0 ? 0 : vmm_fail(err, "cannot set up the event loop: %s", strerror(-rc));
}

/* SIGINT, SIGTERM and SIGHUP become events; every thread started later has them blocked too. */
/* The signals that end a run, but for those that whoever started us wants ignored. */
static void ending_signals(sigset_t *set)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action;

    sigemptyset(set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
            sigaddset(set, signals[i]);
        }
    }
}

static int make_signals(struct vmm_machine *m, struct vmm_err *err)
{
    sigset_t set;
    int rc;

    ending_signals(&set);
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

/* Its time-outs follow no change of the wall clock. */
static void init_monotonic(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
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
    m->wires_fd = -1;
    m->irqchip = config->irqchip;
    m->signal_fd = -1;
    pthread_mutex_init(&m->config_lock, NULL);
    pthread_mutex_init(&m->want_lock, NULL);
    init_monotonic(&m->wanted);
    m->cpu_config = (struct vmm_kvm_cpu_config){
        .cpus = config->cpus,
        .x2apic = config->x2apic,
        .tsc_deadline = config->tsc_deadline,
        .pv_eoi = config->pv_eoi,
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
        return; /* a thread that did not come back still uses all of it */
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
        vmm_probes_fini(&m->probes);
        vmm_watch_remove(&m->signal_watch);
        vmm_evloop_fini(&m->loop);
    }
    for (unsigned i = 0; i < m->cpus_made; i++) {
        vapic_pv_detach(&m->cpu[i].apic);
        vapic_remove(&m->cpu[i].apic);
    }
    vmm_accel_free(m);
    vmm_disturb_free(m);
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
