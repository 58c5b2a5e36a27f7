/* SPDX-License-Identifier: MIT */
/*
 * Seams between the parts of the accelerated half, each of which has come open once: a count that
 * changes under a change of the reasons, a state load into an APIC that has just been reset, a
 * thread that loses its processor inside vapic_block(), a table entry that outlives its vCPU.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <ucontext.h>

#include "accel_modes.h"
#include "vapic/arch/apic.h"
#include "vapic/arch/avic.h"

#define LVT_EXTINT 0x700u
#define EVERYTHING (VAPIC_CAN_INIT | VAPIC_CAN_NMI | VAPIC_CAN_IRQ | VAPIC_IF)

/* ---- The last window closes while the last other reason goes ---- */

static bool armed;

/* In the middle of the change, as another thread: vCPU 1 looks, and waits for no window any more.
 */
static void close_window(void *ctx, const struct vapic_event *event)
{
    struct ax *ax = ctx;
    struct vapic_entry entry;

    if (!armed || event->kind != VAPIC_EVENT_APICV_INHIBIT_CHANGED)
        return;
    armed = false;
    vapic_enter(&ax->v[1]->apic, EVERYTHING, ax->now, &entry);
    vapic_exit(&ax->v[1]->apic, 0, true);
}

static void window_closes_meanwhile(void **state)
{
    struct ax_options options = ax_options_for(AX_MODE_AVIC, 2);
    struct ax *ax = ax_new(&options);

    (void)state;
    ax_write(ax, 1, APIC_LVT_LINT0, LVT_EXTINT);
    ax_if(ax, 1, false);
    ax_act(ax, 1, vapic_set_lint(&ax->v[1]->apic, 0, true));
    ax_settle(ax);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    for (uint32_t n = 0; n < 2; n++)
        ax_leave(ax, n);
    vapic_set_lint(&ax->v[1]->apic, 0, false);
    armed = true;
    vapic_trace(&ax->vm, close_window, ax);
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    vapic_trace(&ax->vm, NULL, NULL);
    assert_false(armed);
    ax_if(ax, 1, true);
    ax_settle(ax);
    assert_int_equal(vapic_inhibits(&ax->vm).bits, 0);
    assert_true(ax->page_mapped);
    for (uint32_t n = 0; n < 2; n++) {
        ax_enter(ax, n);
        assert_true(vapic_active(&ax->v[n]->apic));
    }
    ax_free(ax);
}

/* ---- State of an APIC that is software disabled and holds an interrupt [SDM3 12.4.7.2] ---- */

static void held_in_an_image(void **state)
{
    static uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    for (int mode = 0; mode < AX_MODES; mode++) {
        struct ax_options options = ax_options_for(mode, 1);
        struct ax *ax = ax_new(&options);

        ax_write(ax, 0, APIC_TPR, 0xF0);
        ax_leave(ax, 0);
        ax_post(ax, 0, 0x61, false);
        ax_enter(ax, 0);
        ax_write(ax, 0, APIC_SVR, 0xFF);
        ax_leave(ax, 0);
        assert_int_equal(
            vapic_save_image(&ax->v[0]->apic, VAPIC_IMAGE_ID32, image, sizeof(image), ax->now),
            VAPIC_OK);
        ax_free(ax);
        options.soft_disabled = true;
        ax = ax_new(&options);
        ax_leave(ax, 0);
        assert_int_equal(
            vapic_load_image(&ax->v[0]->apic, VAPIC_IMAGE_ID32, image, sizeof(image), ax->now),
            VAPIC_OK);
        ax_enter(ax, 0);
        assert_true(ax_page_bit(ax, 0, APIC_IRR, 0x61));
        ax_write(ax, 0, APIC_SVR, 0x1FF);
        ax_write(ax, 0, APIC_TPR, 0);
        ax_settle(ax);
        assert_int_equal(ax_delivered(ax, 0, 0x61), 1);
        ax_free(ax);
    }
}

/* ---- Preempted, and moved, after each instruction of vapic_block() ---- */

#define TRAP_FLAG 0x100L

static struct ax *stepped;
static long instructions, preempt_at;
static bool preempted;

static void on_step(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    if (preempted || instructions++ != preempt_at)
        return;
    preempted = true;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    vapic_put(&stepped->v[0]->apic);
    vapic_load(&stepped->v[0]->apic, &stepped->pcpus[1]);
}

static bool block_by_steps(struct vapic *v)
{
    bool sleeps;

    instructions = 0;
    preempted = false;
    __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    sleeps = vapic_block(v);
    __asm__ volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    return sleeps;
}

static bool asks_for_wakeup(const struct ax *ax)
{
    const struct ax_vcpu *c = ax->v[0];
    uint64_t control = c->apic.pid.control;

    if (ax->kind == VAPIC_ACCEL_AVIC) /* GALogIntr, if it had a device */
        return !(c->accel.entry & AVIC_PHYSICAL_RUNNING) && c->accel.entry >> 53 & 1;
    return !(control & PID_SN) && c->accel.wake_on != NULL &&
           (control & PID_NDST_MASK) >> PID_NDST_SHIFT == c->accel.wake_on->apic_id;
}

static void block_once(enum ax_mode_index mode)
{
    struct ax_options options = ax_options_for(mode, 2);

    stepped = ax_new(&options);
    vapic_device_attached(&stepped->vm);
    ax_settle(stepped);
    ax_leave(stepped, 0);
    vapic_halt(&stepped->v[0]->apic);
    vapic_enter(&stepped->v[0]->apic, EVERYTHING, stepped->now, &stepped->v[0]->entry);
    assert_false(stepped->v[0]->entry.runnable);
    assert_true(block_by_steps(&stepped->v[0]->apic));
    if (!asks_for_wakeup(stepped))
        fail_msg("%s, preempted after %ld instructions: nobody would wake it", ax_modes[mode].name,
                 preempt_at);
    ax_free(stepped);
}

static void preempted_while_blocking(void **state)
{
    static const enum ax_mode_index modes[] = {AX_MODE_AVIC, AX_MODE_APICV};
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO}, old;

    (void)state;
    sigaction(SIGTRAP, &action, &old);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        preempt_at = 0;
        do
            block_once(modes[i]);
        while (preempt_at++ < 100000 && preempted);
        assert_true(preempt_at > 20);
    }
    sigaction(SIGTRAP, &old, NULL);
}

/* ---- The thread of a vCPU that was removed is taken off its processor ---- */

static void put_after_remove(void **state)
{
    struct ax_options options = ax_options_for(AX_MODE_AVIC, 2);
    struct vapic_config config = {.id = 1, .features = VAPIC_FEATURE_X2APIC};
    struct vapic_accel_vcpu_config accel = {0};
    struct ax *ax = ax_new(&options);
    struct ax_vcpu *c = ax_memory(ax, sizeof(*c), 64);
    struct vapic *old = &ax->v[1]->apic;
    uint64_t entry;

    (void)state;
    ax_settle(ax);
    ax_leave(ax, 1);
    assert_int_equal(vapic_remove(old), VAPIC_OK);
    accel.vmcb = ax_memory(ax, 4096, 4096);
    assert_int_equal(
        vapic_init(&c->apic, sizeof(c->apic), &ax->vm, &config, ax_memory(ax, 4096, 4096)),
        VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&c->apic, &c->accel, sizeof(c->accel), &accel), VAPIC_OK);
    assert_int_equal(vapic_add(&c->apic), VAPIC_OK);
    entry = ax->accel.physical_table[1];
    assert_true(entry & AVIC_PHYSICAL_VALID);
    vapic_put(old);
    assert_true(ax->accel.physical_table[1] == entry);
    assert_int_equal(vapic_remove(&c->apic), VAPIC_OK);
    assert_int_equal(vapic_add(old), VAPIC_OK);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_closes_meanwhile),
        cmocka_unit_test(held_in_an_image),
        cmocka_unit_test(preempted_while_blocking),
        cmocka_unit_test(put_after_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
