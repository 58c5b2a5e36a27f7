/* SPDX-License-Identifier: MIT */
/* What actors reach: the parts of shadow.h that are not in everybody's way. */
#include "shadow.h"

uint8_t shadow_readers[EX_MEMORY + 64];
uint8_t shadow_writers[EX_MEMORY + 64];
uint8_t shadow_owner[EX_MEMORY + 64];

void shadow_reset(void)
{
    memset(shadow_readers, 0, sizeof shadow_readers);
    memset(shadow_writers, 0, sizeof shadow_writers);
    memset(shadow_owner, 0, sizeof shadow_owner);
}

void shadow_own(uintptr_t start, size_t size, uint32_t actor)
{
    size_t offset = start - MACHINE_BASE;

    if (offset < EX_MEMORY && size <= EX_MEMORY - offset)
        memset(shadow_owner + offset, (int)actor + 1, size);
}

void shadow_note_slowly(size_t offset, size_t size, bool write, uint32_t actor)
{
    uint8_t *mask = write ? shadow_writers : shadow_readers;
    uint8_t bit = (uint8_t)(1u << actor);

    for (size_t i = offset; i < offset + size; i++) {
        uint8_t met = shadow_writers[i] | (write ? shadow_readers[i] : 0);

        if (!(mask[i] & bit) && met & ~bit)
            machine.grown = true;
        mask[i] |= bit;
    }
}
