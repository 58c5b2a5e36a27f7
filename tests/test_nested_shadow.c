/* SPDX-License-Identifier: MIT */
/*
 * The engine for shadowed tables by itself (src/nested/shadow.c), on an AVIC physical ID table:
 * what each write of L1's does to the entry that the hardware reads, pins and watches that are
 * given back, room for more tables than there are shadows, floods of writes, memory that goes away.
 */
#include "../src/nested/shadow.h"
#include "accel_modes.h"

#include <stdlib.h>
#include <string.h>

#define VCPUS     3u
#define TABLES    2u
#define ENTRIES   1024u /* two frames */
#define RAM       40u   /* pages of L1's memory, from RAM_BASE on */
#define RAM_BASE  UINT64_C(0x100000)
#define GPA(page) (RAM_BASE + (uint64_t)(page)*4096u)
#define HPA(page) (UINT64_C(0x7000000) + (uint64_t)(page)*4096u)
#define SCRATCH   UINT64_C(0x5000000)

#define V         AVIC_PHYSICAL_VALID
#define RUN       AVIC_PHYSICAL_RUNNING

static struct world {
    struct ax *ax;
    struct vapic_nested n;
    struct vapic_nested_vcpu nv[VCPUS];
    struct vapic_nested_host host;
    uint64_t ram[RAM][512];
    int pins[RAM];
    bool tracked[RAM];
    bool hole[RAM]; /* cannot be pinned */
    bool untracked; /* track() refuses */
    void *memory;
} * w;

static bool index_of(uint64_t gpa, uint32_t *page)
{
    assert_int_equal(gpa & 4095, 0);
    if (gpa < RAM_BASE || gpa >= GPA(RAM))
        return false;
    *page = (uint32_t)((gpa - RAM_BASE) / 4096);
    return true;
}

static bool pin(void *ctx, uint64_t gpa, struct vapic_l1_page *page)
{
    uint32_t i = 0;

    (void)ctx;
    if (!index_of(gpa, &i) || w->hole[i])
        return false;
    w->pins[i]++;
    *page = (struct vapic_l1_page){w->ram[i], HPA(i)};
    return true;
}

static void unpin(void *ctx, uint64_t gpa, const struct vapic_l1_page *page)
{
    uint32_t i = 0;

    (void)ctx;
    assert_true(index_of(gpa, &i));
    assert_ptr_equal(page->memory, w->ram[i]);
    assert_true(w->pins[i] > 0);
    w->pins[i]--;
}

static bool track(void *ctx, uint64_t gpa, bool on)
{
    uint32_t i = 0;

    (void)ctx;
    assert_true(index_of(gpa, &i));
    if (on && w->untracked)
        return false;
    assert_int_equal(w->tracked[i], !on);
    w->tracked[i] = on;
    return true;
}

static int setup(void **state)
{
    struct ax_options options = ax_options_for(AX_MODE_X2AVIC, VCPUS);

    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->ax = ax_new(&options);
    w->n.vm = &w->ax->vm;
    w->n.host = (struct vapic_nested_host){
        .size = sizeof(w->n.host), .pin = pin, .unpin = unpin, .track = track};
    w->n.config = (struct vapic_nested_config){
        .strategy = VAPIC_NESTED_SHADOW, .tables = TABLES, .entries = ENTRIES};
    w->n.scratch_hpa = SCRATCH;
    w->memory = ax_memory(w->ax, vapic_shadow_memory(&w->n.config), 4096);
    vapic_shadow_place(&w->n, w->memory);
    w->ax->accel.nested = &w->n;
    for (uint32_t i = 0; i < VCPUS; i++) {
        w->nv[i].v = &w->ax->v[i]->apic;
        w->nv[i].key = SHADOW_NOBODY;
        w->ax->v[i]->accel.nested = &w->nv[i];
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    w->ax->vm.host.lock(w->ax->vm.ctx);
    vapic_shadow_fini(&w->n);
    w->ax->vm.host.unlock(w->ax->vm.ctx);
    for (uint32_t i = 0; i < RAM; i++) {
        assert_int_equal(w->pins[i], 0);
        assert_false(w->tracked[i]);
    }
    for (uint32_t i = 0; i < VCPUS; i++)
        w->ax->v[i]->accel.nested = NULL;
    ax_free(w->ax);
    free(w);
    return 0;
}

/* ---- What the tests say ---- */

static int use(uint32_t vcpu, uint32_t page, uint32_t entries)
{
    int result;

    w->ax->vm.host.lock(w->ax->vm.ctx);
    w->nv[vcpu].again = 0;
    result = vapic_shadow_use(w->nv[vcpu].v, GPA(page), entries);
    w->ax->vm.host.unlock(w->ax->vm.ctx);
    return result;
}

static void unuse(uint32_t vcpu)
{
    vapic_shadow_unuse(w->nv[vcpu].v);
}

static void tell(uint64_t gpa, uint64_t size)
{
    w->ax->vm.host.lock(w->ax->vm.ctx);
    vapic_shadow_written(&w->n, gpa, size);
    w->ax->vm.host.unlock(w->ax->vm.ctx);
}

/* L1 writes entry `i` of the table on `page`. */
static void l1_writes(uint32_t page, uint32_t i, uint64_t value)
{
    w->ram[page + i / 512][i % 512] = value;
    tell(GPA(page) + i * 8u, 8);
}

static uint64_t hardware(uint32_t vcpu, uint32_t i)
{
    return w->nv[vcpu].shadow->hardware[i];
}

static void place(uint32_t vcpu, uint64_t key, uint32_t where)
{
    vapic_shadow_name(&w->n, &w->nv[vcpu], key, where);
}

/* ---- Tests ---- */

static void test_entries_are_translated(void **state)
{
    (void)state;
    w->ram[0][0] = V | GPA(10);
    w->ram[0][1] = V | RUN | GPA(11) | 1;
    w->ram[0][2] = V | RUN | GPA(12) | 2;
    w->ram[0][3] = GPA(13) | 1;                /* not valid */
    w->ram[0][4] = V | RUN | GPA(RAM + 5) | 1; /* no such page */
    place(1, 1, 40 + 1);
    assert_int_equal(use(0, 0, 5), VAPIC_OK);
    assert_int_equal(hardware(0, 0), V | HPA(10));
    assert_int_equal(hardware(0, 1), V | RUN | HPA(11) | 40);
    assert_int_equal(hardware(0, 2), V | HPA(12)); /* nobody has ID 2 */
    assert_int_equal(hardware(0, 3), 0);
    assert_int_equal(hardware(0, 4), V | SCRATCH);
    assert_int_equal(w->pins[13], 0);
    assert_int_equal(w->pins[0], 1);
    assert_true(w->tracked[0]);
}

static void test_running_follows_scheduling(void **state)
{
    (void)state;
    w->ram[0][0] = V | RUN | GPA(10) | 7;
    w->ram[0][1] = V | RUN | GPA(11) | 7;
    assert_int_equal(use(0, 0, 2), VAPIC_OK);
    place(1, 7, 5);
    assert_int_equal(hardware(0, 0), V | RUN | HPA(10) | 4);
    assert_int_equal(hardware(0, 1), V | RUN | HPA(11) | 4);
    place(1, 7, 0);
    assert_int_equal(hardware(0, 0), V | HPA(10));
    place(1, 7, 9);
    assert_int_equal(hardware(0, 1), V | RUN | HPA(11) | 8);
    /* The name goes, to another vCPU. */
    place(1, SHADOW_NOBODY, 0);
    assert_int_equal(hardware(0, 1), V | HPA(11));
    place(2, 7, 3);
    assert_int_equal(hardware(0, 1), V | RUN | HPA(11) | 2);
}

static void test_two_of_one_name(void **state)
{
    (void)state;
    w->ram[0][0] = V | RUN | GPA(10) | 7;
    assert_int_equal(use(0, 0, 1), VAPIC_OK);
    place(1, 7, 5);
    place(2, 7, 6);
    place(2, SHADOW_NOBODY, 0);
    assert_int_equal(hardware(0, 0), V | RUN | HPA(10) | 4);
    place(1, SHADOW_NOBODY, 0);
    assert_int_equal(hardware(0, 0), V | HPA(10));
}

static void test_erratum_publishes_nobody(void **state)
{
    (void)state;
    w->ax->accel.features &= ~(uint32_t)VAPIC_ACCEL_IPIV;
    w->ram[0][0] = V | RUN | GPA(10) | 7;
    place(1, 7, 5);
    assert_int_equal(use(0, 0, 1), VAPIC_OK);
    assert_int_equal(hardware(0, 0), V | HPA(10));
}

static void test_single_writes_are_followed(void **state)
{
    (void)state;
    place(1, 1, 41);
    assert_int_equal(use(0, 0, 4), VAPIC_OK);
    l1_writes(0, 2, V | GPA(10));
    assert_int_equal(hardware(0, 2), V | HPA(10));
    l1_writes(0, 2, V | RUN | GPA(10) | 1);
    assert_int_equal(hardware(0, 2), V | RUN | HPA(10) | 40);
    assert_int_equal(w->pins[10], 1);
    ax_forget(w->ax);
    l1_writes(0, 2, V | RUN | GPA(11) | 1); /* another page: the old one is given back */
    assert_int_equal(hardware(0, 2), V | RUN | HPA(11) | 40);
    assert_int_equal(w->pins[10], 0);
    assert_int_equal(ax_count(w->ax, AX_KICK_ALL), 1);
    l1_writes(0, 2, 0);
    assert_int_equal(hardware(0, 2), 0);
    assert_int_equal(w->pins[11], 0);
    /* Beyond what L1 said is its table: nothing. */
    l1_writes(0, 4, V | GPA(12));
    assert_int_equal(w->pins[12], 0);
}

/* L1 stores the upper half alone: the entry is what stands in memory after it. */
static void test_half_an_entry(void **state)
{
    (void)state;
    place(1, 1, 41);
    w->ram[0][0] = V | GPA(10) | 1;
    assert_int_equal(use(0, 0, 1), VAPIC_OK);
    w->ram[0][0] |= RUN;
    tell(GPA(0) + 4, 4);
    assert_int_equal(hardware(0, 0), V | RUN | HPA(10) | 40);
    w->ram[0][0] &= ~RUN;
    tell(GPA(0) + 7, 1);
    assert_int_equal(hardware(0, 0), V | HPA(10));
}

static void test_one_write_over_two_entries(void **state)
{
    (void)state;
    assert_int_equal(use(0, 0, 4), VAPIC_OK);
    w->ram[0][1] = V | GPA(10);
    w->ram[0][2] = V | GPA(11);
    tell(GPA(0) + 12, 8);
    assert_int_equal(hardware(0, 1), V | HPA(10));
    assert_int_equal(hardware(0, 2), V | HPA(11));
}

/* A write from before the table into it, and one that passes its end. */
static void test_writes_over_the_ends(void **state)
{
    (void)state;
    assert_int_equal(use(0, 1, 4), VAPIC_OK);
    w->ram[1][0] = V | GPA(10);
    tell(GPA(1) - 8, 16);
    assert_int_equal(hardware(0, 0), V | HPA(10));
    w->ram[1][3] = V | GPA(11);
    tell(GPA(1) + 24, 64);
    assert_int_equal(hardware(0, 3), V | HPA(11));
    tell(GPA(1) + 32, 8);
    tell(0, 8);
    tell(UINT64_MAX - 7, 8);
    tell(GPA(1), 0);
    assert_true(w->nv[0].shadow->synced);
}

static void test_a_big_write_makes_it_idle(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 64; i++)
        w->ram[0][i] = V | GPA(10 + i % 8);
    assert_int_equal(use(0, 0, 64), VAPIC_OK);
    assert_int_equal(w->pins[10], 8);
    for (uint32_t i = 0; i < 64; i++)
        w->ram[0][i] = 0;
    ax_forget(w->ax);
    tell(GPA(0), 512);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(hardware(0, i), V | SCRATCH);
    assert_int_equal(w->pins[10], 0);
    assert_int_equal(ax_count(w->ax, AX_KICK_ALL), 1);
    assert_int_equal(w->nv[0].again, 1);
    assert_int_equal(use(0, 0, 64), VAPIC_OK);
    assert_int_equal(hardware(0, 5), 0);
}

static void test_table_grows(void **state)
{
    (void)state;
    w->ram[0][1] = V | GPA(10);
    w->ram[0][5] = V | GPA(11);
    assert_int_equal(use(0, 0, 2), VAPIC_OK);
    assert_int_equal(use(1, 0, 6), VAPIC_OK);
    assert_ptr_equal(w->nv[0].shadow, w->nv[1].shadow);
    assert_int_equal(hardware(0, 5), V | HPA(11));
    assert_int_equal(use(0, 0, 2), VAPIC_OK);
    assert_int_equal(hardware(1, 5), V | HPA(11));
    assert_int_equal(w->nv[0].shadow->users, 2);
    unuse(0);
    unuse(1);
}

static void test_more_tables_than_shadows(void **state)
{
    (void)state;
    assert_int_equal(use(0, 0, 1), VAPIC_OK);
    assert_int_equal(use(1, 1, 1), VAPIC_OK);
    assert_int_equal(use(2, 2, 1), VAPIC_OK);
    assert_null(w->nv[2].shadow); /* both are in use */
    unuse(0);
    assert_int_equal(use(2, 2, 1), VAPIC_OK);
    assert_non_null(w->nv[2].shadow);
    assert_false(w->tracked[0]);
    /* Of two that are free the older one goes. */
    unuse(1);
    unuse(2);
    assert_int_equal(use(0, 3, 1), VAPIC_OK);
    assert_false(w->tracked[1]);
    assert_true(w->tracked[2]);
}

static void test_what_cannot_be_had(void **state)
{
    (void)state;
    assert_int_equal(use(0, 0, ENTRIES + 1), VAPIC_OK); /* longer than there is room for */
    assert_null(w->nv[0].shadow);
    w->untracked = true;
    assert_int_equal(use(0, 0, 4), VAPIC_OK);
    assert_null(w->nv[0].shadow);
    assert_int_equal(w->pins[0], 0);
    w->untracked = false;
    w->hole[0] = true;
    assert_int_equal(use(0, 0, 4), VAPIC_E_MEMORY);
    assert_null(w->nv[0].shadow);
}

/* A frame that L1 uses for something else after its table. */
static void test_flood(void **state)
{
    (void)state;
    assert_int_equal(use(0, 0, 4), VAPIC_OK);
    for (uint32_t i = 0; i < 6000; i++)
        l1_writes(0, i % 4, i * UINT64_C(0x123456789));
    assert_false(w->tracked[0]);
    assert_int_equal(w->nv[0].again, 1);
    assert_int_equal(use(0, 0, 4), VAPIC_OK);
    assert_true(w->tracked[0]);
}

static void test_no_flood_while_it_is_used(void **state)
{
    (void)state;
    assert_int_equal(use(0, 0, 4), VAPIC_OK);
    w->nv[0].state = VAPIC_NESTED_L2;
    for (uint32_t i = 0; i < 6000; i++)
        l1_writes(0, i % 4, V | GPA(10));
    assert_true(w->tracked[0]);
    w->nv[0].state = VAPIC_NESTED_L1;
}

static void unmap(uint64_t gpa, uint64_t size)
{
    w->ax->vm.host.lock(w->ax->vm.ctx);
    vapic_shadow_unmap(&w->n, gpa, size);
    w->ax->vm.host.unlock(w->ax->vm.ctx);
}

static void test_a_page_goes_away(void **state)
{
    (void)state;
    w->ram[0][0] = V | GPA(10);
    w->ram[0][1] = V | GPA(11);
    assert_int_equal(use(0, 0, 2), VAPIC_OK);
    unmap(GPA(12), 8192);
    assert_int_equal(w->pins[10], 1);
    w->hole[10] = true;
    unmap(GPA(10), 4096);
    assert_int_equal(w->pins[10], 0);
    assert_int_equal(w->nv[0].again, 1);
    assert_int_equal(use(0, 0, 2), VAPIC_OK);
    assert_int_equal(hardware(0, 0), V | SCRATCH);
    assert_int_equal(hardware(0, 1), V | HPA(11));
}

static void test_the_table_goes_away(void **state)
{
    (void)state;
    w->ram[0][0] = V | GPA(10);
    assert_int_equal(use(0, 0, 1), VAPIC_OK);
    ax_forget(w->ax);
    w->hole[0] = true;
    unmap(GPA(0) + 4095, 1);
    assert_int_equal(w->pins[0], 0);
    assert_int_equal(w->pins[10], 0);
    assert_true(ax_count(w->ax, AX_KICK_ALL) >= 1);
    assert_int_equal(w->nv[0].again, 1);
    assert_int_equal(use(0, 0, 1), VAPIC_E_MEMORY);
}

/* Backing pages that are the table itself, or one another: L1 spoils its own memory only. */
static void test_overlapping_pages(void **state)
{
    (void)state;
    w->ram[0][0] = V | GPA(0);
    w->ram[0][1] = V | GPA(10);
    w->ram[0][2] = V | GPA(10);
    assert_int_equal(use(0, 0, 3), VAPIC_OK);
    assert_int_equal(hardware(0, 0), V | HPA(0));
    assert_int_equal(w->pins[0], 2);
    assert_int_equal(w->pins[10], 2);
    l1_writes(0, 1, 0);
    assert_int_equal(w->pins[10], 1);
    l1_writes(0, 0, 0);
    assert_int_equal(w->pins[0], 1);
}

/* Two tables on one frame, at different lengths, are two keys only by their address. */
static void test_tables_that_share_frames(void **state)
{
    (void)state;
    w->n.config.entries = ENTRIES;
    w->ram[0][0] = V | GPA(10);
    assert_int_equal(use(0, 0, 1), VAPIC_OK);
    assert_int_equal(use(1, 1, 1), VAPIC_OK);
    l1_writes(1, 0, V | GPA(11));
    assert_int_equal(hardware(0, 0), V | HPA(10));
    assert_int_equal(hardware(1, 0), V | HPA(11));
}

/* The second frame of one is the first of the other: watched until neither has it. */
static void test_a_frame_of_two_tables(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < 2; first++) {
        assert_int_equal(use(0, 0, ENTRIES), VAPIC_OK);
        assert_int_equal(use(1, 1, 1), VAPIC_OK);
        assert_int_equal(w->pins[1], 2);
        unuse(first);
        assert_int_equal(use(2, 20, 1), VAPIC_OK); /* needs its room */
        assert_true(w->tracked[1]);
        assert_int_equal(w->tracked[0], first == 1);
        assert_int_equal(w->pins[1], 1);
        unuse(1 - first);
        assert_int_equal(use(first, 30, 1), VAPIC_OK);
        assert_false(w->tracked[0] || w->tracked[1]);
        unuse(first);
        unuse(2);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        TEST(test_entries_are_translated),
        TEST(test_running_follows_scheduling),
        TEST(test_two_of_one_name),
        TEST(test_erratum_publishes_nobody),
        TEST(test_single_writes_are_followed),
        TEST(test_half_an_entry),
        TEST(test_one_write_over_two_entries),
        TEST(test_writes_over_the_ends),
        TEST(test_a_big_write_makes_it_idle),
        TEST(test_table_grows),
        TEST(test_more_tables_than_shadows),
        TEST(test_what_cannot_be_had),
        TEST(test_flood),
        TEST(test_no_flood_while_it_is_used),
        TEST(test_a_page_goes_away),
        TEST(test_the_table_goes_away),
        TEST(test_overlapping_pages),
        TEST(test_tables_that_share_frames),
        TEST(test_a_frame_of_two_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
