/* SPDX-License-Identifier: MIT */
/* GSI routes, EOI broadcast to hosts, acknowledge notifiers, resampling. */
#include "fixture.h"

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"
#include "vapic/arch/msi.h"

#define VECTOR  0x51
#define LEVEL   IOAPIC_RTE_LEVEL
#define MASKED  IOAPIC_RTE_MASKED
#define RIRR    IOAPIC_RTE_RIRR
#define ADDRESS UINT64_C(0xFEE00000)

static void route_msi(struct fx *fx, uint32_t gsi, uint32_t data)
{
    struct vapic_route route = {.kind = VAPIC_ROUTE_MSI, .address = ADDRESS, .data = data};

    assert_int_equal(vapic_gsi_route(&fx->vm, gsi, &route), VAPIC_OK);
}

static void route_pin(struct fx *fx, uint32_t gsi, struct vapic_ioapic *io, uint32_t pin)
{
    struct vapic_route route = {.kind = VAPIC_ROUTE_IOAPIC, .ioapic = io, .pin = pin};

    assert_int_equal(vapic_gsi_route(&fx->vm, gsi, &route), VAPIC_OK);
}

static void unroute(struct fx *fx, uint32_t gsi)
{
    struct vapic_route route = {.kind = VAPIC_ROUTE_NONE};

    assert_int_equal(vapic_gsi_route(&fx->vm, gsi, &route), VAPIC_OK);
}

/* ---- Routes ---- */

static void bad_arguments_are_refused(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.max_gsis = 8});
    struct vapic_ioapic *io = fx_ioapic(fx, 4, 0, 0x20);
    struct vapic_ioapic stranger = {.pin_count = 4};
    const struct {
        struct vapic_route route;
        uint32_t gsi;
        int result;
        const char *what;
    } rows[] = {
        {{.kind = VAPIC_ROUTE_NONE}, 8, VAPIC_E_ARG, "no such GSI"},
        {{.kind = VAPIC_ROUTE_NONE}, 0xFFFFFFFF, VAPIC_E_ARG, "no such GSI at all"},
        {{.kind = (enum vapic_route_kind)3}, 0, VAPIC_E_ARG, "unknown kind"},
        {{.kind = VAPIC_ROUTE_IOAPIC, .ioapic = io, .pin = 4}, 0, VAPIC_E_ARG, "no such pin"},
        {{.kind = VAPIC_ROUTE_IOAPIC, .ioapic = &stranger}, 0, VAPIC_E_ARG, "not attached"},
        {{.kind = VAPIC_ROUTE_IOAPIC}, 0, VAPIC_E_ARG, "no I/O APIC"},
        {{.kind = VAPIC_ROUTE_MSI, .address = 0xFED00000}, 0, VAPIC_E_MSI, "no MSI address"},
        {{.kind = VAPIC_ROUTE_MSI, .address = ADDRESS, .data = 0x300}, 0, VAPIC_E_MSI, "mode 3"},
        {{.kind = VAPIC_ROUTE_MSI, .address = ADDRESS}, 7, VAPIC_OK, "good"},
    };
    (void)state;

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
        fx_equal((unsigned)vapic_gsi_route(&fx->vm, rows[n].gsi, &rows[n].route),
                 (unsigned)rows[n].result, "%s", rows[n].what);
    assert_int_equal(vapic_gsi_route(&fx->vm, 0, NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_gsi_set(&fx->vm, 8, 0, true), VAPIC_E_ARG);
    assert_int_equal(vapic_gsi_set(&fx->vm, 0, 16, true), VAPIC_E_ARG);
    assert_int_equal(vapic_gsi_set(&fx->vm, 6, 0, true), VAPIC_GSI_BLOCKED); /* no route */
    fx_rte_write(io, 0, VECTOR); /* the refused ones changed nothing: GSI 0 is still pin 0 */
    assert_int_equal(vapic_gsi_set(&fx->vm, 0, 0, true), 1);
    fx_free(fx);
    fx_ioapic_free(io);
}

static void ioapics_get_the_free_gsis_of_their_range(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.max_gsis = 30});
    struct vapic_ioapic *first, *second;
    (void)state;

    route_msi(fx, 1, VECTOR);
    first = fx_ioapic(fx, 24, 0, 0x20);
    second = fx_ioapic(fx, 24, 24, 0x20); /* GSIs 30 and up do not exist */
    for (uint32_t n = 0; n < 24; n++) {
        fx_rte_write(first, n, 0x40 + n);
        fx_rte_write(second, n, 0x80 + n);
    }
    for (uint32_t gsi = 0; gsi < 30; gsi++) {
        int vector = gsi == 1 ? VECTOR : (int)(gsi < 24 ? 0x40 + gsi : 0x80 + gsi - 24);

        fx_equal((unsigned)vapic_gsi_set(&fx->vm, gsi, 0, true), 1, "GSI %u", gsi);
        fx_equal((unsigned)fx_take_eoi(fx, 0), (unsigned)vector, "GSI %u", gsi);
    }
    fx_free(fx);
    fx_ioapic_free(first);
    fx_ioapic_free(second);
}

static void a_board_may_swap_gsi_0_and_pin_2(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    route_pin(fx, 0, io, 2);
    unroute(fx, 2);
    fx_rte_write(io, 2, VECTOR);
    assert_int_equal(vapic_gsi_set(&fx->vm, 0, 0, true), 1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 2, 0, true), VAPIC_GSI_BLOCKED);
    fx_free(fx);
    fx_ioapic_free(io);
}

static void return_values_of_a_pin(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    assert_int_equal(vapic_gsi_set(&fx->vm, 3, 0, true), VAPIC_GSI_BLOCKED); /* masked */
    assert_int_equal(vapic_gsi_set(&fx->vm, 3, 0, false), 0);
    fx_rte_write(io, 3, VECTOR);
    assert_int_equal(vapic_gsi_set(&fx->vm, 3, 0, true), 1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 3, 0, true), 0); /* high already */
    vapic_gsi_set(&fx->vm, 3, 0, false);
    assert_int_equal(vapic_gsi_set(&fx->vm, 3, 0, true), 0); /* vector pending already */
    fx_rte_write(io, 4, (VECTOR + 1) | LEVEL);
    assert_int_equal(vapic_gsi_set(&fx->vm, 4, 0, true), 1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 4, 0, true), VAPIC_GSI_BLOCKED); /* remote IRR */
    fx_rte_write(io, 5, (VECTOR + 1) | UINT64_C(0x77) << 56);
    assert_int_equal(vapic_gsi_set(&fx->vm, 5, 0, true), VAPIC_GSI_BLOCKED); /* nobody */
    fx_free(fx);
    fx_ioapic_free(io);
}

/* ---- Routes to messages ---- */

static void a_message_is_sent_when_the_line_rises(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    route_msi(fx, 9, VECTOR);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 0, true), 1);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 0, true), 0); /* no rise */
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 15, true), 0);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 0, false), 0);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 0, true), 0); /* 15 holds it high */
    vapic_gsi_set(&fx->vm, 9, 0, false);
    vapic_gsi_set(&fx->vm, 9, 15, false);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 15, true), 1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 15, false), 0);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 15, true), 0); /* vector pending already */
    fx_free(fx);
}

static void a_fall_sends_nothing(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    route_msi(fx, 9, VECTOR);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 0, false), 0); /* was low */
    assert_int_equal(fx_take(fx, 0), -1);
    vapic_gsi_set(&fx->vm, 9, 0, true);
    fx_take_eoi(fx, 0);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 0, false), 0);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void all_of_the_message_survives_packing(void **state)
{
    static const uint32_t ids[] = {0, 0xABCDEF34};
    struct fx_options options = {.vcpus = 2, .ids = ids, .x2apic = true};
    struct vapic_route route = {.kind = VAPIC_ROUTE_MSI,
                                .address = UINT64_C(0xABCDEF00) << 32 | ADDRESS | 0x34 << 12,
                                .data = VECTOR | APIC_DM_LOWEST | MSI_DATA_LEVEL};
    struct fx *fx;
    (void)state;

    options.config.msi_dest = VAPIC_MSI_DEST_32;
    fx = fx_new(&options);
    assert_int_equal(vapic_gsi_route(&fx->vm, 255, &route), VAPIC_OK);
    assert_int_equal(vapic_gsi_set(&fx->vm, 255, 7, true), 1);
    assert_int_equal(fx_take(fx, 1), VECTOR);
    assert_true(fx_bit(fx, 1, APIC_TMR, VECTOR));
    fx_free(fx);
}

static void logical_and_hinted_messages_survive_packing(void **state)
{
    struct fx_options options = {.vcpus = 4, .x2apic = true};
    struct vapic_route route = {.kind = VAPIC_ROUTE_MSI, .data = VECTOR};
    struct fx *fx = fx_new(&options);
    (void)state;

    route.address = ADDRESS | 0x0F << 12 | MSI_ADDR_LOGICAL;
    assert_int_equal(vapic_gsi_route(&fx->vm, 1, &route), VAPIC_OK);
    assert_int_equal(vapic_gsi_set(&fx->vm, 1, 0, true), 4);
    route.address |= MSI_ADDR_REDIRECT;
    route.data = VECTOR + 1;
    assert_int_equal(vapic_gsi_route(&fx->vm, 2, &route), VAPIC_OK);
    assert_int_equal(vapic_gsi_set(&fx->vm, 2, 0, true), 1);
    fx_free(fx);
}

static void a_rewritten_message_keeps_the_line(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    route_msi(fx, 9, VECTOR);
    vapic_gsi_set(&fx->vm, 9, 0, true);
    fx_take_eoi(fx, 0);
    route_msi(fx, 9, VECTOR + 1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 1, true), 0); /* it was high all the time */
    vapic_gsi_set(&fx->vm, 9, 0, false);
    vapic_gsi_set(&fx->vm, 9, 1, false);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 1, true), 1);
    assert_int_equal(fx_take(fx, 0), VECTOR + 1);
    fx_free(fx);
}

/* ---- EOI to the host [SDM3 12.8.5] ---- */

static void host_eoi_is_called_for_level_vectors_only(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    vapic_msi(&fx->vm, ADDRESS, VECTOR);
    fx_take_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    vapic_msi(&fx->vm, ADDRESS, VECTOR | MSI_DATA_LEVEL);
    fx_take_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    assert_int_equal(fx_nth(fx, FX_EOI, 0).a, VECTOR);
    assert_int_equal(fx_nth(fx, FX_EOI, 0).vcpu, 0);
    fx_free(fx);
}

static void check_remote_irr(struct fx *fx, uint32_t vcpu, uint8_t vector)
{
    (void)vcpu;
    (void)vector;
    assert_false(vapic_ioapic_entry(fx->user, 3) & RIRR);
}

static void host_eoi_comes_after_the_ioapics_have_seen_it(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    fx->user = io;
    fx->on_eoi = check_remote_irr;
    fx_rte_write(io, 3, VECTOR | LEVEL);
    vapic_gsi_set(&fx->vm, 3, 0, true);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    vapic_gsi_set(&fx->vm, 3, 0, false);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    fx_free(fx);
    fx_ioapic_free(io);
}

/* A split host may want EOIs that the guest's SVR[12] suppresses: a knob. */
static void trap_83_suppressed_eoi_reaches_the_host_by_knob(void **state)
{
    static const struct {
        uint32_t knobs;
        uint32_t calls;
    } rows[] = {{VAPIC_PROFILE_MANUAL, 0},
                {VAPIC_PROFILE_MANUAL | VAPIC_KNOB_SPLIT_IGNORES_SUPPRESS, 1}};
    (void)state;

    for (size_t n = 0; n < 2; n++) {
        struct fx_options options = {.config = {.knobs_set = true, .knobs = rows[n].knobs}};
        struct fx *fx = fx_new(&options);

        fx_set(fx, 0, APIC_SVR, APIC_SVR_ENABLE | APIC_SVR_EOI_SUPPRESS | 0xFF);
        vapic_msi(&fx->vm, ADDRESS, VECTOR | MSI_DATA_LEVEL);
        assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
        fx_equal(fx_count(fx, FX_EOI), rows[n].calls, "knobs %#x", rows[n].knobs);
        fx_free(fx);
    }
}

static void trap_84_eoi_of_a_removed_route_is_told_once(void **state)
{
    struct fx *fx = fx_new(NULL);
    (void)state;

    route_msi(fx, 9, VECTOR | MSI_DATA_LEVEL);
    vapic_gsi_set(&fx->vm, 9, 0, true);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    vapic_gsi_set(&fx->vm, 9, 0, false);
    unroute(fx, 9);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    fx_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_EOI), 1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 9, 0, true), VAPIC_GSI_BLOCKED);
    fx_free(fx);
}

static void hosts_without_callbacks_are_fine(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.no_optional = true});
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    fx_rte_write(io, 3, VECTOR | LEVEL);
    vapic_gsi_set(&fx->vm, 3, 0, true);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_ACK, 0), VAPIC_E_ARG);
    fx_free(fx);
    fx_ioapic_free(io);
}

static void broadcast_eoi_clears_remote_irr_without_a_vcpu(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x11);
    (void)state;

    fx_rte_write(io, 3, VECTOR | LEVEL);
    vapic_gsi_set(&fx->vm, 3, 0, true);
    vapic_gsi_set(&fx->vm, 3, 0, false);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_ACK, 0), VAPIC_OK);
    vapic_broadcast_eoi(&fx->vm, VECTOR);
    assert_false(vapic_ioapic_entry(io, 3) & RIRR);
    assert_int_equal(fx_count(fx, FX_GSI_ACK), 1);
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    fx_free(fx);
    fx_ioapic_free(io);
}

/* ---- Acknowledge notifiers ---- */

static void watch_arguments(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.max_gsis = 8});
    (void)state;

    assert_int_equal(vapic_gsi_watch(&fx->vm, 8, VAPIC_GSI_ACK, 0), VAPIC_E_ARG);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 0, 4, 0), VAPIC_E_ARG);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 0, VAPIC_GSI_RESAMPLE, 16), VAPIC_E_ARG);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 7, VAPIC_GSI_RESAMPLE, 15), VAPIC_OK);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 7, 0, 0), VAPIC_OK);
    fx_free(fx);
}

struct ack_row {
    uint32_t low; /* of the entry */
    uint32_t svr;
    uint32_t flags;
    uint32_t acks;
    const char *what;
};

static const struct ack_row ack_rows[] = {
    {VECTOR | LEVEL, 0, VAPIC_GSI_ACK, 1, "level"},
    {VECTOR, 0, VAPIC_GSI_ACK, 1, "edge"},
    {VECTOR | LEVEL, APIC_SVR_EOI_SUPPRESS, VAPIC_GSI_ACK, 1, "level, broadcast suppressed"},
    {VECTOR | LEVEL, 0, VAPIC_GSI_RESAMPLE, 1, "resampled"},
    {VECTOR | LEVEL, 0, 0, 0, "not watched"},
};

static void an_eoi_acknowledges_the_watched_gsi(void **state)
{
    (void)state;

    for (size_t n = 0; n < sizeof(ack_rows) / sizeof(ack_rows[0]); n++) {
        const struct ack_row *row = &ack_rows[n];
        struct fx *fx = fx_new(NULL);
        struct vapic_ioapic *io = fx_ioapic(fx, 24, 16, 0x20);

        fx_set(fx, 0, APIC_SVR, APIC_SVR_ENABLE | row->svr | 0xFF);
        assert_int_equal(vapic_gsi_watch(&fx->vm, 19, row->flags, 0), VAPIC_OK);
        fx_rte_write(io, 3, row->low);
        vapic_gsi_set(&fx->vm, 19, 0, true);
        assert_int_equal(fx_take(fx, 0), VECTOR);
        fx_equal(fx_count(fx, FX_GSI_ACK), 0, "%s, before the EOI", row->what);
        fx_eoi(fx, 0);
        fx_equal(fx_count(fx, FX_GSI_ACK), row->acks, "%s", row->what);
        if (row->acks != 0)
            fx_equal(fx_nth(fx, FX_GSI_ACK, 0).a, 19, "%s", row->what);
        fx_free(fx);
        fx_ioapic_free(io);
    }
}

static void a_watch_that_was_withdrawn_is_quiet(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_ACK, 0);
    vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_RESAMPLE, 0);
    vapic_gsi_watch(&fx->vm, 3, 0, 0);
    fx_rte_write(io, 3, VECTOR);
    vapic_gsi_set(&fx->vm, 3, 0, true);
    fx_take_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_GSI_ACK), 0);
    assert_int_equal(fx->vm.watched, 0); /* edge-triggered EOIs cost nothing again */
    fx_free(fx);
    fx_ioapic_free(io);
}

/* A watch makes edge-triggered EOIs visible to the I/O APICs, but they end no level round. */
static void a_watched_edge_eoi_leaves_remote_irr(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_ACK, 0);
    fx_rte_write(io, 3, VECTOR | LEVEL);
    vapic_gsi_set(&fx->vm, 3, 0, true);
    vapic_gsi_set(&fx->vm, 3, 0, false);
    vapic_msi(&fx->vm, ADDRESS | 1 << 12, VECTOR);
    assert_int_equal(fx_take_eoi(fx, 1), VECTOR);
    assert_true(vapic_ioapic_entry(io, 3) & RIRR);
    assert_int_equal(fx_count(fx, FX_EOI), 0);
    fx_free(fx);
    fx_ioapic_free(io);
}

/* The GSI that was routed to the pin last is the one it reports. */
static void a_rerouted_pin_acknowledges_its_new_gsi(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    vapic_gsi_watch(&fx->vm, 0, VAPIC_GSI_ACK, 0);
    vapic_gsi_watch(&fx->vm, 2, VAPIC_GSI_ACK, 0);
    route_pin(fx, 0, io, 2);
    unroute(fx, 2); /* must not take GSI 0 off the pin */
    fx_rte_write(io, 2, VECTOR);
    vapic_gsi_set(&fx->vm, 0, 0, true);
    fx_take_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_GSI_ACK), 1);
    assert_int_equal(fx_nth(fx, FX_GSI_ACK, 0).a, 0);
    unroute(fx, 0);
    vapic_ioapic_set(io, 2, 0, false);
    vapic_ioapic_set(io, 2, 0, true);
    fx_take_eoi(fx, 0);
    assert_int_equal(fx_count(fx, FX_GSI_ACK), 1); /* no GSI leads to it */
    fx_free(fx);
    fx_ioapic_free(io);
}

static void message_routes_acknowledge_when_level(void **state)
{
    static const struct {
        uint32_t data;
        uint32_t acks;
    } rows[] = {{VECTOR, 0}, {VECTOR | MSI_DATA_LEVEL, 1}};
    (void)state;

    for (size_t n = 0; n < 2; n++) {
        struct fx *fx = fx_new(NULL);

        route_msi(fx, 200, rows[n].data);
        vapic_gsi_watch(&fx->vm, 200, VAPIC_GSI_ACK, 0);
        route_msi(fx, 201, (VECTOR + 2) | MSI_DATA_LEVEL);
        vapic_gsi_watch(&fx->vm, 201, VAPIC_GSI_ACK, 0);
        vapic_gsi_set(&fx->vm, 200, 0, true);
        assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
        fx_equal(fx_count(fx, FX_GSI_ACK), rows[n].acks, "data %#x", rows[n].data);
        vapic_msi(&fx->vm, ADDRESS, (VECTOR + 1) | MSI_DATA_LEVEL);
        fx_take_eoi(fx, 0);
        fx_equal(fx_count(fx, FX_GSI_ACK), rows[n].acks, "another vector, %#x", rows[n].data);
        fx_free(fx);
    }
}

/* ---- Resampling [KVM ioapic] ---- */

/* The device: `user` counts how often it still wants service. */
static void raise_while_wanted(struct fx *fx, uint32_t gsi)
{
    uint32_t *wanted = fx->user;

    if (*wanted == 0)
        return;
    (*wanted)--;
    vapic_gsi_set(&fx->vm, gsi, 5, true);
}

static void resampling_lowers_the_line_and_asks_the_device(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    uint32_t wanted = 2;
    (void)state;

    fx->on_ack = raise_while_wanted;
    fx->user = &wanted;
    vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_RESAMPLE, 5);
    fx_rte_write(io, 3, VECTOR | LEVEL);
    vapic_gsi_set(&fx->vm, 3, 5, true);
    for (int n = 0; n < 3; n++)
        fx_equal((unsigned)fx_take_eoi(fx, 0), VECTOR, "run %d", n);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(fx_count(fx, FX_GSI_ACK), 3);
    assert_false(vapic_ioapic_entry(io, 3) & RIRR);
    fx_free(fx);
    fx_ioapic_free(io);
}

static void resampling_leaves_other_sources_alone(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_RESAMPLE, 5);
    fx_rte_write(io, 3, VECTOR | LEVEL);
    vapic_gsi_set(&fx->vm, 3, 5, true);
    vapic_gsi_set(&fx->vm, 3, 6, true);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(fx_take(fx, 0), VECTOR); /* 6 is high still */
    vapic_gsi_set(&fx->vm, 3, 6, false);
    fx_eoi(fx, 0);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
    fx_ioapic_free(io);
}

static void resampling_works_for_level_messages(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint32_t wanted = 1;
    (void)state;

    fx->on_ack = raise_while_wanted;
    fx->user = &wanted;
    route_msi(fx, 40, VECTOR | MSI_DATA_LEVEL);
    vapic_gsi_watch(&fx->vm, 40, VAPIC_GSI_RESAMPLE, 5);
    vapic_gsi_set(&fx->vm, 40, 5, true);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(vapic_gsi_set(&fx->vm, 40, 5, true), 1); /* it was low */
    fx_free(fx);
}

/*
 * A threaded handler: mask, EOI, serve, unmask. The level that was raised again at the EOI is stale
 * at the unmask, so the device is asked instead of interrupting once more.
 */
static void unmask_asks_the_resampled_device_first(void **state)
{
    static const uint32_t wants[] = {0, 1};
    (void)state;

    for (size_t n = 0; n < 2; n++) {
        struct fx *fx = fx_new(NULL);
        struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
        uint32_t wanted = 1;

        fx->on_ack = raise_while_wanted;
        fx->user = &wanted;
        vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_RESAMPLE, 5);
        fx_rte_write(io, 3, VECTOR | LEVEL);
        vapic_gsi_set(&fx->vm, 3, 5, true);
        assert_int_equal(fx_take(fx, 0), VECTOR);
        fx_rte_write(io, 3, VECTOR | LEVEL | MASKED);
        fx_eoi(fx, 0); /* asked, still wanted */
        wanted = wants[n];
        fx_rte_write(io, 3, VECTOR | LEVEL); /* asked again */
        fx_equal(fx_count(fx, FX_GSI_ACK), 2, "wanted %u", wants[n]);
        fx_equal((unsigned)fx_take(fx, 0), (unsigned)(wants[n] ? VECTOR : -1), "wanted %u",
                 wants[n]);
        fx_free(fx);
        fx_ioapic_free(io);
    }
}

static void unmask_with_another_source_high_fires(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);
    (void)state;

    vapic_gsi_watch(&fx->vm, 3, VAPIC_GSI_RESAMPLE, 5);
    fx_rte_write(io, 3, VECTOR | LEVEL | MASKED);
    vapic_gsi_set(&fx->vm, 3, 5, true);
    vapic_gsi_set(&fx->vm, 3, 6, true);
    fx_rte_write(io, 3, VECTOR | LEVEL);
    assert_int_equal(fx_count(fx, FX_GSI_ACK), 0);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    fx_free(fx);
    fx_ioapic_free(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(ioapics_get_the_free_gsis_of_their_range),
        cmocka_unit_test(a_board_may_swap_gsi_0_and_pin_2),
        cmocka_unit_test(return_values_of_a_pin),
        cmocka_unit_test(a_message_is_sent_when_the_line_rises),
        cmocka_unit_test(a_fall_sends_nothing),
        cmocka_unit_test(all_of_the_message_survives_packing),
        cmocka_unit_test(logical_and_hinted_messages_survive_packing),
        cmocka_unit_test(a_rewritten_message_keeps_the_line),
        cmocka_unit_test(host_eoi_is_called_for_level_vectors_only),
        cmocka_unit_test(host_eoi_comes_after_the_ioapics_have_seen_it),
        cmocka_unit_test(trap_83_suppressed_eoi_reaches_the_host_by_knob),
        cmocka_unit_test(trap_84_eoi_of_a_removed_route_is_told_once),
        cmocka_unit_test(hosts_without_callbacks_are_fine),
        cmocka_unit_test(broadcast_eoi_clears_remote_irr_without_a_vcpu),
        cmocka_unit_test(watch_arguments),
        cmocka_unit_test(an_eoi_acknowledges_the_watched_gsi),
        cmocka_unit_test(a_watch_that_was_withdrawn_is_quiet),
        cmocka_unit_test(a_watched_edge_eoi_leaves_remote_irr),
        cmocka_unit_test(a_rerouted_pin_acknowledges_its_new_gsi),
        cmocka_unit_test(message_routes_acknowledge_when_level),
        cmocka_unit_test(resampling_lowers_the_line_and_asks_the_device),
        cmocka_unit_test(resampling_leaves_other_sources_alone),
        cmocka_unit_test(resampling_works_for_level_messages),
        cmocka_unit_test(unmask_asks_the_resampled_device_first),
        cmocka_unit_test(unmask_with_another_source_high_fires),
    };

    return cmocka_run_group_tests_name("gsi", tests, NULL, NULL);
}
