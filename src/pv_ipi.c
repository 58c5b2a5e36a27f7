/* SPDX-License-Identifier: MIT */
/*
 * IPIs that guests send by a hypercall: KVM's to a bitmap of APIC IDs, Hyper-V's to a set of VP
 * indices. Each target is looked up by itself and posted to; no lock, and no look at vCPUs that are
 * not in the set. Called by the owner of the sender.
 */
#include "fabric.h"
#include "internal.h"

/* ---- KVM ---- */

#define SENT_BITS (APIC_ICR_VECTOR | APIC_ICR_DM | APIC_ICR_ASSERT | APIC_ICR_LEVEL)

/*
 * A bit names one vCPU by its physical ID and never everybody. ID FFh needs another spelling, for
 * to vCPUs in xAPIC mode that number is the broadcast: in the logical form of x2APIC mode it
 * reaches the vCPU with this ID and matches no xAPIC's LDR, whose low byte is zero in it.
 */
static uint32_t send_to_id(struct vapic *v, uint32_t icr, uint32_t id)
{
    struct vapic_msg msg = {icr, id, v->index, 0};

    if (id == APIC_DEST_ALL_8) {
        msg.icr |= APIC_ICR_LOGICAL;
        msg.dest = LDR_OF_ID(id);
    }
    return vapic_fabric_deliver(v->vm, msg).accepted;
}

static uint32_t send_to_bitmap(struct vapic *v, uint32_t icr, uint64_t bitmap, uint64_t first)
{
    uint32_t accepted = 0;

    for (; bitmap != 0; bitmap &= bitmap - 1) {
        uint64_t id = first + (uint32_t)__builtin_ctzll(bitmap);

        /* FFFFFFFFh is nobody's ID, and beyond it there are none. */
        if (id >= APIC_DEST_ALL_32)
            break;
        accepted += send_to_id(v, icr, (uint32_t)id);
    }
    return accepted;
}

static int64_t send_ipi(struct vapic *v, const struct vapic_pv_call *call)
{
    uint64_t mask = call->long_mode ? UINT64_MAX : UINT32_MAX;
    uint32_t bits = call->long_mode ? 64 : 32;
    uint32_t first = (uint32_t)call->arg[2], icr = (uint32_t)call->arg[3];
    uint32_t accepted;

    if (v->index == VAPIC_NO_INDEX)
        return VAPIC_PV_EOPNOTSUPP;
    if (icr & (APIC_ICR_LOGICAL | APIC_ICR_SHORTHAND))
        return VAPIC_PV_EINVAL;
    icr &= SENT_BITS;
    accepted = send_to_bitmap(v, icr, call->arg[0] & mask, first);
    accepted += send_to_bitmap(v, icr, call->arg[1] & mask, (uint64_t)first + bits);
    v->stats.ipis_sent++;
    v->stats.ipi_targets += accepted;
    v->pv->stats.ipi_calls++;
    v->pv->stats.ipi_targets += accepted;
    return accepted;
}

int vapic_pv_hypercall(struct vapic *v, const struct vapic_pv_call *call, int64_t *result)
{
    uint64_t number = call->long_mode ? call->number : (uint32_t)call->number;

    if (v->pv == NULL || number != VAPIC_PV_CALL_SEND_IPI)
        return VAPIC_UNCLAIMED;
    if (call->cpl != 0)
        *result = VAPIC_PV_EPERM;
    else if (!(v->pv->config.features & VAPIC_PV_SEND_IPI))
        *result = VAPIC_PV_ENOSYS;
    else
        *result = send_ipi(v, call);
    return VAPIC_OK;
}

/* ---- Hyper-V ---- */

static uint32_t send_to_vp(struct vapic *v, uint32_t index, uint8_t vector)
{
    struct vapic *target = vapic_at(v->vm, index);
    enum vapic_action action;
    bool accepted;

    if (target == NULL)
        return 0;
    action = vapic_post(target, vector, false, &accepted);
    if (action != VAPIC_ACTION_NONE)
        v->vm->host.notify(v->vm->ctx, target, action);
    return accepted;
}

static uint32_t send_to_all(struct vapic *v, uint8_t vector)
{
    uint32_t top = slots_end(v->vm), accepted = 0;

    for (uint32_t index = 0; index < top; index++)
        accepted += send_to_vp(v, index, vector);
    return accepted;
}

static uint32_t send_to_banks(struct vapic *v, const struct vapic_hv_targets *t, uint8_t vector)
{
    const uint64_t *bank = t->banks;
    uint32_t accepted = 0;

    for (uint64_t valid = t->valid; valid != 0; valid &= valid - 1, bank++) {
        uint32_t first = 64 * (uint32_t)__builtin_ctzll(valid);

        for (uint64_t bits = *bank; bits != 0; bits &= bits - 1)
            accepted += send_to_vp(v, first + (uint32_t)__builtin_ctzll(bits), vector);
    }
    return accepted;
}

int vapic_hv_send_ipi(struct vapic *v, uint64_t vector, const struct vapic_hv_targets *targets)
{
    uint32_t accepted;

    if (vector < APIC_FIRST_VECTOR || vector > 0xFF)
        return VAPIC_HV_INVALID_INPUT;
    if (targets->all)
        accepted = send_to_all(v, (uint8_t)vector);
    else
        accepted = send_to_banks(v, targets, (uint8_t)vector);
    v->stats.ipis_sent++;
    v->stats.ipi_targets += accepted;
    if (v->pv != NULL) {
        v->pv->stats.ipi_calls++;
        v->pv->stats.ipi_targets += accepted;
    }
    return VAPIC_HV_SUCCESS;
}
