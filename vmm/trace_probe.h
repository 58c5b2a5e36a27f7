/* SPDX-License-Identifier: MIT */
/*
 * USDT probes: one for each event of libvapic, provider "vapic", named as the event, arguments: the
 * vCPU's index (FFFFFFFFh: none) and the event's four arguments. bpftrace, perf and SystemTap find
 * them in the binary; `bpftrace -l 'usdt:/usr/bin/vapic:*'` lists them.
 *
 * While nobody listens libvapic has no listener either, and the guest pays nothing (but for a
 * machine with modelled acceleration, which always listens to itself). Tracers say that they listen
 * through the probes' semaphores, words in this program that the kernel counts up; a timer looks at
 * them once a second.
 */
#ifndef VMM_TRACE_PROBE_H
#define VMM_TRACE_PROBE_H

#include <stdbool.h>

#include "evloop.h"
#include "vapic/vapic.h"

#define VMM_PROBES_LOOK_NS 1000000000u

/* All fields are private. */
struct vmm_probes {
    struct vapic_vm *vm;
    vapic_trace_fn fn;
    void *ctx;
    struct vmm_timer timer;
    bool always;
    bool on;
};

/* Does anybody listen to any probe? */
bool vmm_trace_wanted(void);

/* Fires the event's probe. */
void vmm_trace_probe(const struct vapic_event *event);

/*
 * Has `fn` called for the VM's events, from now on if `always` is set or a probe is wanted; it ends
 * in vmm_trace_event(), which fires the probes. To be called before the VM has vCPUs: their making
 * has events.
 */
void vmm_probes_init(struct vmm_probes *probes, struct vapic_vm *vm, vapic_trace_fn fn, void *ctx,
                     bool always);

/*
 * Watches whether a probe is wanted, for events that are not traced always. Returns 0 or a negative
 * errno. vmm_probes_fini() before the loop goes; a zeroed object is left alone.
 */
int vmm_probes_watch(struct vmm_probes *probes, struct vmm_evloop *loop);
void vmm_probes_fini(struct vmm_probes *probes);

#endif
