/* SPDX-License-Identifier: MIT */
/* Booting, stopping and rebooting the machine, and how it fails; see machine.h. */
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "acpi.h"
#include "kvm_irqchip.h"
#include "load_bytes.h"
#include "switch.h"

/* How long the console's reader may take for what is left: a user who wants out does not wait. */
#define DRAIN_MS_AT_END  60000u
#define DRAIN_MS_AT_QUIT 2000u
#define JOIN_SECONDS     60

/* So many resets by triple fault, each within this time after the boot, are a failure. */
#define QUICK_FAULTS 8u
#define QUICK_NS     1000000000u

#define TRIPLE_FAULT "triple fault; its registers:"
#define TRIPLE_FAULT_LOST                                                                          \
    "triple fault, in which KVM lost the registers; those of its last exit before:"

/* ---------------------------------------------------------------------------------------------- */
/* Requests                                                                                       */
/* ---------------------------------------------------------------------------------------------- */

/* A reset gives way to anything that ends the machine, and a switch to both. */
static unsigned rank(uint64_t word)
{
    enum vmm_want want = (enum vmm_want)(uint32_t)word;

    return want <= VMM_WANT_RESET ? (unsigned)want : VMM_WANT_RESET + 1u;
}

/* Of requests of one rank the first wins. */
void vmm_machine_request(struct vmm_machine *m, enum vmm_want want, int code)
{
    uint64_t now = 0;
    uint64_t word = (uint64_t)want | (uint64_t)(uint32_t)code << 32;

    while (!atomic_compare_exchange_weak(&m->want, &now, word)) {
        if (rank(now) >= rank(word)) {
            return;
        }
    }
    if (want == VMM_WANT_QUIT || want == VMM_WANT_SIGNAL || want == VMM_WANT_FAIL) {
        vmm_trace_hurry(m->config.trace);
    }
    for (unsigned i = 0; i < m->cpus_made; i++) {
        vmm_vcpu_prod(&m->cpu[i]);
    }
    pthread_mutex_lock(&m->want_lock);
    pthread_cond_broadcast(&m->wanted);
    pthread_mutex_unlock(&m->want_lock);
}

static bool switches(const struct vmm_machine *m)
{
    return m->config.switch_ns != 0 &&
           (m->config.switch_count == 0 || m->switches < m->config.switch_count);
}

/* False: it has not come in the time. `period_ns` 0: there is no limit. */
static bool await_request(struct vmm_machine *m, uint64_t period_ns)
{
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until); /* as `wanted` is told */
    until.tv_sec += (time_t)(period_ns / VMM_NS_PER_SEC);
    until.tv_nsec += (long)(period_ns % VMM_NS_PER_SEC);
    until.tv_sec += until.tv_nsec / (long)VMM_NS_PER_SEC;
    until.tv_nsec %= (long)VMM_NS_PER_SEC;
    pthread_mutex_lock(&m->want_lock);
    while (atomic_load(&m->want) == 0 && rc == 0) {
        rc = period_ns != 0 ? pthread_cond_timedwait(&m->wanted, &m->want_lock, &until)
                            : pthread_cond_wait(&m->wanted, &m->want_lock);
    }
    pthread_mutex_unlock(&m->want_lock);
    return atomic_load(&m->want) != 0;
}

/* Asks for the switch itself when the time for one has come. */
static void wait_for_request(struct vmm_machine *m)
{
    if (!await_request(m, switches(m) ? m->config.switch_ns : 0)) {
        vmm_machine_request(m, VMM_WANT_SWITCH, 0);
    }
}

/* Does this vCPU show the state that KVM gives it after a shutdown on AMD? */
static bool regs_are_lost(const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    return regs->rip == 0xfff0 && sregs->cs.base == 0xffff0000u;
}

/* Of several failures the first is told. */
static void fail_with(struct vmm_machine *m, const char *who, const char *what, const char *more)
{
    pthread_mutex_lock(&m->want_lock);
    if (m->failure[0] == '\0') {
        snprintf(m->failure, sizeof(m->failure), "%s: %s\n%s", who, what, more);
    }
    pthread_mutex_unlock(&m->want_lock);
    vmm_machine_request(m, VMM_WANT_FAIL, 0);
}

void vmm_machine_fail_wire(struct vmm_machine *m, unsigned wire, int error)
{
    char who[32];

    snprintf(who, sizeof(who), "wire %u: KVM_IRQ_LINE", wire);
    fail_with(m, who, strerror(error), "");
}

void vmm_machine_fail(struct vmm_machine *m, struct vmm_vcpu *v, const char *what)
{
    char who[32];
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
    snprintf(who, sizeof(who), "vCPU %u", v->index);
    fail_with(m, who, what, text);
}

/* A guest that clears low memory looks as if it had meant its triple fault, again and again. */
static bool gets_nowhere(struct vmm_machine *m)
{
    bool quick = vmm_clock_mono(&vmm_clock_host) - m->boot_ns < QUICK_NS;

    m->quick_faults = quick ? m->quick_faults + 1 : 0;
    return m->quick_faults > QUICK_FAULTS;
}

/*
 * On hardware every triple fault resets the machine; a user wants to see the ones that are bugs. A
 * guest that means it has emptied its IDT, or has set the BIOS's reset flag before. (KVM on AMD
 * loses the IDT in the fault, so the second sign is needed there.)
 */
void vmm_machine_triple_fault(struct vmm_machine *m, struct vmm_vcpu *v)
{
    unsigned value = get16(vmm_mem_at(&m->mem, VMM_BDA_RESET_FLAG, 2));
    struct vmm_kvm_regs now;
    bool empty_idt = vmm_kvm_save_regs(v->fd, &now) == 0 && now.sregs.idt.limit == 0;
    bool meant = empty_idt || value == VMM_BDA_RESET_COLD || value == VMM_BDA_RESET_WARM;

    if (meant && !gets_nowhere(m)) {
        vmm_machine_request(m, VMM_WANT_RESET, 0);
    } else {
        vmm_machine_fail(m, v, TRIPLE_FAULT);
    }
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

/* Leads the devices' wires to where this machine's interrupt controllers are. */
static int connect_wires(struct vmm_machine *m)
{
    struct vmm_env *env = &m->devices.env;
    int rc = 0;

    if (m->irqchip != VMM_IRQCHIP_KERNEL) {
        return 0;
    }
    pthread_mutex_lock(&env->lock);
    m->wires_fd = m->vm_fd;
    for (unsigned wire = 0; wire < VMM_WIRES && rc == 0; wire++) {
        rc = env->raised[wire] != 0 ? vmm_irqchip_set_wire(m->vm_fd, wire, true) : 0;
    }
    pthread_mutex_unlock(&env->lock);
    return rc;
}

void vmm_machine_close_vm(struct vmm_machine *m)
{
    m->wires_fd = -1;
    for (unsigned i = 0; i < m->cpus_made; i++) {
        vmm_vcpu_close(&m->cpu[i]);
    }
    if (m->vm_fd >= 0) {
        close(m->vm_fd);
        m->vm_fd = -1;
    }
}

int vmm_machine_open_vm(struct vmm_machine *m, struct vmm_err *err)
{
    m->vm_fd = vmm_kvm_create_vm(&m->kvm, &m->mem, m->irqchip, err);
    if (m->vm_fd < 0) {
        return -1;
    }
    for (unsigned i = 0; i < m->config.cpus; i++) {
        if (vmm_vcpu_open(&m->cpu[i], m->vm_fd, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int power_on(struct vmm_machine *m, const struct vmm_start *start, struct vmm_err *err)
{
    m->irqchip = m->config.irqchip;
    if (vmm_machine_open_vm(m, err) != 0) {
        return -1;
    }
    if (vmm_kvm_start(m->cpu[0].fd, start) != 0) {
        return vmm_fail(err, "/dev/kvm: cannot set the start registers: %s", strerror(errno));
    }
    if (m->irqchip == VMM_IRQCHIP_KERNEL &&
        (vmm_irqchip_hand_over(m->cpu[0].fd) != 0 || connect_wires(m) != 0)) {
        return vmm_fail(err, "/dev/kvm: its interrupt controllers: %s", strerror(errno));
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

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += JOIN_SECONDS;
    for (unsigned i = 0; i < m->config.cpus; i++) {
        if (!m->cpu[i].joinable) {
            continue;
        }
        if (pthread_clockjoin_np(m->cpu[i].thread, NULL, CLOCK_MONOTONIC, &until) != 0) {
            m->stuck = true;
            return vmm_fail(err, "/dev/kvm: vCPU %u does not come back: use --engine rig", i);
        }
        m->cpu[i].joinable = false;
    }
    return 0;
}

static int start_cpus(struct vmm_machine *m, struct vmm_err *err)
{
    void *(*run)(void *) =
        m->irqchip == VMM_IRQCHIP_KERNEL ? vmm_vcpu_thread_inkernel : vmm_vcpu_thread;
    pthread_attr_t attr;
    int rc = 0;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    for (unsigned i = 0; i < m->config.cpus && rc == 0; i++) {
        struct vmm_vcpu *v = &m->cpu[i];

        rc = pthread_create(&v->thread, &attr, run, v);
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

/* What changed while KVM had the interrupt controllers, libvapic's and the 8259s have missed. */
static void learn_lines(struct vmm_machine *m)
{
    struct vmm_env *env = &m->devices.env;

    pthread_mutex_lock(&env->lock);
    for (unsigned wire = 0; wire < VMM_WIRES; wire++) {
        vmm_pic_set_line(&m->devices.pic, wire, env->raised[wire] != 0);
        vmm_machine_wire_to_ioapic(m, wire, env->raised[wire] != 0);
    }
    pthread_mutex_unlock(&env->lock);
}

/* The vCPUs are gone: everything else goes back to its state at power-on. */
static void reset(struct vmm_machine *m)
{
    vmm_devices_reset(&m->devices);
    learn_lines(m);
    vapic_ioapic_reset(&m->ioapic);
    for (unsigned i = 0; i < m->config.cpus; i++) {
        vapic_reset(&m->cpu[i].apic);
    }
    if (m->accel != NULL) {
        vmm_accel_rebooted(m);
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

    for (unsigned i = 0; i < m->config.cpus && m->config.cpus > VMM_XAPIC_CPUS && rc == VAPIC_OK;
         i++) {
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

/* Runs the vCPUs until there is a request. */
static int run_cpus(struct vmm_machine *m, uint64_t *want, struct vmm_err *err)
{
    if (start_cpus(m, err) != 0) {
        return -1;
    }
    wait_for_request(m);
    if (join_cpus(m, err) != 0) {
        return -1;
    }
    *want = atomic_load(&m->want); /* it may have given way to another */
    return 0;
}

/* Runs until a request that is more than a switch. */
static int run_switched(struct vmm_machine *m, uint64_t *want, struct vmm_err *err)
{
    do {
        if (run_cpus(m, want, err) != 0) {
            return -1;
        }
        if (*want == VMM_WANT_SWITCH && vmm_switch(m, err) != 0) {
            return -1;
        }
    } while (*want == VMM_WANT_SWITCH && atomic_compare_exchange_strong(&m->want, want, 0));
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
        rc = power_on(m, &start, err);
    }
    if (rc == 0) {
        m->boots++;
        m->boot_ns = vmm_clock_mono(&vmm_clock_host);
        rc = run_switched(m, want, err);
    }
    if (!m->stuck) {
        pthread_mutex_lock(&m->devices.env.lock);
        vmm_machine_close_vm(m);
        pthread_mutex_unlock(&m->devices.env.lock);
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

static int run_disturbed(struct vmm_machine *m, struct vmm_machine_result *result,
                         struct vmm_err *err)
{
    int rc;

    if (m->accel == NULL) {
        return run_boots(m, result, err);
    }
    vmm_timeline_begin(&m->accel->timeline, vmm_clock_mono(&vmm_clock_host),
                       vapic_inhibits(&m->vm).bits);
    rc = vmm_disturb_start(m, err);
    if (rc == 0) {
        rc = run_boots(m, result, err);
    }
    if (!m->stuck) {
        vmm_disturb_stop(m);
    }
    vmm_timeline_end(&m->accel->timeline, vmm_clock_mono(&vmm_clock_host));
    return rc;
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
    rc = run_disturbed(m, result, err);
    m->seconds = seconds_now() - begin;
    if (result->why == VMM_WANT_QUIT || result->why == VMM_WANT_SIGNAL) {
        vmm_console_stop(&m->console, DRAIN_MS_AT_QUIT);
    } else {
        result->output_lost = !vmm_console_stop(&m->console, DRAIN_MS_AT_END);
    }
    return rc;
}

const char *vmm_machine_failure(const struct vmm_machine *m)
{
    return m->failure;
}

static void accel_report(const struct vmm_machine *m, struct vmm_accel_report *report)
{
    *report = (struct vmm_accel_report){
        .mode = vmm_accel_names[m->accel->mode],
        .inhibits = vapic_inhibits(&m->vm).bits,
        .page_withdrawn = vapic_inhibits(&m->vm).bits == 0 && !vapic_access_page(&m->vm),
        .boot_masks = m->accel->boot_masks,
        .reboots = m->accel->boot_mask_count,
        .timeline = &m->accel->timeline,
        .pause_ns = m->config.disturb != NULL ? m->config.disturb->pause_ns : 0,
    };
    report->scripts = vmm_disturb_results(m, report->script);
}

void vmm_machine_stats(struct vmm_machine *m, struct vmm_stats *stats, struct vmm_vcpu_stats *cpu,
                       struct vmm_accel_report *accel)
{
    uint64_t messages = 0; /* the I/O APIC is the only device that sends any */

    for (unsigned i = 0; i < m->config.cpus; i++) {
        cpu[i] = m->cpu[i].stats;
        vapic_get_stats(&m->cpu[i].apic, &cpu[i].apic);
        vapic_pv_get_stats(&m->cpu[i].apic, &cpu[i].pv);
        messages += cpu[i].apic.msis_received;
        if (m->accel != NULL) {
            cpu[i].accel = m->cpu[i].accel->counts;
        }
    }
    *stats = (struct vmm_stats){
        .cpu = cpu,
        .cpus = m->config.cpus,
        .vectors = (const uint64_t(*)[256])m->vectors,
        .ioapic_interrupts = messages,
        .boots = m->boots,
        .switches = m->switches,
        .switch_ns_max = m->switch_ns_max,
        .seconds = m->seconds,
        .engine = "kvm",
        .accel = m->accel != NULL ? accel : NULL,
    };
    if (m->accel != NULL) {
        accel_report(m, accel);
    }
}
