/* SPDX-License-Identifier: MIT */
/*
 * The operations, one function op_* each. Only what runs inside the library under an op_* function
 * is counted, see measure.py. All go through the public interface but for irq_core_*, which call
 * the run loop's parts by their private names in order to leave the rest of the loop out.
 */
#include "cases.h"
#include "internal.h"
#include "vapic/pv.h"

#include <stdio.h>
#include <stdlib.h>

#define OP          static __attribute__((noinline)) void
#define VECTOR      0x51u
#define MSR(offset) (MSR_X2APIC_FIRST + ((offset) >> 4))
#define CLUSTER     1u /* x2APIC cluster: IDs 10h to 17h are addressed */
#define CLUSTER_SET 0xFFu

/* ---- Preparing ---- */

/* As if the owner had harvested, and at far less than a harvest would cost the timing. */
static void forget_posts(struct vapic *v)
{
    v->pid.pir[VECTOR >> 6] = 0;
    v->pid.control = 0;
}

static void forget_one(struct machine *m)
{
    forget_posts(&m->v[1]);
}

/* The target of MSIs. Not the last vCPU: of 256 its ID would be a broadcast. */
static struct vapic *msi_target(const struct machine *m)
{
    return &m->v[m->vcpus - 2];
}

static void forget_msi(struct machine *m)
{
    forget_posts(msi_target(m));
}

static void forget_all(struct machine *m)
{
    for (uint32_t n = 0; n < m->vcpus; n++)
        forget_posts(&m->v[n]);
}

static void target_in_guest(struct machine *m)
{
    vapic_enter(&m->v[1], MACHINE_CAN, m->now, &m->entry);
}

static void choose_target(struct machine *m)
{
    machine_write(m, 0, APIC_ICR2, 1u << 24);
}

static void choose_target_in_guest(struct machine *m)
{
    choose_target(m);
    target_in_guest(m);
}

static void post_self(struct machine *m)
{
    vapic_post(&m->v[0], VECTOR, false, NULL);
}

static void accept_self(struct machine *m)
{
    vapic_lapic_accept_local(&m->v[0], VECTOR, false);
}

/* One machine is made per run of the program. */
static struct vapic_pv pv;
static uint32_t pv_word;

static void *host_map(void *ctx, struct vapic *v, uint64_t gpa, size_t size)
{
    (void)ctx;
    (void)v;
    (void)gpa;
    (void)size;
    return &pv_word;
}

static void pv_eoi_on(struct machine *m)
{
    struct vapic_pv_config config = {.features = VAPIC_PV_EOI, .map = host_map};

    hot_verify(vapic_pv_attach(&m->v[0], &pv, sizeof(pv), &config) == VAPIC_OK &&
                   vapic_pv_msr_write(&m->v[0], VAPIC_MSR_KVM_EOI, VAPIC_PV_ENABLE) == VAPIC_OK,
               "PV EOI is not on");
}

static void timer_deadline_mode(struct machine *m)
{
    machine_write(m, 0, APIC_LVT_TIMER, APIC_TIMER_DEADLINE | VECTOR);
}

/* ---- Verifying: an operation that fails fast must not look fast ---- */

void hot_verify(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "hotpaths: the operation did not do its work: %s\n", what);
    exit(1);
}

static bool posted(const struct vapic *v)
{
    return (v->pid.pir[VECTOR >> 6] >> (VECTOR & 63) & 1) != 0;
}

static void self_has_vector(struct machine *m)
{
    hot_verify(vector_bit(&m->v[0], APIC_IRR, VECTOR), "the vector is not in IRR");
}

static void one_posted(struct machine *m)
{
    hot_verify(posted(&m->v[1]) && !posted(&m->v[0]), "the target has no posted vector");
}

static void one_posted_kicked(struct machine *m)
{
    one_posted(m);
    hot_verify(m->notified != 0, "nobody was notified");
}

static uint32_t count_posted(const struct machine *m)
{
    uint32_t count = 0;

    for (uint32_t n = 0; n < m->vcpus; n++)
        count += posted(&m->v[n]);
    return count;
}

static void msi_posted(struct machine *m)
{
    hot_verify(count_posted(m) == 1 && posted(msi_target(m)),
               "not exactly the target has the vector");
}

static void cluster_posted(struct machine *m)
{
    hot_verify(count_posted(m) == 8 && posted(&m->v[CLUSTER * 16]),
               "not exactly 8 have the vector");
}

static void others_posted(struct machine *m)
{
    hot_verify(count_posted(m) == m->vcpus - 1 && !posted(&m->v[0]),
               "not exactly the others have it");
}

static void nothing_left(struct machine *m)
{
    hot_verify(m->v[0].stats.eois != 0 && !vector_bit(&m->v[0], APIC_IRR, VECTOR) &&
                   !vector_bit(&m->v[0], APIC_ISR, VECTOR),
               "the interrupt was not handled to its end");
}

static void ended_by_word(struct machine *m)
{
    nothing_left(m);
    hot_verify(pv.stats.eois != 0 && pv.stats.withdrawn == 0, "the word did not end it");
}

static void tpr_written(struct machine *m)
{
    hot_verify(machine_read(m, 0, APIC_PPR) == 0x20, "PPR does not follow TPR");
}

static void timer_written(struct machine *m)
{
    hot_verify(machine_read(m, 0, APIC_LVT_TIMER) == (APIC_TIMER_PERIODIC | VECTOR),
               "LVT is wrong");
}

static void was_armed(struct machine *m)
{
    hot_verify(m->armed != 0 && m->v[0].timer_when == m->now.tsc + m->armed,
               "the timer is not armed");
}

static void entered(struct machine *m)
{
    hot_verify(m->entry.runnable && m->entry.inject == VAPIC_INJECT_NONE,
               "the entry is not an idle one");
}

/* What the read operations read last, so that it is checked and not thrown away. */
static uint64_t last_read;

static void svr_read(struct machine *m)
{
    (void)m;
    hot_verify((uint32_t)last_read == (APIC_SVR_ENABLE | 0xFF), "SVR is not what was written");
}

static void irr_read(struct machine *m)
{
    (void)m;
    hot_verify(last_read == 1u << (VECTOR & 31), "IRR does not show the vector");
}

/* ---- Operations ---- */

static void mmio_write(struct machine *m, uint32_t offset, uint32_t value)
{
    vapic_mmio_write(&m->v[0], offset, &value, 4, m->now);
}

static void msr_write(struct machine *m, uint32_t offset, uint64_t value)
{
    vapic_msr_write(&m->v[0], MSR(offset), value, m->now);
}

OP op_self_ipi_msr(struct machine *m)
{
    msr_write(m, APIC_SELF_IPI, VECTOR);
}

OP op_self_ipi_xapic(struct machine *m)
{
    mmio_write(m, APIC_ICR, APIC_ICR_SELF | APIC_ICR_ASSERT | VECTOR);
}

OP op_ipi_x2apic(struct machine *m)
{
    msr_write(m, APIC_ICR, UINT64_C(1) << 32 | APIC_ICR_ASSERT | VECTOR);
}

OP op_ipi_xapic(struct machine *m)
{
    mmio_write(m, APIC_ICR, APIC_ICR_ASSERT | VECTOR);
}

OP op_ipi_cluster(struct machine *m)
{
    uint64_t dest = CLUSTER << 16 | CLUSTER_SET;

    msr_write(m, APIC_ICR, dest << 32 | APIC_ICR_LOGICAL | APIC_ICR_ASSERT | VECTOR);
}

OP op_ipi_others(struct machine *m)
{
    msr_write(m, APIC_ICR, APIC_ICR_ALL_EXCL | APIC_ICR_ASSERT | VECTOR);
}

/* In the format that machine.c configures. */
OP op_msi(struct machine *m)
{
    uint64_t dest = m->vcpus - 2;

    vapic_msi(&m->vm, 0xFEE00000u | (dest & 0xFF) << 12 | dest >> 8 << 5, VECTOR);
}

OP op_irq_core_x2apic(struct machine *m)
{
    vapic_lapic_ack(&m->v[0], (uint8_t)vapic_lapic_pending(&m->v[0]));
    msr_write(m, APIC_EOI, 0);
}

OP op_irq_core_xapic(struct machine *m)
{
    vapic_lapic_ack(&m->v[0], (uint8_t)vapic_lapic_pending(&m->v[0]));
    mmio_write(m, APIC_EOI, 0);
}

OP op_irq_run_x2apic(struct machine *m)
{
    vapic_enter(&m->v[0], MACHINE_CAN, m->now, &m->entry);
    vapic_commit(&m->v[0], &m->entry);
    vapic_exit(&m->v[0], m->entry.cr8, true);
    msr_write(m, APIC_EOI, 0);
}

OP op_irq_run_xapic(struct machine *m)
{
    vapic_enter(&m->v[0], MACHINE_CAN, m->now, &m->entry);
    vapic_commit(&m->v[0], &m->entry);
    vapic_exit(&m->v[0], m->entry.cr8, true);
    mmio_write(m, APIC_EOI, 0);
}

/* The guest takes the vector and ends it by the word, before the next exit for another reason. */
OP op_irq_run_pv(struct machine *m)
{
    vapic_enter(&m->v[0], MACHINE_CAN, m->now, &m->entry);
    vapic_commit(&m->v[0], &m->entry);
    pv_word = 0;
    vapic_exit(&m->v[0], m->entry.cr8, true);
}

OP op_idle_run(struct machine *m)
{
    vapic_enter(&m->v[0], MACHINE_CAN, m->now, &m->entry);
    vapic_exit(&m->v[0], m->entry.cr8, true);
}

OP op_tpr_x2apic(struct machine *m)
{
    msr_write(m, APIC_TPR, 0x20);
    last_read = (uint64_t)vapic_lapic_pending(&m->v[0]);
}

OP op_tpr_xapic(struct machine *m)
{
    mmio_write(m, APIC_TPR, 0x20);
    last_read = (uint64_t)vapic_lapic_pending(&m->v[0]);
}

OP op_tpr_cr8(struct machine *m)
{
    vapic_write_cr8(&m->v[0], 2);
    last_read = (uint64_t)vapic_lapic_pending(&m->v[0]);
}

OP op_read_x2apic(struct machine *m)
{
    vapic_msr_read(&m->v[0], MSR(APIC_SVR), &last_read, m->now);
}

OP op_read_xapic(struct machine *m)
{
    vapic_mmio_read(&m->v[0], APIC_SVR, &last_read, 4, m->now);
}

OP op_read_irr(struct machine *m)
{
    vapic_msr_read(&m->v[0], MSR(APIC_IRR + (VECTOR >> 5) * 16), &last_read, m->now);
}

OP op_lvt_timer_x2apic(struct machine *m)
{
    msr_write(m, APIC_LVT_TIMER, APIC_TIMER_PERIODIC | VECTOR);
}

OP op_lvt_timer_xapic(struct machine *m)
{
    mmio_write(m, APIC_LVT_TIMER, APIC_TIMER_PERIODIC | VECTOR);
}

/* Each time another moment, in the future. */
OP op_tsc_deadline(struct machine *m)
{
    vapic_msr_write(&m->v[0], MSR_TSC_DEADLINE, m->now.tsc + m->armed + 1, m->now);
}

/* ---- The table ---- */

const struct hot_case hot_cases[] = {
    /* name, text, vCPUs, x2APIC, targets, aims, setup, prepare, op, verify */
    {"self_ipi_msr", "self IPI, SELF_IPI MSR", 4, true, 1, 50, 0, NULL, NULL, op_self_ipi_msr,
     self_has_vector},
    {"self_ipi_xapic", "self IPI, xAPIC shorthand", 4, false, 1, 70, 0, NULL, NULL,
     op_self_ipi_xapic, self_has_vector},
    {"ipi_x2apic_out", "IPI, x2APIC ICR, target outside", 4, true, 1, 80, 2, NULL, forget_one,
     op_ipi_x2apic, one_posted},
    {"ipi_x2apic_in", "IPI, x2APIC ICR, target in guest", 4, true, 1, 80, 2, target_in_guest,
     forget_one, op_ipi_x2apic, one_posted_kicked},
    {"ipi_x2apic_again", "IPI, x2APIC ICR, vector pending already", 4, true, 1, 80, 1, NULL, NULL,
     op_ipi_x2apic, one_posted},
    {"ipi_xapic_out", "IPI, xAPIC ICR, target outside", 4, false, 1, 95, 2, choose_target,
     forget_one, op_ipi_xapic, one_posted},
    {"ipi_xapic_in", "IPI, xAPIC ICR, target in guest", 4, false, 1, 95, 2, choose_target_in_guest,
     forget_one, op_ipi_xapic, one_posted_kicked},
    {"ipi_cluster_8", "x2APIC cluster, 8 targets of 64, per target", 64, true, 8, 40, 2, NULL,
     forget_all, op_ipi_cluster, cluster_posted},
    {"ipi_others_64", "all excluding self, 64 vCPUs, per target", 64, true, 63, 25, 2, NULL,
     forget_all, op_ipi_others, others_posted},
    {"msi_256", "MSI, physical, 256 vCPUs, x2APIC", 256, true, 1, 70, 2, NULL, forget_msi, op_msi,
     msi_posted},
    {"msi_4096", "MSI, physical, 4096 vCPUs, x2APIC", 4096, true, 1, 70, 2, NULL, forget_msi,
     op_msi, msi_posted},
    {"msi_xapic_64", "MSI, physical, 64 vCPUs, xAPIC", 64, false, 1, 0, 2, NULL, forget_msi, op_msi,
     msi_posted},
    {"irq_core_xapic", "find, acknowledge, PPR, EOI; xAPIC", 4, false, 1, 150, 0, NULL, accept_self,
     op_irq_core_xapic, nothing_left},
    {"irq_core_x2apic", "find, acknowledge, PPR, EOI; x2APIC", 4, true, 1, 140, 0, NULL,
     accept_self, op_irq_core_x2apic, nothing_left},
    {"irq_run_xapic", "posted interrupt: enter, commit, exit, EOI; xAPIC", 4, false, 1, 0, -1, NULL,
     post_self, op_irq_run_xapic, nothing_left},
    {"irq_run_x2apic", "posted interrupt: enter, commit, exit, EOI; x2APIC", 4, true, 1, 0, -1,
     NULL, post_self, op_irq_run_x2apic, nothing_left},
    {"idle_run", "enter and exit with nothing pending", 4, true, 1, 0, 1, NULL, NULL, op_idle_run,
     entered},
    {"irq_run_pv", "PV EOI: posted interrupt: enter, commit, exit", 4, true, 1, 0, -1, pv_eoi_on,
     post_self, op_irq_run_pv, ended_by_word},
    {"idle_run_pv", "PV EOI: enter and exit with nothing pending", 4, true, 1, 0, 1, pv_eoi_on,
     NULL, op_idle_run, entered},
    {"tpr_x2apic", "TPR write, re-evaluation, one pending; x2APIC", 4, true, 1, 60, 0, accept_self,
     NULL, op_tpr_x2apic, tpr_written},
    {"tpr_xapic", "TPR write, re-evaluation, one pending; xAPIC", 4, false, 1, 60, 0, accept_self,
     NULL, op_tpr_xapic, tpr_written},
    {"tpr_cr8", "CR8 write, re-evaluation, one pending", 4, true, 1, 50, 0, accept_self, NULL,
     op_tpr_cr8, tpr_written},
    {"read_x2apic", "register read (SVR), x2APIC", 4, true, 1, 25, 0, NULL, NULL, op_read_x2apic,
     svr_read},
    {"read_xapic", "register read (SVR), xAPIC", 4, false, 1, 25, 0, NULL, NULL, op_read_xapic,
     svr_read},
    {"read_irr", "register read (IRR, shows what was posted)", 4, true, 1, 0, -1, NULL, post_self,
     op_read_irr, irr_read},
    {"lvt_timer_x2apic", "LVT timer write, same mode; x2APIC", 4, true, 1, 45, 0, NULL, NULL,
     op_lvt_timer_x2apic, timer_written},
    {"lvt_timer_xapic", "LVT timer write, same mode; xAPIC", 4, false, 1, 45, 0, NULL, NULL,
     op_lvt_timer_xapic, timer_written},
    {"tsc_deadline", "TSC-deadline arm", 4, true, 1, 30, 0, timer_deadline_mode, NULL,
     op_tsc_deadline, was_armed},
    {0},
};
