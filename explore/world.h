/* SPDX-License-Identifier: MIT */
/*
 * A small world for the explorer: a hypervisor on the library's public headers, its guests,
 * devices, administrator and scheduler, on the model of the silicon. A scenario is a table.
 *
 *      world.c          a world from its table; what must hold in the end
 *      world_vcpu.c     a vCPU's thread: the documented run loop
 *      world_guest.c    its guest between entry and exit: program and interrupts
 *      world_amd.c      what a VMRUN loop does around the library
 *      world_intel.c    what a VMLAUNCH loop does
 *      world_nested.c   L1's hypervisor, and what L0 does for it
 *      world_host.c     the callbacks of struct vapic_host, with their true blocking
 *      world_actor.c    everybody else: devices, administrator, scheduler, creator
 *      properties.c     what must hold, and the sequential reference that says so
 *
 * How it goes. Every vCPU has a thread (an actor) that runs its program; a program is a list of
 * instructions (G_...) and, at its end, an idle loop: HLT for ever, or with W_SPINS an endless loop
 * in the guest. Interrupts are taken between instructions, as the silicon (or, without a back end,
 * the library) delivers them; the handler ends them by EOI, unless W_BY_HAND leaves that to the
 * program. Other actors run lists of H_... .
 *
 * The run ends when everybody has finished or sleeps. Then, and at each delivery, entry and EOI,
 * the properties are checked: a scenario that does not say anything of its own is checked for all
 * of them. For that every interrupt that is sent says whom it reaches: `to`, a set of vCPUs, bit n
 * is vCPU n. Give each message a vector of its own, so that the accounts are exact; with the same
 * vector several times to one vCPU, "at least once after the last" is all that can be demanded.
 *
 * vCPU n has APIC ID n, runs on processor n (host APIC ID n), is initialized, software enabled,
 * loaded, and has not run yet. In xAPIC mode its LDR is 1 << n in the flat model.
 *
 * Keep programs minimal. What is explored is the real code, and each instruction of a guest is
 * dozens of accesses.
 */
#ifndef VAPIC_EXPLORE_WORLD_H
#define VAPIC_EXPLORE_WORLD_H

#include "explore.h"

#include "vapic/accel.h"

#define WORLD_VCPUS  4u
#define WORLD_ACTORS 4u
#define WORLD_PINS   2u
#define WORLD_IRTES  2u
#define WORLD_CPUS   (WORLD_VCPUS + 1u) /* processors; the last one is free at first */

/* ---- Steps of a program ---- */

enum world_op_kind {
    WORLD_END, /* the idle loop; of other actors: finished */

    /* Instructions of a guest */
    WORLD_WRITE, /* register `a` := b, by MMIO or MSR as the mode asks for; with `to`: a write that
                    sends vector `mask` */
    WORLD_READ,  /* register `a` must read b in the bits of `mask`; mask 0: any value */
    WORLD_WRMSR, /* MSR `a` := b; must not fault */
    WORLD_ICR,   /* an IPI: low word `a`, destination b; reaches `to` */
    WORLD_CR8,   /* := b */
    WORLD_IF,    /* CLI (b = 0), STI (b = 1) */
    WORLD_HLT,   /* one HLT */
    WORLD_AWAIT, /* HLT until vector `a` was taken b times */
    WORLD_SPIN,  /* the same, without HLT */
    WORLD_EOI,
    WORLD_MODE,  /* IA32_APIC_BASE: bits b of EN and EXTD */
    WORLD_PROBE, /* writes `a` to FEE00080h (TPR) by MMIO in x2APIC mode: must not reach the page */
    WORLD_L2,    /* runs a nested guest, until an interrupt for L1 ends it */
    WORLD_PV_IPI, /* KVM's hypercall: vector `a` to the APIC IDs of set b; reaches `to` */
    WORLD_RESET,  /* the machine reboots: this vCPU's part, by its own thread */
    WORLD_STOP,   /* the thread ends, outside the guest */
    /* As L1's hypervisor, world_spec.nested only */
    WORLD_VMRUN,    /* what follows is L2's, up to WORLD_LEAVE */
    WORLD_LEAVE,    /* of L2: an exit that L1 asked for */
    WORLD_L1_RUNS,  /* this vCPU's entry of L1's table says running (b), or not */
    WORLD_L1_SLEEP, /* L1 puts its L2 to sleep, until somebody wakes it */

    /* Others */
    WORLD_POST,    /* vapic_post() of vector `a` to vCPU v; b: level-triggered */
    WORLD_MSI,     /* vapic_msi() of vector `a` to vCPU v */
    WORLD_DEVICE,  /* the device behind IRTE number `a` sends its message */
    WORLD_PIN,     /* pin `a` of the I/O APIC goes to b */
    WORLD_ROUTE,   /* pin `a` gets the low word b of an entry, and vCPU v as destination */
    WORLD_INHIBIT, /* reason `a` set or cleared (b) */
    WORLD_LINT0,   /* the 8259's INTR, at vCPU v, with vector `a`; falls when that is fetched */
    WORLD_NMI,     /* vapic_nmi() */
    WORLD_POKE,    /* vapic_poke() */
    WORLD_TIME,    /* when vCPU v has armed its timer the clock goes on by b ns; plays its timer */
    WORLD_MOVE,    /* the scheduler moves vCPU v to processor `a` */
    WORLD_PREEMPT, /* it takes vCPU v off its processor */
    WORLD_RESUME,  /* it gives vCPU v processor `a` */
    WORLD_ADD,     /* creates vCPU v (W_ABSENT), which then starts to run */
    WORLD_REMOVE,  /* removes vCPU v, whose program has come to its G_STOP */
    WORLD_ATTACH,  /* gives the device of IRTE number `a` its posting entry */
    WORLD_DETACH,  /* takes it back */
    WORLD_AFTER,   /* waits until vCPU v has taken vector `a` b times */
    WORLD_GA_LOG,  /* plays the GA log's interrupt handler, for ever (WORLD_LOG_APART) */
    WORLD_GA_LATE, /* a GA log entry that names vCPU v is handled, whatever has become of the VM */
    WORLD_END_VM,  /* vapic_accel_fini(), and the VM's memory is used for something else */
    WORLD_SERVE,   /* plays processor `a`, on which no vCPU runs any more, for ever: its handlers */
    WORLD_L2_POST, /* another processor of L1 posts vector `a` for the L2 of vCPU v */
    WORLD_ENTRY,   /* it makes vCPU v's entry of L1's table valid (b) or not */
    WORLD_FREE,    /* user space takes away L1's page `a`, and uses it for something else */
    WORLD_GIVE,    /* and has a new one there */
};

struct world_op {
    uint8_t kind;
    uint8_t v;
    uint8_t to;
    bool maybe; /* the targets of `to` may get it, but need not: they change meanwhile */
    uint32_t a;
    uint64_t b;
    uint32_t mask;
};

#define WORLD_BIT(n) ((uint8_t)(1u << (n)))

/* Guests */
#define G_WRITE(reg, value)                                                                        \
    {                                                                                              \
        .kind = WORLD_WRITE, .a = (reg), .b = (value)                                              \
    }
#define G_TIMER(n, vector, count)                                                                  \
    {                                                                                              \
        .kind = WORLD_WRITE, .to = WORLD_BIT(n), .a = APIC_TMICT, .b = (count), .mask = (vector)   \
    }
#define G_READ(reg, bits, value)                                                                   \
    {                                                                                              \
        .kind = WORLD_READ, .a = (reg), .b = (value), .mask = (bits)                               \
    }
#define G_WRMSR(msr, value)                                                                        \
    {                                                                                              \
        .kind = WORLD_WRMSR, .a = (msr), .b = (value)                                              \
    }
#define G_IPI(n, vector)                                                                           \
    {                                                                                              \
        .kind = WORLD_ICR, .to = WORLD_BIT(n), .a = (vector), .b = (n)                             \
    }
#define G_IPI_MAYBE(n, vector)                                                                     \
    {                                                                                              \
        .kind = WORLD_ICR, .to = WORLD_BIT(n), .maybe = true, .a = (vector), .b = (n)              \
    }
/* The set is both flat LDR and `to`. */
#define G_IPI_LOGICAL(set, vector)                                                                 \
    {                                                                                              \
        .kind = WORLD_ICR, .to = (set), .a = (vector) | APIC_ICR_LOGICAL, .b = (set)               \
    }
#define G_IPI_SELF(n, vector)                                                                      \
    {                                                                                              \
        .kind = WORLD_ICR, .to = WORLD_BIT(n), .a = (vector) | APIC_ICR_SELF                       \
    }
#define G_IPI_OTHERS(set, vector)                                                                  \
    {                                                                                              \
        .kind = WORLD_ICR, .to = (set), .a = (vector) | APIC_ICR_ALL_EXCL                          \
    }
#define G_IPI_ALL(set, vector)                                                                     \
    {                                                                                              \
        .kind = WORLD_ICR, .to = (set), .a = (vector) | APIC_ICR_ALL_INCL                          \
    }
#define G_SEND(low, dest)                                                                          \
    {                                                                                              \
        .kind = WORLD_ICR, .a = (low), .b = (dest)                                                 \
    } /* NMI, INIT, SIPI */
#define G_CR8(value)                                                                               \
    {                                                                                              \
        .kind = WORLD_CR8, .b = (value)                                                            \
    }
#define G_CLI                                                                                      \
    {                                                                                              \
        .kind = WORLD_IF, .b = 0                                                                   \
    }
#define G_STI                                                                                      \
    {                                                                                              \
        .kind = WORLD_IF, .b = 1                                                                   \
    }
#define G_HLT                                                                                      \
    {                                                                                              \
        .kind = WORLD_HLT                                                                          \
    }
#define G_AWAIT(vector, count)                                                                     \
    {                                                                                              \
        .kind = WORLD_AWAIT, .a = (vector), .b = (count)                                           \
    }
#define G_SPIN(vector, count)                                                                      \
    {                                                                                              \
        .kind = WORLD_SPIN, .a = (vector), .b = (count)                                            \
    }
#define G_EOI                                                                                      \
    {                                                                                              \
        .kind = WORLD_EOI                                                                          \
    }
#define G_X2APIC                                                                                   \
    {                                                                                              \
        .kind = WORLD_MODE, .b = APIC_BASE_EN | APIC_BASE_EXTD                                     \
    }
#define G_APIC_OFF                                                                                 \
    {                                                                                              \
        .kind = WORLD_MODE, .b = 0                                                                 \
    }
#define G_XAPIC                                                                                    \
    {                                                                                              \
        .kind = WORLD_MODE, .b = APIC_BASE_EN                                                      \
    }
#define G_PROBE(value)                                                                             \
    {                                                                                              \
        .kind = WORLD_PROBE, .a = (value)                                                          \
    }
#define G_L2                                                                                       \
    {                                                                                              \
        .kind = WORLD_L2                                                                           \
    }
#define G_PV_IPI(set, vector)                                                                      \
    {                                                                                              \
        .kind = WORLD_PV_IPI, .to = (set), .a = (vector), .b = (set)                               \
    }
#define G_RESET                                                                                    \
    {                                                                                              \
        .kind = WORLD_RESET                                                                        \
    }
#define G_STOP                                                                                     \
    {                                                                                              \
        .kind = WORLD_STOP                                                                         \
    }

/* L1's hypervisor and its L2 */
#define G_VMRUN                                                                                    \
    {                                                                                              \
        .kind = WORLD_VMRUN                                                                        \
    }
#define G_LEAVE                                                                                    \
    {                                                                                              \
        .kind = WORLD_LEAVE                                                                        \
    }
#define G_L1_RUNS(set)                                                                             \
    {                                                                                              \
        .kind = WORLD_L1_RUNS, .b = (set)                                                          \
    }
#define G_L1_SLEEP                                                                                 \
    {                                                                                              \
        .kind = WORLD_L1_SLEEP                                                                     \
    }

/* Others */
#define H_L2_POST(n, vector)                                                                       \
    {                                                                                              \
        .kind = WORLD_L2_POST, .v = (n), .a = (vector)                                             \
    }
#define H_ENTRY(n, valid)                                                                          \
    {                                                                                              \
        .kind = WORLD_ENTRY, .v = (n), .b = (valid)                                                \
    }
#define H_FREE(page)                                                                               \
    {                                                                                              \
        .kind = WORLD_FREE, .a = (page)                                                            \
    }
#define H_GIVE(page)                                                                               \
    {                                                                                              \
        .kind = WORLD_GIVE, .a = (page)                                                            \
    }
#define H_POST(n, vector)                                                                          \
    {                                                                                              \
        .kind = WORLD_POST, .v = (n), .to = WORLD_BIT(n), .a = (vector)                            \
    }
#define H_POST_MAYBE(n, vector)                                                                    \
    {                                                                                              \
        .kind = WORLD_POST, .v = (n), .to = WORLD_BIT(n), .maybe = true, .a = (vector)             \
    }
#define H_POST_LEVEL(n, vector)                                                                    \
    {                                                                                              \
        .kind = WORLD_POST, .v = (n), .to = WORLD_BIT(n), .a = (vector), .b = 1                    \
    }
#define H_MSI(n, vector)                                                                           \
    {                                                                                              \
        .kind = WORLD_MSI, .v = (n), .to = WORLD_BIT(n), .a = (vector)                             \
    }
#define H_DEVICE(irte)                                                                             \
    {                                                                                              \
        .kind = WORLD_DEVICE, .a = (irte)                                                          \
    }
#define H_PIN(pin, level)                                                                          \
    {                                                                                              \
        .kind = WORLD_PIN, .a = (pin), .b = (level)                                                \
    }
#define H_ROUTE(pin, n, low)                                                                       \
    {                                                                                              \
        .kind = WORLD_ROUTE, .v = (n), .a = (pin), .b = (low)                                      \
    }
#define H_INHIBIT(name, set)                                                                       \
    {                                                                                              \
        .kind = WORLD_INHIBIT, .a = VAPIC_INHIBIT_##name, .b = (set)                               \
    }
#define H_LINT0(n, vector)                                                                         \
    {                                                                                              \
        .kind = WORLD_LINT0, .v = (n), .a = (vector)                                               \
    }
#define H_NMI(n)                                                                                   \
    {                                                                                              \
        .kind = WORLD_NMI, .v = (n)                                                                \
    }
#define H_POKE(n)                                                                                  \
    {                                                                                              \
        .kind = WORLD_POKE, .v = (n)                                                               \
    }
#define H_TIME(n, ns)                                                                              \
    {                                                                                              \
        .kind = WORLD_TIME, .v = (n), .b = (ns)                                                    \
    }
#define H_MOVE(n, cpu)                                                                             \
    {                                                                                              \
        .kind = WORLD_MOVE, .v = (n), .a = (cpu)                                                   \
    }
#define H_PREEMPT(n)                                                                               \
    {                                                                                              \
        .kind = WORLD_PREEMPT, .v = (n)                                                            \
    }
#define H_RESUME(n, cpu)                                                                           \
    {                                                                                              \
        .kind = WORLD_RESUME, .v = (n), .a = (cpu)                                                 \
    }
#define H_ADD(n)                                                                                   \
    {                                                                                              \
        .kind = WORLD_ADD, .v = (n)                                                                \
    }
#define H_REMOVE(n)                                                                                \
    {                                                                                              \
        .kind = WORLD_REMOVE, .v = (n)                                                             \
    }
#define H_ATTACH(irte)                                                                             \
    {                                                                                              \
        .kind = WORLD_ATTACH, .a = (irte)                                                          \
    }
#define H_DETACH(irte)                                                                             \
    {                                                                                              \
        .kind = WORLD_DETACH, .a = (irte)                                                          \
    }
#define H_AFTER(n, vector, cnt)                                                                    \
    {                                                                                              \
        .kind = WORLD_AFTER, .v = (n), .a = (vector), .b = (cnt)                                   \
    }
#define H_GA_LOG                                                                                   \
    {                                                                                              \
        .kind = WORLD_GA_LOG                                                                       \
    }
#define H_GA_LATE(n)                                                                               \
    {                                                                                              \
        .kind = WORLD_GA_LATE, .v = (n)                                                            \
    }
#define H_END_VM                                                                                   \
    {                                                                                              \
        .kind = WORLD_END_VM                                                                       \
    }
#define H_SERVE(cpu)                                                                               \
    {                                                                                              \
        .kind = WORLD_SERVE, .a = (cpu)                                                            \
    }

/* ---- The table ---- */

enum world_vcpu_flag {
    W_X2APIC = 1u << 0,    /* starts in x2APIC mode */
    W_SPINS = 1u << 1,     /* idles in the guest, not by HLT */
    W_BY_HAND = 1u << 2,   /* the program writes its EOIs, the handlers do not */
    W_CLOSED = 1u << 3,    /* starts with RFLAGS.IF = 0 */
    W_ABSENT = 1u << 4,    /* is created by H_ADD */
    W_OFF_CPU = 1u << 5,   /* loses its processor whenever it sleeps, and wakes on the free one */
    W_PREEMPTED = 1u << 6, /* has no processor at first */
    W_IN_L2 = 1u << 8,     /* W_ABSENT: creates itself, restored straight into L2 */
    W_PV = 1u << 7,        /* has KVM's paravirtual IPIs and EOIs (the word is enabled) */
};

struct world_vcpu_spec {
    const struct world_op *ops; /* NULL: idles at once */
    uint32_t flags;             /* enum world_vcpu_flag */
    uint32_t id;                /* APIC ID; 0: the vCPU's number */
    uint8_t timer;              /* vector of its LVT timer entry, one-shot; 0: masked */
};

struct world_actor_spec {
    const char *name; /* the column of the timeline; NULL: no such actor */
    const struct world_op *ops;
};

/* A pin of the I/O APIC. Its device holds the line until its handler has run `services` times. */
struct world_pin_spec {
    uint8_t vector; /* 0: no such pin */
    uint8_t vcpu;
    bool level;
    bool masked;
    uint8_t services; /* 0: the line is only moved by H_PIN */
};

/* A device behind the IOMMU, one message. */
struct world_irte_spec {
    uint8_t vector; /* 0: no such device */
    uint8_t vcpu;
    bool later; /* attached by H_ATTACH, not before the start */
};

enum world_flag {
    WORLD_NO_GA_LOG = 1u << 0,  /* AMD: the VM has no tag */
    WORLD_SUPPRESS = 1u << 1,   /* guests set SVR bit 12: EOIs are not broadcast */
    WORLD_XAPIC_HOST = 1u << 2, /* Intel: NDST in the 8-bit form */
    WORLD_UNIQUE_ID = 1u << 3,  /* knob UNIQUE_ID */
    WORLD_NO_LDR = 1u << 7,     /* no vCPU has an LDR: the two modes may mix and stay accelerated */
    WORLD_LOG_APART = 1u << 4,  /* AMD: devices do not read the GA log, an actor does: H_GA_LOG */
    WORLD_LOG_OF_ONE = 1u << 5, /* AMD: the GA log has room for one entry */
    WORLD_MAPS_AT_FAULT = 1u << 6, /* the access page is mapped when a guest faults on it */
};

/* L1's memory, in pages */
#define WORLD_L1_TABLE      0u /* AVIC physical ID table or PID-pointer table */
#define WORLD_L1_PIDS       1u
#define WORLD_L1_APIC(n)    (2u + (n))
#define WORLD_L1_LOGICAL(n) (2u + WORLD_VCPUS + (n))
#define WORLD_L1_PAGES      (2u + 2u * WORLD_VCPUS)

/* What L1 offers its L2: AVIC, x2AVIC or posted interrupts, with IPI virtualization where the
 * silicon has it. Vectors of L2's lie between 40h and 5Fh. */
enum world_nested {
    WORLD_NOT_NESTED,
    WORLD_DUMMY,
    WORLD_SHADOW,
};

struct world;

struct world_spec {
    uint32_t vcpu_count;
    struct world_vcpu_spec vcpu[WORLD_VCPUS];
    struct world_actor_spec actor[WORLD_ACTORS];
    struct world_pin_spec pin[WORLD_PINS];
    struct world_irte_spec irte[WORLD_IRTES];
    uint32_t flags;       /* enum world_flag */
    uint32_t inhibited;   /* reasons set before the start, by vapic_set_inhibit() */
    uint32_t no_features; /* VAPIC_ACCEL_ masks that this processor lacks */
    bool quirk_1235;      /* the silicon has the erratum */
    uint8_t nested;       /* enum world_nested: the strategy */
    bool reflects;        /* L1 may have to hear of L2's IPIs */
    /* What this scenario demands beside the properties; may be NULL. Single-threaded, at the end.
     */
    void (*check)(struct world *w);
};

/* ---- For ex_scenario ---- */

void world_setup(const struct ex_scenario *scenario, void *memory, uint32_t mode);
void world_check(const struct ex_scenario *scenario, void *memory);

/* The five members of struct ex_scenario that are the same for every scenario of a world. */
#define WORLD(spec) .data = (spec), .setup = world_setup, .check = world_check

#define MODES_AMD   (EX_MODE(EX_AVIC) | EX_MODE(EX_AVIC_NOIPIV) | EX_MODE(EX_X2AVIC))
#define MODES_INTEL (EX_MODE(EX_APICV) | EX_MODE(EX_APICV_IPIV))
#define MODES_ACCEL (MODES_AMD | MODES_INTEL)
#define MODES_ALL   (MODES_ACCEL | EX_MODE(EX_NONE))

/* ---- For world_spec.check ---- */

/* How often vCPU `n` took `vector` (NMIs: world_nmis()); how often it exited so far. */
uint32_t world_taken(const struct world *w, uint32_t n, uint8_t vector);
uint32_t world_nmis(const struct world *w, uint32_t n);
struct vapic *world_vcpu(struct world *w, uint32_t n);
struct vapic_vm *world_vm(struct world *w);

#endif
