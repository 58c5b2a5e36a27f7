/* SPDX-License-Identifier: MIT */
/*
 * libvapic's paravirtual companions: what guests use beside the APIC's registers to save exits.
 *
 *   1. Attaching to a vCPU                  4. Hyper-V: MSRs, VP assist page, AutoEOI, IPIs
 *   2. MSRs                                 5. Statistics
 *   3. KVM's hypercall that sends IPIs
 *
 * Read vapic.h first; the words [owner], [any] and [config] mean what they mean there. Everything
 * here is optional: a vCPU without a struct vapic_pv pays one predictable branch per entry and
 * exit.
 *
 * Lazy EOI. KVM's "PV EOI" and Hyper-V's "No EOI Required" are one mechanism: a word of guest
 * memory, one per vCPU, whose bit 0 the library sets before it lets the guest run when the end of
 * the interrupt in service concerns nobody but this APIC. At the end of its handler the guest tests
 * and clears the bit with one instruction. If it was set, that was the EOI, and nothing exits; if
 * not, the guest writes the EOI register.
 *
 *      vapic_enter(),      word <- 1 when: the highest vector in service is edge-triggered, nothing
 *      vapic_commit()      is pending in IRR, no acknowledge notifier is in use, and the hardware
 *                          does not handle EOIs itself (the vCPU is not accelerated)
 *      guest               old = word; word <- 0; old was 1: done, else EOI register
 *      vapic_exit()        word <- 0; old was 0: the guest has ended the vector, and the library
 *                          does what its EOI would have done; old was 1: nothing has happened
 *
 * So the bit is only ever set while the guest runs: after vapic_exit() nothing is outstanding, ISR
 * and PPR are exact, and there is nothing to save but the MSRs. An interrupt that arrives while it
 * is set kicks the vCPU, as every interrupt does; should the host not run the guest after all, a
 * further vapic_enter() or vapic_exit() takes the bit back. The library touches the word with
 * locked operations only, and believes it nothing but this one bit of whether one vector has ended.
 */
#ifndef VAPIC_PV_H
#define VAPIC_PV_H

#include "vapic/vapic.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------- */
/* 1. Attaching to a vCPU                                                                         */
/* ---------------------------------------------------------------------------------------------- */

/* What the vCPU's CPUID offers. An MSR or hypercall of something not offered fails as it would on a
 * host that does not know it. */
enum vapic_pv_feature {
    VAPIC_PV_EOI = 1u << 0,      /* KVM, leaf 40000001h, EAX[6] */
    VAPIC_PV_SEND_IPI = 1u << 1, /* KVM, leaf 40000001h, EAX[11] */
    VAPIC_PV_HYPERV = 1u << 2,   /* Hyper-V, leaf 40000003h, EAX[4]: MSRs 40000070h to 40000073h */
};

struct vapic_pv_config {
    uint32_t features; /* VAPIC_PV_ masks */

    /*
     * The host's address of `size` bytes of guest RAM at `gpa`, which lie in one page, or NULL when
     * there is no RAM. It stays valid until the guest moves or disables the word, the vCPU is reset
     * or removed, or vapic_pv_remap(). Called on the vCPU's thread, without the configuration lock.
     * NULL only without VAPIC_PV_EOI and VAPIC_PV_HYPERV.
     */
    void *(*map)(void *ctx, struct vapic *v, uint64_t gpa, size_t size);

    /*
     * The library has written to guest memory at `gpa`: for hosts that track dirty pages. On the
     * vCPU's thread. Must not wait. Optional.
     */
    void (*dirty)(void *ctx, struct vapic *v, uint64_t gpa);
};

/* Counters of one vCPU. Written by the owner. */
struct vapic_pv_stats {
    uint64_t armed;       /* times the bit was set for the guest */
    uint64_t eois;        /* vectors that the guest ended by it */
    uint64_t withdrawn;   /* times it was taken back unused */
    uint64_t auto_eois;   /* AutoEOI vectors that were injected */
    uint64_t ipi_calls;   /* hypercalls that send IPIs */
    uint64_t ipi_targets; /* vCPUs that these reached; KVM's are in vapic_stats.ipi_targets too */
};

#define VAPIC_HV_SINTS 16u

/* One vCPU's paravirtual state. The caller's memory; the fields are private, the owner's. */
struct vapic_pv {
    struct vapic_pv_config config;
    uint64_t eoi_msr, assist_msr;     /* as the guest wrote them */
    uint32_t *eoi_word, *assist_word; /* mapped; NULL: disabled, or no RAM there */
    uint32_t *word;                   /* the one in use; NULL: none */
    uint64_t word_gpa;
    bool armed; /* the bit was set and nobody has looked since */
    uint8_t armed_vector;
    uint64_t auto_eoi[4]; /* vectors that are not left in service */
    uint64_t sint[VAPIC_HV_SINTS];
    struct vapic_pv_stats stats;
};

/*
 * Gives `v` paravirtual companions, while it is outside the guest; best before it first runs, for
 * the guest may then use what its CPUID says. `size` is sizeof(struct vapic_pv); `pv` stays in use
 * until vapic_pv_detach(). VAPIC_E_ARG: unknown feature, or no map(); VAPIC_E_SIZE; VAPIC_E_BUSY:
 * `v` has some. [owner]
 */
int vapic_pv_attach(struct vapic *v, struct vapic_pv *pv, size_t size,
                    const struct vapic_pv_config *config);

/* Before vapic_remove(), or to do without from now on. VAPIC_E_ARG: `v` has none. [owner][config]
 */
int vapic_pv_detach(struct vapic *v);

/*
 * Guest memory is about to change: asks config.map() again. Call it while the old mapping is still
 * valid and map() already answers as it will be, and again when memory came back. While there is no
 * RAM behind an enabled word the guest simply writes the EOI register. [owner]
 */
void vapic_pv_remap(struct vapic *v);

/* ---------------------------------------------------------------------------------------------- */
/* 2. MSRs                                                                                        */
/* ---------------------------------------------------------------------------------------------- */

#define VAPIC_MSR_KVM_EOI      0x4B564D04u /* bit 0 enable, bit 1 zero, 63:2 address of the word */
#define VAPIC_MSR_HV_EOI       0x40000070u /* write-only, any value */
#define VAPIC_MSR_HV_ICR       0x40000071u /* 64 bits; destination as the APIC's mode has it */
#define VAPIC_MSR_HV_TPR       0x40000072u
#define VAPIC_MSR_HV_VP_ASSIST 0x40000073u /* bit 0 enable, 63:12 the page */

#define VAPIC_PV_ENABLE        1u

/*
 * RDMSR and WRMSR of the five numbers above, by the guest or by the host that loads a saved state
 * (after the APIC's image, and after guest memory). VAPIC_OK; VAPIC_GP (nothing changed): not
 * offered, a reserved bit, no RAM at the address; VAPIC_UNCLAIMED for any other number, and for
 * every number when `v` has no struct vapic_pv.
 *
 * Enabling a word clears its bit 0. INIT and RESET clear the MSRs. When both words are enabled the
 * VP assist page's is used.
 *
 * A Hyper-V ICR write takes the reserved bits of x2APIC mode in either mode; in xAPIC mode the
 * destination is bits 63:56. While IA32_APIC_BASE.EN is clear EOI, ICR and TPR raise #GP.
 */
int vapic_pv_msr_read(struct vapic *v, uint32_t msr, uint64_t *value);
int vapic_pv_msr_write(struct vapic *v, uint32_t msr, uint64_t value);

/* ---------------------------------------------------------------------------------------------- */
/* 3. KVM's hypercall that sends IPIs                                                             */
/* ---------------------------------------------------------------------------------------------- */

#define VAPIC_PV_CALL_SEND_IPI 10u

/* What a hypercall gives back in RAX when it fails. */
#define VAPIC_PV_EPERM      (-1)
#define VAPIC_PV_EINVAL     (-22)
#define VAPIC_PV_EOPNOTSUPP (-95)
#define VAPIC_PV_ENOSYS     (-1000)

/* A hypercall's registers: RAX; RBX, RCX, RDX, RSI; CPL; whether the caller runs 64-bit code. */
struct vapic_pv_call {
    uint64_t number;
    uint64_t arg[4];
    uint8_t cpl;
    bool long_mode;
};

/*
 * A hypercall of the guest. VAPIC_OK: *result is for RAX (EAX outside of 64-bit code);
 * VAPIC_UNCLAIMED: none of the library's.
 *
 * Number 10 sends an IPI to a set of APIC IDs: arg[0] and arg[1] are a bitmap of 64 or (outside of
 * 64-bit code) 32 bits each, low part first; bit n stands for APIC ID arg[2] + n; arg[3] is the low
 * word of an ICR without destination mode and shorthand. The result is the number of vCPUs that
 * accepted; VAPIC_PV_EINVAL for other ICR bits, VAPIC_PV_EOPNOTSUPP while `v` is not added,
 * VAPIC_PV_ENOSYS when not offered, VAPIC_PV_EPERM unless CPL is 0. IDs that nobody has, and IDs
 * beyond 32 bits, are skipped; no ID is a broadcast. Takes no lock. [owner]
 */
int vapic_pv_hypercall(struct vapic *v, const struct vapic_pv_call *call, int64_t *result);

/* ---------------------------------------------------------------------------------------------- */
/* 4. Hyper-V: AutoEOI, IPIs                                                                      */
/* ---------------------------------------------------------------------------------------------- */

/*
 * The vectors (bit n%64 of word n/64) whose injection is their end: they do not stay in service.
 * Hardware cannot do that, so the reason HYPERV inhibits acceleration of the VM while any vCPU has
 * such a vector. VAPIC_E_ARG: `v` has no struct vapic_pv. [owner][config]
 */
int vapic_hv_set_auto_eoi(struct vapic *v, const uint64_t vectors[4]);

/*
 * The same from the SINT registers, for hosts that leave these to the library: the guest writes
 * `value` to SINT `n` (MSR 40000090h + n): vector in 7:0, masked in 16, AutoEOI in 17. The vectors
 * are those of the unmasked SINTs with AutoEOI, and nothing else. VAPIC_GP: an unmasked SINT with a
 * vector below 16; VAPIC_E_ARG: no such SINT. RESET and INIT mask all of them. [owner][config]
 */
int vapic_hv_write_sint(struct vapic *v, uint32_t n, uint64_t value);
uint64_t vapic_hv_read_sint(const struct vapic *v, uint32_t n); /* 0 when there is none [owner] */

#define VAPIC_HV_SINT_MASKED   (UINT64_C(1) << 16)
#define VAPIC_HV_SINT_AUTO_EOI (UINT64_C(1) << 17)

/* The targets of a Hyper-V IPI. VP indices are vapic_index(): tell the guest so by its MSR. */
struct vapic_hv_targets {
    bool all;              /* every VP, the rest is ignored */
    uint64_t valid;        /* bit n: VPs 64n to 64n + 63 have a word in `banks` */
    const uint64_t *banks; /* one word per bit that is set in `valid`, lowest first */
};

#define VAPIC_HV_SUCCESS       0
#define VAPIC_HV_INVALID_INPUT 3

/*
 * Hypercalls 0Bh (`valid` 1 and one word) and 15h, decoded by the host: a fixed edge-triggered
 * interrupt to each of the targets that exists. Returns the hypercall's status: VAPIC_HV_SUCCESS,
 * or VAPIC_HV_INVALID_INPUT for a vector outside 10h to FFh. Takes no lock. [owner]
 */
int vapic_hv_send_ipi(struct vapic *v, uint64_t vector, const struct vapic_hv_targets *targets);

/* ---------------------------------------------------------------------------------------------- */
/* 5. Statistics                                                                                  */
/* ---------------------------------------------------------------------------------------------- */

/* A snapshot; zeros when `v` has no struct vapic_pv. [owner] */
void vapic_pv_get_stats(const struct vapic *v, struct vapic_pv_stats *stats);

#ifdef __cplusplus
}
#endif

#endif
