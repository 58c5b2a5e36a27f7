/* SPDX-License-Identifier: MIT */
/*
 * APICv's EOI-exit bitmap: which EOIs exit, whatever happens to the routes meanwhile, and what
 * software does about them. [SDM3 31.1.4]
 */
#include "apicv_bench.h"

#define VECTOR 0x61u
#define OTHER  0x62u

static struct ax *with_ioapic(unsigned with, uint32_t vcpus)
{
    struct ax *ax = machine(with, vcpus);

    ax_ioapic(ax);
    return ax;
}

static void raise(struct ax *ax, uint32_t pin)
{
    vapic_ioapic_set(&ax->io, pin, 0, true);
}

static void lower(struct ax *ax, uint32_t pin)
{
    vapic_ioapic_set(&ax->io, pin, 0, false);
}

static bool remote_irr(struct ax *ax, uint32_t pin)
{
    return (vapic_ioapic_entry(&ax->io, pin) & IOAPIC_RTE_RIRR) != 0;
}

static uint32_t eoi_exits_taken(const struct ax *ax, uint32_t n)
{
    return ax_exits(ax, n, VMX_EXIT_VIRTUALIZED_EOI);
}

/* ---- What the routes ask for ---- */

static const struct {
    uint64_t entry;
    bool watched, here;
} pin_rows[] = {
    {IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(1), false, true},
    {IOAPIC_RTE_LEVEL | IOAPIC_RTE_MASKED | VECTOR | RTE_TO(1), false, true}, /* may be in flight */
    {IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0), false, false},
    {IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0xFF), false, true},
    {IOAPIC_RTE_LEVEL | APIC_DM_LOWEST | IOAPIC_RTE_LOGICAL | VECTOR | RTE_TO(2), false, true},
    {IOAPIC_RTE_LEVEL | IOAPIC_RTE_LOGICAL | VECTOR | RTE_TO(1), false, false},
    {IOAPIC_RTE_LEVEL | APIC_DM_NMI | VECTOR | RTE_TO(1), false, false}, /* has no EOI */
    {VECTOR | RTE_TO(1), false, false},
    {VECTOR | RTE_TO(1), true, true},
    {VECTOR | RTE_TO(0), true, false},
    {IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(1), true, true},
};

/* vCPU 1 has logical ID 2. */
static void pins_that_lead_here(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pin_rows) / sizeof(pin_rows[0]); i++) {
        struct ax *ax = with_ioapic(0, 2);

        ax_write(ax, 0, APIC_LDR, 1u << 24);
        ax_write(ax, 1, APIC_LDR, 2u << 24);
        write_rte(ax, 5, pin_rows[i].entry);
        if (pin_rows[i].watched)
            assert_int_equal(vapic_gsi_watch(&ax->vm, 5, VAPIC_GSI_ACK, 0), VAPIC_OK);
        reenter(ax, 1);
        if (eoi_exits(ax, 1, VECTOR) != pin_rows[i].here)
            fail_msg("row %zu", i);
        ax_free(ax);
    }
}

static void message_routes_that_lead_here(void **state)
{
    static const struct {
        uint32_t data;
        bool watched, here;
    } rows[] = {
        {VECTOR | 1u << 15, false, true},
        {VECTOR | 1u << 15, true, true},
        {VECTOR, false, false},
        {VECTOR, true, false}, /* without the level bit it takes no part in EOIs */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ax *ax = machine(0, 2);
        struct vapic_route route = {
            .kind = VAPIC_ROUTE_MSI, .address = 0xFEE01000, .data = rows[i].data};

        reenter(ax, 1);
        assert_int_equal(vapic_gsi_route(&ax->vm, 7, &route), VAPIC_OK);
        if (rows[i].watched)
            assert_int_equal(vapic_gsi_watch(&ax->vm, 7, VAPIC_GSI_ACK, 0), VAPIC_OK);
        reenter(ax, 1);
        assert_int_equal(eoi_exits(ax, 1, VECTOR), rows[i].here);
        reenter(ax, 0);
        assert_false(eoi_exits(ax, 0, VECTOR));
        ax_free(ax);
    }
}

/* All four fields, first and last vector of each. */
static void every_word_of_the_bitmap(void **state)
{
    static const uint8_t vectors[] = {0x10, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    struct ax *ax = with_ioapic(0, 1);

    (void)state;
    for (uint32_t i = 0; i < sizeof(vectors); i++)
        write_rte(ax, i, IOAPIC_RTE_LEVEL | vectors[i] | RTE_TO(0));
    reenter(ax, 0);
    for (uint32_t v = 0; v < 256; v++)
        assert_int_equal(eoi_exits(ax, 0, (uint8_t)v), memchr(vectors, (int)v, 8) != NULL);
    ax_free(ax);
}

static void the_bitmap_follows_the_identity(void **state)
{
    struct ax *ax = with_ioapic(0, 2);

    (void)state;
    ax_write(ax, 0, APIC_LDR, 1u << 24);
    ax_write(ax, 1, APIC_LDR, 2u << 24);
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | IOAPIC_RTE_LOGICAL | VECTOR | RTE_TO(4));
    reenter(ax, 1);
    assert_false(eoi_exits(ax, 1, VECTOR));
    ax_write(ax, 1, APIC_LDR, 4u << 24);
    reenter(ax, 1);
    assert_true(eoi_exits(ax, 1, VECTOR));
    ax_free(ax);
}

/* Masking and unmasking, which guests do all the time, is no change of a route. */
static void masking_does_not_count_as_a_change(void **state)
{
    struct ax *ax = with_ioapic(0, 1);
    uint32_t generation;

    (void)state;
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0));
    generation = ax->vm.routes_generation;
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | IOAPIC_RTE_MASKED | VECTOR | RTE_TO(0));
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0));
    assert_int_equal(ax->vm.routes_generation, generation);
    write_rte(ax, 5, VECTOR | RTE_TO(0));
    assert_int_not_equal(ax->vm.routes_generation, generation);
    generation = ax->vm.routes_generation;
    vapic_ioapic_reset(&ax->io);
    assert_int_not_equal(ax->vm.routes_generation, generation);
    assert_int_equal(ax->vm.routes_changing, 0);
    ax_free(ax);
}

/* ---- Level-triggered interrupts, from the line to the line ---- */

static void a_level_is_ended_at_the_ioapic(void **state)
{
    struct ax *ax = with_ioapic(0, 1);

    (void)state;
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0));
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    raise(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    assert_true(remote_irr(ax, 5));
    ax_eoi(ax, 0); /* the line is still high */
    assert_int_equal(eoi_exits_taken(ax, 0), 1);
    assert_int_equal(ax_count(ax, AX_EOI), 1);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 2);
    lower(ax, 5);
    ax_eoi(ax, 0);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 2);
    assert_false(remote_irr(ax, 5));
    assert_int_equal(svi(ax, 0), 0);
    ax_free(ax);
}

static void an_edge_is_ended_without_exit(void **state)
{
    struct ax *ax = with_ioapic(0, 1);

    (void)state;
    write_rte(ax, 5, VECTOR | RTE_TO(0));
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    raise(ax, 5);
    ax_settle(ax);
    ax_eoi(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* A level that no route knows (vapic_post(), or an entry rewritten at once) is seen all the same,
 * and forgotten when it is over. */
static void a_level_without_a_route(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    ax_forget(ax);
    assert_true(ax_post(ax, 0, VECTOR, true));
    ax_settle(ax);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_EXTINT), 1); /* the kick */
    assert_true(eoi_exits(ax, 0, VECTOR));
    reenter(ax, 0);
    assert_true(eoi_exits(ax, 0, VECTOR)); /* in service */
    ax_eoi(ax, 0);
    assert_int_equal(ax_count(ax, AX_EOI), 1);
    reenter(ax, 0);
    assert_false(eoi_exits(ax, 0, VECTOR));
    ax_free(ax);
}

/* The route leads elsewhere while the interrupt is in service: its EOI must still reach the pin. */
static void rerouted_while_in_service(void **state)
{
    struct ax *ax = with_ioapic(0, 2);

    (void)state;
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0));
    raise(ax, 5);
    ax_settle(ax);
    lower(ax, 5);
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(1));
    reenter(ax, 0);
    reenter(ax, 1);
    assert_true(eoi_exits(ax, 0, VECTOR));
    assert_true(eoi_exits(ax, 1, VECTOR));
    assert_true(remote_irr(ax, 5));
    ax_eoi(ax, 0);
    assert_false(remote_irr(ax, 5));
    reenter(ax, 0);
    assert_false(eoi_exits(ax, 0, VECTOR)); /* nothing is left of the old route */
    raise(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, VECTOR), 1);
    ax_free(ax);
}

/* The new route is used while its target is in the guest with the old bitmap. */
static void rerouted_to_a_running_vcpu(void **state)
{
    struct ax *ax = with_ioapic(0, 2);

    (void)state;
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0));
    assert_true(ax_enter(ax, 0));
    assert_true(ax_enter(ax, 1));
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | OTHER | RTE_TO(1));
    assert_false(eoi_exits(ax, 1, OTHER));
    raise(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 1, OTHER), 1);
    lower(ax, 5);
    ax_eoi(ax, 1);
    assert_false(remote_irr(ax, 5));
    ax_free(ax);
}

/* An EOI whose exit comes first holds back what was pending below it; the next entry delivers it
 * and software does not clear ISR a second time. */
static void an_eoi_exit_with_more_pending(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_post(ax, 0, 0x91, true);
    ax_settle(ax);
    ax_if(ax, 0, false);
    ax_post(ax, 0, 0x51, false);
    ax_post(ax, 0, 0x41, true);
    ax_settle(ax);
    assert_int_equal(svi(ax, 0) | (uint32_t)ax->v[0]->cpu->svi, 0x91);
    ax_if(ax, 0, true);
    ax_eoi(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x51), 1);
    assert_true(ax_page_bit(ax, 0, APIC_ISR, 0x51));
    ax_eoi(ax, 0);
    ax_run(ax, 0);
    assert_int_equal(ax_delivered(ax, 0, 0x41), 1);
    ax_eoi(ax, 0);
    assert_int_equal(ax_count(ax, AX_EOI), 2);
    ax_free(ax);
}

/* SVR[12]: the guest tells the I/O APIC itself. The EOI exits, and nobody but notifiers hear. */
static void suppressed_broadcast(void **state)
{
    struct ax *ax = with_ioapic(0, 1);

    (void)state;
    ax_write(ax, 0, APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_EOI_SUPPRESS | 0xFF);
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0));
    raise(ax, 5);
    ax_settle(ax);
    ax_eoi(ax, 0);
    assert_true(remote_irr(ax, 5));
    assert_int_equal(ax_count(ax, AX_EOI), 0);
    ax_free(ax);
}

/* A bitmap that was not loaded while the vCPU was not active is right when it is. */
static void the_bitmap_after_activation(void **state)
{
    struct ax *ax = with_ioapic(0, 1);

    (void)state;
    assert_true(ax_enter(ax, 0));
    inhibit(ax, true);
    assert_true(ax_enter(ax, 0));
    write_rte(ax, 5, IOAPIC_RTE_LEVEL | VECTOR | RTE_TO(0));
    reenter(ax, 0);
    assert_false(eoi_exits(ax, 0, VECTOR)); /* not needed: the EOI exits anyhow */
    raise(ax, 5);
    ax_settle(ax);
    inhibit(ax, false);
    reenter(ax, 0);
    assert_true(eoi_exits(ax, 0, VECTOR));
    lower(ax, 5);
    ax_eoi(ax, 0);
    assert_int_equal(eoi_exits_taken(ax, 0), 1);
    assert_false(remote_irr(ax, 5));
    ax_free(ax);
}

/* ---- Watched edges ---- */

static uint32_t acks(const struct ax *ax)
{
    return ax_count(ax, AX_GSI_ACK);
}

static struct ax *watched_edge(uint32_t vcpus)
{
    struct ax *ax = with_ioapic(0, vcpus);

    assert_int_equal(vapic_gsi_watch(&ax->vm, 5, VAPIC_GSI_ACK, 0), VAPIC_OK);
    write_rte(ax, 5, VECTOR | RTE_TO(0));
    for (uint32_t n = 0; n < vcpus; n++)
        assert_true(ax_enter(ax, n));
    ax_forget(ax);
    return ax;
}

static void pulse(struct ax *ax, uint32_t pin)
{
    raise(ax, pin);
    lower(ax, pin);
}

static void a_watched_edge_is_acknowledged(void **state)
{
    struct ax *ax = watched_edge(1);

    (void)state;
    reenter(ax, 0); /* the bitmap is of now */
    ax_forget(ax);
    pulse(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_EXIT), 0); /* posted by hardware's way */
    ax_eoi(ax, 0);
    assert_int_equal(acks(ax), 1);
    assert_int_equal(ax_count(ax, AX_EOI), 0); /* not level-triggered */
    assert_false(ax_page_bit(ax, 0, APIC_TMR, VECTOR));
    ax_free(ax);
}

/* What is in flight when the watch begins is acknowledged, too. */
static void a_watch_is_in_force_at_once(void **state)
{
    struct ax *ax = with_ioapic(0, 2);

    (void)state;
    write_rte(ax, 5, VECTOR | RTE_TO(0));
    assert_true(ax_enter(ax, 0));
    assert_true(ax_enter(ax, 1));
    pulse(ax, 5);
    ax_settle(ax);
    ax_forget(ax);
    assert_int_equal(vapic_gsi_watch(&ax->vm, 5, VAPIC_GSI_ACK, 0), VAPIC_OK);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 1);
    ax_eoi(ax, 0);
    assert_int_equal(acks(ax), 1);
    /* Another form of the same watch, and its end, need no kick. */
    assert_int_equal(vapic_gsi_watch(&ax->vm, 5, VAPIC_GSI_RESAMPLE, 1), VAPIC_OK);
    assert_int_equal(vapic_gsi_watch(&ax->vm, 5, 0, 0), VAPIC_OK);
    assert_int_equal(ax_count(ax, AX_KICK_ALL), 1);
    reenter(ax, 0);
    assert_false(eoi_exits(ax, 0, VECTOR));
    ax_free(ax);
}

/* The pin leads elsewhere while its edge is in service. */
static void a_watched_edge_rerouted_in_service(void **state)
{
    struct ax *ax = watched_edge(2);

    (void)state;
    pulse(ax, 5);
    ax_settle(ax);
    write_rte(ax, 5, VECTOR | RTE_TO(1));
    reenter(ax, 0);
    ax_eoi(ax, 0);
    assert_int_equal(acks(ax), 1);
    reenter(ax, 0);
    assert_false(eoi_exits(ax, 0, VECTOR));
    ax_free(ax);
}

/* The route has just been changed, and its edge comes before the target has loaded the bitmap. */
static void a_watched_edge_on_a_new_route(void **state)
{
    struct ax *ax = watched_edge(2);

    (void)state;
    write_rte(ax, 5, OTHER | RTE_TO(1));
    ax_forget(ax);
    pulse(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_exits(ax, 1, VMX_EXIT_EXTINT),
                     1); /* kicked, not posted by hardware's way */
    assert_int_equal(ax_delivered(ax, 1, OTHER), 1);
    assert_false(ax_page_bit(ax, 1, APIC_TMR, OTHER));
    ax_eoi(ax, 1);
    assert_int_equal(acks(ax), 1);
    pulse(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_exits(ax, 1, VMX_EXIT_EXTINT), 1);
    assert_int_equal(ax_delivered(ax, 1, OTHER), 2);
    ax_eoi(ax, 1);
    assert_int_equal(acks(ax), 2);
    ax_free(ax);
}

/* A change that is under way on another thread makes every scan doubtful. */
static void a_watched_edge_amid_a_change(void **state)
{
    struct ax *ax = watched_edge(1);

    (void)state;
    ax->vm.routes_changing = 1;
    reenter(ax, 0);
    ax_forget(ax);
    pulse(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_exits(ax, 0, VMX_EXIT_EXTINT), 1);
    ax_eoi(ax, 0);
    assert_int_equal(acks(ax), 1);
    ax->vm.routes_changing = 0;
    reenter(ax, 0);
    ax_forget(ax);
    pulse(ax, 5);
    ax_settle(ax);
    assert_int_equal(ax_count(ax, AX_EXIT), 0);
    ax_free(ax);
}

/* RESET and INIT forget edges in the software's set as they forget PIR. */
static void a_doubtful_edge_is_forgotten_by_init(void **state)
{
    struct ax *ax = watched_edge(2);

    (void)state;
    ax_leave(ax, 1);
    write_rte(ax, 5, OTHER | RTE_TO(1));
    pulse(ax, 5);
    vapic_reset(&ax->v[1]->apic);
    assert_int_equal(ax->v[1]->accel.edge[1], 0);
    ax_free(ax);
}

/* The same vector as edge and as level: the level's EOI must not get lost. */
static void edge_and_level_of_one_vector(void **state)
{
    struct ax *ax = machine(0, 1);

    (void)state;
    ax_leave(ax, 0);
    ax_post(ax, 0, VECTOR, true);
    ax_post(ax, 0, VECTOR, false);
    ax_settle(ax);
    assert_int_equal(ax_delivered(ax, 0, VECTOR), 1);
    ax_eoi(ax, 0);
    assert_int_equal(ax_count(ax, AX_EOI), 1);
    ax_free(ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pins_that_lead_here),
        cmocka_unit_test(message_routes_that_lead_here),
        cmocka_unit_test(every_word_of_the_bitmap),
        cmocka_unit_test(the_bitmap_follows_the_identity),
        cmocka_unit_test(masking_does_not_count_as_a_change),
        cmocka_unit_test(a_level_is_ended_at_the_ioapic),
        cmocka_unit_test(an_edge_is_ended_without_exit),
        cmocka_unit_test(a_level_without_a_route),
        cmocka_unit_test(rerouted_while_in_service),
        cmocka_unit_test(rerouted_to_a_running_vcpu),
        cmocka_unit_test(an_eoi_exit_with_more_pending),
        cmocka_unit_test(suppressed_broadcast),
        cmocka_unit_test(the_bitmap_after_activation),
        cmocka_unit_test(a_watched_edge_is_acknowledged),
        cmocka_unit_test(a_watch_is_in_force_at_once),
        cmocka_unit_test(a_watched_edge_rerouted_in_service),
        cmocka_unit_test(a_watched_edge_on_a_new_route),
        cmocka_unit_test(a_watched_edge_amid_a_change),
        cmocka_unit_test(a_doubtful_edge_is_forgotten_by_init),
        cmocka_unit_test(edge_and_level_of_one_vector),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
