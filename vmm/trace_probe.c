/* SPDX-License-Identifier: MIT */
/* USDT probes and who listens to them; see trace_probe.h. */
#include "trace_probe.h"

#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

/* Found by tracers by their names, counted up by the kernel: nothing here writes them. */
#define VAPIC_X(name, event)                                                                       \
    extern volatile unsigned short vapic_##event##_semaphore;                                      \
    volatile unsigned short vapic_##event##_semaphore __attribute__((section(".probes")));
VAPIC_EVENTS(VAPIC_X)
#undef VAPIC_X

bool vmm_trace_wanted(void)
{
    unsigned sum = 0;

#define VAPIC_X(name, event) sum |= vapic_##event##_semaphore;
    VAPIC_EVENTS(VAPIC_X)
#undef VAPIC_X
    return sum != 0;
}

/* Apart, so that there is one place for each probe. */
__attribute__((noinline)) void vmm_trace_probe(const struct vapic_event *e)
{
    switch (e->kind) {
#define VAPIC_X(name, event)                                                                       \
    case VAPIC_EVENT_##name:                                                                       \
        STAP_PROBE5(vapic, event, e->vcpu, e->arg[0], e->arg[1], e->arg[2], e->arg[3]);            \
        break;
        VAPIC_EVENTS(VAPIC_X)
#undef VAPIC_X
    case VAPIC_EVENT_COUNT:
        break;
    }
}

static void listen(struct vmm_probes *probes)
{
    bool wanted = probes->always || vmm_trace_wanted();

    if (wanted != probes->on) {
        probes->on = wanted;
        vapic_trace(probes->vm, wanted ? probes->fn : NULL, probes->ctx);
    }
}

static void look(void *ctx)
{
    struct vmm_probes *probes = ctx;

    listen(probes);
    vmm_timer_arm(&probes->timer, vmm_clock_mono(&probes->timer.loop->clock) + VMM_PROBES_LOOK_NS);
}

void vmm_probes_init(struct vmm_probes *probes, struct vapic_vm *vm, vapic_trace_fn fn, void *ctx,
                     bool always)
{
    *probes = (struct vmm_probes){.vm = vm, .fn = fn, .ctx = ctx, .always = always};
    listen(probes);
}

int vmm_probes_watch(struct vmm_probes *probes, struct vmm_evloop *loop)
{
    int rc = probes->always ? 0 : vmm_timer_init(&probes->timer, loop, look, probes);

    if (rc == 0 && !probes->always) {
        look(probes);
    }
    return rc;
}

void vmm_probes_fini(struct vmm_probes *probes)
{
    vmm_timer_fini(&probes->timer);
}
