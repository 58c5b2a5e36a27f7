/* SPDX-License-Identifier: MIT */
/*
 * The races that the head of src/ioapic.c argues about, one by one: each test lets "another thread"
 * act at the moment when the sender of a message is between its claim and its next look at the pin.
 *
 * To get there the file under test is compiled into this program, with its call into the fabric
 * leading through a function of ours.
 */
#include "fixture.h"

#include "vapic/arch/apic.h"
#include "vapic/arch/ioapic.h"

/* What happens while the message is under way; set by a test, used once. */
struct meanwhile {
    void (*before)(void); /* it arrives */
    void (*after)(void);  /* the sender hears of it */
};

static struct meanwhile meanwhile;
static uint32_t deliveries;

#define vapic_fabric_deliver deliver
#include "ioapic.c" // NOLINT(bugprone-suspicious-include)
#undef vapic_fabric_deliver

struct vapic_sent vapic_fabric_deliver(struct vapic_vm *vm, struct vapic_msg msg);

struct vapic_sent deliver(struct vapic_vm *vm, struct vapic_msg msg)
{
    struct meanwhile now = meanwhile;
    struct vapic_sent sent;

    meanwhile = (struct meanwhile){0};
    deliveries++;
    if (now.before != NULL)
        now.before();
    sent = vapic_fabric_deliver(vm, msg);
    if (now.after != NULL)
        now.after();
    return sent;
}

#define VECTOR 0x51
#define LEVEL  IOAPIC_RTE_LEVEL
#define MASKED IOAPIC_RTE_MASKED
#define LOW    (IOAPIC_REG_RTE + 2 * PIN)
#define HIGH   (LOW + 1)
#define PIN    5u
#define NOBODY 0x77u

static struct fx *fx;
static struct vapic_ioapic *io;

/* Two vCPUs; the pin is level-triggered, unmasked and leads to `dest`. */
static void begin_with(const struct fx_options *options, uint32_t dest)
{
    fx = fx_new(options);
    io = fx_ioapic(fx, 24, 0, 0x20);
    fx_rte_write(io, PIN, VECTOR | LEVEL | (uint64_t)dest << 56);
    meanwhile = (struct meanwhile){0};
    deliveries = 0;
}

static void begin(uint32_t dest)
{
    begin_with(&(struct fx_options){.vcpus = 2}, dest);
}

static void end(void)
{
    fx_free(fx);
    fx_ioapic_free(io);
}

static bool rirr(void)
{
    return (vapic_ioapic_entry(io, PIN) & IOAPIC_RTE_RIRR) != 0;
}

static int set(bool level)
{
    return vapic_ioapic_set(io, PIN, 0, level);
}

static void enable(void)
{
    fx_set(fx, 0, APIC_SVR, APIC_SVR_ENABLE | 0xFF);
}

static void disable(void)
{
    fx_set(fx, 0, APIC_SVR, 0xFF);
}

/* ---- The EOI against the sender ---- */

static void handler_lowers(void)
{
    assert_int_equal(fx_take(fx, 0), VECTOR);
    set(false);
    fx_eoi(fx, 0);
}

static void handler_leaves_high(void)
{
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
}

static void eoi_before_the_sender_returns(void **state)
{
    (void)state;

    begin(0);
    meanwhile.after = handler_lowers;
    assert_int_equal(set(true), 1);
    assert_false(rirr());
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(set(true), 1); /* the pin is alive */
    end();
}

static void eoi_before_the_sender_returns_with_the_line_high(void **state)
{
    (void)state;

    begin(0);
    meanwhile.after = handler_leaves_high;
    assert_int_equal(set(true), 1);
    assert_int_equal(deliveries, 2);
    assert_true(rirr());
    assert_int_equal(fx_take(fx, 0), VECTOR);
    end();
}

/* ---- Nobody accepts, and meanwhile ... ---- */

struct race {
    void (*after)(void); /* what happens before the sender hears of it */
    bool pending;        /* the vector waits at vCPU 0 in the end */
    bool rirr;           /* and remote IRR is set */
    bool starved;        /* and delivery status says so */
    uint32_t sends;      /* messages in all */
    const char *what;
};

static void aim_at_0(void)
{
    fx_io_write(io, HIGH, 0);
}

static void mask(void)
{
    fx_io_write(io, LOW, VECTOR | LEVEL | MASKED);
}

static void other_vector(void)
{
    fx_io_write(io, LOW, (VECTOR + 1) | LEVEL);
}

static void lower(void)
{
    set(false);
}

static void lower_and_raise(void)
{
    set(false);
    assert_int_equal(set(true), VAPIC_GSI_BLOCKED);
}

static void make_edge(void)
{
    fx_io_write(io, LOW, VECTOR);
}

/* Clears remote IRR and claims anew, for a message that vCPU 0 accepts. */
static void edge_trick_to_0(void)
{
    fx_io_write(io, LOW, VECTOR | MASKED);
    fx_io_write(io, HIGH, 0);
    fx_io_write(io, LOW, VECTOR | LEVEL);
}

static void eoi_register(void)
{
    vapic_ioapic_write(io, IOAPIC_EOIR, VECTOR, 4);
}

static void reset(void)
{
    vapic_ioapic_reset(io);
}

/* In both, a claim follows that has nothing to do with the sender's. */
static void reset_and_aim_at_0(void)
{
    vapic_ioapic_reset(io);
    fx_rte_write(io, PIN, VECTOR | LEVEL);
}

static void load_in_service(void)
{
    uint8_t record[VAPIC_IOAPIC_RECORD(24)];

    assert_int_equal(vapic_ioapic_save(io, record, sizeof(record)), VAPIC_OK);
    assert_int_equal(vapic_ioapic_load(io, record, sizeof(record)), VAPIC_OK);
}

static const struct race races[] = {
    {NULL, false, false, true, 1, "nothing happens"},
    {aim_at_0, true, true, false, 2, "the entry is aimed at a vCPU"},
    {mask, false, false, true, 1, "the entry is masked"},
    {other_vector, false, false, true, 2, "the vector is changed: tried again, nobody again"},
    {lower, false, false, false, 1, "the line falls"},
    {lower_and_raise, false, false, true, 1, "the line falls and rises"},
    {make_edge, false, false, false, 1, "the entry becomes edge-triggered"},
    {edge_trick_to_0, true, true, false, 2, "another claim follows: it must stand"},
    {eoi_register, false, false, true, 2, "an EOI of the vector: tried again, nobody again"},
    {reset, false, false, false, 1, "RESET"},
    {reset_and_aim_at_0, true, true, false, 2, "RESET and another claim: it must stand"},
    {load_in_service, false, true, false, 1, "a state with remote IRR is loaded: it must stand"},
};

static void nobody_accepts_and_meanwhile(void **state)
{
    (void)state;

    for (size_t n = 0; n < sizeof(races) / sizeof(races[0]); n++) {
        begin(NOBODY);
        meanwhile = (struct meanwhile){.after = races[n].after};
        set(true);
        fx_equal(deliveries, races[n].sends, "%s, messages", races[n].what);
        fx_equal(rirr(), races[n].rirr, "%s, remote IRR", races[n].what);
        fx_equal((vapic_ioapic_entry(io, PIN) & IOAPIC_RTE_DS) != 0, races[n].starved,
                 "%s, delivery status", races[n].what);
        fx_equal(fx_bit(fx, 0, APIC_IRR, VECTOR), races[n].pending, "%s, IRR", races[n].what);
        end();
    }
}

/* ---- Nobody accepts, and meanwhile the destination map changes ---- */

static void disable_and_enable(void)
{
    disable();
    enable();
}

static void map_changes_after_nobody_was_found(void **state)
{
    (void)state;

    begin_with(&(struct fx_options){.soft_disabled = true}, 0);
    meanwhile.after = enable;
    assert_int_equal(set(true), 1); /* found at the second attempt, by the sender itself */
    assert_int_equal(deliveries, 2);
    assert_true(rirr());
    assert_int_equal(fx_take(fx, 0), VECTOR);
    end();
}

static void map_changes_back_and_forth_while_nobody_is_found(void **state)
{
    (void)state;

    begin(0);
    meanwhile = (struct meanwhile){.before = disable, .after = disable_and_enable};
    assert_int_equal(set(true), 1);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    end();
}

/* A failing retry leaves the pin where the next change finds it. */
static void map_changes_in_vain_then_for_good(void **state)
{
    (void)state;

    begin(0);
    meanwhile = (struct meanwhile){.before = disable};
    assert_int_equal(set(true), VAPIC_GSI_BLOCKED);
    assert_false(rirr());
    enable();
    assert_true(rirr());
    assert_false(vapic_ioapic_entry(io, PIN) & IOAPIC_RTE_DS);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    end();
}

/* Another vCPU rewrites its LDR for ever; who holds the configuration lock makes it wait. */
static void rewrite_ldr_again(void)
{
    static uint32_t ldr;

    if (fx->locked)
        return;
    ldr = ldr == 1 ? 2 : 1;
    fx_set(fx, 1, APIC_LDR, ldr << 24);
    meanwhile.after = rewrite_ldr_again;
}

/* The last change, before the sender takes the lock, gives vCPU 0 the ID that is asked for. */
static void rewrite_ldr_until_the_last_round(void)
{
    rewrite_ldr_again();
    meanwhile.after = rewrite_ldr_until_the_last_round;
    if (deliveries == UNLOCKED_ROUNDS) {
        fx_set(fx, 0, APIC_ID, NOBODY << 24);
        meanwhile.after = NULL;
    }
}

static void a_map_that_never_rests_ends_under_the_lock(void **state)
{
    (void)state;

    begin(NOBODY);
    meanwhile.after = rewrite_ldr_again;
    assert_int_equal(set(true), VAPIC_GSI_BLOCKED);
    assert_int_equal(deliveries, UNLOCKED_ROUNDS + 1);
    assert_false(fx->locked);
    assert_false(rirr());
    fx_set(fx, 0, APIC_ID, NOBODY << 24); /* somebody after all: the pin was not forgotten */
    assert_true(rirr());
    assert_int_equal(fx_take(fx, 0), VECTOR);
    end();
}

/* Found under the lock after all: the target is told, with the lock held. */
static void found_under_the_lock(void **state)
{
    (void)state;

    begin(NOBODY);
    meanwhile.after = rewrite_ldr_until_the_last_round;
    assert_int_equal(set(true), 1);
    assert_int_equal(deliveries, UNLOCKED_ROUNDS + 1);
    assert_true(rirr());
    assert_int_equal(fx_take(fx, 0), VECTOR);
    end();
}

/* ---- Rises, EOIs and entry writes against each other: both orders end the same ---- */

static void raise_line_of_source_1(void)
{
    vapic_ioapic_set(io, PIN, 1, true);
}

static void raise_and_eoi_in_both_orders(void **state)
{
    (void)state;

    for (int order = 0; order < 2; order++) {
        begin(0);
        set(true);
        assert_int_equal(fx_take(fx, 0), VECTOR);
        set(false);
        if (order == 0)
            raise_line_of_source_1();
        fx_eoi(fx, 0);
        if (order == 1)
            raise_line_of_source_1();
        fx_equal(rirr(), true, "order %d", order);
        fx_equal((unsigned)fx_take(fx, 0), VECTOR, "order %d", order);
        fx_equal(deliveries, 2, "order %d", order);
        end();
    }
}

static void raise_and_unmask_in_both_orders(void **state)
{
    (void)state;

    for (int order = 0; order < 2; order++) {
        begin(0);
        mask();
        if (order == 0)
            set(true);
        fx_io_write(io, LOW, VECTOR | LEVEL);
        if (order == 1)
            set(true);
        fx_equal((unsigned)fx_take(fx, 0), VECTOR, "order %d", order);
        fx_equal(deliveries, 1, "order %d", order);
        end();
    }
}

/* A message to two vCPUs is ended twice; the second EOI may end the next round early, no more. */
static void two_eois_of_one_message(void **state)
{
    (void)state;

    begin_with(&(struct fx_options){.vcpus = 2, .x2apic = true}, 0);
    fx_rte_write(io, PIN, VECTOR | LEVEL | IOAPIC_RTE_LOGICAL | UINT64_C(3) << 56);
    assert_int_equal(set(true), 2);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    assert_int_equal(fx_take(fx, 1), VECTOR);
    set(false);
    fx_eoi(fx, 0);
    assert_false(rirr());
    set(true); /* the next round */
    assert_true(rirr());
    fx_eoi(fx, 1); /* ends it early: the line is high, so it is sent again */
    assert_true(rirr());
    assert_int_equal(fx_take(fx, 0), VECTOR);
    set(false);
    fx_eoi(fx, 0);
    assert_false(rirr());
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eoi_before_the_sender_returns),
        cmocka_unit_test(eoi_before_the_sender_returns_with_the_line_high),
        cmocka_unit_test(nobody_accepts_and_meanwhile),
        cmocka_unit_test(map_changes_after_nobody_was_found),
        cmocka_unit_test(map_changes_back_and_forth_while_nobody_is_found),
        cmocka_unit_test(map_changes_in_vain_then_for_good),
        cmocka_unit_test(a_map_that_never_rests_ends_under_the_lock),
        cmocka_unit_test(found_under_the_lock),
        cmocka_unit_test(raise_and_eoi_in_both_orders),
        cmocka_unit_test(raise_and_unmask_in_both_orders),
        cmocka_unit_test(two_eois_of_one_message),
    };

    return cmocka_run_group_tests_name("ioapic_races", tests, NULL, NULL);
}
