/* SPDX-License-Identifier: MIT */
/*
 * Devices whose interrupts an AMD IOMMU posts: remapping entries that follow the vCPU, the GA log,
 * and what is lost or late.
 */
#include "avic_tests.h"

#define DEVICE   0x1234u
#define REMAPPED 0x45u /* the host's vector of the remapped form */
#define LOG      8u

struct device {
    struct ax *ax;
    struct vapic_irte irte;
    uint64_t entry[2] __attribute__((aligned(16)));
    uint64_t remapped[2];
    struct vapic_sil_amd_iommu iommu;
    uint64_t log[LOG];
    uint32_t host_interrupts;
};

static struct device *the_device;

/* The host's handler of the remapped interrupt posts in software. */
static void host_handler(struct ax *ax, uint32_t cpu, uint8_t vector)
{
    (void)cpu;
    assert_int_equal(vector, REMAPPED);
    the_device->host_interrupts++;
    ax_post(ax, the_device->irte.v == NULL ? 0 : vapic_index(the_device->irte.v), 0x77, false);
}

static void setup(struct device *d, uint32_t vm_tag, uint32_t features)
{
    struct ax_options o = {
        .accel = {.kind = VAPIC_ACCEL_AVIC, .features = features, .vm_tag = vm_tag},
        .vcpus = 2,
        .trace = true};

    memset(d, 0, sizeof(*d));
    the_device = d;
    d->ax = ax_new(&o);
    d->ax->on_interrupt = host_handler;
    d->iommu =
        (struct vapic_sil_amd_iommu){.machine = &d->ax->silicon, .log = d->log, .entries = LOG};
    d->remapped[0] = AMD_IRTE_VALID | (uint64_t)AX_HOST_ID(3) << AMD_IRTE_DEST_LOW_SHIFT;
    d->remapped[1] = REMAPPED;
    enter_all(d->ax);
}

static void attach(struct device *d, uint32_t n)
{
    assert_int_equal(vapic_irte_attach(&d->irte, &d->ax->v[n]->apic, 0x77, d->remapped, d->entry),
                     VAPIC_OK);
}

static enum vapic_sil_msi interrupt(struct device *d)
{
    return vapic_sil_amd_msi(&d->iommu, d->entry, DEVICE);
}

/* The host's GA log handler. */
static void drain_log(struct device *d)
{
    for (; d->iommu.head != d->iommu.tail; d->iommu.head = (d->iommu.head + 1) % LOG)
        vapic_ga_log(&d->ax->platform, d->log[d->iommu.head]);
}

static bool posts(const struct device *d)
{
    return (d->entry[0] & AMD_IRTE_GUEST_MODE) != 0;
}

/* ---- Arguments ---- */

static void test_arguments(void **state)
{
    struct device d;
    struct ax_options none = {.vcpus = 1};
    struct vapic *v;
    struct ax *ax;

    (void)state;
    setup(&d, 5, XAVIC);
    v = &d.ax->v[0]->apic;
    assert_int_equal(vapic_irte_attach(NULL, v, 0x77, d.remapped, NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_irte_attach(&d.irte, NULL, 0x77, d.remapped, NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_irte_attach(&d.irte, v, 15, d.remapped, NULL), VAPIC_E_ARG);
    assert_int_equal(vapic_irte_attach(&d.irte, v, 0x77, NULL, NULL), VAPIC_E_ARG);
    assert_int_equal(ax_count(d.ax, AX_IRTE), 0);
    attach(&d, 0);
    assert_int_equal(vapic_irte_attach(&d.irte, v, 0x77, d.remapped, NULL), VAPIC_E_BUSY);
    vapic_irte_detach(&d.irte);
    vapic_irte_detach(&d.irte); /* nothing */
    ax_put(d.ax, 0);
    assert_int_equal(vapic_remove(v), VAPIC_OK);
    assert_int_equal(vapic_irte_attach(&d.irte, v, 0x77, d.remapped, NULL), VAPIC_E_ARG);
    ax_free(d.ax);
    ax = ax_new(&none);
    assert_int_equal(vapic_irte_attach(&d.irte, &ax->v[0]->apic, 0x77, d.remapped, NULL),
                     VAPIC_E_ARG);
    ax_free(ax);
}

static void test_platform_arguments(void **state)
{
    struct vapic_host no_lock = {.size = sizeof(no_lock)};
    struct vapic_platform p;
    struct device d;

    (void)state;
    setup(&d, 5, XAVIC);
    assert_int_equal(vapic_platform_init(&p, sizeof(p) - 1, &d.ax->host, d.ax), VAPIC_E_SIZE);
    assert_int_equal(vapic_platform_init(&p, sizeof(p), NULL, d.ax), VAPIC_E_ARG);
    assert_int_equal(vapic_platform_init(NULL, sizeof(p), &d.ax->host, d.ax), VAPIC_E_ARG);
    assert_int_equal(vapic_platform_init(&p, sizeof(p), &no_lock, d.ax), VAPIC_E_ARG);
    no_lock.spin_lock = d.ax->host.spin_lock;
    assert_int_equal(vapic_platform_init(&p, sizeof(p), &no_lock, d.ax), VAPIC_E_ARG);
    no_lock.size--;
    assert_int_equal(vapic_platform_init(&p, sizeof(p), &no_lock, d.ax), VAPIC_E_ARG);
    ax_free(d.ax);
}

/* ---- The entry follows the vCPU ---- */

static void test_entry_follows(void **state)
{
    struct device d;

    (void)state;
    setup(&d, 5, XAVIC);
    attach(&d, 1);
    assert_int_equal(d.entry[0], AMD_IRTE_VALID | AMD_IRTE_GUEST_MODE | AMD_IRTE_IS_RUN |
                                     (uint64_t)AX_HOST_ID(1) << AMD_IRTE_DEST_LOW_SHIFT |
                                     (uint64_t)AVIC_GA_TAG(5, 1) << AMD_IRTE_GA_TAG_SHIFT);
    assert_int_equal(d.entry[1], ax_hpa(d.ax, d.ax->v[1]->page) | 0x77);
    assert_int_equal(ax_nth(d.ax, AX_IRTE, 0)->c, 1); /* a new form is invalidated */
    assert_int_equal(interrupt(&d), VAPIC_SIL_MSI_POSTED);
    ax_settle(d.ax);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
    assert_int_equal(ax_count(d.ax, AX_EXIT), 0);
    ax_eoi(d.ax, 1);

    ax_forget(d.ax);
    ax_put(d.ax, 1); /* preempted: posted in silence */
    assert_int_equal(d.entry[0] & (AMD_IRTE_GUEST_MODE | AMD_IRTE_IS_RUN | AMD_IRTE_GA_LOG_INTR),
                     AMD_IRTE_GUEST_MODE);
    assert_int_equal(ax_nth(d.ax, AX_IRTE, 0)->c, 0); /* these fields are not cached */
    assert_int_equal(interrupt(&d), VAPIC_SIL_MSI_POSTED);
    ax_load(d.ax, 1, 2);
    assert_int_equal((d.entry[0] & AMD_IRTE_DEST_LOW) >> AMD_IRTE_DEST_LOW_SHIFT, AX_HOST_ID(2));
    ax_settle(d.ax);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
    ax_eoi(d.ax, 1);

    sleep_vcpu(d.ax, 1);
    assert_true(d.entry[0] & AMD_IRTE_GA_LOG_INTR);
    assert_false(d.entry[0] & AMD_IRTE_IS_RUN);
    assert_int_equal(interrupt(&d), VAPIC_SIL_MSI_LOGGED);
    ax_settle(d.ax);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
    drain_log(&d);
    ax_settle(d.ax);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 2);
    assert_int_equal(ax_traced(d.ax, VAPIC_EVENT_AVIC_GA_LOG), 1);
    assert_int_equal(ax_last_trace(d.ax, VAPIC_EVENT_AVIC_GA_LOG)->arg[0], 5);
    assert_int_equal(ax_last_trace(d.ax, VAPIC_EVENT_AVIC_GA_LOG)->arg[1], 1);
    vapic_irte_detach(&d.irte);
    assert_int_equal(memcmp(d.entry, d.remapped, sizeof(d.entry)), 0);
    ax_free(d.ax);
}

/* On processors that never see IsRunning, IOMMUs do. */
static void test_entry_with_erratum(void **state)
{
    struct device d;

    (void)state;
    setup(&d, 5, 0);
    attach(&d, 1);
    assert_true(d.entry[0] & AMD_IRTE_IS_RUN);
    assert_false(is_running(d.ax, 1));
    interrupt(&d);
    ax_settle(d.ax);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
    assert_int_equal(ax_count(d.ax, AX_EXIT), 0);
    vapic_irte_detach(&d.irte);
    ax_free(d.ax);
}

/* While the VM is inhibited the device interrupts the host. */
static void test_entry_while_inhibited(void **state)
{
    struct device d;

    (void)state;
    setup(&d, 5, XAVIC);
    attach(&d, 1);
    vapic_set_inhibit(&d.ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ax_forget(d.ax);
    ax_settle(d.ax);
    assert_int_equal(memcmp(d.entry, d.remapped, sizeof(d.entry)), 0);
    assert_int_equal(ax_nth(d.ax, AX_IRTE, 0)->c, 1);
    assert_int_equal(interrupt(&d), VAPIC_SIL_MSI_REMAPPED);
    ax_settle(d.ax);
    assert_int_equal(d.host_interrupts, 1);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
    sleep_vcpu(d.ax, 0);
    ax_load(d.ax, 0, 0); /* what the scheduler does is nothing to an inhibited vCPU's entries */
    assert_false(posts(&d));
    vapic_set_inhibit(&d.ax->vm, VAPIC_INHIBIT_BLOCKIRQ, false);
    ax_settle(d.ax);
    assert_true(posts(&d) && d.entry[0] & AMD_IRTE_IS_RUN);
    vapic_irte_detach(&d.irte);
    ax_free(d.ax);
}

/* Attached when the vCPU is inhibited, preempted, asleep. */
static void test_attach_in_every_state(void **state)
{
    struct device d;

    (void)state;
    setup(&d, 5, XAVIC);
    ax_put(d.ax, 1);
    attach(&d, 1);
    assert_int_equal(d.entry[0] & (AMD_IRTE_GUEST_MODE | AMD_IRTE_IS_RUN | AMD_IRTE_GA_LOG_INTR),
                     AMD_IRTE_GUEST_MODE);
    vapic_irte_detach(&d.irte);
    ax_load(d.ax, 1, 1);
    ax_settle(d.ax);
    sleep_vcpu(d.ax, 1);
    attach(&d, 1);
    assert_int_equal(d.entry[0] & (AMD_IRTE_GUEST_MODE | AMD_IRTE_IS_RUN | AMD_IRTE_GA_LOG_INTR),
                     AMD_IRTE_GUEST_MODE | AMD_IRTE_GA_LOG_INTR);
    vapic_irte_detach(&d.irte);
    vapic_set_inhibit(&d.ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ax_post(d.ax, 1, 0x31, false);
    ax_settle(d.ax);
    attach(&d, 1);
    assert_false(posts(&d));
    vapic_irte_detach(&d.irte);
    ax_free(d.ax);
}

/* Without a GA log a sleeping vCPU's devices interrupt the host. */
static void test_without_log(void **state)
{
    struct device d;

    (void)state;
    setup(&d, 0, XAVIC);
    attach(&d, 1);
    assert_true(posts(&d));
    sleep_vcpu(d.ax, 1);
    assert_false(posts(&d));
    assert_int_equal(interrupt(&d), VAPIC_SIL_MSI_REMAPPED);
    ax_settle(d.ax);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
    assert_true(posts(&d));
    vapic_irte_detach(&d.irte);
    ax_free(d.ax);
}

/* Several entries on one vCPU; one in the middle goes; a 32-bit host APIC ID. */
static void test_list(void **state)
{
    struct vapic_irte irte[3] = {{0}};
    uint64_t entry[3][2];
    struct device d;

    (void)state;
    setup(&d, 5, XAVIC);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(vapic_irte_attach(&irte[i], &d.ax->v[1]->apic, (uint8_t)(0x70 + i),
                                           d.remapped, entry[i]),
                         VAPIC_OK);
    assert_int_equal(d.ax->accel.devices, 3);
    vapic_irte_detach(&irte[1]);
    ax_put(d.ax, 1);
    d.ax->pcpus[2].apic_id = 0x12345678;
    ax_load(d.ax, 1, 2);
    assert_int_equal(memcmp(entry[1], d.remapped, sizeof(entry[1])), 0);
    for (uint32_t i = 0; i < 3; i += 2) {
        assert_int_equal((entry[i][0] & AMD_IRTE_DEST_LOW) >> AMD_IRTE_DEST_LOW_SHIFT, 0x345678);
        assert_int_equal(entry[i][1] >> AMD_IRTE_HI_DEST_SHIFT, 0x12);
        assert_int_equal(entry[i][1] & AMD_IRTE_HI_VECTOR, 0x70 + i);
        vapic_irte_detach(&irte[i]);
    }
    assert_int_equal(d.ax->accel.devices, 0);
    ax_free(d.ax);
}

/* ---- Races: the IOMMU has set IRR and has not looked at the entry yet ---- */

static void target_sleeps(struct ax *ax, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    if (cpu != NULL || point != VAPIC_SIL_POINT_POSTED)
        return;
    ax->on_point = NULL;
    ax_hlt(ax, 1);
    ax_run(ax, 1);
}

static void target_is_inhibited(struct ax *ax, struct vapic_sil_cpu *cpu,
                                enum vapic_sil_point point)
{
    if (cpu != NULL || point != VAPIC_SIL_POINT_POSTED)
        return;
    ax->on_point = NULL;
    vapic_set_inhibit(&ax->vm, VAPIC_INHIBIT_BLOCKIRQ, true);
    ax_run(ax, 1);
}

static void test_post_races(void **state)
{
    void (*const races[])(struct ax *, struct vapic_sil_cpu *,
                          enum vapic_sil_point) = {target_sleeps, target_is_inhibited};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct device d;

        setup(&d, 5, XAVIC);
        attach(&d, 1);
        d.ax->on_point = races[i];
        interrupt(&d);
        drain_log(&d);
        ax_settle(d.ax);
        assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
        vapic_irte_detach(&d.irte);
        ax_free(d.ax);
    }
}

/* ---- GA log ---- */

static void test_log_lookup(void **state)
{
    struct device d;

    (void)state;
    setup(&d, 5, XAVIC);
    attach(&d, 1);
    sleep_vcpu(d.ax, 1);
    ax_forget(d.ax);
    vapic_ga_log(&d.ax->platform, 1ull << 60 | AVIC_GA_TAG(6, 1)); /* no such VM */
    vapic_ga_log(&d.ax->platform, 1ull << 60 | AVIC_GA_TAG(5, 7)); /* no such vCPU */
    vapic_ga_log(&d.ax->platform, 2ull << 60 | AVIC_GA_TAG(5, 1)); /* another type */
    vapic_ga_log(&d.ax->platform, 1ull << 60 | AVIC_GA_TAG(5, 0)); /* awake */
    assert_int_equal(ax_count(d.ax, AX_NOTIFY), 0);
    vapic_ga_log(&d.ax->platform, 1ull << 60 | AVIC_GA_TAG(5, 1));
    vapic_ga_log(&d.ax->platform, 1ull << 60 | AVIC_GA_TAG(5, 1)); /* woken once */
    assert_int_equal(ax_count(d.ax, AX_NOTIFY), 1);
    assert_int_equal(ax_nth(d.ax, AX_NOTIFY, 0)->a, VAPIC_ACTION_WAKE);
    vapic_irte_detach(&d.irte);
    vapic_accel_fini(&d.ax->accel);
    ax_forget(d.ax);
    vapic_ga_log(&d.ax->platform, 1ull << 60 | AVIC_GA_TAG(5, 1)); /* the VM is gone */
    assert_int_equal(ax_traced(d.ax, VAPIC_EVENT_AVIC_GA_LOG), 0);
    ax_free(d.ax);
}

/* The log runs full: every sleeper of a VM with devices is woken. */
static void test_overflow(void **state)
{
    struct device d;

    (void)state;
    setup(&d, 5, XAVIC);
    sleep_vcpu(d.ax, 1);
    ax_forget(d.ax);
    vapic_ga_overflow(&d.ax->platform);
    assert_int_equal(ax_count(d.ax, AX_NOTIFY), 0); /* no devices */
    attach(&d, 1);
    d.iommu.overflow = 1;
    assert_int_equal(interrupt(&d), VAPIC_SIL_MSI_POSTED); /* and not logged */
    vapic_ga_overflow(&d.ax->platform);
    ax_settle(d.ax);
    assert_int_equal(ax_delivered(d.ax, 1, 0x77), 1);
    vapic_irte_detach(&d.irte);
    ax_free(d.ax);
}

/* Two VMs on one platform, and one that wants the other's tag. */
static void test_two_vms(void **state)
{
    struct device d;
    struct ax_options o = {.accel = {.kind = VAPIC_ACCEL_AVIC, .features = XAVIC, .vm_tag = 6},
                           .vcpus = 2};
    struct vapic_accel third = {0};
    struct vapic_vm vm = {0};
    struct ax *other;
    uint8_t *memory;

    (void)state;
    setup(&d, 5, XAVIC);
    o.accel.platform = &d.ax->platform;
    other = ax_new(&o);
    enter_all(other);
    sleep_vcpu(other, 1);
    sleep_vcpu(d.ax, 1);
    vapic_ga_log(&d.ax->platform, 1ull << 60 | AVIC_GA_TAG(6, 1));
    assert_true(other->v[1]->woken);
    assert_false(d.ax->v[1]->woken);
    o.accel.max_id = 1;
    vm.host = d.ax->host;
    vm.ctx = d.ax;
    memory = ax_memory(d.ax, 2 * 4096, 4096);
    assert_int_equal(vapic_accel_init(&third, sizeof(third), &vm, &o.accel, memory, 2 * 4096),
                     VAPIC_E_EXIST);
    ax_free(other);
    ax_free(d.ax);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_platform_arguments),
        cmocka_unit_test(test_entry_follows),
        cmocka_unit_test(test_entry_with_erratum),
        cmocka_unit_test(test_entry_while_inhibited),
        cmocka_unit_test(test_attach_in_every_state),
        cmocka_unit_test(test_without_log),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_post_races),
        cmocka_unit_test(test_log_lookup),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_two_vms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
