/* SPDX-License-Identifier: MIT */
/* What the files of nested_fixture.h share; no test needs it. */
#ifndef VAPIC_TESTS_NESTED_FIXTURE_PRIVATE_H
#define VAPIC_TESTS_NESTED_FIXTURE_PRIVATE_H

#include "control_block.h"
#include "nested_fixture.h"

#define NX_PAGE 4096u

/* What differs between the vendors. 12 is L1's control block of the vCPU of L2 in question. */
struct nx_vendor {
    enum vapic_sil_vendor silicon;
    uint64_t leave_code;     /* exit code of a forced exit */
    uint64_t interrupt_code; /* exit code of L2 for an interrupt of L1's */
    uint64_t run_code;       /* exit code of VMRUN, VMLAUNCH */

    /* L0: its own part of 01 and 02, before vapic_accel_attach(). */
    void (*create)(struct nx_l1 *c);
    /* L0: writes what c->entry asks for into the current control block and enters it. */
    enum vapic_sil_result (*enter)(struct nx_l1 *c);
    /* L0: the guest's CR8 after an exit from 01. */
    uint8_t (*cr8)(struct nx_l1 *c);
    void (*why)(struct nx_l1 *c, struct vapic_reflect *why);
    /* L0, after vapic_exit(): exits of L1. NX_RETRY: nothing has happened yet. */
    enum nx_result (*exit)(struct nx_l1 *c, const struct vapic_reflect *why, struct nx_op *op);
    /* The same of L2. True: *why goes to L1 (it may have been changed). */
    bool (*exit_l2)(struct nx_l1 *c, struct vapic_reflect *why, struct nx_op *op,
                    enum nx_result *result);
    /* L0: L1 enters L2 with the 12 at c->gpa12. What vapic_nested_enter() says. */
    int (*nested_enter)(struct nx_l1 *c);
    /* L0: 02 -> 12; 02 is no longer current afterwards. */
    void (*nested_leave)(struct nx_l1 *c, const struct vapic_reflect *why);
    /* User space saves: what of 02 has changed goes into L0's copy of 12. It loads: L2 again. */
    void (*sync)(struct nx_l1 *c);
    int (*restore)(struct nx_l1 *c, bool ran);
    /* L0: 12 says that L1's interrupts make L2 exit; and they are not held back by L1's IF. */
    bool (*intercepts)(const struct nx_l1 *c);
    bool (*masked)(const struct nx_l1 *c);
    void (*flush)(struct nx_l1 *c);
    void (*intercept)(struct nx_l1 *c, const struct vapic_msr_pass *pass, bool l2);
    /* What L0 keeps of 02 that is the library's becomes garbage. */
    void (*scramble)(struct nx_l1 *c);
    /* Do the control block and the tables that the processor would use name only what they may? */
    void (*check)(struct nx *nx, const struct nx_l1 *c);
    /* Does 02 of `c` name the page, directly or by a table? */
    bool (*names)(struct nx *nx, const struct nx_l1 *c, uint64_t hpa);

    /* L1: its part of 12; what c->entry asks for; CR8 and exits, as above. */
    void (*create12)(struct nx_l2_vcpu *c);
    void (*prepare12)(struct nx_l2_vcpu *c);
    uint8_t (*cr8_12)(struct nx_l2_vcpu *c);
    enum nx_result (*exit12)(struct nx_l2_vcpu *c, struct nx_op *op);
    void (*intercept12)(struct nx_l2_vcpu *c, const struct vapic_msr_pass *pass);
};

extern const struct nx_vendor nx_amd, nx_intel;

void nx_intel_control(struct nx_l1 *c, uint32_t field, uint64_t mask, uint64_t value, bool l2);
uint16_t nx_intel_status(struct nx_l1 *c, bool l2);
void nx_intel_control12(struct nx_l2_vcpu *c, uint32_t field, uint64_t mask, uint64_t value);

static inline struct nx_l1 *nx_l1_of(struct vapic *v)
{
    return (struct nx_l1 *)(void *)v;
}

static inline struct nx_l2_vcpu *nx_l2_of(struct vapic *v)
{
    return (struct nx_l2_vcpu *)(void *)v;
}

/* The vCPU of L2 that L1 runs on `c`. */
static inline struct nx_l2_vcpu *nx_current(struct nx_l1 *c)
{
    assert_true(c->runs >= 0);
    return c->nx->l2[c->runs];
}

/* Interrupts of L1's on this vCPU can be taken while it is in L1. */
static inline bool nx_l1_open(const struct nx_l1 *c)
{
    return c->l1_if && c->cli == 0;
}

/* ---- nested_fixture.c ---- */

void nx_log(struct nx *nx, struct nx_event event);
void nx_act(struct nx *nx, uint32_t l1, enum vapic_action action);
/* The host's interrupt handlers on the processor. True: there was an interrupt. */
bool nx_take_interrupts(struct nx *nx, struct vapic_sil_cpu *cpu);
/* The same on all that sleep, or run nobody. */
void nx_idle_processors(struct nx *nx);
void nx_handle_interrupt(struct nx *nx, struct vapic_sil_cpu *cpu, uint8_t vector);
/* L1's page at `hpa`; NULL: none of L1's. */
struct nx_page *nx_page_at(struct nx *nx, uint64_t hpa);
/* The page at `hpa` is the host's own, or L1's and pinned. */
bool nx_safe(struct nx *nx, uint64_t hpa);
bool nx_is_host(struct nx *nx, uint64_t hpa);
void *nx_sil_memory(void *ctx, uint64_t hpa, size_t size);

/* ---- nested_fixture_l0.c ---- */

extern const struct vapic_host nx_l0_host;
extern const struct vapic_nested_host nx_l0_nested_host;
void nx_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point);
bool nx_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa, struct vapic_sil_page *page);

enum nx_entered {
    NX_IN,      /* in the guest, 01 or 02 as c->l2 says */
    NX_SLEEPS,  /* not runnable */
    NX_LEFT_L2, /* L2 was left for L1, whose software has seen it */
    NX_STOPPED,
};
enum nx_entered nx_enter_guest(struct nx_l1 *c);
/* L1's instruction that enters L2 with the 12 at `gpa12`. */
void nx_vmrun(struct nx_l1 *c, uint64_t gpa12);
/* 02 -> 01, and L1's software goes on behind its VMRUN. */
enum nx_result nx_reflect(struct nx_l1 *c, const struct vapic_reflect *why, struct nx_op *op);
/* Boundaries of the guest that runs. False: c->l2 has changed, or it does not run. */
bool nx_boundaries(struct nx_l1 *c);
/* The library says that it cannot go on: to user space. */
void nx_stop(struct nx_l1 *c);
/* A vCPU that nx_enter_guest() calls asleep. */
void nx_block(struct nx_l1 *c);
/* Does `op` on L1's APIC by the library's own access functions. */
enum nx_result nx_emulate(struct nx_l1 *c, struct nx_op *op);
enum nx_result nx_perform(struct nx_l1 *c, struct nx_op *op);
void nx_sync_if(struct nx_l1 *c);

/* ---- nested_fixture_l1.c ---- */

extern const struct vapic_host nx_l1_host;
/* L1's IDT. */
void nx_l1_handler(struct nx_l1 *c, uint8_t vector, bool in_l2);
/* L1's software behind VMRUN: L2 has exited, 12 says why. */
enum nx_result nx_l1_exited(struct nx_l1 *c, struct nx_op *op);
/* L1's scheduler on this vCPU: enters L2, or executes HLT. False: the latter, or it cannot run. */
bool nx_l1_schedule_here(struct nx_l1 *c);
enum nx_result nx_emulate12(struct nx_l2_vcpu *c, struct nx_op *op);
/* L1's software runs on `c`, until nx_l1_end(). */
int nx_l1_begin(struct nx_l1 *c);
void nx_l1_end(struct nx *nx, int before);

#endif
