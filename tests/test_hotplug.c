/* SPDX-License-Identifier: MIT */
/*
 * The life of a VM and its vCPUs: sizes and arguments that are refused, adding and removing while
 * others run, indices, and the small calls that describe the library.
 */
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

static const struct vapic_config plain = {.id = 0};

/* ---- The VM ---- */

static const struct {
    const char *name;
    struct vapic_vm_config config;
    bool good;
} configs[] = {
    {"one vCPU", {.max_vcpus = 1}, true},
    {"no vCPU", {.max_vcpus = 0}, false},
    {"most vCPUs", {.max_vcpus = VAPIC_MAX_VCPUS}, true},
    {"too many vCPUs", {.max_vcpus = VAPIC_MAX_VCPUS + 1}, false},
    {"slowest bus", {.max_vcpus = 1, .bus_ns = 33554432}, true},
    {"slower bus", {.max_vcpus = 1, .bus_ns = 33554433}, false},
    {"most GSIs", {.max_vcpus = 1, .max_gsis = 4096}, true},
    {"too many GSIs", {.max_vcpus = 1, .max_gsis = 4097}, false},
    {"15-bit destinations", {.max_vcpus = 1, .msi_dest = VAPIC_MSI_DEST_15}, true},
    {"32-bit destinations", {.max_vcpus = 1, .msi_dest = VAPIC_MSI_DEST_32}, true},
    {"no such destinations", {.max_vcpus = 1, .msi_dest = 3}, false},
    {"unknown knob", {.max_vcpus = 1, .knobs_set = true, .knobs = 1u << VAPIC_KNOB_COUNT}, false},
};

static int vm_init(struct fx *fx, const struct vapic_vm_config *config, size_t vm_size,
                   size_t spare, size_t skew)
{
    static struct vapic_vm vm;
    size_t size = vapic_vm_memory(config);
    char *memory = NULL;
    int result;

    assert_int_equal(posix_memalign((void **)&memory, 64, size + 256), 0);
    result = vapic_vm_init(&vm, vm_size, config, &fx->host, fx, memory + skew, size + spare);
    free(memory);
    return result;
}

static void vm_configurations(void **state)
{
    struct fx *fx = fx_new(NULL);

    (void)state;
    for (uint32_t n = 0; n < sizeof(configs) / sizeof(configs[0]); n++) {
        fx_equal(vapic_vm_memory(&configs[n].config) > 0, configs[n].good, "%s", configs[n].name);
        fx_equal(vm_init(fx, &configs[n].config, sizeof(struct vapic_vm), 0, 0),
                 (uint64_t)(int64_t)(configs[n].good ? VAPIC_OK : VAPIC_E_ARG), "%s",
                 configs[n].name);
    }
    fx_free(fx);
}

static void vm_sizes_and_alignment(void **state)
{
    const struct vapic_vm_config config = {.max_vcpus = 2};
    struct fx *fx = fx_new(NULL);

    (void)state;
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm) - 1, 0, 0), VAPIC_E_SIZE);
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), (size_t)-1, 0), VAPIC_E_SIZE);
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 64, 0), VAPIC_OK);
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 0, 8), VAPIC_E_ARG);
    fx_free(fx);
}

static void vm_arguments_that_are_missing(void **state)
{
    const struct vapic_vm_config config = {.max_vcpus = 2};
    struct fx *fx = fx_new(NULL);
    static struct vapic_vm vm;
    static _Alignas(64) char memory[64];
    size_t size = sizeof(struct vapic_vm);

    (void)state;
    assert_int_equal(vapic_vm_memory(NULL), 0);
    assert_int_equal(vapic_vm_init(NULL, size, &config, &fx->host, fx, memory, 64), VAPIC_E_ARG);
    assert_int_equal(vapic_vm_init(&vm, size, NULL, &fx->host, fx, memory, 64), VAPIC_E_ARG);
    assert_int_equal(vapic_vm_init(&vm, size, &config, NULL, fx, memory, 64), VAPIC_E_ARG);
    assert_int_equal(vapic_vm_init(&vm, size, &config, &fx->host, fx, NULL, 64), VAPIC_E_ARG);
    fx_free(fx);
}

/* A host that was compiled with another table of callbacks. */
static void vm_host_of_another_size(void **state)
{
    const struct vapic_vm_config config = {.max_vcpus = 2};
    struct fx *fx = fx_new(NULL);

    (void)state;
    fx->host.size -= sizeof(void *);
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 0, 0), VAPIC_E_SIZE);
    fx->host.size = 0;
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 0, 0), VAPIC_E_SIZE);
    fx_free(fx);
}

static void vm_needs_its_callbacks(void **state)
{
    const struct vapic_vm_config config = {.max_vcpus = 2};
    struct fx *fx = fx_new(NULL);
    struct vapic_host whole = fx->host;

    (void)state;
    fx->host.lock = NULL;
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 0, 0), VAPIC_E_ARG);
    fx->host = whole;
    fx->host.unlock = NULL;
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 0, 0), VAPIC_E_ARG);
    fx->host = whole;
    fx->host.quiesce = NULL;
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 0, 0), VAPIC_E_ARG);
    fx->host = whole;
    fx->host.notify = NULL;
    assert_int_equal(vm_init(fx, &config, sizeof(struct vapic_vm), 0, 0), VAPIC_E_ARG);
    fx_free(fx);
}

/* ---- A vCPU ---- */

static const struct {
    const char *name;
    struct vapic_config config;
    int result;
} vcpu_configs[] = {
    {"zero", {.id = 0}, VAPIC_OK},
    {"largest ID", {.id = 0xFFFFFFFE}, VAPIC_OK},
    {"the broadcast ID", {.id = 0xFFFFFFFF}, VAPIC_E_ARG},
    {"version 10h", {.version = 0x10}, VAPIC_OK},
    {"version 15h", {.version = 0x15}, VAPIC_OK},
    {"version 0Fh", {.version = 0x0F}, VAPIC_E_ARG},
    {"version 16h", {.version = 0x16}, VAPIC_E_ARG},
    {"32 address bits", {.phys_bits = 32}, VAPIC_OK},
    {"31 address bits", {.phys_bits = 31}, VAPIC_E_ARG},
    {"53 address bits", {.phys_bits = 53}, VAPIC_E_ARG},
    {"unknown feature", {.features = 1u << 31}, VAPIC_E_ARG},
};

static void vcpu_configurations(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.not_added = true, .soft_disabled = true});

    (void)state;
    for (uint32_t n = 0; n < sizeof(vcpu_configs) / sizeof(vcpu_configs[0]); n++)
        fx_equal(vapic_init(&fx->v[0], sizeof(struct vapic), &fx->vm, &vcpu_configs[n].config,
                            fx->pages),
                 (uint64_t)(int64_t)vcpu_configs[n].result, "%s", vcpu_configs[n].name);
    fx_free(fx);
}

static void vcpu_sizes_and_alignment(void **state)
{
    struct fx *fx =
        fx_new(&(struct fx_options){.vcpus = 2, .not_added = true, .soft_disabled = true});

    (void)state;
    assert_int_equal(vapic_init(&fx->v[0], sizeof(struct vapic) + 64, &fx->vm, &plain, fx->pages),
                     VAPIC_E_SIZE);
    assert_int_equal(vapic_init(&fx->v[0], sizeof(struct vapic), &fx->vm, &plain, fx->pages + 64),
                     VAPIC_E_ARG);
    assert_int_equal(vapic_init(&fx->v[0], sizeof(struct vapic), &fx->vm, &plain, NULL),
                     VAPIC_E_ARG);
    fx_free(fx);
}

/* ---- Adding and removing ---- */

static void added_vcpus_are_found(void **state)
{
    static const uint32_t ids[] = {4, 0x300, 9};
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3, .ids = ids});

    (void)state;
    for (uint32_t n = 0; n < 3; n++) {
        assert_int_equal(vapic_id(&fx->v[n]), ids[n]);
        assert_ptr_equal(vapic_by_id(&fx->vm, ids[n]), &fx->v[n]);
        assert_ptr_equal(vapic_at(&fx->vm, vapic_index(&fx->v[n])), &fx->v[n]);
    }
    assert_null(vapic_at(&fx->vm, 3));
    assert_null(vapic_at(&fx->vm, VAPIC_NO_INDEX));
    assert_null(vapic_by_id(&fx->vm, 5));
    fx_free(fx);
}

static void an_id_is_taken_once(void **state)
{
    static const uint32_t ids[] = {7, 7};
    struct fx *fx = fx_new(
        &(struct fx_options){.vcpus = 2, .ids = ids, .not_added = true, .soft_disabled = true});

    (void)state;
    assert_int_equal(vapic_add(&fx->v[0]), VAPIC_OK);
    assert_int_equal(vapic_add(&fx->v[1]), VAPIC_E_EXIST);
    assert_int_equal(vapic_index(&fx->v[1]), VAPIC_NO_INDEX);
    assert_int_equal(vapic_add(&fx->v[0]), VAPIC_E_BUSY);
    assert_int_equal(vapic_remove(&fx->v[1]), VAPIC_E_ARG);
    assert_int_equal(vapic_remove(&fx->v[0]), VAPIC_OK);
    assert_int_equal(vapic_add(&fx->v[1]), VAPIC_OK);
    assert_int_equal(vapic_remove(&fx->v[0]), VAPIC_E_ARG);
    fx_free(fx);
}

static void a_large_id_is_taken_once(void **state)
{
    static const uint32_t ids[] = {0x12345678, 0x12345678};
    struct fx *fx = fx_new(
        &(struct fx_options){.vcpus = 2, .ids = ids, .not_added = true, .soft_disabled = true});

    (void)state;
    assert_int_equal(vapic_add(&fx->v[0]), VAPIC_OK);
    assert_int_equal(vapic_add(&fx->v[1]), VAPIC_E_EXIST);
    fx_free(fx);
}

static void a_full_vm(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){
        .vcpus = 3, .not_added = true, .soft_disabled = true, .config = {.max_vcpus = 2}});

    (void)state;
    assert_int_equal(vapic_add(&fx->v[0]), VAPIC_OK);
    assert_int_equal(vapic_add(&fx->v[1]), VAPIC_OK);
    assert_int_equal(vapic_add(&fx->v[2]), VAPIC_E_FULL);
    assert_int_equal(vapic_remove(&fx->v[0]), VAPIC_OK);
    assert_int_equal(vapic_add(&fx->v[2]), VAPIC_OK);
    assert_ptr_equal(vapic_by_id(&fx->vm, 2), &fx->v[2]);
    fx_free(fx);
}

static void indices_are_stable(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 4});

    (void)state;
    assert_int_equal(vapic_remove(&fx->v[1]), VAPIC_OK);
    assert_int_equal(vapic_index(&fx->v[1]), VAPIC_NO_INDEX);
    assert_null(vapic_at(&fx->vm, 1));
    assert_int_equal(vapic_index(&fx->v[0]), 0);
    assert_int_equal(vapic_index(&fx->v[2]), 2);
    assert_int_equal(vapic_index(&fx->v[3]), 3);
    assert_int_equal(vapic_add(&fx->v[1]), VAPIC_OK);
    assert_ptr_equal(vapic_at(&fx->vm, vapic_index(&fx->v[1])), &fx->v[1]);
    fx_free(fx);
}

static uint32_t accepted(struct fx *fx, uint32_t icr, uint32_t dest)
{
    struct vapic_msg msg = {.icr = icr, .dest = dest, .source = VAPIC_FROM_DEVICE};

    return vapic_send(&fx->vm, msg).accepted;
}

static void removed_vcpus_get_nothing(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3});

    (void)state;
    for (uint32_t n = 0; n < 3; n++)
        fx_write(fx, n, APIC_LDR, 1u << (24 + n));
    assert_int_equal(vapic_remove(&fx->v[1]), VAPIC_OK);
    assert_int_equal(fx_count(fx, FX_QUIESCE), 1);
    assert_int_equal(accepted(fx, 0x51, 1), 0);
    assert_int_equal(accepted(fx, APIC_ICR_LOGICAL | 0x52, 2), 0);
    assert_int_equal(accepted(fx, APIC_ICR_LOGICAL | 0x53, 7), 2);
    assert_int_equal(accepted(fx, 0x54, 0xFF), 2);
    fx_icr(fx, 0, APIC_ICR_ALL_EXCL | 0x55, 0);
    assert_int_equal(fx_bit(fx, 2, APIC_IRR, 0x55), 1);
    assert_null(vapic_by_id(&fx->vm, 1));
    fx_free(fx);
}

static void removed_and_added_again(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3});

    (void)state;
    fx_write(fx, 1, APIC_LDR, 0x02000000);
    for (int n = 0; n < 10; n++) {
        assert_int_equal(vapic_remove(&fx->v[1]), VAPIC_OK);
        assert_int_equal(accepted(fx, 0x51, 1), 0);
        assert_int_equal(vapic_add(&fx->v[1]), VAPIC_OK);
        assert_int_equal(accepted(fx, 0x51, 1), 1);
        assert_int_equal(accepted(fx, APIC_ICR_LOGICAL | 0x52, 2), 1);
    }
    fx_free(fx);
}

/* A vCPU that is not (yet) part of the VM can be run and written. */
static void outside_of_the_map(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.not_added = true});

    (void)state;
    fx_write(fx, 0, APIC_ID, 0x05000000);
    fx_write(fx, 0, APIC_LDR, 0x01000000);
    assert_int_equal(accepted(fx, 0x51, 5), 0);
    fx_write(fx, 0, APIC_LVT_THERMAL, 0x61);
    vapic_local_event(&fx->v[0], APIC_LVT_THERMAL);
    assert_int_equal(fx_take(fx, 0), 0x61);
    assert_int_equal(vapic_add(&fx->v[0]), VAPIC_OK);
    assert_int_equal(accepted(fx, 0x51, 5), 1);
    assert_int_equal(accepted(fx, APIC_ICR_LOGICAL | 0x51, 1), 1);
    fx_free(fx);
}

/* A level-triggered line that found nobody finds the vCPU that is added. */
static void an_added_vcpu_gets_what_waited(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 2, .not_added = true});
    struct vapic_ioapic *io = fx_ioapic(fx, 24, 0, 0x20);

    (void)state;
    assert_int_equal(vapic_add(&fx->v[0]), VAPIC_OK);
    fx_rte_write(io, 3, 0x8051);
    fx_rte_write(io, 4, UINT64_C(0x09) << 56 | 0x8052);
    fx_write(fx, 1, APIC_ID, 0x09000000);
    vapic_ioapic_set(io, 4, 0, true);
    assert_int_equal(fx_take(fx, 0), -1);
    assert_int_equal(vapic_add(&fx->v[1]), VAPIC_OK);
    assert_true(fx_bit(fx, 1, APIC_IRR, 0x52));
    fx_free(fx);
    fx_ioapic_free(io);
}

/* Every change of the map has an end: an odd count would send all messages the slow way. */
static void the_map_is_whole_after_each_change(void **state)
{
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = 3});

    (void)state;
    assert_int_equal(fx->vm.seq % 2, 0);
    assert_int_equal(vapic_remove(&fx->v[1]), VAPIC_OK);
    assert_int_equal(fx->vm.seq % 2, 0);
    assert_int_equal(vapic_add(&fx->v[1]), VAPIC_OK);
    assert_int_equal(fx->vm.seq % 2, 0);
    fx_write(fx, 1, APIC_ID, 0x07000000);
    fx_write(fx, 1, APIC_LDR, 0x07000000);
    fx_write(fx, 1, APIC_DFR, 0);
    vapic_reset(&fx->v[1]);
    assert_int_equal(fx->vm.seq % 2, 0);
    fx_free(fx);
}

static void many_come_and_go(void **state)
{
    enum { COUNT = 128 };
    struct fx *fx = fx_new(&(struct fx_options){.vcpus = COUNT, .parked = true});

    (void)state;
    for (uint32_t n = 0; n < COUNT; n += 2)
        assert_int_equal(vapic_remove(&fx->v[n]), VAPIC_OK);
    assert_int_equal(accepted(fx, 0x51, 0xFF), COUNT / 2);
    for (uint32_t n = 0; n < COUNT; n++)
        fx_equal(accepted(fx, 0x52, n), n % 2, "ID %u", n);
    for (uint32_t n = 0; n < COUNT; n += 2)
        assert_int_equal(vapic_add(&fx->v[n]), VAPIC_OK);
    assert_int_equal(accepted(fx, 0x53, 0xFF), COUNT);
    fx_free(fx);
}

/* ---- Names and numbers ---- */

static void api_version(void **state)
{
    (void)state;
    assert_int_equal(vapic_api_version(), VAPIC_API_VERSION);
}

static void result_texts(void **state)
{
    static const struct {
        int value;
        const char *text;
    } rows[] = {
#define VAPIC_X(name, value, text) {name, text},
        VAPIC_RESULTS(VAPIC_X)
#undef VAPIC_X
    };

    (void)state;
    for (uint32_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
        assert_string_equal(vapic_result_text(rows[n].value), rows[n].text);
    assert_string_equal(vapic_result_text(99), "unknown result");
    assert_string_equal(vapic_result_text(-99), "unknown result");
    assert_string_equal(vapic_result_text(6), "unknown result");
}

static void knob_descriptions(void **state)
{
    uint32_t manual = 0, kvm = 0;

    (void)state;
    for (uint32_t n = 0; n < VAPIC_KNOB_COUNT; n++) {
        const struct vapic_knob_info *info = vapic_knob_info(n);

        assert_non_null(info);
        assert_true(strlen(info->name) > 0 && strlen(info->text) > 0);
        manual |= info->manual ? 1u << n : 0;
        kvm |= info->kvm ? 1u << n : 0;
        for (uint32_t other = 0; other < n; other++)
            assert_string_not_equal(info->name, vapic_knob_info(other)->name);
    }
    assert_int_equal(manual, VAPIC_PROFILE_MANUAL);
    assert_int_equal(kvm, VAPIC_PROFILE_KVM);
    assert_null(vapic_knob_info(VAPIC_KNOB_COUNT));
    assert_null(vapic_knob_info(VAPIC_NO_INDEX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vm_configurations),
        cmocka_unit_test(vm_sizes_and_alignment),
        cmocka_unit_test(vm_arguments_that_are_missing),
        cmocka_unit_test(vm_host_of_another_size),
        cmocka_unit_test(vm_needs_its_callbacks),
        cmocka_unit_test(vcpu_configurations),
        cmocka_unit_test(vcpu_sizes_and_alignment),
        cmocka_unit_test(added_vcpus_are_found),
        cmocka_unit_test(an_id_is_taken_once),
        cmocka_unit_test(a_large_id_is_taken_once),
        cmocka_unit_test(a_full_vm),
        cmocka_unit_test(indices_are_stable),
        cmocka_unit_test(removed_vcpus_get_nothing),
        cmocka_unit_test(removed_and_added_again),
        cmocka_unit_test(outside_of_the_map),
        cmocka_unit_test(an_added_vcpu_gets_what_waited),
        cmocka_unit_test(the_map_is_whole_after_each_change),
        cmocka_unit_test(many_come_and_go),
        cmocka_unit_test(api_version),
        cmocka_unit_test(result_texts),
        cmocka_unit_test(knob_descriptions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
