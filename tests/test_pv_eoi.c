/* SPDX-License-Identifier: MIT */
/*
 * Lazy EOI by a shared word: when the word is set, how the guest's clearing of it is noticed, when
 * it is taken back; the MSRs that place it; life cycle. One vCPU, no threads: the guest is this
 * test, between vapic_enter() and vapic_exit().
 */
#include "pv.h"
#include "pv_guest.h"

static struct pv_guest guest;

/* A VM with one vCPU whose word is enabled. */
static struct fx *enabled(bool x2apic)
{
    struct fx *fx = fx_new(&(struct fx_options){.x2apic = x2apic});

    pv_attach(fx, &guest, VAPIC_PV_EOI);
    assert_int_equal(vapic_pv_msr_write(&fx->v[0], VAPIC_MSR_KVM_EOI, PV_WORD | VAPIC_PV_ENABLE),
                     VAPIC_OK);
    return fx;
}

static uint32_t *word(void)
{
    return pv_word(&guest, PV_WORD);
}

static void post(struct fx *fx, uint8_t vector, bool level)
{
    vapic_post(&fx->v[0], vector, level, NULL);
}

/* Enters and commits as a host's loop does; the guest runs from then on. */
static struct vapic_entry run_guest(struct fx *fx)
{
    struct vapic_entry entry = fx_peek(fx, 0, VAPIC_CAN_IRQ | VAPIC_IF);

    if (entry.inject != VAPIC_INJECT_NONE)
        vapic_commit(&fx->v[0], &entry);
    return entry;
}

static void leave_guest(struct fx *fx)
{
    vapic_exit(&fx->v[0], (uint8_t)vapic_read_cr8(&fx->v[0]), true);
}

/* ---- When the word is set ---- */

static void nothing(struct fx *fx)
{
    (void)fx;
}

static void edge(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
}

static void level(struct fx *fx)
{
    pv_start(fx, 0, 0x51, true);
}

static void nested(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    pv_start(fx, 0, 0x61, false);
}

static void edge_above_level(struct fx *fx)
{
    pv_start(fx, 0, 0x51, true);
    pv_start(fx, 0, 0x61, false);
}

static void level_above_edge(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    pv_start(fx, 0, 0x61, true);
}

/* Its turn comes with the EOI: that must exit. */
static void lower_class_pending(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    post(fx, 0x41, false);
}

static void same_class_pending(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    post(fx, 0x5f, false);
}

/* Held back by TPR and by the vector in service: lowering TPR after a silent EOI would not exit. */
static void pending_behind_tpr(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    vapic_write_cr8(&fx->v[0], 7);
    post(fx, 0x61, false);
}

static void ended_by_register(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    fx_eoi(fx, 0);
}

static void watched(struct fx *fx)
{
    struct vapic_route route = {.kind = VAPIC_ROUTE_MSI, .address = 0xFEE00000, .data = 0x71};

    pv_start(fx, 0, 0x51, false);
    assert_int_equal(vapic_gsi_route(&fx->vm, 5, &route), VAPIC_OK);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 5, VAPIC_GSI_ACK, 0), VAPIC_OK);
}

static void no_longer_watched(struct fx *fx)
{
    watched(fx);
    assert_int_equal(vapic_gsi_watch(&fx->vm, 5, 0, 0), VAPIC_OK);
}

static void disabled(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    assert_int_equal(vapic_pv_msr_write(&fx->v[0], VAPIC_MSR_KVM_EOI, PV_WORD), VAPIC_OK);
}

static void halted(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    vapic_halt(&fx->v[0]);
}

static void memory_gone(struct fx *fx)
{
    pv_start(fx, 0, 0x51, false);
    guest.gone = true;
    vapic_pv_remap(&fx->v[0]);
}

static void memory_back(struct fx *fx)
{
    memory_gone(fx);
    guest.gone = false;
    vapic_pv_remap(&fx->v[0]);
}

static const struct {
    const char *name;
    void (*prepare)(struct fx *fx);
    bool set;
} set_table[] = {
    {"nothing in service", nothing, false},
    {"an edge-triggered vector in service", edge, true},
    {"a level-triggered vector in service", level, false},
    {"two in service", nested, true},
    {"edge above level", edge_above_level, true},
    {"level above edge", level_above_edge, false},
    {"a vector of a lower class pending", lower_class_pending, false},
    {"a vector of the same class pending", same_class_pending, false},
    {"a vector pending behind TPR", pending_behind_tpr, false},
    {"ended by the register", ended_by_register, false},
    {"an acknowledge notifier", watched, false},
    {"no acknowledge notifier any more", no_longer_watched, true},
    {"the MSR disabled", disabled, false},
    {"the vCPU halted", halted, false},
    {"no memory behind it", memory_gone, false},
    {"memory behind it again", memory_back, true},
};

static void when_the_word_is_set(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(set_table) / sizeof(set_table[0]); i++) {
        struct fx *fx = enabled(i % 2);

        set_table[i / 2].prepare(fx);
        fx_equal(*word(), 0, "outside the guest, %s", set_table[i / 2].name);
        fx_peek(fx, 0, 0);
        fx_equal(*word(), set_table[i / 2].set, "in the guest, %s", set_table[i / 2].name);
        leave_guest(fx);
        fx_equal(*word(), 0, "outside again, %s", set_table[i / 2].name);
        fx_free(fx);
    }
}

/* Hardware that handles EOIs would not look at the word: ISR would be ended twice, or never. */
static void not_while_accelerated(void **state)
{
    struct fx *fx = enabled(true);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    fx->v[0].active = 1; /* as the service of inhibition sets it */
    vapic_pv_enter(&fx->v[0]);
    fx->v[0].active = 0;
    assert_int_equal(*word(), 0);
    vapic_pv_enter(&fx->v[0]);
    assert_int_equal(*word(), 1);
    vapic_pv_sync(&fx->v[0]); /* what comes before it is set */
    assert_int_equal(*word(), 0);
    fx_free(fx);
}

/* The vector is still in IRR when vapic_enter() looks: the word is set with the commit. */
static void a_commit_sets_it(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    post(fx, 0x51, false);
    assert_int_equal(run_guest(fx).vector, 0x51);
    assert_int_equal(*word(), 1);
    leave_guest(fx);
    post(fx, 0x81, false);
    post(fx, 0x71, false);
    assert_int_equal(run_guest(fx).vector, 0x81);
    assert_int_equal(*word(), 0); /* 71h comes after it */
    leave_guest(fx);
    fx_free(fx);
}

/* Only bit 0 is the library's. */
static void the_other_bits_stay(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    *word() = 0xDEADBEEE;
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(*word(), 0xDEADBEEF);
    leave_guest(fx);
    assert_int_equal(*word(), 0xDEADBEEE);
    fx_free(fx);
}

/* ---- What the guest does with it ---- */

static void the_guest_ends_by_the_word(void **state)
{
    struct vapic_stats stats;

    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = enabled(x2apic);

        fx_trace(fx);
        pv_start(fx, 0, 0x51, false);
        fx_forget(fx);
        fx_peek(fx, 0, 0);
        assert_true(pv_guest_eoi(word()));
        leave_guest(fx);
        assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
        assert_int_equal(fx_get(fx, 0, APIC_PPR), 0);
        vapic_get_stats(&fx->v[0], &stats);
        assert_int_equal(stats.eois, 1);
        assert_int_equal(pv_stats(fx, 0).eois, 1);
        assert_int_equal(fx_nth(fx, FX_TRACE, 0).event.kind, VAPIC_EVENT_EOI);
        assert_int_equal(fx_nth(fx, FX_TRACE, 1).event.kind, VAPIC_EVENT_PV_EOI);
        assert_int_equal(fx_nth(fx, FX_TRACE, 1).event.arg[1], 0x51);
        fx_peek(fx, 0, 0); /* nothing more in service */
        assert_int_equal(*word(), 0);
        leave_guest(fx);
        vapic_get_stats(&fx->v[0], &stats);
        assert_int_equal(stats.eois, 1);
        fx_free(fx);
    }
}

static void the_guest_does_not_end(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    for (int n = 0; n < 3; n++) {
        fx_peek(fx, 0, 0);
        assert_int_equal(*word(), 1);
        leave_guest(fx);
        assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    }
    assert_int_equal(pv_stats(fx, 0).eois, 0);
    assert_true(pv_stats(fx, 0).withdrawn >= 3);
    fx_free(fx);
}

/* It found the bit clear (an exit came in between), and the register write exits with the bit set
 * again: one EOI. */
static void the_register_while_it_is_set(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    nested(fx);
    assert_false(pv_guest_eoi(word()));
    fx_peek(fx, 0, 0);
    assert_int_equal(*word(), 1);
    leave_guest(fx);
    fx_eoi(fx, 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x61));
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* A guest that does both ends two. */
static void both_end_two(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    nested(fx);
    fx_peek(fx, 0, 0);
    assert_true(pv_guest_eoi(word()));
    leave_guest(fx);
    fx_eoi(fx, 0);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x61));
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* Two handlers end without an exit in between: the second needs the register. */
static void one_end_per_entry(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    nested(fx);
    fx_peek(fx, 0, 0);
    assert_true(pv_guest_eoi(word()));
    assert_false(pv_guest_eoi(word()));
    leave_guest(fx);
    fx_eoi(fx, 0);
    assert_int_equal(fx_get(fx, 0, APIC_PPR), 0);
    fx_free(fx);
}

/* The bit is never there for a handler other than that of the vector for which it was set. */
static void trap_95_armed_and_a_new_vector(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(*word(), 1);
    assert_int_equal(vapic_post(&fx->v[0], 0x61, false, NULL), VAPIC_ACTION_KICK);
    leave_guest(fx);
    assert_int_equal(*word(), 0);
    assert_int_equal(run_guest(fx).vector, 0x61);
    assert_int_equal(*word(), 1); /* set anew, for 61h */
    assert_true(pv_guest_eoi(word()));
    leave_guest(fx);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x61));
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    fx_free(fx);
}

/* A vector of a lower class arrives: the guest ends 51h by the register, and 41h is not late. */
static void trap_95_armed_and_a_lower_vector(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(vapic_post(&fx->v[0], 0x41, false, NULL), VAPIC_ACTION_KICK);
    leave_guest(fx);
    assert_int_equal(run_guest(fx).inject, VAPIC_INJECT_NONE);
    assert_int_equal(*word(), 0);
    assert_false(pv_guest_eoi(word()));
    leave_guest(fx);
    fx_eoi(fx, 0);
    assert_int_equal(fx_take(fx, 0), 0x41);
    fx_free(fx);
}

/* The guest was quicker than the kick: its EOI counts, and the new vector comes at once. */
static void trap_95_ended_before_the_kick(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_true(pv_guest_eoi(word()));
    assert_int_equal(vapic_post(&fx->v[0], 0x41, false, NULL), VAPIC_ACTION_KICK);
    leave_guest(fx);
    assert_int_equal(fx_take(fx, 0), 0x41);
    fx_free(fx);
}

static void entered_and_not_run(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    post(fx, 0x51, false);
    run_guest(fx);
    assert_int_equal(*word(), 1);
    post(fx, 0x41, false);
    fx_peek(fx, 0, 0); /* without having been in the guest */
    assert_int_equal(*word(), 0);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x51));
    leave_guest(fx);
    fx_free(fx);
}

static void not_delivered(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    post(fx, 0x51, false);
    run_guest(fx);
    vapic_exit(&fx->v[0], 0, false);
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(*word(), 0);
    assert_int_equal(fx_take(fx, 0), 0x51);
    fx_free(fx);
}

/* Somebody else wrote the word, and the vector is not in service any more: nothing is ended. */
static void a_stranger_writes_the_word(void **state)
{
    struct vapic_stats stats;
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x31, false);
    post(fx, 0x51, false);
    run_guest(fx);
    assert_true(vapic_not_delivered(&fx->v[0]));
    *word() = 0;
    leave_guest(fx);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x31));
    vapic_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.eois, 0);
    *word() = 0xFFFFFFFF; /* a bit that nobody set is not the library's to notice */
    leave_guest(fx);
    assert_true(fx_bit(fx, 0, APIC_ISR, 0x31));
    fx_free(fx);
}

/* ---- MSRs ---- */

static void the_msr(void **state)
{
    static const struct pv_write table[] = {
        {"disabled", 0, VAPIC_OK},
        {"disabled, with an address", PV_WORD, VAPIC_OK},
        {"enabled", PV_WORD | 1, VAPIC_OK},
        {"the last word of RAM", (PV_RAM - 4) | 1, VAPIC_OK},
        {"bit 1", PV_WORD | 3, VAPIC_GP},
        {"bit 1, disabled", PV_WORD | 2, VAPIC_GP},
        {"behind RAM", PV_RAM | 1, VAPIC_GP},
        {"behind RAM, disabled", PV_RAM, VAPIC_OK},
        {"beyond MAXPHYADDR", UINT64_C(1) << 52 | PV_WORD | 1, VAPIC_GP},
        {"all ones", ~UINT64_C(2), VAPIC_GP},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct fx *fx = enabled(false);

        pv_write_and_read(fx, VAPIC_MSR_KVM_EOI, &table[i], PV_WORD | 1);
        fx_free(fx);
    }
}

static void *odd_map(void *ctx, struct vapic *v, uint64_t gpa, size_t size)
{
    (void)ctx;
    (void)v;
    (void)gpa;
    (void)size;
    return guest.ram + 1;
}

/* A host that maps to an odd address gets no locked operations there. */
static void a_misaligned_mapping(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_pv_config config = {VAPIC_PV_EOI, odd_map, NULL};

    (void)state;
    assert_int_equal(vapic_pv_attach(&fx->v[0], &guest.pv[0], sizeof(guest.pv[0]), &config),
                     VAPIC_OK);
    assert_int_equal(vapic_pv_msr_write(&fx->v[0], VAPIC_MSR_KVM_EOI, PV_WORD | 1), VAPIC_GP);
    fx_free(fx);
}

static void moving_the_word(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_true(pv_guest_eoi(word()));
    /* Before the exit is known of, as a state load would: the old word's EOI is not forgotten. */
    assert_int_equal(vapic_pv_msr_write(&fx->v[0], VAPIC_MSR_KVM_EOI, (PV_WORD + 4) | 1), VAPIC_OK);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    pv_start(fx, 0, 0x52, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(*word(), 0);
    assert_int_equal(*pv_word(&guest, PV_WORD + 4), 1);
    leave_guest(fx);
    fx_free(fx);
}

/* Features that are not offered are not there. */
static void trap_96_absent_features(void **state)
{
    static const uint32_t msrs[] = {VAPIC_MSR_KVM_EOI, VAPIC_MSR_HV_EOI, VAPIC_MSR_HV_ICR,
                                    VAPIC_MSR_HV_TPR, VAPIC_MSR_HV_VP_ASSIST};
    struct fx *fx = fx_new(NULL);
    struct vapic_pv_call call = {.number = VAPIC_PV_CALL_SEND_IPI, .long_mode = true};
    uint64_t value = 0;
    int64_t result = 0;

    (void)state;
    assert_int_equal(vapic_pv_msr_read(&fx->v[0], VAPIC_MSR_KVM_EOI, &value), VAPIC_UNCLAIMED);
    assert_int_equal(vapic_pv_hypercall(&fx->v[0], &call, &result), VAPIC_UNCLAIMED);
    pv_attach(fx, &guest, 0);
    for (size_t i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
        fx_equal(vapic_pv_msr_read(&fx->v[0], msrs[i], &value), VAPIC_GP, "read %x", msrs[i]);
        fx_equal(vapic_pv_msr_write(&fx->v[0], msrs[i], 0), VAPIC_GP, "write %x", msrs[i]);
    }
    assert_int_equal(vapic_pv_msr_read(&fx->v[0], 0x4B564D05, &value), VAPIC_UNCLAIMED);
    assert_int_equal(vapic_pv_msr_write(&fx->v[0], 0x4000006F, 0), VAPIC_UNCLAIMED);
    assert_int_equal(vapic_pv_msr_write(&fx->v[0], 0x40000074, 0), VAPIC_UNCLAIMED);
    assert_int_equal(vapic_pv_hypercall(&fx->v[0], &call, &result), VAPIC_OK);
    assert_int_equal(result, -1000);
    fx_free(fx);
}

/* ---- Life cycle, state ---- */

static uint64_t msr_of(struct fx *fx)
{
    uint64_t value = ~0ull;

    assert_int_equal(vapic_pv_msr_read(&fx->v[0], VAPIC_MSR_KVM_EOI, &value), VAPIC_OK);
    return value;
}

static void trap_99_init_disables(void **state)
{
    (void)state;
    for (int reset = 0; reset < 2; reset++) {
        struct fx *fx = enabled(false);

        pv_start(fx, 0, 0x51, false);
        fx_peek(fx, 0, 0);
        assert_int_equal(*word(), 1);
        if (reset) {
            vapic_reset(&fx->v[0]);
        } else {
            fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT | APIC_ICR_ALL_INCL, 0);
            assert_int_equal(fx_peek(fx, 0, FX_CAN_ALL).event, VAPIC_CPU_INIT);
        }
        assert_int_equal(*word(), 0);
        assert_int_equal(msr_of(fx), 0);
        fx_set(fx, 0, APIC_SVR, 0x1FF);
        pv_start(fx, 0, 0x51, false);
        fx_peek(fx, 0, 0);
        assert_int_equal(*word(), 0);
        leave_guest(fx);
        fx_free(fx);
    }
}

/* What the guest ended is not in the image as in service, and the memory that goes with it has the
 * bit clear. */
static void saved_while_set(void **state)
{
    (void)state;
    for (int ended = 0; ended < 2; ended++) {
        struct fx *fx = enabled(false);
        uint8_t image[VAPIC_IMAGE_SIZE];
        uint32_t isr;

        pv_start(fx, 0, 0x51, false);
        fx_peek(fx, 0, 0);
        if (ended)
            pv_guest_eoi(word());
        guest.dirtied = 0;
        assert_int_equal(
            vapic_save_image(&fx->v[0], VAPIC_IMAGE_ID8, image, sizeof(image), fx->now), VAPIC_OK);
        memcpy(&isr, image + APIC_ISR + 16 * (0x51 / 32), sizeof(isr));
        fx_equal(isr >> (0x51 % 32) & 1, !ended, "ISR in the image, ended %d", ended);
        fx_equal(*word(), 0, "the word");
        fx_equal(guest.dirtied, 1, "the page is dirty");
        fx_equal(guest.dirty_at, PV_WORD, "the page that is dirty");
        fx_free(fx);
    }
}

static void loaded_while_set(void **state)
{
    struct fx *fx = enabled(false);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    assert_int_equal(vapic_save_image(&fx->v[0], VAPIC_IMAGE_ID8, image, sizeof(image), fx->now),
                     VAPIC_OK);
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(vapic_load_image(&fx->v[0], VAPIC_IMAGE_ID8, image, sizeof(image), fx->now),
                     VAPIC_OK);
    assert_int_equal(*word(), 0);
    leave_guest(fx);
    fx_free(fx);
}

/* Memory was copied while the bit was set: the MSR, loaded after it, clears the bit. */
static void a_stale_bit_is_cleared(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    pv_attach(fx, &guest, VAPIC_PV_EOI);
    *word() = 0x80000001;
    assert_int_equal(vapic_pv_msr_write(&fx->v[0], VAPIC_MSR_KVM_EOI, PV_WORD | 1), VAPIC_OK);
    assert_int_equal(*word(), 0x80000000);
    assert_int_equal(guest.dirtied, 1);
    assert_int_equal(guest.dirty_at, PV_WORD);
    fx_free(fx);
}

/* What the guest did before its memory went is not forgotten. */
static void memory_goes_while_set(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    pv_guest_eoi(word());
    guest.gone = true;
    vapic_pv_remap(&fx->v[0]);
    memset(guest.ram, 0xFF, sizeof(guest.ram));
    leave_guest(fx);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    assert_int_equal(msr_of(fx), PV_WORD | 1);
    pv_start(fx, 0, 0x52, false);
    fx_peek(fx, 0, 0);
    leave_guest(fx);
    assert_int_equal(*word(), 0xFFFFFFFF);
    fx_free(fx);
}

static void attaching(void **state)
{
    static const struct {
        const char *name;
        struct vapic_pv_config config;
        int result;
    } table[] = {
        {"nothing", {0, NULL, NULL}, VAPIC_OK},
        {"IPIs need no memory", {VAPIC_PV_SEND_IPI, NULL, NULL}, VAPIC_OK},
        {"EOI does", {VAPIC_PV_EOI, NULL, NULL}, VAPIC_E_ARG},
        {"Hyper-V does", {VAPIC_PV_HYPERV, NULL, NULL}, VAPIC_E_ARG},
        {"all", {VAPIC_PV_EOI | VAPIC_PV_SEND_IPI | VAPIC_PV_HYPERV, pv_map, NULL}, VAPIC_OK},
        {"an unknown feature", {1u << 3, pv_map, NULL}, VAPIC_E_ARG},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct fx *fx = fx_new(NULL);

        fx_equal(
            vapic_pv_attach(&fx->v[0], &guest.pv[0], sizeof(struct vapic_pv), &table[i].config),
            table[i].result, "%s", table[i].name);
        fx_free(fx);
    }
}

static void attaching_wrongly(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_pv_config config = {VAPIC_PV_EOI, pv_map, NULL};
    const size_t size = sizeof(struct vapic_pv);
    struct vapic_pv_stats stats;

    (void)state;
    assert_int_equal(vapic_pv_attach(&fx->v[0], &guest.pv[0], size - 1, &config), VAPIC_E_SIZE);
    assert_int_equal(vapic_pv_attach(NULL, &guest.pv[0], size, &config), VAPIC_E_ARG);
    assert_int_equal(vapic_pv_attach(&fx->v[0], NULL, size, &config), VAPIC_E_ARG);
    assert_int_equal(vapic_pv_attach(&fx->v[0], &guest.pv[0], size, NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_pv_detach(&fx->v[0]), VAPIC_E_ARG);
    assert_int_equal(vapic_pv_detach(NULL), VAPIC_E_ARG);
    vapic_pv_remap(&fx->v[0]);
    memset(&stats, 0xFF, sizeof(stats));
    vapic_pv_get_stats(&fx->v[0], &stats);
    assert_int_equal(stats.armed, 0);
    assert_int_equal(vapic_pv_attach(&fx->v[0], &guest.pv[0], size, &config), VAPIC_OK);
    assert_int_equal(vapic_pv_attach(&fx->v[0], &guest.pv[1], size, &config), VAPIC_E_BUSY);
    fx_free(fx);
}

static void detaching(void **state)
{
    struct fx *fx = enabled(false);

    (void)state;
    pv_start(fx, 0, 0x51, false);
    fx_peek(fx, 0, 0);
    pv_guest_eoi(word());
    assert_int_equal(vapic_pv_detach(&fx->v[0]), VAPIC_OK);
    assert_false(fx_bit(fx, 0, APIC_ISR, 0x51));
    pv_start(fx, 0, 0x52, false);
    fx_peek(fx, 0, 0);
    assert_int_equal(*word(), 0);
    leave_guest(fx);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(when_the_word_is_set),
        cmocka_unit_test(not_while_accelerated),
        cmocka_unit_test(a_commit_sets_it),
        cmocka_unit_test(the_other_bits_stay),
        cmocka_unit_test(the_guest_ends_by_the_word),
        cmocka_unit_test(the_guest_does_not_end),
        cmocka_unit_test(the_register_while_it_is_set),
        cmocka_unit_test(both_end_two),
        cmocka_unit_test(one_end_per_entry),
        cmocka_unit_test(trap_95_armed_and_a_new_vector),
        cmocka_unit_test(trap_95_armed_and_a_lower_vector),
        cmocka_unit_test(trap_95_ended_before_the_kick),
        cmocka_unit_test(entered_and_not_run),
        cmocka_unit_test(not_delivered),
        cmocka_unit_test(a_stranger_writes_the_word),
        cmocka_unit_test(the_msr),
        cmocka_unit_test(a_misaligned_mapping),
        cmocka_unit_test(moving_the_word),
        cmocka_unit_test(trap_96_absent_features),
        cmocka_unit_test(trap_99_init_disables),
        cmocka_unit_test(saved_while_set),
        cmocka_unit_test(loaded_while_set),
        cmocka_unit_test(a_stale_bit_is_cleared),
        cmocka_unit_test(memory_goes_while_set),
        cmocka_unit_test(attaching),
        cmocka_unit_test(attaching_wrongly),
        cmocka_unit_test(detaching),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
