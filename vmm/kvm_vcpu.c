/* SPDX-License-Identifier: MIT */
/* The run loop of one vCPU, its kicks and its sleep; see kvm_vcpu.h. */
#include "kvm_vcpu.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine.h"

/* The vCPU whose thread this is; for the signal handler. */
static _Thread_local struct vmm_vcpu *volatile current;

/* Wherever the thread is, it looks again: KVM_RUN returns at once, and so does its sleep. */
static void on_kick(int signo, siginfo_t *info, void *context)
{
    struct vmm_vcpu *v = current;

    (void)signo;
    (void)context;
    if (v == NULL) {
        return;
    }
    if (info->si_code == SI_TIMER) {
        atomic_store(&v->armed_clock, VAPIC_CLOCK_NONE);
        if (v->accel != NULL) {
            atomic_store(&v->accel->leave, true);
        }
    }
    atomic_store(&v->wake, 1);
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELAXED);
}

struct vmm_vcpu *vmm_vcpu_current(void)
{
    return current;
}

int vmm_vcpu_install_kick(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_kick;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    if (sigaction(VMM_TIMER_SIGNAL, &action, NULL) != 0) {
        return -1;
    }
    return sigaction(VMM_KICK_SIGNAL, &action, NULL);
}

static int setup_vcpu(struct vmm_vcpu *v, struct vmm_err *err)
{
    const struct vmm_kvm *kvm = &v->machine->kvm;
    struct vmm_kvm_cpu_config config = v->machine->cpu_config;
    int khz;

    /*
     * 0: the host's rate as it is now. A new vCPU has the rate that KVM found when it was loaded;
     * if Linux has calibrated the TSC anew since, and the processor cannot scale, KVM leaves the
     * vCPU with a factor of zero, and its TSC then reads 0 here whatever the guest reads.
     */
    ioctl(v->fd, KVM_SET_TSC_KHZ, 0);
    khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
    v->tsc_khz = khz > 0 ? (uint32_t)khz : 1000000;
    config.apic_id = v->index;
    config.tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    if (vmm_kvm_set_cpuid(kvm, v->fd, &config, err) != 0) {
        return -1;
    }
    if (vmm_kvm_set_apic_base(v->fd, vapic_base(&v->apic)) != 0 ||
        vmm_kvm_save_regs(v->fd, &v->initial) != 0) {
        return vmm_fail(err, "/dev/kvm: registers of vCPU %u: %s", v->index, strerror(errno));
    }
    return 0;
}

int vmm_vcpu_open(struct vmm_vcpu *v, int vm_fd, struct vmm_err *err)
{
    const struct vmm_kvm *kvm = &v->machine->kvm;
    void *run;

    v->fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)v->index);
    if (v->fd < 0) {
        return vmm_fail(err, "/dev/kvm: cannot create vCPU %u: %s: lower --cpus", v->index,
                        strerror(errno));
    }
    run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (run == MAP_FAILED) {
        close(v->fd);
        v->fd = -1;
        return vmm_fail(err, "/dev/kvm: cannot map vCPU %u: %s", v->index, strerror(errno));
    }
    v->run = run;
    v->run->kvm_valid_regs = kvm->sync_regs ? KVM_SYNC_X86_REGS : 0;
    v->irq_ready = false;
    v->interrupt_flag = false;
    v->held = false;
    v->incomplete = false;
    v->nmi_masked = false;
    v->nmi_given = false;
    if (setup_vcpu(v, err) != 0) {
        vmm_vcpu_close(v);
        return -1;
    }
    return 0;
}

void vmm_vcpu_close(struct vmm_vcpu *v)
{
    if (v->fd < 0) {
        return;
    }
    munmap(v->run, v->machine->kvm.run_size);
    close(v->fd);
    v->run = NULL;
    v->fd = -1;
}

static long futex(_Atomic uint32_t *word, int op, uint32_t val, const struct timespec *until)
{
    return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, val, until, NULL,
                   FUTEX_BITSET_MATCH_ANY);
}

void vmm_vcpu_interrupt(struct vmm_vcpu *v)
{
    pid_t tid = atomic_load(&v->tid);

    if (tid != 0) {
        syscall(SYS_tgkill, getpid(), tid, VMM_KICK_SIGNAL);
    }
}

void vmm_vcpu_wake(struct vmm_vcpu *v)
{
    atomic_store(&v->wake, 1);
    futex(&v->wake, FUTEX_WAKE_BITSET, INT_MAX, NULL);
}

void vmm_vcpu_act(struct vmm_vcpu *v, enum vapic_action action)
{
    switch (action) {
    case VAPIC_ACTION_KICK:
        __atomic_fetch_add(&v->stats.kicks, 1, __ATOMIC_RELAXED);
        if (v->accel != NULL) {
            atomic_store(&v->accel->leave, true);
        }
        vmm_vcpu_interrupt(v);
        break;
    case VAPIC_ACTION_WAKE:
        __atomic_fetch_add(&v->stats.wakes, 1, __ATOMIC_RELAXED);
        vmm_vcpu_wake(v);
        break;
    case VAPIC_ACTION_DOORBELL:
        vmm_accel_doorbell(v);
        break;
    case VAPIC_ACTION_NESTED: /* guests have no guests here */
    case VAPIC_ACTION_NONE:
        break;
    }
}

void vmm_vcpu_prod(struct vmm_vcpu *v)
{
    vmm_vcpu_wake(v);
    vmm_vcpu_interrupt(v);
}

/* Shall it go to another modelled processor first? */
static bool moves(const struct vmm_vcpu *v)
{
    return v->accel != NULL && atomic_load(&v->accel->move);
}

/* Sleeps until somebody posts, the deadline comes, or the machine wants something. */
static void sleep_until(struct vmm_vcpu *v, struct vapic_now now)
{
    uint64_t at = vmm_clock_deadline_ns(v, now);
    struct timespec ts = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
    uint64_t start;

    atomic_store(&v->wake, 0);
    if (vmm_machine_wants(v->machine) || moves(v) || !vapic_block(&v->apic)) {
        return;
    }
    v->stats.blocks++;
    start = vmm_trace_start(v->machine->config.trace);
    /* A signal or a time-out ends the wait too: the loop looks again in any case. */
    futex(&v->wake, FUTEX_WAIT_BITSET, 0, at != 0 && !vmm_clock_armed(v) ? &ts : NULL);
    vmm_trace_span(v->machine->config.trace, v->index, VMM_TRACE_BLOCKED, start);
    vapic_unblock(&v->apic);
}

static uint32_t can_now(const struct vmm_vcpu *v)
{
    uint32_t can = VAPIC_CAN_INIT | (v->nmi_masked ? VAPIC_NMI_MASKED : VAPIC_CAN_NMI);

    if (v->irq_ready) {
        can |= VAPIC_CAN_IRQ;
    }
    if (v->interrupt_flag) {
        can |= VAPIC_IF;
    }
    if (v->incomplete) {
        can |= VAPIC_INCOMPLETE;
    }
    return can;
}

/* What KVM says about the guest after any KVM_RUN. */
static void read_state(struct vmm_vcpu *v)
{
    v->irq_ready = v->run->ready_for_interrupt_injection != 0;
    v->interrupt_flag = v->run->if_flag != 0;
}

/*
 * An instruction may need several exits (string instructions, accesses over a page's end): each is
 * handled in turn.
 */
void vmm_vcpu_finish(struct vmm_vcpu *v)
{
    struct kvm_run *run = v->run;
    int rc;

    do {
        run->request_interrupt_window = 0;
        run->cr8 = vmm_accel_cr8(v);
        __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_RELAXED);
        rc = ioctl(v->fd, KVM_RUN, 0);
        __atomic_store_n(&run->immediate_exit, 0, __ATOMIC_RELAXED);
        v->stats.finishes++;
        v->incomplete = false;
        read_state(v);
        if (rc == 0) {
            vmm_accel_between(v);
            vmm_vcpu_exit(v);
        }
    } while (v->incomplete && !vmm_machine_wants(v->machine));
}

void vmm_vcpu_event(struct vmm_vcpu *v, const struct vapic_entry *entry)
{
    int rc = 0;

    if (v->incomplete) {
        vmm_vcpu_finish(v);
    }
    v->held = false;
    v->irq_ready = false;
    v->interrupt_flag = false;
    v->nmi_masked = false;
    if (entry->event == VAPIC_CPU_INIT) {
        if (v->index == 0) {
            /* It would start at the reset vector, where firmware restarts the machine. */
            vmm_machine_request(v->machine, VMM_WANT_RESET, 0);
            return;
        }
        rc = vmm_kvm_init_cpu(v->fd, &v->initial, vapic_base(&v->apic));
    } else {
        rc = vmm_kvm_sipi(v->fd, entry->vector);
    }
    if (rc != 0) {
        vmm_machine_fail(v->machine, v, "setting registers for INIT or SIPI failed");
    }
}

void vmm_vcpu_queue_interrupt(struct vmm_vcpu *v, uint8_t vector)
{
    struct kvm_interrupt irq = {.irq = vector};

    v->irq_ready = false;
    if (ioctl(v->fd, KVM_INTERRUPT, &irq) != 0) {
        vmm_machine_fail(v->machine, v, "KVM_INTERRUPT failed");
    }
}

static void inject(struct vmm_vcpu *v, const struct vapic_entry *entry)
{
    vapic_commit(&v->apic, entry);
    switch (entry->inject) {
    case VAPIC_INJECT_VECTOR:
        vmm_vcpu_queue_interrupt(v, entry->vector);
        break;
    case VAPIC_INJECT_EXTINT:
        if (v->accel != NULL) {
            vmm_accel_step_out(v); /* the PIC waits for the devices' lock */
        }
        vmm_vcpu_queue_interrupt(v, vmm_machine_acknowledge_pic(v->machine));
        break;
    case VAPIC_INJECT_NMI:
        v->nmi_given = true;
        if (ioctl(v->fd, KVM_NMI, 0) != 0) {
            vmm_machine_fail(v->machine, v, "KVM_NMI failed");
        }
        break;
    case VAPIC_INJECT_SMI:
    case VAPIC_INJECT_NONE:
        break;
    }
}

/*
 * Is it worth a system call to finish the instruction now? Not when only an interrupt waits and IF
 * is clear: no instruction that exits sets IF, so the window is asked for instead.
 */
static bool must_finish(const struct vmm_vcpu *v, const struct vapic_entry *entry)
{
    return entry->nmi_window || !entry->runnable || entry->inject != VAPIC_INJECT_NONE ||
           (entry->irq_window && v->interrupt_flag);
}

static bool wants_irq(const struct vapic_entry *entry)
{
    return entry->inject == VAPIC_INJECT_VECTOR || entry->inject == VAPIC_INJECT_EXTINT;
}

/*
 * Asks the APIC what to do until there is nothing more to inject. While an instruction is
 * unfinished nothing may be injected: if it ends in #GP the interrupt would be lost or delivered
 * in the middle of the fault's handler. So then the instruction is finished first.
 */
static struct vapic_now prepare(struct vmm_vcpu *v, struct vapic_entry *entry)
{
    struct vapic_now now;

    for (;;) {
        /* Whatever a kick up to here was for, vapic_enter() sees. */
        __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_RELAXED);
        if (v->accel != NULL) {
            vmm_accel_host_mode_work(v);
        }
        now = vmm_clock_now(v);
        vapic_enter(&v->apic, can_now(v), now, entry);
        v->deadline = entry->deadline;
        if (entry->event != VAPIC_CPU_NONE) {
            vmm_vcpu_event(v, entry);
        } else if (v->incomplete && must_finish(v, entry)) {
            if (v->accel != NULL) {
                vmm_accel_step_out(v); /* a device may be called, which may wait for a lock */
            }
            vmm_vcpu_finish(v);
        } else if (wants_irq(entry) && vmm_shadow_before_hlt(v)) {
            v->held = true;
            v->irq_ready = false;
        } else if (entry->inject != VAPIC_INJECT_NONE) {
            inject(v, entry);
        } else if (entry->runnable && v->nmi_masked && entry->nmi_window) {
            v->nmi_masked = false; /* it runs on anyway: KVM keeps the NMI until IRET */
        } else {
            return now;
        }
        if (vmm_machine_wants(v->machine)) {
            return now;
        }
    }
}

int vmm_vcpu_run(struct vmm_vcpu *v, uint8_t cr8, bool watch_window)
{
    struct kvm_run *run = v->run;
    uint64_t start;
    int rc;

    run->cr8 = cr8;
    run->request_interrupt_window = watch_window && !v->held;
    v->held = false;
    v->stats.runs++;
    start = vmm_trace_start(v->machine->config.trace);
    rc = ioctl(v->fd, KVM_RUN, 0);
    vmm_trace_span(v->machine->config.trace, v->index, VMM_TRACE_GUEST, start);
    __atomic_store_n(&run->immediate_exit, 0, __ATOMIC_RELAXED);
    v->incomplete = false;
    v->nmi_masked = false;
    read_state(v);
    return rc;
}

static void enter_guest(struct vmm_vcpu *v, const struct vapic_entry *entry)
{
    struct kvm_run *run = v->run;
    int rc = vmm_vcpu_run(v, entry->cr8, entry->irq_window);

    /* What KVM has queued it delivers, whatever exits come in between. */
    vapic_exit(&v->apic, (uint8_t)run->cr8, true);
    if (rc == 0) {
        vmm_vcpu_exit(v);
    } else if (errno == EINTR || errno == EAGAIN) {
        v->stats.exits[VMM_EXIT_KICK]++;
    } else {
        vmm_machine_fail(v->machine, v, strerror(errno));
    }
}

void vmm_vcpu_begin(struct vmm_vcpu *v)
{
    char name[16];

    snprintf(name, sizeof(name), "vapic vCPU %u", v->index);
    pthread_setname_np(pthread_self(), name);
    current = v;
    atomic_store(&v->tid, (pid_t)syscall(SYS_gettid));
}

void vmm_vcpu_end(struct vmm_vcpu *v)
{
    atomic_store(&v->tid, 0);
    current = NULL;
}

void *vmm_vcpu_thread(void *arg)
{
    struct vmm_vcpu *v = arg;
    struct vapic_entry entry;

    if (!vmm_clock_start(v)) {
        vmm_machine_fail(v->machine, v, "no timer from the host: raise ulimit -i (signals)");
    }
    vmm_vcpu_begin(v);
    if (v->accel != NULL) {
        vmm_accel_begin(v);
    }
    while (!vmm_machine_wants(v->machine)) {
        struct vapic_now now = prepare(v, &entry);

        if (vmm_machine_wants(v->machine)) {
            break;
        }
        if (!entry.runnable) {
            sleep_until(v, now);
            continue;
        }
        vmm_clock_arm(v, now);
        if (v->accel != NULL) {
            vmm_accel_run(v, &entry);
        } else {
            enter_guest(v, &entry);
        }
    }
    if (v->accel != NULL) {
        vmm_accel_end(v);
    }
    vmm_vcpu_end(v);
    vmm_clock_stop(v);
    return NULL;
}
