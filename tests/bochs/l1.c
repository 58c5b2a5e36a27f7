/* SPDX-License-Identifier: MIT */
/*
 * The host: runs every case of its share as a VMX guest and prints one line for each, the case's
 * number and its outcome, on the parallel port, which Bochs writes to a file without a delay. The
 * first line tells what the processor has, the last is `end`.
 */
#include <stddef.h>

#include "program.h"
#include "vapic/arch/apicv.h"
#include "vmx.h"

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum {
    WORDS = 1024,
    VECTORS = 256,
    CODE64 = 0x18,
    DATA = 0x10,
    TSS = 0x20,
    USER_DATA = 0x33,
    USER_CODE = 0x3B
};
enum { PARALLEL_DATA = 0x378, PARALLEL_CONTROL = 0x37A, SHUTDOWN = 0x8900 };
enum { PARAMETERS = 0x8000 }; /* where Bochs loads a struct case_parameters */
enum { TIMER_TICKS = 20000 };
enum { PAGE_KINDS = 3 };

extern const char l2_start[], vm_exit[], interrupt_stubs[], gdt[], l2_stack_top[];
extern uint8_t tss[];
extern uint64_t pd[4 * 512];
unsigned vm_enter(bool again);

struct run run;

/* Pages that VMX wants; one to one, so that their addresses are physical. */
static uint64_t vmxon_region[512] __attribute__((aligned(4096)));
static uint64_t vmcs[512] __attribute__((aligned(4096)));
uint32_t virtual_apic[WORDS] __attribute__((aligned(4096)));
static uint8_t bitmap_clear[4096] __attribute__((aligned(4096)));
static uint8_t bitmap_set[4096] __attribute__((aligned(4096)));
static uint64_t descriptor[8] __attribute__((aligned(64)));
static uint64_t ept_pml4[512] __attribute__((aligned(4096)));
static uint64_t ept_pdpt[512] __attribute__((aligned(4096)));
static uint64_t ept_pd[4][512] __attribute__((aligned(4096)));
static uint64_t ept_pt[512] __attribute__((aligned(4096))); /* of the 2 MiB at ACCESS_PAGE */
static uint64_t msr_load[2] __attribute__((aligned(16)));
static uint8_t host_stack_of_guest[4096] __attribute__((aligned(16)));
static uint64_t idt[VECTORS][2];

static uint32_t initial[WORDS]; /* the virtual-APIC page as the case began */
static uint32_t patterns[PAGE_KINDS][WORDS];
static uint32_t access_initial[WORDS];
static volatile uint32_t *const access_page = (volatile uint32_t *)ACCESS_PAGE;
static volatile uint32_t *const local_apic = (volatile uint32_t *)0xFEE00000;
static unsigned kind_now = PAGE_KINDS;

static struct {
    uint32_t pin, primary, secondary, exit, entry;
    unsigned phys_bits;
    bool ept;
} must;

/* ---- Instructions ---- */

static void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;

    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
    return (uint64_t)hi << 32 | lo;
}

static void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static uint64_t read_cr(unsigned n)
{
    uint64_t value;

    if (n == 0)
        __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    else if (n == 3)
        __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    else
        __asm__ volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}

/* ---- Output ---- */

static void print_char(char c)
{
    outb(PARALLEL_DATA, (uint8_t)c);
    outb(PARALLEL_CONTROL, 0x0D); /* strobe */
    outb(PARALLEL_CONTROL, 0x0C);
}

static void print(const char *text)
{
    while (*text)
        print_char(*text++);
}

static void print_number(uint64_t value, unsigned base)
{
    char digits[21];
    unsigned n = sizeof(digits) - 1;

    digits[n] = 0;
    do {
        digits[--n] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    print(&digits[n]);
}

static void print_fact(const char *name, uint64_t value)
{
    print(name);
    print_number(value, 16);
}

static void __attribute__((noreturn)) stop(const char *why)
{
    print(why);
    print("\n");
    for (const char *c = "Shutdown"; *c; c++)
        outb(SHUTDOWN, (uint8_t)*c);
    for (;;)
        __asm__ volatile("hlt");
}

/* In the guest: a delivery of the case. In the host: an interrupt that a guest has left pending,
 * or the end. */
void on_interrupt(uint64_t vector, uint64_t rip)
{
    if (run.in_guest) {
        outcome_delivery(&run.outcome, (unsigned)vector);
        return;
    }
    if (vector >= 32)
        return;
    print_fact("exception ", vector);
    print_fact(" at ", rip);
    stop(" in the host");
}

/* ---- Setting up ---- */

static void make_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {sizeof(idt) - 1, (uint64_t)idt};

    for (unsigned i = 0; i < VECTORS; i++) {
        uint64_t at = (uint64_t)interrupt_stubs + 16 * i;

        idt[i][0] = (at & 0xFFFF) | CODE64 << 16 | 0x8E00ull << 32 | (at >> 16 & 0xFFFF) << 48;
        idt[i][1] = at >> 32;
    }
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

/* What must be 1 of a control word: low half of its capability MSR, the TRUE one if there is. */
static uint32_t must_be(uint32_t msr, uint32_t true_msr, uint32_t wanted)
{
    uint64_t caps = rdmsr(rdmsr(MSR_VMX_BASIC) >> 55 & 1 ? true_msr : msr);

    if (wanted & ~(uint32_t)(caps >> 32))
        stop("a control that the list needs does not exist");
    return (uint32_t)caps | wanted;
}

static void find_controls(void)
{
    uint32_t eax = 0x80000008, ebx, ecx = 0, edx;
    uint32_t secondary = (uint32_t)(rdmsr(MSR_VMX_SECONDARY_CTLS) >> 32);

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    must.phys_bits = eax & 0xFF;
    must.pin = must_be(MSR_VMX_PIN_CTLS, MSR_VMX_TRUE_PIN_CTLS, 0);
    must.primary = must_be(MSR_VMX_PRIMARY_CTLS, MSR_VMX_TRUE_PRIM_CTLS, 0);
    must.exit = must_be(MSR_VMX_EXIT_CTLS, MSR_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64);
    must.entry = must_be(MSR_VMX_ENTRY_CTLS, MSR_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64);
    must.ept = secondary & VMX_SEC_EPT;
}

static void print_header(const volatile struct case_parameters *parameters)
{
    print_fact("vapic basic=", rdmsr(MSR_VMX_BASIC));
    print_fact(" pin=", rdmsr(MSR_VMX_TRUE_PIN_CTLS));
    print_fact(" primary=", rdmsr(MSR_VMX_TRUE_PRIM_CTLS));
    print_fact(" secondary=", rdmsr(MSR_VMX_SECONDARY_CTLS));
    print_fact(" exit=", rdmsr(MSR_VMX_TRUE_EXIT_CTLS));
    print_fact(" misc=", rdmsr(MSR_VMX_MISC));
    print_fact(" phys=", must.phys_bits);
    print_fact(" end=", parameters->end);
    print_fact(" shares=", parameters->shares);
    print("\n");
}

static void make_pages(void)
{
    struct apicv_case c = {0};

    for (unsigned kind = 0; kind < PAGE_KINDS; kind++) {
        c.page = (uint8_t)kind;
        for (unsigned i = 0; i < WORDS; i++)
            patterns[kind][i] = case_page_word(&c, 4 * i);
    }
    for (unsigned i = 0; i < WORDS; i++)
        access_page[i] = access_initial[i] = case_access_word(4 * i);
    for (unsigned i = 0x100; i < 0x120; i++)
        bitmap_set[i] = bitmap_set[0x800 + i] = 0xFF;
    ept_pml4[0] = (uint64_t)ept_pdpt | 7;
    for (unsigned i = 0; i < 4; i++)
        ept_pdpt[i] = (uint64_t)ept_pd[i] | 7;
    for (unsigned i = 0; i < 4 * 512; i++)
        ept_pd[i / 512][i % 512] = (uint64_t)i << 21 | 0xB7; /* large, write-back, all rights */
    for (unsigned i = 0; i < 512; i++)
        ept_pt[i] = (ACCESS_PAGE + 4096ull * i) | 0x37;
    ept_pd[0][ACCESS_PAGE >> 21] = (uint64_t)ept_pt | 7;
    pd[WALKED >> 21] = ACCESS_PAGE | 7;
    *(uint64_t *)(void *)&tss[4] = (uint64_t)host_stack_of_guest + sizeof(host_stack_of_guest);
}

static void start_vmx(void)
{
    uint64_t cr4 = read_cr(4) | rdmsr(MSR_CR4_FIXED0) | CR4_VMXE | CR4_OSFXSR;
    uint64_t cr0 = read_cr(0) | rdmsr(MSR_CR0_FIXED0);

    wrmsr(MSR_FEATURE_CONTROL, FEATURE_LOCK_VMXON);
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
    vmxon_region[0] = vmcs[0] = rdmsr(MSR_VMX_BASIC) & 0x7FFFFFFF;
    uint64_t regions[] = {(uint64_t)vmxon_region, (uint64_t)vmcs};
    if (!vmxon(&regions[0]) || !vmclear(&regions[1]) || !vmptrld(&regions[1]))
        stop("VMXON, VMCLEAR or VMPTRLD failed");
}

/* ---- The parts of the VMCS that are the same for all ---- */

static void set(uint32_t field, uint64_t value)
{
    if (!vmwrite(field, value))
        stop("a field of the VMCS does not exist");
}

static void set_segments(void)
{
    for (unsigned n = 0; n < 8; n++) {
        bool ldtr = n == 6, tr = n == 7;

        set(GUEST_SELECTOR(n), tr ? TSS : 0);
        set(GUEST_LIMIT(n), tr ? 0x67 : UINT32_MAX);
        set(GUEST_RIGHTS(n), tr ? 0x8B : ldtr ? 0x10000 : 0);
        set(GUEST_BASE(n), tr ? (uint64_t)tss : 0);
    }
    for (unsigned n = 0; n < 7; n++)
        set(HOST_SELECTOR(n), n == 1 ? CODE64 : n == 6 ? TSS : DATA);
}

static void set_common(void)
{
    set_segments();
    set(GUEST_GDTR_BASE, (uint64_t)gdt);
    set(GUEST_GDTR_LIMIT, 0x3F);
    set(GUEST_IDTR_BASE, (uint64_t)idt);
    set(GUEST_IDTR_LIMIT, sizeof(idt) - 1);
    set(GUEST_CR0, read_cr(0));
    set(GUEST_CR3, read_cr(3));
    set(GUEST_CR4, read_cr(4));
    set(GUEST_DR7, 0x400);
    set(GUEST_DEBUGCTL, 0);
    set(VMCS_LINK, UINT64_MAX);
    set(EXCEPTION_BITMAP, UINT32_MAX);
    set(VMCS_ENTRY_CONTROLS, must.entry);
    set(VMCS_ENTRY_MSR_LOAD, (uint64_t)msr_load);
    set(HOST_CR0, read_cr(0));
    set(HOST_CR3, read_cr(3));
    set(HOST_CR4, read_cr(4));
    set(HOST_TR_BASE, (uint64_t)tss);
    set(HOST_GDTR_BASE, (uint64_t)gdt);
    set(HOST_IDTR_BASE, (uint64_t)idt);
    set(HOST_RIP, (uint64_t)vm_exit);
    set(VMCS_NOTIFICATION_VECTOR, 0xF2);
    if (must.ept)
        set(VMCS_EPTP, (uint64_t)ept_pml4 | 0x1E);
}

/* ---- A case ---- */

static uint32_t map(uint32_t controls, uint32_t from, uint32_t to)
{
    return controls & from ? to : 0;
}

static bool needs_timer(const struct apicv_case *c)
{
    bool halts = c->halted;

    for (unsigned i = 0; i < c->count; i++)
        halts |= c->ops[i].code == OP_HLT;
    return halts;
}

static void set_controls(const struct apicv_case *c)
{
    uint32_t n = c->controls;

    set(VMCS_PIN_CONTROLS, must.pin | map(n, C_EIE, VMX_PIN_EXTINT_EXITING) |
                               map(n, C_PPI, VMX_PIN_POSTED_INTERRUPTS) |
                               (needs_timer(c) ? VMX_PIN_PREEMPTION_TIMER : 0));
    set(VMCS_PRIMARY_CONTROLS,
        must.primary | map(n, C_TS, VMX_PRI_TPR_SHADOW) | map(n, C_SEC, VMX_PRI_SECONDARY) |
            map(n, C_BM, VMX_PRI_MSR_BITMAPS) | map(n, C_IWE, VMX_PRI_INTERRUPT_WINDOW) |
            map(n, C_HLT, VMX_PRI_HLT_EXITING) | map(n, C_CRL, VMX_PRI_CR8_LOAD) |
            map(n, C_CRS, VMX_PRI_CR8_STORE));
    set(VMCS_SECONDARY_CONTROLS,
        map(n, C_VAA, VMX_SEC_APIC_ACCESSES) | map(n, C_VX2, VMX_SEC_X2APIC) |
            map(n, C_ARV, VMX_SEC_APIC_REGISTER) | map(n, C_VID, VMX_SEC_INTERRUPT_DELIVERY) |
            (must.ept ? map(n, C_EPT, VMX_SEC_EPT) : 0));
    set(VMCS_EXIT_CONTROLS, must.exit | map(n, C_AIE, VMX_EXC_ACK_INTERRUPT));
}

static uint64_t spoilt(const struct apicv_case *c, const void *good, enum case_spoil align,
                       enum case_spoil width)
{
    if (c->spoil == align)
        return (uint64_t)good + 8;
    return c->spoil == width ? (uint64_t)good | 1ull << must.phys_bits : (uint64_t)good;
}

static void set_addresses(const struct apicv_case *c)
{
    const void *bitmap = c->controls & C_BITS ? bitmap_set : bitmap_clear;

    set(VMCS_VIRTUAL_APIC, spoilt(c, virtual_apic, SPOIL_VAPIC_ALIGN, SPOIL_VAPIC_WIDTH));
    set(VMCS_APIC_ACCESS, spoilt(c, (void *)ACCESS_PAGE, SPOIL_ACCESS_ALIGN, SPOIL_ACCESS_WIDTH));
    set(VMCS_MSR_BITMAP, spoilt(c, bitmap, SPOIL_BITMAP_ALIGN, SPOIL_BITMAP_WIDTH));
    set(VMCS_PID, spoilt(c, descriptor, SPOIL_PID_ALIGN, SPOIL_PID_WIDTH));
    set(VMCS_NOTIFICATION_VECTOR, c->spoil == SPOIL_VECTOR ? 0x1F2 : 0xF2);
}

static void set_privilege(bool user)
{
    for (unsigned n = 0; n < 6; n++) {
        bool code = n == 1;

        set(GUEST_SELECTOR(n), user ? (code ? USER_CODE : USER_DATA) : (code ? CODE64 : DATA));
        set(GUEST_RIGHTS(n), (code ? 0xA09B : 0xC093) | (user ? 3 << 5 : 0));
    }
}

/* The rights of the APIC-access page. */
static void set_ept(const struct apicv_case *c)
{
    static const uint8_t rights[] = {[EPT_ALL] = 0x37, [EPT_ABSENT] = 0, [EPT_READ_ONLY] = 0x35};
    uint64_t entry = rights[c->ept] ? ACCESS_PAGE | rights[c->ept] : 0;

    if (!must.ept || ept_pt[0] == entry)
        return;
    ept_pt[0] = entry;
    flush_ept();
}

/* State of every entry; the rest of the guest's goes on from exit to entry. */
static void set_entry(const struct apicv_case *c)
{
    set(VMCS_TPR_THRESHOLD, c->threshold);
    set(VMCS_GUEST_RIP, (uint64_t)l2_start);
    set(GUEST_RSP, (uint64_t)l2_stack_top);
    set_privilege(c->user);
    set(VMCS_GUEST_RFLAGS, vmread(VMCS_GUEST_RFLAGS) & ~(uint64_t)VMX_RFLAGS_RF);
    set(VMCS_GUEST_INTERRUPTIBILITY, c->blocking);
    set(VMCS_ENTRY_INTR_INFO, c->inject ? VMX_INFO_VALID | c->inject : 0);
    set(VMCS_GUEST_PENDING_DEBUG, 0);
    set(PREEMPTION_TIMER, TIMER_TICKS >> (rdmsr(MSR_VMX_MISC) & 31));
}

static void set_case(const struct apicv_case *c)
{
    set_controls(c);
    set_addresses(c);
    set_ept(c);
    msr_load[0] = c->load_msr;
    set(VMCS_ENTRY_MSR_LOAD_COUNT, c->load_msr ? 1 : 0);
    set(VMCS_GUEST_RFLAGS, 2 | (c->interrupt_flag ? VMX_RFLAGS_IF : 0));
    set(VMCS_GUEST_ACTIVITY, c->halted ? VMX_ACTIVITY_HLT : VMX_ACTIVITY_ACTIVE);
    set(VMCS_GUEST_INTERRUPT_STATUS, VMX_STATUS_MAKE(c->rvi, c->svi));
    for (unsigned i = 0; i < 4; i++)
        set(VMCS_EOI_EXIT0 + 2 * i, c->eoi_exit[i]);
}

static void copy(volatile void *to, const void *from, size_t size)
{
    size /= 8;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

/* The word of the first difference at or after `from`; WORDS when there is none. */
static unsigned differs(const volatile uint32_t *a, const uint32_t *b, unsigned from)
{
    const volatile uint32_t *x = a + (from & ~1u);
    const uint32_t *y = b + (from & ~1u);
    size_t left = (WORDS - (from & ~1u)) / 2;
    bool equal;

    if (!left)
        return WORDS;
    __asm__ volatile("repe cmpsq" : "+D"(x), "+S"(y), "+c"(left), "=@cce"(equal) : : "memory");
    if (equal)
        return WORDS;
    from = from > (unsigned)(x - a) - 2 ? from : (unsigned)(x - a) - 2;
    while (from < WORDS && a[from] == b[from])
        from++;
    return from;
}

/* The words that depend on more than the page's kind: TPR, ISR and IRR. */
static void set_pages(const struct apicv_case *c)
{
    if (kind_now != c->page)
        copy(initial, patterns[c->page], sizeof(initial));
    kind_now = c->page;
    for (uint32_t i = 0; i < 8; i++) {
        initial[0x100 / 4 + 4 * i] = case_page_word(c, 0x100 + 16 * i);
        initial[0x200 / 4 + 4 * i] = case_page_word(c, 0x200 + 16 * i);
    }
    initial[0x080 / 4] = case_page_word(c, 0x080);
    copy(virtual_apic, initial, sizeof(initial));
}

static void send_self(uint8_t vector)
{
    local_apic[0x0F0 / 4] = 0x1FF;
    local_apic[0x300 / 4] = 0x44000u | vector;
}

/* Takes whatever the guest left pending, and ends whatever it took. */
static void drain(void)
{
    __asm__ volatile("sti\n nop\n nop\n cli" : : : "memory");
    for (unsigned i = 0; i < 3; i++)
        local_apic[0x0B0 / 4] = 0;
}

static void note_exit(uint32_t reason)
{
    struct outcome_exit exit = {
        .reason = reason,
        .qualification = vmread(VMCS_EXIT_QUALIFICATION),
        .length = (uint32_t)vmread(VMCS_EXIT_LENGTH),
        .intr_info = (uint32_t)vmread(VMCS_EXIT_INTR_INFO),
        .vectoring = (uint32_t)vmread(VMCS_IDT_VECTORING),
        .rip = vmread(VMCS_GUEST_RIP),
        .before = run.before,
        .behind = run.behind,
        .blocking = (uint8_t)vmread(VMCS_GUEST_INTERRUPTIBILITY),
        .resume = vmread(VMCS_GUEST_RFLAGS) & VMX_RFLAGS_RF,
        .halted = vmread(VMCS_GUEST_ACTIVITY) == VMX_ACTIVITY_HLT,
        .gpa = vmread(VMCS_GUEST_PHYSICAL_ADDRESS) - ACCESS_PAGE,
    };

    if (reason == EXIT_EXCEPTION)
        outcome_exception(&run.outcome, exit.intr_info & 0xFF);
    else if (reason >> 31)
        outcome_entry_exit(&run.outcome, reason, exit.qualification);
    else
        outcome_exit(&run.outcome, &exit);
}

/* One entry and exit; false when the case is over. */
static bool enter(bool *launched)
{
    uint32_t reason;
    unsigned failed;

    run.before = run.behind = 0;
    run.in_guest = true;
    failed = vm_enter(*launched);
    run.in_guest = false;
    if (failed) {
        outcome_entry_error(&run.outcome, failed == 2 ? vmread(VMCS_INSTRUCTION_ERROR) : 0);
        return false;
    }
    *launched = true;
    reason = (uint32_t)vmread(VMCS_EXIT_REASON);
    if (reason == EXIT_VMCALL)
        return false;
    note_exit(reason);
    if (reason >> 31)
        return false;
    if (reason == EXIT_EXTERNAL)
        drain();
    case_after_exit(&run.c, reason);
    run.c.inject = run.c.blocking = 0;
    set(VMCS_GUEST_ACTIVITY, VMX_ACTIVITY_ACTIVE);
    return true;
}

static void note_page(char name, volatile uint32_t *page, const uint32_t *was)
{
    for (unsigned i = differs(page, was, 0); i < WORDS; i = differs(page, was, i + 1))
        outcome_word(&run.outcome, name, 4 * i, page[i]);
}

static void run_case(uint32_t n)
{
    static bool launched;
    bool physical;

    case_make(n, &run.c);
    physical = run.c.physical != 0;
    outcome_begin(&run.outcome);
    run.next = 0;
    set_pages(&run.c);
    set_case(&run.c);
    __asm__ volatile("mov %0, %%cr8" : : "r"(0ul) : "memory");
    if (physical)
        send_self(run.c.physical);
    for (unsigned i = 0; i < CASE_ENTRIES; i++) {
        set_controls(&run.c);
        set_entry(&run.c);
        if (!enter(&launched))
            break;
    }
    __asm__ volatile("mov %0, %%cr8" : : "r"(0ul) : "memory");
    if (physical)
        drain();
    if ((run.c.controls & (C_SEC | C_VID)) == (C_SEC | C_VID))
        outcome_status(&run.outcome, (uint16_t)vmread(VMCS_GUEST_INTERRUPT_STATUS));
    note_page('p', virtual_apic, initial);
    if (differs(access_page, access_initial, 0) < WORDS) {
        note_page('a', access_page, access_initial);
        copy(access_page, access_initial, sizeof(access_initial));
    }
    print_number(n, 10);
    print(run.outcome.text);
    print("\n");
}

void l1_main(void)
{
    const volatile struct case_parameters *parameters =
        (const volatile struct case_parameters *)PARAMETERS;

    outb(0x21, 0xFF); /* nothing from the PICs */
    outb(0xA1, 0xFF);
    make_idt();
    make_pages();
    start_vmx();
    find_controls();
    set_common();
    print_header(parameters);
    for (uint32_t n = 0; n < parameters->end; n++)
        if (case_in_share(n, parameters->shares))
            run_case(n);
    stop("end");
}
