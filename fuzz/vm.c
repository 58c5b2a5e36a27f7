/* SPDX-License-Identifier: MIT */
/* See vm.h. */
#include "vm.h"

#include "vapic/arch/apic.h"

static struct fuzz_vm machine;
static struct fuzz_vm made[FUZZ_VM_KINDS];
static bool is_made[FUZZ_VM_KINDS];

/* ---- The host ---- */

static uint32_t number(const struct fuzz_vm *m, const struct vapic *v)
{
    return (uint32_t)(v - m->v);
}

static void host_lock(void *ctx)
{
    struct fuzz_vm *m = ctx;

    fuzz_check(!m->locked, "the configuration lock is not recursive");
    m->locked = true;
}

static void host_unlock(void *ctx)
{
    struct fuzz_vm *m = ctx;

    fuzz_check(m->locked, "the configuration lock is not held");
    m->locked = false;
}

static void host_quiesce(void *ctx)
{
    struct fuzz_vm *m = ctx;

    fuzz_check(!m->locked, "quiesce() under the configuration lock");
}

void fuzz_act(struct fuzz_vm *m, struct vapic *v, enum vapic_action action)
{
    uint32_t n = number(m, v);

    fuzz_check(n < FUZZ_VCPUS, "an action for no vCPU");
    fuzz_check(action <= VAPIC_ACTION_WAKE, "action %d without a back end", (int)action);
    fuzz_check(action != VAPIC_ACTION_WAKE || (m->blocked[n] && !m->woken[n]),
               "vCPU %u: woken without a vapic_block(), or twice", n);
    if (action == VAPIC_ACTION_WAKE)
        m->woken[n] = true;
}

static void host_notify(void *ctx, struct vapic *target, enum vapic_action action)
{
    fuzz_check(action != VAPIC_ACTION_NONE, "notify() for nothing");
    fuzz_act(ctx, target, action);
}

static void host_eoi(void *ctx, struct vapic *v, uint8_t vector)
{
    (void)v;
    (void)vector;
    ((struct fuzz_vm *)ctx)->eois++;
}

static void host_gsi_ack(void *ctx, uint32_t gsi)
{
    struct fuzz_vm *m = ctx;

    fuzz_check(gsi < FUZZ_GSIS, "an acknowledgement of GSI %u", gsi);
    /* A line that goes high at once would never end. */
    if (m->resample && m->acks++ % 4 == 3)
        vapic_gsi_set(&m->vm, gsi, 0, true);
}

static void host_delay(void *ctx, struct vapic_ioapic *io, uint32_t pin, uint64_t delay_ns)
{
    struct fuzz_vm *m = ctx;

    fuzz_check(io == &m->io && pin < FUZZ_PINS && delay_ns > 0, "a pause of pin %u", pin);
    m->pauses++;
    m->paused_pin = pin;
}

static void *pv_map(void *ctx, struct vapic *v, uint64_t gpa, size_t size)
{
    struct fuzz_vm *m = ctx;

    (void)v;
    return gpa < FUZZ_RAM && size <= FUZZ_RAM - gpa ? m->ram + gpa : NULL;
}

static const struct vapic_host host = {
    .size = sizeof(struct vapic_host),
    .lock = host_lock,
    .unlock = host_unlock,
    .quiesce = host_quiesce,
    .notify = host_notify,
    .eoi = host_eoi,
    .gsi_ack = host_gsi_ack,
    .ioapic_delay = host_delay,
};

/* ---- Making ---- */

static void make_vcpu(struct fuzz_vm *m, uint32_t n)
{
    static const struct vapic_pv_config pv = {
        .features = VAPIC_PV_EOI | VAPIC_PV_SEND_IPI | VAPIC_PV_HYPERV, .map = pv_map};
    struct vapic_config config = {
        .id = n == 2 && m->kind & FUZZ_X2APIC ? 0x12345 : n,
        .features = VAPIC_FEATURE_X2APIC | VAPIC_FEATURE_TSC_DEADLINE | VAPIC_FEATURE_EOI_SUPPRESS,
        .bsp = n == 0,
    };
    uint32_t svr = APIC_SVR_ENABLE | APIC_SVR_VECTOR;
    struct vapic *v = &m->v[n];

    if (m->kind & FUZZ_EXTENDED)
        config.features |= VAPIC_FEATURE_CMCI | VAPIC_FEATURE_AMD_EXT;
    fuzz_check(vapic_init(v, sizeof(*v), &m->vm, &config, m->page[n]) == VAPIC_OK, "init");
    fuzz_check(vapic_pv_attach(v, &m->pv[n], sizeof(m->pv[n]), &pv) == VAPIC_OK, "pv");
    fuzz_check(vapic_add(v) == VAPIC_OK, "add");
    m->present[n] = true;
    fuzz_check(vapic_load_base(v, vapic_base(v) | APIC_BASE_EN |
                                      (m->kind & FUZZ_X2APIC ? APIC_BASE_EXTD : 0)) == VAPIC_OK,
               "base");
    if (m->kind & FUZZ_X2APIC)
        vapic_msr_write(v, MSR_X2APIC_FIRST + (APIC_SVR >> 4), svr, m->now);
    else
        vapic_mmio_write(v, APIC_SVR, &svr, sizeof(svr), m->now);
}

/* From the first vCPU to the others, as firmware does. */
static void start_others(struct fuzz_vm *m)
{
    static const uint32_t messages[] = {APIC_DM_INIT | APIC_ICR_ASSERT, APIC_DM_SIPI | 8};

    for (uint32_t i = 0; i < 2; i++) {
        vapic_send(&m->vm, (struct vapic_msg){.icr = messages[i] | APIC_ICR_ALL_EXCL,
                                              .source = vapic_index(&m->v[0])});
        for (uint32_t n = 1; n < FUZZ_VCPUS; n++)
            fuzz_step(m, n, VAPIC_CAN_INIT);
    }
}

static void make(struct fuzz_vm *m, unsigned kind)
{
    struct vapic_vm_config config = {.max_vcpus = FUZZ_VCPUS, .max_gsis = FUZZ_GSIS};
    struct vapic_ioapic_config io = {.pins = FUZZ_PINS};

    memset(m, 0, sizeof(*m));
    m->kind = kind;
    m->now = (struct vapic_now){1000000, 1000000};
    config.knobs = kind & FUZZ_KVM_PROFILE ? VAPIC_PROFILE_KVM : VAPIC_PROFILE_MANUAL;
    if (kind & FUZZ_ALL_KNOBS)
        config.knobs ^= (1u << VAPIC_KNOB_COUNT) - 1;
    config.knobs_set = true;
    config.count_received = true;
    config.msi_dest = kind & FUZZ_X2APIC ? VAPIC_MSI_DEST_32 : VAPIC_MSI_DEST_8;
    fuzz_check(vapic_vm_memory(&config) <= FUZZ_MEMORY, "FUZZ_MEMORY is too small");
    fuzz_check(vapic_vm_init(&m->vm, sizeof(m->vm), &config, &host, m, m->memory, FUZZ_MEMORY) ==
                   VAPIC_OK,
               "VM");
    fuzz_check(vapic_ioapic_init(&m->io, sizeof(m->io), &m->vm, &io, m->pins) == VAPIC_OK, "IO");
    for (uint32_t n = 0; n < FUZZ_VCPUS; n++)
        make_vcpu(m, n);
    start_others(m);
}

struct fuzz_vm *fuzz_vm(unsigned kind)
{
    kind %= FUZZ_VM_KINDS;
    if (!is_made[kind]) {
        make(&machine, kind);
        made[kind] = machine;
        is_made[kind] = true;
    }
    memcpy(&machine, &made[kind], sizeof(machine));
    return &machine;
}

/* ---- Looking ---- */

uint32_t fuzz_page(const struct fuzz_vm *m, uint32_t n, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, m->page[n] + offset, sizeof(value));
    return value;
}

int fuzz_highest(const struct fuzz_vm *m, uint32_t n, uint32_t base)
{
    for (uint32_t i = 8; i-- > 0;) {
        uint32_t word = fuzz_page(m, n, base + 16 * i);

        if (word != 0)
            return (int)(32 * i + 31 - (uint32_t)__builtin_clz(word));
    }
    return -1;
}

bool fuzz_bit(const struct fuzz_vm *m, uint32_t n, uint32_t base, uint8_t vector)
{
    return fuzz_page(m, n, base + 16u * (vector / 32u)) >> vector % 32 & 1;
}

/* The highest vector of IRR that the interrupt enable register lets through. */
static int highest_enabled(const struct fuzz_vm *m, uint32_t n)
{
    for (uint32_t i = 8; i-- > 0;) {
        uint32_t word = fuzz_page(m, n, APIC_IRR + 16 * i);

        if (m->kind & FUZZ_EXTENDED && fuzz_page(m, n, APIC_EACR) & APIC_EXT_IER)
            word &= fuzz_page(m, n, APIC_IER + 16 * i);
        if (word != 0)
            return (int)(32 * i + 31 - (uint32_t)__builtin_clz(word));
    }
    return -1;
}

static uint32_t processor_priority(const struct fuzz_vm *m, uint32_t n)
{
    uint32_t tpr = fuzz_page(m, n, APIC_TPR) & 0xFF;
    int isr = fuzz_highest(m, n, APIC_ISR);
    uint32_t in_service = isr < 0 ? 0 : (uint32_t)isr & 0xF0;

    return (tpr & 0xF0) >= in_service ? tpr : in_service;
}

/* ---- The run loop ---- */

static void check_vector(struct fuzz_vm *m, uint32_t n, uint32_t can,
                         const struct vapic_entry *entry)
{
    uint32_t ppr = processor_priority(m, n);
    int highest = highest_enabled(m, n);
    bool enabled = (vapic_base(&m->v[n]) & APIC_BASE_EN) != 0 &&
                   (fuzz_page(m, n, APIC_SVR) & APIC_SVR_ENABLE) != 0;
    bool due = highest >= 0 && ((uint32_t)highest >> 4) > (ppr >> 4);

    if (entry->inject == VAPIC_INJECT_VECTOR) {
        fuzz_check(can & VAPIC_CAN_IRQ, "vCPU %u: a vector although it cannot take one", n);
        fuzz_check(due && entry->vector == highest,
                   "vCPU %u: vector %#x injected, %#x pending, PPR %#x", n, entry->vector,
                   (unsigned)highest, ppr);
    } else if (entry->inject == VAPIC_INJECT_NONE && can & VAPIC_CAN_IRQ &&
               !(can & VAPIC_INCOMPLETE) && entry->runnable) {
        fuzz_check(!due || !enabled, "vCPU %u: vector %#x left behind, PPR %#x", n,
                   (unsigned)highest, ppr);
    }
}

static void commit(struct fuzz_vm *m, uint32_t n, const struct vapic_entry *entry)
{
    bool auto_eoi = m->pv[n].auto_eoi[entry->vector / 64u] >> entry->vector % 64 & 1;

    vapic_commit(&m->v[n], entry);
    if (entry->inject != VAPIC_INJECT_VECTOR)
        return;
    fuzz_check(!fuzz_bit(m, n, APIC_IRR, entry->vector), "vCPU %u: %#x acknowledged, still in IRR",
               n, entry->vector);
    fuzz_check(auto_eoi || fuzz_bit(m, n, APIC_ISR, entry->vector),
               "vCPU %u: %#x acknowledged, not in ISR", n, entry->vector);
}

/*
 * In the guest. A set bit of the paravirtual EOI's word says that the vector in service concerns
 * nobody else and that nothing waits behind it (pv.h); the guest may clear it, and that is its EOI.
 */
static void run_guest(struct fuzz_vm *m, uint32_t n, uint8_t cr8)
{
    uint32_t *word = m->pv[n].word;
    bool set = m->pv[n].armed; /* else what is there is the guest's own */
    int highest = fuzz_highest(m, n, APIC_ISR);
    bool clear = set && m->clears;

    if (set) {
        fuzz_check(highest >= 0 && !fuzz_bit(m, n, APIC_TMR, (uint8_t)highest),
                   "vCPU %u: the word is set for vector %#x", n, (unsigned)highest);
        fuzz_check(highest_enabled(m, n) < 0, "vCPU %u: the word is set, and %#x waits", n,
                   (unsigned)highest_enabled(m, n));
    }
    if (clear)
        *word &= ~1u;
    vapic_exit(&m->v[n], cr8, true);
    fuzz_check(!set || !(*word & 1), "vCPU %u: the word is set outside of the guest", n);
    fuzz_check(!set || clear != fuzz_bit(m, n, APIC_ISR, (uint8_t)highest),
               "vCPU %u: vector %#x after the guest %s it by the word", n, (unsigned)highest,
               clear ? "ended" : "did not end");
}

int fuzz_step(struct fuzz_vm *m, uint32_t n, uint32_t can)
{
    struct vapic *v = &m->v[n];
    struct vapic_entry entry;
    uint32_t rounds = 0;

    if (m->blocked[n]) {
        vapic_unblock(v);
        m->blocked[n] = m->woken[n] = false;
    }
    do {
        vapic_enter(v, can, m->now, &entry);
        fuzz_check(++rounds < 8, "vCPU %u: INIT and SIPI without end", n);
    } while (entry.event != VAPIC_CPU_NONE);
    check_vector(m, n, can, &entry);
    if (!entry.runnable) {
        fuzz_check(entry.inject == VAPIC_INJECT_NONE, "vCPU %u: injection, not runnable", n);
        m->blocked[n] = vapic_block(v);
        return -1;
    }
    fuzz_check(entry.cr8 == (fuzz_page(m, n, APIC_TPR) & 0xFF) >> 4, "vCPU %u: CR8", n);
    if (entry.inject != VAPIC_INJECT_NONE)
        commit(m, n, &entry);
    run_guest(m, n, entry.cr8);
    return entry.inject == VAPIC_INJECT_VECTOR ? entry.vector : -1;
}

void fuzz_sent(struct fuzz_vm *m, struct vapic_sent sent)
{
    struct vapic *v;

    fuzz_check(sent.accepted <= FUZZ_VCPUS, "%u vCPUs accepted", sent.accepted);
    if (sent.accepted != 1)
        return;
    v = vapic_at(&m->vm, sent.target);
    fuzz_check(v != NULL, "accepted by vCPU %u, which is not there", sent.target);
    fuzz_act(m, v, (enum vapic_action)sent.action);
}

/* ---- What is always true ---- */

static uint8_t nonzero_words(const struct fuzz_vm *m, uint32_t n, uint32_t base)
{
    uint8_t words = 0;

    for (uint32_t i = 0; i < 8; i++)
        words |= (uint8_t)((fuzz_page(m, n, base + 16 * i) != 0) << i);
    return words;
}

static void consistent(struct fuzz_vm *m, uint32_t n)
{
    const struct vapic *v = &m->v[n];
    uint64_t base = vapic_base(v);

    fuzz_check(!m->locked, "a lock is still held");
    fuzz_check(!(base & APIC_BASE_EXTD) || base & APIC_BASE_EN, "vCPU %u: base %#llx", n,
               (unsigned long long)base);
    fuzz_check(fuzz_page(m, n, APIC_TPR) <= 0xFF, "vCPU %u: TPR", n);
    fuzz_check((fuzz_page(m, n, APIC_SVR) & ~0x13FFu) == 0, "vCPU %u: SVR", n);
    fuzz_check((fuzz_page(m, n, APIC_ISR) & 0xFFFF) == 0 || v->isr_touched,
               "vCPU %u: an exception's vector in service", n);
    fuzz_check(v->isr_words == nonzero_words(m, n, APIC_ISR), "vCPU %u: words of ISR", n);
    fuzz_check((nonzero_words(m, n, APIC_IRR) & ~v->irr_words) == 0, "vCPU %u: words of IRR", n);
    fuzz_check(vapic_activity(v) <= VAPIC_UNINITIALIZED, "vCPU %u: activity", n);
}

void fuzz_consistent(struct fuzz_vm *m)
{
    for (uint32_t n = 0; n < FUZZ_VCPUS; n++)
        consistent(m, n);
}
