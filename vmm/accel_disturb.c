/* SPDX-License-Identifier: MIT */
/* Scripted disturbances; see accel_disturb.h. */
#include "accel_disturb.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "machine.h"

#define NS_PER_SEC 1000000000ull

struct script {
    struct vmm_machine *machine;
    void (*step)(struct script *s);
    uint64_t every_ns;
    pthread_t thread;
    bool started;
    struct vmm_inhibit_result result; /* of an inhibition: its thread's, read after its end */
    _Atomic bool set;                 /* stored before the reason is set, and after it is cleared */
    unsigned next;                    /* of the moves: the vCPU whose turn it is */
};

struct vmm_disturb {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool ending; /* guarded by lock */
    struct script script[VMM_INHIBITS_MAX + 1];
    unsigned scripts, inhibits;
};

/* ---------------------------------------------------------------------------------------------- */
/* Words                                                                                          */
/* ---------------------------------------------------------------------------------------------- */

static uint64_t unit_ns(const char *unit)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"us", 1000}, {"ms", 1000000}, {"s", NS_PER_SEC}, {"", 1000000}};

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(unit, units[i].name) == 0) {
            return units[i].ns;
        }
    }
    return 0;
}

int vmm_period_parse(const char *option, const char *text, uint64_t *ns, struct vmm_err *err)
{
    unsigned long long n;
    uint64_t unit;
    char *end;

    errno = 0;
    n = strtoull(text, &end, 10);
    unit = unit_ns(end);
    if (!isdigit((unsigned char)text[0]) || errno != 0 || unit == 0) {
        return vmm_fail(err, "--%s: '%s' is no period: give a number with us, ms or s, as 10ms",
                        option, text);
    }
    if (n < (VMM_PERIOD_MIN_NS + unit - 1) / unit || n > VMM_PERIOD_MAX_NS / unit) {
        return vmm_fail(err, "--%s: period '%s' is out of range: give one from 100us to 3600s",
                        option, text);
    }
    *ns = n * unit;
    return 0;
}

/* Reasons that belong to vCPUs have no switch for a host. */
static bool is_scriptable(uint32_t reason)
{
    return reason != VAPIC_INHIBIT_NESTED && reason != VAPIC_INHIBIT_IRQWIN;
}

static uint32_t find_reason(const char *name, size_t length)
{
    for (uint32_t i = 0; i < VAPIC_INHIBIT_COUNT; i++) {
        const char *known = vapic_inhibit_name(i);

        if (is_scriptable(i) && strlen(known) == length && strncmp(known, name, length) == 0) {
            return i;
        }
    }
    return VAPIC_INHIBIT_COUNT;
}

static void list_reasons(char *text, size_t size)
{
    uint32_t mask = 0;

    for (uint32_t i = 0; i < VAPIC_INHIBIT_COUNT; i++) {
        mask |= is_scriptable(i) ? 1u << i : 0;
    }
    vmm_inhibits_text(mask, text, size);
}

int vmm_inhibit_parse(const char *text, struct vmm_disturb_config *config, struct vmm_err *err)
{
    const char *at = strchr(text, '@');
    struct vmm_inhibit_script script;
    char list[240];
    uint32_t reason;

    if (at == NULL) {
        return vmm_fail(err, "--inhibit: '%s' has no period: give REASON@PERIOD, as BLOCKIRQ@10ms",
                        text);
    }
    reason = find_reason(text, (size_t)(at - text));
    if (reason == VAPIC_INHIBIT_COUNT) {
        list_reasons(list, sizeof(list));
        return vmm_fail(err, "--inhibit: no reason '%.*s': give one of %s", (int)(at - text), text,
                        list);
    }
    script.reason = (enum vapic_inhibit)reason;
    if (vmm_period_parse("inhibit", at + 1, &script.period_ns, err) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < config->inhibits; i++) {
        if (config->inhibit[i].reason == script.reason) {
            return vmm_fail(err, "--inhibit: %s is named twice: name each reason once",
                            vapic_inhibit_name(reason));
        }
    }
    if (config->inhibits == VMM_INHIBITS_MAX) {
        return vmm_fail(err, "--inhibit: more than %u reasons: name fewer", VMM_INHIBITS_MAX);
    }
    config->inhibit[config->inhibits++] = script;
    return 0;
}

unsigned vmm_disturb_spare(const struct vmm_disturb_config *config)
{
    return config != NULL && config->pause_ns != 0 ? 1 : 0;
}

/* ---------------------------------------------------------------------------------------------- */
/* Threads                                                                                        */
/* ---------------------------------------------------------------------------------------------- */

static bool is_set(const struct script *s)
{
    return (vapic_inhibits(&s->machine->vm).bits >> s->result.script.reason & 1) != 0;
}

static void toggle(struct script *s)
{
    bool before = is_set(s);
    bool set = !s->set;

    s->set |= set;
    vapic_set_inhibit(&s->machine->vm, s->result.script.reason, set);
    s->set = set;
    s->result.happened += is_set(s) != before;
}

static void move_next(struct script *s)
{
    struct vmm_vcpu *v = &s->machine->cpu[s->next++ % s->machine->config.cpus];

    atomic_store(&v->accel->move, true);
    atomic_store(&v->accel->leave, true);
    vmm_vcpu_prod(v);
}

/* True: the end has come. `at` is on the clock of the condition. */
static bool wait_until(struct vmm_disturb *d, uint64_t at)
{
    struct timespec ts = {(time_t)(at / NS_PER_SEC), (long)(at % NS_PER_SEC)};
    bool ending;

    pthread_mutex_lock(&d->lock);
    while (!d->ending && pthread_cond_timedwait(&d->ended, &d->lock, &ts) != ETIMEDOUT) {
    }
    ending = d->ending;
    pthread_mutex_unlock(&d->lock);
    return ending;
}

uint64_t vmm_disturb_time(uint64_t due, uint64_t now, uint64_t every_ns)
{
    return now > due && now - due > VMM_DISTURB_LATE_NS ? now + every_ns / 2 : due;
}

/* What was asked for is what the time asks for, however far the script has got. */
static void *run_script(void *arg)
{
    struct script *s = arg;
    uint64_t begin = vmm_clock_mono(&vmm_clock_host);
    uint64_t due = begin + s->every_ns;
    uint64_t at = due;

    while (!wait_until(s->machine->disturb, at)) {
        s->step(s);
        due += s->every_ns;
        at = vmm_disturb_time(due, vmm_clock_mono(&vmm_clock_host), s->every_ns);
    }
    s->result.requested = (vmm_clock_mono(&vmm_clock_host) - begin) / s->every_ns;
    return NULL;
}

static void add_scripts(struct vmm_machine *m, struct vmm_disturb *d)
{
    const struct vmm_disturb_config *config = m->config.disturb;

    for (unsigned i = 0; i < config->inhibits; i++) {
        d->script[d->scripts++] = (struct script){
            .machine = m,
            .step = toggle,
            .every_ns = config->inhibit[i].period_ns / 2,
            .result.script = config->inhibit[i],
        };
    }
    d->inhibits = d->scripts;
    if (config->pause_ns != 0) {
        d->script[d->scripts++] =
            (struct script){.machine = m, .step = move_next, .every_ns = config->pause_ns};
    }
}

int vmm_disturb_start(struct vmm_machine *m, struct vmm_err *err)
{
    struct vmm_disturb *d;
    pthread_condattr_t attr;

    if (m->config.disturb == NULL || m->accel == NULL) {
        return 0;
    }
    d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return vmm_fail(err, "--inhibit, --pause-vcpu: no memory");
    }
    m->disturb = d;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->ended, &attr);
    pthread_condattr_destroy(&attr);
    add_scripts(m, d);
    for (unsigned i = 0; i < d->scripts; i++) {
        int rc = pthread_create(&d->script[i].thread, NULL, run_script, &d->script[i]);

        if (rc != 0) {
            vmm_disturb_stop(m);
            return vmm_fail(err, "--inhibit, --pause-vcpu: no thread: %s", strerror(rc));
        }
        d->script[i].started = true;
    }
    return 0;
}

void vmm_disturb_stop(struct vmm_machine *m)
{
    struct vmm_disturb *d = m->disturb;

    if (d == NULL) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    d->ending = true;
    pthread_cond_broadcast(&d->ended);
    pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < d->scripts; i++) {
        if (d->script[i].started) {
            pthread_join(d->script[i].thread, NULL);
            d->script[i].started = false;
        }
        if (d->script[i].set) {
            vapic_set_inhibit(&m->vm, d->script[i].result.script.reason, false);
        }
    }
}

uint32_t vmm_disturb_held(const struct vmm_machine *m)
{
    uint32_t mask = 0;

    for (unsigned i = 0; m->disturb != NULL && i < m->disturb->inhibits; i++) {
        const struct script *s = &m->disturb->script[i];

        mask |= s->set ? 1u << s->result.script.reason : 0;
    }
    return mask;
}

unsigned vmm_disturb_results(const struct vmm_machine *m,
                             struct vmm_inhibit_result results[VMM_INHIBITS_MAX])
{
    unsigned count = m->disturb != NULL ? m->disturb->inhibits : 0;

    for (unsigned i = 0; i < count; i++) {
        results[i] = m->disturb->script[i].result;
    }
    return count;
}

void vmm_disturb_free(struct vmm_machine *m)
{
    free(m->disturb);
    m->disturb = NULL;
}
