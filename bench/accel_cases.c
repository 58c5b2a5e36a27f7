/* SPDX-License-Identifier: MIT */
/*
 * The operations of VMs with a back end: the library's side only. What the hardware does (a vector
 * set in a page, a register stored before a trap) is written into the page by the preparation, and
 * no processor, modelled or real, runs. window_* is called by its private name; through the public
 * interface it is part of a vapic_enter().
 */
#include "cases.h"
#include "internal.h"
#include "vapic/arch/ioapic.h"

#define OP     static __attribute__((noinline)) void
#define VECTOR 0x51u
#define PIN    5u

/* ---- Preparing ---- */

static void set_vector_bit(struct vapic *v, uint32_t base, bool set)
{
    uint32_t offset = base + (VECTOR >> 5) * 16, bit = 1u << (VECTOR & 31);

    set_reg(v, offset, set ? reg(v, offset) | bit : reg(v, offset) & ~bit);
}

/* As if the guest had taken and ended the vector. */
static void forget(struct vapic *v)
{
    set_vector_bit(v, APIC_IRR, false);
    v->irr_words = 0;
    v->pid.pir[VECTOR >> 6] = 0;
    v->level[VECTOR >> 6] = 0;
    v->pid.control &= ~(uint64_t)PID_ON;
}

static void forget_target(struct machine *m)
{
    forget(&m->v[1]);
}

static void target_in_guest(struct machine *m)
{
    vapic_enter(&m->v[1], MACHINE_CAN, m->now, &m->entry);
}

static void target_asleep(struct machine *m)
{
    hot_verify(vapic_block(&m->v[1]), "the target does not sleep");
}

/* The processor has set the vector in the target's page, nobody has been told. */
static void posted_by_hardware(struct machine *m)
{
    forget(&m->v[1]);
    set_vector_bit(&m->v[1], APIC_IRR, true);
}

static void ioapic_write(struct machine *m, uint32_t index, uint32_t value)
{
    vapic_ioapic_write(&m->ioapic, IOAPIC_REGSEL, index, 4);
    vapic_ioapic_write(&m->ioapic, IOAPIC_IOWIN, value, 4);
}

static void level_pin(struct machine *m)
{
    struct vapic_ioapic_config config = {.pins = 24};

    hot_verify(vapic_ioapic_init(&m->ioapic, sizeof(m->ioapic), &m->vm, &config, m->pins) ==
                   VAPIC_OK,
               "vapic_ioapic_init");
    ioapic_write(m, 0x10 + 2 * PIN + 1, 0);
    ioapic_write(m, 0x10 + 2 * PIN, IOAPIC_RTE_LEVEL | VECTOR);
}

/* The pin's interrupt has been delivered, and its line is low again; `in_service` is as the
 * processor leaves ISR when it exits for the EOI. */
static void deliver_level(struct machine *m, bool in_service)
{
    struct vapic *v = &m->v[0];

    vapic_ioapic_set(&m->ioapic, PIN, 0, true);
    vapic_ioapic_set(&m->ioapic, PIN, 0, false);
    forget(v);
    set_vector_bit(v, APIC_TMR, true);
    set_vector_bit(v, APIC_ISR, in_service);
    v->isr_words = in_service ? 1u << (VECTOR >> 5) : 0;
}

static void level_in_service(struct machine *m)
{
    deliver_level(m, true);
}

static void level_ended(struct machine *m)
{
    deliver_level(m, false);
}

static void timer_stored(struct machine *m)
{
    set_reg(&m->v[0], APIC_LVT_TIMER, APIC_TIMER_PERIODIC | VECTOR);
}

static void another_reason(struct machine *m)
{
    hot_verify(vapic_set_inhibit(&m->vm, VAPIC_INHIBIT_BLOCKIRQ, true) == VAPIC_OK, "inhibiting");
}

/* ---- Verifying ---- */

static bool has_vector(const struct vapic *v)
{
    return vector_bit(v, APIC_IRR, VECTOR) || (v->pid.pir[VECTOR >> 6] >> (VECTOR & 63) & 1) != 0;
}

static void rang(struct machine *m)
{
    hot_verify(has_vector(&m->v[1]), "the target has no vector");
    hot_verify(m->action == VAPIC_ACTION_DOORBELL, "no doorbell was asked for");
    hot_verify(m->locks == 0, "a lock was taken");
}

static void woke(struct machine *m)
{
    hot_verify(m->notified == 1 && m->action == VAPIC_ACTION_WAKE, "the target was not woken once");
}

static void entered(struct machine *m)
{
    hot_verify(m->entry.runnable && m->entry.inject == VAPIC_INJECT_NONE,
               "the entry is not an idle one");
    hot_verify(vapic_active(&m->v[0]) && m->locks == 0, "the vCPU had something to decide");
}

static void pin_ended(struct machine *m)
{
    hot_verify(m->v[0].stats.eois_broadcast != 0, "the I/O APIC was not told");
    hot_verify(!(vapic_ioapic_entry(&m->ioapic, PIN) & IOAPIC_RTE_RIRR), "remote IRR is still set");
    hot_verify(!vector_bit(&m->v[0], APIC_ISR, VECTOR), "the vector is still in service");
}

static void timer_written(struct machine *m)
{
    hot_verify(machine_read(m, 0, APIC_LVT_TIMER) == (APIC_TIMER_PERIODIC | VECTOR),
               "LVT is wrong");
    hot_verify(m->av[0].written[6] == (APIC_TIMER_PERIODIC | VECTOR), "the write was not noted");
}

static void no_lock(struct machine *m)
{
    hot_verify(m->locks == 0, "a lock was taken");
}

static void two_locks(struct machine *m)
{
    hot_verify(m->locks == 2, "not each of the two changes took the lock once");
}

static void awake(struct machine *m)
{
    hot_verify(m->av[0].loaded && !m->av[0].blocking, "the vCPU is not back");
}

/* ---- Operations ---- */

OP op_accel_post(struct machine *m)
{
    m->action = vapic_post(&m->v[1], VECTOR, false, NULL);
}

OP op_accel_msi(struct machine *m)
{
    vapic_msi(&m->vm, 0xFEE00000u | 1u << 12, VECTOR);
}

OP op_accel_kick(struct machine *m)
{
    vapic_avic_exit(&m->v[0], SVM_EXIT_AVIC_INCOMPLETE,
                    UINT64_C(1) << 32 | APIC_ICR_ASSERT | VECTOR,
                    (uint64_t)AVIC_IPI_NOT_RUNNING << AVIC_IPI_ID_SHIFT | 1, m->now);
}

OP op_accel_idle_run(struct machine *m)
{
    vapic_enter(&m->v[0], MACHINE_CAN, m->now, &m->entry);
    vapic_exit(&m->v[0], m->entry.cr8, true);
}

OP op_accel_sleep(struct machine *m)
{
    vapic_block(&m->v[0]);
    vapic_unblock(&m->v[0]);
}

OP op_avic_eoi(struct machine *m)
{
    vapic_avic_exit(&m->v[0], SVM_EXIT_AVIC_NOACCEL, AVIC_NOACCEL_WRITE | APIC_EOI, VECTOR, m->now);
}

OP op_apicv_eoi(struct machine *m)
{
    vapic_apicv_exit(&m->v[0], VMX_EXIT_VIRTUALIZED_EOI, VECTOR, m->now);
}

OP op_avic_trap(struct machine *m)
{
    vapic_avic_exit(&m->v[0], SVM_EXIT_AVIC_NOACCEL, AVIC_NOACCEL_WRITE | APIC_LVT_TIMER, 0,
                    m->now);
}

OP op_apicv_trap(struct machine *m)
{
    vapic_apicv_exit(&m->v[0], VMX_EXIT_APIC_WRITE, APIC_LVT_TIMER, m->now);
}

OP op_inhibit_noop(struct machine *m)
{
    vapic_set_inhibit(&m->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
}

OP op_inhibit_flip(struct machine *m)
{
    vapic_set_inhibit(&m->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    vapic_set_inhibit(&m->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
}

OP op_window(struct machine *m)
{
    vapic_inhibit_irqwin(&m->vm, true);
    vapic_inhibit_irqwin(&m->vm, false);
}

/* ---- The tables ---- */

const struct hot_case hot_cases_avic[] = {
    /* name, text, vCPUs, x2APIC, targets, aims, setup, prepare, op, verify */
    {"avic_post", "AVIC: vapic_post() to an active vCPU in guest", 4, true, 1, 0, 1,
     target_in_guest, forget_target, op_accel_post, rang},
    {"avic_msi", "AVIC: MSI to an active vCPU in guest", 4, true, 1, 0, 1, target_in_guest,
     forget_target, op_accel_msi, rang},
    {"avic_kick", "AVIC: exit 401h ID 1, target asleep", 4, true, 1, 0, -1, target_asleep,
     posted_by_hardware, op_accel_kick, woke},
    {"avic_idle_run", "AVIC: enter and exit with nothing to do", 4, true, 1, 0, 1, NULL, NULL,
     op_accel_idle_run, entered},
    {"avic_eoi", "AVIC: exit 402h, EOI of a level-triggered pin", 4, true, 1, 0, -1, level_pin,
     level_in_service, op_avic_eoi, pin_ended},
    {"avic_trap", "AVIC: exit 402h, LVT timer write, same mode", 4, false, 1, 0, 0, NULL,
     timer_stored, op_avic_trap, timer_written},
    {"avic_sleep", "AVIC: block and unblock", 4, true, 1, 0, -1, NULL, NULL, op_accel_sleep, awake},
    {"inhibit_noop", "inhibition that changes nothing", 4, true, 1, 0, 0, NULL, NULL,
     op_inhibit_noop, no_lock},
    {"inhibit_flip", "inhibition set and cleared, all outside; each", 4, true, 2, 0, -1, NULL, NULL,
     op_inhibit_flip, two_locks},
    {"window_uncontended", "interrupt window while inhibited anyway; each", 4, true, 2, 0, 1,
     another_reason, NULL, op_window, no_lock},
    {0},
};

const struct hot_case hot_cases_apicv[] = {
    {"apicv_post", "APICv: vapic_post() to an active vCPU in guest", 4, true, 1, 0, 2,
     target_in_guest, forget_target, op_accel_post, rang},
    {"apicv_msi", "APICv: MSI to an active vCPU in guest", 4, true, 1, 0, 2, target_in_guest,
     forget_target, op_accel_msi, rang},
    {"apicv_idle_run", "APICv: enter and exit with nothing to do", 4, true, 1, 0, 1, NULL, NULL,
     op_accel_idle_run, entered},
    {"apicv_eoi", "APICv: exit 45, EOI of a level-triggered pin", 4, true, 1, 0, -1, level_pin,
     level_ended, op_apicv_eoi, pin_ended},
    {"apicv_trap", "APICv: exit 56, LVT timer write, same mode", 4, false, 1, 0, 0, NULL,
     timer_stored, op_apicv_trap, timer_written},
    {"apicv_sleep", "APICv: block and unblock", 4, true, 1, 0, -1, NULL, NULL, op_accel_sleep,
     awake},
    {0},
};
