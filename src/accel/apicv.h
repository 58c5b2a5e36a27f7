/* SPDX-License-Identifier: MIT */
/*
 * What the files of the APICv back end share: apicv.c (controls, entry, PID-pointer table),
 * apicv_eoi.c (EOI-exit bitmap), apicv_exit.c (exits), posted.c (descriptor, sleeping).
 */
#ifndef VAPIC_ACCEL_APICV_H
#define VAPIC_ACCEL_APICV_H

#include "backend.h"

/* The fields of vmcs01 in which bits change while the VM runs; index of vapic_accel_vcpu.told. */
enum apicv_field {
    APICV_FIELD_PIN,
    APICV_FIELD_PRIMARY,
    APICV_FIELD_SECONDARY,
    APICV_FIELD_TERTIARY,
    APICV_FIELD_THRESHOLD,
    APICV_FIELD_EOI, /* four of them */
    APICV_FIELD_COUNT = APICV_FIELD_EOI + 4,
};

_Static_assert(APICV_FIELD_COUNT == VAPIC_APICV_FIELDS, "told.field[] has one entry per field");

static inline bool has_ipiv(const struct vapic *v)
{
    return (v->vm->accel->features & VAPIC_ACCEL_IPIV) != 0;
}

/* apicv.c: our bits of the field become `value`, if they are not. vmcs01 is current. */
void vapic_apicv_tell(struct vapic *v, uint32_t field, uint64_t value);

/* apicv_eoi.c: loads the bitmap for what may be ended from now on. vmcs01 is current. */
void vapic_apicv_load_eoi_exits(struct vapic *v);

/* posted.c: the descriptor's control word, see there. */
void vapic_posted_attach(struct vapic *v);
void vapic_posted_load(struct vapic *v);
void vapic_posted_put(struct vapic *v, bool blocking);
void vapic_posted_detach(struct vapic *v);
/* NDST for a vCPU that runs, or sleeps, there: in its place in the word. */
uint64_t vapic_posted_ndst(const struct vapic *v, const struct vapic_pcpu *pcpu);

#endif
