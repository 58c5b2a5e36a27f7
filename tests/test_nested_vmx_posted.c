/* SPDX-License-Identifier: MIT */
/* Nested APICv: interrupts of L2's that are posted, interrupts of L1's while L2 is current, and
 * both at once. */
#include "nested_vmx_bench.h"

static const struct vb_options x2apic = {.x2apic = true};

static uint16_t status02(struct vb *b)
{
    return (uint16_t)vmcs_get(&b->v[0]->vmcs02, VMCS_GUEST_INTERRUPT_STATUS);
}

static void interrupt_l1(struct vb *b, uint8_t vector)
{
    vb_act(b, 0, vapic_post(&b->v[0]->apic, vector, false, NULL));
}

/* ---- An interrupt for L2 ---- */

static void a_notification_is_processed_without_an_exit(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    vb_post(b, 1, 0, 0x51);
    assert_int_equal(b->v[0]->told, VAPIC_ACTION_NESTED);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    assert_int_equal(b->v[0]->exit_count, 0);
    assert_int_equal(vb_pid(b, 0)->control & PID_ON, 0);
    vb_leave(b, 0);
    assert_true(vb_boundary(b, 0)); /* what is latched finds nothing any more */
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    assert_int_equal(vapic_nested_state(&b->v[0]->apic), VAPIC_NESTED_L2);
    vb_free(b);
}

static void posted_while_l0_handles_an_exit(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    b->v[0]->told = VAPIC_ACTION_NONE;
    vb_post(b, 1, 0, 0x51);
    assert_int_equal(b->v[0]->told, VAPIC_ACTION_NONE);
    assert_true(vb_enter(b, 0));
    assert_int_equal(VMX_STATUS_RVI(status02(b)), 0x51);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    vb_free(b);
}

/* Between vapic_enter() and VMLAUNCH: vapic_posted() says so. */
static void posted_between_the_look_and_the_entry(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_vmcs12(b, 0);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_prepare(b->v[0], VB_CAN));
    assert_false(vapic_posted(&b->v[0]->apic));
    vb_post(b, 1, 0, 0x51);
    assert_true(vapic_posted(&b->v[0]->apic));
    vb_leave(b, 0);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    vb_free(b);
}

/* [5]: while L0 emulates the entry: no exit to L1, the vector is in RVI at the first entry. */
static void posted_before_the_first_entry(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_vmcs12(b, 0);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    vb_post(b, 1, 0, 0x51);
    assert_true(vb_prepare(b->v[0], VB_CAN));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_STAY);
    assert_int_equal(VMX_STATUS_RVI(status02(b)), 0x51);
    vb_leave(b, 0);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    vb_free(b);
}

/* What does not pass L2's priority goes into VIRR and RVI all the same. */
static void a_posted_vector_waits_for_tpr(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x808, 0x60), VAPIC_SIL_DONE);
    vb_post(b, 1, 0, 0x51);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 0);
    assert_true(vb_virr(b, 0, 0x51));
    vb_leave(b, 0);
    assert_int_equal(VMX_STATUS_RVI(status02(b)), 0x51);
    assert_true(vb_enter(b, 0));
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x808, 0), VAPIC_SIL_DONE);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    vb_free(b);
}

/* No notification, nothing: VM entry does not look at the descriptor. */
static void pir_without_a_notification_is_not_looked_at(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_vmcs12(b, 0);
    vb_pid(b, 0)->pir[1] = 1u << 0x11;
    vb_pid(b, 0)->control |= PID_ON;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(b->v[0]->delivered_count, 0);
    assert_int_equal(vb_pid(b, 0)->pir[1], 1u << 0x11);
    vb_free(b);
}

static void many_posts_at_once(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    vb_post(b, 1, 0, 0x51);
    vb_post(b, 1, 0, 0x31);
    vb_post(b, 1, 0, 0xF1);
    vb_post(b, 1, 0, 0xC0);
    assert_true(vb_enter(b, 0));
    assert_int_equal(VMX_STATUS_RVI(status02(b)), 0xF1);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(vb_pid(b, 0)->pir[i], 0);
    assert_true(vb_boundary(b, 0));
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x80B, 0), VAPIC_SIL_DONE);
        assert_true(vb_boundary(b, 0));
    }
    assert_int_equal(b->v[0]->delivered_count, 4);
    assert_int_equal(b->v[0]->delivered[0], 0x1F1);
    assert_int_equal(b->v[0]->delivered[3], 0x131);
    vb_free(b);
}

/* ---- The notification vector ---- */

/* When L1 runs, or another L2, its vector is an interrupt of L1's like any other. */
static void the_vector_is_l1s_when_l2_is_not_current(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    vb_to_l1(b, 0);
    vb_post(b, 1, 0, 0x51);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[0], VB_NV12), 1);
    assert_int_equal(vb_pid(b, 0)->pir[1], 1u << 0x11); /* L1's to find */
    vb_free(b);
}

static void without_posted_interrupts_it_is_an_interrupt_of_l1(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_vmcs12(b, 0);
    b->v[0]->vmcs12.pin &= ~VMX_PIN_POSTED_INTERRUPTS;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_enter(b, 0));
    vb_post(b, 1, 0, 0x51);
    assert_int_equal(b->v[0]->told, VAPIC_ACTION_KICK);
    vb_run(b, 0);
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_LEAVE);
    vb_free(b);
}

/* [42]: L1's vector may be the number of L0's own; virtual and physical vectors are apart. */
static void any_vector_may_be_l1s(void **state)
{
    static const uint8_t vectors[] = {VB_NOTIFY, VB_NESTED, VB_KICK, 255, 16};

    (void)state;
    for (uint32_t i = 0; i < sizeof(vectors); i++) {
        struct vb *b = vb_new(&x2apic);

        vb_vmcs12(b, 0);
        b->v[0]->vmcs12.notification_vector = vectors[i];
        assert_int_equal(vb_launch(b, 0), VAPIC_OK);
        assert_true(vb_enter(b, 0));
        vb_pid(b, 0)->pir[1] = 1u << 0x11;
        vb_pid(b, 0)->control |= PID_ON;
        assert_int_equal(vapic_msr_write(&b->v[1]->apic, 0x830, vectors[i], b->now), VAPIC_OK);
        assert_true(vb_boundary(b, 0));
        assert_int_equal(vb_times(b->v[0], 0x151), 1);
        assert_int_equal(b->v[0]->exit_count, 0);
        vb_free(b);
    }
}

/* [43]: it came to L1, which had interrupts off, and enters L2. */
static void a_notification_in_irr_is_consumed(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_vmcs12(b, 0);
    vb_post(b, 1, 0, 0x51);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_prepare(b->v[0], VB_CAN));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_STAY);
    vb_leave(b, 0);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    vb_to_l1(b, 0);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[0], VB_NV12), 0);
    vb_free(b);
}

/* Behind it is an interrupt for L1 proper. */
static void a_notification_above_an_interrupt_of_l1(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_vmcs12(b, 0);
    vb_post(b, 1, 0, 0x51);
    interrupt_l1(b, 0x41);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_prepare(b->v[0], VB_CAN));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_SOON);
    assert_int_equal(VMX_STATUS_RVI(status02(b)), 0x51);
    vb_leave(b, 0);
    vapic_nested_ran(&b->v[0]->apic);
    assert_int_equal(vb_to_l1(b, 0).interrupt_status, 0x51);
    assert_int_equal(vapic_nested_acknowledge(&b->v[0]->apic), 0x41);
    assert_int_equal(vapic_nested_acknowledge(&b->v[0]->apic), -1);
    vb_free(b);
}

/* ---- An interrupt for L1 ---- */

static void it_makes_l2_exit_to_l1(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    interrupt_l1(b, 0x41);
    assert_int_equal(b->v[0]->told, VAPIC_ACTION_KICK);
    vb_run(b, 0);
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_LEAVE);
    assert_int_equal(b->v[0]->entry.inject, VAPIC_INJECT_NONE);
    assert_false(b->v[0]->entry.irq_window);
    vb_to_l1(b, 0);
    assert_int_equal(vapic_nested_acknowledge(&b->v[0]->apic), 0x41);
    assert_true(vb_enter(b, 0));
    assert_int_equal(vmcs_get(&b->v[0]->vmcs01, VMCS_GUEST_INTERRUPT_STATUS), 0x4100);
    vb_free(b);
}

/* IF does not hold it back, nor an instruction of L2's for ever. */
static void neither_if_nor_an_incomplete_instruction_hold_it_back(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    interrupt_l1(b, 0x41);
    assert_true(vb_prepare(b->v[0], VAPIC_INCOMPLETE));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_SOON);
    vb_leave(b, 0);
    assert_false(vb_prepare(b->v[0], 0));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_LEAVE);
    vb_free(b);
}

/* L1's priority does: the loop does not spin. */
static void l1s_priority_holds_it_back(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    assert_int_equal(vapic_write_cr8(&b->v[0]->apic, 8), VAPIC_OK);
    vb_to_l2(b, 0);
    interrupt_l1(b, 0x41);
    vb_run(b, 0);
    assert_true(vb_enter(b, 0));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_STAY);
    vb_to_l1(b, 0);
    assert_true(vb_enter(b, 0));
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x808, 0), VAPIC_SIL_DONE);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x41), 1);
    vb_free(b);
}

/* Without external-interrupt exiting it goes through L2's IDT; ISR is L1's, and so is SVI. */
static void l1_may_have_it_injected_into_l2(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    assert_true(vb_enter(b, 0));
    vb_vmcs12(b, 0);
    b->v[0]->vmcs12.pin = 0;
    b->v[0]->vmcs12.secondary = 0;
    b->v[0]->vmcs12.tertiary = 0;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_enter(b, 0));
    interrupt_l1(b, 0x41);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[0], 0x141), 1);
    assert_int_equal(status02(b), 0);
    vb_to_l1(b, 0);
    assert_int_equal(vmcs_get(&b->v[0]->vmcs01, VMCS_GUEST_INTERRUPT_STATUS), 0x4100);
    vb_free(b);
}

/* L1's peers send by IPI virtualization while an update of its vmcs01 waits. */
static void peers_post_by_hardware_while_an_update_waits(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    assert_true(vb_enter(b, 1)); /* L1's vCPU 1 has IPI virtualization */
    vb_to_l2(b, 0);
    assert_int_equal(vapic_load_base(&b->v[0]->apic, vapic_base(&b->v[0]->apic)), VAPIC_OK);
    assert_int_equal(vapic_set_inhibit(&b->vm, VAPIC_INHIBIT_BLOCKIRQ, true), VAPIC_OK);
    assert_true(vb_enter(b, 0));
    assert_int_equal(vapic_set_inhibit(&b->vm, VAPIC_INHIBIT_BLOCKIRQ, false), VAPIC_OK);
    assert_true(vb_enter(b, 1));
    b->v[1]->exit_count = 0;
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[1], 0x830, 0x41), VAPIC_SIL_DONE);
    assert_int_equal(b->v[1]->exit_count, 0);
    assert_true(!vb_enter(b, 0) || !vb_boundary(b, 0));
    vb_run(b, 0);
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_LEAVE);
    vb_to_l1(b, 0);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[0], 0x41), 1);
    vb_free(b);
}

/* ---- Both at once ---- */

/* [4] in every order, and at every place where the target may be. */
static void race(uint32_t place, bool l1_first)
{
    struct vb *b = vb_new(&x2apic);

    vb_vmcs12(b, 0);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    if (place >= 1)
        assert_true(vb_prepare(b->v[0], VB_CAN)); /* between look and entry */
    if (place >= 2) {
        vb_leave(b, 0);
        assert_true(vb_boundary(b, 0)); /* in L2 */
    }
    if (place == 3)
        vb_leave(b, 0); /* in L0, after an exit */
    if (l1_first)
        interrupt_l1(b, 0x41);
    vb_post(b, 1, 0, 0x51);
    if (!l1_first)
        interrupt_l1(b, 0x41);
    vb_leave(b, 0);
    for (uint32_t i = 0; i < 10 && b->v[0]->entry.nested != VAPIC_NESTED_LEAVE; i++) {
        vb_run(b, 0);
        vb_leave(b, 0);
    }
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_LEAVE);
    vb_to_l1(b, 0);
    assert_int_equal(vapic_nested_acknowledge(&b->v[0]->apic), 0x41);
    assert_int_equal(vapic_nested_acknowledge(&b->v[0]->apic), -1);
    vapic_eoi(&b->v[0]->apic);
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_STAY);
    vb_free(b);
}

static void an_interrupt_of_l1_races_with_one_of_l2(void **state)
{
    (void)state;
    for (uint32_t place = 0; place < 4; place++) {
        race(place, false);
        race(place, true);
    }
}

/* What L2 had of it when it is left: as a processor would have processed it before the exit. */
static void latched_when_l2_is_left(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    vb_post(b, 1, 0, 0x51);
    assert_int_equal(vb_to_l1(b, 0).interrupt_status, 0x51);
    assert_true(vb_virr(b, 0, 0x51));
    assert_int_equal(vb_pid(b, 0)->control & PID_ON, 0);
    vb_run(b, 0);
    assert_int_equal(vb_times(b->v[0], VB_NV12), 0);
    vb_free(b);
}

/* ---- HLT of L2 ---- */

static void a_notification_ends_hlt(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    assert_true(vb_halt(b, 0));
    vb_post(b, 1, 0, 0x51);
    assert_true(b->v[0]->woken);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    vb_free(b);
}

/* [6]: of the class of PPR it does not, of a higher one it does. */
static void only_a_higher_class_ends_hlt(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x808, 0x50), VAPIC_SIL_DONE);
    assert_true(vb_halt(b, 0));
    vb_post(b, 1, 0, 0x5F);
    assert_false(vb_enter(b, 0));
    assert_true(vb_halt(b, 0));
    assert_true(vb_virr(b, 0, 0x5F) || vb_pid(b, 0)->pir[1]);
    vb_post(b, 1, 0, 0x61);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(b->v[0], 0x161), 1);
    assert_int_equal(vb_times(b->v[0], 0x15F), 0);
    vb_free(b);
}

/* L2 is left without vapic_exit(): nobody waits for a vCPU that waits for the lock. */
static void outside_when_it_is_to_leave(void **state)
{
    struct vb *b = vb_new(&x2apic);
    struct vb_vcpu *c = b->v[0];
    struct vapic_nested_left left;

    (void)state;
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    interrupt_l1(b, 0x41);
    vapic_enter(&c->apic, VB_CAN, b->now, &c->entry);
    assert_true(c->entry.runnable);
    assert_int_equal(c->entry.nested, VAPIC_NESTED_LEAVE);
    assert_false(vapic_in_guest(&c->apic));
    vapic_nested_leave(&c->apic, &left);
    c->l2 = false;
    vapic_nested_exit(&c->apic);
    assert_int_equal(vapic_nested_acknowledge(&c->apic), 0x41);
    vb_free(b);
}

static void an_interrupt_of_l1_ends_hlt(void **state)
{
    struct vb *b = vb_new(&x2apic);

    (void)state;
    vb_to_l2(b, 0);
    assert_true(vb_halt(b, 0));
    interrupt_l1(b, 0x41);
    assert_true(b->v[0]->woken);
    assert_false(vb_enter(b, 0));
    assert_int_equal(b->v[0]->entry.nested, VAPIC_NESTED_LEAVE);
    vb_free(b);
}

/* L2 sleeps with its interrupts off, which keep none of L1's back: what posts for L1 by hardware
 * must not do it in silence. L2's own cannot wake it. */
static void an_interrupt_of_l1_ends_hlt_whatever_if_is(void **state)
{
    struct vb *b = vb_new(&(struct vb_options){.x2apic = true, .strategy = VAPIC_NESTED_SHADOW});
    struct vb_vcpu *c = b->v[0];

    (void)state;
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    vapic_halt(&c->apic);
    vapic_enter(&c->apic, VB_CAN & ~(VAPIC_CAN_IRQ | VAPIC_IF), b->now, &c->entry);
    assert_false(c->entry.runnable);
    c->blocked = vapic_block(&c->apic);
    assert_true(c->blocked);
    assert_int_equal(c->nested.posted.control & PID_SN, PID_SN);
    assert_int_equal(vb_icr(b, 1, 0x41, 0), VAPIC_SIL_DONE);
    assert_int_equal(c->apic.pid.control & PID_ON, PID_ON);
    vb_handlers(b, 0);
    assert_true(c->woken);
    assert_false(vb_enter_with(b, 0, VB_CAN & ~(VAPIC_CAN_IRQ | VAPIC_IF)));
    assert_int_equal(c->entry.nested, VAPIC_NESTED_LEAVE);
    vb_free(b);
}

static void posted_on_the_way_to_sleep(void **state)
{
    struct vb *b = vb_new(&x2apic);
    struct vb_vcpu *c = b->v[0];

    (void)state;
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    vapic_halt(&c->apic);
    vapic_enter(&c->apic, VB_CAN, b->now, &c->entry);
    assert_false(c->entry.runnable);
    vb_post(b, 1, 0, 0x51); /* between the look and the announcement of sleep */
    assert_false(vapic_block(&c->apic));
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vb_times(c, 0x151), 1);
    vb_free(b);
}

/* ---- Exits ---- */

static void exits_that_l1_asked_for_are_l1s(void **state)
{
    static const uint32_t reasons[] = {VMX_EXIT_TPR_THRESHOLD, VMX_EXIT_APIC_ACCESS,
                                       VMX_EXIT_VIRTUALIZED_EOI, VMX_EXIT_APIC_WRITE};
    struct vb *b = vb_new(&x2apic);
    struct vapic_reflect r;

    (void)state;
    assert_int_equal(vapic_nested_apicv_exit(&b->v[0]->apic, 43, 0, &r), VAPIC_E_ARG);
    vb_to_l2(b, 0);
    vb_leave(b, 0);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(vapic_nested_apicv_exit(&b->v[0]->apic, reasons[i], 0xF0, &r),
                         VAPIC_REFLECT);
        assert_int_equal(r.code, reasons[i]);
        assert_int_equal(r.info1, 0xF0);
    }
    assert_int_equal(vapic_nested_apicv_exit(&b->v[0]->apic, VMX_EXIT_HLT, 0, &r), VAPIC_E_ARG);
    assert_int_equal(vapic_nested_apicv_exit(&b->v[0]->apic, 56, 0x1300, &r), VAPIC_E_ARG);
    vb_free(b);
}

/* L1's bitmap is vmcs02's: the EOI exits with the vector, RVI and SVI are right in vmcs12. */
static void an_eoi_that_l1_wants_to_see(void **state)
{
    struct vb *b = vb_new(&x2apic);
    struct vapic_reflect r;

    (void)state;
    vb_vmcs12(b, 0);
    b->v[0]->vmcs12.eoi_exit[1] = 1u << 0x11;
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    vb_post(b, 1, 0, 0x51);
    vb_post(b, 1, 0, 0x31);
    assert_true(vb_boundary(b, 0));
    assert_int_equal(vapic_sil_wrmsr(&b->cpus[0], 0x80B, 0), VAPIC_SIL_EXIT);
    vb_exited(b->v[0]);
    assert_int_equal(vb_exit(b, 0, &r), VAPIC_REFLECT);
    assert_int_equal(r.code, VMX_EXIT_VIRTUALIZED_EOI);
    assert_int_equal(r.info1, 0x51);
    assert_int_equal(vb_to_l1(b, 0).interrupt_status, 0x31);
    vb_free(b);
}

/* ---- Threads, seen from one ---- */

/* A sender that has read the vector sets the latch after L2 was left: L1 gets the notification. */
static void a_sender_that_comes_too_late(void **state)
{
    struct vb *b = vb_new(&x2apic);
    struct vapic *v = &b->v[0]->apic;
    uint32_t vector;

    (void)state;
    vb_to_l2(b, 0);
    vector = v->nested_vector;
    assert_int_equal(vector, VB_NV12);
    vb_to_l1(b, 0);
    assert_int_equal(v->nested_vector, 0);
    /* What vapic_nested_post() finds: the latch is set, the vector is gone, so L1 is posted to. */
    v->nested_vector = vector;
    vb_pid(b, 0)->pir[1] = 1u << 0x11;
    vb_pid(b, 0)->control |= PID_ON;
    vapic_post(v, VB_NV12, false, NULL);
    v->nested_vector = 0;
    vb_run(b, 0); /* the latch of an L2 that is gone disturbs nobody */
    assert_true(vb_enter(b, 0));
    assert_int_equal(vb_launch(b, 0), VAPIC_OK);
    assert_true(vb_boundary(b, 0)); /* and is looked at with the next one */
    assert_int_equal(vb_times(b->v[0], 0x151), 1);
    vb_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_notification_is_processed_without_an_exit),
        cmocka_unit_test(posted_while_l0_handles_an_exit),
        cmocka_unit_test(posted_between_the_look_and_the_entry),
        cmocka_unit_test(posted_before_the_first_entry),
        cmocka_unit_test(a_posted_vector_waits_for_tpr),
        cmocka_unit_test(pir_without_a_notification_is_not_looked_at),
        cmocka_unit_test(many_posts_at_once),
        cmocka_unit_test(the_vector_is_l1s_when_l2_is_not_current),
        cmocka_unit_test(without_posted_interrupts_it_is_an_interrupt_of_l1),
        cmocka_unit_test(any_vector_may_be_l1s),
        cmocka_unit_test(a_notification_in_irr_is_consumed),
        cmocka_unit_test(a_notification_above_an_interrupt_of_l1),
        cmocka_unit_test(it_makes_l2_exit_to_l1),
        cmocka_unit_test(neither_if_nor_an_incomplete_instruction_hold_it_back),
        cmocka_unit_test(l1s_priority_holds_it_back),
        cmocka_unit_test(l1_may_have_it_injected_into_l2),
        cmocka_unit_test(peers_post_by_hardware_while_an_update_waits),
        cmocka_unit_test(an_interrupt_of_l1_races_with_one_of_l2),
        cmocka_unit_test(latched_when_l2_is_left),
        cmocka_unit_test(a_notification_ends_hlt),
        cmocka_unit_test(only_a_higher_class_ends_hlt),
        cmocka_unit_test(outside_when_it_is_to_leave),
        cmocka_unit_test(an_interrupt_of_l1_ends_hlt),
        cmocka_unit_test(an_interrupt_of_l1_ends_hlt_whatever_if_is),
        cmocka_unit_test(posted_on_the_way_to_sleep),
        cmocka_unit_test(exits_that_l1_asked_for_are_l1s),
        cmocka_unit_test(an_eoi_that_l1_wants_to_see),
        cmocka_unit_test(a_sender_that_comes_too_late),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
