/* SPDX-License-Identifier: MIT */
/*
 * Saving and loading a vCPU: the 1 KiB image, the record of what it lacks, the order of loading,
 * and what must survive between two machines. [SDM3 12.4.1] [KVM lapic]
 */
#include <string.h>

#include "fixture.h"

#define VECTOR 0x51
#define COUNT  1000000u

struct saved {
    uint8_t image[VAPIC_IMAGE_SIZE];
    uint8_t record[VAPIC_RECORD_SIZE];
    uint64_t base;
};

static uint32_t word(const uint8_t *image, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, image + offset, 4);
    return value;
}

static void put(uint8_t *image, uint32_t offset, uint32_t value)
{
    memcpy(image + offset, &value, 4);
}

static int load_image(struct fx *fx, enum vapic_image kind, const uint8_t *image)
{
    return vapic_load_image(&fx->v[0], kind, image, VAPIC_IMAGE_SIZE, fx->now);
}

static void save_image(struct fx *fx, enum vapic_image kind, uint8_t *image)
{
    memset(image, 0xA5, VAPIC_IMAGE_SIZE);
    assert_int_equal(vapic_save_image(&fx->v[0], kind, image, VAPIC_IMAGE_SIZE, fx->now), VAPIC_OK);
}

static void save(struct fx *fx, struct saved *saved)
{
    memset(saved, 0xA5, sizeof(*saved));
    saved->base = vapic_base(&fx->v[0]);
    save_image(fx, VAPIC_IMAGE_ID32, saved->image);
    assert_int_equal(vapic_save_record(&fx->v[0], saved->record, sizeof(saved->record), fx->now),
                     VAPIC_OK);
}

/* In the documented order: base, image, record. */
static struct vapic_entry load(struct fx *fx, const struct saved *saved)
{
    struct vapic_entry entry;

    memset(&entry, 0xA5, sizeof(entry));
    assert_int_equal(vapic_load_base(&fx->v[0], saved->base), VAPIC_OK);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, saved->image), VAPIC_OK);
    assert_int_equal(
        vapic_load_record(&fx->v[0], saved->record, sizeof(saved->record), fx->now, &entry),
        VAPIC_OK);
    return entry;
}

/* Another machine, later, with other clocks; the first one is gone. */
static struct fx *move(struct fx *fx, const struct fx_options *options)
{
    struct saved saved;
    struct fx *other = fx_new(options);

    save(fx, &saved);
    other->now.ns = fx->now.ns + UINT64_C(77000000000);
    other->now.tsc = fx->now.tsc;
    fx_free(fx);
    load(other, &saved);
    return other;
}

/* ---- The image ---- */

static const struct {
    uint32_t offset, value;
} values[] = {
    {APIC_TPR, 0x35},       {APIC_LDR, 0x04000000},    {APIC_DFR, 0x0FFFFFFF},
    {APIC_SVR, 0x13EF},     {APIC_LVT_TIMER, 0x20031}, {APIC_LVT_THERMAL, 0x10032},
    {APIC_LVT_PMC, 0x400},  {APIC_LVT_LINT0, 0x10700}, {APIC_LVT_LINT1, 0x0A033},
    {APIC_LVT_ERROR, 0xFE}, {APIC_TDCR, 0xA},          {APIC_ICR2, 0x42000000},
    {APIC_ICR, 0x000C4633}, {APIC_ID, 0x09000000},
};

#define VALUES (sizeof(values) / sizeof(values[0]))

static struct fx *with_values(void)
{
    struct fx *fx = fx_new(NULL);

    for (uint32_t n = 0; n < VALUES; n++)
        fx_write(fx, 0, values[n].offset, values[n].value);
    return fx;
}

static void image_holds_each_register(void **state)
{
    struct fx *fx = with_values();
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    for (uint32_t n = 0; n < VALUES; n++)
        fx_equal(word(image, values[n].offset), values[n].value, "register %x", values[n].offset);
    assert_int_equal(word(image, APIC_LVR), fx_read(fx, 0, APIC_LVR));
    assert_int_equal(word(image, APIC_PPR), 0x35);
    fx_free(fx);
}

static void image_is_zero_elsewhere(void **state)
{
    struct fx *fx = with_values();
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    for (uint32_t offset = 0; offset < VAPIC_IMAGE_SIZE; offset++) {
        if (offset % 16 >= 4 || offset < APIC_ID || (offset >= 0x3A0 && offset < APIC_TDCR))
            fx_equal(image[offset], 0, "byte %x", offset);
    }
    fx_free(fx);
}

static void image_arguments(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE + 1] = {0};
    struct vapic *v = &fx->v[0];

    (void)state;
    for (size_t size = VAPIC_IMAGE_SIZE - 1; size <= VAPIC_IMAGE_SIZE + 1; size += 2) {
        assert_int_equal(vapic_save_image(v, VAPIC_IMAGE_ID32, image, size, fx->now), VAPIC_E_SIZE);
        assert_int_equal(vapic_load_image(v, VAPIC_IMAGE_ID32, image, size, fx->now), VAPIC_E_SIZE);
    }
    assert_int_equal(vapic_save_image(v, 2, image, VAPIC_IMAGE_SIZE, fx->now), VAPIC_E_ARG);
    assert_int_equal(vapic_load_image(v, 2, image, VAPIC_IMAGE_SIZE, fx->now), VAPIC_E_ARG);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0x1FF);
    fx_free(fx);
}

static void posted_interrupts_are_merged_first(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    vapic_post(&fx->v[0], 0x21, false, NULL);
    vapic_post(&fx->v[0], 0xC7, true, NULL);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    assert_int_equal(word(image, APIC_IRR + 0x10), 1u << 1);
    assert_int_equal(word(image, APIC_IRR + 0x60), 1u << 7);
    assert_int_equal(word(image, APIC_TMR + 0x60), 1u << 7);
    fx_free(fx);
}

/* ---- The ID, both formats ---- */

static void id_formats(void **state)
{
    static const uint32_t id = 0x123;

    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = fx_new(&(struct fx_options){.ids = &id, .x2apic = x2apic != 0});
        uint8_t image[VAPIC_IMAGE_SIZE];

        save_image(fx, VAPIC_IMAGE_ID8, image);
        assert_int_equal(word(image, APIC_ID), 0x23000000);
        save_image(fx, VAPIC_IMAGE_ID32, image);
        assert_int_equal(word(image, APIC_ID), x2apic ? 0x123 : 0x23000000);
        fx_free(fx);
    }
}

/* The VMM flips the mode; the image follows at once. */
static void id_follows_the_base(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){0x105}});
    uint64_t base = vapic_base(&fx->v[0]);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    for (int n = 0; n < 3; n++) {
        assert_int_equal(vapic_load_base(&fx->v[0], base | APIC_BASE_EXTD), VAPIC_OK);
        save_image(fx, VAPIC_IMAGE_ID32, image);
        assert_int_equal(word(image, APIC_ID), 0x105);
        assert_int_equal(vapic_load_base(&fx->v[0], base), VAPIC_OK);
        save_image(fx, VAPIC_IMAGE_ID32, image);
        assert_int_equal(word(image, APIC_ID), 0x05000000);
    }
    fx_free(fx);
}

/* [SDM3 12.12.9] */
static void trap_89_icr_is_split(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.x2apic = true});
    uint8_t image[VAPIC_IMAGE_SIZE];
    uint64_t icr = 0;

    (void)state;
    fx_icr(fx, 0, 0x4651, 0x12345678);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    assert_int_equal(word(image, APIC_ICR), 0x4651);
    assert_int_equal(word(image, APIC_ICR2), 0x12345678);
    fx_icr(fx, 0, 0x4652, 0);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_rdmsr(fx, 0, 0x830, &icr), VAPIC_OK);
    assert_int_equal(icr, UINT64_C(0x1234567800004651));
    fx_free(fx);
}

static void trap_90_wrong_id(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}, .x2apic = true});
    uint8_t image[VAPIC_IMAGE_SIZE], after[VAPIC_IMAGE_SIZE];
    struct vapic_msg msg = {.icr = VECTOR, .dest = 5, .source = VAPIC_FROM_DEVICE};

    (void)state;
    fx_set(fx, 0, APIC_TPR, 0x20);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_ID, 6);
    put(image, APIC_TPR, 0x70);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_E_ID);
    save_image(fx, VAPIC_IMAGE_ID32, after);
    assert_int_equal(word(after, APIC_ID), 5);
    assert_int_equal(word(after, APIC_TPR), 0x20);
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, 1);
    fx_free(fx);
}

/* Without 32-bit IDs the slot says nothing. */
static void narrow_id_is_ignored_in_x2apic_mode(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}, .x2apic = true});
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID8, image);
    put(image, APIC_ID, 0x77000000);
    put(image, APIC_TPR, 0x70);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID8, image), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 5);
    assert_int_equal(fx_get(fx, 0, APIC_LDR), 1u << 5);
    assert_int_equal(fx_get(fx, 0, APIC_TPR), 0x70);
    fx_free(fx);
}

/* A written xAPIC ID and the LDR come with the image, and the map follows. */
static void loaded_ids_are_in_the_map(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2, .ids = (uint32_t[]){5, 6}});
    struct vapic_msg physical = {.icr = VECTOR, .dest = 9, .source = VAPIC_FROM_DEVICE};
    struct vapic_msg logical = {
        .icr = VECTOR | APIC_ICR_LOGICAL, .dest = 0x40, .source = VAPIC_FROM_DEVICE};
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_ID, 0x09000000);
    put(image, APIC_LDR, 0x40000000);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(vapic_send(&fx->vm, physical).accepted, 1);
    assert_int_equal(vapic_send(&fx->vm, logical).accepted, 1);
    physical.dest = 5;
    assert_int_equal(vapic_send(&fx->vm, physical).accepted, 0);
    fx_free(fx);
}

static void soft_disabled_image_leaves_the_fabric(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_msg msg = {.icr = VECTOR, .source = VAPIC_FROM_DEVICE};
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_SVR, 0xFF);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, 0);
    put(image, APIC_SVR, 0x1FF);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, 1);
    fx_free(fx);
}

/* ---- IRR, ISR, TPR ---- */

static void trap_91_irr_as_a_mailbox(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_IRR, 0xDEAD5678);
    put(image, APIC_IRR + 0x10, 0xCAFEBABE);
    put(image, APIC_TPR, 0xFF);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    assert_int_equal(word(image, APIC_IRR), 0xDEAD5678);
    assert_int_equal(word(image, APIC_IRR + 0x10), 0xCAFEBABE);
    fx_free(fx);
}

static void illegal_vectors_in_irr_are_never_delivered(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_IRR, 0x0000FFFF);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(fx_read(fx, 0, APIC_IRR), 0x0000FFFF);
    fx_free(fx);
}

static void loaded_vectors_are_delivered(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_IRR + 0x70, 1u << 3);
    put(image, APIC_IRR + 0x20, 1u << 4);
    put(image, APIC_ISR + 0x30, 1u << 5); /* 65h */
    put(image, APIC_TMR + 0x30, 1u << 5);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_PPR), 0x60);
    assert_int_equal(fx_take_eoi(fx, 0), 0xE3);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_eoi(fx, 0);
    assert_int_equal(fx_nth(fx, FX_EOI, 0).a, 0x65);
    assert_int_equal(fx_take(fx, 0), 0x44);
    fx_free(fx);
}

static const struct {
    uint8_t tpr;
    bool through;
} tpr_rows[] = {{0x00, true}, {0x4F, true}, {0x50, false}, {0x5F, false}, {0xF0, false}};

static void trap_33_tpr_in_the_image(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < sizeof(tpr_rows) / sizeof(tpr_rows[0]); n++) {
        struct fx *fx = fx_new(NULL);
        uint8_t image[VAPIC_IMAGE_SIZE];

        vapic_post(&fx->v[0], VECTOR, false, NULL);
        save_image(fx, VAPIC_IMAGE_ID32, image);
        put(image, APIC_TPR, tpr_rows[n].tpr);
        assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
        fx_equal(vapic_read_cr8(&fx->v[0]), tpr_rows[n].tpr >> 4, "CR8, TPR %x", tpr_rows[n].tpr);
        fx_equal(fx_read(fx, 0, APIC_PPR), tpr_rows[n].tpr, "PPR, TPR %x", tpr_rows[n].tpr);
        fx_equal(fx_take(fx, 0), tpr_rows[n].through ? VECTOR : (uint64_t)-1, "TPR %x",
                 tpr_rows[n].tpr);
        fx_free(fx);
    }
}

static void cr8_shows_in_the_image(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    assert_int_equal(vapic_write_cr8(&fx->v[0], 0xB), VAPIC_OK);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    assert_int_equal(word(image, APIC_TPR), 0xB0);
    fx_free(fx);
}

/* [SDM3 12.5.3] the visible copy; what is latched and not yet sampled is the record's */
static void esr_in_the_image(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    fx_read(fx, 0, 0x3A0);
    fx_write(fx, 0, APIC_ESR, 0);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    assert_int_equal(word(image, APIC_ESR), APIC_ESR_ILLEGAL_REG);
    fx_write(fx, 0, APIC_ESR, 0);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_ESR), APIC_ESR_ILLEGAL_REG);
    fx_free(fx);
}

/* PPR is derived, whatever the image says. */
static void ppr_is_recomputed(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    vapic_post(&fx->v[0], VECTOR, false, NULL);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_PPR, 0xF0);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    fx_free(fx);
}

static void trap_92_all_zero(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE] = {0};
    struct vapic_msg msg = {
        .icr = VECTOR | APIC_ICR_LOGICAL, .dest = 1, .source = VAPIC_FROM_DEVICE};

    (void)state;
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_read(fx, 0, APIC_SVR), 0);
    assert_int_equal(fx_read(fx, 0, APIC_DFR), 0x0FFFFFFF);
    assert_int_equal(fx_read(fx, 0, APIC_LVT_LINT0), APIC_LVT_MASKED);
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, 0);
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static void loading_sends_nothing(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_ICR, APIC_ICR_SELF | APIC_ICR_BUSY | VECTOR);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(fx_read(fx, 0, APIC_ICR), APIC_ICR_SELF | VECTOR);
    fx_free(fx);
}

/* ---- The timer ---- */

static struct fx *with_timer(uint32_t lvt)
{
    struct fx *fx = fx_new(NULL);

    fx_set(fx, 0, APIC_TDCR, 0xB);
    fx_set(fx, 0, APIC_LVT_TIMER, lvt | VECTOR);
    fx_set(fx, 0, APIC_TMICT, COUNT);
    return fx;
}

static bool fires(struct fx *fx)
{
    return fx_take_eoi(fx, 0) == VECTOR;
}

static void trap_66_running_timer(void **state)
{
    static const uint32_t modes[] = {APIC_TIMER_ONESHOT, APIC_TIMER_PERIODIC};

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        struct fx *fx = with_timer(modes[n]);

        fx->now.ns += COUNT / 10 * 6;
        fx = move(fx, NULL);
        fx_equal(fx_get(fx, 0, APIC_TMCCT), COUNT / 10 * 4, "mode %x, count", modes[n]);
        fx_equal(fx_get(fx, 0, APIC_TMICT), COUNT, "mode %x, initial count", modes[n]);
        fx_equal(fires(fx), false, "mode %x, no burst", modes[n]);
        fx->now.ns += COUNT / 10 * 4 - 1;
        fx_equal(fires(fx), false, "mode %x, early", modes[n]);
        fx->now.ns += 1;
        fx_equal(fires(fx), true, "mode %x, due", modes[n]);
        fx->now.ns += COUNT;
        fx_equal(fires(fx), modes[n] == APIC_TIMER_PERIODIC, "mode %x, next", modes[n]);
        fx_free(fx);
    }
}

/* The image alone, as KVM would give it. */
static void timer_from_the_image_alone(void **state)
{
    struct fx *fx = with_timer(APIC_TIMER_PERIODIC);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    fx->now.ns += COUNT / 4;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    assert_int_equal(word(image, APIC_TMCCT), COUNT - COUNT / 4);
    fx->now.ns += 50 * (uint64_t)COUNT;
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_TMCCT), COUNT - COUNT / 4);
    assert_false(fires(fx));
    fx->now.ns += COUNT - COUNT / 4;
    assert_true(fires(fx));
    fx_free(fx);
}

/* A tick may have been under way: one too many is allowed, one too few is not. */
static void trap_67_expired_oneshot(void **state)
{
    struct fx *fx = with_timer(APIC_TIMER_ONESHOT);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    fx->now.ns += COUNT;
    save_image(fx, VAPIC_IMAGE_ID32, image); /* due, and the vCPU has not entered since */
    vapic_reset(&fx->v[0]);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_true(fires(fx));
    assert_false(fires(fx));
    fx_free(fx);
}

static void count_above_the_initial_count_is_clamped(void **state)
{
    struct fx *fx = with_timer(APIC_TIMER_ONESHOT);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_TMCCT, 0xFFFFFFFF);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_TMCCT), COUNT);
    fx->now.ns += COUNT;
    assert_true(fires(fx));
    fx_free(fx);
}

static void stopped_timer_stays_stopped(void **state)
{
    struct fx *fx = with_timer(APIC_TIMER_PERIODIC);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    fx_set(fx, 0, APIC_TMICT, 0);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_TMCCT, 500);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    fx->now.ns += 10 * COUNT;
    assert_false(fires(fx));
    fx_free(fx);
}

static void loading_stops_what_ran_before(void **state)
{
    struct fx *fx = with_timer(APIC_TIMER_PERIODIC);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    put(image, APIC_TMICT, 0);
    put(image, APIC_TMCCT, 0);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    fx->now.ns += 10 * COUNT;
    assert_false(fires(fx));
    fx_free(fx);
}

/* [SDM3 12.5.4.1] the deadline is the record's, or the MSR's that is loaded after the image */
static void deadline_in_the_record(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint64_t value = 0, when = fx->now.tsc + 5000;

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | VECTOR);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_TSC_DEADLINE, when), VAPIC_OK);
    fx = move(fx, NULL);
    assert_int_equal(fx_rdmsr(fx, 0, MSR_TSC_DEADLINE, &value), VAPIC_OK);
    assert_int_equal(value, when);
    assert_int_equal(fx_step(fx, 0, 0).deadline.clock, VAPIC_CLOCK_TSC);
    fx->now.tsc = when - 1;
    assert_false(fires(fx));
    fx->now.tsc = when;
    assert_true(fires(fx));
    fx_free(fx);
}

static void trap_68_deadline_msr_before_and_after_the_image(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];
    uint64_t value = 1, when = fx->now.tsc + 5000;

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | VECTOR);
    save_image(fx, VAPIC_IMAGE_ID32, image);
    vapic_reset(&fx->v[0]);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_TSC_DEADLINE, when), VAPIC_OK); /* not in the mode yet */
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_int_equal(fx_rdmsr(fx, 0, MSR_TSC_DEADLINE, &value), VAPIC_OK);
    assert_int_equal(value, 0);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_TSC_DEADLINE, when), VAPIC_OK);
    fx->now.tsc = when;
    assert_true(fires(fx));
    fx_free(fx);
}

/* ---- The record ---- */

static void trap_93_acknowledged_and_not_taken(void **state)
{
    struct fx *fx = fx_new(NULL), *other = fx_new(NULL);
    struct vapic_entry entry;
    struct saved saved;

    (void)state;
    vapic_post(&fx->v[0], VECTOR, false, NULL);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    save(fx, &saved);
    entry = load(other, &saved);
    assert_int_equal(entry.inject, VAPIC_INJECT_VECTOR);
    assert_int_equal(entry.vector, VECTOR);
    assert_true(fx_bit(other, 0, APIC_ISR, VECTOR));
    assert_int_equal(fx_take(other, 0), -1); /* the host injects it, once */
    fx_eoi(other, 0);
    assert_int_equal(fx_take(other, 0), -1);
    fx_free(fx);
    fx_free(other);
}

static void taken_vector_is_not_outstanding(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct saved saved;

    (void)state;
    vapic_post(&fx->v[0], VECTOR, false, NULL);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    save(fx, &saved);
    assert_int_equal(load(fx, &saved).inject, VAPIC_INJECT_NONE);
    assert_true(fx_bit(fx, 0, APIC_ISR, VECTOR));
    fx_free(fx);
}

static void outstanding_vector_can_be_taken_back(void **state)
{
    struct fx *fx = fx_new(NULL);
    struct vapic_entry entry;
    struct saved saved;

    (void)state;
    vapic_post(&fx->v[0], VECTOR, false, NULL);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    save(fx, &saved);
    load(fx, &saved);
    assert_true(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_take(fx, 0), VECTOR);
    fx_free(fx);
}

/* An image is another life: what was outstanding before it is forgotten. */
static void image_forgets_an_outstanding_vector(void **state)
{
    struct fx *fx = fx_new(NULL);
    uint8_t image[VAPIC_IMAGE_SIZE];
    struct vapic_entry entry;

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, image);
    vapic_post(&fx->v[0], VECTOR, false, NULL);
    entry = fx_peek(fx, 0, FX_CAN_ALL);
    vapic_commit(&fx->v[0], &entry);
    vapic_exit(&fx->v[0], 0, false);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, image), VAPIC_OK);
    assert_false(vapic_not_delivered(&fx->v[0]));
    assert_int_equal(fx_take(fx, 0), -1);
    fx_free(fx);
}

static const struct fx_options two_parked = {.vcpus = 2, .parked = true};

/* vCPU 1 of `fx` into vCPU 1 of another VM. */
static struct fx *move_second(struct fx *fx)
{
    struct fx *other = fx_new(&two_parked);
    struct saved saved;
    struct vapic *v = &fx->v[1], *to = &other->v[1];

    assert_int_equal(
        vapic_save_image(v, VAPIC_IMAGE_ID32, saved.image, sizeof(saved.image), fx->now), VAPIC_OK);
    assert_int_equal(vapic_save_record(v, saved.record, sizeof(saved.record), fx->now), VAPIC_OK);
    assert_int_equal(vapic_load_base(to, vapic_base(v)), VAPIC_OK);
    assert_int_equal(
        vapic_load_image(to, VAPIC_IMAGE_ID32, saved.image, sizeof(saved.image), other->now),
        VAPIC_OK);
    assert_int_equal(vapic_load_record(to, saved.record, sizeof(saved.record), other->now, NULL),
                     VAPIC_OK);
    fx_free(fx);
    return other;
}

static void trap_94_between_init_and_sipi(void **state)
{
    (void)state;
    for (int handled = 0; handled < 2; handled++) {
        struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2});
        struct vapic_entry entry;

        fx_icr(fx, 0, APIC_DM_INIT | APIC_ICR_ASSERT, 1);
        if (handled)
            assert_int_equal(fx_step(fx, 1, FX_CAN_ALL).event, VAPIC_CPU_INIT);
        fx = move_second(fx);
        if (!handled)
            assert_int_equal(fx_step(fx, 1, FX_CAN_ALL).event, VAPIC_CPU_INIT);
        assert_false(fx_step(fx, 1, FX_CAN_ALL).runnable);
        fx_icr(fx, 0, APIC_DM_SIPI | 0x9A, 1);
        entry = fx_step(fx, 1, FX_CAN_ALL);
        assert_int_equal(entry.event, VAPIC_CPU_SIPI);
        assert_int_equal(entry.vector, 0x9A);
        fx_free(fx);
    }
}

static void latched_sipi(void **state)
{
    struct fx *fx = fx_new(&two_parked);
    struct vapic_entry entry;

    (void)state;
    fx_icr(fx, 0, APIC_DM_SIPI | 0x42, 1);
    fx = move_second(fx);
    entry = fx_step(fx, 1, FX_CAN_ALL);
    assert_int_equal(entry.event, VAPIC_CPU_SIPI);
    assert_int_equal(entry.vector, 0x42);
    fx_free(fx);
}

static void activity(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_halt(&fx->v[0]);
    fx = move(fx, NULL);
    assert_int_equal(vapic_activity(&fx->v[0]), VAPIC_HALTED);
    assert_false(fx_step(fx, 0, FX_CAN_ALL).runnable);
    fx_free(fx);
}

static void pending_nmis_and_smi(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    vapic_nmi(&fx->v[0]);
    vapic_nmi(&fx->v[0]);
    fx_icr(fx, 0, APIC_DM_SMI, 0);
    fx = move(fx, NULL);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_SMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

static void lines(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_DM_EXTINT);
    vapic_set_lint(&fx->v[0], 0, true);
    fx = move(fx, NULL);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_EXTINT);
    vapic_set_lint(&fx->v[0], 0, false);
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
}

/* An edge that nobody has looked at yet is part of the state, its line is not an edge. */
static void edges(void **state)
{
    (void)state;
    for (unsigned pin = 0; pin < 2; pin++) {
        for (int high = 0; high < 2; high++) {
            struct fx *fx = fx_new(NULL);

            fx_set(fx, 0, APIC_LVT_LINT0 + 16 * pin, VECTOR);
            vapic_set_lint(&fx->v[0], pin, true);
            vapic_set_lint(&fx->v[0], pin, high != 0);
            fx = move(fx, NULL);
            assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
            vapic_set_lint(&fx->v[0], pin, true);
            assert_int_equal(fx_take_eoi(fx, 0), high ? -1 : VECTOR);
            fx_free(fx);
        }
    }
}

static void local_events(void **state)
{
    static const uint32_t sources[] = {APIC_LVT_THERMAL, APIC_LVT_PMC};

    (void)state;
    for (uint32_t n = 0; n < 2; n++) {
        struct fx *fx = fx_new(NULL);

        fx_set(fx, 0, sources[n], VECTOR);
        vapic_local_event(&fx->v[0], sources[n]);
        fx = move(fx, NULL);
        fx_equal(fx_take_eoi(fx, 0), VECTOR, "source %x", sources[n]);
        fx_equal(fx_take_eoi(fx, 0), (uint64_t)-1, "source %x, once", sources[n]);
        fx_free(fx);
    }
}

static void level_lint_in_service(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_set(fx, 0, APIC_LVT_LINT0, APIC_LVT_LEVEL | VECTOR);
    vapic_set_lint(&fx->v[0], 0, true);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    fx = move(fx, NULL);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(fx_get(fx, 0, APIC_LVT_LINT0) & APIC_LVT_RIRR, APIC_LVT_RIRR);
    fx_eoi(fx, 0);
    assert_int_equal(fx_take(fx, 0), VECTOR);
    fx_free(fx);
}

static void error_latch(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx_read(fx, 0, 0x3A0);
    fx = move(fx, NULL);
    fx_write(fx, 0, APIC_ESR, 0);
    assert_int_equal(fx_read(fx, 0, APIC_ESR), APIC_ESR_ILLEGAL_REG);
    fx_free(fx);
}

static void extended_registers(void **state)
{
    static const struct fx_options amd = {.features = VAPIC_FEATURE_AMD | VAPIC_FEATURE_AMD_EXT};
    struct fx *fx = fx_new(&amd);

    (void)state;
    fx_set(fx, 0, APIC_EACR, 3);
    fx_set(fx, 0, APIC_IER + 0x70, 0x12345678);
    fx_set(fx, 0, APIC_EILVT + 0x20, 0x10431);
    fx = move(fx, &amd);
    assert_int_equal(fx_get(fx, 0, APIC_EACR), 3);
    assert_int_equal(fx_get(fx, 0, APIC_IER + 0x70), 0x12345678);
    assert_int_equal(fx_get(fx, 0, APIC_EILVT + 0x20), 0x10431);
    fx_free(fx);
}

static void remembered_tick(void **state)
{
    static const struct fx_options kvm = {
        .config = {.knobs = VAPIC_PROFILE_KVM, .knobs_set = true}};
    struct fx *fx = fx_new(&kvm);

    (void)state;
    fx_set(fx, 0, APIC_LVT_TIMER, APIC_LVT_MASKED | VECTOR);
    fx_set(fx, 0, APIC_TMICT, 100);
    fx->now.ns += 1000;
    assert_false(fires(fx));
    fx = move(fx, &kvm);
    assert_false(fires(fx));
    fx_set(fx, 0, APIC_LVT_TIMER, VECTOR);
    assert_true(fires(fx));
    fx_free(fx);
}

/* What was pending at the target before belongs to its old state. */
static void loading_replaces_events(void **state)
{
    struct fx *fx = fx_new(NULL), *other = fx_new(NULL);
    struct saved saved;

    (void)state;
    save(fx, &saved);
    vapic_nmi(&other->v[0]);
    vapic_post(&other->v[0], VECTOR, false, NULL);
    load(other, &saved);
    assert_int_equal(fx_step(other, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NONE);
    fx_free(fx);
    fx_free(other);
}

static void saving_changes_nothing(void **state)
{
    struct fx *fx = with_values();
    struct saved first, second;

    (void)state;
    vapic_nmi(&fx->v[0]);
    vapic_post(&fx->v[0], 0x91, true, NULL);
    save(fx, &first);
    save(fx, &second);
    assert_memory_equal(first.image, second.image, sizeof(first.image));
    assert_memory_equal(first.record, second.record, sizeof(first.record));
    assert_int_equal(fx_step(fx, 0, FX_CAN_ALL).inject, VAPIC_INJECT_NMI);
    assert_int_equal(fx_take(fx, 0), 0x91);
    fx_free(fx);
}

/* Out, in, out again: the same. */
static void round_trip(void **state)
{
    (void)state;
    for (int x2apic = 0; x2apic < 2; x2apic++) {
        struct fx *fx = with_values(), *other = fx_new(NULL);
        struct saved first, second;

        if (x2apic)
            assert_int_equal(vapic_load_base(&fx->v[0], vapic_base(&fx->v[0]) | APIC_BASE_EXTD),
                             VAPIC_OK);
        vapic_post(&fx->v[0], 0x91, true, NULL);
        assert_int_equal(fx_take(fx, 0), 0x91);
        vapic_post(&fx->v[0], 0x71, false, NULL);
        vapic_nmi(&fx->v[0]);
        save(fx, &first);
        load(other, &first);
        save(other, &second);
        assert_memory_equal(first.image, second.image, sizeof(first.image));
        assert_memory_equal(first.record, second.record, sizeof(first.record));
        fx_free(fx);
        fx_free(other);
    }
}

/* The knob that keeps a written ID on the way to x2APIC mode keeps it on the way to another VM. */
static void kept_id(void **state)
{
    static const struct fx_options keeps = {
        .config = {.knobs = VAPIC_PROFILE_MANUAL | VAPIC_KNOB_X2APIC_KEEPS_WRITTEN_ID,
                   .knobs_set = true}};
    struct vapic_msg msg = {.icr = VECTOR, .dest = 9, .source = VAPIC_FROM_DEVICE};
    struct fx *fx = fx_new(&keeps);

    (void)state;
    fx_write(fx, 0, APIC_ID, 0x09000000);
    assert_int_equal(fx_wrmsr(fx, 0, MSR_APIC_BASE, vapic_base(&fx->v[0]) | APIC_BASE_EXTD), 0);
    fx = move(fx, &keeps);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 9);
    assert_int_equal(fx_get(fx, 0, APIC_LDR), 1u << 9);
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, 1);
    fx_free(fx);
}

static const struct fx_options wide_keeper = {
    .ids = (uint32_t[]){0x1FF},
    .x2apic = true,
    .config = {.knobs = VAPIC_PROFILE_MANUAL | VAPIC_KNOB_X2APIC_KEEPS_WRITTEN_ID,
               .knobs_set = true}};

/* The low byte of a wide ID says nothing: the vCPU keeps its own. */
static void kept_id_is_not_the_low_byte_of_a_wide_one(void **state)
{
    struct fx *fx = fx_new(&wide_keeper);
    uint8_t image[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID8, image);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID8, image), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 0x1FF);
    fx_free(fx);
}

static void own_id_ends_a_kept_one(void **state)
{
    struct fx *fx = fx_new(&wide_keeper);
    uint8_t own[VAPIC_IMAGE_SIZE], kept[VAPIC_IMAGE_SIZE];

    (void)state;
    save_image(fx, VAPIC_IMAGE_ID32, own);
    memcpy(kept, own, sizeof(kept));
    put(kept, APIC_ID, 7);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, kept), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 7);
    assert_int_equal(load_image(fx, VAPIC_IMAGE_ID32, own), VAPIC_OK);
    assert_int_equal(fx_get(fx, 0, APIC_ID), 0x1FF);
    fx_free(fx);
}

/* The image alone would fire an expired one-shot again; the record knows better, and the host too.
 */
static void record_of_an_expired_timer_cancels(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){0});
    struct fx_event event;
    struct saved saved;

    (void)state;
    fx_write(fx, 0, APIC_LVT_TIMER, VECTOR);
    fx_write(fx, 0, APIC_TMICT, COUNT);
    fx->now.ns += UINT64_C(10) * COUNT;
    assert_int_equal(fx_take_eoi(fx, 0), VECTOR);
    save(fx, &saved);
    load(fx, &saved);
    event = fx_nth(fx, FX_ARM, fx_count(fx, FX_ARM) - 1);
    assert_int_equal(event.a, VAPIC_CLOCK_NONE);
    fx_free(fx);
}

/* ---- Reboot: firmware's view after the VMM has loaded a fresh base and image ---- */

static void reboot_by_loading_reset_state(void **state)
{
    struct fx *fresh = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}, .soft_disabled = true});
    struct fx *fx = fx_new(&(struct fx_options){.ids = (uint32_t[]){5}});
    struct saved saved;
    struct vapic_msg msg = {.icr = APIC_DM_NMI, .dest = 5, .source = VAPIC_FROM_DEVICE};

    (void)state;
    save(fresh, &saved);
    fx_write(fx, 0, APIC_ID, 0x09000000);
    assert_int_equal(vapic_load_base(&fx->v[0], saved.base | APIC_BASE_EXTD), VAPIC_OK);
    load(fx, &saved);
    assert_int_equal(fx_read(fx, 0, APIC_ID), 0x05000000);
    assert_int_equal(vapic_send(&fx->vm, msg).accepted, 1);
    fx_free(fresh);
    fx_free(fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_holds_each_register),
        cmocka_unit_test(kept_id_is_not_the_low_byte_of_a_wide_one),
        cmocka_unit_test(own_id_ends_a_kept_one),
        cmocka_unit_test(record_of_an_expired_timer_cancels),
        cmocka_unit_test(image_is_zero_elsewhere),
        cmocka_unit_test(image_arguments),
        cmocka_unit_test(posted_interrupts_are_merged_first),
        cmocka_unit_test(id_formats),
        cmocka_unit_test(id_follows_the_base),
        cmocka_unit_test(trap_89_icr_is_split),
        cmocka_unit_test(trap_90_wrong_id),
        cmocka_unit_test(narrow_id_is_ignored_in_x2apic_mode),
        cmocka_unit_test(loaded_ids_are_in_the_map),
        cmocka_unit_test(soft_disabled_image_leaves_the_fabric),
        cmocka_unit_test(trap_91_irr_as_a_mailbox),
        cmocka_unit_test(illegal_vectors_in_irr_are_never_delivered),
        cmocka_unit_test(loaded_vectors_are_delivered),
        cmocka_unit_test(trap_33_tpr_in_the_image),
        cmocka_unit_test(cr8_shows_in_the_image),
        cmocka_unit_test(esr_in_the_image),
        cmocka_unit_test(ppr_is_recomputed),
        cmocka_unit_test(trap_92_all_zero),
        cmocka_unit_test(loading_sends_nothing),
        cmocka_unit_test(trap_66_running_timer),
        cmocka_unit_test(timer_from_the_image_alone),
        cmocka_unit_test(trap_67_expired_oneshot),
        cmocka_unit_test(count_above_the_initial_count_is_clamped),
        cmocka_unit_test(stopped_timer_stays_stopped),
        cmocka_unit_test(loading_stops_what_ran_before),
        cmocka_unit_test(deadline_in_the_record),
        cmocka_unit_test(trap_68_deadline_msr_before_and_after_the_image),
        cmocka_unit_test(trap_93_acknowledged_and_not_taken),
        cmocka_unit_test(taken_vector_is_not_outstanding),
        cmocka_unit_test(outstanding_vector_can_be_taken_back),
        cmocka_unit_test(image_forgets_an_outstanding_vector),
        cmocka_unit_test(trap_94_between_init_and_sipi),
        cmocka_unit_test(latched_sipi),
        cmocka_unit_test(activity),
        cmocka_unit_test(pending_nmis_and_smi),
        cmocka_unit_test(lines),
        cmocka_unit_test(edges),
        cmocka_unit_test(local_events),
        cmocka_unit_test(level_lint_in_service),
        cmocka_unit_test(error_latch),
        cmocka_unit_test(extended_registers),
        cmocka_unit_test(remembered_tick),
        cmocka_unit_test(loading_replaces_events),
        cmocka_unit_test(saving_changes_nothing),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(kept_id),
        cmocka_unit_test(reboot_by_loading_reset_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
