/* SPDX-License-Identifier: MIT */
/* PV EOI for guests; see kvm_pv.h. Called by the machine's builder and on exits. */
#include "kvm_pv.h"

#include "kvm_vcpu.h"
#include "machine.h"
#include "vapic/pv.h"

/* Guest memory stays where it is as long as there are vCPUs. */
static void *map(void *ctx, struct vapic *v, uint64_t gpa, size_t size)
{
    struct vmm_machine *m = ctx;

    (void)v;
    return vmm_mem_at(&m->mem, gpa, size);
}

int vmm_pv_attach(struct vmm_vcpu *v)
{
    struct vapic_pv_config config = {
        .features = v->machine->config.pv_eoi ? VAPIC_PV_EOI : 0,
        .map = map,
    };

    if (config.features == 0) {
        return VAPIC_OK; /* what is attached costs every entry something */
    }
    return vapic_pv_attach(&v->apic, &v->pv, sizeof(v->pv), &config);
}

bool vmm_pv_read_msr(struct vmm_vcpu *v, uint32_t msr, uint64_t *value)
{
    return vapic_pv_msr_read(&v->apic, msr, value) == VAPIC_OK;
}

bool vmm_pv_write_msr(struct vmm_vcpu *v, uint32_t msr, uint64_t value)
{
    return vapic_pv_msr_write(&v->apic, msr, value) == VAPIC_OK;
}
