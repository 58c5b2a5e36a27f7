/* SPDX-License-Identifier: MIT */
/* The back end for APICv. */
#include "backend.h"

size_t vapic_apicv_memory(const struct vapic_accel_config *config)
{
    (void)config;
    return 0;
}

void vapic_apicv_place(struct vapic_accel *accel, void *memory)
{
    (void)accel;
    (void)memory;
}

const struct vapic_backend vapic_apicv_backend = {0};
