/* SPDX-License-Identifier: MIT */
/* The time line of a VM's inhibition; see accel_timeline.h. */
#include "accel_timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool vmm_timeline_init(struct vmm_timeline *t)
{
    memset(t, 0, sizeof(*t));
    t->entry = calloc(VMM_TIMELINE_MAX, sizeof(*t->entry));
    pthread_mutex_init(&t->lock, NULL);
    return t->entry != NULL;
}

void vmm_timeline_fini(struct vmm_timeline *t)
{
    free(t->entry);
    t->entry = NULL;
}

static void note(struct vmm_timeline *t)
{
    if (t->count < VMM_TIMELINE_MAX) {
        t->entry[t->count++] = (struct vmm_timeline_entry){t->last - t->begin, t->mask};
    }
}

/* The time since the last change goes to the reasons that were in force. */
static void account(struct vmm_timeline *t, uint64_t now)
{
    uint64_t passed = now > t->last ? now - t->last : 0;

    t->last += passed;
    t->total_ns += passed;
    t->any_ns += t->mask != 0 ? passed : 0;
    for (unsigned i = 0; i < VAPIC_INHIBIT_COUNT; i++) {
        t->reason_ns[i] += (t->mask >> i & 1) != 0 ? passed : 0;
    }
}

void vmm_timeline_begin(struct vmm_timeline *t, uint64_t now, uint32_t mask)
{
    pthread_mutex_lock(&t->lock);
    t->begin = t->last = now;
    t->mask = mask;
    t->running = true;
    note(t);
    pthread_mutex_unlock(&t->lock);
}

void vmm_timeline_change(struct vmm_timeline *t, uint64_t now, uint32_t mask)
{
    pthread_mutex_lock(&t->lock);
    if (t->running && mask != t->mask) {
        account(t, now);
        t->mask = mask;
        t->changes++;
        note(t);
    }
    pthread_mutex_unlock(&t->lock);
}

void vmm_timeline_end(struct vmm_timeline *t, uint64_t now)
{
    pthread_mutex_lock(&t->lock);
    if (t->running) {
        account(t, now);
        t->running = false;
    }
    pthread_mutex_unlock(&t->lock);
}

double vmm_timeline_share(const struct vmm_timeline *t, unsigned reason)
{
    uint64_t ns = reason < VAPIC_INHIBIT_COUNT ? t->reason_ns[reason] : t->any_ns;

    return t->total_ns != 0 ? (double)ns / (double)t->total_ns : 0;
}

const char *vmm_inhibits_text(uint32_t mask, char *text, size_t size)
{
    size_t used = 0;

    snprintf(text, size, "none");
    for (unsigned i = 0; i < VAPIC_INHIBIT_COUNT && used < size; i++) {
        if ((mask >> i & 1) != 0) {
            used += (size_t)snprintf(text + used, size - used, "%s%s", used != 0 ? " " : "",
                                     vapic_inhibit_name(i));
        }
    }
    return text;
}
