/* SPDX-License-Identifier: MIT */
/*
 * Posted interrupts: the descriptor's control word while a vCPU runs, is preempted, sleeps and is
 * woken, and the IOMMU's entries, on the silicon model. [SDM3 31.6]
 */
#include "apicv_bench.h"

#define VECTOR 0x61u
#define SOURCE 0x0100u

/* ---- Helpers ---- */

/* A device's message through a posted-format entry. */
static enum vapic_sil_msi device(struct ax *ax, uint32_t n, uint8_t vector)
{
    uint64_t irte[2];

    assert_int_equal(vapic_vtd_irte(&ax->v[n]->apic, vector, SOURCE, irte), VAPIC_OK);
    return vapic_sil_vtd_msi(&ax->silicon, irte, SOURCE);
}

/* The host's interrupt handlers on processor `cpu`, which is not in a guest. The notification
 * vector's does nothing. */
static uint32_t take_interrupts(struct ax *ax, uint32_t cpu)
{
    uint32_t wakeups = 0;
    int vector;

    while ((vector = vapic_sil_take_interrupt(&ax->cpus[cpu])) >= 0) {
        if (vector != AX_WAKEUP_VECTOR)
            continue;
        vapic_wakeup(&ax->vm, &ax->pcpus[cpu]);
        wakeups++;
    }
    return wakeups;
}

/* HLT until nothing is pending: the vCPU sleeps. */
static void sleep_vcpu(struct ax *ax, uint32_t n)
{
    ax_hlt(ax, n);
    ax_run(ax, n);
    assert_true(ax->v[n]->blocked);
}

static uint32_t woken(const struct ax *ax, uint32_t n)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < ax->logged; i++)
        count += ax->log[i].kind == AX_NOTIFY && ax->log[i].vcpu == n &&
                 ax->log[i].a == VAPIC_ACTION_WAKE;
    return count;
}

#define NV(control)   PID_NV(control)
#define NDST(control) PID_NDST(control)

/* ---- The control word ---- */

static void the_word_where_the_vcpu_is(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);
    uint64_t word = pid_control(ax, 0);

    (void)state;
    assert_int_equal(word, (uint64_t)AX_HOST_ID(0) << 32 | AX_NOTIFY_VECTOR << 16);
    ax_put(ax, 0); /* preempted */
    assert_int_equal(pid_control(ax, 0), word | PID_SN);
    ax_load(ax, 0, 2); /* elsewhere */
    assert_int_equal(pid_control(ax, 0), (uint64_t)AX_HOST_ID(2) << 32 | AX_NOTIFY_VECTOR << 16);
    ax_put(ax, 0);
    ax_load(ax, 0, 0);
    sleep_vcpu(ax, 0);
    assert_int_equal(pid_control(ax, 0), (uint64_t)AX_HOST_ID(0) << 32 | AX_WAKEUP_VECTOR << 16);
    assert_ptr_equal(ax->pcpus[0].blocked, &ax->v[0]->accel);
    vapic_unblock(&ax->v[0]->apic);
    assert_int_equal(pid_control(ax, 0), word);
    assert_null(ax->pcpus[0].blocked);
    ax_free(ax);
}

static void a_vcpu_that_was_never_loaded_is_silent(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);
    static struct vapic v __attribute__((aligned(64)));
    static struct vapic_accel_vcpu av;
    static uint8_t page[4096] __attribute__((aligned(4096)));
    struct vapic_config config = {.id = 0};

    (void)state;
    assert_int_equal(vapic_remove(&ax->v[0]->apic), VAPIC_OK);
    assert_int_equal(vapic_init(&v, sizeof(v), &ax->vm, &config, page), VAPIC_OK);
    assert_int_equal(vapic_accel_attach(&v, &av, sizeof(av), NULL), VAPIC_OK);
    assert_int_equal(v.pid.control, AX_NOTIFY_VECTOR << 16 | PID_SN);
    ax_free(ax);
}

/* A host in xAPIC mode keeps its 8-bit ID in bits 15:8. */
static void the_destination_has_two_forms(void **state)
{
    struct ax *ax = machine(WITH_IPIV | WITH_XAPIC_HOST, 1);

    (void)state;
    assert_int_equal(NDST(pid_control(ax, 0)), AX_HOST_ID(0) << 8);
    sleep_vcpu(ax, 0);
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(take_interrupts(ax, 0), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

/* What asks for the wake-up vector: only senders that are no software, and only if it could end the
 * sleep. */
static void when_a_sleeper_wants_the_wakeup_vector(void **state)
{
    static const struct {
        unsigned with;
        bool device, interrupts, list;
    } rows[] = {
        {0, false, true, false},       {WITH_IPIV, false, true, true},   {0, true, true, true},
        {WITH_IPIV, true, true, true}, {WITH_IPIV, false, false, false}, {0, true, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax *ax = machine(rows[i].with, 1);
        uint64_t word;

        if (rows[i].device)
            vapic_device_attached(&ax->vm);
        ax_if(ax, 0, rows[i].interrupts);
        sleep_vcpu(ax, 0);
        word = pid_control(ax, 0);
        assert_int_equal(NV(word), rows[i].list ? AX_WAKEUP_VECTOR : AX_NOTIFY_VECTOR);
        assert_int_equal(word & PID_SN, rows[i].list ? 0 : PID_SN);
        assert_int_equal(ax->pcpus[0].blocked != NULL, rows[i].list);
        ax_free(ax);
    }
}

/* ---- A device's interrupt in every place ---- */

static void posted_to_a_running_vcpu(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* SN keeps ON clear, so the load has to look for what came meanwhile. */
static void posted_to_a_preempted_vcpu(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_put(ax, 0);
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(pid_control(ax, 0) & PID_ON, 0);
    assert_int_equal(vapic_sil_take_interrupt(&ax->cpus[0]), -1);
    ax_load(ax, 0, 1);
    assert_int_equal(pid_control(ax, 0) & PID_ON, PID_ON);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

/* ON is only set when there is something, else every preemption would cost a harvest. */
static void a_load_without_posts_leaves_on_clear(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_put(ax, 0);
    ax_load(ax, 0, 0);
    assert_int_equal(pid_control(ax, 0) & PID_ON, 0);
    ax_free(ax);
}

static void posted_to_a_sleeping_vcpu(void **state)
{
    struct ax *ax = machine(0, 2);

    (void)state;
    vapic_device_attached(&ax->vm);
    sleep_vcpu(ax, 0);
    sleep_vcpu(ax, 1);
    ax_forget(ax);
    assert_int_equal(device(ax, 1, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(take_interrupts(ax, 0), 0);
    assert_int_equal(take_interrupts(ax, 1), 1);
    assert_int_equal(woken(ax, 0), 0);
    assert_int_equal(woken(ax, 1), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, VECTOR), 1);
    ax_free(ax);
}

/* With interrupts off nothing of a device's ends HLT: nobody is bothered, nothing is lost. */
static void posted_to_a_sleeping_vcpu_that_takes_no_interrupts(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);

    (void)state;
    ax_if(ax, 0, false);
    sleep_vcpu(ax, 0);
    ax_forget(ax);
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(vapic_sil_take_interrupt(&ax->cpus[0]), -1);
    ax_act(ax, 0, vapic_nmi(&ax->v[0]->apic));
    ax_if(ax, 0, true);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_NMI), 1);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

/* The vCPU may sleep on one processor and wake on another. */
static void woken_elsewhere(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);
    struct ax_vcpu *c = ax->v[0];

    (void)state;
    sleep_vcpu(ax, 0);
    vapic_put(&c->apic);
    assert_ptr_equal(ax->pcpus[0].blocked, &c->accel);
    ax_load(ax, 0, 3); /* remembered only: it still sleeps */
    assert_int_equal(NDST(pid_control(ax, 0)), AX_HOST_ID(0));
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(take_interrupts(ax, 0), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    assert_int_equal(NDST(pid_control(ax, 0)), AX_HOST_ID(3));
    assert_null(ax->pcpus[0].blocked);
    ax_free(ax);
}

/* ---- Falling asleep against a post ---- */

static struct ax *the_ax;
static void (*real_spin_lock)(void *ctx, uint32_t *word);
static bool post_now;

static void lock_and_post(void *ctx, uint32_t *word)
{
    if (post_now) {
        post_now = false;
        assert_int_equal(device(the_ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    }
    real_spin_lock(ctx, word);
}

/* Before the vCPU is on the list the notification vector still counts; ON tells. */
static void posted_while_falling_asleep(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);

    (void)state;
    the_ax = ax;
    real_spin_lock = ax->vm.host.spin_lock;
    ax->vm.host.spin_lock = lock_and_post;
    ax_hlt(ax, 0);
    post_now = true;
    ax_run(ax, 0);
    assert_false(post_now);
    assert_false(ax->v[0]->blocked);
    assert_null(ax->pcpus[0].blocked);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

/* Already posted when vapic_block() is called: does not sleep, is on no list after. */
static void posted_before_falling_asleep(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);
    struct vapic *v = &ax->v[0]->apic;
    struct vapic_entry entry;

    (void)state;
    vapic_halt(v);
    vapic_enter(v, VAPIC_CAN_IRQ | VAPIC_IF, ax->now, &entry);
    assert_false(entry.runnable);
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_false(vapic_block(v));
    assert_null(ax->pcpus[0].blocked);
    assert_int_equal(NV(pid_control(ax, 0)), AX_NOTIFY_VECTOR);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

/* Software finds the sleeper by its presence, with or without the list. */
static void software_wakes_by_itself(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    sleep_vcpu(ax, 0);
    ax_forget(ax);
    assert_true(ax_post(ax, 0, VECTOR, false));
    assert_int_equal(woken(ax, 0), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

/* ---- The list ---- */

#define MANY 40u

/* More than one batch, some without a post, in between, first and last. */
static void many_sleepers_on_one_processor(void **state)
{
    struct ax *ax = machine(WITH_IPIV, MANY);
    uint32_t posted = 0;

    (void)state;
    for (uint32_t n = 0; n < MANY; n++) {
        ax_put(ax, n);
        ax_load(ax, n, 0);
        sleep_vcpu(ax, n);
    }
    ax_forget(ax);
    for (uint32_t n = 1; n + 1 < MANY; n++)
        if (n % 8 != 0) {
            device(ax, n, VECTOR);
            posted++;
        }
    assert_true(posted > 2 * 16);
    assert_int_equal(take_interrupts(ax, 0), 1);
    for (uint32_t n = 0; n < MANY; n++)
        assert_int_equal(woken(ax, n), n > 0 && n + 1 < MANY && n % 8 != 0);
    vapic_wakeup(&ax->vm, &ax->pcpus[0]); /* one more finds nobody */
    assert_int_equal(ax_count(ax, AX_NOTIFY), posted);
    for (uint32_t n = 0; n < MANY; n++) {
        ax_put(ax, n);
        ax_load(ax, n, n);
    }
    ax_settle(ax);
    for (uint32_t n = 0; n < MANY; n++)
        assert_int_equal(ax_delivered(ax, n, VECTOR), woken(ax, n));
    ax_free(ax);
}

/* A host that blocks twice has the vCPU on the list once. */
static void blocked_twice(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 1);

    (void)state;
    sleep_vcpu(ax, 0);
    assert_true(vapic_block(&ax->v[0]->apic));
    assert_ptr_equal(ax->pcpus[0].blocked, &ax->v[0]->accel);
    assert_null(ax->v[0]->accel.next_blocked);
    ax_forget(ax);
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(take_interrupts(ax, 0), 1);
    assert_int_equal(woken(ax, 0), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

static void a_removed_vcpu_is_on_no_list(void **state)
{
    struct ax *ax = machine(WITH_IPIV, 3);

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        ax_put(ax, n);
        ax_load(ax, n, 0);
        sleep_vcpu(ax, n);
    }
    assert_int_equal(vapic_remove(&ax->v[1]->apic), VAPIC_OK);
    assert_int_equal(pid_control(ax, 1) & PID_SN, PID_SN);
    ax_forget(ax);
    for (uint32_t n = 0; n < 3; n++)
        ax->v[n]->apic.pid.control |= PID_ON;
    vapic_wakeup(&ax->vm, &ax->pcpus[0]);
    assert_int_equal(woken(ax, 0), 1);
    assert_int_equal(woken(ax, 1), 0);
    assert_int_equal(woken(ax, 2), 1);
    ax_free(ax);
}

/* ---- The first device ---- */

static void the_first_device_wakes_the_sleepers_once(void **state)
{
    struct ax *ax = machine(0, 3);

    (void)state;
    sleep_vcpu(ax, 0);
    sleep_vcpu(ax, 1);
    assert_true(ax_enter(ax, 2));
    ax_forget(ax);
    vapic_device_attached(&ax->vm);
    assert_int_equal(woken(ax, 0), 1);
    assert_int_equal(woken(ax, 1), 1);
    assert_int_equal(woken(ax, 2), 0);
    vapic_device_attached(&ax->vm);
    assert_int_equal(ax_count(ax, AX_NOTIFY), 2);
    ax_settle(ax); /* they sleep again, on the list now */
    assert_int_equal(NV(pid_control(ax, 0)), AX_WAKEUP_VECTOR);
    assert_int_equal(device(ax, 0, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(take_interrupts(ax, 0), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

static void device_attachment_needs_apicv(void **state)
{
    struct ax *ax = machine(WITHOUT_ACCEL, 1);

    (void)state;
    ax_hlt(ax, 0);
    ax_run(ax, 0);
    ax_forget(ax);
    vapic_device_attached(&ax->vm);
    assert_int_equal(ax_count(ax, AX_NOTIFY), 0);
    ax_free(ax);
}

/* ---- The last look ---- */

static void notification_in_the_host(struct ax *ax, uint32_t n)
{
    ax->before_entry = NULL;
    assert_false(vapic_posted(&ax->v[n]->apic));
    assert_int_equal(device(ax, n, VECTOR), VAPIC_SIL_MSI_POSTED);
    assert_int_equal(take_interrupts(ax, n), 0); /* consumed: the interrupts were still on */
}

static void notification_and_second_look(struct ax *ax, uint32_t n)
{
    notification_in_the_host(ax, n);
    if (vapic_posted(&ax->v[n]->apic))
        ax_leave(ax, n); /* before the entry: begins again */
}

/* A notification between vapic_enter() and the entry does nothing if the host takes it: without the
 * second look the interrupt waits for the next exit, which may never come. */
static void a_notification_in_the_host_is_seen_by_the_last_look(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax->before_entry = notification_in_the_host;
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 0);
    ax_leave(ax, 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);

    ax_forget(ax);
    ax_eoi(ax, 0);
    ax_leave(ax, 0);
    ax->before_entry = notification_and_second_look;
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_free(ax);
}

/* ---- The IOMMU's entry ---- */

static void the_posted_entry_bit_by_bit(void **state)
{
    struct ax *ax = machine(0, 1);
    uint64_t irte[2] = {0}, pid = ax_hpa(ax, &ax->v[0]->apic.pid);

    (void)state;
    assert_int_equal(vapic_vtd_irte(&ax->v[0]->apic, 0xAB, 0x1234, irte), VAPIC_OK);
    assert_int_equal(irte[0] & 1, 1);             /* P */
    assert_int_equal(irte[0] >> 1 & 0x3FFF, 0);   /* FPD, reserved, AVAIL, URG */
    assert_int_equal(irte[0] >> 15 & 1, 1);       /* IM */
    assert_int_equal(irte[0] >> 16 & 0xFF, 0xAB); /* vector */
    assert_int_equal(irte[0] >> 24 & 0x3FFF, 0);  /* reserved */
    assert_int_equal(irte[0] >> 38 << 6, pid & 0xFFFFFFC0);
    assert_int_equal(irte[1] & 0xFFFF, 0x1234); /* SID */
    assert_int_equal(irte[1] >> 16 & 3, 0);     /* SQ: all bits */
    assert_int_equal(irte[1] >> 18 & 3, 1);     /* SVT: compare */
    assert_int_equal(irte[1] >> 20 & 0xFFF, 0);
    assert_int_equal(irte[1] >> 32, pid >> 32);
    ax_free(ax);
}

static void arguments_of_the_posted_entry(void **state)
{
    struct ax *ax = machine(0, 1);
    struct ax *none = machine(WITHOUT_ACCEL, 1);
    struct vapic *v = &ax->v[0]->apic;
    uint64_t irte[2] = {1, 2};

    (void)state;
    assert_int_equal(vapic_vtd_irte(NULL, 0x20, 0, irte), VAPIC_E_ARG);
    assert_int_equal(vapic_vtd_irte(v, 0x20, 0, NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_vtd_irte(v, 15, 0, irte), VAPIC_E_ARG);
    assert_int_equal(vapic_vtd_irte(&none->v[0]->apic, 0x20, 0, irte), VAPIC_E_ARG);
    assert_int_equal(irte[0] | irte[1], 3);
    assert_int_equal(vapic_vtd_irte(v, 16, 0, irte), VAPIC_OK);
    ax_free(ax);
    ax_free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_word_where_the_vcpu_is),
        cmocka_unit_test(a_vcpu_that_was_never_loaded_is_silent),
        cmocka_unit_test(the_destination_has_two_forms),
        cmocka_unit_test(when_a_sleeper_wants_the_wakeup_vector),
        cmocka_unit_test(posted_to_a_running_vcpu),
        cmocka_unit_test(posted_to_a_preempted_vcpu),
        cmocka_unit_test(a_load_without_posts_leaves_on_clear),
        cmocka_unit_test(posted_to_a_sleeping_vcpu),
        cmocka_unit_test(posted_to_a_sleeping_vcpu_that_takes_no_interrupts),
        cmocka_unit_test(woken_elsewhere),
        cmocka_unit_test(posted_while_falling_asleep),
        cmocka_unit_test(posted_before_falling_asleep),
        cmocka_unit_test(software_wakes_by_itself),
        cmocka_unit_test(many_sleepers_on_one_processor),
        cmocka_unit_test(blocked_twice),
        cmocka_unit_test(a_removed_vcpu_is_on_no_list),
        cmocka_unit_test(the_first_device_wakes_the_sleepers_once),
        cmocka_unit_test(device_attachment_needs_apicv),
        cmocka_unit_test(a_notification_in_the_host_is_seen_by_the_last_look),
        cmocka_unit_test(the_posted_entry_bit_by_bit),
        cmocka_unit_test(arguments_of_the_posted_entry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
