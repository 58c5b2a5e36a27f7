/* SPDX-License-Identifier: MIT */
/*
 * What the files of the world share: world.h has the picture. Everything lies in the memory that
 * world_setup() is given. Words that several actors touch are touched by ex_read(), ex_write() and
 * so on, or by the library; the rest says whose it is.
 */
#ifndef VAPIC_EXPLORE_WORLD_PARTS_H
#define VAPIC_EXPLORE_WORLD_PARTS_H

#include "properties.h"
#include "vapic/accel.h"
#include "vapic/nested.h"
#include "vapic/pv.h"
#include "vapic/silicon.h"
#include "world.h"

#define FIRST_HPA      0x100000000ull
#define START_NS       1000000ull /* the clock at the start */
#define PAGE           4096u
#define KICK_VECTOR    0xF0u /* makes a processor leave the guest */
#define NOTIFY_VECTOR  0xF1u
#define WAKEUP_VECTOR  0xF2u
#define NESTED_VECTOR  0xF4u /* notifies L2 */
#define L1_NOTIFY      0xE1u /* L1's vector for the same */
#define GA_LOG_SIZE    8u
#define LENGTH         3u /* of a guest's instruction */
#define RTE_MASKED     (1u << 16)
#define RTE_LEVEL      (1u << 15)
#define RTE_REMOTE_IRR (1u << 14)
#define NOWHERE        0u /* world_vcpu.where: no processor; else processor + 1 */

enum insn_kind { INSN_MMIO, INSN_MSR, INSN_CR8, INSN_HLT };

/* An instruction of the guest that the silicon or the library executes. */
struct insn {
    enum insn_kind kind;
    bool write;
    uint64_t address; /* guest-physical, or MSR */
    uint64_t value;
};

/* Why the guest was left. */
enum exited {
    EXIT_BOUNDARY, /* nothing was under way */
    EXIT_INSN,     /* the instruction's */
    EXIT_OWN,      /* the guest asked for it */
};

/* How an exit's handler ended. */
enum handled {
    HANDLED_DONE,  /* the instruction is complete */
    HANDLED_GP,    /* it faults */
    HANDLED_RETRY, /* nothing has happened: it is executed again */
};

struct world;

/*
 * The sequential reference of one vCPU, and its accounts. Invisible, so what it says must follow
 * from what its actors have read and written visibly: two ways to one visible state are one.
 */
struct reference {
    uint8_t sent[256], taken[256];
    uint32_t due[8]; /* sent since it was last taken: must still come */
    uint32_t may[8]; /* the same, of messages that may be dropped */
    uint32_t isr[8];
    uint8_t tpr;
    uint32_t line_seen[WORLD_PINS]; /* when its vector was last taken */
    uint32_t served[WORLD_PINS];    /* runs of its handler since the line was last lowered */
    uint32_t nmis, extints;         /* taken */
    uint32_t nmis_sent, nmis_may, extints_sent;
    uint32_t eois_of_level, eois_seen; /* levels ended by the guest; host.eoi() */
};

/* Of a vCPU whose L1 runs an L2 with an APIC. */
struct world_l2 {
    struct vapic_nested_vcpu lib;
    uint32_t woken; /* by L1; any actor, by ex_ functions */
    /* Constant */
    uint8_t *msrs02, *vmcb12;
    bool x2;
    /* Owner */
    struct vapic_vmcs12 vmcs12;
    struct vapic_sil_cpu *last;
    uint64_t uses[2];     /* pages of L1's that 02 names, host-physical */
    uint64_t controls[4]; /* of vmcs02, as L2 was entered */
    uint8_t eois;
    bool inside;   /* the program is L2's: L1 enters it again and again */
    bool asleep;   /* L1 has put it to sleep */
    bool notified; /* L1 has taken its notification vector since L2 was left */
    uint8_t taken[256];
    /* The reference, as struct reference */
    uint8_t sent[256];
    uint32_t due[8];
};

struct world_vcpu {
    struct vapic apic; /* first: struct vapic * is struct world_vcpu * */
    struct vapic_accel_vcpu accel;
    struct vapic_pv pv;
    uint32_t pv_word __attribute__((aligned(64))); /* guest memory */
    /* Any actor, by ex_ functions */
    uint32_t where;   /* processor + 1 */
    uint32_t woken;   /* by host.notify() */
    uint32_t kicked;  /* without a back end */
    uint32_t watched; /* bit of each actor that has not seen it outside yet; 0 at each exit */
    uint32_t order;   /* of the scheduler: a processor + 1, or ORDER_PUT */
    uint32_t exists;
    uint32_t stopped;
    uint32_t deliveries; /* grows when `ref.taken` does */
    uint32_t sends;      /* grows with each message to it; only with `repeats` */
    uint32_t armed;      /* its timer: when, after START_NS; 0: not */
    /* Constant */
    struct world *w;
    const struct world_vcpu_spec *spec;
    uint32_t n, id;
    bool scheduled; /* the scheduler gives orders to it */
    bool repeats;   /* a vector is sent to it twice: what came between matters */
    uint8_t *page, *vmcb, *vmcb02;
    uint8_t *msrs; /* MSR permission map or bitmap */
    /* Owner */
    struct vapic_sil_vmcs vmcs, vmcs02;
    struct vapic_sil_cpu *cpu, *last; /* where it runs, and ran last */
    struct vapic_entry entry;
    const struct world_op *op;
    uint8_t phase;    /* of an operation of several instructions */
    uint8_t injected; /* enum vapic_inject: in the injection slot, not seen delivered yet */
    uint8_t extint;   /* vector fetched from the 8259 and not delivered yet */
    uint8_t lint0;    /* vector that the 8259 has */
    uint8_t eois;     /* handlers that still have to write theirs */
    uint8_t service;  /* set of pins whose device the handler still has to serve */
    bool guest_if, asleep, spinning, l2, x2apic, off;
    struct reference ref;
    struct world_l2 l2s;
};

/* Lines of devices: bit 0 the level, above it the number of changes. */
#define LINE_HIGH 1u
#define LINE_STEP 2u

/* What differs between the vendors. */
struct world_vendor {
    enum vapic_sil_vendor silicon;
    void (*create)(struct world_vcpu *v); /* the host's part of the control block */
    enum vapic_sil_result (*enter)(struct world_vcpu *v);
    uint8_t (*cr8)(struct world_vcpu *v);                          /* after an exit */
    enum handled (*exit)(struct world_vcpu *v, struct insn *insn); /* after vapic_exit() */
    void (*flush)(struct world_vcpu *v);
    void (*intercept)(struct world_vcpu *v, const struct vapic_msr_pass *pass);
    void (*create_l2)(struct world_vcpu *v);
    void (*check)(struct world_vcpu *v); /* tables and descriptors, at the end */
    uint64_t leave_code;                 /* of an exit for an I/O instruction */
};

extern const struct world_vendor world_amd, world_intel;

struct world {
    struct vapic_vm vm;
    struct vapic_accel accel;
    struct vapic_platform platform;
    struct vapic_sil silicon;
    struct vapic_ioapic io;
    struct vapic_pin pins[24];
    struct vapic_sil_cpu *by_id[WORLD_CPUS];
    struct vapic_sil_cpu cpu[WORLD_CPUS];
    struct vapic_pcpu pcpu[WORLD_CPUS];
    struct world_vcpu v[WORLD_VCPUS];
    struct vapic_sil_amd_iommu iommu;
    struct vapic_irte irte[WORLD_IRTES];
    uint64_t irte_words[WORLD_IRTES][2] __attribute__((aligned(16)));
    uint64_t ga_log[GA_LOG_SIZE];
    /* Any actor, by ex_ functions */
    uint32_t lock, page_lock, page_mapped, time;
    uint32_t line[WORLD_PINS], line_lock[WORLD_PINS];
    uint32_t gone;                 /* vapic_accel_fini() has returned; only with `ends` */
    uint32_t messages;             /* of devices through the AMD IOMMU: odd: one is under way */
    uint32_t calls[EX_MAX_ACTORS]; /* odd: in the library; only with `quiesces` */
    /* Constant */
    const struct world_spec *spec;
    const struct world_vendor *vendor; /* NULL: the library alone */
    uint32_t mode, features;
    bool quiesces, ends;
    uint8_t *scratch; /* the APIC access page */
    uint64_t *table;  /* what vapic_accel_init() was given */
    uint32_t level_vectors[8];
    size_t used;
    /* L1's memory */
    struct vapic_nested nested;
    uint64_t *nested_memory;
    size_t nested_size;
    uint8_t *l1;
    uint32_t tracked;                 /* WORLD_L1_TABLE; any actor, by ex_ functions */
    uint32_t l1_gone[WORLD_L1_PAGES]; /* the same */
    uint32_t l1_pins[WORLD_L1_PAGES]; /* configuration lock */
};

#define ORDER_PUT UINT32_MAX

static inline bool bit_of(const uint32_t set[8], uint8_t vector)
{
    return (set[vector >> 5] >> (vector & 31)) & 1;
}

static inline void set_bit(uint32_t set[8], uint8_t vector)
{
    set[vector >> 5] |= 1u << (vector & 31);
}

static inline void clear_bit(uint32_t set[8], uint8_t vector)
{
    set[vector >> 5] &= ~(1u << (vector & 31));
}

/* ---- world.c ---- */

uint64_t world_hpa(const struct world *w, const void *memory);
void world_require(bool condition, const char *what); /* the scenario or this room is wrong */
void world_create_vcpu(struct world_vcpu *v);
void world_start_vcpu(struct world_vcpu *v);
struct vapic_now world_now(const struct world *w);
void world_attach(struct world *w, uint32_t irte);

/* ---- world_host.c ---- */

extern const struct vapic_host world_host;
extern const struct vapic_sil_host world_silicon;
void world_act(struct world_vcpu *v, enum vapic_action action);
void world_kick(struct world_vcpu *v);
/* A guest faulted on the access page. True: it is mapped now, the instruction is to be retried. */
bool world_map_page(struct world *w);
/* An interrupt handler of the host, on processor `cpu`. */
void world_handle_interrupt(struct world *w, uint32_t cpu, uint8_t vector);
/* All that are pending. True: a kick was among them. */
bool world_take_interrupts(struct world *w, struct vapic_sil_cpu *cpu);
bool world_cpu_pending(const struct vapic_sil_cpu *cpu);

/* The actor is inside the library: for host.quiesce(). */
void world_call_begin(struct world *w);
void world_call_end(struct world *w);

/* ---- world_guest.c ---- */

/* From VM entry to VM exit; `insn`: the instruction that EXIT_INSN means. */
enum exited world_run_guest(struct world_vcpu *v, struct insn *insn);
void world_end_insn(struct world_vcpu *v, const struct insn *insn); /* complete, by whomever */

enum next {
    NEXT_INSN,  /* an instruction for the silicon or the library */
    NEXT_AGAIN, /* done already: look at the boundary */
    NEXT_WAIT,  /* a loop that waits for an interrupt */
    NEXT_LEAVE, /* an instruction that exits for reasons of its own */
};

/* ---- world_nested.c ---- */

/* The vCPU runs an L2 with an APIC of its own. */
static inline bool in_l2(const struct world_vcpu *v)
{
    return v->l2 && v->w->spec->nested;
}

size_t world_take_nested(struct world *w, void *memory); /* NULL: how much */
void world_attach_l2(struct world_vcpu *v);
void world_restore_l2(struct world_vcpu *v);
/* True: the instruction is L1's hypervisor's, or L1 is about to enter L2. */
bool world_l1_leaves(const struct world_vcpu *v);
bool world_serve_l1(struct world_vcpu *v); /* that instruction */
/* After vapic_enter() with 02 current. True: it is not entered now. */
bool world_l2_turn(struct world_vcpu *v);
enum vapic_sil_result world_enter_l2(struct world_vcpu *v);
enum handled world_exit_l2(struct world_vcpu *v, struct insn *insn);
void world_l2_sent(struct world_vcpu *v, const struct world_op *op);
void world_l2_delivered(struct world_vcpu *v, uint8_t vector);
void world_l2_step(struct world *w, const struct world_op *op);
void world_l2_check(struct world_vcpu *v);       /* at the end */
void world_check_01(const struct world_vcpu *v); /* before L1 is entered */
void world_l2_notify(struct world_vcpu *v);

/* ---- world_vcpu.c ---- */

void world_vcpu_main(void *arg);
enum handled world_emulate(struct world_vcpu *v, struct insn *insn);
void world_load(struct world_vcpu *v, uint32_t cpu);
/* At the end of a run: out of the guest, so that the registers may be looked at. */
void world_leave(struct world_vcpu *v);

/* ---- world_actor.c ---- */

/* The device behind a pin moves its line. */
void world_line(struct world *w, uint32_t pin, bool high);

struct world_actor_arg {
    struct world *w;
    const struct world_op *ops;
};

void world_actor_main(void *arg);

/* ---- properties.c ---- */

void world_sent(struct world *w, const struct world_op *op, uint8_t vector);
void world_sent_to(struct world_vcpu *v, uint8_t vector, bool maybe);
void world_delivered(struct world_vcpu *v, uint8_t vector);
void world_ended(struct world_vcpu *v);                    /* the guest wrote EOI */
void world_eoi_seen(struct world_vcpu *v, uint8_t vector); /* host.eoi() */
void world_forgotten(struct world_vcpu *v);                /* INIT, RESET: all but NMIs */
void world_check_entry(struct world_vcpu *v);              /* before VMRUN */
void world_check_end(struct world *w);

#endif
