/* SPDX-License-Identifier: MIT */
/*
 * Trace events: handing them to the listener, and their text.
 *
 * The texts are those that Linux's tracepoints of the same names print (seen with trace-cmd on
 * Linux 6.1), so that a tool that reads the one reads the other; the vapic_ events are our own.
 * vapic_trace_emit() is called from everywhere by the TRACE macro, the rest by hosts.
 */
#include "internal.h"
#include "vapic/accel.h"
#include "vapic/arch/ioapic.h"
#include "vapic/arch/msi.h"

void vapic_trace(struct vapic_vm *vm, vapic_trace_fn fn, void *ctx)
{
    vapic_store_ptr(&vm->trace_ctx, ctx, VAPIC_RELAXED);
    vapic_store_ptr(&vm->trace, fn, VAPIC_RELEASE);
}

void vapic_trace_emit(struct vapic_vm *vm, enum vapic_event_kind kind, uint32_t vcpu,
                      const uint64_t arg[4])
{
    struct vapic_event event = {
        .kind = kind, .vcpu = vcpu, .arg = {arg[0], arg[1], arg[2], arg[3]}};
    vapic_trace_fn fn = vapic_load_ptr(&vm->trace, VAPIC_ACQUIRE);

    if (fn != NULL)
        fn(vapic_load_ptr(&vm->trace_ctx, VAPIC_RELAXED), &event);
}

/* ---- Writing text without a C library ---- */

/* `length` is what the full text needs; only what fits is stored. */
struct writer {
    char *text;
    size_t size;
    size_t length;
};

static void put_char(struct writer *w, char c)
{
    if (w->length + 1 < w->size)
        w->text[w->length] = c;
    w->length++;
}

static void put(struct writer *w, const char *text)
{
    for (; *text != '\0'; text++)
        put_char(w, *text);
}

static void put_number(struct writer *w, uint64_t value, unsigned base)
{
    char digits[20];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (n > 0)
        put_char(w, digits[--n]);
}

static void put_hex(struct writer *w, const char *before, uint64_t value)
{
    put(w, before);
    put_number(w, value, 16);
}

/* At least `digits` digits, zeros before. */
static void put_hex_padded(struct writer *w, const char *before, uint32_t value, unsigned digits)
{
    put(w, before);
    for (unsigned n = digits; n > 1 && value >> (n - 1) * 4 == 0; n--)
        put_char(w, '0');
    put_number(w, value, 16);
}

static void put_dec(struct writer *w, const char *before, uint64_t value)
{
    put(w, before);
    put_number(w, value, 10);
}

/* As C's %d prints the low 32 bits. */
static void put_signed(struct writer *w, const char *before, uint64_t value)
{
    int64_t number = (int32_t)value;

    put(w, before);
    if (number < 0)
        put_char(w, '-');
    put_number(w, (uint64_t)(number < 0 ? -number : number), 10);
}

/* ---- Words that several events share ---- */

/* ICR, LVT, RTE and MSI data have the delivery mode at the same place. */
static const char *delivery_mode(uint64_t word)
{
    static const char *const names[8] = {"Fixed", "LowPrio", "SMI",  "Res3",
                                         "NMI",   "INIT",    "SIPI", "ExtINT"};

    return names[(word >> 8) & 7];
}

static const char *trigger_mode(bool level)
{
    return level ? "level" : "edge";
}

/* "dst 1 vec 49 (Fixed|physical|edge" */
static void put_route(struct writer *w, uint64_t dest, uint64_t word, bool logical)
{
    put_hex(w, "dst ", dest);
    put_dec(w, " vec ", word & 0xFF);
    put(w, " (");
    put(w, delivery_mode(word));
    put(w, logical ? "|logical|" : "|physical|");
}

/* A redirection entry. KVM knows no extended destination, its tracepoints print eight bits. */
static void put_entry(struct writer *w, uint64_t entry)
{
    put_route(w, entry >> 56, entry, (entry & IOAPIC_RTE_LOGICAL) != 0);
    put(w, trigger_mode((entry & IOAPIC_RTE_LEVEL) != 0));
    put(w, entry & IOAPIC_RTE_MASKED ? "|masked)" : ")");
}

/* ---- One function per form of text; `arg` has what vapic.h says beside the event ---- */

struct register_name {
    uint16_t offset;
    const char *name;
};

/* The names that the tracepoint prints, which are not the manual's. Others are printed as numbers.
 */
static const struct register_name register_names[] = {
    {APIC_ID, "ID"},          {APIC_LVR, "LVR"},
    {APIC_TPR, "TASKPRI"},    {APIC_APR, "ARBPRI"},
    {APIC_PPR, "PROCPRI"},    {APIC_EOI, "EOI"},
    {APIC_RRR, "RRR"},        {APIC_LDR, "LDR"},
    {APIC_DFR, "DFR"},        {APIC_SVR, "SPIV"},
    {APIC_ISR, "ISR"},        {APIC_TMR, "TMR"},
    {APIC_IRR, "IRR"},        {APIC_ESR, "ESR"},
    {APIC_ICR, "ICR"},        {APIC_ICR2, "ICR2"},
    {APIC_LVT_TIMER, "LVTT"}, {APIC_LVT_THERMAL, "LVTTHMR"},
    {APIC_LVT_PMC, "LVTPC"},  {APIC_LVT_LINT0, "LVT0"},
    {APIC_LVT_LINT1, "LVT1"}, {APIC_LVT_ERROR, "LVTERR"},
    {APIC_TMICT, "TMICT"},    {APIC_TMCCT, "TMCCT"},
    {APIC_TDCR, "TDCR"},      {APIC_SELF_IPI, "SELF_IPI"},
    {APIC_EAFR, "EFEAT"},     {APIC_EACR, "ECTRL"},
};

static void put_register(struct writer *w, uint64_t offset)
{
    for (size_t n = 0; n < sizeof(register_names) / sizeof(register_names[0]); n++) {
        if (register_names[n].offset == offset) {
            put(w, "APIC_");
            put(w, register_names[n].name);
            return;
        }
    }
    put_hex(w, "0x", offset);
}

/* arg[0]: bit 0 write, bit 1 by MSR. The tracepoint names an x2APIC register by its xAPIC offset.
 */
static void format_apic(struct writer *w, const uint64_t *arg)
{
    uint64_t where = arg[1];

    put(w, arg[0] & 1 ? "apic_write " : "apic_read ");
    if (!(arg[0] & 2))
        put_register(w, where);
    else if (where >= MSR_X2APIC_FIRST && where <= MSR_X2APIC_LAST)
        put_register(w, (where - MSR_X2APIC_FIRST) << 4);
    else
        put_hex(w, "msr 0x", where);
    put_hex(w, " = 0x", arg[2]);
}

static void format_apic_ipi(struct writer *w, const uint64_t *arg)
{
    static const char *const shorthands[4] = {"dst", "self", "all", "all-but-self"};
    uint64_t icr = arg[0];

    put_route(w, arg[1], icr, (icr & APIC_ICR_LOGICAL) != 0);
    put(w, icr & APIC_ICR_ASSERT ? "assert|" : "de-assert|");
    put(w, trigger_mode((icr & APIC_ICR_LEVEL) != 0));
    put_char(w, '|');
    put(w, shorthands[(icr >> 18) & 3]);
    put_char(w, ')');
}

static void format_accept(struct writer *w, const uint64_t *arg)
{
    put_hex(w, "apicid ", arg[0]);
    put_dec(w, " vec ", arg[3]);
    put(w, " (");
    put(w, delivery_mode(arg[1] << 8));
    put_char(w, '|');
    put(w, trigger_mode(arg[2] != 0));
    put_char(w, ')');
}

static void format_eoi(struct writer *w, const uint64_t *arg)
{
    put_hex(w, "apicid ", arg[0]);
    put_signed(w, " vector ", arg[1]);
}

static void format_inject(struct writer *w, const uint64_t *arg)
{
    put(w, arg[1] ? "Soft/INTn" : "IRQ");
    put_hex(w, " 0x", arg[0]);
    put(w, arg[2] ? " [reinjected]" : "");
}

static void format_msi(struct writer *w, const uint64_t *arg)
{
    uint64_t address = arg[0];
    uint64_t dest = (address >> MSI_ADDR_DEST_SHIFT & 0xFF) | (address >> 32 & 0xFFFFFF00u);

    put_route(w, dest, arg[1], (address & MSI_ADDR_LOGICAL) != 0);
    put(w, trigger_mode((arg[1] & MSI_DATA_LEVEL) != 0));
    put(w, address & MSI_ADDR_REDIRECT ? "|rh)" : ")");
}

static void format_ioapic(struct writer *w, const uint64_t *arg)
{
    put_dec(w, "pin ", arg[0]);
    put_char(w, ' ');
    put_entry(w, arg[1]);
    put(w, arg[2] ? " (coalesced)" : "");
}

static void format_delayed(struct writer *w, const uint64_t *arg)
{
    put_entry(w, arg[0]);
}

static void format_set_irq(struct writer *w, const uint64_t *arg)
{
    put_dec(w, "gsi ", arg[0]);
    put_signed(w, " level ", arg[1]);
    put_signed(w, " source ", arg[2]);
}

/* KVM has one I/O APIC; the position of ours is in arg[0] for who wants it. */
static void format_ack_irq(struct writer *w, const uint64_t *arg)
{
    put_dec(w, "irqchip IOAPIC pin ", arg[1]);
}

static void format_timer(struct writer *w, const uint64_t *arg)
{
    static const char *const clocks[] = {"none", "ns", "tsc"};

    put_hex(w, "apicid ", arg[0]);
    put(w, " clock ");
    put(w, arg[1] < 3 ? clocks[arg[1]] : "?");
    put_dec(w, " when ", arg[2]);
}

static void format_base(struct writer *w, const uint64_t *arg)
{
    put_hex(w, "apicid ", arg[0]);
    put_hex(w, " old 0x", arg[1]);
    put_hex(w, " new 0x", arg[2]);
}

static void format_cpu_event(struct writer *w, const uint64_t *arg)
{
    static const char *const events[] = {"none", "INIT", "SIPI"};

    put_hex(w, "apicid ", arg[0]);
    put_char(w, ' ');
    put(w, arg[1] < 3 ? events[arg[1]] : "?");
    put_hex(w, " vector 0x", arg[2]);
}

/* The reasons of a set, in the order of their bits; bits without a name as one number. */
static void put_inhibits(struct writer *w, uint64_t set)
{
    static const char *const reasons[] = {
#define VAPIC_X(name, number, avic, apicv, text) [number] = #name,
        VAPIC_INHIBITS(VAPIC_X)
#undef VAPIC_X
    };
    const unsigned count = sizeof(reasons) / sizeof(reasons[0]);
    const char *before = " ";

    for (unsigned n = 0; n < count; n++) {
        if (set >> n & 1) {
            put(w, before);
            put(w, reasons[n]);
            before = "|";
        }
    }
    if (set >> count != 0) {
        put(w, before);
        put_hex(w, "0x", set >> count << count);
    }
}

static void format_inhibit(struct writer *w, const uint64_t *arg)
{
    put(w, arg[1] ? "set" : "cleared");
    put_dec(w, " reason=", arg[0]);
    put_hex(w, ", inhibits=0x", arg[2]);
    put_inhibits(w, arg[2]);
}

static void format_incomplete_ipi(struct writer *w, const uint64_t *arg)
{
    put_hex_padded(w, "icrh:icrl=0x", (uint32_t)arg[0], 8);
    put_hex_padded(w, ":", (uint32_t)arg[1], 8);
    put_dec(w, ", id=", arg[2]);
    put_dec(w, ", index=", arg[3]);
}

static void format_unaccelerated(struct writer *w, const uint64_t *arg)
{
    put_hex(w, "offset=0x", arg[0]);
    put_char(w, '(');
    put_register(w, arg[0]);
    put(w, arg[1] & 1 ? "), trap, " : "), fault, ");
    put(w, arg[1] & 2 ? "write" : "read");
    put_hex(w, ", vec=0x", arg[2]);
}

static void format_doorbell(struct writer *w, const uint64_t *arg)
{
    put_dec(w, "vcpuid=", arg[0]);
    put_dec(w, ", apicid=", arg[1]);
}

/* The tracepoint pads the upper half less. */
static void format_slowpath(struct writer *w, const uint64_t *arg)
{
    put_hex_padded(w, "icrh:icrl=0x", (uint32_t)arg[0], 6);
    put_hex_padded(w, ":", (uint32_t)arg[1], 8);
    put_dec(w, ", index=", arg[2]);
}

static void format_ga_log(struct writer *w, const uint64_t *arg)
{
    put_dec(w, "vmid=", arg[0]);
    put_dec(w, ", vcpuid=", arg[1]);
}

static void (*const formats[])(struct writer *w, const uint64_t *arg) = {
    [VAPIC_EVENT_APIC] = format_apic,
    [VAPIC_EVENT_APIC_IPI] = format_apic_ipi,
    [VAPIC_EVENT_APIC_ACCEPT_IRQ] = format_accept,
    [VAPIC_EVENT_EOI] = format_eoi,
    [VAPIC_EVENT_INJ_VIRQ] = format_inject,
    [VAPIC_EVENT_MSI_SET_IRQ] = format_msi,
    [VAPIC_EVENT_IOAPIC_SET_IRQ] = format_ioapic,
    [VAPIC_EVENT_IOAPIC_DELAYED_EOI] = format_delayed,
    [VAPIC_EVENT_SET_IRQ] = format_set_irq,
    [VAPIC_EVENT_ACK_IRQ] = format_ack_irq,
    [VAPIC_EVENT_TIMER] = format_timer,
    [VAPIC_EVENT_BASE] = format_base,
    [VAPIC_EVENT_CPU_EVENT] = format_cpu_event,
    [VAPIC_EVENT_APICV_INHIBIT_CHANGED] = format_inhibit,
    [VAPIC_EVENT_AVIC_INCOMPLETE_IPI] = format_incomplete_ipi,
    [VAPIC_EVENT_AVIC_UNACCELERATED_ACCESS] = format_unaccelerated,
    [VAPIC_EVENT_AVIC_DOORBELL] = format_doorbell,
    [VAPIC_EVENT_AVIC_KICK_VCPU_SLOWPATH] = format_slowpath,
    [VAPIC_EVENT_AVIC_GA_LOG] = format_ga_log,
    [VAPIC_EVENT_APICV_ACCEPT_IRQ] = format_accept,
    [VAPIC_EVENT_PV_EOI] = format_eoi,
};

/* Their texts begin with the vCPU. */
static bool names_vcpu(uint32_t kind)
{
    return kind == VAPIC_EVENT_AVIC_INCOMPLETE_IPI || kind == VAPIC_EVENT_AVIC_UNACCELERATED_ACCESS;
}

static const char *const names[] = {
#define VAPIC_X(name, event) [VAPIC_EVENT_##name] = #event,
    VAPIC_EVENTS(VAPIC_X)
#undef VAPIC_X
};

_Static_assert(sizeof(formats) / sizeof(formats[0]) == VAPIC_EVENT_COUNT,
               "every event has a format");

const char *vapic_event_name(uint32_t kind)
{
    return kind < VAPIC_EVENT_COUNT ? names[kind] : NULL;
}

size_t vapic_event_format(const struct vapic_event *event, char *text, size_t size)
{
    struct writer w = {.text = text, .size = size};

    if (names_vcpu(event->kind)) {
        put_dec(&w, "vcpu=", event->vcpu);
        put(&w, ", ");
    }
    if ((uint32_t)event->kind < VAPIC_EVENT_COUNT)
        formats[event->kind](&w, event->arg);
    else
        put_dec(&w, "unknown event ", (uint32_t)event->kind);
    if (size > 0)
        text[w.length < size ? w.length : size - 1] = '\0';
    return w.length;
}
